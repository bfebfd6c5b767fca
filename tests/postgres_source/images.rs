//! What is told of a row, a transaction, a table.

use rowcast::event::What;

use super::{Producer, config, told};
use crate::support::{postgres::database, values};

#[tokio::test]
async fn an_old_row_is_told_as_far_as_the_replica_identity_goes() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY, name text, n int)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let mut one = async |sql: &str| {
        db.sql(sql);
        told(&producer.change().await)
    };
    assert_eq!(
        one("INSERT INTO t VALUES (1, '王', NULL)").await,
        r#"insert - -> {"id":1,"name":"王","n":null}"#
    );
    assert_eq!(
        one("UPDATE t SET n = 2").await,
        r#"update - -> {"id":1,"name":"王","n":2}"#
    );
    assert_eq!(
        one("UPDATE t SET id = 3").await,
        r#"update {"id":1} -> {"id":3,"name":"王","n":2}"#
    );
    assert_eq!(one("DELETE FROM t").await, r#"delete {"id":3} -> -"#);
    db.sql("ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (4, 'a', 1)");
    producer.change().await;
    db.sql("UPDATE t SET name = 'b'");
    assert_eq!(
        told(&producer.change().await),
        r#"update {"id":4,"name":"a","n":1} -> {"id":4,"name":"b","n":1}"#
    );
}

#[tokio::test]
async fn a_large_value_that_did_not_change_is_absent_or_taken_from_the_old_row() {
    let db = database();
    db.sql(
        "CREATE TABLE t (id int PRIMARY KEY, doc text, n int);
         ALTER TABLE t ALTER doc SET STORAGE EXTERNAL;
         INSERT INTO t VALUES (1, repeat('x', 10000), 0)",
    );
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    db.sql("UPDATE t SET n = 1");
    assert_eq!(
        told(&producer.change().await),
        r#"update - -> {"id":1,"n":1}"#
    );
    db.sql("ALTER TABLE t REPLICA IDENTITY FULL");
    db.sql("UPDATE t SET n = 2");
    let change = producer.change().await;
    let What::Row { new: Some(new), .. } = &change.what else {
        panic!("{change:?}")
    };
    let doc = new.get("doc").cloned();
    assert_eq!(doc, Some(rowcast::row::Value::Text("x".repeat(10_000))));
}

#[tokio::test]
async fn a_transaction_has_its_id_its_time_and_its_mark() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let xid = db.one("BEGIN; INSERT INTO t VALUES (1), (2); SELECT pg_current_xact_id(); COMMIT");
    let changes = producer.changes(2).await;
    assert!(
        changes
            .iter()
            .all(|change| change.xid == Some(xid.parse().unwrap()))
    );
    assert!(changes[0].tx.is_some() && changes[0].tx == changes[1].tx);
    assert_eq!(
        (changes[0].checkpoint.low, changes[1].checkpoint.low),
        (0, 1)
    );
    let now: f64 = db
        .one("SELECT extract(epoch FROM now()) * 1000")
        .parse()
        .unwrap();
    assert!((now - changes[0].at_ms as f64).abs() < 60_000.0);
    db.sql("INSERT INTO t VALUES (3)");
    assert_eq!(producer.change().await.tx, None);
}

#[tokio::test]
async fn truncate_is_told_for_every_watched_table() {
    let db = database();
    db.sql(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY);
         CREATE TABLE b (id int PRIMARY KEY REFERENCES a)",
    );
    let mut producer = Producer::started(&config(&db, &["public.a", "public.b"])).await;
    db.sql("TRUNCATE a CASCADE");
    let mut changes = producer.changes(2).await;
    changes.sort_by_key(|change| change.table.clone());
    let lines: Vec<_> = changes.iter().map(told).collect();
    assert_eq!(lines, ["truncate public.a", "truncate public.b"]);
    assert_ne!(changes[0].checkpoint, changes[1].checkpoint);
}

