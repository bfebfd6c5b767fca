//! What is pushed, member by member.

use std::time::Instant;

use serde_json::{Value as Json, json};

use super::{care, members};
use crate::support::{Python, Server, Socket, sqlite3};

/// Unix milliseconds.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// Takes `cursor` and `ts` off a frame, once they look right.
fn settled(mut frame: Json, since: i64) -> Json {
    let object = frame.as_object_mut().unwrap();
    let cursor = object.shift_remove("cursor").unwrap();
    assert!(cursor.as_str().unwrap().contains(':'), "{cursor}");
    let ts = object.shift_remove("ts").unwrap().as_i64().unwrap();
    assert!((since..=now_ms()).contains(&ts), "{ts}");
    frame
}

async fn after(socket: &mut Socket, server: &Server, sql: &str) -> (Json, String) {
    let since = now_ms();
    sqlite3(&server.database(), sql);
    let text = socket.next_text().await;
    (settled(serde_json::from_str(&text).unwrap(), since), text)
}

#[tokio::test]
async fn an_insert_an_update_and_a_delete_look_as_the_protocol_says() {
    let server = care();
    let mut socket = server.socket("types=patient").await;
    let (event, text) = after(
        &mut socket,
        &server,
        "INSERT INTO patient VALUES (9, '吴玉珍', '5', 88, NULL)",
    )
    .await;
    let row = json!({ "id": 9, "name": "吴玉珍", "ward": "5", "age": 88, "left_at": null });
    assert_eq!(
        event,
        json!({ "type": "patient", "op": "insert", "key": { "id": 9 }, "data": row })
    );
    let order = ["type", "op", "key", "data", "cursor", "ts"];
    assert_eq!(members(&serde_json::from_str(&text).unwrap()), order);

    let (event, _) = after(
        &mut socket,
        &server,
        "UPDATE patient SET ward = NULL WHERE id = 9",
    )
    .await;
    let row = json!({ "id": 9, "name": "吴玉珍", "ward": null, "age": 88, "left_at": null });
    assert_eq!(
        event,
        json!({ "type": "patient", "op": "update", "key": { "id": 9 }, "data": row })
    );

    // A change that alters nothing is still pushed.
    let (event, _) = after(
        &mut socket,
        &server,
        "UPDATE patient SET age = age WHERE id = 9",
    )
    .await;
    assert_eq!((&event["op"], &event["data"]), (&json!("update"), &row));

    let (event, _) = after(&mut socket, &server, "DELETE FROM patient WHERE id = 9").await;
    assert_eq!(
        event,
        json!({ "type": "patient", "op": "delete", "key": { "id": 9 }, "data": null })
    );
}

#[tokio::test]
async fn a_changed_key_names_the_old_one() {
    let server = care();
    let mut socket = server.socket("types=patient,stay").await;
    let (event, _) = after(
        &mut socket,
        &server,
        "UPDATE patient SET id = 20 WHERE id = 2",
    )
    .await;
    let row = json!({ "id": 20, "name": "李建国", "ward": "3", "age": 82, "left_at": null });
    let expected = json!({
        "type": "patient", "op": "update", "key": { "id": 20 }, "old_key": { "id": 2 }, "data": row,
    });
    assert_eq!(event, expected);
    let (event, _) = after(
        &mut socket,
        &server,
        "UPDATE stay SET day = 9 WHERE day = 8",
    )
    .await;
    let expected = json!({
        "type": "stay", "op": "update", "key": { "day": 9, "bed": "3-1" }, "old_key": { "day": 8, "bed": "3-1" },
        "data": { "bed": "3-1", "day": 9, "note": "晚" },
    });
    assert_eq!(event, expected);
}

#[tokio::test]
async fn a_row_that_leaves_the_view_is_a_delete_and_one_that_enters_is_upserted() {
    let server = care();
    let mut socket = server.socket("types=patient").await;
    let (event, _) = after(
        &mut socket,
        &server,
        "UPDATE patient SET left_at = '2026-11-23' WHERE id = 1",
    )
    .await;
    assert_eq!(
        event,
        json!({ "type": "patient", "op": "delete", "key": { "id": 1 }, "data": null })
    );
    let (event, _) = after(
        &mut socket,
        &server,
        "UPDATE patient SET left_at = NULL WHERE id = 5",
    )
    .await;
    assert!(
        event["op"] == "update" || event["op"] == "insert",
        "{event}"
    );
    assert_eq!(
        (&event["key"], &event["data"]["name"]),
        (&json!({ "id": 5 }), &json!("孙淑芳"))
    );
}

