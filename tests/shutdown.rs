//! Stopping: sockets are told, what was confirmed is kept, and nobody can hold it up.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    support::{Raw, STANDSTILL, Server, Socket, in_time, sqlite3, wait_until},
    wire::{CARE, CARE_TABLES, care},
};

#[tokio::test]
async fn a_stop_closes_every_socket_with_1012_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start();
        let mut plain = server.socket("").await;
        let mut greeted = server.socket("hello=1").await;
        let mut silent = server.socket("hello=1").await;
        let mut echo = Socket::open(&format!("ws://{}/chat/socket/", server.address())).await;
        greeted.ask(json!({ "type": "sys:hello", "rid": 1 })).await;
        let start = Instant::now();
        server.signal(signal);
        for socket in [&mut plain, &mut silent, &mut echo] {
            assert_eq!(
                socket.next_or_close().await.unwrap_err().code,
                1012,
                "{signal}"
            );
        }
        let drain = greeted.next_of("sys:drain").await;
        assert_eq!(drain["after_ms"].as_array().unwrap().len(), 2);
        assert_eq!(greeted.closed().await.code, 1012);
        assert_eq!(server.ended().code(), Some(0), "{signal}: {}", server.log());
        assert!(
            start.elapsed() < Duration::from_secs(10) + STANDSTILL,
            "within the grace period"
        );
    }
}

#[tokio::test]
async fn a_stopping_server_lets_nobody_in() {
    let mut server = care();
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    assert!(reqwest::get(server.url("/healthz")).await.is_err());
}

#[tokio::test]
async fn what_was_written_just_before_the_stop_is_still_pushed() {
    let mut server = care();
    let mut socket = server.socket("types=patient").await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1; UPDATE patient SET age = 2 WHERE id = 2",
    );
    server.signal("TERM");
    let mut last = None;
    while let Ok(text) = socket.next_or_close().await {
        last = Some(serde_json::from_str::<serde_json::Value>(&text).unwrap()["cursor"].clone());
    }
    assert_eq!(server.ended().code(), Some(0));
    // Either it was sent before the close, or the cursor brings it after the restart.
    server.restart();
    let Some(last) = last else { return };
    let mut back = server
        .socket(&format!("types=patient&since={}", last.as_str().unwrap()))
        .await;
    let mut seen = Vec::new();
    loop {
        let frame = back.next().await;
        if frame["type"] == "sys:caught_up" {
            break;
        }
        seen.push(frame["key"]["id"].as_i64().unwrap());
    }
    assert!(
        seen.len() < 2,
        "what came before the stop comes twice: {seen:?}"
    );
}

#[tokio::test]
async fn a_socket_that_never_reads_holds_the_stop_no_longer_than_the_grace_period() {
    let mut server = Server::configured(
        &format!("[server]\nshutdown_grace_ms = 1500\nwrite_timeout_ms = 60000\n{CARE}"),
        CARE_TABLES,
    );
    let stuck = Raw::open(&server, "/socket/all/").await;
    let mut witness = server.socket("").await;
    let text = "x".repeat(60_000);
    let mut sent = 0;
    // It is stuck once fewer frames are counted than both sockets would have taken.
    while server.counted("pushes_sent_total").await + 10 >= sent * 2 {
        for _ in 0..20 {
            let event = json!({ "type": "notice", "data": text });
            server.post("/api/events", event).await;
            witness.next().await;
            sent += 1;
        }
        assert!(
            sent < 2000,
            "the socket takes everything without being read"
        );
    }
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(
        witness.closed().await.code,
        1012,
        "the others are not held up"
    );
    assert_eq!(server.ended().code(), Some(0));
    let took = start.elapsed();
    assert!(
        took < Duration::from_millis(1500 + 1000) + STANDSTILL,
        "{took:?}"
    );
    drop(stuck);
}

