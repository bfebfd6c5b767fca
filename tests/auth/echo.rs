//! The tutorial's echo, for as long as whoever has opened it may.

use serde_json::json;

use super::{
    SECRET, ann, closed_page, handshake,
    lives::{LIFE, is_in_time, soon},
    now,
    revoked::revoke,
    with_secret,
};
use crate::support::{Raw, Server, Socket, raw::TEXT, wait_until};

const ECHO: &str = "/chat/socket/";

async fn echo(server: &Server, token: &str) -> Socket {
    let mut echo = Socket::request(handshake(server, ECHO, &[("token", token)])).await;
    echo.send_text("你好").await;
    assert!(echo.next_text().await.starts_with("我收到了,"));
    echo
}

#[tokio::test]
async fn an_echo_is_closed_when_its_token_is_over() {
    let server = with_secret("");
    let (token, end) = soon(LIFE);
    let closed = echo(&server, &token).await.closed().await;
    is_in_time(end);
    assert_eq!(closed.code, 4401);
    let counted = "auth_refused_total{kind=\"expired\"}";
    wait_until("the count", async || {
        (server.counted(counted).await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_echo_that_takes_nothing_is_closed_in_time_as_well() {
    // As much as can be said at all.
    let server = with_secret("[limits]\nmessages_per_second = 100000\nmessages_burst = 1000000");
    let (token, end) = soon(LIFE);
    let (mut raw, head) = Raw::ask(&server, ECHO, &format!("token: {token}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // More than the kernel holds of answers that nobody reads.
    let stuffing = tokio::spawn(async move {
        for _ in 0..400_000 {
            raw.frame(TEXT, b"x").await;
        }
        raw
    });
    wait_until("the close", async || {
        let closed = server.counted("closes_total{kind=\"4401\"}").await;
        (closed == 1).then_some(())
    })
    .await;
    is_in_time(end);
    stuffing.abort();
}

#[tokio::test]
async fn an_echo_ends_when_its_token_is_revoked_and_nobody_elses_does() {
    let server = with_secret("operator = { role = \"admin\" }");
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    let of = |sub| ann(json!({ "sub": sub, "iat": now() }));
    let (mut ann, mut bob) = (
        echo(&server, &of("ann")).await,
        echo(&server, &of("bob")).await,
    );
    assert_eq!(
        revoke(&server, &operator, json!({ "sub": "ann" })).await.0,
        202
    );
    let closed = ann.closed().await;
    let told = (closed.code, &*closed.reason);
    assert_eq!(told, (4401, "the token was revoked"));
    bob.send_text("close").await;
    assert_eq!(bob.closed().await.code, 1000);
}

#[tokio::test]
async fn a_browser_brings_its_token_to_the_echo_as_to_the_group() {
    let server = super::guarded(&format!("key = \"{SECRET}\""));
    let lines = |token: &str| format!("Sec-WebSocket-Protocol: rowcast, bearer.{token}\r\n");
    let (mut raw, head) = Raw::ask(&server, ECHO, &lines(&ann(json!({})))).await;
    // Without an answer to the names that it offers a browser hangs up.
    let answered = "sec-websocket-protocol: rowcast\r\n";
    assert!(head.to_ascii_lowercase().contains(answered), "{head}");
    raw.frame(TEXT, b"x").await;
    assert!(raw.next_text().await.starts_with("我收到了,"));
    let headers = [("sec-websocket-protocol", "rowcast, bearer.x")];
    assert_eq!(closed_page(&server, ECHO, &headers).await.code, 4401);
}
