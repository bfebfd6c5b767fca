//! What PostgreSQL and JetStream do alone, on the same rows.

use std::process::{Command, Stdio};

use async_nats::{HeaderMap, client::Request, jetstream::stream::Config};
use bytes::Bytes;

use crate::{
    gauges::{Meter, Used, cpu},
    parts::{Parts, until},
    support::postgres::binaries,
};

/// Messages in one atomic batch: the most that a server takes.
const BATCH: u64 = 1000;

/// Makes a slot beside the producer's, where the same changes wait.
pub fn slot(parts: &Parts) {
    let sql = "SELECT pg_create_logical_replication_slot('alone', 'pgoutput')";
    parts.database.sql(sql);
}

/// Reads that slot to its end with PostgreSQL's own program, and drops what it reads. CPU: the
/// program's, the walsender's.
pub async fn postgres(parts: &Parts) -> Used {
    let end = parts.database.one("SELECT pg_current_wal_insert_lsn()");
    // Something behind the end, so that the program sees that it is reached.
    let sql = "SELECT pg_logical_emit_message(true, 'end', '')";
    parts.database.sql(sql);
    let mut meter = Meter::start(&[]);
    let mut child = Command::new(binaries().join("pg_recvlogical"))
        .args(["--slot=alone", "--start", "--no-loop", "--file=/dev/null"])
        .args(["--option=proto_version=1", "--option=messages=true"])
        .arg("--option=publication_names=rowcast")
        .arg(format!("--endpos={end}"))
        .arg(format!("--dbname={}", parts.database.url()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let (program, walsender) = (child.id(), parts.walsender("alone").await);
    meter.and(program);
    meter.and(walsender);
    let mut seen = [0.0_f64; 2];
    let mut used = until("pg_recvlogical to end", async || {
        // A process that has ended takes its counter with it.
        seen = [seen[0].max(cpu(program)), seen[1].max(cpu(walsender))];
        let ended = child.try_wait().unwrap()?;
        assert!(ended.success(), "pg_recvlogical: {ended}");
        Some(meter.read())
    })
    .await;
    used.cpu = seen.to_vec();
    let drop = "SELECT pg_drop_replication_slot('alone')";
    until("the slot to be free", async || {
        parts.database.try_sql(drop).ok()
    })
    .await;
    used
}

/// Stores copies of what the producer has published in a stream of its own, one atomic batch
/// after another, as the producer must. CPU: the server's. Returns the messages, and the bytes of
/// one.
pub async fn jetstream(parts: &Parts, batches: u64) -> (u64, usize, Used) {
    let client = async_nats::connect(parts.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client.clone());
    let produced = context.get_stream("ROWCAST").await.unwrap();
    let last = produced.cached_info().state.last_sequence;
    let mut messages: Vec<(HeaderMap, Bytes)> = Vec::new();
    for sequence in (1..=last).rev() {
        let message = produced.get_raw_message(sequence).await.unwrap();
        if message.subject.ends_with(".item") {
            let mut headers = HeaderMap::new();
            for name in ["Rowcast-Epoch", "Rowcast-Producer"] {
                let value = message.headers.get(name).unwrap().as_str();
                headers.insert(name, value);
            }
            messages.push((headers, message.payload));
        }
        if messages.len() as u64 == BATCH {
            break;
        }
    }
    let config = Config {
        name: "ALONE".to_owned(),
        subjects: vec!["alone.>".to_owned()],
        allow_atomic_publish: true,
        ..Config::default()
    };
    context.create_stream(config).await.unwrap();
    let meter = Meter::start(&[parts.nats.pid(), std::process::id()]);
    for batch in 0..batches {
        let mut reply = None;
        for (index, (headers, payload)) in messages.iter().enumerate() {
            let mut headers = headers.clone();
            headers.insert("Nats-Batch-Id", format!("b{batch}"));
            headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
            let subject = "alone.item";
            if index + 1 < messages.len() {
                let sent = client.publish_with_headers(subject, headers, payload.clone());
                sent.await.unwrap();
            } else {
                headers.insert("Nats-Batch-Commit", "1");
                let request = Request::new().headers(headers).payload(payload.clone());
                reply = Some(client.send_request(subject, request).await.unwrap());
            }
        }
        let told = String::from_utf8_lossy(&reply.unwrap().payload).into_owned();
        assert!(!told.contains("\"error\""), "{told}");
    }
    let bytes = messages.iter().map(|(_, payload)| payload.len());
    let bytes = bytes.sum::<usize>() / messages.len();
    (batches * messages.len() as u64, bytes, meter.read())
}
