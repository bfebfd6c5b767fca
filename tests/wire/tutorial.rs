//! What the tutorial shows, word for word.

use std::time::Duration;

use serde_json::json;

use super::members;
use crate::support::{Options, Server, Socket, sqlite3};

#[tokio::test]
async fn a_bare_query_gets_the_tutorials_reply_and_nothing_comes_before_it() {
    let server = Server::start();
    let mut socket = server.socket("").await;
    assert!(socket.silent_for(Duration::from_millis(100)).await);
    socket
        .send(json!({ "type": "all_patient_page_data" }))
        .await;
    let reply = socket.next().await;
    assert_eq!(members(&reply), ["type", "op", "data", "cursor", "page"]);
    assert_eq!(reply["type"], "all_patient_page_data");
    assert_eq!(reply["op"], "replace");
    assert!(reply["cursor"].is_string());
    let rows = reply["data"].as_array().unwrap();
    assert_eq!(
        reply["page"],
        json!({ "number": 1, "size": 50, "total": rows.len(), "next": null })
    );
    let names = [
        "id",
        "name",
        "gender",
        "age",
        "ward",
        "floor",
        "bed",
        "care_level",
        "phone",
        "admitted_on",
        "left_at",
        "note",
    ];
    assert_eq!(members(&rows[0]), names);
    assert_eq!(
        (&rows[0]["id"], &rows[0]["name"]),
        (&json!(1), &json!("王秀英"))
    );
}

#[tokio::test]
async fn text_that_is_no_json_object_is_answered_in_the_tutorials_words_and_the_socket_stays_in_the_group()
 {
    let server = Server::start();
    let mut socket = server.socket("types=patient").await;
    for text in ["你好", "{\"type\":", "[]", "5", "null", ""] {
        socket.send_text(text).await;
        let expected = json!({
            "type": "sys:error", "code": 400, "error": "bad_json", "msg": "传递的数据有问题",
        });
        assert_eq!(socket.next().await, expected, "{text}");
    }
    sqlite3(
        &server.database(),
        "UPDATE patient SET ward = '9' WHERE id = 2",
    );
    let event = socket.next().await;
    assert_eq!(
        (&event["op"], &event["data"]["ward"]),
        (&json!("update"), &json!("9"))
    );
}

#[tokio::test]
async fn a_type_that_nobody_knows_is_a_404_with_the_tutorials_words() {
    let server = Server::start();
    let mut socket = server.socket("").await;
    for frame in [
        json!({ "type": "nothing" }),
        json!({}),
        json!({ "type": "sys:nothing" }),
        json!({ "type": "a b" }),
    ] {
        socket.send(frame.clone()).await;
        let expected = json!({
            "type": "sys:error", "code": 404, "error": "unknown_type", "msg": "未知的数据类型",
        });
        assert_eq!(socket.next().await, expected, "{frame}");
    }
    let answer = socket.ask(json!({ "type": "nothing", "rid": 7 })).await;
    assert_eq!(members(&answer)[..2], ["type", "rid"]);
}

#[tokio::test]
async fn messages_are_english_where_the_configuration_says_so() {
    let server = Server::with(Options {
        env: vec![("ROWCAST__SERVER__LANGUAGE".into(), "en".into())],
        ..Options::default()
    });
    let mut socket = server.socket("").await;
    socket.send_text("?").await;
    assert_eq!(
        socket.next().await["msg"],
        "the message is not a JSON object"
    );
    socket.send(json!({ "type": "nothing" })).await;
    assert_eq!(socket.next().await["msg"], "no topic has this type");
}

#[tokio::test]
async fn the_echo_answers_with_the_local_time_and_closes_on_close() {
    let server = Server::start();
    let mut socket = Socket::open(&format!("ws://{}/chat/socket/", server.address())).await;
    for text in ["你好", "{}", "Close", ""] {
        let before = jiff::Zoned::now();
        socket.send_text(text).await;
        let answer = socket.next_text().await;
        let after = jiff::Zoned::now();
        let time = answer.strip_prefix("我收到了,").expect(&answer);
        let told = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", time).unwrap();
        assert_eq!(told.strftime("%Y-%m-%d %H:%M:%S").to_string(), time);
        let earliest = before
            .datetime()
            .with()
            .subsec_nanosecond(0)
            .build()
            .unwrap();
        assert!((earliest..=after.datetime()).contains(&told), "{time}");
    }
    socket.send_text("close").await;
    assert_eq!(socket.closed().await.code, 1000);
}

#[tokio::test]
async fn the_echo_tells_the_time_of_the_servers_own_zone() {
    // By the name of the zone where this machine has the names, else by its rule.
    let named = std::path::Path::new("/usr/share/zoneinfo/Asia/Shanghai").exists();
    let zone = if named { "Asia/Shanghai" } else { "CST-8" };
    let server = Server::with(Options {
        env: vec![("TZ".into(), zone.into())],
        ..Options::default()
    });
    let mut socket = Socket::open(&format!("ws://{}/chat/socket/", server.address())).await;
    let shanghai = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
    let now = || {
        let now = jiff::Timestamp::now().to_zoned(shanghai.clone());
        now.strftime("我收到了,%Y-%m-%d %H:%M").to_string()
    };
    let before = now();
    socket.send_text("几点了").await;
    let answer = socket.next_text().await;
    assert!(
        answer.starts_with(&before) || answer.starts_with(&now()),
        "{answer}"
    );
}
