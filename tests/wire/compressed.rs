//! permessage-deflate on the real server: who gets what in which form, and what comes in.

use rowcast::session::deflate::{Deflater, inflate};
use serde_json::{Value as Json, json};

use super::{CARE, CARE_TABLES, care};
use crate::support::{Options, Raw, Server, sqlite3};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
const ANSWER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";

/// The first byte of a text in one frame, plain and compressed.
const PLAIN: u8 = 0x81;
const COMPRESSED: u8 = 0xc1;

/// The most bytes of a client's message that are read.
const MAX_READ_BYTES: usize = 256 * 1024;

/// A gateway that takes offers.
fn compressing() -> Server {
    let config = format!("[server]\ncompression = true\nlanguage = \"en\"\n{CARE}");
    Server::configured(&config, CARE_TABLES)
}

async fn open(server: &Server, path: &str, headers: &str) -> Raw {
    let (raw, head) = Raw::ask(server, path, headers).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let name = "sec-websocket-extensions: ";
    let agreed = head.split_once(name).map_or("", |(_, rest)| rest);
    assert_eq!(headers.is_empty(), agreed.is_empty(), "{head}");
    assert!(
        agreed.is_empty() || agreed.starts_with(&ANSWER[..ANSWER.len() - 2]),
        "{head}"
    );
    raw
}

/// The next text, and how it came.
async fn next(socket: &mut Raw) -> (u8, String) {
    loop {
        let (first, payload) = socket.next_whole().await.expect("the connection has ended");
        let text = match first {
            PLAIN => payload,
            COMPRESSED => inflate(payload, MAX_READ_BYTES).unwrap(),
            _ => continue,
        };
        return (first, String::from_utf8(text).unwrap());
    }
}

async fn publish(server: &Server, bytes: usize) {
    let event = json!({ "type": "notice", "data": "abcdefgh ".repeat(bytes / 9) });
    assert_eq!(server.post("/api/events", event).await.0, 202);
}

/// A query of more than 256 bytes, as a client compresses it.
fn query(pad: usize) -> Vec<u8> {
    let query = json!({ "type": "patient", "rid": 1, "id": 1, "pad": "x".repeat(pad) });
    let payload = Deflater::default().message(query.to_string().as_bytes());
    payload.unwrap().to_vec()
}

#[tokio::test]
async fn an_offer_is_declined_unless_the_configuration_says_otherwise() {
    let server = care();
    for path in ["/socket/all/", "/chat/socket/"] {
        let (mut raw, head) = Raw::ask(&server, path, OFFER).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(!head.to_lowercase().contains("extensions"), "{head}");
        raw.frame(COMPRESSED, &query(300)).await;
        assert_eq!(raw.closed().await.code, 1002, "{path}");
    }
}

#[tokio::test]
async fn who_offers_it_gets_long_events_compressed_and_all_get_the_same() {
    let server = compressing();
    let path = "/socket/all/?types=notice";
    let mut plain = open(&server, path, "").await;
    let mut compressed = open(&server, path, OFFER).await;
    let narrow = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let mut windowed = open(&server, path, narrow).await;
    for (bytes, to_compressed, to_windowed) in [
        (20, PLAIN, PLAIN),
        (300, COMPRESSED, COMPRESSED),
        // What does not fit into its window is sent as it is.
        (3_000, COMPRESSED, PLAIN),
        (50_000, COMPRESSED, PLAIN),
    ] {
        publish(&server, bytes).await;
        let (form, text) = next(&mut plain).await;
        assert_eq!(form, PLAIN);
        assert!(text.len() >= bytes, "{text}");
        assert_eq!(next(&mut compressed).await, (to_compressed, text.clone()));
        assert_eq!(next(&mut windowed).await, (to_windowed, text));
    }
}

#[tokio::test]
async fn what_is_replayed_is_compressed_too() {
    const EVENTS: usize = 40;
    let server = compressing();
    let path = "/socket/all/?types=notice";
    let mut plain = open(&server, path, "").await;
    let mut texts = Vec::new();
    for _ in 0..EVENTS {
        publish(&server, 400).await;
        texts.push(next(&mut plain).await.1);
    }
    let first: Json = serde_json::from_str(&texts[0]).unwrap();
    let since = first["cursor"].as_str().unwrap();
    let mut late = open(&server, &format!("{path}&since={since}"), OFFER).await;
    for text in &texts[1..] {
        assert_eq!(next(&mut late).await, (COMPRESSED, text.clone()));
    }
}

