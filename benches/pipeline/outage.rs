//! NATS is away for a while, and comes back: the backlog is PostgreSQL's, not the producer's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    gauges::{Meter, Report, grouped, peak_mib},
    parts::{Parts, until},
};

/// Transactions a second, and rows of each.
const COMMITS: u32 = 200;
const ROWS: u64 = 10;

/// Measures with an outage of so many seconds.
pub async fn run(report: &mut Report, seconds: u64) {
    let part = format!("NATS away for {seconds} s");
    let mut parts = Parts::start(Some("always"));
    let producer = parts.produce().await;
    let writer = Writer::start(&parts).await;
    until("the first rows", async || {
        (producer.counted("events_published_total").await > 2000.0).then_some(())
    })
    .await;
    let before = peak_mib(producer.pid());
    let meter = Meter::start(&[producer.pid()]);
    parts.nats.kill();
    let (gone, from) = (Instant::now(), writer.written());
    until("the outage to pass", async || {
        (gone.elapsed() >= Duration::from_secs(seconds)).then_some(())
    })
    .await;
    let wrote = (writer.written() - from) as f64 / gone.elapsed().as_secs_f64();
    let used = meter.read();
    let during = peak_mib(producer.pid());
    parts.nats.restart();
    let back = Instant::now();
    let known = producer.counted("events_published_total").await;
    let backlog = writer.written() as f64 - known;
    let mut first = back;
    let (published, end) = until("the backlog to be drained", async || {
        let published = producer.counted("events_published_total").await;
        if published <= known {
            first = Instant::now();
        }
        // What is written meanwhile is on its way: a tenth of a second of it is no backlog.
        let left = writer.written() as f64 - published;
        (left < wrote / 10.0).then(|| (published, Instant::now()))
    })
    .await;
    writer.stop();
    let drained = (published - known) / (end - first).as_secs_f64();
    report.add(&part, "written", format!("{} rows/s", grouped(wrote)), "");
    let text = format!("{before:.0} MiB before, {during:.0} MiB");
    report.add(&part, "producer's memory, peak", text, "≤ 128 MiB");
    let text = format!("{:.2} s", used.cpu[0]);
    report.add(&part, "producer's CPU meanwhile", text, "");
    let text = format!("{:.2} s", (first - back).as_secs_f64());
    report.add(&part, "NATS is back → first batch stored", text, "");
    let text = format!("{} rows/s of {} rows", grouped(drained), grouped(backlog));
    let wanted = format!("≥ 5 × written ({:.1} ×)", drained / wrote);
    report.add(&part, "drained, with writes going on", text, &wanted);
    let after = format!("{:.0} MiB", peak_mib(producer.pid()));
    report.add(
        &part,
        "producer's memory, peak with the drain",
        after,
        "≤ 128 MiB",
    );
    report.noise(&part, &used);
}

/// Commits at an even pace until it is told to stop.
struct Writer {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Writer {
    async fn start(parts: &Parts) -> Self {
        let client = parts.session().await;
        let insert = "INSERT INTO item SELECT i, 'item number ' || i, 1.25, 7
             FROM generate_series($1::bigint, $2::bigint) i";
        let insert = client.prepare(insert).await.unwrap();
        let writer = Self {
            written: Arc::new(AtomicU64::new(0)),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (written, stop) = (writer.written.clone(), writer.stop.clone());
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / COMMITS);
            while !stop.load(Ordering::Acquire) {
                pace.tick().await;
                let at = written.load(Ordering::Acquire);
                let (from, to) = (at as i64 + 1, (at + ROWS) as i64);
                client.execute(&insert, &[&from, &to]).await.unwrap();
                written.store(at + ROWS, Ordering::Release);
            }
        });
        writer
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}
