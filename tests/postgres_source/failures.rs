//! What happens when the server, the slot, the publication or a table fails.

use std::time::{Duration, Instant};

use rowcast::{
    event::What,
    postgres::Address,
    source::{
        Source, SourceError,
        postgres::{Grade, Watched, inspect, remove},
    },
};

use super::{Producer, answers, config, told};
use crate::support::{
    STANDSTILL, in_time,
    postgres::{Cluster, database},
    wait_until,
};

#[tokio::test]
async fn a_killed_server_costs_nothing() {
    let cluster = Cluster::own(&[]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let history = producer.history();
    for round in 0..3 {
        db.sql(&format!("INSERT INTO t VALUES ({})", round * 2));
        // One is read and confirmed, the other perhaps.
        let lines = told(&producer.change().await);
        assert_eq!(lines, format!(r#"insert - -> {{"id":{}}}"#, round * 2));
        db.sql(&format!("INSERT INTO t VALUES ({})", round * 2 + 1));
        cluster.kill();
        cluster.start();
        answers(&db);
        let lines = told(&producer.change().await);
        assert_eq!(lines, format!(r#"insert - -> {{"id":{}}}"#, round * 2 + 1));
    }
    assert_eq!(producer.history(), history);
}

#[tokio::test]
async fn a_server_that_is_stopped_does_not_wait_for_what_the_bus_does_not_hold() {
    let cluster = Cluster::own(&[]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let stored = producer.stored.clone();
    db.sql("INSERT INTO t VALUES (1)");
    // Read, and never confirmed, as while the bus is away.
    loop {
        let batch = in_time("a batch", producer.source.next_batch())
            .await
            .unwrap();
        if !batch.changes.is_empty() {
            break;
        }
    }
    let start = Instant::now();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.stop();
        cluster
    });
    let cluster = in_time("the server to stop", cluster).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    cluster.start();
    answers(&db);
    assert_eq!(producer.stored, stored);
    // From what is stored, as after every error. What was read behind the change is thrown away with it: a
    // heartbeat may be, and to store that would say that the change is stored, too.
    producer.begin().await;
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":1}"#);
}

#[tokio::test]
async fn a_lost_slot_begins_another_history() {
    let cluster = Cluster::own(&[("max_slot_wal_keep_size", "32MB"), ("max_wal_size", "64MB")]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY, pad text); CREATE TABLE other (pad text)");
    let config = config(&db, &["public.t"]);
    let mut producer = Producer::started(&config).await;
    db.sql("INSERT INTO t VALUES (1, '')");
    producer.change().await;
    let (history, stored) = (producer.history(), producer.stored.clone());
    drop(producer);
    let status = format!(
        "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{}'",
        config.slot
    );
    wait_until("the slot to be lost", || async {
        db.sql("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 40000)");
        db.sql("CHECKPOINT");
        (db.one(&status) == "lost").then_some(())
    })
    .await;
    db.sql("INSERT INTO t VALUES (2, '')");
    let mut producer = Producer::new(&config);
    producer.stored = stored;
    let start = Instant::now();
    producer.begin().await;
    assert!(producer.batch().await.changes.is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(5) + STANDSTILL,
        "{:?}",
        start.elapsed()
    );
    assert_ne!(producer.history(), history);
    db.sql("INSERT INTO t VALUES (3, '')");
    assert_eq!(
        told(&producer.change().await),
        r#"insert - -> {"id":3,"pad":""}"#
    );
}

#[tokio::test]
async fn a_slot_that_was_dropped_made_anew_or_advanced_begins_another_history() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&db, &["public.t"]);
    let slot = &config.slot;
    let mut producer = Producer::started(&config).await;
    let drop_slot = format!("SELECT pg_drop_replication_slot('{slot}')");
    let advance = format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())");
    let again = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    for (id, harm) in [
        (1, vec![&drop_slot]),
        (2, vec![&drop_slot, &again]),
        (3, vec![&advance]),
    ] {
        let (history, stored) = (producer.history(), producer.stored.clone());
        drop(producer);
        // Written while nobody reads: nobody can say what became of it.
        db.sql(&format!("INSERT INTO t VALUES ({})", id * 10));
        for sql in harm {
            wait_until("the slot to be let go", || async { db.try_sql(sql).ok() }).await;
        }
        producer = Producer::new(&config);
        producer.stored = stored;
        producer.begin().await;
        assert!(producer.batch().await.changes.is_empty());
        assert_ne!(producer.history(), history, "harm {id}");
        db.sql(&format!("INSERT INTO t VALUES ({id})"));
        assert_eq!(
            told(&producer.change().await),
            format!(r#"insert - -> {{"id":{id}}}"#)
        );
    }
}

#[tokio::test]
async fn a_publication_that_was_dropped_is_made_again_and_the_slot_with_it() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&db, &["public.t"]);
    let mut producer = Producer::started(&config).await;
    let history = producer.history();
    db.sql("DROP PUBLICATION rowcast; INSERT INTO t VALUES (1)");
    // Told, by a reload or by another history, and never in silence.
    let mut reloads = 0;
    let deadline = Instant::now();
    while producer.history() == history && reloads == 0 {
        assert!(
            deadline.elapsed() < crate::support::DEADLINE,
            "{:?}",
            producer.told
        );
        let batch = producer.batch().await;
        reloads += batch
            .changes
            .iter()
            .filter(|c| matches!(c.what, What::Reload))
            .count();
    }
    let mut id = 100;
    loop {
        id += 1;
        db.sql(&format!("INSERT INTO t VALUES ({id})"));
        let batch = producer.batch().await;
        let mut rows = batch
            .changes
            .iter()
            .filter(|c| matches!(c.what, What::Row { .. }));
        if rows.next().is_some() {
            break;
        }
        assert!(
            deadline.elapsed() < crate::support::DEADLINE,
            "{:?}",
            producer.told
        );
    }
}

