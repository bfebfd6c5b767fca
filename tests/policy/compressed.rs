//! What is made for some of a change, fewer columns or another operation, goes compressed to who agreed to it,
//! and is the same text.

use rowcast::session::deflate::inflate;
use serde_json::{Value as Json, json};

use super::home::{Home, connect, is_innocent, nurse};
use crate::support::{Raw, Server, Socket, in_time};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// The first byte of a text in one frame, plain and compressed.
const PLAIN: u8 = 0x81;
const COMPRESSED: u8 = 0xc1;

/// What becomes long enough to be compressed, each in a transaction of its own; `n` is repeated.
const STEPS: &[(&str, &str, bool)] = &[
    // Without the column that she does not see.
    (
        "UPDATE patient SET name = '{n}', diagnosis = '{secret}' WHERE id = 1",
        "update",
        true,
    ),
    // Into her ward: an insert, narrowed as well.
    (
        "UPDATE patient SET ward = '1', name = '{n}' WHERE id = 3",
        "insert",
        true,
    ),
    // Out of it: a key alone.
    (
        "UPDATE patient SET ward = '2' WHERE id = 3",
        "delete",
        false,
    ),
    (
        "INSERT INTO patient VALUES (4, 'oak', '1', '{n}', 'd', '{secret}')",
        "insert",
        true,
    ),
    (
        "UPDATE patient SET tenant = 'CANARY-elm', name = 'CANARY {n}' WHERE id = 4",
        "delete",
        false,
    ),
    // Long for others, and short for her.
    (
        "UPDATE patient SET diagnosis = '{secret}' WHERE id = 2",
        "update",
        false,
    ),
];

/// A socket of a nurse that reads what is compressed.
async fn offering(gateway: &Server, parameters: &str) -> Raw {
    let headers = format!("token: {}\r\n{OFFER}", nurse());
    let path = format!("/socket/all/?types=patient{parameters}");
    let (raw, head) = Raw::ask(gateway, &path, &headers).await;
    assert!(head.contains("permessage-deflate"), "{head}");
    raw
}

/// The next text, and whether it came compressed.
async fn next(socket: &mut Raw) -> (bool, String) {
    loop {
        let (first, payload) = socket.next_whole().await.expect("the connection goes on");
        let text = match first {
            PLAIN => payload,
            COMPRESSED => inflate(payload, 64 * 1024).unwrap(),
            _ => continue,
        };
        return (first == COMPRESSED, String::from_utf8(text).unwrap());
    }
}

/// The next event of a plain socket.
async fn next_event(socket: &mut Socket) -> String {
    in_time("an event", socket.next_text()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_for_some_goes_compressed_and_is_the_same() {
    let home = Home::open().await;
    let gateway = home.another("compression = true");
    let mut plain = connect(&gateway, &nurse(), "types=patient").await;
    let mut two = Vec::new();
    for _ in 0..2 {
        two.push(offering(&gateway, "").await);
    }
    // From here on all of them are there.
    home.database
        .sql("UPDATE patient SET bed = 'b' WHERE id = 1");
    let first: Json = serde_json::from_str(&next_event(&mut plain).await).unwrap();
    for socket in &mut two {
        next(socket).await;
    }
    let (long, secret) = ("n".repeat(400), "CANARY".repeat(100));
    let mut texts = Vec::new();
    for (step, op, compressed) in STEPS {
        let sql = step.replace("{n}", &long).replace("{secret}", &secret);
        home.database.sql(&sql);
        let text = next_event(&mut plain).await;
        let event: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(event["op"], *op, "{sql}: {text}");
        is_innocent(step, &text);
        assert_eq!(event["data"]["diagnosis"], json!(null), "{text}");
        for socket in &mut two {
            assert_eq!(next(socket).await, (*compressed, text.clone()), "{step}");
        }
        texts.push((*compressed, text));
    }
    // The same in a replay.
    let since = format!("&since={}", first["cursor"].as_str().unwrap());
    let mut late = offering(&gateway, &since).await;
    for text in &texts {
        assert_eq!(next(&mut late).await, *text);
    }
}