#[tokio::test]
async fn the_events_of_one_transaction_are_contiguous_and_share_a_tx() {
    let server = care();
    let mut socket = server.socket("types=patient,stay").await;
    let mut python = Python::on(&server.database());
    python.run(&[
        "BEGIN",
        "UPDATE patient SET age = 90 WHERE id = 1",
        "DELETE FROM stay WHERE day = 8",
        "INSERT INTO patient (id, name) VALUES (10, 'x')",
        "COMMIT",
    ]);
    let events = [
        socket.next().await,
        socket.next().await,
        socket.next().await,
    ];
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["type"].as_str().unwrap(),
                event["op"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("patient", "update"),
            ("stay", "delete"),
            ("patient", "insert")
        ]
    );
    let tx = events[0]["tx"]
        .as_str()
        .expect("a tx on the events of a group");
    assert!(
        events
            .iter()
            .all(|event| event["tx"] == tx && event["ts"] == events[0]["ts"])
    );
    assert_eq!(
        members(&events[0]),
        ["type", "op", "key", "data", "tx", "cursor", "ts"]
    );
    let (alone, _) = after(
        &mut socket,
        &server,
        "UPDATE patient SET age = 91 WHERE id = 1",
    )
    .await;
    assert!(alone.get("tx").is_none(), "one change is no group: {alone}");
}

#[tokio::test]
async fn a_page_topic_pushes_its_whole_default_page_after_a_change() {
    let server = care();
    let mut socket = server.socket("types=board").await;
    let bare = socket.ask(json!({ "type": "board", "rid": 1 })).await;
    let (mut page, text) = after(
        &mut socket,
        &server,
        "UPDATE patient SET name = '龚秀英' WHERE id = 1",
    )
    .await;
    let order = ["type", "op", "data", "cursor", "ts", "page"];
    assert_eq!(members(&serde_json::from_str(&text).unwrap()), order);
    let next = page["page"]
        .as_object_mut()
        .unwrap()
        .insert("next".into(), Json::Null);
    assert!(next.unwrap().is_string(), "there is a second page: {text}");
    let expected = json!({
        "type": "board", "op": "replace",
        "data": [{ "id": 1, "name": "龚秀英" }, { "id": 4, "name": "赵德厚" }],
        "page": { "number": 1, "size": 2, "total": 5, "next": null },
    });
    assert_eq!(page, expected);
    // The same shape as the reply to the bare query.
    let again = socket.ask(json!({ "type": "board", "rid": 2 })).await;
    assert_eq!(again["data"], page["data"]);
    assert_ne!(again["data"], bare["data"]);
    assert_eq!(members(&again["page"]), members(&page["page"]));
}

#[tokio::test]
async fn a_burst_of_changes_ends_in_a_page_that_holds_them_all() {
    let server = care();
    let mut socket = server.socket("types=board").await;
    let mut python = Python::on(&server.database());
    let begun = Instant::now();
    for id in 100..150 {
        python.run(&[&format!(
            "INSERT INTO patient (id, name) VALUES ({id}, 'z{id}')"
        )]);
    }
    let mut pages = 0;
    let last = socket.next_where("the last page", |page| {
        pages += 1;
        page["page"]["total"] == 55
    });
    assert_eq!(last.await["op"], "replace");
    let took = begun.elapsed();
    // One every 40 ms, however slowly they are written here.
    let most = took.as_millis() / 40 + 2;
    assert!(pages <= most, "{pages} pages in {took:?}");
}

#[tokio::test]
async fn an_applications_event_is_passed_on_as_it_was_given() {
    let server = care();
    let mut socket = server.socket("").await;
    for (kind, data) in [
        ("notice", json!({ "a": [1, null, "王"] })),
        ("board", json!("更新数据了,个人信息")),
        ("patient", json!(null)),
    ] {
        let since = now_ms();
        let (code, answer) = server
            .post("/api/events", json!({ "type": kind, "data": data }))
            .await;
        let event = socket.next().await;
        assert_eq!((code, &answer["cursor"]), (202, &event["cursor"]));
        assert_eq!(members(&event), ["type", "op", "data", "cursor", "ts"]);
        assert_eq!(
            settled(event, since),
            json!({ "type": kind, "op": "event", "data": data })
        );
    }
}

#[tokio::test]
async fn a_resumed_socket_gets_what_it_missed_then_caught_up_then_fresh_pages() {
    let server = care();
    let mut first = server.socket("").await;
    let since = first.ask(json!({ "type": "patient", "rid": 1 })).await["cursor"].clone();
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 2 WHERE id = 2",
    );
    first
        .next_where("the second change", |event| event["key"]["id"] == 2)
        .await;
    let mut second = server
        .socket(&format!("since={}", since.as_str().unwrap()))
        .await;
    for id in [1, 2] {
        let event = second.next().await;
        assert_eq!(
            (&event["type"], &event["key"]["id"]),
            (&json!("patient"), &json!(id))
        );
    }
    let over = second.next().await;
    assert_eq!(members(&over), ["type", "cursor"]);
    assert_eq!(over["type"], "sys:caught_up");
    let page = second.next().await;
    assert_eq!(
        members(&page),
        ["type", "op", "data", "cursor", "ts", "page"]
    );
    assert_eq!(
        (&page["type"], &page["op"]),
        (&json!("board"), &json!("replace"))
    );
}
