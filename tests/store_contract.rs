//! What every [`Store`] promises, sentence by sentence of its doc comment. A further backend is
//! one more `contract!` at the end.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rowcast::{
    event::What,
    horizon::Horizon,
    position::Checkpoint,
    postgres::Address,
    protocol::{After, JsonLimits, Page, Params, Request, Select},
    row::Value,
    source::{
        Source,
        sqlite::{SqliteSource, SqliteSourceConfig, watched},
    },
    store::{
        Snapshot, Store, StoreError,
        postgres::{PostgresStore, PostgresStoreConfig},
        sqlite::{SqliteStore, SqliteStoreConfig},
    },
    topic::{Topic, TopicSpec, Topics},
};
use serde_json::{Value as Json, json};

use crate::support::{
    STANDSTILL, in_time,
    postgres::{Database, database},
    wait_until,
};

/// A database with the table `item(id INTEGER PRIMARY KEY, name TEXT, n INTEGER)`.
trait Home: Send + Sync + 'static {
    type Store: Store;

    /// A timeout that a look at one row keeps easily, connecting included, and a look at 300,000
    /// large ones does not.
    const SHORT: Duration;

    fn new() -> Self;

    fn store(&self, timeout: Duration) -> Self::Store;

    /// One transaction of another program.
    fn commit(&self, sql: &str);

    /// A topic of the table `item`, with these keys of a `[[topics]]` section beside.
    fn topic(&self, more: Json) -> Arc<Topic>;

    /// A topic over a query that watches `item` and `kind`, with these keys beside.
    fn joined(&self, query: &str, more: Json) -> Arc<Topic>;

    /// A number that changes with every write.
    fn version(&self) -> i64;

    /// Replaces the database by an empty one with the same table.
    fn replace(&self);
}

/// A database whose snapshots tell by a checkpoint what they saw. PostgreSQL's do not: there it is
/// the transactions that a snapshot sees, not the log up to some place.
trait Captured: Home {
    type Source: Source;

    /// The source of the same database, started at the present.
    fn source(&self) -> Self::Source;
}

const PATIENT: Duration = Duration::from_secs(20);

