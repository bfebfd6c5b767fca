//! What every [`Source`] promises, sentence by sentence of its doc comment. A further backend is
//! one more `contract!` at the end.

use std::{path::PathBuf, time::Duration};

use rowcast::{
    event::{Change, What},
    position::Checkpoint,
    row::Value,
    source::{
        Source, SourceError, Transactions,
        postgres::{PostgresSource, PostgresSourceConfig},
        sqlite::{SqliteSource, SqliteSourceConfig, watched},
    },
    topic::{Table, Topic, TopicSpec, Topics},
};

use crate::{
    postgres_source,
    support::{
        in_time,
        postgres::{Cluster, Database},
        wait_until,
    },
};

/// A database with one watched table `item(id INTEGER PRIMARY KEY, name TEXT)`, which nobody has
/// followed yet.
trait Home {
    type Source: Source;

    fn new() -> Self;

    /// The same on a server of its own, which can be taken away.
    fn own() -> Self
    where
        Self: Sized,
    {
        Self::new()
    }

    /// What a process that starts makes; the source of before is dropped.
    fn source(&self) -> Self::Source;

    /// One transaction of another program.
    fn commit(&self, sql: &str);

    /// Takes a backup.
    fn backup(&self);

    /// Puts the backup in the database's place.
    fn restore(&self);

    /// Takes the database away, and puts it back.
    fn away(&self, away: bool);
}

// === what a test needs ===

/// Follows the source from `from`; returns its first batch.
async fn start<H: Home>(home: &H, from: Option<&Checkpoint>) -> (H::Source, Transactions) {
    let mut source = home.source();
    begin(&mut source).await;
    source.confirm(from);
    let first = in_time("a first batch", source.next_batch()).await;
    (source, first.unwrap())
}

/// Begins, once whoever had the source before has let it go.
async fn begin(source: &mut impl Source) {
    let begun = async {
        while let Err(err) = source.begin().await {
            assert!(!matches!(err, SourceError::Stopped), "{err}");
            tokio::task::yield_now().await;
        }
    };
    in_time("the source to begin", begun).await;
}

/// The next batch with a change. Those without only tell how far the source has been read.
async fn next(source: &mut impl Source) -> Transactions {
    loop {
        let batch = in_time("a batch", source.next_batch()).await.unwrap();
        if !batch.changes.is_empty() {
            return batch;
        }
    }
}

/// The next batch, begun again after an error as the relay does it; `stored` is what is on the bus.
async fn follow(source: &mut impl Source, stored: &mut Checkpoint) -> Option<Transactions> {
    match in_time("a batch or an error", source.next_batch()).await {
        Ok(batch) => {
            *stored = batch.checkpoint.clone();
            Some(batch)
        }
        Err(SourceError::Stopped) => panic!("the source has stopped"),
        // It may say first that something is wrong.
        Err(_) => {
            begin(source).await;
            source.confirm(Some(stored));
            None
        }
    }
}

/// Reads until `count` changes have come, confirming nothing.
async fn read(source: &mut impl Source, count: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    while changes.len() < count {
        changes.extend(next(source).await.changes);
    }
    changes
}

fn id(change: &Change) -> i64 {
    let What::Row { old, new, .. } = &change.what else {
        panic!("no row: {:?}", change.what)
    };
    match new.as_ref().or(old.as_ref()).and_then(|row| row.get("id")) {
        Some(Value::Integer(id)) => *id,
        other => panic!("no id: {other:?}"),
    }
}

fn ids(changes: &[Change]) -> Vec<i64> {
    changes.iter().map(id).collect()
}

fn insert(ids: impl IntoIterator<Item = i64>) -> String {
    let rows: Vec<String> = ids
        .into_iter()
        .map(|id| format!("({id}, 'n{id}')"))
        .collect();
    format!("INSERT INTO item VALUES {}", rows.join(", "))
}

fn after(one: &Checkpoint, other: &Checkpoint) -> bool {
    one.covers(other) && one != other
}

