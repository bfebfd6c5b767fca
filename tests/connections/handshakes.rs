//! Requests for a socket, good and bad, on both paths.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{connect, handshake, head, send};
use crate::{
    support::{Raw, in_time, raw::TEXT},
    wire::care,
};

/// The body that the head of an answer announces.
async fn body(stream: &mut TcpStream, head: &str) -> String {
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    in_time("a body", stream.read_exact(&mut body))
        .await
        .unwrap();
    String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn every_handshake_is_answered_as_the_rfc_says() {
    let server = care();
    let good = handshake("PATH", "");
    let without = |line: &str| good.replacen(line, "", 1);
    let with = |line: &str| good.replacen("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"), 1);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (request, status, error) in [
        (good.clone(), 101, ""),
        (good.replace("websocket", "WebSocket"), 101, ""),
        (
            good.replace("Connection: Upgrade", "connection: keep-alive, upgrade"),
            101,
            "",
        ),
        (with("Content-Length: 0"), 101, ""),
        (
            with("Sec-WebSocket-Extensions: permessage-deflate"),
            101,
            "",
        ),
        (without("Upgrade: websocket\r\n"), 426, "upgrade_required"),
        (without("Connection: Upgrade\r\n"), 426, "upgrade_required"),
        (
            good.replace("HTTP/1.1", "HTTP/1.0"),
            426,
            "upgrade_required",
        ),
        (good.replace(": 13", ": 8"), 426, "upgrade_required"),
        (
            without("Sec-WebSocket-Version: 13\r\n"),
            426,
            "upgrade_required",
        ),
        (good.replace("GET", "POST"), 405, "method_not_allowed"),
        (without(key), 400, "bad_param"),
        (good.replace("25jZQ==", "25jZQ="), 400, "bad_param"),
        (with(key.trim_end()), 400, "bad_param"),
        (with("Sec-WebSocket-Version: 13"), 400, "bad_param"),
        (without("Host: localhost\r\n"), 400, "bad_param"),
        (with("Host: evil.example"), 400, "bad_param"),
        (
            with("Origin: http://care.example\r\nOrigin: http://evil.example"),
            400,
            "bad_param",
        ),
        (with("Content-Length: 4"), 400, "bad_param"),
        (with("Transfer-Encoding: chunked"), 400, "bad_param"),
        (with("Broken Header: 1"), 400, ""),
        (good.replace("HTTP/1.1", "HTTP/3.7"), 400, ""),
    ] {
        for path in ["/socket/all/", "/chat/socket/"] {
            let mut stream = connect(&server).await;
            send(&mut stream, &request.replace("PATH", path)).await;
            let mut answer = head(&mut stream).await;
            answer.push_str(&body(&mut stream, &answer).await);
            let line = answer.lines().next().unwrap_or_default();
            let said = line.split(' ').nth(1).unwrap_or_default();
            assert_eq!(said, status.to_string(), "{path} {request}\n{answer}");
            assert!(answer.contains(error), "{path} {request}\n{answer}");
            let accepted = answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(accepted, status == 101, "{answer}");
            let version = answer.contains("sec-websocket-version: 13");
            assert_eq!(version, status == 426, "{answer}");
        }
    }
}

#[tokio::test]
async fn what_is_sent_right_behind_the_handshake_is_not_lost() {
    let server = care();
    let ping = br#"{"type":"sys:ping","rid":1}"#;
    let mut frame = vec![TEXT, 0x80 | u8::try_from(ping.len()).unwrap(), 0, 0, 0, 0];
    frame.extend(ping);
    // All of it, or a part of which the rest comes later, in the packet of the handshake.
    for early in [frame.len(), 9, 1] {
        let mut stream = connect(&server).await;
        let mut packet = handshake("/socket/all/", "").into_bytes();
        packet.extend(&frame[..early]);
        stream.write_all(&packet).await.unwrap();
        assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        stream.write_all(&frame[early..]).await.unwrap();
        let mut raw = Raw::over(stream);
        assert!(raw.next_text().await.contains("sys:pong"), "{early}");
    }
}

#[tokio::test]
async fn a_handshake_is_answered_alike_however_long_it_is_and_however_it_comes() {
    let server = care();
    let ping = [0x89, 0x80, 0, 0, 0, 0];
    for (length, headers) in [
        (300, 1),
        (4090, 1),
        (4095, 1),
        (4096, 1),
        (4097, 1),
        (8000, 1),
        (2000, 27),
        (2000, 28),
        (2000, 58),
    ] {
        let lines: String = (1..headers)
            .map(|number| format!("X-{number}: 1\r\n"))
            .collect();
        let bare = handshake("/socket/all/", &format!("{lines}Cookie: \r\n"));
        let cookie = "c".repeat(length - bare.len());
        let request = handshake("/socket/all/", &format!("{lines}Cookie: {cookie}\r\n"));
        assert_eq!(request.len(), length);
        let packet = [request.as_bytes(), &ping].concat();
        for split in [packet.len(), 1, length - 1, length, length + 1] {
            let mut stream = connect(&server).await;
            stream.write_all(&packet[..split]).await.unwrap();
            tokio::task::yield_now().await;
            stream.write_all(&packet[split..]).await.unwrap();
            let told = head(&mut stream).await;
            assert!(
                told.starts_with("HTTP/1.1 101 "),
                "{length} {headers} {split}: {told}"
            );
            assert!(told.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            let mut pong = [0; 2];
            in_time("a pong", stream.read_exact(&mut pong))
                .await
                .unwrap();
            assert_eq!(pong, [0x8a, 0], "{length} {headers} {split}");
        }
    }
}

#[tokio::test]
async fn a_handshake_may_follow_other_requests_on_its_connection() {
    let server = care();
    let mut stream = connect(&server).await;
    let both =
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &handshake("/socket/all/", "");
    send(&mut stream, &both).await;
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 "));
    let next = head(&mut stream).await;
    assert!(next.contains("HTTP/1.1 101 "), "{next}");
}
