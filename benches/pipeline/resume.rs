//! Sockets that come back with a cursor, as after a restart of a proxy: how many of them a gateway
//! brings up to date in a second, and what the database has to do for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    gauges::{Meter, Report, grouped},
    support::{
        Follower, Server,
        follower::{BEAT, topics},
    },
};

/// Sockets that are being opened at the same time.
const AT_ONCE: usize = 64;

/// How long each kind is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// Events that each of them missed.
const MISSED: usize = 10;

/// Measures, with a ring that holds what was missed, and with one that does not.
pub async fn run(report: &mut Report) {
    let page = "[[topics]]\ntype = \"page\"\ntable = \"t\"\npush = \"page\"\npage_size = 10\n";
    let sql = format!("{BEAT}CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);");
    for (ring, bytes) in [("the ring", 64 << 20), ("the bus", 65_536)] {
        let more = format!("{page}[server]\nring_max_bytes = {bytes}\n");
        let server = Server::configured(&(topics(&[("t", "")]) + &more), &sql);
        let mut follower = Follower::of(&server, "t", &["id"]).await;
        let fill = "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 3000)
            INSERT INTO t SELECT i, i FROM k";
        let events = follower.after(&[fill]).await;
        // The last events from the ring; from the bus all that it takes to come to it.
        let missed = if ring == "the ring" { MISSED } else { 1000 };
        let since = events[events.len() - 1 - missed]["cursor"].clone();
        for (what, types) in [("row topics", "t"), ("row and page topics", "t,page")] {
            let part = format!("resume from {ring}, {what}");
            measure(report, &part, &server, &since, types).await;
        }
    }
}

async fn measure(report: &mut Report, part: &str, server: &Server, since: &Json, types: &str) {
    let request: Arc<str> = format!(
        "GET /socket/all/?types={types}&since={} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        since.as_str().unwrap(),
        server.address(),
    )
    .into();
    let last: &'static [u8] = match types {
        "t" => b"\"sys:caught_up\"",
        _ => b"\"type\":\"page\"",
    };
    let queries = "queries_total{kind=\"ok\"}";
    let (asked, reads) = (
        server.counted(queries).await,
        server.counted("backlog_reads_total").await,
    );
    let meter = Meter::start(&[server.pid()]);
    let (until, done) = (Instant::now() + MEASURED, Arc::new(AtomicU64::new(0)));
    let clients = (0..AT_ONCE).map(|_| {
        let (request, done) = (request.clone(), done.clone());
        let address = server.address().to_owned();
        tokio::spawn(async move {
            while Instant::now() < until {
                resume(&address, &request, last).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let used = meter.read();
    let done = done.load(Ordering::Relaxed) as f64;
    let rate = done / used.elapsed.as_secs_f64();
    report.add(
        part,
        "sockets brought up to date a second",
        grouped(rate),
        "",
    );
    let figure = grouped(done / used.cpu[0]);
    let wanted = if part.contains("ring, row topics") {
        "≥ 5 000"
    } else {
        ""
    };
    report.add(
        part,
        "the same by processor second of the gateway",
        figure,
        wanted,
    );
    let asked = server.counted(queries).await - asked;
    report.add(part, "queries of the database", asked.to_string(), "0");
    let reads = server.counted("backlog_reads_total").await - reads;
    report.add(part, "reads of the bus", reads.to_string(), "");
    report.noise(part, &used);
}

/// Opens one socket, reads until it is up to date, and cuts it.
async fn resume(address: &str, request: &str, last: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let looked = buffer.len().saturating_sub(last.len());
        let count = stream.read_buf(&mut buffer).await.unwrap();
        assert!(count > 0, "the gateway closed the socket");
        if buffer[looked..]
            .windows(last.len())
            .any(|found| found == last)
        {
            // Else the ports of this machine would be used up in some seconds.
            let _ = stream.set_zero_linger();
            return;
        }
    }
}