#[tokio::test]
async fn an_idle_http_connection_does_not_hold_the_stop_up() {
    let mut server = care();
    let mut idle = TcpStream::connect(server.address()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /he")
        .await
        .unwrap();
    assert_eq!(server.get("/healthz").await.0, 200);
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    drop(idle);
}

/// A query that is interrupted when it has had its time, a row, and 16 MB of them.
const QUERIES: &str = "
[limits]
requests_running = 1
[[topics]]
type = \"slow\"
query = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000000) SELECT 1 AS id, count(*) AS n FROM n\"
watch = [\"big\"]
key = [\"id\"]
[[topics]]
type = \"big\"
table = \"big\"
";

const BIG: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO big SELECT i, printf('%.*c', 8000, 'a') FROM n;";

#[tokio::test]
async fn an_answer_that_comes_after_the_stop_is_whole_and_says_that_it_is_the_last() {
    // Answers under way are waited for, but not for long: on a machine that stands still there is none.
    wait_until("an answer", answer_after_the_stop).await;
}

/// What is answered to a query that is under way when the process is stopped; none where it has come before, or
/// not at all.
async fn answer_after_the_stop() -> Option<()> {
    let config = format!("[database]\nquery_timeout_ms = 800\n{QUERIES}");
    let mut server = Server::configured(&config, BIG);
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let ask = b"GET /api/query/slow?id=1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    // There is one place: whoever finds none knows that it is taken.
    while server.get("/api/query/big?id=1").await.0 != 429 {
        let mut first = [0];
        if timeout(Duration::ZERO, stream.peek(&mut first))
            .await
            .is_ok()
        {
            return None;
        }
    }
    server.signal("TERM");
    let mut told = String::new();
    let read = in_time("the connection's end", stream.read_to_string(&mut told)).await;
    assert_eq!(server.ended().code(), Some(0));
    if told.is_empty() {
        return None;
    }
    assert!(read.is_ok(), "{read:?} after {told}");
    let (head, body) = told.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    if !head.contains("\r\nconnection: close") {
        // It may have come just before; it does not each time.
        return None;
    }
    assert!(head.starts_with("http/1.1 504 "), "{head}");
    let length = format!("\r\ncontent-length: {}", body.len());
    assert!(head.contains(&length), "{told}");
    Some(())
}

#[tokio::test]
async fn an_answer_that_the_stop_cuts_off_cannot_be_taken_for_a_whole_one() {
    let config = format!("[database]\nquery_timeout_ms = 30000\n{QUERIES}");
    let mut server = Server::configured(&config, BIG);
    let asked = reqwest::get(server.url("/api/query/big?all=true"));
    let answer = in_time("an answer's head", asked).await.unwrap();
    assert_eq!(answer.status(), 200);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    // More than the kernel holds of it.
    let body = in_time("the end of its body", answer.bytes()).await;
    let whole = body.map(|bytes| bytes.len());
    assert!(whole.is_err(), "{whole:?} bytes are no error");
}

#[tokio::test]
async fn events_that_were_confirmed_before_the_stop_are_there_after_it() {
    confirmed_events_outlive(|server| {
        server.signal("TERM");
        assert_eq!(server.ended().code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn events_that_were_confirmed_outlive_a_kill() {
    confirmed_events_outlive(Server::kill).await;
}

/// Publishes with four writers, ends the server, and asks for everything after the restart.
async fn confirmed_events_outlive(end: impl FnOnce(&mut Server)) {
    let mut server = care();
    let (_, first) = server
        .post("/api/events", json!({ "type": "notice", "data": 0 }))
        .await;
    let since = first["cursor"].as_str().unwrap().to_owned();
    let client = reqwest::Client::new();
    let mut publishing = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (client, url) = (client.clone(), server.url("/api/events"));
        publishing.spawn(async move {
            let mut confirmed = Vec::new();
            for number in 0.. {
                let event = json!({ "type": "notice", "data": [writer, number] });
                match client.post(&url).json(&event).send().await {
                    Ok(answer) if answer.status() == 202 => confirmed.push(event["data"].clone()),
                    _ => break,
                }
            }
            confirmed
        });
    }
    let mut witness = server.socket("types=notice").await;
    for _ in 0..20 {
        witness.next().await;
    }
    end(&mut server);
    let confirmed: Vec<_> = publishing.join_all().await.into_iter().flatten().collect();
    server.restart();
    let mut back = server.socket(&format!("types=notice&since={since}")).await;
    let mut replayed = Vec::new();
    loop {
        let frame = back.next().await;
        if frame["type"] == "sys:caught_up" {
            break;
        }
        replayed.push(frame["data"].clone());
    }
    let lost: Vec<_> = confirmed
        .iter()
        .filter(|data| !replayed.contains(data))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost",
        lost.len(),
        confirmed.len()
    );
    assert!(
        confirmed.len() >= 16,
        "the writers wrote {}",
        confirmed.len()
    );
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let mut server = Server::configured(
        &format!("[server]\nshutdown_grace_ms = 600000\nwrite_timeout_ms = 60000\n{CARE}"),
        CARE_TABLES,
    );
    let mut raw = Raw::open(&server, "/socket/all/").await;
    let text = "x".repeat(60_000);
    let mut sent = 0;
    while sent < 10 || server.counted("pushes_sent_total").await + 10 >= sent {
        let event = json!({ "type": "notice", "data": text });
        server.post("/api/events", event).await;
        sent += 1;
        assert!(
            sent < 2000,
            "the socket takes everything without being read"
        );
    }
    server.signal("TERM");
    crate::support::wait_for("the stop to begin", || {
        server.log().contains("stopping").then_some(())
    });
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(1));
    raw.bytes(b"").await;
}
