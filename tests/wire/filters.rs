//! Subscriptions with filters: which rows are pushed, and what becomes of the others.

use serde_json::{Value as Json, json};

use super::{care, members};
use crate::support::{Server, Socket, sqlite3};

/// What was sent up to the next event of the topic for applications, in short.
async fn told(server: &Server, socket: &mut Socket, sql: &str) -> Vec<Json> {
    sqlite3(&server.database(), sql);
    // The change stands before it in the stream only once it was captured.
    let mut witness = server.socket("types=stay").await;
    sqlite3(
        &server.database(),
        "UPDATE stay SET note = note || '.' WHERE day = 7",
    );
    witness.next_of("stay").await;
    server
        .post("/api/events", json!({ "type": "notice" }))
        .await;
    let mut frames = Vec::new();
    loop {
        let frame = socket.news().await;
        if frame["type"] == "notice" {
            return frames;
        }
        let key = frame["key"]["id"].clone();
        frames.push(json!([frame["type"], frame["op"], key]));
        if frame["op"] == "delete" {
            assert_eq!(members(&frame)[..4], ["type", "op", "key", "data"]);
            assert_eq!(frame["data"], Json::Null);
        }
    }
}

#[tokio::test]
async fn a_filter_shows_the_rows_that_it_holds_for_and_takes_the_others_away() {
    let server = care();
    let mut socket = server.socket("types=notice").await;
    let ok = socket
        .ask(json!({ "type": "sys:subscribe", "rid": 1,
            "types": { "patient": { "filter": { "ward": "3", "age": { "gte": 80 } } } } }))
        .await;
    assert_eq!(members(&ok), ["type", "rid", "cursor"]);
    for (sql, expected) in [
        (
            "UPDATE patient SET age = 87 WHERE id = 1",
            json!([["patient", "update", 1]]),
        ),
        // SQLite does not tell the row before: whoever is outside now may have been inside.
        (
            "UPDATE patient SET ward = '4' WHERE id = 1",
            json!([["patient", "delete", 1]]),
        ),
        (
            "UPDATE patient SET age = 92 WHERE id = 3",
            json!([["patient", "delete", 3]]),
        ),
        (
            "UPDATE patient SET ward = '3' WHERE id = 3",
            json!([["patient", "update", 3]]),
        ),
        (
            "INSERT INTO patient VALUES (9, 'n', '3', 80, NULL)",
            json!([["patient", "insert", 9]]),
        ),
        (
            "UPDATE patient SET age = NULL WHERE id = 9",
            json!([["patient", "delete", 9]]),
        ),
        // Out of the topic's own view.
        (
            "UPDATE patient SET left_at = 'x' WHERE id = 2",
            json!([["patient", "delete", 2]]),
        ),
        (
            "UPDATE patient SET id = 30 WHERE id = 3",
            json!([["patient", "update", 30]]),
        ),
        // It may have taken the key of a row inside: two rows to tell of.
        (
            "UPDATE patient SET id = 31, ward = '1' WHERE id = 30",
            json!([["patient", "reload", null]]),
        ),
        (
            "DELETE FROM patient WHERE id = 31",
            json!([["patient", "delete", 31]]),
        ),
    ] {
        assert_eq!(
            Json::from(told(&server, &mut socket, sql).await),
            expected,
            "{sql}"
        );
    }
}

#[tokio::test]
async fn a_filter_on_the_key_leaves_out_everything_about_other_rows() {
    let server = care();
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1,
        "types": { "patient": { "filter": { "id": [1, 2, 20] } }, "notice": {} } });
    assert_eq!(socket.ask(hello).await["type"], "sys:welcome");
    for (sql, expected) in [
        (
            "UPDATE patient SET age = 1 WHERE id IN (1, 3)",
            json!([["patient", "update", 1]]),
        ),
        (
            "DELETE FROM patient WHERE id IN (2, 3)",
            json!([["patient", "delete", 2]]),
        ),
        // In from outside: the row before is known by its key.
        (
            "UPDATE patient SET id = 20 WHERE id = 4",
            json!([["patient", "insert", 20]]),
        ),
        (
            "UPDATE patient SET id = 21 WHERE id = 20",
            json!([["patient", "delete", 20]]),
        ),
        ("UPDATE patient SET id = 22 WHERE id = 21", json!([])),
    ] {
        assert_eq!(
            Json::from(told(&server, &mut socket, sql).await),
            expected,
            "{sql}"
        );
    }
}