#[tokio::test]
async fn a_table_may_change_its_shape_while_it_is_written() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY, a int, b text)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    for (sql, expected) in [
        (
            "INSERT INTO t VALUES (1, 1, 'x')",
            r#"{"id":1,"a":1,"b":"x"}"#,
        ),
        (
            "ALTER TABLE t ADD c timestamptz; INSERT INTO t VALUES (2, 2, 'y', '2026-01-02 03:04:05+00')",
            r#"{"id":2,"a":2,"b":"y","c":"2026-01-02T03:04:05Z"}"#,
        ),
        (
            "ALTER TABLE t DROP b; INSERT INTO t VALUES (3, 3, NULL)",
            r#"{"id":3,"a":3,"c":null}"#,
        ),
        (
            "ALTER TABLE t RENAME a TO d; INSERT INTO t VALUES (4, 4, NULL)",
            r#"{"id":4,"d":4,"c":null}"#,
        ),
        (
            "ALTER TABLE t ALTER d TYPE text; INSERT INTO t VALUES (5, '5', NULL)",
            r#"{"id":5,"d":"5","c":null}"#,
        ),
    ] {
        db.sql(sql);
        let change = producer.change().await;
        assert_eq!(told(&change), format!("insert - -> {expected}"), "{sql}");
        let What::Row { shape, new, .. } = &change.what else {
            panic!("{change:?}")
        };
        let columns: Vec<_> = shape.columns.iter().map(|c| c.name.to_string()).collect();
        let image: Vec<_> = new
            .iter()
            .flat_map(|row| row.iter())
            .map(|(n, _)| n)
            .collect();
        assert_eq!(columns, image);
    }
    // A column that a topic needs.
    db.sql("ALTER TABLE t RENAME id TO key; INSERT INTO t VALUES (6, 'x', NULL)");
    assert_eq!(told(&producer.change().await), "reload public.t");
}

#[tokio::test]
async fn partitions_are_told_as_their_table() {
    let db = database();
    db.sql(
        "CREATE TABLE t (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
    );
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    db.sql("INSERT INTO t VALUES (1, '2026-01-05')");
    let change = producer.change().await;
    assert_eq!(&*change.table, "public.t");
    db.sql(
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
         INSERT INTO t VALUES (2, '2026-02-05')",
    );
    // Whether rows came with the partition, the stream does not tell; nor what goes with one.
    let mut lines: Vec<_> = producer.changes(2).await.iter().map(told).collect();
    lines.sort();
    let expected = [
        r#"insert - -> {"id":2,"day":"2026-02-05"}"#,
        "reload public.t",
    ];
    assert_eq!(lines, expected);
    for sql in ["TRUNCATE t_1", "ALTER TABLE t DETACH PARTITION t_2"] {
        db.sql(sql);
        assert_eq!(told(&producer.change().await), "reload public.t", "{sql}");
    }
}

#[tokio::test]
async fn an_application_emits_events_in_its_transactions() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let emit = |flag: bool, prefix: &str, text: &str| {
        format!("SELECT pg_logical_emit_message({flag}, '{prefix}', '{text}');")
    };
    db.sql(&format!(
        "BEGIN; {} ROLLBACK",
        emit(true, "rowcast:bell", "\"rolled back\"")
    ));
    db.sql(&emit(true, "somebody.else", "{}"));
    db.sql(&emit(true, "rowcast:bell", "no json"));
    db.sql(&emit(false, "rowcast:bell", "\"outside\""));
    db.sql(&format!(
        "BEGIN; INSERT INTO t VALUES (1); {} INSERT INTO t VALUES (2); COMMIT",
        emit(true, "rowcast:bell", "{\"ward\": 3}")
    ));
    let changes = producer.changes(3).await;
    let lines: Vec<_> = changes.iter().map(told).collect();
    assert_eq!(
        lines,
        [
            r#"insert - -> {"id":1}"#,
            r#"message bell {"ward": 3}"#,
            r#"insert - -> {"id":2}"#
        ]
    );
    assert!(changes.iter().all(|change| change.tx == changes[0].tx));
    assert_eq!(producer.source.status().left_out(), 2);
}

#[tokio::test]
async fn a_mark_comes_back_with_all_that_was_committed_before_it() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    for (n, transactional) in [(1, true), (2, false), (3, true)] {
        db.sql(&format!("INSERT INTO t VALUES ({n})"));
        db.sql(&format!(
            "SELECT pg_logical_emit_message({transactional}, 'rowcast.mark', 'm{n}')"
        ));
        let mut seen = 0;
        loop {
            let batch = producer.batch().await;
            seen += batch.changes.len();
            match batch.marks.first() {
                Some(mark) if **mark == format!("m{n}") => break,
                other => assert_eq!(other, None),
            }
        }
        assert_eq!(seen, 1, "the change before mark {n}");
    }
}

