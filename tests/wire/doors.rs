//! What a socket may ask for when it opens, and who is let in.

use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::care;
use crate::support::{Raw, Server, Socket};

async fn from_origin(server: &Server, path: &str, origin: &str) -> Socket {
    let url = format!("ws://{}{path}", server.address());
    let mut request = url.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("origin", origin.parse().unwrap());
    Socket::request(request).await
}

#[tokio::test]
async fn a_socket_takes_only_the_types_of_its_url_and_may_query_all() {
    let server = care();
    let mut few = server.socket("types=stay,notice&unknown=1").await;
    let mut all = server.socket("").await;
    for kind in ["patient", "stay", "notice"] {
        let (code, _) = server
            .post("/api/events", json!({ "type": kind, "data": kind }))
            .await;
        assert_eq!(code, 202);
    }
    for kind in ["stay", "notice"] {
        assert_eq!(few.next().await["data"], kind);
    }
    for kind in ["patient", "stay", "notice"] {
        assert_eq!(all.next().await["data"], kind);
    }
    assert_eq!(
        few.ask(json!({ "type": "patient", "rid": 1, "id": 1 }))
            .await["data"][0]["id"],
        1
    );
}

#[tokio::test]
async fn a_malformed_parameter_is_refused_with_400_before_the_upgrade() {
    let server = care();
    for parameters in [
        "types=",
        "types=a%20b",
        "types=patient,",
        "types=patient,nobody",
        "since=5",
        "since=",
        "since=x:y",
        "hello=2",
        "hello=yes",
        "hello=",
        "hello=1&since=k1:1",
    ] {
        let (_, head) = Raw::ask(&server, &format!("/socket/all/?{parameters}"), "").await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{parameters}: {head}");
        assert!(
            head.contains("content-type: application/json"),
            "{parameters}: {head}"
        );
    }
    let (_, head) = Raw::ask(&server, "/socket/all/?hello=0&types=patient", "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

#[tokio::test]
async fn a_request_that_asks_for_no_upgrade_is_told_so_in_json() {
    let server = care();
    for path in ["/socket/all/", "/chat/socket/"] {
        let (code, body) = server.get(path).await;
        assert_eq!(
            (code, &body["code"], &body["error"]),
            (426, &json!(426), &json!("upgrade_required")),
            "{path}"
        );
        let (code, body) = server.post(path, json!({})).await;
        assert_eq!(
            (code, &body["error"]),
            (405, &json!("method_not_allowed")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_subprotocol_rowcast_is_echoed_and_means_hello_first() {
    let server = care();
    for (offered, echoed) in [
        ("rowcast", true),
        ("rowcast, bearer.abc", true),
        ("bearer.abc", false),
        ("", false),
    ] {
        let header = match offered {
            "" => String::new(),
            offered => format!("Sec-WebSocket-Protocol: {offered}\r\n"),
        };
        let (mut raw, head) = Raw::ask(&server, "/socket/all/", &header).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let answer = head
            .lines()
            .find(|line| line.starts_with("sec-websocket-protocol"));
        assert_eq!(
            answer,
            echoed.then_some("sec-websocket-protocol: rowcast"),
            "{offered}"
        );
        let mut witness = server.socket("").await;
        let early = json!({ "type": "notice", "data": "early" });
        server.post("/api/events", early).await;
        witness.next().await;
        if echoed {
            let hello = br#"{"type":"sys:hello","rid":1}"#;
            raw.frame(crate::support::raw::TEXT, hello).await;
            assert!(raw.next_text().await.contains("sys:welcome"), "{offered}");
        } else {
            assert!(raw.next_text().await.contains("early"), "{offered}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_is_upgraded_and_closed_with_4403() {
    let server = care();
    for path in ["/socket/all/", "/chat/socket/"] {
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil:1",
            "file://",
        ] {
            let mut socket = from_origin(&server, path, origin).await;
            assert_eq!(socket.closed().await.code, 4403, "{path} {origin}");
        }
    }
}

#[tokio::test]
async fn pages_of_the_own_host_of_this_machine_and_of_listed_origins_are_let_in() {
    let server = Server::configured(
        &format!(
            "[server]\nallowed_origins = [\"https://care.example\"]\n{}",
            super::CARE
        ),
        super::CARE_TABLES,
    );
    let own = format!("http://{}", server.address());
    for origin in [
        &*own,
        "http://localhost:5173",
        "http://[::1]:1",
        "https://care.example",
    ] {
        let mut socket = from_origin(&server, "/socket/all/", origin).await;
        let reply = socket.ask(json!({ "type": "patient", "rid": 1 })).await;
        assert_eq!(reply["op"], "replace", "{origin}");
    }
}

#[tokio::test]
async fn a_token_is_taken_and_never_written_down() {
    let server = Server::with(crate::support::Options {
        env: vec![("ROWCAST__LOG__LEVEL".into(), "trace".into())],
        ..Default::default()
    });
    let secret = "eyJhbGciOiJIUzI1NiJ9";
    let headers = format!(
        "token: {secret}\r\nAuthorization: Bearer {secret}\r\nSec-WebSocket-Protocol: rowcast, bearer.{secret}\r\n"
    );
    let (mut raw, _) = Raw::ask(&server, "/socket/all/", &headers).await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": secret }).to_string();
    raw.frame(crate::support::raw::TEXT, hello.as_bytes()).await;
    assert!(raw.next_text().await.contains("sys:welcome"));
    let auth = json!({ "type": "sys:auth", "rid": 2, "token": secret }).to_string();
    raw.frame(crate::support::raw::TEXT, auth.as_bytes()).await;
    assert!(raw.next_text().await.contains("sys:ok"));
    server.logged("a socket opens");
    assert!(!server.log().contains(secret), "a token is in the log");
}