#[tokio::test]
async fn a_subscription_without_a_filter_takes_every_row_again() {
    let server = care();
    let mut socket = server.socket("").await;
    let filter = json!({ "type": "sys:subscribe", "rid": 1,
        "types": { "patient": { "filter": { "name": { "like": "王%" } } } } });
    socket.ask(filter.clone()).await;
    // It still takes all topics.
    let change = "UPDATE patient SET age = age + 1 WHERE id IN (1, 2)";
    let filtered = |frames: Vec<Json>| {
        let patients = frames.into_iter().filter(|frame| frame[0] == "patient");
        patients.map(|frame| frame[1].clone()).collect::<Vec<_>>()
    };
    let frames = told(&server, &mut socket, change).await;
    assert!(frames.iter().any(|frame| frame[0] == "stay"), "{frames:?}");
    assert_eq!(filtered(frames), ["update", "delete"]);
    socket
        .ask(json!({ "type": "sys:subscribe", "rid": 2, "types": ["patient"] }))
        .await;
    let frames = told(&server, &mut socket, change).await;
    assert_eq!(filtered(frames), ["update", "update"]);
    socket.ask(filter).await;
    socket
        .ask(json!({ "type": "sys:unsubscribe", "rid": 3, "types": ["patient"] }))
        .await;
    assert!(filtered(told(&server, &mut socket, change).await).is_empty());
    // Who subscribes again has no filter left from before.
    socket
        .ask(json!({ "type": "sys:subscribe", "rid": 4, "types": { "patient": {} } }))
        .await;
    let frames = told(&server, &mut socket, change).await;
    assert_eq!(filtered(frames), ["update", "update"]);
}

#[tokio::test]
async fn applications_events_and_reloads_pass_every_filter() {
    let server = care();
    let mut socket = server.socket("types=patient").await;
    socket
        .ask(json!({ "type": "sys:subscribe", "rid": 1,
            "types": { "patient": { "filter": { "ward": "no such" } } } }))
        .await;
    let (code, _) = server
        .post("/api/events", json!({ "type": "patient", "data": "hear" }))
        .await;
    assert_eq!(code, 202);
    assert_eq!(socket.next().await["data"], "hear");
    sqlite3(
        &server.database(),
        "ALTER TABLE patient ADD COLUMN diet TEXT",
    );
    let reload = socket
        .next_where("a reload", |frame| frame["op"] == "reload")
        .await;
    assert_eq!(reload["type"], "patient");
    // The filter holds on, and new columns can be asked for.
    socket
        .ask(json!({ "type": "sys:subscribe", "rid": 2,
            "types": { "patient": { "filter": { "diet": "soft" } } } }))
        .await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET diet = 'soft' WHERE id = 1; UPDATE patient SET diet = 'x' WHERE id = 2",
    );
    let ops = [socket.next().await, socket.next().await];
    assert_eq!([&ops[0]["op"], &ops[1]["op"]], ["update", "delete"]);
}

#[tokio::test]
async fn a_filter_that_cannot_be_judged_is_refused_and_changes_nothing() {
    let server = care();
    let mut socket = server.socket("types=patient").await;
    for (types, about) in [
        (
            json!({ "board": { "filter": { "id": 1 } } }),
            "types: a filter needs a topic that pushes rows",
        ),
        (
            json!({ "notice": { "filter": { "id": 1 } } }),
            "types: a filter needs a topic that pushes rows",
        ),
        (
            json!({ "patient": { "filter": { "nobody": 1 } } }),
            "filter: the topic's own columns",
        ),
        (
            json!({ "patient": { "filter": { "age": { "like": "8%" } } } }),
            "filter: a test that",
        ),
        (
            json!({ "patient": { "filter": { "ward": 1.5 } } }),
            "filter: a value of",
        ),
        (
            json!({ "patient": { "filter": { "age": { "near": 1 } } } }),
            "filter: eq, ne,",
        ),
        (json!({ "patient": { "filter": [1] } }), "filter: an object"),
        (json!({ "patient": 5 }), "types"),
    ] {
        let frame = json!({ "type": "sys:subscribe", "rid": 1, "types": types });
        let answer = socket.ask(frame).await;
        assert_eq!(answer["error"], "bad_param", "{answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.starts_with(about), "{types}: {answer}");
    }
    let unknown = json!({ "type": "sys:subscribe", "rid": 2,
        "types": { "patient": { "filter": { "id": 1 } }, "nobody": {} } });
    assert_eq!(socket.ask(unknown).await["error"], "unknown_type");
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 5 WHERE id = 2",
    );
    assert_eq!(socket.next().await["op"], "update");
}