/// A number that looks like chance, in hexadecimal digits: as much work to compress as there is.
fn digits(seed: usize, count: usize) -> String {
    let mut number = seed as u64;
    let next = std::iter::repeat_with(|| {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{:08x}", number >> 32)
    });
    next.take(count / 8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_compressed_leaves_its_turn_to_others() {
    const EVENTS: usize = 200;
    // All who are served take turns on one thread.
    let server = Server::with(Options {
        config: Some(format!(
            "[server]\ncompression = true\n[limits]\nmessages_per_second = 100000\nmessages_burst = 1000000\n{CARE}"
        )),
        database: Some(CARE_TABLES.into()),
        env: vec![("TOKIO_WORKER_THREADS".into(), "1".into())],
        ..Options::default()
    });
    let mut witness = server.socket("types=stay").await;
    let publish = async |seed| {
        let event = json!({ "type": "notice", "data": digits(seed, 50_000) });
        let (code, answer) = server.post("/api/events", event).await;
        assert_eq!(code, 202);
        answer["cursor"].as_str().unwrap().to_owned()
    };
    let since = publish(0).await;
    for seed in 1..=EVENTS {
        publish(seed).await;
    }
    let path = format!("/socket/all/?types=notice&since={since}");
    let mut late = open(&server, &path, OFFER).await;
    let replayed = tokio::spawn(async move {
        let mut frames = 0;
        loop {
            let (first, payload) = late.next_whole().await.expect("the connection goes on");
            match first {
                COMPRESSED => frames += 1,
                _ => return (frames, String::from_utf8(payload).unwrap()),
            }
        }
    });
    let mut answered = 0;
    while !replayed.is_finished() {
        let ping = json!({ "type": "sys:ping", "rid": answered });
        assert_eq!(witness.ask(ping).await["type"], "sys:pong");
        answered += 1;
    }
    let (frames, last) = replayed.await.unwrap();
    assert_eq!(frames, EVENTS);
    assert!(last.contains("sys:caught_up"), "{last}");
    println!("{answered} answers during a replay");
    // One whose turn never ends is over when the first of them comes.
    assert!(answered > 10, "{answered} answers during a replay");
}

#[tokio::test]
async fn who_has_a_filter_gets_what_passes_it_compressed() {
    let server = compressing();
    let mut socket = open(&server, "/socket/all/?types=notice", OFFER).await;
    let subscribe = json!({ "type": "sys:subscribe", "rid": 1,
        "types": { "patient": { "filter": { "ward": "3" } } } });
    socket.frame(PLAIN, subscribe.to_string().as_bytes()).await;
    assert!(next(&mut socket).await.1.contains("sys:ok"));
    let ward = |ward: &str| {
        let long = "n".repeat(400);
        format!("UPDATE patient SET ward = '{ward}', name = '{long}' WHERE id = 3")
    };
    for (to, op) in [("3", "update"), ("5", "delete")] {
        sqlite3(&server.database(), &ward(to));
        let (form, text) = next(&mut socket).await;
        let event: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(event["op"], op, "{text}");
        assert_eq!(form == COMPRESSED, text.len() >= 256, "{text}");
    }
}

#[tokio::test]
async fn what_a_client_compresses_is_read() {
    let server = compressing();
    let mut socket = open(&server, "/socket/all/", OFFER).await;
    socket.frame(COMPRESSED, &query(1_000)).await;
    let (_, text) = next(&mut socket).await;
    let reply: Json = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&reply["rid"], &reply["data"][0]["name"]),
        (&json!(1), &json!("王秀英"))
    );
    // In fragments, of which the first alone has the bit.
    let payload = query(1_000);
    let (first, second) = payload.split_at(payload.len() / 2);
    socket.frame(COMPRESSED & 0x7f, first).await;
    socket.frame(0x80, second).await;
    let again: Json = serde_json::from_str(&next(&mut socket).await.1).unwrap();
    assert_eq!(again["data"], reply["data"]);
}

#[tokio::test]
async fn what_would_become_too_much_or_is_no_deflate_closes_the_socket() {
    let server = compressing();
    for path in ["/socket/all/", "/chat/socket/"] {
        // A thousand times of what is sent.
        let bomb = Deflater::default().message(&vec![b' '; 64 * MAX_READ_BYTES]);
        let bomb = bomb.unwrap();
        assert!(bomb.len() < MAX_READ_BYTES / 8);
        for (what, payload, code) in [
            ("a bomb", bomb.to_vec(), 1009),
            ("over the limit of a message", query(70_000), 1009),
            ("noise", vec![0xff; 64], 1002),
            ("a part", query(300)[..9].to_vec(), 1002),
        ] {
            let mut socket = open(&server, path, OFFER).await;
            socket.frame(COMPRESSED, &payload).await;
            assert_eq!(socket.closed().await.code, code, "{path}: {what}");
        }
    }
}

#[tokio::test]
async fn a_reserved_bit_that_was_not_agreed_on_is_still_closed_with_1002() {
    let server = compressing();
    let mut declined = open(&server, "/socket/all/", "").await;
    declined.frame(COMPRESSED, &query(300)).await;
    assert_eq!(declined.closed().await.code, 1002);
    for first in [0xa1, 0x91, 0xc9] {
        let mut socket = open(&server, "/socket/all/", OFFER).await;
        socket.frame(first, b"").await;
        assert_eq!(socket.closed().await.code, 1002, "{first:x}");
    }
}
