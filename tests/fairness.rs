//! Who asks much, reads slowly, or has set up a slow query takes nothing from others.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value as Json, json};
use tokio::{net::TcpSocket, time::interval};

use crate::support::{Raw, Server, stack::Stack, wait_for};

/// A table, and a query that runs until it is interrupted.
const SLOW: &str = "
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"pages\"
table = \"t\"
push = \"page\"
[[topics]]
type = \"slow\"
query = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000000) SELECT 1 AS id, count(*) AS n FROM n, t WHERE t.id = 1\"
watch = [\"t\"]
key = [\"id\"]
";

const TABLES: &str = "
PRAGMA journal_mode = WAL;
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO t VALUES (1, 0), (2, 0);
";

/// What a row by its key, and a page, may take while others ask for much: far less than the slow query has.
const SOON: Duration = Duration::from_millis(1500);

/// The processor time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_waits_for_another_query_costs_no_processor_time() {
    let topics = "
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"slow\"
query = \"SELECT 1 AS id, pg_sleep(2)::text AS slept\"
watch = [\"t\"]
key = [\"id\"]
";
    let tables = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0);";
    let stack = Stack::new(topics, tables, 1);
    let mut socket = stack.gateways[0].socket("?types=t").await;
    // Whatever is done once is done by now.
    socket.ask(json!({ "type": "t", "rid": 1, "id": 1 })).await;
    socket
        .ask(json!({ "type": "slow", "rid": 2, "id": 1 }))
        .await;
    let (before, begun) = (cpu(stack.gateways[0].pid()), Instant::now());
    socket
        .send(json!({ "type": "slow", "rid": "slow", "id": 1 }))
        .await;
    socket
        .send(json!({ "type": "t", "rid": "soon", "id": 1 }))
        .await;
    for _ in 0..2 {
        let reply = socket.next_where("a reply", |frame| !frame["rid"].is_null());
        let reply = reply.await;
        assert!(reply["error"].is_null(), "{reply}");
    }
    let (used, took) = (cpu(stack.gateways[0].pid()) - before, begun.elapsed());
    assert!(took > Duration::from_millis(1900), "{took:?}");
    assert!(used < took / 4, "{used:?} of the processor in {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_their_key_do_not_wait_behind_one_sockets_slow_queries() {
    let server = Server::configured(SLOW, TABLES);
    let mut greedy = server.socket("?types=t").await;
    let mut other = server.socket("?types=t").await;
    for page in 1..=4 {
        let params = json!({ "page": page, "size": 1 });
        greedy
            .send(json!({ "type": "slow", "rid": page, "params": params }))
            .await;
    }
    let begun = Instant::now();
    let mut pace = interval(Duration::from_millis(100));
    let mut answers = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        let reply = other.ask(json!({ "type": "t", "rid": 1, "id": 1 })).await;
        assert_eq!(reply["data"][0]["id"], 1, "{reply}");
        let took = asked.elapsed();
        assert!(took < SOON, "{took:?} after {answers} answers");
        answers += 1;
        pace.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_in_time_holds_up_no_other() {
    let server = Server::configured(SLOW, TABLES);
    let mut socket = server.socket("?types=pages").await;
    let database = Connection::open(server.database()).unwrap();
    let mut pace = interval(Duration::from_millis(500));
    for n in 1..=4 {
        let written = Instant::now();
        database
            .execute("UPDATE t SET n = ?1 WHERE id = 2", [n])
            .unwrap();
        loop {
            let page = socket.next_of("pages").await;
            if page["data"][1]["n"] == n {
                break;
            }
        }
        let took = written.elapsed();
        assert!(took < SOON, "page {n} after {took:?}");
        pace.tick().await;
    }
    wait_for("the log to say which page", || {
        let told = "a page could not be read in time, several times";
        server.log().contains(told).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_served_as_long_as_it_reads_and_the_kernel_holds_little_for_it() {
    const EVENTS: usize = 400;
    const EVENT_BYTES: usize = 20_000;
    let config = "[server]\nwrite_timeout_ms = 1000\n[[topics]]\ntype = \"news\"\n";
    let server = Server::configured(config, "");
    let slow = TcpSocket::new_v4().unwrap();
    slow.set_recv_buffer_size(128 * 1024).unwrap();
    let slow = slow.connect(server.address().parse().unwrap()).await;
    let mut slow = Raw::shaking_hands(slow.unwrap(), &server).await;
    let text = "x".repeat(EVENT_BYTES);
    let publish = async {
        for number in 0..EVENTS {
            let event = json!({ "type": "news", "data": { "number": number, "text": text } });
            assert_eq!(server.post("/api/events", event).await.0, 202);
        }
    };
    let read = async {
        let mut pace = interval(Duration::from_millis(20));
        for number in 0..EVENTS {
            let (opcode, payload) = slow.next().await.expect("the connection goes on");
            assert_eq!(opcode, 1, "after {number} events");
            let event: Json = serde_json::from_slice(&payload).unwrap();
            assert_eq!(event["data"]["number"], number);
            // A megabyte a second, and never a pause.
            pace.tick().await;
        }
    };
    tokio::join!(publish, read);
    assert_eq!(server.counted("sessions").await, 1);
}
