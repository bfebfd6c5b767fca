//! Row changes that wait in a slot, into JetStream, and what slot and stream can do alone.

use std::time::Instant;

use crate::{
    ceilings,
    gauges::{Meter, Report, Used, grouped},
    parts::{Parts, named, until},
    support::Producer,
};

/// Row changes a second that were promised.
const WANTED: f64 = 50_000.0;

/// Measures with one setting of the NATS server.
pub async fn run(report: &mut Report, rows: u64, sync: Option<&str>) {
    let part = format!("capture, {}", named(sync));
    let parts = Parts::start(sync);
    let mut first = parts.produce().await;
    first.signal("TERM");
    first.ended();
    ceilings::slot(&parts);
    parts.database.sql("SET synchronous_commit = off");
    parts.database.sql(&format!("CALL fill({rows})"));
    parts.database.sql("CHECKPOINT");

    let alone = ceilings::postgres(&parts).await;
    let rate = rows as f64 / alone.elapsed.as_secs_f64();
    let text = format!("{} rows/s", grouped(rate));
    report.add(&part, "PostgreSQL alone (pg_recvlogical)", text, "");
    let text = format!(
        "{} rows per CPU second",
        grouped(rows as f64 / alone.cpu[1])
    );
    report.add(&part, "… its walsender", text, "");

    let (rate, used) = produced(&parts, rows).await;
    let text = format!("{} rows/s", grouped(rate));
    let wanted = format!("{} ({:.2} ×)", grouped(WANTED), rate / WANTED);
    report.add(&part, "slot → JetStream", text, &wanted);
    for (name, cpu) in ["nats-server", "producer", "walsender"]
        .iter()
        .zip(&used.cpu)
    {
        let per_core = rows as f64 / cpu;
        let text = format!("{cpu:.2} s, {} rows per CPU second", grouped(per_core));
        let wanted = match *name {
            "producer" => format!("{} ({:.2} ×)", grouped(WANTED), per_core / WANTED),
            _ => String::new(),
        };
        report.add(&part, &format!("… CPU of the {name}"), text, &wanted);
    }
    report.noise(&part, &used);

    let batches = rows / 1000;
    let (messages, bytes, used) = ceilings::jetstream(&parts, batches).await;
    let rate = messages as f64 / used.elapsed.as_secs_f64();
    let text = format!("{} messages/s of {bytes} bytes", grouped(rate));
    report.add(&part, "JetStream alone (batches of 1000)", text, "");
    let text = format!(
        "{} messages per CPU second",
        grouped(messages as f64 / used.cpu[0])
    );
    report.add(&part, "… CPU of the nats-server", text, "");
}

/// Starts a producer, and takes the time until all is on the bus: rows a second, and the CPU of
/// nats-server, producer and walsender.
async fn produced(parts: &Parts, rows: u64) -> (f64, Used) {
    let mut meter = Meter::start(&[parts.nats.pid()]);
    let producer = Producer::start(&parts.config);
    meter.and(producer.pid());
    meter.and(parts.walsender("rowcast").await);
    let mut began = Instant::now();
    let (end, used) = until("all changes to be published", async || {
        let published = producer.counted("events_published_total").await;
        if published == 0.0 {
            // What is before the first batch is the start of a process, not its pace.
            began = Instant::now();
        }
        (published >= rows as f64).then(|| (Instant::now(), meter.read()))
    })
    .await;
    (rows as f64 / (end - began).as_secs_f64(), used)
}
