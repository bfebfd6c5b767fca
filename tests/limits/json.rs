//! The JSON of a request, on a socket and over HTTP: how deep, how many members, how long, and what no
//! database stores and no number holds.

use serde_json::{Value as Json, json};

use super::{counted, limited};
use crate::{
    support::{Server, sqlite3},
    wire::care,
};

/// A member `pad` so deep that its request has so many levels.
fn deep(levels: usize) -> String {
    format!(
        "\"pad\":{}{}",
        "[".repeat(levels - 1),
        "]".repeat(levels - 1)
    )
}

/// So many members.
fn members(count: usize) -> String {
    let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":{n}")).collect();
    members.join(",")
}

fn text(bytes: usize) -> String {
    format!("\"pad\":\"{}\"", "x".repeat(bytes))
}

/// Members of a request that stand behind its `type` and `rid`, and how it is answered: with a slug, or
/// as if they were not there.
fn table() -> Vec<(String, &'static str)> {
    let pairs = [
        (deep(32), ""),
        (deep(33), "too_deep"),
        (deep(10_000), "too_deep"),
        (members(254), ""),
        (members(255), "payload_too_large"),
        (text(16_384), ""),
        (text(16_385), "payload_too_large"),
        (format!("\"{}\":1", "k".repeat(16_385)), "payload_too_large"),
    ];
    let pairs = pairs.into_iter().chain(
        [
            (r#""a":1,"b":{"a":1}"#, ""),
            (r#""a":1,"a":1"#, "duplicate_key"),
            (r#""type":"patient""#, "duplicate_key"),
            (r#""pad":[{"a":1,"\u0061":2}]"#, "duplicate_key"),
            (r#""__proto__":{"constructor":1},"A":1,"a":2"#, ""),
            (r#""pad":9007199254740991"#, ""),
            (r#""pad":9007199254740992"#, "number_range"),
            (r#""pad":-9007199254740992"#, "number_range"),
            (r#""pad":[{"a":18446744073709551615}]"#, "number_range"),
            (r#""pad":1e308"#, ""),
            (r#""pad":1e400"#, "bad_json"),
            (r#""pad":NaN"#, "bad_json"),
            (r#""pad":"\ud800""#, "bad_json"),
            (r#""pad":"\ud83d\ude00""#, ""),
            (r#""pad":"\u0000""#, "nul_not_allowed"),
            (r#""p\u0000d":1"#, "nul_not_allowed"),
            (r#""pad":1,"#, "bad_json"),
        ]
        .map(|(members, slug)| (members.to_owned(), slug)),
    );
    pairs.collect()
}

#[tokio::test]
async fn a_request_on_a_socket_is_read_to_each_bound_and_told_what_is_beyond_it() {
    let server = care();
    for (members, slug) in table() {
        let mut socket = server.socket("").await;
        let request = format!("{{\"type\":\"sys:ping\",\"rid\":7,{members}}}");
        socket.send_text(&request).await;
        let answer = socket.next().await;
        let shown: String = request.chars().take(80).collect();
        if slug.is_empty() {
            assert_eq!(answer, json!({ "type": "sys:pong", "rid": 7 }), "{shown}");
            continue;
        }
        assert_eq!(answer["error"], slug, "{shown}");
        let code = if slug == "payload_too_large" {
            413
        } else {
            400
        };
        assert_eq!(answer["code"], code, "{shown}");
        // Whose text cannot be read has no rid either.
        let rid = if slug == "bad_json" {
            Json::Null
        } else {
            7.into()
        };
        assert_eq!(answer["rid"], rid, "{shown}");
        assert_eq!(
            socket.ask(json!({ "type": "sys:ping", "rid": 8 })).await["type"],
            "sys:pong"
        );
    }
    assert!(counted(&server, "json").await >= 10);
}

#[tokio::test]
async fn what_is_no_object_of_json_has_the_tutorials_text() {
    let server = care();
    let lone = [
        "",
        " ",
        "null",
        "[]",
        "\"x\"",
        "7",
        "{} {}",
        "\u{feff}{}",
        "/**/{}",
        "{\"a\":1}x",
    ];
    let deep = "[".repeat(60_000);
    for text in lone.into_iter().chain([&*deep]) {
        let mut socket = server.socket("").await;
        socket.send_text(text).await;
        let expected = json!({
            "type": "sys:error", "code": 400, "error": "bad_json", "msg": "传递的数据有问题",
        });
        assert_eq!(socket.next().await, expected, "{text:.20}");
    }
}

#[tokio::test]
async fn more_than_ten_requests_that_break_the_form_close_a_socket_and_wrong_values_do_not() {
    let server = care();
    let mut socket = server.socket("").await;
    for rid in 0..15 {
        let request = json!({ "type": "patient", "rid": rid, "id": "\0" });
        assert_eq!(socket.ask(request).await["error"], "nul_not_allowed");
    }
    let mut socket = server.socket("").await;
    for rid in 0..10 {
        let request = format!("{{\"type\":\"patient\",\"rid\":{rid},\"id\":1,\"id\":2}}");
        socket.send_text(&request).await;
        assert_eq!(socket.next().await["error"], "duplicate_key");
    }
    socket.send_text("{\"a\":1,\"a\":1}").await;
    assert_eq!(socket.closed().await.code, 4400);
}

#[tokio::test]
async fn an_integer_is_the_one_that_was_written_or_refused() {
    let server = care();
    sqlite3(
        &server.database(),
        "INSERT INTO patient (id, name) VALUES (9007199254740993, '大'), (9007199254740992, '小')",
    );
    for (id, found) in [
        ("1", json!([1])),
        ("\"1\"", json!([1])),
        ("-0", json!([])),
        ("1.0", json!([1])),
        ("1e0", json!([1])),
        ("\"9007199254740993\"", json!(["9007199254740993"])),
        ("9007199254740991", json!([])),
        ("9007199254740993", json!("number_range")),
        ("9223372036854775808", json!("number_range")),
        ("1e20", json!("number_range")),
        ("9007199254740993.0", json!("number_range")),
    ] {
        let mut socket = server.socket("types=notice").await;
        socket
            .send_text(&format!("{{\"type\":\"patient\",\"rid\":1,\"id\":{id}}}"))
            .await;
        let answer = socket.next().await;
        match answer["data"].as_array() {
            Some(rows) => {
                let ids: Vec<_> = rows.iter().map(|row| row["id"].clone()).collect();
                assert_eq!(Json::from(ids), found, "{id}");
            }
            None => assert_eq!(answer["error"], found, "{id}"),
        }
    }
    for wrong in [
        r#""page":1.5"#,
        r#""page":1e0"#,
        r#""size":-1"#,
        r#""page":4294967296"#,
    ] {
        let mut socket = server.socket("types=notice").await;
        let request = format!("{{\"type\":\"patient\",\"rid\":1,\"params\":{{{wrong}}}}}");
        socket.send_text(&request).await;
        assert_eq!(socket.next().await["error"], "bad_param", "{wrong}");
    }
}

#[tokio::test]
async fn a_token_has_its_own_length() {
    let server = care();
    for (kind, answer) in [("sys:hello", "sys:welcome"), ("sys:auth", "sys:ok")] {
        let token = |rid: u32, bytes: usize| json!({ "type": kind, "rid": rid, "token": "t".repeat(bytes) });
        let mut socket = server.socket("").await;
        let refused = socket.ask(token(1, 4097)).await;
        assert_eq!(
            (&refused["code"], &refused["error"]),
            (&json!(413), &json!("payload_too_large"))
        );
        assert_eq!(socket.ask(token(2, 4096)).await["type"], answer);
    }
}

#[tokio::test]
async fn bodies_and_urls_have_the_same_bounds() {
    let server = Server::start();
    for (members, slug) in [
        ("\"name\":\"a\"", ""),
        ("\"name\":\"a\",\"name\":\"b\"", "duplicate_key"),
        ("\"name\":\"a\\u0000b\"", "nul_not_allowed"),
        ("\"name\":\"a\",\"age\":9007199254740993", "number_range"),
        ("\"name\":\"a\\ud800\"", "bad_json"),
    ] {
        let body = format!("{{{members}}}");
        let (code, answer) =
            crate::http::post(&server, "/chat/update/info/", "application/json", &body).await;
        let expected = if slug.is_empty() { 200 } else { 400 };
        assert_eq!(
            (code, answer["error"].as_str().unwrap_or_default()),
            (expected, slug),
            "{body}"
        );
    }
    for (query, slug) in [
        ("id=%00", "nul_not_allowed"),
        ("filter[name]=a%00b", "nul_not_allowed"),
        ("filter[a%00]=1", "nul_not_allowed"),
        ("key[id]=1%00", "nul_not_allowed"),
    ] {
        let (code, answer) = server.get(&format!("/api/query/patient?{query}")).await;
        assert_eq!((code, &answer["error"]), (400, &json!(slug)), "{query}");
    }
}

#[tokio::test]
async fn an_event_is_passed_on_as_it_is_unless_its_readers_might_differ_about_it() {
    let server = care();
    let mut socket = server.socket("types=notice").await;
    let post = async |data: &str| {
        let body = format!("{{\"type\":\"notice\",\"data\":{data}}}");
        crate::http::post(&server, "/api/events", "application/json", &body).await
    };
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (data, slug) in [
        (nested(32), "too_deep"),
        ("{\"a\":1,\"a\":2}".into(), "duplicate_key"),
        ("1e400".into(), "bad_json"),
        ("\"\\ud800\"".into(), "bad_json"),
    ] {
        let (code, answer) = post(&data).await;
        assert_eq!((code, &answer["error"]), (400, &json!(slug)), "{data:.40}");
    }
    let long = format!("\"{}\"", "x".repeat(60_000));
    let many = format!("{{{}}}", members(1000));
    for data in [
        &*nested(31),
        "9007199254740993",
        "\"\\u0000\"",
        &long,
        &many,
    ] {
        assert_eq!(post(data).await.0, 202, "{data:.40}");
        assert!(
            socket
                .next_text()
                .await
                .contains(&format!("\"data\":{data},")),
            "{data:.40}"
        );
    }
}

#[tokio::test]
async fn the_bounds_of_requests_are_settings() {
    let server =
        limited("json_depth = 6\njson_keys = 16\njson_string_bytes = 256\ntoken_bytes = 64");
    let mut socket = server.socket("").await;
    for (members, slug) in [
        (deep(6), ""),
        (deep(7), "too_deep"),
        (members(14), ""),
        (members(15), "payload_too_large"),
        (text(256), ""),
        (text(257), "payload_too_large"),
        (format!("\"token\":\"{}\"", "t".repeat(64)), ""),
        (
            format!("\"token\":\"{}\"", "t".repeat(65)),
            "payload_too_large",
        ),
    ] {
        socket
            .send_text(&format!("{{\"type\":\"sys:ping\",\"rid\":1,{members}}}"))
            .await;
        let answer = socket.next().await;
        assert_eq!(
            answer["error"].as_str().unwrap_or_default(),
            slug,
            "{members}"
        );
    }
}
