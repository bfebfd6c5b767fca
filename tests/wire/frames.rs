//! Session frames: hello, ping, subscribe, tick.

use serde_json::{Value as Json, json};

use super::{care, members};
use crate::support::{Server, sqlite3};

#[tokio::test]
async fn a_hello_is_welcomed_once() {
    let server = care();
    let mut socket = server.socket("").await;
    let welcome = socket
        .ask(json!({ "type": "sys:hello", "rid": "h", "types": ["patient"] }))
        .await;
    assert_eq!(
        members(&welcome),
        [
            "type",
            "rid",
            "cursor",
            "recovered",
            "replay",
            "ping_ms",
            "tick_ms"
        ]
    );
    assert_eq!(welcome["type"], "sys:welcome");
    assert_eq!(
        (
            &welcome["recovered"],
            &welcome["replay"],
            &welcome["ping_ms"],
            &welcome["tick_ms"]
        ),
        (&json!(false), &json!(0), &json!(25_000), &json!(5_000))
    );
    let again = socket.ask(json!({ "type": "sys:hello", "rid": 2 })).await;
    assert_eq!(
        (&again["type"], &again["error"]),
        (&json!("sys:error"), &json!("bad_param"))
    );
    // The hello's types hold.
    server
        .post("/api/events", json!({ "type": "notice" }))
        .await;
    server
        .post("/api/events", json!({ "type": "patient" }))
        .await;
    assert_eq!(socket.news().await["type"], "patient");
}

#[tokio::test]
async fn a_hello_may_ask_which_topics_there_are() {
    let server = care();
    let mut socket = server.socket("").await;
    let welcome = socket
        .ask(json!({ "type": "sys:hello", "rid": 1, "types": ["stay"], "topics": true }))
        .await;
    assert_eq!(
        welcome["topics"],
        json!({
            "patient": { "push": "row", "key": ["id"], "order": ["id"] },
            "board": { "push": "page", "key": ["id"], "order": ["name desc"] },
            "stay": { "push": "row", "key": ["day", "bed"], "order": [] },
            "notice": { "push": "row" },
        })
    );
    let (_, body) = server.get("/api/topics").await;
    for topic in body["topics"].as_array().unwrap() {
        let told = &welcome["topics"][topic["type"].as_str().unwrap()];
        for member in ["push", "key", "order"] {
            assert_eq!(told[member], topic[member], "{topic}");
        }
    }
    let mut other = server.socket("").await;
    let welcome = other
        .ask(json!({ "type": "sys:hello", "rid": 1, "topics": false }))
        .await;
    assert!(welcome.get("topics").is_none(), "{welcome}");
}

#[tokio::test]
async fn a_query_comes_after_the_hello_so_that_no_event_falls_between() {
    let server = care();
    let mut socket = server.socket("hello=1").await;
    let early = socket.ask(json!({ "type": "patient", "rid": 1 })).await;
    assert_eq!(
        (&early["error"], &early["detail"]),
        (
            &json!("bad_param"),
            &json!("sys:hello: first, with hello=1")
        )
    );
    socket.ask(json!({ "type": "sys:hello", "rid": 2 })).await;
    let reply = socket.ask(json!({ "type": "patient", "rid": 3 })).await;
    assert_eq!(reply["op"], "replace");
}

#[tokio::test]
async fn nothing_is_pushed_before_the_hello_and_everything_after_it() {
    let server = care();
    let mut socket = server.socket("hello=1").await;
    let mut witness = server.socket("").await;
    server
        .post("/api/events", json!({ "type": "notice", "data": "early" }))
        .await;
    let early = witness.next().await;
    let welcome = socket.ask(json!({ "type": "sys:hello", "rid": 1 })).await;
    assert_eq!(welcome["cursor"], early["cursor"]);
    server
        .post("/api/events", json!({ "type": "notice", "data": "late" }))
        .await;
    assert_eq!(socket.news().await["data"], "late");
}

