//! Too many queries, too slow ones, and one socket's cost to the others.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::json;

use super::ids;
use crate::support::{Options, Server, wait_until};

/// A query on this is never done within 300 ms: the pattern nearly fits at each place of each
/// text.
const HEAVY: &str = "
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO big SELECT i, printf('%.*c', 1000, 'a') FROM n;
    CREATE TABLE small (id INTEGER PRIMARY KEY);
    INSERT INTO small VALUES (1);";

const TOPICS: &str = "
[[topics]]
type = \"big\"
table = \"big\"

[[topics]]
type = \"small\"
table = \"small\"

[database]
query_timeout_ms = 300
";

fn heavy(rid: u64) -> serde_json::Value {
    let pattern = format!("%{}b", "a".repeat(200));
    json!({ "type": "big", "rid": rid, "params": { "filter": { "text": { "like": pattern } } } })
}

#[tokio::test]
async fn too_many_queries_are_refused_and_every_rid_is_answered_exactly_once() {
    let server = Server::configured(TOPICS, HEAVY);
    let mut socket = server.socket("").await;
    let begun = Instant::now();
    socket.send_together((0..30).map(heavy)).await;
    let mut answers = HashMap::new();
    let mut asked_for = Duration::ZERO;
    while answers.len() < 30 {
        let answer = socket.next().await;
        assert_eq!(answer["type"], "sys:error");
        if answer["code"] == 429 {
            asked_for = begun.elapsed();
            assert_eq!(answer["error"], "too_many_requests");
            assert!(answer["retry_after_ms"].as_u64().unwrap() > 0);
        }
        let before = answers.insert(answer["rid"].as_u64().unwrap(), answer["code"].clone());
        assert_eq!(before, None, "answered twice: {answer}");
    }
    let refused = answers.values().filter(|code| **code == 429).count();
    // 2 run and 8 wait. On a machine that stands still some may end, 2 of them each time, before all were asked.
    let turns = usize::try_from(asked_for.as_millis() / 300).unwrap();
    let least = 20_usize.saturating_sub(2 * turns);
    assert!(
        (least..=20).contains(&refused),
        "{turns} turns: {answers:?}"
    );
    let slow = answers.values().filter(|code| **code == 504).count();
    assert_eq!(slow, 30 - refused, "what ran was too slow: {answers:?}");
    // The socket is as good as new, and nothing more comes for what was asked before.
    let reply = socket.ask(json!({ "type": "small", "rid": 99 })).await;
    assert_eq!(ids(&reply), [1]);
    socket.send(json!({ "type": "sys:ping", "rid": 100 })).await;
    assert_eq!(
        socket.next().await,
        json!({ "type": "sys:pong", "rid": 100 })
    );
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_a_504_and_the_socket_stays_in_the_group() {
    let server = Server::configured(TOPICS, HEAVY);
    let mut socket = server.socket("").await;
    let answer = socket.ask(heavy(1)).await;
    let expected = json!({
        "type": "sys:error", "rid": 1, "code": 504, "error": "query_timeout", "msg": "查询超时",
    });
    assert_eq!(answer, expected);
    crate::support::sqlite3(&server.database(), "INSERT INTO small VALUES (2)");
    assert_eq!(socket.next_of("small").await["op"], "insert");
}

#[tokio::test]
async fn many_quick_queries_at_once_are_each_answered_once_and_in_full() {
    let server = super::care();
    let mut socket = server.socket("").await;
    for rid in 0..200 {
        socket
            .send(json!({ "type": "patient", "rid": rid, "id": rid % 4 + 1 }))
            .await;
    }
    let mut seen = [false; 200];
    for _ in 0..200 {
        let answer = socket.next().await;
        let rid = usize::try_from(answer["rid"].as_u64().unwrap()).unwrap();
        assert!(
            !std::mem::replace(&mut seen[rid], true),
            "answered twice: {answer}"
        );
        match answer["type"].as_str().unwrap() {
            "patient" => assert_eq!(ids(&answer), [i64::try_from(rid % 4 + 1).unwrap()]),
            _ => assert_eq!(answer["code"], 429),
        }
    }
}

#[tokio::test]
async fn one_socket_may_be_allowed_to_ask_more() {
    let server = Server::with(Options {
        config: Some(format!(
            "{}\n[server]\nqueries_running = 1\nqueries_queued = 0\n[limits]\nmessages_burst = 200\n",
            super::CARE
        )),
        database: Some(super::CARE_TABLES.into()),
        env: vec![("ROWCAST__SERVER__QUERIES_QUEUED".into(), "500".into())],
        ..Options::default()
    });
    let mut socket = server.socket("").await;
    for rid in 0..200 {
        socket
            .send(json!({ "type": "patient", "rid": rid, "id": 1 }))
            .await;
    }
    // One runs at a time, so they come in the order in which they were asked.
    for rid in 0..200 {
        let answer = socket.next().await;
        assert_eq!(
            (&answer["type"], &answer["rid"]),
            (&json!("patient"), &json!(rid))
        );
    }
}

#[tokio::test]
async fn a_table_that_is_away_is_a_503_and_the_socket_stays_until_it_is_back() {
    let server = Server::configured(TOPICS, HEAVY);
    let mut socket = server.socket("").await;
    crate::support::sqlite3(
        &server.database(),
        "ALTER TABLE small RENAME TO elsewhere; UPDATE big SET text = '' WHERE id = 1",
    );
    let answer = socket.ask(json!({ "type": "small", "rid": 1 })).await;
    let expected = json!({
        "type": "sys:error", "rid": 1, "code": 503, "error": "db_unavailable",
        "msg": "数据库暂时不可用",
    });
    assert_eq!(answer, expected);
    crate::support::sqlite3(&server.database(), "ALTER TABLE elsewhere RENAME TO small");
    wait_until("the table to be back", async || {
        let (code, reply) = server.get("/api/query/small").await;
        (code == 200).then(|| assert_eq!(ids(&reply), [1]))
    })
    .await;
    let reply = socket.ask(json!({ "type": "small", "rid": 2 })).await;
    assert_eq!(ids(&reply), [1]);
    crate::support::sqlite3(&server.database(), "INSERT INTO small VALUES (2)");
    let insert = |frame: &serde_json::Value| frame["type"] == "small" && frame["op"] == "insert";
    socket.next_where("an insert", insert).await;
}

#[tokio::test]
async fn a_client_that_floods_is_answered_all_the_same() {
    let often = "[limits]\nmessages_per_second = 100000\nmessages_burst = 1000000\n";
    let server = Server::configured(&format!("{TOPICS}{often}"), HEAVY);
    let mut socket = server.socket("").await;
    let ping = json!({ "type": "sys:ping" });
    let (mut sent, mut answered) = (0, false);
    socket.send(json!({ "type": "small", "rid": "q" })).await;
    // As fast as it can, and never waiting for an answer before the next frame is on its way.
    while !answered {
        for _ in 0..64 {
            socket.send(ping.clone()).await;
        }
        sent += 64;
        assert!(sent < 500_000, "a flood kept the answer waiting");
        for _ in 0..32 {
            answered |= socket.next().await["rid"] == "q";
        }
    }
}
