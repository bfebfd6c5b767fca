//! What a connection may take: time, bytes, and a place.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{connect, handshake, head, rest, send};
use crate::{
    support::{Raw, Server, raw::TEXT, wait_for, wait_until},
    wire::{CARE, CARE_TABLES},
};

/// How long a head may take in these tests.
const HEAD_TIMEOUT: Duration = Duration::from_millis(700);

/// Places that are kept for this machine itself.
const OWN: usize = 16;

fn tuned(settings: &str) -> Server {
    Server::configured(&format!("[server]\n{settings}\n{CARE}"), CARE_TABLES)
}

fn impatient() -> Server {
    tuned("head_timeout_ms = 700")
}

/// Sends a byte of `text` now and then until the server answers or closes; what it says.
async fn drip(stream: &mut TcpStream, text: &str, pause: Duration) -> String {
    let mut first = [0];
    for byte in text.split_inclusive(|_| true) {
        send(stream, byte).await;
        if let Ok(read) = tokio::time::timeout(pause, stream.read(&mut first)).await {
            return match read {
                Ok(1) => char::from(first[0]).to_string() + &head(stream).await,
                _ => String::new(),
            };
        }
    }
    head(stream).await
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed_at_the_deadline() {
    let server = impatient();
    let start = Instant::now();
    let mut silent = connect(&server).await;
    assert_eq!(rest(&mut silent).await, "");
    let took = start.elapsed();
    assert!(took >= HEAD_TIMEOUT && took < HEAD_TIMEOUT * 8, "{took:?}");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_not_waited_for_beyond_the_deadline() {
    let server = impatient();
    let start = Instant::now();
    let mut slow = connect(&server).await;
    let request = handshake("/socket/all/", "");
    let told = drip(&mut slow, &request, Duration::from_millis(50)).await;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    assert_eq!(rest(&mut slow).await, "");
    let took = start.elapsed();
    assert!(took >= HEAD_TIMEOUT && took < HEAD_TIMEOUT * 8, "{took:?}");
}

#[tokio::test]
async fn the_deadline_counts_from_the_beginning_of_a_connection_and_not_from_its_first_byte() {
    let server = care_for(7000);
    let start = Instant::now();
    let mut slow = connect(&server).await;
    let silent = tokio::time::timeout(Duration::from_millis(3500), rest(&mut slow)).await;
    assert!(silent.is_err(), "closed too early");
    let request = handshake("/socket/all/", "");
    let told = drip(&mut slow, &request, Duration::from_millis(50)).await;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    let took = start.elapsed();
    assert!(took < Duration::from_millis(10_500), "{took:?}");
}

#[tokio::test]
async fn a_slow_head_that_comes_in_time_is_served() {
    let server = care_for(20_000);
    let mut slow = connect(&server).await;
    let request = handshake("/socket/all/", "");
    let told = drip(&mut slow, &request, Duration::from_millis(5)).await;
    assert!(told.starts_with("HTTP/1.1 101 "), "{told}");
}

fn care_for(head_timeout_ms: u32) -> Server {
    tuned(&format!("head_timeout_ms = {head_timeout_ms}"))
}

#[tokio::test]
async fn a_connection_that_is_kept_for_the_next_request_is_closed_when_none_comes() {
    // The second is sent in time, also where the machine stands still.
    let server = care_for(4000);
    let mut kept = connect(&server).await;
    for _ in 0..2 {
        send(&mut kept, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(head(&mut kept).await.starts_with("HTTP/1.1 200 "));
        let mut body = [0; 18];
        kept.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, br#"{"status":"alive"}"#);
    }
    assert_eq!(rest(&mut kept).await, "");
}

#[tokio::test]
async fn a_socket_lives_on_beyond_the_deadline_of_its_head() {
    let server = care_for(4000);
    let mut socket = Raw::open(&server, "/socket/all/").await;
    // Another connection's end says that the time has passed.
    rest(&mut connect(&server).await).await;
    socket.frame(TEXT, br#"{"type":"sys:ping"}"#).await;
    assert_eq!(socket.next_text().await, r#"{"type":"sys:pong"}"#);
}

#[tokio::test]
async fn a_head_that_is_too_long_or_has_too_many_headers_is_answered_with_431() {
    let server = care_for(10_000);
    let many = |count: u32| {
        (0..count)
            .map(|at| format!("X-{at}: 1\r\n"))
            .collect::<String>()
    };
    for headers in [format!("X: {}\r\n", "x".repeat(8 * 1024)), many(65)] {
        for path in ["/socket/all/", "/healthz"] {
            let mut stream = connect(&server).await;
            send(&mut stream, &handshake(path, &headers)).await;
            let told = rest(&mut stream).await;
            assert!(told.starts_with("HTTP/1.1 431 "), "{path}: {told}");
        }
    }
    // The operator is told which setting it was, once, and how often.
    let refused = "limited_total{kind=\"head\"}";
    wait_until("the last of them to be counted", async || {
        (server.counted(refused).await == 4).then_some(())
    })
    .await;
    let setting = "server.max_head_bytes or server.max_headers";
    wait_for("the log", || server.log().contains(setting).then_some(()));
    assert_eq!(server.log().matches(setting).count(), 1);
    // Fat cookies are no reason to refuse anybody, nor is what a proxy adds.
    let cookie = format!("Cookie: {}\r\n", "x".repeat(7 * 1024));
    for headers in [cookie, many(58)] {
        let mut stream = connect(&server).await;
        send(&mut stream, &handshake("/socket/all/", &headers)).await;
        let told = head(&mut stream).await;
        assert!(told.starts_with("HTTP/1.1 101 "), "{told}");
    }
}

#[tokio::test]
async fn a_connection_beyond_the_last_place_gets_a_503_and_a_place_that_is_left_is_free() {
    // Those who say nothing stay for as long as this takes.
    let server = tuned("max_connections = 1\nspare_connections = 2\nhead_timeout_ms = 120000");
    let mut sockets = vec![Raw::open(&server, "/socket/all/").await];
    let mut silent = Vec::new();
    for _ in 0..OWN + 2 {
        silent.push(connect(&server).await);
    }
    let mut late = connect(&server).await;
    let told = rest(&mut late).await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("retry-after: 5\r\n"), "{told}");
    assert!(told.ends_with('}') && told.contains("\"error\":\"overloaded\""));
    // The socket has its place for as long as it lives, and not longer.
    silent.pop();
    let one = wait_until("a place that is left", async || {
        let mut one = connect(&server).await;
        send(&mut one, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        head(&mut one).await.contains(" 200 ").then_some(one)
    });
    silent.push(one.await);
    assert!(rest(&mut connect(&server).await).await.contains(" 503 "));
    sockets.clear();
    let one = wait_until("the socket's place", async || {
        let mut one = connect(&server).await;
        send(&mut one, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        head(&mut one).await.contains(" 200 ").then_some(one)
    });
    silent.push(one.await);
    silent.clear();
    wait_until("the metrics", async || {
        let mut one = connect(&server).await;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        send(&mut one, request).await;
        let text = rest(&mut one).await;
        let refused = text.contains("rowcast_connections_refused_total{kind=\"total\"}");
        (refused && text.contains("\nrowcast_connections 1\n")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_without_descriptors_accepts_again_when_it_has_some() {
    let server = care_for(60_000);
    let mut witness = server.socket("").await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    let limit = open.count() + 6;
    let limited = Command::new("prlimit")
        .args([
            format!("--pid={}", server.pid()),
            format!("--nofile={limit}:{limit}"),
        ])
        .status();
    assert!(limited.unwrap().success());
    let mut crowd = Vec::new();
    for _ in 0..30 {
        let mut one = connect(&server).await;
        send(&mut one, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        crowd.push(one);
    }
    wait_until("the log to say so", async || {
        let log = server.log();
        log.contains("no connection can be accepted").then_some(())
    })
    .await;
    // Who is there is served meanwhile.
    witness.ask(json!({ "type": "sys:ping", "rid": 1 })).await;
    drop(crowd);
    let code = wait_until("a request to be served", async || {
        let mut one = connect(&server).await;
        send(&mut one, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        head(&mut one).await.contains(" 200 ").then_some(200)
    });
    assert_eq!(code.await, 200);
    assert!(
        server
            .counted("connections_refused_total{kind=\"exhausted\"}")
            .await
            > 0
    );
    let told = server
        .log()
        .matches("no connection can be accepted")
        .count();
    assert_eq!(told, 1, "{}", server.log());
}