#[tokio::test]
async fn a_hello_may_resume_and_says_how_much_comes_back() {
    let server = care();
    let mut witness = server.socket("").await;
    let mut cursors = Vec::new();
    for data in 0..5 {
        let (_, answer) = server
            .post("/api/events", json!({ "type": "notice", "data": data }))
            .await;
        cursors.push(answer["cursor"].clone());
        witness.next().await;
    }
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "types": ["notice"], "since": cursors[1] });
    let welcome = socket.ask(hello).await;
    assert_eq!(
        (&welcome["recovered"], &welcome["replay"]),
        (&json!(true), &json!(3))
    );
    for data in 2..5 {
        assert_eq!(socket.news().await["data"], data);
    }
    assert_eq!(
        socket.news().await,
        json!({ "type": "sys:caught_up", "cursor": cursors[4] })
    );
}

#[tokio::test]
async fn who_is_cut_off_after_the_welcome_has_missed_nothing_of_the_replay() {
    let server = care();
    let mut witness = server.socket("").await;
    let mut cursors = Vec::new();
    for data in 0..3 {
        let event = json!({ "type": "notice", "data": data });
        cursors.push(server.post("/api/events", event).await.1["cursor"].clone());
        witness.next().await;
    }
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "since": cursors[0] });
    let welcome = socket.ask(hello).await;
    drop(socket);
    let since = welcome["cursor"].as_str().unwrap();
    let mut again = server.socket(&format!("since={since}")).await;
    for data in 1..3 {
        assert_eq!(again.next().await["data"], data);
    }
}

#[tokio::test]
async fn a_hello_with_a_cursor_that_is_nobodys_is_reset_before_anything_else() {
    let server = care();
    let mut other = server.socket("").await;
    let (_, answer) = server
        .post("/api/events", json!({ "type": "notice" }))
        .await;
    let cursor = answer["cursor"].as_str().unwrap();
    assert_eq!(other.next().await["cursor"], cursor);
    let (epoch, place) = cursor.split_once(':').unwrap();
    let offset = place.split('-').next().unwrap();
    let ahead = format!("{epoch}:{}", offset.parse::<u64>().unwrap() + 100);
    for (since, reason) in [(ahead.as_str(), "ahead"), ("0:1", "epoch")] {
        let mut socket = server.socket("hello=1").await;
        let hello = json!({ "type": "sys:hello", "rid": 1, "since": since });
        assert_eq!(socket.ask(hello).await["recovered"], false, "{reason}");
        let reset = socket.news().await;
        assert_eq!(members(&reset), ["type", "reason", "cursor", "after_ms"]);
        assert_eq!(
            (&reset["type"], &reset["reason"]),
            (&json!("sys:reset"), &json!(reason))
        );
        assert_eq!(reset["cursor"], cursor, "where to go on from");
        let wait = reset["after_ms"].as_array().unwrap();
        assert!(wait[0].as_u64().unwrap() <= wait[1].as_u64().unwrap());
    }
}

#[tokio::test]
async fn a_cursor_in_a_late_hello_is_refused_for_events_were_sent_already() {
    let server = care();
    let mut socket = server.socket("").await;
    let (_, answer) = server
        .post("/api/events", json!({ "type": "notice" }))
        .await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "since": answer["cursor"] });
    assert_eq!(socket.ask(hello).await["error"], "bad_param");
    assert_eq!(
        socket.ask(json!({ "type": "sys:hello", "rid": 2 })).await["type"],
        "sys:welcome"
    );
}

#[tokio::test]
async fn ticks_come_after_a_hello_and_prove_an_idle_client_current() {
    let server = Server::configured(
        &format!("[server]\ntick_interval_ms = 100\n{}", super::CARE),
        super::CARE_TABLES,
    );
    let mut plain = server.socket("types=stay").await;
    let mut socket = server.socket("types=stay").await;
    let welcome = socket.ask(json!({ "type": "sys:hello", "rid": 1 })).await;
    assert_eq!(welcome["tick_ms"], 100);
    let tick = socket.next().await;
    assert_eq!(
        tick,
        json!({ "type": "sys:tick", "cursor": welcome["cursor"] })
    );
    // What the socket does not take still moves its cursor.
    let (_, answer) = server
        .post("/api/events", json!({ "type": "notice" }))
        .await;
    let wanted = |frame: &Json| frame["cursor"] == answer["cursor"];
    let tick = socket.next_where("a tick at the new head", wanted).await;
    assert_eq!(members(&tick), ["type", "cursor"]);
    // Without a hello there is none: the first frame is the event.
    server
        .post("/api/events", json!({ "type": "stay", "data": "first" }))
        .await;
    assert_eq!(plain.next().await["data"], "first");
}

