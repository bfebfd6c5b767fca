//! Every close code, and what leads to it.

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;

use super::{CARE, CARE_TABLES, care};
use crate::support::{Raw, Server, Socket, raw::TEXT, wait_until};

/// Both paths: a rule of frames holds for the echo, too.
const PATHS: [&str; 2] = ["/socket/all/", "/chat/socket/"];

fn tuned(server: &str) -> Server {
    Server::configured(&format!("[server]\n{server}\n{CARE}"), CARE_TABLES)
}

async fn open(server: &Server, path: &str) -> Socket {
    Socket::open(&format!("ws://{}{path}", server.address())).await
}

#[tokio::test]
async fn a_frame_that_breaks_the_protocol_is_closed_with_1002() {
    let server = care();
    let unmasked = b"\x81\x02{}".as_slice();
    let reserved_bit = b"\xc1\x82\0\0\0\0{}".as_slice();
    let reserved_opcode = b"\x83\x80\0\0\0\0".as_slice();
    let continuation_of_nothing = b"\x80\x80\0\0\0\0".as_slice();
    let fragmented_ping = b"\x09\x80\0\0\0\0".as_slice();
    let long_ping = [b"\x89\xfe\x00\x7e\0\0\0\0".as_slice(), &[b'x'; 126]].concat();
    for path in PATHS {
        for (what, bytes) in [
            ("unmasked", unmasked),
            ("a reserved bit", reserved_bit),
            ("a reserved opcode", reserved_opcode),
            ("a continuation of nothing", continuation_of_nothing),
            ("a ping in fragments", fragmented_ping),
            ("a ping of 126 bytes", &long_ping),
        ] {
            let mut raw = Raw::open(&server, path).await;
            raw.bytes(bytes).await;
            assert_eq!(raw.closed().await.code, 1002, "{path}: {what}");
        }
    }
}

