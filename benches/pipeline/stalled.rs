//! Sockets that never read: what they cost those who do, and the gateway's memory.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    gauges::{Meter, Report, resident_mib},
    support::{Raw, Server, Socket},
};

/// Sockets that never read.
const STALLED: usize = 500;

/// Sockets that read.
const HEALTHY: usize = 50;

/// Rounds with and without them, in turn.
const ROUNDS: usize = 3;

/// Events of a round.
const EVENTS: usize = 1000;

/// Measures in turn with and without the stalled sockets.
pub async fn run(report: &mut Report) {
    let config = "[server]\nwrite_timeout_ms = 600000\nping_interval_ms = 600000\n\
                  ring_max_bytes = 16777216\n[[topics]]\ntype = \"t\"\n";
    let server = Server::configured(config, "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let mut healthy = Vec::new();
    for _ in 0..HEALTHY {
        healthy.push(server.socket("").await);
    }
    // The ring is full from the first round on, so that it is not what grows.
    publish(&server, &mut healthy, 400, 60_000).await;
    let meter = Meter::start(&[server.pid()]);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut grown = Vec::new();
    for _ in 0..ROUNDS {
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            stalled.push(Raw::open(&server, "/socket/all/").await);
        }
        // The kernel takes some megabytes for each before it takes nothing.
        let mut sent = server.counted("pushes_sent_total").await;
        loop {
            publish(&server, &mut healthy, 10, 60_000).await;
            let now = server.counted("pushes_sent_total").await;
            if now - sent <= 10 * HEALTHY as u64 {
                break;
            }
            sent = now;
        }
        let before = resident_mib(server.pid());
        with.push(publish(&server, &mut healthy, EVENTS, 500).await);
        grown.push(resident_mib(server.pid()) - before);
        drop(stalled);
        while server.counted("sessions").await > HEALTHY as u64 {}
        without.push(publish(&server, &mut healthy, EVENTS, 500).await);
    }
    let part = "500 sockets that never read";
    let (with, without) = (median(with), median(without));
    for (what, index) in [("p50", EVENTS / 2), ("p99", EVENTS * 99 / 100)] {
        let of = |all: &[Duration]| all[index].as_secs_f64() * 1000.0;
        let (with, without) = (of(&with), of(&without));
        let figure = format!(
            "{with:.2} ms, {without:.2} ms without: {:.2} ×",
            with / without
        );
        report.add(
            part,
            what,
            figure,
            if what == "p99" { "≤ 1.10 ×" } else { "" },
        );
    }
    grown.sort_by(f64::total_cmp);
    report.add(
        part,
        "memory, most of a round",
        format!("{:+.1} MiB", grown[ROUNDS - 1]),
        "flat",
    );
    report.noise(part, &meter.read());
}

/// The round whose p99 is in the middle.
fn median(mut rounds: Vec<Vec<Duration>>) -> Vec<Duration> {
    rounds.sort_by_key(|round| round[EVENTS * 99 / 100]);
    rounds.swap_remove(ROUNDS / 2)
}

/// Publishes events one after the other; from the call to the last healthy socket's frame, sorted.
async fn publish(
    server: &Server,
    healthy: &mut [Socket],
    count: usize,
    bytes: usize,
) -> Vec<Duration> {
    let text = "x".repeat(bytes);
    let client = reqwest::Client::new();
    let mut took = Vec::with_capacity(count);
    for n in 0..count {
        let begun = Instant::now();
        let event = json!({"type": "t", "data": [n, text]});
        let sent = client.post(server.url("/api/events")).json(&event).send();
        assert_eq!(sent.await.unwrap().status(), 202);
        for socket in healthy.iter_mut() {
            socket.next_of("t").await;
        }
        took.push(begun.elapsed());
    }
    took.sort();
    took
}
