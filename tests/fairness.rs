//! Who asks much, reads slowly, or has set up a slow query takes nothing from others.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::{Value as Json, json};
use tokio::{
    net::TcpSocket,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    auth::{
        issuer::{self, SECRET},
        opened,
    },
    support::{Raw, Server, Socket, raw::TEXT, stack::Stack},
};

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

/// A gateway on all that, whose queries may take so long.
fn slow(query_timeout: Duration) -> Server {
    let ms = query_timeout.as_millis();
    let config = format!("[database]\nquery_timeout_ms = {ms}\n{SLOW}");
    Server::configured(&config, TABLES)
}

const TABLES: &str = "
PRAGMA journal_mode = WAL;
CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
INSERT INTO t VALUES (1, 0), (2, 0);
";

/// How long the slow query runs before it is interrupted.
const LONG: Duration = Duration::from_secs(20);

/// What a row by its key, and a page, may take while others ask for much: far less than the slow query has.
const SOON: Duration = Duration::from_secs(7);

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
    let stack = Stack::with(topics, tables, 1, "query_timeout_ms = 30000");
    let mut socket = stack.gateways[0].socket("types=t").await;
    // Whatever is done once is done by now.
    socket.ask(json!({ "type": "t", "rid": 1, "id": 1 })).await;
    socket
        .ask(json!({ "type": "slow", "rid": 2, "id": 1 }))
        .await;
    let (before, begun) = (stack.gateways[0].cpu(), Instant::now());
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
    let (used, took) = (stack.gateways[0].cpu() - before, begun.elapsed());
    assert!(took > Duration::from_millis(1900), "{took:?}");
    assert!(used < took / 4, "{used:?} of the processor in {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_by_their_key_do_not_wait_behind_one_sockets_slow_queries() {
    let server = slow(LONG);
    let mut greedy = server.socket("types=t").await;
    let mut other = server.socket("types=t").await;
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

/// Asks for much that takes a second, by as many sockets as one identity may have.
async fn pile_up(server: &Server, headers: &[(&str, &str)]) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for number in 0..20 {
        let mut socket = opened(server, headers).await;
        for page in [1, 2] {
            let params = json!({ "page": 2 * number + page, "size": 1 });
            socket
                .send(json!({ "type": "slow", "rid": page, "params": params }))
                .await;
        }
        // What comes first is read first, so all of that is asked for by then.
        socket.ask(json!({ "type": "sys:ping", "rid": 3 })).await;
        sockets.push(socket);
    }
    sockets
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_looked_for_does_not_wait_behind_all_that_others_ask_for() {
    let config = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[auth]\nkey = \"{SECRET}\"\nanonymous = true
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"slow\"
query = \"SELECT 1 AS id, pg_sleep(1)::text AS slept\"
watch = [\"t\"]
key = [\"id\"]
"
    );
    let tables = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0);";
    let stack = Stack::with(&config, tables, 1, "query_timeout_ms = 30000");
    let server = &stack.gateways[0];
    let token = |sub: &str| issuer::hs256(&json!({ "sub": sub, "exp": issuer::now() + 600 }));
    let (greedy, modest) = (token("greedy"), token("modest"));
    let from = "x-forwarded-for";
    // One of them is known by name, and the other one by his address only.
    let _named = pile_up(server, &[("token", &greedy), (from, "192.0.2.1")]).await;
    let _nameless = pile_up(server, &[(from, "192.0.2.2")]).await;
    for others in [
        &[("token", &*modest), (from, "192.0.2.1")][..],
        &[(from, "192.0.2.3")],
    ] {
        let mut other = opened(server, others).await;
        for (params, id) in [
            (json!({ "page": 2, "size": 1 }), 2),
            (json!({ "filter": { "n": 0 }, "order": "id desc" }), 2),
        ] {
            let asked = Instant::now();
            let reply = other.ask(json!({ "type": "t", "rid": 1, "params": params }));
            let reply = reply.await;
            assert_eq!(reply["data"][0]["id"], id, "{reply}");
            let took = asked.elapsed();
            assert!(took < SOON, "{took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_pages_that_are_slow_do_not_hold_up_others() {
    const LARGE: [&str; 4] = ["a", "b", "c", "d"];
    let mut config = format!("[auth]\nkey = \"{SECRET}\"\n");
    let mut tables = String::new();
    for table in LARGE.iter().chain(&["t"]) {
        config += &format!("[[topics]]\ntype = \"{table}\"\ntable = \"{table}\"\n");
        tables += &format!("CREATE TABLE {table} (id int PRIMARY KEY);");
    }
    tables += "INSERT INTO t VALUES (1)";
    let stack = Stack::with(&config, &tables, 1, "query_timeout_ms = 20000");
    let server = &stack.gateways[0];
    // As long as tables are locked nobody reads them.
    let lock = format!("BEGIN; LOCK {} IN ACCESS EXCLUSIVE MODE", LARGE.join(", "));
    stack.database.sql(&lock);
    let mut greedy = Vec::new();
    for topics in LARGE.chunks(2) {
        let mut socket = known(server, "greedy").await;
        for (rid, topic) in topics.iter().enumerate() {
            socket.send(json!({ "type": topic, "rid": rid })).await;
        }
        // What comes first is read first, so all of that is asked for by then.
        socket.ask(json!({ "type": "sys:ping", "rid": 9 })).await;
        greedy.push(socket);
    }
    let mut modest = known(server, "modest").await;
    let row = json!({ "type": "t", "rid": 1, "id": 1 });
    for ask in [row, json!({ "type": "t", "rid": 1 })] {
        let asked = Instant::now();
        let reply = modest.ask(ask).await;
        assert_eq!(reply["data"][0]["id"], 1, "{reply}");
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    stack.database.sql("ROLLBACK");
}

/// A gateway with so many connections, and identities of whom each always waits for what is too slow.
async fn besieged(connections: usize, greedy: usize) -> (Stack, JoinSet<()>) {
    let config = format!(
        "[auth]
key = \"{SECRET}\"
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"slow\"
query = \"SELECT 1 AS id, pg_sleep(20)::text AS slept\"
watch = [\"nothing\"]
key = [\"id\"]
"
    );
    let tables = "CREATE TABLE nothing (id int PRIMARY KEY);
                  CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0), (2, 0);";
    let limits = format!("query_timeout_ms = 1000\nread_connections = {connections}");
    let stack = Stack::with(&config, tables, 1, &limits);
    let mut besieging = JoinSet::new();
    for number in 0..greedy {
        let mut socket = known(&stack.gateways[0], &format!("greedy {number}")).await;
        let mut page = 1000 * number;
        let mut more = move || {
            page += 1;
            json!({ "type": "slow", "rid": page, "params": { "page": page, "size": 1 } })
        };
        for _ in 0..4 {
            socket.send(more()).await;
        }
        besieging.spawn(async move {
            loop {
                socket
                    .next_where("a reply", |frame| !frame["rid"].is_null())
                    .await;
                socket.send(more()).await;
            }
        });
    }
    (stack, besieging)
}

/// A socket of somebody.
async fn known(server: &Server, sub: &str) -> Socket {
    let claims = json!({ "sub": sub, "exp": issuer::now() + 600 });
    opened(server, &[("token", &issuer::hs256(&claims))]).await
}

/// How many of so many filters that somebody asks for, one after the other, are answered and not too late.
async fn answered(server: &Server, asks: usize) -> usize {
    let mut modest = known(server, "modest").await;
    let mut answered = 0;
    for rid in 0..asks {
        let params = json!({ "filter": { "n": 0 }, "order": "id desc" });
        let reply = modest.ask(json!({ "type": "t", "rid": rid, "params": params }));
        let reply = reply.await;
        match reply["error"].as_str() {
            None => assert_eq!(reply["data"][0]["id"], 2, "{reply}"),
            Some(error) => assert_eq!(error, "query_timeout", "{reply}"),
        }
        answered += usize::from(reply["error"].is_null());
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_while_others_have_all_places_has_the_next() {
    let asked = async |connections, greedy| {
        let (stack, _besieging) = besieged(connections, greedy).await;
        answered(&stack.gateways[0], 12).await
    };
    let asked = join_all([asked(3, 1), asked(5, 3)]).await;
    assert!(
        asked.iter().all(|answered| *answered >= 9),
        "{asked:?} of 12"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_in_vain_and_asks_again_has_his_turn_however_many_want_more() {
    let (stack, _besieging) = besieged(5, 9).await;
    let answered = answered(&stack.gateways[0], 12).await;
    assert!(answered >= 3, "{answered} of 12");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_is_answered_however_many_wait_for_their_turn() {
    const ASKERS: u32 = 12;
    let config = format!(
        "[auth]\nkey = \"{SECRET}\"
[[topics]]
type = \"slow\"
query = \"SELECT 1 AS id, pg_sleep(0.4)::text AS slept\"
watch = [\"t\"]
key = [\"id\"]
"
    );
    let tables = "CREATE TABLE t (id int PRIMARY KEY);";
    // Each has his turn every eleven seconds, and waits for two and a half.
    let limits = "query_timeout_ms = 1000\nread_connections = 3";
    let stack = Stack::with(&config, tables, 1, limits);
    let server = &stack.gateways[0];
    let ask = async |number: u32| {
        let claims = json!({ "sub": number.to_string(), "exp": issuer::now() + 600 });
        let mut socket = opened(server, &[("token", &issuer::hs256(&claims))]).await;
        // Not all at once, or all would give up at once.
        let mut pace = interval(Duration::from_millis(200));
        for _ in 0..number {
            pace.tick().await;
        }
        let (begun, mut answered, mut page) = (Instant::now(), 0, number);
        while begun.elapsed() < Duration::from_secs(15) {
            page += ASKERS;
            let params = json!({ "page": page, "size": 1 });
            let reply = socket.ask(json!({ "type": "slow", "rid": page, "params": params }));
            let reply = reply.await;
            let late = reply["error"] == "query_timeout";
            assert!(late || reply["type"] == "slow", "{reply}");
            answered += u64::from(!late);
        }
        answered
    };
    let answered = join_all((1..=ASKERS).map(ask)).await;
    let answered: u64 = answered.into_iter().sum();
    let read = server.counted("queries_total{kind=\"ok\"}").await;
    // The gateway reads the page for itself, too.
    assert!(
        read > 5 && answered * 4 >= read * 3,
        "{answered} answers of {read} reads"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_in_time_holds_up_no_other() {
    let server = slow(LONG);
    let mut socket = server.socket("types=pages").await;
    let database = Connection::open(server.database()).unwrap();
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
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_while_a_slow_page_is_read_has_it_neither_read_nor_pushed_again() {
    let topics = "
[[topics]]
type = \"slow\"
query = \"SELECT 1 AS id, n, pg_sleep(0.4)::text AS slept FROM t WHERE id = 1\"
watch = [\"t\"]
key = [\"id\"]
";
    let tables = "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 0);";
    let stack = Stack::new(topics, tables, 1);
    let server = &stack.gateways[0];
    let mut listener = server.socket("types=slow").await;
    let write = |n: u32| stack.database.sql(&format!("UPDATE t SET n = {n}"));
    write(1);
    let page = listener.next_where("a page", |frame| frame["data"][0]["n"] == 1);
    let since = page.await["cursor"].as_str().unwrap().to_owned();
    write(2);
    let mut pace = interval(Duration::from_millis(150));
    for _ in 0..40 {
        pace.tick().await;
        drop(server.socket(&format!("types=slow&since={since}")).await);
    }
    let mut last = server.socket(&format!("types=slow&since={since}")).await;
    let page = last.next_where("a page", |frame| frame["type"] == "slow");
    assert_eq!(page.await["data"][0]["n"], 2);
    listener
        .send(json!({ "type": "sys:ping", "rid": "end" }))
        .await;
    let mut pages = 0;
    loop {
        let frame = listener.next().await;
        if frame["rid"] == "end" {
            break;
        }
        pages += u64::from(frame["type"] == "slow");
    }
    // One for the write, and others where it was read before the commit was visible: not one for each time.
    assert!((1..=3).contains(&pages), "{pages} pages for one write");
}

#[test]
fn a_page_that_cannot_be_read_in_time_is_told_in_the_log() {
    let server = slow(Duration::from_millis(500));
    server.logged("a page could not be read in time, several times");
}

/// How long a client may take nothing in the tests of slow readers: longer than the machine stands still.
const PATIENCE: Duration = Duration::from_secs(4);

/// A client for which the kernel holds some bytes beyond what it has read.
async fn slow_reader(server: &Server) -> Raw {
    let slow = TcpSocket::new_v4().unwrap();
    slow.set_recv_buffer_size(128 * 1024).unwrap();
    let slow = slow.connect(server.address().parse().unwrap()).await;
    Raw::shaking_hands(slow.unwrap(), server).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_served_as_long_as_it_reads_and_the_kernel_holds_little_for_it() {
    const EVENTS: usize = 400;
    const EVENT_BYTES: usize = 20_000;
    let ms = PATIENCE.as_millis();
    let config = format!("[server]\nwrite_timeout_ms = {ms}\n[[topics]]\ntype = \"news\"\n");
    let server = Server::configured(&config, "");
    let mut slow = slow_reader(&server).await;
    let text = "x".repeat(EVENT_BYTES);
    let publish = async {
        for number in 0..EVENTS {
            let event = json!({ "type": "news", "data": { "number": number, "text": text } });
            assert_eq!(server.post("/api/events", event).await.0, 202);
        }
    };
    let read = async {
        let (mut pace, begun) = (interval(Duration::from_millis(200)), Instant::now());
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0..EVENTS {
            let (opcode, payload) = slow.next().await.expect("the connection goes on");
            assert_eq!(opcode, 1, "after {number} events");
            let event: Json = serde_json::from_slice(&payload).unwrap();
            assert_eq!(event["data"]["number"], number);
            // A tenth of a megabyte a second, and never a pause: had the kernel taken megabytes for it, the
            // server would not see for much longer than it has patience that anything is read.
            if begun.elapsed() < 3 * PATIENCE {
                pace.tick().await;
            }
        }
    };
    tokio::join!(publish, read);
    assert_eq!(server.counted("sessions").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_has_all_the_time_that_one_large_frame_takes() {
    const ROWS: usize = 300;
    const ROW_BYTES: usize = 8000;
    let ms = PATIENCE.as_millis();
    let config = format!(
        "[server]\nwrite_timeout_ms = {ms}\n[[topics]]\ntype = \"big\"\ntable = \"big\"\npage_size = {ROWS}\nmax_page_size = {ROWS}\n"
    );
    let rows = format!(
        "CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO big SELECT i, printf('%.*c', {ROW_BYTES}, 'x') FROM n;"
    );
    let server = Server::configured(&config, &rows);
    let mut slow = slow_reader(&server).await;
    slow.frame(TEXT, br#"{"type":"big","rid":1}"#).await;
    let (mut got, begun) = (0, Instant::now());
    let mut pace = interval(Duration::from_millis(100));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A fifth of a megabyte a second: three times as long as it may take nothing.
    while got < ROWS * ROW_BYTES {
        let some = slow.some(20_000).await.len();
        assert!(some > 0, "cut off after {got} bytes, {:?}", begun.elapsed());
        got += some;
        pace.tick().await;
    }
    assert!(begun.elapsed() > PATIENCE * 2, "{:?}", begun.elapsed());
    assert_eq!(server.counted("sessions").await, 1);
}