#[tokio::test]
async fn bytes_are_closed_with_1003() {
    let server = care();
    for path in PATHS {
        let mut socket = open(&server, path).await;
        socket.send_message(Message::binary(vec![1, 2])).await;
        assert_eq!(socket.closed().await.code, 1003, "{path}");
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_closed_with_1007() {
    let server = care();
    for path in PATHS {
        let mut whole = Raw::open(&server, path).await;
        whole.frame(TEXT, b"{\"type\":\"\xff\"}").await;
        assert_eq!(whole.closed().await.code, 1007, "{path}");
        let mut cut = Raw::open(&server, path).await;
        cut.frame(0x01, b"\xe7\x8e").await;
        cut.frame(0x80, b"").await;
        assert_eq!(cut.closed().await.code, 1007, "{path}: half a character");
        let mut fine = Raw::open(&server, path).await;
        fine.frame(0x01, b"\xe7\x8e").await;
        fine.frame(0x80, b"\x8b").await;
        fine.next_text().await;
    }
}

#[tokio::test]
async fn a_message_of_65536_bytes_is_answered_and_one_byte_more_is_closed_with_1009() {
    let server = care();
    let frame = |bytes: usize| {
        let start = r#"{"type":"patient","rid":1,"id":1"#;
        format!("{start}{}}}", " ".repeat(bytes - start.len() - 1))
    };
    let mut socket = server.socket("").await;
    assert_eq!(frame(65_536).len(), 65_536);
    socket.send_text(&frame(65_536)).await;
    assert_eq!(socket.next().await["data"][0]["id"], 1);
    socket.send_text(&frame(65_537)).await;
    assert_eq!(socket.closed().await.code, 1009);
    let mut echo = open(&server, "/chat/socket/").await;
    echo.send_text(&"x".repeat(65_536)).await;
    assert!(echo.next_text().await.starts_with("我收到了,"));
    echo.send_text(&"x".repeat(65_537)).await;
    assert_eq!(echo.closed().await.code, 1009);
}

#[tokio::test]
async fn a_huge_message_is_closed_with_1009_however_it_is_sent() {
    let server = care();
    let mut whole = server.socket("").await;
    whole.send_text(&"x".repeat(300 * 1024)).await;
    assert_eq!(whole.closed().await.code, 1009);
    let mut parts = Raw::open(&server, "/socket/all/").await;
    parts.frame(0x01, &[b'x'; 40_000]).await;
    parts.frame(0x80, &[b'x'; 40_000]).await;
    assert_eq!(parts.closed().await.code, 1009);
}

#[tokio::test]
async fn the_socket_beyond_the_last_place_is_closed_with_1013_and_a_place_that_is_left_is_free() {
    let server = tuned("max_connections = 2");
    let mut first = server.socket("").await;
    let mut second = server.socket("").await;
    for socket in [&mut first, &mut second] {
        socket.ask(json!({ "type": "sys:ping", "rid": 1 })).await;
    }
    assert_eq!(server.socket("").await.closed().await.code, 1013);
    drop(second);
    wait_until("a free place", async || {
        let mut third = server.socket("").await;
        third.send(json!({ "type": "sys:ping" })).await;
        third.next_or_close().await.ok()
    })
    .await;
    first.ask(json!({ "type": "sys:ping", "rid": 2 })).await;
}

#[tokio::test]
async fn the_eleventh_malformed_frame_is_closed_with_4400() {
    let server = care();
    let mut socket = server.socket("").await;
    for _ in 0..10 {
        socket.send_text("{").await;
        assert_eq!(socket.next().await["error"], "bad_json");
        // Wrong, but not malformed.
        assert_eq!(
            socket.ask(json!({ "type": "nothing", "rid": 1 })).await["code"],
            404
        );
    }
    socket.send_text("{").await;
    assert_eq!(socket.closed().await.code, 4400);
}

#[tokio::test]
async fn a_socket_that_never_says_hello_is_closed_with_4401() {
    let server = tuned("hello_timeout_ms = 4000");
    let mut greeted = server.socket("hello=1").await;
    greeted.ask(json!({ "type": "sys:hello", "rid": 1 })).await;
    let mut silent = server.socket("hello=1").await;
    let mut asking = server.socket("hello=1").await;
    asking.send(json!({ "type": "sys:ping" })).await;
    assert_eq!(silent.closed().await.code, 4401);
    assert_eq!(asking.closed().await.code, 4401, "a ping is no hello");
    greeted.ask(json!({ "type": "sys:ping", "rid": 2 })).await;
}

#[tokio::test]
async fn a_client_that_never_pongs_is_closed_with_4408() {
    // Also where pings come faster than the timeout runs out.
    for tuning in [
        "ping_interval_ms = 300\npong_timeout_ms = 100",
        "ping_interval_ms = 100\npong_timeout_ms = 300",
    ] {
        let server = tuned(tuning);
        for path in PATHS {
            let mut raw = Raw::open(&server, path).await;
            let (opcode, _) = raw.next().await.unwrap();
            assert_eq!(opcode, 9, "{path}: a ping comes first");
            assert_eq!(raw.closed().await.code, 4408, "{path} {tuning}");
        }
    }
}

#[tokio::test]
async fn a_client_that_pongs_stays() {
    let server = tuned("ping_interval_ms = 500\npong_timeout_ms = 4000");
    let mut raw = Raw::open(&server, "/socket/all/").await;
    // For longer than one who does not.
    for _ in 0..12 {
        let (opcode, payload) = raw.next().await.unwrap();
        assert_eq!(opcode, 9);
        raw.frame(0x8a, &payload).await;
    }
    raw.frame(TEXT, br#"{"type":"sys:ping"}"#).await;
    assert_eq!(raw.next_text().await, r#"{"type":"sys:pong"}"#);
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_with_4008_and_the_others_get_everything() {
    let server = tuned("write_timeout_ms = 500");
    for closed in 1.. {
        match never_reading(&server, closed).await {
            // Who still does not read a second after that is cut off: here the machine stood still for so long.
            1006 if closed < 5 => {}
            code => {
                assert_eq!(code, 4008);
                return;
            }
        }
    }
}

/// How a client learns that it is closed, the `closed`th on this server, which reads when it is too late.
async fn never_reading(server: &Server, closed: u64) -> u16 {
    let mut slow = Raw::open(server, "/socket/all/").await;
    let mut quick = server.socket("").await;
    let text = "x".repeat(60_000);
    let mut sent = 0;
    while server.counted("closes_total{kind=\"4008\"}").await < closed {
        let (code, _) = server
            .post(
                "/api/events",
                json!({ "type": "notice", "data": [sent, text] }),
            )
            .await;
        assert_eq!(code, 202);
        assert_eq!(quick.next().await["data"][0], sent);
        sent += 1;
        assert!(sent < 2000, "the socket was never closed");
    }
    // What it did get has no gap, and the close came after that.
    let mut got = 0;
    let code = loop {
        match slow.next().await {
            Some((1, text)) => {
                let event: Json = serde_json::from_slice(&text).unwrap();
                assert_eq!(event["data"][0], got);
                got += 1;
            }
            Some((8, payload)) => break u16::from_be_bytes([payload[0], payload[1]]),
            Some(_) => {}
            None => break 1006,
        }
    };
    assert!(got < sent, "{got} of {sent}");
    code
}

#[tokio::test]
async fn a_client_that_closes_is_answered_with_its_own_code() {
    let server = care();
    for path in PATHS {
        let mut raw = Raw::open(&server, path).await;
        raw.frame(0x88, b"\x03\xe9bye").await;
        assert_eq!(raw.closed().await.code, 1001, "{path}");
    }
    let mut socket = server.socket("").await;
    wait_until("the sockets to be gone", async || {
        (server.counted("sessions").await == 1).then_some(())
    })
    .await;
    socket.ask(json!({ "type": "sys:ping", "rid": 1 })).await;
}