fn select(text: &str) -> Select {
    let text = text
        .replacen('{', r#"{"type":"item","#, 1)
        .replace(",}", "}");
    match Request::parse(&text, &JsonLimits::default()).unwrap() {
        Request::Query { select, .. } => select,
        other => panic!("{other:?}"),
    }
}

async fn ask(store: &impl Store, topic: &Arc<Topic>, what: &str) -> Result<Snapshot, StoreError> {
    let snapshot = store.snapshot(topic.clone(), select(what));
    in_time("a snapshot", snapshot).await
}

fn joined(query: &str, more: Json) -> TopicSpec {
    let mut spec = json!({ "type": "item", "query": query, "watch": ["item", "kind"] });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// The rows as JSON.
fn rows(snapshot: &Snapshot) -> Vec<Json> {
    let mut out = Vec::new();
    snapshot.rows.write_array(&mut out, 0..snapshot.rows.len());
    serde_json::from_slice(&out).unwrap()
}

fn ids(snapshot: &Snapshot) -> Vec<i64> {
    let rows = rows(snapshot);
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

async fn found(store: &impl Store, topic: &Arc<Topic>, what: &str) -> Vec<i64> {
    ids(&ask(store, topic, what).await.unwrap())
}

// === the contract ===

async fn a_query_returns_the_rows_asked_for_in_the_order_asked_for<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'c', 5), (2, 'a', NULL), (3, 'b', 5), (4, 'a', 7)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({})));
    for (what, expected) in [
        ("{}", &[1, 2, 3, 4][..]),
        (r#"{"id":3}"#, &[3]),
        (r#"{"id":"3"}"#, &[3]),
        (r#"{"id":{"id":3}}"#, &[3]),
        (r#"{"id":9}"#, &[]),
        (r#"{"params":{"order":"name"}}"#, &[2, 4, 3, 1]),
        (r#"{"params":{"order":["n desc","name"]}}"#, &[4, 3, 1, 2]),
        (r#"{"params":{"size":2,"page":2}}"#, &[3, 4]),
        (r#"{"params":{"size":2,"page":9}}"#, &[]),
        (
            r#"{"params":{"all":true,"order":"id desc"}}"#,
            &[4, 3, 2, 1],
        ),
        (r#"{"params":{"filter":{"n":null}}}"#, &[2]),
        (r#"{"params":{"filter":{"n":{"ne":null}}}}"#, &[1, 3, 4]),
        (r#"{"params":{"filter":{"n":{"ne":5}}}}"#, &[4]),
        (r#"{"params":{"filter":{"n":[7,null]}}}"#, &[2, 4]),
        (r#"{"params":{"filter":{"n":{"gte":5,"lt":7}}}}"#, &[1, 3]),
        (
            r#"{"params":{"filter":{"name":{"like":"a%"},"n":7}}}"#,
            &[4],
        ),
        (r#"{"params":{"filter":{"name":"a' OR 1=1 --"}}}"#, &[]),
    ] {
        assert_eq!(found(&store, &topic, what).await, expected, "{what}");
    }
}

async fn a_page_knows_its_place_in_the_list<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item SELECT value, 'x', value FROM generate_series(1, 7)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({ "page_size": 3 })));
    let first = ask(&store, &topic, "{}").await.unwrap();
    let Some(Page {
        number: Some(1),
        size: 3,
        total: 7,
        next: Some(next),
    }) = first.page
    else {
        panic!("{:?}", first.page)
    };
    let more = format!(r#"{{"params":{{"after":"{next}"}}}}"#);
    let second = ask(&store, &topic, &more).await.unwrap();
    assert_eq!(ids(&second), [4, 5, 6]);
    let page = second.page.unwrap();
    assert_eq!((page.number, page.total), (None, 7));
    let more = format!(r#"{{"params":{{"after":"{}"}}}}"#, page.next.unwrap());
    let last = ask(&store, &topic, &more).await.unwrap();
    assert_eq!((ids(&last), last.page.unwrap().next), (vec![7], None));
    let one = ask(&store, &topic, r#"{"id":1}"#).await.unwrap();
    let all = ask(&store, &topic, r#"{"params":{"all":true}}"#)
        .await
        .unwrap();
    assert!(one.page.is_none() && all.page.is_none());
}

async fn the_view_and_nothing_else_is_shown<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'secret', 5), (2, 'b', 6)");
    let store = home.store(PATIENT);
    let topic = home.topic(json!({ "columns": ["n", "id"], "where": "n > 5" }));
    let all = ask(&store, &topic, r#"{"params":{"all":true}}"#)
        .await
        .unwrap();
    assert_eq!(rows(&all), [json!({ "n": 6, "id": 2 })]);
    assert!(found(&store, &topic, r#"{"id":1}"#).await.is_empty());
    for what in [
        r#"{"params":{"filter":{"name":"secret"}}}"#,
        r#"{"params":{"order":"name"}}"#,
    ] {
        let refused = ask(&store, &topic, what).await;
        assert!(matches!(refused, Err(StoreError::BadParam(_))), "{what}");
    }
}

async fn what_does_not_fit_the_topic_is_the_askers_to_mend<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)");
    let store = home.store(PATIENT);
    let topic = home.topic(json!({ "max_rows": 2, "max_page_size": 60 }));
    let foreign = After {
        topic: "other".into(),
        params: Params {
            size: Some(1),
            ..Params::default()
        },
        last: vec![Value::Integer(1)],
    };
    let foreign = format!(r#"{{"params":{{"after":"{}"}}}}"#, foreign.token());
    for what in [
        r#"{"id":{"name":"a"}}"#,
        r#"{"id":{"id":1,"name":"a"}}"#,
        r#"{"params":{"size":61}}"#,
        r#"{"params":{"order":"nome"}}"#,
        r#"{"params":{"filter":{"nome":1}}}"#,
        r#"{"params":{"all":true}}"#,
        foreign.as_str(),
    ] {
        let refused = ask(&store, &topic, what).await;
        let Err(StoreError::BadParam(text)) = refused else {
            panic!("{what}: {refused:?}")
        };
        assert!(!text.contains("nome"), "the asker's text: {text}");
    }
    let spec: TopicSpec = serde_json::from_str(r#"{"type":"news"}"#).unwrap();
    let news = Arc::new(Topic::resolve(&spec, None).unwrap());
    let refused = ask(&store, &news, "{}").await;
    assert!(matches!(refused, Err(StoreError::BadParam(_))));
    assert!(matches!(
        store.describe(news).await,
        Err(StoreError::BadParam(_))
    ));
}

async fn every_snapshot_is_one_consistent_read<H: Home>() {
    let home = Arc::new(H::new());
    home.commit("INSERT INTO item SELECT value, 'x', 100 FROM generate_series(1, 20)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({ "page_size": 50 })));
    let (writer, stop) = (home.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut turn = 0;
        while !stopped.load(Ordering::Relaxed) {
            turn += 1;
            let (from, to) = (turn % 20 + 1, (turn * 7 + 3) % 20 + 1);
            writer.commit(&format!(
                "UPDATE item SET n = n - 1 WHERE id = {from}; UPDATE item SET n = n + 1 WHERE id = {to};
                 DELETE FROM item WHERE id = 100; INSERT INTO item VALUES ({}, 'y', 0)",
                if turn % 2 == 0 { 100 } else { 100 + turn }
            ));
        }
    });
    for _ in 0..200 {
        let read = ask(&store, &topic, r#"{"params":{"filter":{"name":"x"}}}"#)
            .await
            .unwrap();
        let sum: i64 = rows(&read)
            .iter()
            .map(|row| row["n"].as_i64().unwrap())
            .sum();
        assert_eq!(sum, 2000);
        let read = ask(&store, &topic, r#"{"params":{"size":200}}"#)
            .await
            .unwrap();
        if let Some(Page {
            total, next: None, ..
        }) = read.page
        {
            assert_eq!(total, read.rows.len() as u64);
        }
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
}

async fn a_snapshot_saw_what_the_source_reports_up_to_its_horizon_and_nothing_after<H: Captured>() {
    let home = Arc::new(H::new());
    let (store, topic) = (
        home.store(PATIENT),
        home.topic(json!({ "max_rows": 100_000 })),
    );
    let before = ask(&store, &topic, "{}").await.unwrap();
    assert_eq!(before.horizon, None, "nobody captures the database yet");
    let mut source = home.source();
    in_time("the first batch", source.next_batch())
        .await
        .unwrap();
    let writer = home.clone();
    let writing = tokio::task::spawn_blocking(move || {
        for id in 1..=300 {
            writer.commit(&format!("INSERT INTO item VALUES ({id}, 'x', 0)"));
        }
    });
    let mut snapshots = Vec::new();
    while !writing.is_finished() {
        let read = ask(&store, &topic, r#"{"params":{"all":true}}"#)
            .await
            .unwrap();
        let Some(Horizon::Checkpoint(horizon)) = read.horizon.clone() else {
            panic!("a captured SQLite file has a changelog id");
        };
        snapshots.push((horizon, ids(&read)));
    }
    writing.await.unwrap();
    let mut changes: Vec<(Checkpoint, i64)> = Vec::new();
    while changes.len() < 300 {
        let batch = in_time("changes", source.next_batch()).await.unwrap();
        for change in batch.changes {
            if let What::Row { new: Some(row), .. } = &change.what
                && let Some(Value::Integer(id)) = row.get("id")
            {
                changes.push((change.checkpoint, *id));
            }
        }
    }
    for (horizon, saw) in snapshots {
        let reported = changes.iter().filter(|(at, _)| horizon.covers(at));
        assert_eq!(saw, reported.map(|(_, id)| *id).collect::<Vec<_>>());
    }
}

async fn a_read_is_stopped_after_its_timeout<H: Home>() {
    let home = H::new();
    home.commit(
        "INSERT INTO item SELECT value, hex(randomblob(30)), 1 FROM generate_series(1, 300000)",
    );
    let store = home.store(H::SHORT);
    let topic = home.topic(json!({}));
    let slow = r#"{"params":{"filter":{"name":{"like":"%no such text%"}},"order":"name"}}"#;
    let start = Instant::now();
    let stopped = ask(&store, &topic, slow).await;
    assert!(matches!(stopped, Err(StoreError::Timeout)), "{stopped:?}");
    // Far less than the query takes: it was interrupted, not waited for.
    assert!(
        start.elapsed() < Duration::from_secs(2) + STANDSTILL,
        "{:?}",
        start.elapsed()
    );
    // The connection is as good as before; for one row the time is short, too, on a crowded machine.
    let one = r#"{"id":7}"#;
    let found = wait_until("a row", async || ask(&store, &topic, one).await.ok());
    assert_eq!(ids(&found.await), [7]);
}

async fn waiting_for_a_turn_counts_as_well<H: Home>() {
    let home = H::new();
    home.commit(
        "INSERT INTO item SELECT value, hex(randomblob(30)), 1 FROM generate_series(1, 300000)",
    );
    let store = home.store(H::SHORT);
    let topic = home.topic(json!({}));
    let slow = r#"{"params":{"filter":{"name":{"like":"%no such text%"}},"order":"name"}}"#;
    let start = Instant::now();
    let asked = (0..20).map(|_| ask(&store, &topic, slow));
    for answer in futures_util::future::join_all(asked).await {
        let late = matches!(answer, Err(StoreError::Timeout | StoreError::Busy));
        assert!(late, "{answer:?}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(3) + STANDSTILL,
        "{:?}",
        start.elapsed()
    );
}

async fn a_dropped_query_leaves_room_for_the_next<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'a', 1)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({})));
    for _ in 0..50 {
        tokio::select! {
            biased;
            _ = store.snapshot(topic.clone(), select("{}")) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(found(&store, &topic, "{}").await, [1]);
}

async fn nothing_is_written<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'a', 1)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({ "where": "n = 1" })));
    let before = home.version();
    for what in ["{}", r#"{"id":1}"#, r#"{"params":{"all":true}}"#] {
        ask(&store, &topic, what).await.unwrap();
    }
    store.describe(topic).await.unwrap();
    assert_eq!(home.version(), before);
}

async fn a_table_is_described_and_read_as_it_is_now<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'a', 1)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({})));
    assert_eq!(
        store.describe(topic.clone()).await.unwrap().columns.len(),
        3
    );
    home.commit("ALTER TABLE item ADD COLUMN note TEXT DEFAULT 'new'");
    let table = store.describe(topic.clone()).await.unwrap();
    assert!(table.column("note").is_some());
    let read = ask(&store, &topic, "{}").await.unwrap();
    assert_eq!(rows(&read)[0]["note"], "new");
    home.commit("ALTER TABLE item RENAME TO gone");
    let described = store.describe(topic.clone()).await;
    assert!(matches!(described, Err(StoreError::Gone(_))));
    let read = ask(&store, &topic, "{}").await;
    assert!(matches!(read, Err(StoreError::Gone(_))));
    home.commit("ALTER TABLE gone RENAME TO item");
    assert_eq!(found(&store, &topic, "{}").await, [1]);
}

const JOIN: &str = "SELECT i.id, i.name, k.label AS kind, upper(k.label) AS loud
    FROM item i LEFT JOIN kind k ON k.n = i.n -- and nothing behind it";

const KINDS: &str = "CREATE TABLE kind (n integer PRIMARY KEY, label text);
    INSERT INTO kind VALUES (5, 'five'), (7, 'seven');
    INSERT INTO item VALUES (1, 'c', 5), (2, 'a', NULL), (3, 'b', 5), (4, 'a', 7)";

async fn a_query_is_read_as_a_table_is<H: Home>() {
    let home = H::new();
    home.commit(KINDS);
    let more = json!({ "key": ["id"], "order_by": ["kind desc"], "page_size": 3 });
    let (store, topic) = (home.store(PATIENT), home.joined(JOIN, more));
    for (what, expected) in [
        ("{}", &[4, 1, 3][..]),
        (r#"{"id":3}"#, &[3]),
        (r#"{"id":"3"}"#, &[3]),
        (r#"{"id":9}"#, &[]),
        (r#"{"params":{"size":2,"page":2}}"#, &[3, 2]),
        (r#"{"params":{"all":true,"order":"id"}}"#, &[1, 2, 3, 4]),
        (r#"{"params":{"filter":{"kind":null}}}"#, &[2]),
        (r#"{"params":{"filter":{"loud":"FIVE"}}}"#, &[1, 3]),
        (
            r#"{"params":{"filter":{"kind":{"like":"s%"},"id":{"gt":1}}}}"#,
            &[4],
        ),
    ] {
        assert_eq!(found(&store, &topic, what).await, expected, "{what}");
    }
    let one = ask(&store, &topic, r#"{"id":1}"#).await.unwrap();
    let expected = json!({ "id": 1, "name": "c", "kind": "five", "loud": "FIVE" });
    assert_eq!(rows(&one), [expected]);
    let (mut next, mut walked) = ("{}".to_owned(), Vec::new());
    loop {
        let page = ask(&store, &topic, &next).await.unwrap();
        walked.extend(ids(&page));
        let page = page.page.unwrap();
        assert_eq!(page.total, 4);
        match page.next {
            Some(after) => next = format!(r#"{{"params":{{"after":"{after}"}}}}"#),
            None => break,
        }
    }
    assert_eq!(walked, [4, 1, 3, 2]);
    let topic = home.joined(JOIN, json!({ "key": ["id"], "columns": ["id", "kind"] }));
    let all = ask(&store, &topic, r#"{"params":{"all":true}}"#).await;
    assert_eq!(rows(&all.unwrap())[1], json!({ "id": 2, "kind": null }));
    let refused = ask(&store, &topic, r#"{"params":{"filter":{"name":"a"}}}"#).await;
    assert!(matches!(refused, Err(StoreError::BadParam(_))));
}

async fn a_query_is_described_and_read_as_its_tables_are_now<H: Home>() {
    let home = H::new();
    home.commit(KINDS);
    let query = "SELECT i.*, k.label FROM item i JOIN kind k USING (n)";
    let (store, topic) = (
        home.store(PATIENT),
        home.joined(query, json!({ "key": ["id"] })),
    );
    let columns = store.describe(topic.clone()).await.unwrap().columns;
    assert_eq!(columns.len(), 4);
    assert_eq!(found(&store, &topic, "{}").await, [1, 3, 4]);
    home.commit("ALTER TABLE item ADD COLUMN note TEXT DEFAULT 'new'");
    let read = ask(&store, &topic, "{}").await.unwrap();
    assert_eq!(rows(&read)[0]["note"], "new");
    home.commit("ALTER TABLE kind RENAME TO gone");
    let described = store.describe(topic.clone()).await;
    assert!(
        matches!(described, Err(StoreError::Gone(_))),
        "{described:?}"
    );
    let read = ask(&store, &topic, "{}").await;
    assert!(matches!(read, Err(StoreError::Gone(_))), "{read:?}");
    home.commit("ALTER TABLE gone RENAME TO kind");
    assert_eq!(found(&store, &topic, "{}").await, [1, 3, 4]);
}

async fn a_replaced_database_is_read_and_not_the_one_that_is_gone<H: Home>() {
    let home = H::new();
    home.commit("INSERT INTO item VALUES (1, 'a', 1)");
    let (store, topic) = (home.store(PATIENT), home.topic(json!({})));
    assert_eq!(found(&store, &topic, "{}").await, [1]);
    home.replace();
    home.commit("INSERT INTO item VALUES (2, 'b', 1)");
    assert_eq!(found(&store, &topic, "{}").await, [2]);
}

macro_rules! contract {
    ($backend:ident, $home:ty $(, $more:ident)*) => {
        mod $backend {
            use super::*;
            contract!($home: $($more)*
                a_query_returns_the_rows_asked_for_in_the_order_asked_for
                a_page_knows_its_place_in_the_list
                the_view_and_nothing_else_is_shown
                what_does_not_fit_the_topic_is_the_askers_to_mend
                every_snapshot_is_one_consistent_read
                a_read_is_stopped_after_its_timeout
                waiting_for_a_turn_counts_as_well
                a_dropped_query_leaves_room_for_the_next
                nothing_is_written
                a_table_is_described_and_read_as_it_is_now
                a_query_is_read_as_a_table_is
                a_query_is_described_and_read_as_its_tables_are_now
                a_replaced_database_is_read_and_not_the_one_that_is_gone
            );
        }
    };
    ($home:ty: $($promise:ident)*) => {
        $(#[tokio::test] async fn $promise() { super::$promise::<$home>().await })*
    };
}

contract!(
    sqlite,
    Sqlite,
    a_snapshot_saw_what_the_source_reports_up_to_its_horizon_and_nothing_after
);
contract!(postgres, Postgres);

// === SQLite ===

struct Sqlite {
    folder: tempfile::TempDir,
    observer: Mutex<rusqlite::Connection>,
}

impl Sqlite {
    fn file(&self) -> PathBuf {
        self.folder.path().join("care.db")
    }

    fn connect(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(self.file()).unwrap();
        conn.busy_timeout(crate::support::DEADLINE).unwrap();
        conn
    }
}

const TABLE: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, n INTEGER)";

impl Home for Sqlite {
    type Store = SqliteStore;

    const SHORT: Duration = Duration::from_millis(10);

    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let conn = rusqlite::Connection::open(folder.path().join("care.db")).unwrap();
        conn.execute_batch(TABLE).unwrap();
        let observer = Mutex::new(conn);
        Self { folder, observer }
    }

    fn store(&self, timeout: Duration) -> SqliteStore {
        SqliteStore::new(SqliteStoreConfig {
            path: self.file(),
            connections: 2,
            timeout,
        })
    }

    fn commit(&self, sql: &str) {
        let text = format!("BEGIN IMMEDIATE; {sql}; COMMIT");
        let text = text.replace(
            "generate_series(1, ",
            "(WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s) \
             SELECT value FROM s LIMIT ",
        );
        self.connect().execute_batch(&text).unwrap();
    }

    fn topic(&self, more: Json) -> Arc<Topic> {
        let mut spec = json!({ "type": "item", "table": "item" });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let spec: TopicSpec = serde_json::from_value(spec).unwrap();
        let table = rowcast::sqlite::introspect(&self.connect(), "item").unwrap();
        Arc::new(Topic::resolve(&spec, table.as_ref()).unwrap())
    }

    fn joined(&self, query: &str, more: Json) -> Arc<Topic> {
        let (spec, conn) = (joined(query, more), self.connect());
        let result = rowcast::sqlite::describe_query(&conn, query).unwrap();
        let watched = ["item", "kind"].map(|table| rowcast::sqlite::introspect(&conn, table));
        let watched = watched.map(|table| table.unwrap().unwrap());
        Arc::new(Topic::resolve_query(&spec, &result, &watched).unwrap())
    }

    fn version(&self) -> i64 {
        let observer = self.observer.lock().unwrap();
        let version = observer.query_row("PRAGMA data_version", [], |row| row.get(0));
        version.unwrap()
    }

    fn replace(&self) {
        let draft = self.folder.path().join("draft.db");
        let conn = rusqlite::Connection::open(&draft).unwrap();
        conn.execute_batch(TABLE).unwrap();
        drop(conn);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.file().display()));
        }
        std::fs::rename(draft, self.file()).unwrap();
    }
}

impl Captured for Sqlite {
    type Source = SqliteSource;

    fn source(&self) -> SqliteSource {
        let topic = self.topic(json!({})).as_ref().clone();
        let mut source = SqliteSource::new(SqliteSourceConfig {
            path: self.file(),
            watched: watched(&Topics::new(vec![topic]).unwrap()),
            poll_interval: Duration::from_millis(1),
            changelog_keep: Duration::from_secs(3600),
            changelog_max_rows: 1_000_000,
        });
        source.confirm(None);
        source
    }
}

// === PostgreSQL ===

struct Postgres(Mutex<Database>);

impl Home for Postgres {
    type Store = PostgresStore;

    const SHORT: Duration = Duration::from_millis(150);

    fn new() -> Self {
        let database = database();
        database.sql("CREATE TABLE item (id integer PRIMARY KEY, name text, n integer)");
        Self(Mutex::new(database))
    }

    fn store(&self, timeout: Duration) -> PostgresStore {
        PostgresStore::new(PostgresStoreConfig {
            address: Address::parse(&self.0.lock().unwrap().url()).unwrap(),
            connections: 2,
            timeout,
        })
    }

    fn commit(&self, sql: &str) {
        let series = sql.replace("hex(randomblob(30))", "repeat(md5(value::text), 15)");
        let text = match series.split_once("generate_series") {
            Some((before, series)) => format!("{before}generate_series{series} AS s(value)"),
            None => series,
        };
        self.0.lock().unwrap().sql(&text);
    }

    fn topic(&self, more: Json) -> Arc<Topic> {
        let mut spec = json!({ "type": "item", "table": "item" });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let spec: TopicSpec = serde_json::from_value(spec).unwrap();
        let table = self.0.lock().unwrap().table("item");
        Arc::new(Topic::resolve(&spec, Some(&table)).unwrap())
    }

    fn joined(&self, query: &str, more: Json) -> Arc<Topic> {
        let (spec, database) = (joined(query, more), self.0.lock().unwrap());
        let watched = ["item", "kind"].map(|table| database.table(table));
        let topic = Topic::resolve_query(&spec, &database.result(query), &watched);
        Arc::new(topic.unwrap())
    }

    fn version(&self) -> i64 {
        let rows = "SELECT ('x' || left(md5(string_agg(concat(xmin, ctid, item), ';')), 15))::bit(60)::bigint
            FROM item";
        self.0.lock().unwrap().one(rows).parse().unwrap()
    }

    fn replace(&self) {
        self.0.lock().unwrap().recreate();
        self.commit("CREATE TABLE item (id integer PRIMARY KEY, name text, n integer)");
    }
}
