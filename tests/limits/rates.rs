//! How often a socket may say something.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{PATHS, answers, counted, limited};
use crate::{
    support::{
        Raw, Server, Socket,
        frames::{FIN, PING as PING_OPCODE, frame},
        in_time,
        raw::TEXT,
    },
    wire::care,
};

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn ping(rid: u64) -> Json {
    json!({ "type": "sys:ping", "rid": rid })
}

async fn open(server: &Server, path: &str) -> Socket {
    Socket::open(&format!("ws://{}{path}", server.address())).await
}

#[tokio::test]
async fn forty_messages_at_once_are_answered_and_who_sends_more_is_told_when_to_come_again() {
    let server = care();
    let mut socket = server.socket("").await;
    socket.send_together((0..40).map(ping)).await;
    for (_, answer) in answers(&mut socket, 40).await {
        assert_eq!(answer["type"], "sys:pong");
    }
    socket.send_together((0..200).map(ping)).await;
    let answered = answers(&mut socket, 200).await;
    let refused = |answer: &&Json| answer["type"] == "sys:error";
    let refused: Vec<_> = answered.values().filter(refused).collect();
    assert!(!refused.is_empty(), "200 messages at once are too many");
    for answer in &refused {
        assert_eq!(answer["code"], 429);
        assert_eq!(answer["error"], "too_many_requests");
        let wait = answer["retry_after_ms"].as_u64().unwrap();
        assert!((1..=51).contains(&wait), "{wait} ms at 20 a second");
    }
    assert_eq!(counted(&server, "messages").await, refused.len() as u64);
    assert_eq!(counted(&server, "flood").await, 0);
}

#[tokio::test]
async fn every_kind_of_request_counts_and_is_answered_once_with_its_rid() {
    let server = limited("messages_per_second = 1\nmessages_burst = 1");
    for request in [
        json!({ "type": "patient" }),
        json!({ "type": "patient", "id": [] }),
        json!({ "type": "nobody" }),
        json!({ "type": "sys:hello" }),
        json!({ "type": "sys:subscribe", "types": ["patient"] }),
        json!({ "type": "sys:unsubscribe", "types": ["patient"] }),
        json!({ "type": "sys:auth", "token": "x" }),
        ping(0),
    ] {
        let mut socket = server.socket("").await;
        let late = (2..5).map(|rid| {
            let mut late = request.clone();
            late["rid"] = rid.into();
            late
        });
        socket
            .send_together([ping(1)].into_iter().chain(late))
            .await;
        let answered = answers(&mut socket, 4).await;
        assert_eq!(answered[&1]["type"], "sys:pong");
        // A machine that stands still for a second in between has room for one of them again.
        let late = answered.range(2..).map(|(_, answer)| &answer["code"]);
        let refused = late.filter(|code| **code == 429).count();
        assert!(refused >= 2, "{request}: {answered:?}");
    }
}

#[tokio::test]
async fn who_waits_as_long_as_he_is_told_is_answered() {
    let server = limited("messages_per_second = 2\nmessages_burst = 1");
    let mut socket = server.socket("").await;
    // Unless the machine stands still in between, the second is one too many.
    let refused = in_time("a refusal", async {
        loop {
            socket.send_together([ping(1), ping(2)]).await;
            let answered = answers(&mut socket, 2).await;
            if let Some(wait) = answered[&2]["retry_after_ms"].as_u64() {
                return wait;
            }
        }
    });
    let wait = Duration::from_millis(refused.await);
    assert!(wait <= Duration::from_millis(500), "{wait:?}");
    // Nothing comes meanwhile.
    assert!(socket.silent_for(wait).await);
    assert_eq!(socket.ask(ping(3)).await["type"], "sys:pong");
}