#[tokio::test]
async fn an_open_transaction_is_told_while_the_slot_waits_for_it() {
    let cluster = Cluster::own(&[]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)");
    let holder = tokio_postgres::connect(&db.url(), tokio_postgres::NoTls).await;
    let (holder, connection) = holder.unwrap();
    tokio::spawn(connection);
    holder
        .batch_execute("BEGIN; INSERT INTO other VALUES (1)")
        .await
        .unwrap();
    let mut producer = Producer::new(&config(&db, &["public.t"]));
    let attempts = "SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE 'SELECT pg_create_logical%' AND state = 'active'";
    for _ in 0..3 {
        let err = producer.try_begin().await.unwrap_err();
        let SourceError::Unavailable(err) = err else {
            panic!("{err}")
        };
        assert!(
            err.to_string().contains("waiting for open transactions"),
            "{err}"
        );
        assert_eq!(db.one(attempts), "1");
    }
    holder.batch_execute("COMMIT").await.unwrap();
    producer.begin().await;
    producer.batch().await;
    db.sql("INSERT INTO t VALUES (1)");
    producer.change().await;
}

#[tokio::test]
async fn a_table_that_publishing_would_harm_is_left_out() {
    let db = database();
    db.sql("CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE t (id int)");
    let alone = config(&db, &["public.t"]);
    let err = Producer::new(&alone).try_begin().await.unwrap_err();
    let err = err.to_string();
    assert!(err.contains("public.t has no replica identity"), "{err}");
    let mut producer = Producer::started(&config(&db, &["public.good", "public.t"])).await;
    assert_eq!(told(&producer.change().await), "reload public.t");
    db.sql("INSERT INTO t VALUES (1); UPDATE t SET id = 2; DELETE FROM t");
    db.sql("INSERT INTO good VALUES (1)");
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":1}"#);
    // It gets a key, and is followed from then on.
    db.sql("ALTER TABLE t ADD PRIMARY KEY (id)");
    let published = "SELECT count(*) FROM pg_publication_tables";
    while db.one(published) != "2" {
        producer.batch().await;
    }
    assert_eq!(told(&producer.change().await), "reload public.t");
    // It loses its key while it is followed: its writers go on as soon as that is noticed.
    db.sql("INSERT INTO t VALUES (1); ALTER TABLE t DROP CONSTRAINT t_pkey");
    producer.until(r#"insert - -> {"id":1}"#).await;
    let writes = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while db.try_sql("UPDATE t SET id = id + 1").is_err() {
            looks.tick().await;
            let _ =
                tokio::time::timeout(Duration::from_millis(50), producer.source.next_batch()).await;
            let _ = producer.try_begin().await;
        }
    };
    in_time("the application's write", writes).await;
    producer.begin().await;
    db.sql("INSERT INTO good VALUES (2)");
    producer.until(r#"insert - -> {"id":2}"#).await;
}

#[tokio::test]
async fn a_table_that_its_owner_does_not_publish_stops_no_other() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)");
    db.sql("CREATE PUBLICATION rowcast FOR TABLE t, u WITH (publish_via_partition_root = true)");
    let config = config(&db, &["public.t", "public.u"]);
    let mut producer = Producer::started(&config).await;
    db.sql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY)");
    assert_eq!(told(&producer.change().await), "reload public.t");
    db.sql("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)");
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":1}"#);
    assert_eq!(producer.told, [""; 0]);
    let mut producer = producer.restarted(&config).await;
    assert_eq!(told(&producer.change().await), "reload public.t");
    db.sql("INSERT INTO u VALUES (2)");
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":2}"#);
    db.sql("ALTER PUBLICATION rowcast ADD TABLE t");
    // Once now, and once when all that was open then has ended, if that is not the same moment.
    assert_eq!(told(&producer.change().await), "reload public.t");
    db.sql("INSERT INTO t VALUES (3)");
    loop {
        let line = told(&producer.change().await);
        if line != "reload public.t" {
            assert_eq!(line, r#"insert - -> {"id":3}"#);
            break;
        }
    }
    drop(producer);
    db.sql("ALTER PUBLICATION rowcast DROP TABLE t, u");
    let mut producer = Producer::new(&config);
    let refused = async {
        loop {
            match producer.try_begin().await.unwrap_err() {
                // The one of before is about to let go.
                SourceError::Standby(_) => {}
                err => return err.to_string(),
            }
        }
    };
    let err = in_time("a refusal", refused).await;
    assert!(err.contains("ADD TABLE"), "{err}");
}

