//! From the return of a COMMIT to the frame at a browser's socket.

use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::{
    gauges::{Meter, Report},
    parts::{Parts, named},
    support::Socket,
};

/// Commits a second.
const RATE: u64 = 200;

/// Commits before those that count.
const WARM_UP: usize = RATE as usize;

/// What is read of a frame.
#[derive(Deserialize)]
pub struct Frame {
    r#type: String,
    data: Option<Item>,
}

#[derive(Deserialize)]
struct Item {
    id: usize,
}

/// The row that a frame tells of, unless it is another frame.
pub fn row(text: &str) -> Option<usize> {
    let frame: Frame = serde_json::from_str(text).ok()?;
    frame
        .data
        .filter(|_| frame.r#type == "item")
        .map(|item| item.id)
}

/// Measures with one setting of the NATS server and two gateways.
pub async fn run(report: &mut Report, seconds: u64, sync: Option<&str>) {
    let part = format!("latency, {}", named(sync));
    let parts = Parts::start(sync);
    let producer = parts.produce().await;
    let gateways = [parts.serve().await, parts.serve().await];
    let count = WARM_UP + (seconds * RATE) as usize;
    let mut readers = Vec::new();
    for gateway in &gateways {
        let socket = gateway.socket("types=item").await;
        readers.push(tokio::spawn(seen(socket, count)));
    }
    let meter = Meter::start(&[
        producer.pid(),
        parts.nats.pid(),
        gateways[0].pid(),
        gateways[1].pid(),
        std::process::id(),
    ]);
    let committed = commits(&parts, count).await;
    let used = meter.read();
    let mut took: Vec<Duration> = Vec::new();
    for reader in readers {
        let seen = reader.await.unwrap();
        let pairs = committed.iter().zip(seen).skip(WARM_UP);
        took.extend(pairs.map(|((_, done), seen)| seen.saturating_duration_since(*done)));
    }
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    for (name, share, wanted) in [
        ("p50", 0.5, Some(5.0)),
        ("p95", 0.95, None),
        ("p99", 0.99, Some(25.0)),
        ("max", 1.0, None),
    ] {
        let wanted = wanted.map_or(String::new(), |wanted| format!("≤ {wanted} ms"));
        let what = format!("COMMIT → WebSocket, {name}");
        report.add(&part, &what, format!("{:.2} ms", at(share)), &wanted);
    }
    let lasted: Vec<Duration> = committed.iter().map(|(sent, done)| *done - *sent).collect();
    let mean = lasted.iter().sum::<Duration>() / count as u32;
    let text = format!("{:.2} ms", mean.as_secs_f64() * 1e3);
    report.add(&part, "the COMMIT itself, mean", text, "");
    report.noise(&part, &used);
}

/// Commits one new row after another at [`RATE`]; when each was sent, and when it was done.
async fn commits(parts: &Parts, count: usize) -> Vec<(Instant, Instant)> {
    let client = parts.session().await;
    let insert = "INSERT INTO item VALUES ($1, 'an item', 1.25, 7)";
    let insert = client.prepare(insert).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / RATE as u32);
    let mut committed = Vec::with_capacity(count);
    for id in 1..=count as i64 {
        pace.tick().await;
        let sent = Instant::now();
        client.execute(&insert, &[&id]).await.unwrap();
        committed.push((sent, Instant::now()));
    }
    committed
}

/// When each row was seen, in order.
async fn seen(mut socket: Socket, count: usize) -> Vec<Instant> {
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        let text = socket.next_text().await;
        let now = Instant::now();
        if let Some(id) = row(&text) {
            assert_eq!(id, seen.len() + 1, "a row is missing or came twice");
            seen.push(now);
        }
    }
    seen
}