#[tokio::test]
async fn only_who_sends_ten_times_as_much_is_closed_with_4429() {
    let server = limited("messages_per_second = 1\nmessages_burst = 5");
    let mut socket = server.socket("").await;
    socket.send_together((0..50).map(ping)).await;
    let answered = answers(&mut socket, 50).await;
    let pongs = answered.values().filter(|a| a["type"] == "sys:pong");
    assert!((5..20).contains(&pongs.count()), "{answered:?}");
    // At ten a second these are too many, however slow the machine is. They are sent in one piece: who
    // still sends when he was closed a second ago may not learn why.
    socket.send_together((50..1000).map(ping)).await;
    let closed = socket.closed().await;
    assert_eq!(closed.code, 4429);
    assert_eq!(counted(&server, "flood").await, 1);
    assert_eq!(server.counted("closes_total{kind=\"4429\"}").await, 1);

    let mut echo = open(&server, "/chat/socket/").await;
    let x = || Json::from("x");
    echo.send_together((0..50).map(|_| x())).await;
    for _ in 0..50 {
        echo.next_text().await;
    }
    echo.send_together((0..1000).map(|_| x())).await;
    assert_eq!(echo.closed().await.code, 4429);
}

#[tokio::test]
async fn what_is_malformed_is_told_so_also_above_the_rate_and_ends_the_socket() {
    let server = limited("messages_per_second = 1\nmessages_burst = 2");
    let mut socket = server.socket("").await;
    for _ in 0..10 {
        socket.send_text("{").await;
        assert_eq!(socket.next().await["error"], "bad_json");
    }
    socket.send_text("{").await;
    assert_eq!(socket.closed().await.code, 4400);
    assert_eq!(counted(&server, "malformed").await, 1);
}

#[tokio::test]
async fn twenty_pings_at_once_are_answered_and_more_are_closed_with_1008() {
    let server = care();
    for path in PATHS {
        let mut raw = Raw::open(&server, path).await;
        for n in 0..20 {
            raw.frame(PING, &[n]).await;
        }
        for n in 0..20 {
            assert_eq!(raw.next().await, Some((10, vec![n])), "{path}");
        }
        for n in 0..200 {
            raw.frame(PING, &[n]).await;
        }
        assert_eq!(raw.closed().await.code, 1008, "{path}");
    }
    assert_eq!(counted(&server, "controls").await, 2);
}

#[tokio::test]
async fn pongs_that_nobody_asked_for_count_as_well() {
    let server = care();
    for path in PATHS {
        let mut raw = Raw::open(&server, path).await;
        for _ in 0..20 {
            raw.frame(PONG, b"").await;
        }
        raw.frame(TEXT, br#"{"type":"sys:ping"}"#).await;
        raw.next_text().await;
        for _ in 0..200 {
            raw.frame(PONG, b"").await;
        }
        assert_eq!(raw.closed().await.code, 1008, "{path}");
    }
}

#[tokio::test]
async fn who_pings_and_reads_nothing_is_read_no_further() {
    let config = "[server]\nwrite_timeout_ms = 120000\nping_interval_ms = 120000\n\
                  [limits]\ncontrols_per_second = 100000\ncontrols_burst = 1000000\n";
    let config = format!("{config}{}", crate::wire::CARE);
    let server = Server::configured(&config, crate::wire::CARE_TABLES);
    let mut raw = Raw::open(&server, "/socket/all/").await;
    let before = crate::crowds::resident(server.pid());
    let pings = frame(FIN | PING_OPCODE, &[b'x'; 125]).repeat(1000);
    let mut sent = 0;
    // Until the kernel holds all that it can, in both directions: a pong that waits to be written is
    // the only one.
    while tokio::time::timeout(Duration::from_secs(1), raw.bytes(&pings))
        .await
        .is_ok()
    {
        sent += pings.len();
        assert!(sent < 256 << 20, "{sent} bytes of pings were taken");
    }
    let after = crate::crowds::resident(server.pid());
    assert!(after < before + 4096, "{before} KiB, then {after} KiB");
}