#[tokio::test]
async fn a_ping_is_answered_with_its_rid_or_without_one() {
    let server = care();
    let mut socket = server.socket("").await;
    for ping in [
        json!({ "type": "sys:ping", "rid": 5 }),
        json!({ "type": "sys:ping", "rid": "x" }),
        json!({ "type": "sys:ping" }),
    ] {
        let mut pong = ping.clone();
        pong["type"] = "sys:pong".into();
        socket.send(ping).await;
        assert_eq!(socket.next().await, pong);
    }
}

#[tokio::test]
async fn types_are_added_and_taken_away_while_the_socket_is_open() {
    let server = care();
    let mut socket = server.socket("types=stay").await;
    let ok = socket
        .ask(json!({ "type": "sys:subscribe", "rid": 1, "types": { "notice": {}, "patient": {} } }))
        .await;
    assert_eq!(members(&ok), ["type", "rid", "cursor"]);
    assert_eq!(ok["type"], "sys:ok");
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    assert_eq!(socket.next().await["type"], "patient");
    let ok = socket
        .ask(json!({ "type": "sys:unsubscribe", "rid": 2, "types": ["patient", "stay"] }))
        .await;
    assert_eq!(ok["type"], "sys:ok");
    for kind in ["patient", "stay", "notice"] {
        server.post("/api/events", json!({ "type": kind })).await;
    }
    assert_eq!(socket.next().await["type"], "notice");
    let unknown = socket
        .ask(json!({ "type": "sys:subscribe", "rid": 3, "types": { "nobody": {} } }))
        .await;
    assert_eq!(
        (&unknown["code"], &unknown["error"]),
        (&json!(404), &json!("unknown_type"))
    );
}

#[tokio::test]
async fn a_socket_of_all_types_can_leave_one_out() {
    let server = care();
    let mut socket = server.socket("").await;
    socket
        .ask(json!({ "type": "sys:unsubscribe", "rid": 1, "types": ["patient"] }))
        .await;
    for kind in ["patient", "board"] {
        server.post("/api/events", json!({ "type": kind })).await;
    }
    assert_eq!(socket.next().await["type"], "board");
}

#[tokio::test]
async fn what_is_no_session_frame_is_refused_and_changes_nothing() {
    let server = care();
    let mut socket = server.socket("hello=1").await;
    for (frame, about) in [
        (json!({ "type": "sys:hello", "mode": "some" }), "mode"),
        (json!({ "type": "sys:hello", "mode": 5 }), "mode"),
        (
            json!({ "type": "sys:hello", "types": { "board": { "filter": { "id": 3 } } } }),
            "types",
        ),
        (
            json!({ "type": "sys:hello", "types": { "patient": { "filter": { "x": 3 } } } }),
            "filter",
        ),
        (json!({ "type": "sys:subscribe" }), "types"),
        (
            json!({ "type": "sys:unsubscribe", "types": "patient" }),
            "types",
        ),
        (json!({ "type": "sys:hello", "types": ["a b"] }), "types"),
        (json!({ "type": "sys:hello", "since": 5 }), "since"),
    ] {
        let mut asked = frame.clone();
        asked["rid"] = json!(1);
        let answer = socket.ask(asked).await;
        assert_eq!(
            (&answer["type"], &answer["error"]),
            (&json!("sys:error"), &json!("bad_param")),
            "{frame}"
        );
        assert!(
            answer["detail"].as_str().unwrap().starts_with(about),
            "{answer}"
        );
    }
    let unknown = socket
        .ask(json!({ "type": "sys:hello", "rid": 1, "types": ["nobody"] }))
        .await;
    assert_eq!(unknown["code"], 404);
    let welcome = socket
        .ask(json!({ "type": "sys:hello", "rid": 2, "mode": "every", "token": "x" }))
        .await;
    assert_eq!(welcome["type"], "sys:welcome");
    assert_eq!(
        socket
            .ask(json!({ "type": "sys:auth", "rid": 3, "token": "y" }))
            .await["type"],
        "sys:ok"
    );
}
