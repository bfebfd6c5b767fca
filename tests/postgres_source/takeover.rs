//! Who reads the slot: one producer at a time, and the next one when it is gone.
//!
//! A process cannot be frozen from within, so a frozen producer is acted by a bare connection
//! that holds the slot and answers nothing; the stopped process itself is tried with the program.

use std::time::{Duration, Instant};

use rowcast::source::{Source, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Producer, config, told};
use crate::support::{STANDSTILL, in_time, postgres::database};

#[tokio::test]
async fn one_producer_reads_and_another_takes_over_when_it_is_gone() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&db, &["public.t"]);
    let mut first = Producer::started(&config).await;
    db.sql("INSERT INTO t VALUES (1)");
    first.change().await;
    let mut second = Producer::new(&config);
    let err = second.try_begin().await.unwrap_err();
    assert!(matches!(err, SourceError::Standby(_)), "{err}");
    second.stored = first.stored.clone();
    let history = first.history();
    drop(first);
    db.sql("INSERT INTO t VALUES (2)");
    let gone = Instant::now();
    second.begin().await;
    assert_eq!(told(&second.change().await), r#"insert - -> {"id":2}"#);
    assert!(
        gone.elapsed() < Duration::from_secs(3) + STANDSTILL,
        "{:?}",
        gone.elapsed()
    );
    assert_eq!(second.history(), history);
}

#[tokio::test]
async fn one_that_stands_by_alters_nothing_and_stays_on_one_connection() {
    let db = database();
    db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)");
    let mut reads = Producer::started(&config(&db, &["public.a"])).await;
    let mut waits = Producer::new(&config(&db, &["public.b"]));
    let mut connections = Vec::new();
    for _ in 0..4 {
        let err = waits.try_begin().await.unwrap_err();
        assert!(matches!(err, SourceError::Standby(_)), "{err}");
        connections.push(db.one(
            "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend'
                AND pid <> pg_backend_pid()",
        ));
    }
    connections.dedup();
    assert_eq!(connections.len(), 1, "{connections:?}");
    let members = "SELECT string_agg(tablename, ',') FROM pg_publication_tables";
    assert_eq!(db.one(members), "a");
    db.sql("INSERT INTO a VALUES (1)");
    assert_eq!(told(&reads.change().await), r#"insert - -> {"id":1}"#);
    waits.stored = reads.stored.clone();
    drop(reads);
    waits.begin().await;
    assert_eq!(db.one(members), "b");
}

#[tokio::test]
async fn of_two_first_starts_one_stands_by() {
    for _ in 0..4 {
        let db = database();
        db.sql("CREATE TABLE t (id int PRIMARY KEY)");
        let config = config(&db, &["public.t"]);
        let (mut one, mut other) = (Producer::new(&config), Producer::new(&config));
        let begun = tokio::join!(one.try_begin(), other.try_begin());
        let ((Ok(()), Err(err)) | (Err(err), Ok(()))) = begun else {
            panic!("{begun:?}")
        };
        assert!(matches!(err, SourceError::Standby(_)), "{err}");
    }
}

#[tokio::test]
async fn a_frozen_producer_loses_the_slot_and_one_that_lives_does_not() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut config = config(&db, &["public.t"]);
    let mut lives = Producer::started(&config).await;
    config.takeover = Duration::from_millis(1500);
    let mut waits = Producer::new(&config);
    // One that lives answers, though it has nothing to publish, for much longer than that.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        let err = waits.try_begin().await.unwrap_err();
        assert!(matches!(err, SourceError::Standby(_)), "{err}");
        lives.batch().await;
    }
    waits.stored = lives.stored.clone();
    drop(lives);
    let _frozen = frozen(&db.url(), &config.slot).await;
    let start = Instant::now();
    waits.begin().await;
    assert!(
        start.elapsed() > Duration::from_millis(1400),
        "taken at once"
    );
    db.sql("INSERT INTO t VALUES (1)");
    assert_eq!(told(&waits.change().await), r#"insert - -> {"id":1}"#);
}

#[tokio::test]
async fn a_slot_of_another_plugin_is_left_alone() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&db, &["public.t"]);
    let slot = &config.slot;
    db.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
    ));
    let mut producer = Producer::new(&config);
    let err = producer.try_begin().await.unwrap_err().to_string();
    assert!(
        err.contains("another's") && err.contains("test_decoding"),
        "{err}"
    );
    let kept = db.one(&format!(
        "SELECT plugin FROM pg_replication_slots WHERE slot_name = '{slot}'"
    ));
    assert_eq!(kept, "test_decoding");
}

#[tokio::test]
async fn what_may_not_be_made_is_asked_for() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut config = config(&db, &["public.t"]);
    config.manage = false;
    let mut producer = Producer::new(&config);
    let mut asked = async || producer.source.begin().await.unwrap_err().to_string();
    let text = asked().await;
    let statement = text.split(": ").last().unwrap();
    assert!(statement.starts_with("CREATE PUBLICATION"), "{text}");
    // What it asks for is what it needs.
    db.sql(statement);
    let text = asked().await;
    db.sql(text.split(": ").last().unwrap());
    in_time("the source to begin", producer.begin()).await;
    producer.batch().await;
    db.sql("INSERT INTO t VALUES (1)");
    producer.change().await;
}

/// A replication connection that takes the slot and is never heard of again.
async fn frozen(url: &str, slot: &str) -> tokio::net::TcpStream {
    let (address, database) = url.split_once('@').unwrap().1.split_once('/').unwrap();
    let database = database.split('?').next().unwrap();
    let taken = async {
        loop {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut startup = vec![0, 3, 0, 0];
            for text in [
                "user",
                "postgres",
                "database",
                database,
                "replication",
                "database",
            ] {
                startup.extend_from_slice(text.as_bytes());
                startup.push(0);
            }
            startup.push(0);
            send(&mut stream, None, &startup).await;
            until(&mut stream, b'Z').await;
            let sql = format!(
                "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', \
                 publication_names 'rowcast')\0"
            );
            send(&mut stream, Some(b'Q'), sql.as_bytes()).await;
            // The slot may not have been let go yet.
            if until(&mut stream, b'W').await {
                return stream;
            }
        }
    };
    in_time("the slot", taken).await
}

async fn send(stream: &mut tokio::net::TcpStream, tag: Option<u8>, body: &[u8]) {
    let mut message: Vec<u8> = tag.into_iter().collect();
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message).await.unwrap();
}

/// Reads messages up to one of that tag; false where an error comes first.
async fn until(stream: &mut tokio::net::TcpStream, tag: u8) -> bool {
    loop {
        let found = stream.read_u8().await.unwrap();
        let length = stream.read_u32().await.unwrap() as usize - 4;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        if found == tag || found == b'E' {
            return found == tag;
        }
    }
}
