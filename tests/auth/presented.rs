//! The places in which a token may come, and what is answered where there is none.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{
    SECRET, ann, closed_page, fetched, guarded, handshake, is_served, opened, status, with_secret,
};
use crate::{
    support::{Raw, STANDSTILL, Server, Socket, raw::TEXT, sqlite3},
    wire::{CARE, CARE_TABLES},
};

const QUERY: &str = "/api/query/patient";

#[tokio::test]
async fn every_place_of_a_token_lets_its_bearer_in() {
    let server = with_secret("cookie = \"sid\"\ntoken_in_url = true");
    let token = ann(json!({}));
    let (bearer, cookie) = (format!("Bearer {token}"), format!("a=1; sid={token}"));
    let protocol = format!("rowcast, bearer.{token}");
    let own = format!("http://{}", server.address());
    for headers in [
        &[("token", &*token)][..],
        &[("authorization", &bearer)],
        &[("cookie", &cookie), ("origin", &own)],
    ] {
        is_served(&mut opened(&server, headers).await).await;
        assert_eq!(fetched(&server, QUERY, headers).await.0, 200, "{headers:?}");
    }
    // The subprotocol means hello=1, and only its name is answered.
    let lines = format!("Sec-WebSocket-Protocol: {protocol}\r\n");
    let (mut raw, head) = Raw::ask(&server, "/socket/all/", &lines).await;
    let answered = "sec-websocket-protocol: rowcast\r\n";
    assert!(head.to_ascii_lowercase().contains(answered), "{head}");
    assert!(!head.contains(&token), "{head}");
    raw.frame(TEXT, br#"{"type":"sys:hello","rid":1}"#).await;
    assert!(raw.next_text().await.contains("sys:welcome"));
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": token });
    assert_eq!(socket.ask(hello).await["type"], "sys:welcome");
    is_served(&mut socket).await;
    is_served(&mut server.socket(&format!("token={token}")).await).await;
    let (code, _) = fetched(&server, &format!("{QUERY}?token={token}"), &[]).await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_token_in_the_url_or_in_a_cookie_counts_only_where_that_is_configured() {
    let server = with_secret("");
    let token = ann(json!({}));
    let path = format!("/socket/all/?token={token}");
    assert_eq!(status(&server, &path, &[]).await, 401);
    let cookie = format!("sid={token}");
    let closed = closed_page(&server, "/socket/all/", &[("cookie", &cookie)]).await;
    assert_eq!(closed.code, 4401);
}

#[tokio::test]
async fn a_cookie_counts_only_from_a_page_that_may_connect_by_name() {
    let server = with_secret("cookie = \"sid\"");
    let cookie = format!("sid={}", ann(json!({})));
    // A program sends no Origin, and a page of somebody else another one.
    assert_eq!(
        status(&server, "/socket/all/", &[("cookie", &cookie)]).await,
        401
    );
    let headers = [("cookie", &*cookie), ("origin", "https://evil.example")];
    let closed = opened(&server, &headers).await.closed().await;
    assert_eq!(closed.code, 4403);
    assert_eq!(fetched(&server, QUERY, &headers).await.0, 401);
    assert_eq!(fetched(&server, QUERY, &[("cookie", &cookie)]).await.0, 401);
    for (site, code) in [
        ("same-origin", 200),
        ("same-site", 401),
        ("cross-site", 401),
        ("none", 401),
    ] {
        let headers = [("cookie", &*cookie), ("sec-fetch-site", site)];
        assert_eq!(fetched(&server, QUERY, &headers).await.0, code, "{site}");
    }
    let everybody = crate::support::Server::configured(
        &format!(
            "[server]\nallowed_origins = [\"*\"]\n[auth]\nkey = \"{}\"\ncookie = \"sid\"\n{}",
            super::SECRET,
            super::CARE
        ),
        super::CARE_TABLES,
    );
    let closed = opened(&everybody, &headers).await.closed().await;
    assert_eq!(
        closed.code, 4401,
        "whoever lets everybody in lets no cookie in"
    );
}

#[tokio::test]
async fn the_first_token_that_is_there_decides() {
    let server = with_secret("");
    let (good, bad) = (ann(json!({})), ann(json!({ "exp": 0 })));
    let (good_bearer, bad_bearer) = (format!("Bearer {good}"), format!("Bearer {bad}"));
    let headers = [("token", &*bad), ("authorization", &good_bearer)];
    assert_eq!(
        fetched(&server, QUERY, &headers).await,
        (401, "token_expired".into())
    );
    let headers = [("token", &*good), ("authorization", &bad_bearer)];
    assert_eq!(fetched(&server, QUERY, &headers).await.0, 200);
    let headers = [("token", ""), ("authorization", &good_bearer)];
    assert_eq!(fetched(&server, QUERY, &headers).await.0, 200);
}

#[tokio::test]
async fn pipeline_and_dead_letters_are_for_operators_and_whoever_asks_learns_whether_he_is_known() {
    let (nurse, admin) = (ann(json!({})), ann(json!({ "role": "admin" })));
    let (nurse, admin) = ([("token", &*nurse)], [("token", &*admin)]);
    let operators = "operator = { role = \"admin\" }";
    let open = format!("{operators}\nanonymous = true");
    for (more, who, status, signed_in) in [
        (operators, &nurse[..], 403, json!(true)),
        (operators, &admin, 200, json!(true)),
        (&open, &[], 403, json!(false)),
        // Nobody is one.
        ("", &admin, 403, json!(true)),
    ] {
        let server = with_secret(more);
        for path in ["/api/pipeline", "/api/dead_letters"] {
            let (code, error) = fetched(&server, path, who).await;
            assert_eq!(code, status, "{path}");
            assert!(code == 200 || error == "forbidden", "{error}");
        }
        let mut request = reqwest::Client::new().get(server.url("/api/topics"));
        for (name, value) in who {
            request = request.header(*name, *value);
        }
        let topics: Json = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(topics["signed_in"], signed_in);
    }
    let server = crate::wire::care();
    let (_, topics) = server.get("/api/topics").await;
    assert_eq!(topics.get("signed_in"), None);
    assert_eq!(server.get("/api/pipeline").await.0, 200);
}

#[tokio::test]
async fn who_brings_nothing_is_told_so_in_the_way_he_can_read() {
    let server = with_secret("");
    for path in [
        QUERY,
        "/api/topics",
        "/api/types",
        "/api/stream",
        "/api/pipeline",
        "/api/nothing",
    ] {
        let told = fetched(&server, path, &[]).await;
        assert_eq!(told, (401, "token_missing".into()), "{path}");
    }
    let (code, body) = server
        .post("/api/events", json!({ "type": "notice", "data": 1 }))
        .await;
    assert_eq!((code, &body["error"]), (401, &json!("token_missing")));
    let (code, _) = server.post("/api/topics/board/refresh", Json::Null).await;
    assert_eq!(code, 401);
    for path in ["/socket/all/", "/chat/socket/", "/socket/all/?types=none"] {
        assert_eq!(status(&server, path, &[]).await, 401, "{path}");
        let closed = closed_page(&server, path, &[]).await;
        assert_eq!(
            (closed.code, &*closed.reason),
            (4401, "a token is needed"),
            "{path}"
        );
    }
    for path in [
        "/",
        "/console/console.js",
        "/rowcast.js",
        "/rowcast.d.ts",
        "/healthz",
        "/readyz",
    ] {
        let answer = reqwest::get(server.url(path)).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert!(server.counted("auth_refused_total{kind=\"missing\"}").await >= 12);
    assert_eq!(server.counted("sessions").await, 0);
}

#[tokio::test]
async fn a_preflight_needs_no_token_and_a_page_can_read_why_it_is_refused() {
    let server = with_secret("");
    let origin = format!("http://{}", server.address());
    let asked = reqwest::Client::new()
        .request(reqwest::Method::OPTIONS, server.url(QUERY))
        .header("origin", &origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "token");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let asked = reqwest::Client::new()
        .get(server.url(QUERY))
        .header("origin", &origin);
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        answer.headers()["access-control-allow-origin"],
        origin.as_str()
    );
}

#[tokio::test]
async fn who_has_not_said_who_he_is_learns_nothing() {
    let server = with_secret("");
    let mut socket = server.socket("hello=1").await;
    for (rid, frame) in [
        json!({ "type": "patient" }),
        json!({ "type": "no_such_topic" }),
        json!({ "type": "sys:subscribe", "types": ["patient"] }),
        json!({ "type": "sys:unsubscribe", "types": ["patient"] }),
        json!({ "type": "sys:auth", "token": ann(json!({})) }),
    ]
    .into_iter()
    .enumerate()
    {
        let mut frame = frame;
        frame["rid"] = rid.into();
        let answer = socket.ask(frame.clone()).await;
        assert_eq!(answer["error"], "token_missing", "{frame}");
    }
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    // It has gone by, for somebody who may see it.
    let mut other = opened(&server, &[("token", &ann(json!({})))]).await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 2 WHERE id = 1",
    );
    other.next_of("patient").await;
    let pong = socket.ask(json!({ "type": "sys:ping", "rid": 99 })).await;
    assert_eq!(pong["type"], "sys:pong");
    let hello = json!({ "type": "sys:hello", "rid": 100, "token": ann(json!({})) });
    assert_eq!(socket.ask(hello).await["type"], "sys:welcome");
    is_served(&mut socket).await;
}

#[tokio::test]
async fn who_is_not_known_yet_does_not_learn_from_a_url_which_topics_there_are() {
    let server = with_secret("");
    let answer = async |types: &str| {
        let path = format!("/socket/all/?hello=1&types={types}");
        Raw::ask(&server, &path, "").await.1
    };
    assert_eq!(answer("patient").await, answer("no_such_topic").await);
    let hello = |rid: u64| json!({ "type": "sys:hello", "rid": rid, "token": ann(json!({})) });
    // Who says who he is is told, and may say what he wants instead.
    let mut wrong = server.socket("hello=1&types=patient,no_such_topic").await;
    assert_eq!(wrong.ask(hello(1)).await["error"], "bad_param");
    let mut again = hello(2);
    again["types"] = json!(["stay"]);
    assert_eq!(wrong.ask(again).await["type"], "sys:welcome");
    let mut right = server.socket("hello=1&types=patient").await;
    assert_eq!(right.ask(hello(1)).await["type"], "sys:welcome");
    for sql in [
        "INSERT INTO stay VALUES ('b7', 7, 'n')",
        "UPDATE patient SET age = 1 WHERE id = 1",
    ] {
        sqlite3(&server.database(), sql);
    }
    assert_eq!(right.news().await["type"], "patient");
    assert_eq!(wrong.news().await["type"], "stay");
}

#[tokio::test]
async fn a_hello_without_a_good_token_ends_the_socket_and_says_why() {
    let server = with_secret("");
    for (hello, error) in [
        (json!({}), "token_missing"),
        (json!({ "token": null }), "token_missing"),
        (json!({ "token": "" }), "token_invalid"),
        (json!({ "token": "x" }), "token_invalid"),
        (
            json!({ "token": ann(json!({ "exp": 1 })) }),
            "token_expired",
        ),
    ] {
        let mut hello = hello;
        (hello["type"], hello["rid"]) = ("sys:hello".into(), 1.into());
        let mut socket = server.socket("hello=1").await;
        assert_eq!(socket.ask(hello).await["error"], error);
        assert_eq!(socket.closed().await.code, 4401, "{error}");
    }
}

#[tokio::test]
async fn a_socket_that_never_says_who_it_is_is_closed() {
    let server = crate::support::Server::configured(
        &format!(
            "[server]\nhello_timeout_ms = 300\n[auth]\nkey = \"{}\"\n{}",
            super::SECRET,
            super::CARE
        ),
        super::CARE_TABLES,
    );
    assert_eq!(server.socket("hello=1").await.closed().await.code, 4401);
    let request = handshake(
        &server,
        "/socket/all/",
        &[("sec-websocket-protocol", "rowcast")],
    );
    assert_eq!(Socket::request(request).await.closed().await.code, 4401);
}

#[tokio::test]
async fn whoever_does_not_say_who_he_is_has_ten_seconds() {
    let server = with_secret("");
    let begun = Instant::now();
    // A frame is no token.
    let mut socket = server.socket("hello=1").await;
    socket.send(json!({ "type": "sys:ping" })).await;
    assert_eq!(socket.closed().await.code, 4401);
    let took = begun.elapsed();
    let ten = Duration::from_secs(10);
    assert!(took >= ten && took < ten + 2 * STANDSTILL, "{took:?}");
}

#[tokio::test]
async fn where_anybody_may_come_a_wrong_token_is_refused_all_the_same() {
    let server = with_secret("anonymous = true");
    is_served(&mut server.socket("").await).await;
    assert_eq!(fetched(&server, QUERY, &[]).await.0, 200);
    let expired = ann(json!({ "exp": 1 }));
    let told = fetched(&server, QUERY, &[("token", &expired)]).await;
    assert_eq!(told, (401, "token_expired".into()));
    assert_eq!(
        status(&server, "/socket/all/", &[("token", "x")]).await,
        401
    );
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": "x" });
    assert_eq!(socket.ask(hello).await["error"], "token_invalid");
    assert_eq!(socket.closed().await.code, 4401);
    // Nobody in particular says who he is before anything was sent, and not afterwards.
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": ann(json!({})) });
    assert_eq!(socket.ask(hello.clone()).await["type"], "sys:welcome");
    let mut socket = server.socket("").await;
    assert_eq!(socket.ask(hello).await["error"], "bad_param");
    is_served(&mut socket).await;
}

#[tokio::test]
async fn tokens_of_the_configuration_are_known_by_their_hashes() {
    // printf %s first | sha256sum
    let server = guarded(
        "tokens = [
            { sha256 = \"a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e\", claims = { sub = \"ward-3\" } },
            { sha256 = \"16367AACB67A4A017C8DA8AB95682CCB390863780F7114DDA0A0E0C55644C7C4\", claims = { exp = 1 } },
         ]",
    );
    is_served(&mut opened(&server, &[("token", "first")]).await).await;
    assert_eq!(fetched(&server, QUERY, &[("token", "first")]).await.0, 200);
    for (token, error) in [
        ("second", "token_expired"),
        ("First", "token_invalid"),
        ("first ", ""),
    ] {
        let (code, told) = fetched(&server, QUERY, &[("token", token)]).await;
        match error {
            "" => assert_eq!(code, 200, "blanks at the end of a header are none of it"),
            error => assert_eq!((code, told), (401, error.into()), "{token}"),
        }
    }
}

#[tokio::test]
async fn a_token_may_be_as_long_as_the_limit_says_wherever_it_stands() {
    let auth = format!("[auth]\nkey = \"{SECRET}\"\n{CARE}");
    let server = Server::configured(
        &format!("[server]\nmax_head_bytes = 16384\n[limits]\ntoken_bytes = 8192\n{auth}"),
        CARE_TABLES,
    );
    let long = |bytes: usize| ann(json!({ "groups": "x".repeat(bytes) }));
    let (fits, longer) = (long(5000), long(7000));
    assert!(fits.len() > 4096 && fits.len() < 8192 && longer.len() > 8192);
    is_served(&mut opened(&server, &[("token", &fits)]).await).await;
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": fits });
    assert_eq!(socket.ask(hello).await["type"], "sys:welcome");
    assert_eq!(
        status(&server, "/socket/all/", &[("token", &longer)]).await,
        401
    );
    let server = Server::configured(&format!("[limits]\ntoken_bytes = 64\n{auth}"), CARE_TABLES);
    assert_eq!(
        status(&server, "/socket/all/", &[("token", &ann(json!({})))]).await,
        401
    );
}