// === the contract ===

async fn the_first_batch_says_which_history_is_followed_and_from_where<H: Home>() {
    let home = H::new();
    home.commit(&insert(1..=3));
    let (mut source, first) = start(&home, None).await;
    // What was there before anybody followed is not reported.
    assert!(first.changes.is_empty(), "{first:?}");
    assert!(!first.checkpoint.source.is_empty());
    home.commit(&insert([4]));
    let changes = read(&mut source, 1).await;
    assert_eq!(ids(&changes), [4]);
    assert!(after(&changes[0].checkpoint, &first.checkpoint));
}

async fn changes_come_in_commit_order_and_checkpoints_grow<H: Home>() {
    let home = H::new();
    let (mut source, first) = start(&home, None).await;
    let mut last = first.checkpoint;
    let mut seen = Vec::new();
    for round in 0..10 {
        for id in 0..5 {
            home.commit(&insert([round * 5 + id]));
        }
        while seen.len() < (round as usize + 1) * 5 {
            let batch = next(&mut source).await;
            for change in &batch.changes {
                assert!(after(&change.checkpoint, &last), "{change:?} after {last}");
                last = change.checkpoint.clone();
            }
            assert_eq!(batch.checkpoint.source, last.source);
            assert!(batch.checkpoint.high >= last.high);
            seen.extend(ids(&batch.changes));
        }
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

async fn a_transaction_is_never_split<H: Home + Sync + Send + 'static>() {
    let home = std::sync::Arc::new(H::new());
    let (mut source, _) = start(&*home, None).await;
    let writer = home.clone();
    let writing = tokio::task::spawn_blocking(move || {
        for tx in 0..30 {
            writer.commit(&insert(tx * 40..(tx + 1) * 40));
        }
    });
    let mut count = 0;
    while count < 30 * 40 {
        let batch = next(&mut source).await;
        let found = ids(&batch.changes);
        assert_eq!(found.len() % 40, 0, "a part of a transaction: {found:?}");
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(n, id)| *id == (count + n) as i64)
        );
        // What was written together is marked, unless it is one change.
        for transaction in batch.changes.chunks(40) {
            let tx = transaction[0].tx.clone();
            assert!(tx.is_some() && transaction.iter().all(|change| change.tx == tx));
        }
        count += found.len();
    }
    writing.await.unwrap();
}

async fn every_kind_of_write_is_seen_and_a_rollback_is_not<H: Home>() {
    let home = H::new();
    home.commit(&insert(1..=4));
    let (mut source, _) = start(&home, None).await;
    let mut one = async |sql: &str| {
        home.commit(sql);
        let change = read(&mut source, 1).await.remove(0);
        let What::Row {
            inserted, old, new, ..
        } = change.what
        else {
            panic!("no row")
        };
        let name = |row: &rowcast::row::Row| row.get("name").cloned();
        let key = old.as_ref().and_then(|row| row.get("id").cloned());
        (inserted, key, new.as_ref().and_then(name), new.is_some())
    };
    let text = |text: &str| Some(Value::Text(text.into()));
    let key = |id| Some(Value::Integer(id));
    assert_eq!(
        one("INSERT INTO item VALUES (5, 'a')").await,
        (true, None, text("a"), true)
    );
    let renamed = one("UPDATE item SET name = 'b' WHERE id = 5").await;
    assert_eq!(renamed, (false, key(5), text("b"), true));
    let moved = one("UPDATE item SET id = 6 WHERE id = 5").await;
    assert_eq!(moved, (false, key(5), text("b"), true));
    assert_eq!(
        one("DELETE FROM item WHERE id = 6").await,
        (false, key(6), None, false)
    );
    home.commit("ROLLBACK; BEGIN; DELETE FROM item; ROLLBACK; BEGIN");
    let last = one("DELETE FROM item WHERE id = 1").await;
    assert_eq!(
        last,
        (false, key(1), None, false),
        "the rolled back deletion was seen"
    );
}

