//! A query of PostgreSQL joins the stream exactly, also in the two windows in which an LSN lies: a
//! commit that is streamed before it is visible, and one that is visible before it is flushed.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

use crate::support::{
    Options, STANDSTILL, Server, Socket,
    postgres::{Cluster, Database},
    stack::Stack,
    wait_until,
};

const TOPICS: &str = "
[limits]
messages_burst = 1000
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"pages\"
table = \"t\"
push = \"page\"
";

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i;
";

/// What the reply says of one row.
fn n(reply: &Json, id: i64) -> i64 {
    let rows = reply["data"].as_array().unwrap();
    let row = rows.iter().find(|row| row["id"] == id);
    row.unwrap_or_else(|| panic!("no row {id} in {reply}"))["n"]
        .as_i64()
        .unwrap()
}

fn is_exact(reply: &Json) -> bool {
    reply["exact"].is_null()
}

/// Asks until the reply is exact: on a machine that is busy elsewhere the stream may be late.
async fn exact(socket: &mut Socket, ask: Json) -> Json {
    for _ in 0..20 {
        let reply = socket.ask(ask.clone()).await;
        if is_exact(&reply) {
            return reply;
        }
    }
    panic!("no reply is exact");
}

/// Runs a statement that may not come to an end, on a connection of its own.
async fn begin(database: &Database, sql: &'static str) -> JoinHandle<()> {
    let (client, driver) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(driver);
    tokio::spawn(async move { client.batch_execute(sql).await.unwrap() })
}

fn standbys(database: &Database, names: &str) {
    database.sql(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
    ));
    database.sql("SELECT pg_reload_conf()");
}

