//! Whoever is connected and turns out to have other claims: he is told to query again before anything else, and
//! what he has asked for is answered by what is his now.

use serde_json::json;

use super::home::{Home, cook, doctor, is_innocent, nurse, stranger, token};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_claims_are_told_by_a_reset_before_any_later_event() {
    let home = Home::open().await;
    let mut socket = home.socket(&nurse(), "").await;
    let other_ward = token(json!({"tenant": "oak", "wards": ["2"], "role": "nurse"}));
    socket
        .send(json!({"type": "sys:auth", "rid": 1, "token": other_ward}))
        .await;
    home.database
        .sql("UPDATE patient SET bed = 'x' WHERE id IN (1, 3)");
    // By which of the two somebody is told of it is for the gateway to say; with the reset it is for sure.
    let reset = loop {
        let frame = socket.next().await;
        match frame["type"].as_str().unwrap() {
            "sys:reset" => break frame,
            "patient" => assert_eq!(frame["key"]["id"], 1, "{frame}"),
            _ => assert_eq!(frame["rid"], 1, "{frame}"),
        }
    };
    assert_eq!(reset["reason"], "scope");
    home.database
        .sql("UPDATE patient SET bed = 'x again' WHERE id IN (1, 3)");
    let event = socket.next_of("patient").await;
    assert_eq!(event["key"]["id"], 3, "{event}");
    let page = socket.ask(json!({"type": "patient", "rid": 2})).await;
    assert_eq!(page["data"][0]["name"], "Cleo");
    // The same claims once more change nothing.
    let again = token(json!({"tenant": "oak", "wards": ["2"], "role": "nurse", "jti": "another"}));
    let ok = socket
        .ask(json!({"type": "sys:auth", "rid": 3, "token": again}))
        .await;
    assert_eq!(ok["type"], "sys:ok", "{ok}");
    home.database
        .sql("UPDATE patient SET bed = 'y' WHERE id IN (1, 3)");
    loop {
        let event = socket.next().await;
        assert_eq!(event["key"]["id"], 3, "{event}");
        if event["data"]["bed"] == "y" {
            break;
        }
    }
    // A topic that was there is not any more.
    socket
        .send(json!({"type": "sys:auth", "rid": 4, "token": cook()}))
        .await;
    assert_eq!(socket.next_of("sys:reset").await["reason"], "scope");
    let refused = socket.ask(json!({"type": "patient", "rid": 5})).await;
    assert_eq!(refused["error"], "unknown_type");
    home.database
        .sql("UPDATE patient SET bed = 'z' WHERE id = 3; UPDATE visit SET visitor = 'Di'");
    assert_eq!(socket.next().await["type"], "visit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_for_before_is_answered_by_what_is_ones_own_now() {
    let home = Home::open().await;
    let mut socket = home.socket(&stranger(), "").await;
    for rid in 1..6 {
        socket
            .send(json!({"type": "patient", "rid": rid, "params": {"all": true}}))
            .await;
    }
    socket
        .send(json!({"type": "sys:auth", "rid": 9, "token": doctor()}))
        .await;
    let reset = socket
        .next_where("a reset", |frame| frame["type"] == "sys:reset")
        .await;
    assert_eq!(reset["reason"], "scope");
    socket.send(json!({"type": "sys:ping", "rid": 10})).await;
    socket.send(json!({"type": "patient", "rid": 11})).await;
    loop {
        let text = socket.next_text().await;
        is_innocent("an answer", &text);
        if text.contains("\"rid\":11") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_who_he_is_in_his_hello_sees_what_is_his() {
    let home = Home::open().await;
    let url = format!("ws://{}/socket/all/?hello=1", home.gateway.address());
    let mut socket = crate::support::Socket::open(&url).await;
    let hello = json!({"type": "sys:hello", "rid": 1, "token": nurse(), "types": ["patient"]});
    let welcome = socket.ask(hello).await;
    assert_eq!(welcome["type"], "sys:welcome", "{welcome}");
    home.database
        .sql("UPDATE patient SET bed = 'x' WHERE id IN (1, 3, 777000101)");
    let event = socket.next_of("patient").await;
    assert_eq!(event["key"]["id"], 1, "{event}");
    is_innocent("an event", &event.to_string());
}