#[tokio::test]
async fn only_what_was_committed_is_told_and_in_commit_order() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let other = tokio_postgres::connect(&db.url(), tokio_postgres::NoTls).await;
    let (other, connection) = other.unwrap();
    tokio::spawn(connection);
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    // It begins first and commits last.
    other
        .batch_execute("BEGIN; INSERT INTO t VALUES (100)")
        .await
        .unwrap();
    for id in 1..=8 {
        db.sql(&format!(
            "BEGIN; INSERT INTO t VALUES ({id}); SAVEPOINT s; INSERT INTO t VALUES (50);
             ROLLBACK TO s; SAVEPOINT s2; INSERT INTO t VALUES ({}); RELEASE s2; COMMIT",
            id + 10
        ));
    }
    other.batch_execute("COMMIT").await.unwrap();
    let changes = producer.changes(17).await;
    let ids: Vec<String> = changes.iter().map(told).collect();
    let expected: Vec<String> = (1..=8)
        .flat_map(|id| [id, id + 10])
        .chain([100])
        .map(|id| format!(r#"insert - -> {{"id":{id}}}"#))
        .collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_transaction_too_large_for_a_batch_comes_in_parts_and_resumes_between_them() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY)");
    let mut config = config(&db, &["public.t"]);
    config.batch.changes = 100;
    let mut producer = Producer::started(&config).await;
    db.sql("INSERT INTO t SELECT generate_series(1, 1050)");
    db.sql("INSERT INTO t VALUES (2000)");
    let mut changes = Vec::new();
    let mut parts = 0;
    while changes.len() < 1051 {
        let batch = producer.batch().await;
        parts += usize::from(batch.more);
        assert!(batch.changes.len() <= 100);
        assert_eq!(
            batch.more,
            changes.len() + batch.changes.len() < 1050 && !batch.changes.is_empty() || batch.more
        );
        changes.extend(batch.changes);
        if parts == 3 {
            // Dies after the third part.
            parts += 1;
            producer = producer.restarted(&config).await;
            let first = producer.batch().await;
            assert!(first.more && first.changes.is_empty(), "{first:?}");
        }
    }
    let ordinals: Vec<u32> = changes[..1050].iter().map(|c| c.checkpoint.low).collect();
    assert_eq!(ordinals, (0..1050).collect::<Vec<_>>());
    assert!(
        changes[..1050]
            .iter()
            .all(|change| change.tx == changes[0].tx)
    );
    assert!(changes[0].tx.is_some() && changes[1050].tx.is_none());
    assert!(parts >= 10);
}

/// A million rows in the long form: `ROWCAST_LONG=1`.
#[tokio::test]
async fn a_huge_transaction_is_never_held_whole() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY, pad text)");
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let rows = match std::env::var_os("ROWCAST_LONG") {
        Some(_) => 1_000_000,
        None => 200_000,
    };
    let before = resident();
    let sql = format!("INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, {rows}) g");
    db.sql(&sql);
    let (mut count, mut most) = (0, before);
    while count < rows {
        count += producer.batch().await.changes.len();
        most = most.max(resident());
    }
    // Other tests run in this process too; all rows together would be ten times as much.
    let grown = (most - before) >> 20;
    assert!(grown < 256, "grew by {grown} MiB");
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// `cargo test --release --locked the_ceiling -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn the_ceiling_of_reading_and_decoding() {
    let db = database();
    db.sql("CREATE TABLE t (id int PRIMARY KEY, name text, ward text, n int)");
    let config = config(&db, &["public.t"]);
    let producer = Producer::started(&config).await;
    let stored = producer.stored.clone();
    drop(producer);
    let each = 1000;
    let rows = 500_000;
    for first in (0..rows).step_by(each) {
        db.sql(&format!(
            "INSERT INTO t SELECT g, 'name ' || g, 'ward', g FROM generate_series({first}, {}) g",
            first + each - 1
        ));
    }
    let mut producer = Producer::new(&config);
    producer.stored = stored;
    producer.begin().await;
    let start = std::time::Instant::now();
    let mut count = 0;
    while count < rows {
        count += producer.batch().await.changes.len();
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    println!("{rows} rows in {:?}: {rate:.0} rows/s", start.elapsed());
}

#[tokio::test]
async fn every_type_is_told_by_the_stream_as_it_is_documented() {
    let db = database();
    db.sql(values::TYPES);
    let columns = values::VALUES.iter().enumerate();
    let columns: Vec<String> = columns
        .map(|(n, (kind, _, _))| format!("c{n} {kind}"))
        .collect();
    db.sql(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, {})",
        columns.join(", ")
    ));
    let mut producer = Producer::started(&config(&db, &["public.t"])).await;
    let inserted: Vec<&str> = values::VALUES.iter().map(|(_, sql, _)| *sql).collect();
    db.sql(&format!(
        "INSERT INTO t VALUES (1, {})",
        inserted.join(", ")
    ));
    let change = producer.change().await;
    let What::Row { new: Some(new), .. } = &change.what else {
        panic!("{change:?}")
    };
    for (n, (kind, sql, expected)) in values::VALUES.iter().enumerate() {
        let mut json = Vec::new();
        let value = new.get(&format!("c{n}")).expect("the column");
        rowcast::row::write_value(&mut json, value);
        let json = String::from_utf8(json).unwrap();
        assert_eq!(json, *expected, "{kind} {sql}");
    }
}