async fn what_was_confirmed_does_not_come_again<H: Home>() {
    let home = H::new();
    let (mut source, _) = start(&home, None).await;
    home.commit(&insert(1..=3));
    let batch = next(&mut source).await;
    assert_eq!(ids(&batch.changes), [1, 2, 3]);
    source.confirm(Some(&batch.checkpoint));
    drop(source);
    // Written while nobody watches.
    home.commit(&insert([4]));
    home.commit(&insert([5]));
    let (mut source, first) = start(&home, Some(&batch.checkpoint)).await;
    let mut found = ids(&first.changes);
    if found.is_empty() {
        found = ids(&read(&mut source, 2).await);
    }
    assert_eq!(found, [4, 5]);
    assert_eq!(first.checkpoint.source, batch.checkpoint.source);
}

async fn what_was_not_confirmed_comes_again_under_the_same_checkpoints<H: Home>() {
    let home = H::new();
    let (mut source, first) = start(&home, None).await;
    home.commit(&insert(1..=3));
    home.commit("DELETE FROM item WHERE id = 2");
    home.commit(&insert([4]));
    let mut before = Vec::new();
    while before.last().is_none_or(|change| id(change) != 4) {
        before.extend(next(&mut source).await.changes);
    }
    drop(source);
    let (mut source, batch) = start(&home, Some(&first.checkpoint)).await;
    let mut again = batch.changes;
    while again.last().is_none_or(|change| id(change) != 4) {
        again.extend(next(&mut source).await.changes);
    }
    let place = |change: &Change| (id(change), change.checkpoint.clone());
    // One reading may collapse what the other saw in two: the last state stands where it stood.
    let before: Vec<_> = before.iter().map(place).collect();
    let again: Vec<_> = again.iter().map(place).collect();
    let mut last: Vec<i64> = Vec::new();
    for (id, _) in &again {
        last.retain(|earlier| earlier != id);
        last.push(*id);
    }
    assert_eq!(last, [1, 3, 2, 4]);
    assert!(
        again.iter().all(|place| before.contains(place)),
        "{again:?} of {before:?}"
    );
}

async fn to_drop_a_wait_for_a_batch_loses_nothing<H: Home>() {
    let home = H::new();
    let (mut source, _) = start(&home, None).await;
    let mut found = Vec::new();
    for id in 1..=50 {
        home.commit(&insert([id]));
        tokio::select! {
            biased;
            batch = source.next_batch() => found.extend(ids(&batch.unwrap().changes)),
            () = tokio::task::yield_now() => {}
        }
    }
    let missing = 50 - found.len();
    found.extend(ids(&read(&mut source, missing).await));
    assert_eq!(found, (1..=50).collect::<Vec<_>>());
}

async fn a_restored_database_begins_another_history<H: Home>() {
    let home = H::own();
    let (mut source, _) = start(&home, None).await;
    home.commit(&insert([1]));
    let batch = next(&mut source).await;
    source.confirm(Some(&batch.checkpoint));
    drop(source);
    home.backup();
    // The same number of writes on both ways: only their content tells them apart.
    let (mut source, _) = start(&home, Some(&batch.checkpoint)).await;
    home.commit(&insert([2]));
    let lost = next(&mut source).await;
    drop(source);
    home.restore();
    home.commit(&insert([3]));
    let (mut source, first) = start(&home, Some(&lost.checkpoint)).await;
    assert_ne!(first.checkpoint.source, lost.checkpoint.source);
    assert!(first.changes.is_empty(), "no change from before: {first:?}");
    home.commit(&insert([4]));
    assert_eq!(ids(&read(&mut source, 1).await), [4]);
}