async fn http(stack: &Stack, path: &str) -> Json {
    let (status, body) = stack.gateways[0].get(path).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_exact_and_costs_some_milliseconds() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let mut socket = stack.gateways[0].socket("").await;
    let asks = [
        json!({"id": 3}),
        json!({"params": {"all": true}}),
        json!({"params": {"filter": {"n": 0}, "size": 5}}),
        json!({"params": {"page": 2, "size": 5, "order": "id desc"}}),
    ];
    let (mut took, mut inexact) = (Vec::new(), 0);
    for round in 0..60 {
        let mut ask = asks[round % asks.len()].clone();
        ask["type"] = "t".into();
        ask["rid"] = round.into();
        let begun = Instant::now();
        let reply = socket.ask(ask).await;
        took.push(begun.elapsed());
        inexact += usize::from(!is_exact(&reply));
        assert!(reply["cursor"].is_string(), "{reply}");
    }
    assert!(inexact < 10, "{inexact} of 60 are not exact");
    took.sort();
    println!("exact replies: p50 {:?}, p90 {:?}", took[30], took[54]);
    let reply = http(&stack, "/api/query/t?id=3").await;
    assert!(reply["cursor"].is_string(), "{reply}");
    // Nobody answers marks any more.
    let mut stack = stack;
    stack.producers.clear();
    let begun = Instant::now();
    let reply = socket.ask(json!({"type": "t", "rid": 1, "id": 3})).await;
    assert_eq!(reply["exact"], false, "{reply}");
    assert!(
        begun.elapsed() < Duration::from_secs(2) + STANDSTILL,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_streamed_before_it_is_visible_stays_behind_the_reply() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let mut before = stack.gateways[0].socket("types=t").await;
    exact(&mut before, json!({"type": "t", "rid": 1, "id": 1})).await;
    standbys(&stack.database, "nobody");
    let commit = begin(&stack.database, "UPDATE t SET n = 7 WHERE id = 1").await;
    let event = before.next_of("t").await;
    assert_eq!(
        (&event["op"], &event["data"]["n"]),
        (&json!("update"), &json!(7))
    );
    assert!(!commit.is_finished(), "the commit waits for a standby");
    assert_eq!(stack.database.one("SELECT n FROM t WHERE id = 1"), "0");

    // Whoever has seen the event cannot be told what was before it as if it came after it.
    let reply = before
        .ask(json!({"type": "t", "rid": 1, "params": {"all": true}}))
        .await;
    assert_eq!(
        (n(&reply, 1), &reply["exact"]),
        (0, &json!(false)),
        "{reply}"
    );

    // Who begins with the reply is told its place, and gets the event after it.
    let reply = wait_until("an exact reply", async || {
        let reply = http(&stack, "/api/query/t?all=true").await;
        is_exact(&reply).then_some(reply)
    })
    .await;
    assert_eq!((n(&reply, 1), is_exact(&reply)), (0, true), "{reply}");
    let since = reply["cursor"].as_str().unwrap();
    let mut after = stack.gateways[0]
        .socket(&format!("types=t&since={since}"))
        .await;
    let event = after.next_of("t").await;
    assert_eq!(event["data"]["n"], 7, "{event}");

    standbys(&stack.database, "");
    commit.await.unwrap();
    let reply = exact(
        &mut before,
        json!({"type": "t", "rid": 1, "params": {"all": true}}),
    )
    .await;
    assert_eq!((n(&reply, 1), is_exact(&reply)), (7, true), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_a_commit_as_soon_as_it_is_visible() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let mut socket = stack.gateways[0].socket("types=pages").await;
    standbys(&stack.database, "nobody");
    let commit = begin(&stack.database, "UPDATE t SET n = 8 WHERE id = 2").await;
    // Another topic's reader shows that the change has come through.
    wait_until("the commit to be streamed", async || {
        let mut rows = stack.gateways[0].socket("types=t").await;
        let reply = rows.ask(json!({"type": "t", "rid": 1, "id": 2})).await;
        (reply["exact"] == false).then_some(())
    })
    .await;
    standbys(&stack.database, "");
    commit.await.unwrap();
    loop {
        let page = socket.next_of("pages").await;
        if n(&page, 2) == 8 {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_visible_before_it_is_flushed_stands_before_the_reply() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    stack
        .database
        .sql("ALTER SYSTEM SET wal_writer_delay = '10s'");
    stack.database.sql("SELECT pg_reload_conf()");
    let mut socket = stack.gateways[0].socket("types=t").await;
    exact(&mut socket, json!({"type": "t", "rid": 1, "id": 1})).await;
    let mut placed = 0;
    for round in 1..=20_i64 {
        stack.database.sql(&format!(
            "SET synchronous_commit = off; UPDATE t SET n = {round} WHERE id = 4"
        ));
        socket
            .send(json!({"type": "t", "rid": round, "id": 4}))
            .await;
        let (mut event, mut reply) = (socket.next().await, socket.next().await);
        if reply["op"] != "replace" && event["exact"] == false {
            // It said that it does not know its place.
            std::mem::swap(&mut event, &mut reply);
        }
        assert_eq!(
            (&event["op"], &event["data"]["n"]),
            (&json!("update"), &json!(round)),
            "{event}"
        );
        assert_eq!((n(&reply, 4), &reply["rid"]), (round, &json!(round)));
        placed += i32::from(is_exact(&reply));
    }
    assert!(placed >= 10, "{placed} of 20 have a place");
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_are_exact_with_the_embedded_bus_too() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    database.sql(TABLES);
    let gateway = Server::with(Options {
        config: Some(format!(
            "[database]\nurl = \"{}\"\n[bus]\nurl = \"embedded:\"\n{TOPICS}",
            database.url()
        )),
        ..Options::default()
    });
    let mut socket = gateway.socket("types=t").await;
    let mut placed = 0;
    for n in 1..=20 {
        database.sql(&format!("UPDATE t SET n = {n} WHERE id = 5"));
        socket.send(json!({"type": "t", "rid": n, "id": 5})).await;
        let (first, second) = (socket.next().await, socket.next().await);
        match first["op"].as_str() {
            Some("update") => {
                assert_eq!(self::n(&second, 5), n, "{second}");
                placed += i32::from(is_exact(&second));
            }
            _ => assert_eq!(first["exact"], false, "{first}"),
        }
    }
    assert!(placed >= 10, "{placed} of 20 have a place");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prepared_transaction_or_a_savepoint_did_is_placed_like_any_other() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let database = &stack.database;
    let mut socket = stack.gateways[0].socket("types=t").await;
    let ask = || json!({"type": "t", "rid": 1, "params": {"all": true}});
    database.sql("BEGIN; UPDATE t SET n = 70 WHERE id = 7; PREPARE TRANSACTION 'later'");
    let reply = exact(&mut socket, ask()).await;
    assert_eq!(n(&reply, 7), 0, "{reply}");
    database.sql(
        "BEGIN; UPDATE t SET n = 80 WHERE id = 8; SAVEPOINT a; UPDATE t SET n = 90 WHERE id = 9;
         ROLLBACK TO a; UPDATE t SET n = 91 WHERE id = 9; COMMIT",
    );
    database.sql("COMMIT PREPARED 'later'");
    socket.send(ask()).await;
    // All three events stand before the reply that has seen them.
    let mut seen = Vec::new();
    let reply = loop {
        let frame = socket.next().await;
        if frame["op"] == "replace" && is_exact(&frame) {
            break frame;
        }
        if frame["op"] == "replace" {
            socket.send(ask()).await;
            continue;
        }
        seen.push(frame["data"]["n"].as_i64().unwrap());
    };
    assert_eq!(seen, [80, 91, 70]);
    let told = [7, 8, 9].map(|id| n(&reply, id));
    assert_eq!(told, [70, 80, 91], "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_runs_for_long_leaves_replies_exact() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let (client, driver) = tokio_postgres::connect(&stack.database.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(driver);
    let begin = "BEGIN; UPDATE t SET n = 1 WHERE id = 11";
    client.batch_execute(begin).await.unwrap();
    let mut socket = stack.gateways[0].socket("types=t").await;
    for round in 1..=20 {
        let sql = format!("UPDATE t SET n = {round} WHERE id = 12");
        stack.database.sql(&sql);
        let ask = json!({"type": "t", "rid": round, "params": {"all": true}});
        let reply = exact(&mut socket, ask).await;
        assert_eq!((n(&reply, 11), n(&reply, 12)), (0, round), "{reply}");
    }
    client.batch_execute("COMMIT").await.unwrap();
    let reply = exact(&mut socket, json!({"type": "t", "rid": 1, "id": 11})).await;
    assert_eq!(n(&reply, 11), 1, "{reply}");
}
