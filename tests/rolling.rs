//! A rolling restart: gateways are stopped and started one after the other, as a deploy does it.
//! Clients that do as `sys:drain` says are away no longer than it says, and miss nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use crate::support::{STANDSTILL, Socket, stack::Stack, wait_until};

const CLIENTS: usize = 24;

const TOPICS: &str = "
[[topics]]
type = \"log\"
table = \"log\"
push = \"row\"
";

const TABLES: &str =
    "CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int);";

/// What a client has to say in the end.
#[derive(Debug, Default)]
struct Report {
    seen: Vec<i64>,
    drains: u32,
    resets: u32,
    /// The longest time between a close and the next `sys:welcome`, and what was allowed.
    away: Vec<(Duration, Duration)>,
}

/// Waits for a random time within `after_ms`.
async fn wait(after_ms: &Json, seed: u64) -> Duration {
    let bounds: Vec<u64> = serde_json::from_value(after_ms.clone()).unwrap();
    let chosen = bounds[0] + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (bounds[1] - bounds[0] + 1);
    let chosen = Duration::from_millis(chosen);
    let _ = tokio::time::timeout(chosen, std::future::pending::<()>()).await;
    Duration::from_millis(bounds[1])
}

/// A client of whichever gateway answers, until it has seen the row that `until` says.
async fn client(
    addresses: Vec<String>,
    index: usize,
    until: Arc<std::sync::atomic::AtomicI64>,
) -> Report {
    let (mut report, mut cursor, mut next) = (Report::default(), Json::Null, index);
    let mut left: Option<(Instant, Duration)> = None;
    let done = |report: &Report| {
        let until = until.load(Ordering::Acquire);
        until > 0 && report.seen.last().is_some_and(|last| *last >= until)
    };
    while !done(&report) {
        next += 1;
        let address = &addresses[next % addresses.len()];
        let url = format!("ws://{address}/socket/all/?hello=1");
        if tokio::net::TcpStream::connect(address).await.is_err() {
            continue;
        }
        let Ok(mut socket) = tokio::spawn(async move { Socket::open(&url).await }).await else {
            continue;
        };
        let hello = json!({"type": "sys:hello", "types": ["log"], "since": cursor});
        socket.send(hello).await;
        while !done(&report) {
            let Ok(text) = socket.next_or_close().await else {
                left.get_or_insert((Instant::now(), Duration::ZERO));
                break;
            };
            let frame: Json = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str().unwrap() {
                "log" => report.seen.push(frame["data"]["id"].as_i64().unwrap()),
                "sys:welcome" => {
                    if let Some((since, allowed)) = left.take() {
                        report.away.push((since.elapsed(), allowed));
                    }
                    // Events before it are not passed over, whatever the head is.
                    if !cursor.is_null() {
                        continue;
                    }
                }
                "sys:drain" => {
                    report.drains += 1;
                    let begun = Instant::now();
                    let seed = (index as u64) << 8 | u64::from(report.drains);
                    left = Some((begun, wait(&frame["after_ms"], seed).await));
                }
                "sys:reset" => report.resets += 1,
                _ => {}
            }
            if !frame["cursor"].is_null() {
                cursor = frame["cursor"].clone();
            }
        }
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_keeps_nobody_away_longer_than_its_wait_and_loses_nothing() {
    let mut stack = Stack::new(TOPICS, TABLES, 2);
    let until = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let addresses = stack.addresses();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| tokio::spawn(client(addresses.clone(), index, until.clone())))
        .collect();
    wait_until("every client to be there", async || {
        let mut there = 0;
        for gateway in &stack.gateways {
            there += gateway.counted("sessions").await;
        }
        (there == CLIENTS as u64).then_some(())
    })
    .await;
    let (client_of_database, driver) =
        tokio_postgres::connect(&stack.database.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(driver);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        while !stopped.load(Ordering::Acquire) {
            pace.tick().await;
            let sql = "INSERT INTO log (n) VALUES (1)";
            client_of_database.batch_execute(sql).await.unwrap();
        }
        let last = client_of_database.query_one("SELECT max(id) FROM log", &[]);
        last.await.unwrap().get::<_, i64>(0)
    });
    for index in 0..stack.gateways.len() {
        stack.gateways[index].signal("TERM");
        assert_eq!(stack.gateways[index].ended().code(), Some(0));
        stack.gateways[index].restart();
        // The next one is stopped when this one is there again.
        wait_until("the gateway to be ready", async || {
            let ready = reqwest::get(stack.gateways[index].url("/readyz"))
                .await
                .ok()?;
            ready.status().is_success().then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Release);
    let last = writer.await.unwrap();
    until.store(last, Ordering::Release);
    let (mut drains, mut longest) = (0, Duration::ZERO);
    for client in clients {
        let report = client.await.unwrap();
        let first = report.seen[0];
        assert_eq!(report.seen, (first..=last).collect::<Vec<_>>());
        assert_eq!(report.resets, 0);
        drains += report.drains;
        for (away, allowed) in report.away {
            longest = longest.max(away);
            // A handshake or two, one of them with a gateway that is gone.
            let slack = Duration::from_millis(1500) + STANDSTILL;
            assert!(away <= allowed + slack, "{away:?} of {allowed:?}");
        }
    }
    assert!(drains >= CLIENTS as u32, "{drains}");
    println!(
        "rolling restart: {last} rows, {CLIENTS} clients, {drains} drains, longest away {longest:?}"
    );
}