async fn a_database_replaced_while_it_is_followed_begins_another_history<H: Home>() {
    let home = H::own();
    home.backup();
    let (mut source, first) = start(&home, None).await;
    home.commit(&insert([1]));
    let mut stored = next(&mut source).await.checkpoint;
    home.restore();
    let batch = loop {
        match follow(&mut source, &mut stored).await {
            Some(batch) if batch.checkpoint.source != first.checkpoint.source => break batch,
            Some(batch) => assert!(batch.changes.is_empty(), "{batch:?}"),
            None => {}
        }
    };
    assert!(batch.changes.is_empty(), "{batch:?}");
    home.commit(&insert([2]));
    assert_eq!(ids(&read(&mut source, 1).await), [2]);
}

async fn a_database_that_is_away_comes_back_without_a_loss<H: Home>() {
    let home = H::own();
    let (mut source, first) = start(&home, None).await;
    let mut stored = first.checkpoint.clone();
    home.away(true);
    loop {
        match in_time("an error", source.next_batch()).await {
            Ok(batch) => {
                assert!(batch.changes.is_empty());
                stored = batch.checkpoint;
            }
            Err(SourceError::Unavailable(_)) => break,
            Err(err) => panic!("{err}"),
        }
    }
    home.away(false);
    home.commit(&insert([7]));
    let found = loop {
        match follow(&mut source, &mut stored).await {
            Some(batch) if !batch.changes.is_empty() => break batch,
            _ => {}
        }
    };
    assert_eq!(ids(&found.changes), [7]);
    assert_eq!(found.checkpoint.source, first.checkpoint.source);
}

macro_rules! contract {
    ($backend:ident, $home:ty) => {
        mod $backend {
            use super::*;
            contract!($home:
                the_first_batch_says_which_history_is_followed_and_from_where
                changes_come_in_commit_order_and_checkpoints_grow
                a_transaction_is_never_split
                every_kind_of_write_is_seen_and_a_rollback_is_not
                what_was_confirmed_does_not_come_again
                what_was_not_confirmed_comes_again_under_the_same_checkpoints
                to_drop_a_wait_for_a_batch_loses_nothing
                a_restored_database_begins_another_history
                a_database_replaced_while_it_is_followed_begins_another_history
                a_database_that_is_away_comes_back_without_a_loss
            );
        }
    };
    ($home:ty: $($promise:ident)*) => {
        // A home may stop a server, which waits for the source to let it go: two threads.
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn $promise() { super::$promise::<$home>().await })*
    };
}

contract!(sqlite, Sqlite);
contract!(postgres, Postgres);

// === SQLite ===

struct Sqlite {
    folder: tempfile::TempDir,
    config: SqliteSourceConfig,
}

impl Sqlite {
    fn file(&self, suffix: &str) -> PathBuf {
        self.folder.path().join(format!("care.db{suffix}"))
    }

    fn connect(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(self.file("")).unwrap();
        conn.busy_timeout(crate::support::DEADLINE).unwrap();
        conn
    }

    fn entries(&self) -> i64 {
        let count = "SELECT count(*) FROM _rowcast_changelog";
        self.connect()
            .query_row(count, [], |row| row.get(0))
            .unwrap()
    }
}

impl Home for Sqlite {
    type Source = SqliteSource;

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("care.db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
            .unwrap();
        let table: Option<Table> = rowcast::sqlite::introspect(&conn, "item").unwrap();
        let spec: TopicSpec = serde_json::from_str(r#"{"type":"item","table":"item"}"#).unwrap();
        let topic = Topic::resolve(&spec, table.as_ref()).unwrap();
        let config = SqliteSourceConfig {
            path,
            watched: watched(&Topics::new(vec![topic]).unwrap()),
            poll_interval: Duration::from_millis(1),
            changelog_keep: Duration::from_secs(3600),
            changelog_max_rows: 1_000_000,
        };
        Self { folder, config }
    }

    fn source(&self) -> SqliteSource {
        SqliteSource::new(self.config.clone())
    }

    fn commit(&self, sql: &str) {
        let text = format!("BEGIN IMMEDIATE; {sql}; COMMIT");
        self.connect().execute_batch(&text).unwrap();
    }

    fn backup(&self) {
        let into = self.file("-backup");
        let conn = self.connect();
        conn.execute("VACUUM INTO ?1", [into.to_str()]).unwrap();
    }

    fn restore(&self) {
        // As an operator does it: the WAL belongs to the file that is replaced.
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(self.file(suffix));
        }
        std::fs::rename(self.file("-backup"), self.file("")).unwrap();
    }

