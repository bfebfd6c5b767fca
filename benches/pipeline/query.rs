//! What an exact place in the stream adds to a query of PostgreSQL: the same rows asked for over a
//! socket and straight from the database, in turn.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    gauges::{Meter, Report},
    parts::{Parts, named},
};

/// Queries of each kind.
const QUERIES: usize = 1000;

/// Measures on a quiet database, one query at a time.
pub async fn run(report: &mut Report, sync: Option<&str>) {
    let parts = Parts::start(sync);
    parts.database.sql("CALL fill(2000)");
    let (producer, gateway) = (parts.produce().await, parts.serve().await);
    let mut socket = gateway.socket("").await;
    let (client, driver) = tokio_postgres::connect(&parts.database.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(driver);
    let direct = client
        .prepare("SELECT id::text, name, price::text, stock::text, changed::text FROM item WHERE id = $1")
        .await
        .unwrap();
    let meter = Meter::start(&[gateway.pid(), producer.pid(), parts.nats.pid()]);
    let (mut exact, mut plain, mut inexact) = (Vec::new(), Vec::new(), 0);
    for n in 0..QUERIES {
        let id = 1 + i64::try_from(n).unwrap() % 1000;
        let begun = Instant::now();
        let reply = socket
            .ask(json!({"type": "item", "rid": n, "id": id}))
            .await;
        exact.push(begun.elapsed());
        inexact += usize::from(!reply["exact"].is_null());
        let begun = Instant::now();
        client.query_one(&direct, &[&id]).await.unwrap();
        plain.push(begun.elapsed());
    }
    exact.sort();
    plain.sort();
    let part = format!("exact query, {}", named(sync));
    let ms = |took: Duration| took.as_secs_f64() * 1000.0;
    for (what, index) in [("p50", QUERIES / 2), ("p99", QUERIES * 99 / 100)] {
        let (exact, plain) = (ms(exact[index]), ms(plain[index]));
        let figure = format!(
            "{exact:.2} ms, {plain:.2} ms straight: {:+.2} ms",
            exact - plain
        );
        report.add(
            &part,
            what,
            figure,
            if what == "p50" { "≤ +5 ms" } else { "" },
        );
    }
    report.add(&part, "not exact", inexact.to_string(), "0");
    report.noise(&part, &meter.read());
}
