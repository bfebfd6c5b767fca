//! `mode: "latest"`: a socket that has fallen behind gets the newest frame of each key.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{CARE, CARE_TABLES, care};
use crate::support::{Python, Raw, Server, sqlite3};

/// Changes of each of ten rows.
const ROUNDS: usize = 250;

fn offset(frame: &Json) -> u64 {
    let cursor = frame["cursor"].as_str().unwrap();
    let (_, place) = cursor.split_once(':').unwrap();
    place.split('-').next().unwrap().parse().unwrap()
}

/// A gateway with ten rows more, which takes long to give a slow socket up.
fn server() -> Server {
    let config = format!("[server]\nwrite_timeout_ms = 60000\nring_max_bytes = 2000000\n{CARE}");
    let rows: String = (101..=110)
        .map(|id| format!("INSERT INTO patient VALUES ({id}, 'n', '1', 0, NULL);"))
        .collect();
    Server::configured(&config, &format!("{CARE_TABLES} {rows}"))
}

#[tokio::test]
async fn a_socket_that_has_fallen_behind_gets_the_newest_of_each_row() {
    let server = server();
    let mut slow = Raw::open(&server, "/socket/all/?types=patient&mode=latest").await;
    let mut witness = server.socket("types=patient").await;
    let mut python = Python::on(&server.database());
    let mut last = 0;
    for round in 1..=ROUNDS {
        // More than the system's own buffers hold for a socket that does not read.
        let name = "printf('%.8000c', 'x')";
        python.run(&[&format!(
            "UPDATE patient SET age = {round}, name = {name} WHERE id > 100"
        )]);
        let wanted = |frame: &Json| frame["key"]["id"] == 110 && frame["data"]["age"] == round;
        last = offset(&witness.next_where("the last change", wanted).await);
    }
    let (mut rows, mut offsets) = (BTreeMap::new(), vec![0]);
    while offsets.last() != Some(&last) {
        let frame: Json = serde_json::from_str(&slow.next_text().await).unwrap();
        offsets.push(offset(&frame));
        let id = frame["key"]["id"].as_i64().unwrap();
        rows.insert(id, frame["data"]["age"].clone());
    }
    let expected = (101..=110).map(|id| (id, json!(ROUNDS)));
    assert_eq!(rows, expected.collect());
    let ascending = offsets.is_sorted_by(|a, b| a < b);
    assert!(ascending, "not in the order of the stream: {offsets:?}");
    assert!(offsets.len() < ROUNDS * 10 / 2, "{} frames", offsets.len());
}

#[tokio::test]
async fn a_socket_that_resumes_gets_the_newest_of_each_row_too() {
    let server = care();
    let mut witness = server.socket("types=patient,notice").await;
    let reply = witness.ask(json!({ "type": "patient", "rid": 1 })).await;
    let since = reply["cursor"].as_str().unwrap().to_owned();
    for age in 0..400 {
        let change = json!({ "type": "notice", "data": age });
        if age % 100 == 0 {
            server.post("/api/events", change).await;
        }
        sqlite3(
            &server.database(),
            &format!("UPDATE patient SET age = {age} WHERE id IN (1, 2)"),
        );
    }
    let last = |frame: &Json| frame["key"]["id"] == 2 && frame["data"]["age"] == 399;
    witness.next_where("the last change", last).await;
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 2, "since": since, "mode": "latest",
        "types": { "patient": { "filter": { "id": [1, 2] } }, "notice": {} } });
    let welcome = socket.ask(hello).await;
    assert_eq!(welcome["recovered"], true);
    let mut told = Vec::new();
    loop {
        let frame = socket.news().await;
        match frame["type"].as_str().unwrap() {
            "sys:caught_up" => break,
            "notice" => told.push(frame["data"].clone()),
            _ => told.push(json!([frame["key"]["id"], frame["data"]["age"]])),
        }
    }
    // Every event of an application, and each row once.
    assert_eq!(
        Json::from(told),
        json!([0, 100, 200, 300, [1, 399], [2, 399]])
    );
}

#[tokio::test]
async fn a_socket_that_keeps_up_gets_every_change() {
    let server = care();
    let mut socket = server.socket("types=stay&mode=latest").await;
    for note in ["a", "b", "c"] {
        sqlite3(
            &server.database(),
            &format!("UPDATE stay SET note = '{note}' WHERE day = 7"),
        );
        assert_eq!(socket.next().await["data"]["note"], note);
    }
    let (_, head) = Raw::ask(&server, "/socket/all/?mode=some", "").await;
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
}
