//! One transaction of very many rows, up to a client that must get each row once, in order.

use std::time::Instant;

use crate::{
    gauges::{Meter, Report, grouped, peak_mib},
    latency::row,
    parts::{Parts, until},
    support::Socket,
};

/// Measures one transaction of so many rows.
pub async fn run(report: &mut Report, rows: u64) {
    let part = format!("one transaction of {} rows", grouped(rows as f64));
    let parts = Parts::start(Some("always"));
    let producer = parts.produce().await;
    let gateway = parts.serve().await;
    let socket = gateway.socket("types=item").await;
    let reader = tokio::spawn(read(socket, rows));
    let meter = Meter::start(&[producer.pid(), parts.nats.pid(), gateway.pid()]);
    let sql = format!(
        "INSERT INTO item SELECT i, 'item number ' || i, 1.25, 7 FROM generate_series(1, {rows}) i"
    );
    let session = parts.session().await;
    session.batch_execute(&sql).await.unwrap();
    let committed = Instant::now();
    until("all rows to be published", async || {
        let published = producer.counted("events_published_total").await;
        (published >= rows as f64).then_some(())
    })
    .await;
    let stored = committed.elapsed().as_secs_f64();
    let text = format!("{stored:.1} s, {} rows/s", grouped(rows as f64 / stored));
    report.add(&part, "COMMIT → stored on the bus", text, "");
    let told = match reader.await.unwrap() {
        Ok(end) => format!(
            "{:.1} s, each once, in order",
            (end - committed).as_secs_f64()
        ),
        Err(told) => format!("BROKEN: {told}"),
    };
    report.add(&part, "COMMIT → last row at the client", told, "each once");
    for (name, pid) in [("producer", producer.pid()), ("gateway", gateway.pid())] {
        let text = format!("{:.0} MiB", peak_mib(pid));
        report.add(&part, &format!("{name}'s memory, peak"), text, "≤ 256 MiB");
    }
    report.noise(&part, &meter.read());
}

/// When the last row was there; else what came instead.
async fn read(mut socket: Socket, rows: u64) -> Result<Instant, String> {
    let mut last = 0;
    while last < rows {
        let text = socket.next_or_close().await;
        let text = text.map_err(|closed| format!("{closed:?} after row {last}"))?;
        match row(&text) {
            Some(id) if id as u64 == last + 1 => last += 1,
            _ => return Err(format!("{text} after row {last}")),
        }
    }
    Ok(Instant::now())
}
