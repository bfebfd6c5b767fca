//! PostgreSQL → NATS JetStream → gateways → WebSockets, measured with real servers on this
//! machine, with what each part alone is capable of beside it.
//!
//! `cargo bench --bench pipeline`, or of it one part: `-- capture --rows 500000`.
//! docs/performance.md says what the figures mean.

#![allow(clippy::unwrap_used)] // a measurement that cannot go on has failed

#[path = "../../tests/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

mod capture;
mod ceilings;
mod gauges;
mod large;
mod latency;
mod outage;
mod parts;
mod query;
mod resume;
mod stalled;

use gauges::Report;

/// What is measured, and how much of it.
#[derive(Debug, Clone)]
struct Plan {
    /// The parts asked for; none means all.
    wanted: Vec<String>,
    /// Row changes in the slot before the producer starts.
    rows: u64,
    /// Seconds of commits whose way to a browser is timed.
    latency_s: u64,
    /// Seconds without NATS.
    outage_s: u64,
    /// Rows of the one large transaction.
    large: u64,
}

impl Plan {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut plan = Self {
            wanted: Vec::new(),
            rows: 300_000,
            latency_s: 15,
            outage_s: 40,
            large: 300_000,
        };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|text| text.parse().ok());
                value.unwrap_or_else(|| panic!("{argument} wants a number"))
            };
            match &*argument {
                "--rows" => plan.rows = number(),
                "--latency-seconds" => plan.latency_s = number(),
                "--outage-seconds" => plan.outage_s = number(),
                "--large-rows" => plan.large = number(),
                "capture" | "latency" | "outage" | "large" | "resume" | "query" | "stalled" => {
                    plan.wanted.push(argument);
                }
                _ => panic!(
                    "unknown: {argument}; known: capture, latency, outage, large, resume, query, stalled, \
                     --rows N, --latency-seconds N, --outage-seconds N, --large-rows N"
                ),
            }
        }
        plan
    }

    fn wants(&self, part: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == part)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo test --all-targets` runs this too, and must not wait for it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let plan = Plan::parse(std::env::args().skip(1));
    let mut report = Report::default();
    if plan.wants("capture") {
        for sync in [None, Some("always")] {
            capture::run(&mut report, plan.rows, sync).await;
        }
    }
    if plan.wants("latency") {
        for sync in [None, Some("always")] {
            latency::run(&mut report, plan.latency_s, sync).await;
        }
    }
    if plan.wants("outage") {
        outage::run(&mut report, plan.outage_s).await;
    }
    if plan.wants("large") {
        large::run(&mut report, plan.large).await;
    }
    if plan.wants("resume") {
        resume::run(&mut report).await;
    }
    if plan.wants("query") {
        for sync in [None, Some("always")] {
            query::run(&mut report, sync).await;
        }
    }
    if plan.wants("stalled") {
        stalled::run(&mut report).await;
    }
    report.print();
}