    fn away(&self, away: bool) {
        let (from, to) = match away {
            true => ("", "-away"),
            false => ("-away", ""),
        };
        std::fs::rename(self.file(from), self.file(to)).unwrap();
    }
}

#[tokio::test]
async fn only_what_was_confirmed_is_trimmed_and_a_restart_goes_on_behind_it() {
    let mut home = Sqlite::new();
    home.config.changelog_keep = Duration::ZERO;
    let (mut source, _) = start(&home, None).await;
    home.commit(&insert(1..=30));
    let confirmed = next(&mut source).await;
    source.confirm(Some(&confirmed.checkpoint));
    home.commit(&insert(31..=35));
    let unconfirmed = next(&mut source).await;
    assert_eq!(unconfirmed.changes.len(), 5);
    // The last sixteen before the confirmed checkpoint stay with it: by them a restored file is
    // recognised.
    wait_until("trimming", async || {
        (home.entries() == 16 + 1 + 5).then_some(())
    })
    .await;
    drop(source);
    let (_source, again) = start(&home, Some(&confirmed.checkpoint)).await;
    assert_eq!(again.checkpoint.source, confirmed.checkpoint.source);
    assert_eq!(ids(&again.changes), [31, 32, 33, 34, 35]);
}

#[tokio::test]
async fn a_row_displaced_by_replace_is_a_deletion() {
    let mut home = Sqlite::new();
    home.commit(
        "CREATE UNIQUE INDEX by_name ON item (name); INSERT INTO item VALUES (1, 'a'), (2, 'b')",
    );
    home.config.poll_interval = Duration::from_millis(1);
    let (mut source, _) = start(&home, None).await;
    home.commit("INSERT OR REPLACE INTO item VALUES (3, 'a')");
    let changes = read(&mut source, 2).await;
    assert_eq!(ids(&changes), [3, 1]);
    assert!(matches!(&changes[1].what, What::Row { new: None, .. }));
    assert!(after(&changes[1].checkpoint, &changes[0].checkpoint));
}

// === PostgreSQL ===

/// The table tells whole old rows: what is told otherwise, tests/postgres_source.rs tries.
struct Postgres {
    config: PostgresSourceConfig,
    database: Database,
    cluster: Option<Cluster>,
}

impl Postgres {
    fn with(database: Database, cluster: Option<Cluster>) -> Self {
        database.sql(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT);
             ALTER TABLE item REPLICA IDENTITY FULL",
        );
        Self {
            config: postgres_source::config(&database, &["public.item"]),
            database,
            cluster,
        }
    }

    fn server(&self) -> &Cluster {
        self.cluster.as_ref().expect("a server of its own")
    }

    fn start_again(&self) {
        self.server().start();
        postgres_source::answers(&self.database);
    }
}

impl Home for Postgres {
    type Source = PostgresSource;

    fn new() -> Self {
        Self::with(crate::support::postgres::database(), None)
    }

    fn own() -> Self {
        let cluster = Cluster::own(&[]);
        Self::with(cluster.database(), Some(cluster))
    }

    fn source(&self) -> PostgresSource {
        PostgresSource::new(self.config.clone())
    }

    fn commit(&self, sql: &str) {
        self.database.sql(&format!("BEGIN; {sql}; COMMIT"));
    }

    fn backup(&self) {
        self.server().stop();
        self.server().backup();
        self.start_again();
    }

    fn restore(&self) {
        self.server().stop();
        self.server().restore();
        self.start_again();
    }

    fn away(&self, away: bool) {
        match away {
            true => self.server().stop(),
            false => self.start_again(),
        }
    }
}
