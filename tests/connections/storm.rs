//! A deploy or a broken switch: everybody comes back in the same moment, with a cursor.

use std::{fs, io, sync::Arc};

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Barrier,
};

use super::handshake;
use crate::{
    support::{Server, in_time, wait_until},
    wire::{CARE, CARE_TABLES},
};

/// Events that everybody has missed.
const MISSED: usize = 20;

/// In the frame that says that nothing is missed any more.
const CAUGHT_UP: &[u8] = b"sys:caught_up";

/// How many come back: as many as this process may have open at once, within reason.
fn crowd() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    let most = match std::env::var_os("ROWCAST_LONG") {
        Some(_) => 10_000,
        None => 2_000,
    };
    // Other tests run beside this one.
    most.min(soft.unwrap_or(usize::MAX).saturating_sub(600) / 2 * 2)
}

/// Comes back, and takes what is sent up to the last event. Whom the kernel has no room for, because more
/// came in one moment than it keeps for a listener, tries again.
async fn come_back(address: &str, request: &str, last: &[u8]) -> Vec<u8> {
    loop {
        let mut got = Vec::new();
        match take(address, request, last, &mut got).await {
            Ok(()) => return got,
            Err(err) => assert!(got.is_empty() && is_of_the_kernel(&err), "{err}: {got:?}"),
        }
    }
}

fn is_of_the_kernel(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, NotConnected, TimedOut};
    matches!(err.kind(), ConnectionReset | NotConnected | TimedOut)
}

async fn take(address: &str, request: &str, last: &[u8], got: &mut Vec<u8>) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    while !(got.ends_with(b"}") && got.windows(last.len()).any(|bytes| bytes == last)) {
        let read = stream.read_buf(got).await?;
        assert!(read > 0, "cut off: {}", String::from_utf8_lossy(got));
    }
    Ok(())
}

/// The frames behind the head of the answer.
fn frames(got: &[u8]) -> Vec<Json> {
    let end = got
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .unwrap();
    assert!(got.starts_with(b"HTTP/1.1 101 "));
    let mut rest = &got[end + 4..];
    let mut frames = Vec::new();
    while let [first, length, ..] = *rest {
        let (skip, length) = match length {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            length => (2, usize::from(length)),
        };
        assert_eq!(first, 0x81, "a whole text frame");
        frames.push(serde_json::from_slice(&rest[skip..skip + length]).unwrap());
        rest = &rest[skip + length..];
    }
    frames
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_come_back_at_once_get_what_they_missed_from_memory() {
    let server = Server::configured(CARE, CARE_TABLES);
    let mut witness = server.socket("types=notice").await;
    let publish = async |number: usize| {
        let event = json!({ "type": "notice", "data": format!("event {number} of many") });
        assert_eq!(server.post("/api/events", event).await.0, 202);
    };
    publish(0).await;
    let cursor = witness.next().await["cursor"].as_str().unwrap().to_owned();
    for number in 1..=MISSED {
        publish(number).await;
        witness.next().await;
    }
    let reads = [
        "queries_total{kind=\"ok\"}",
        "pages_read_total",
        "backlog_reads_total",
    ];
    // The page is read once at the start, as soon as there is time for it.
    wait_until("the page", async || {
        (server.counted("pages_read_total").await == 1).then_some(())
    })
    .await;
    let mut before = Vec::new();
    for metric in reads {
        before.push(server.counted(metric).await);
    }

    let path = format!("/socket/all/?types=patient,notice&since={cursor}");
    let request: Arc<str> = handshake(&path, "").into();
    let address: Arc<str> = server.address().into();
    let crowd = crowd();
    let start = Arc::new(Barrier::new(crowd));
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..crowd {
        let (address, request, start) = (address.clone(), request.clone(), start.clone());
        coming.spawn(async move {
            start.wait().await;
            come_back(&address, &request, CAUGHT_UP).await
        });
    }
    let expected: Vec<_> = (1..=MISSED)
        .map(|number| format!("event {number} of many"))
        .collect();
    while let Some(got) = in_time("everybody to be back", coming.join_next()).await {
        let frames = frames(&got.unwrap());
        let (caught_up, events) = frames.split_last().unwrap();
        let data: Vec<_> = events
            .iter()
            .map(|frame| frame["data"].as_str().unwrap())
            .collect();
        assert_eq!(data, expected);
        assert_eq!(caught_up["cursor"], events[MISSED - 1]["cursor"]);
    }

    for (metric, before) in reads.into_iter().zip(before) {
        assert_eq!(server.counted(metric).await, before, "{metric}");
    }
    let text = reqwest::get(server.url("/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for refusal in [
        "rowcast_connections_refused_total{",
        "rowcast_closes_total{",
        "rowcast_resets_total{",
    ] {
        assert!(!text.contains(refusal), "{refusal}\n{text}");
    }
    println!("{crowd} came back");
}