#[tokio::test]
async fn a_producer_that_stands_still_tells_of_the_wal_that_piles_up() {
    let cluster = Cluster::own(&[("max_slot_wal_keep_size", "64MB")]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (pad text)");
    db.sql("CREATE PUBLICATION rowcast FOR TABLE t WITH (publish_via_partition_root = true)");
    let config = config(&db, &["public.t"]);
    drop(Producer::started(&config).await);
    db.sql("ALTER PUBLICATION rowcast DROP TABLE t");
    db.sql("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 40000)");
    let mut producer = Producer::new(&config);
    let err = producer.try_begin().await.unwrap_err().to_string();
    let status = producer.source.status();
    assert!(status.alarm(), "{} bytes: {err}", status.retained_bytes());
}

#[tokio::test]
async fn a_table_that_leaves_the_publication_or_the_database_is_told() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t", "public.u"])).await;
    let history = producer.history();
    db.sql("ALTER PUBLICATION rowcast DROP TABLE t");
    db.sql("INSERT INTO t VALUES (1)");
    assert_eq!(told(&producer.change().await), "reload public.t");
    // It is put back, and told again, for it was not followed meanwhile.
    assert_eq!(told(&producer.change().await), "reload public.t");
    db.sql("DROP TABLE t");
    loop {
        let line = told(&producer.change().await);
        assert_eq!(line, "reload public.t");
        if db.one("SELECT count(*) FROM pg_publication_tables") == "1" {
            break;
        }
    }
    db.sql("INSERT INTO u VALUES (1)");
    let mut line = told(&producer.change().await);
    if line == "reload public.t" {
        line = told(&producer.change().await);
    }
    assert_eq!(line, r#"insert - -> {"id":1}"#);
    assert_eq!(producer.history(), history);
}

#[tokio::test]
async fn an_idle_slot_moves_while_another_database_is_written() {
    let cluster = Cluster::own(&[]);
    let (db, other) = (cluster.database(), cluster.database());
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    other.sql("CREATE TABLE pad (pad text)");
    let config = config(&db, &["public.t"]);
    let mut producer = Producer::started(&config).await;
    let status = producer.source.status();
    let reading = tokio::spawn(async move {
        loop {
            producer.batch().await;
        }
    });
    for _ in 0..5 {
        other.sql("INSERT INTO pad SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    }
    other.sql("CHECKPOINT");
    let kept = format!(
        "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        config.slot
    );
    wait_until("the slot to follow", || async {
        let kept: f64 = db.one(&kept).parse().unwrap();
        (kept < 16.0 * 1024.0 * 1024.0).then_some(())
    })
    .await;
    wait_until("the numbers", || async {
        (status.retained_bytes() < 16 << 20 && status.last_commit_ms() > 0).then_some(())
    })
    .await;
    reading.abort();
}

#[tokio::test]
async fn a_stalled_bus_does_not_cost_the_connection() {
    let cluster = Cluster::own(&[("wal_sender_timeout", "2s")]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY, pad text)");
    let mut config = config(&db, &["public.t"]);
    config.batch.changes = 100;
    let mut producer = Producer::started(&config).await;
    let pid = "SELECT active_pid FROM pg_replication_slots";
    let before = db.one(pid);
    db.sql("INSERT INTO t SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g");
    // Nobody takes a batch for three times as long as the server waits for an answer.
    let pause = tokio::time::Instant::now() + Duration::from_secs(6);
    tokio::time::timeout_at(pause, std::future::pending::<()>())
        .await
        .unwrap_err();
    assert_eq!(producer.changes(20_000).await.len(), 20_000);
    assert_eq!(db.one(pid), before);
    assert_eq!(producer.told, [""; 0]);
}

#[tokio::test]
async fn a_stream_that_is_silent_is_given_up_and_begun_again() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let config = config(&db, &["public.t"]);
    let mut producer = Producer::started(&config).await;
    let pid = db.one(&format!(
        "SELECT active_pid FROM pg_replication_slots WHERE slot_name = '{}'",
        config.slot
    ));
    let signal = |name: &str| {
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("STOP");
    db.sql("INSERT INTO t VALUES (1)");
    let err = loop {
        match in_time("an error", producer.source.next_batch()).await {
            Ok(batch) => producer.store(&batch),
            Err(err) => break err.to_string(),
        }
    };
    assert!(err.contains("silent"), "{err}");
    assert!(
        producer.try_begin().await.is_err(),
        "the process at the server still has the slot"
    );
    signal("CONT");
    producer.begin().await;
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":1}"#);
}

#[tokio::test]
async fn the_publication_follows_the_topics() {
    let db = database();
    db.sql("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)");
    let members = "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables";
    let producer = Producer::started(&config(&db, &["public.a"])).await;
    assert_eq!(db.one(members), "a");
    let history = producer.history();
    let mut producer = producer
        .restarted(&config(&db, &["public.b", "public.a"]))
        .await;
    assert_eq!(db.one(members), "a,b");
    // What was written to it before was not published.
    assert_eq!(told(&producer.change().await), "reload public.b");
    db.sql("INSERT INTO b VALUES (1)");
    let mut line = told(&producer.change().await);
    if line == "reload public.b" {
        line = told(&producer.change().await);
    }
    assert_eq!(line, r#"insert - -> {"id":1}"#);
    let producer = producer.restarted(&config(&db, &["public.b"])).await;
    assert_eq!(db.one(members), "b");
    assert_eq!(producer.history(), history);
}

#[tokio::test]
async fn a_prepared_transaction_is_told_when_it_commits() {
    let cluster = Cluster::own(&[("max_prepared_transactions", "5")]);
    let db = cluster.database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    db.sql("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'one'");
    db.sql("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'two'");
    db.sql("INSERT INTO t VALUES (3)");
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":3}"#);
    db.sql("ROLLBACK PREPARED 'one'");
    db.sql("COMMIT PREPARED 'two'");
    assert_eq!(told(&producer.change().await), r#"insert - -> {"id":2}"#);
}

#[tokio::test]
async fn check_explains_and_remove_takes_off_again() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bad (id int)");
    let config = config(&db, &["public.t"]);
    let (address, slot) = (&config.address, &config.slot);
    let look = async |watched: &Watched| {
        inspect(address, watched, slot, "rowcast", true)
            .await
            .unwrap()
    };
    let findings = look(&config.watched).await;
    assert!(
        findings
            .iter()
            .all(|finding| finding.grade != Grade::Failure),
        "{findings:#?}"
    );
    assert!(
        findings
            .iter()
            .any(|finding| finding.what.contains("will be made"))
    );
    let harmful = super::watched(&["public.bad", "public.none"]);
    let failures = look(&harmful).await;
    let failures: Vec<_> = failures
        .iter()
        .filter(|f| f.grade == Grade::Failure)
        .collect();
    assert_eq!(failures.len(), 2, "{failures:#?}");
    assert!(failures.iter().all(|failure| failure.remedy.is_some()));
    let producer = Producer::started(&config).await;
    let err = remove(address, slot, "rowcast")
        .await
        .unwrap_err()
        .to_string();
    assert!(err.contains("stop the producer"), "{err}");
    drop(producer);
    let removed = wait_until("the slot to be let go", || async {
        remove(address, slot, "rowcast").await.ok()
    });
    assert_eq!(removed.await.len(), 2);
    assert_eq!(db.one("SELECT count(*) FROM pg_publication"), "0");
    assert!(remove(address, slot, "rowcast").await.unwrap().is_empty());
    // One that somebody else made stays.
    db.sql("CREATE PUBLICATION rowcast FOR TABLE t");
    assert!(remove(address, slot, "rowcast").await.unwrap().is_empty());
    let nobody = Address::parse("postgres://nobody@127.0.0.1:1/x").unwrap();
    assert!(remove(&nobody, slot, "rowcast").await.is_err());
}
