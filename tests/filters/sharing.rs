//! What many sockets ask of one frame is made once, and counted.

use std::{sync::Arc, time::Duration};

use rowcast::{
    event::{Body, ChangeData, Delivery, Event, Op, raw},
    metrics::{Health, Metrics},
    position::{Epoch, Position},
    predicate::{Judges, Verdict},
    protocol::{Condition, Test},
    query::{self, QueryLimits},
    ring::{Frame, Ring},
    row::Value,
    session::Filters,
    sqlite::{self, Mode},
    store::sqlite::{SqliteStore, SqliteStoreConfig},
    topic::Topic,
};
use serde_json::json;

fn at(offset: u64) -> Position {
    Position::new(Epoch::parse("e").unwrap(), offset)
}

fn frame(offset: u64, op: Op) -> Frame {
    let data = ChangeData {
        key: (op == Op::Update).then(|| raw(&json!({ "id": 1 }))),
        row: (op == Op::Update).then(|| raw(&json!({ "id": 1, "a": 5, "b": "x".repeat(1000) }))),
        old: (op == Op::Update).then(|| raw(&json!({ "id": 1, "a": 4, "b": "y".repeat(1000) }))),
        ..ChangeData::whole(op)
    };
    let checkpoint = format!("s:{offset:x}.0").parse().unwrap();
    let event = Event {
        id: String::new(),
        source: String::new(),
        topic: "t".into(),
        subject: None,
        at_ms: 0,
        tx: None,
        xid: Some(offset),
        body: Body::Change { checkpoint, data },
    };
    Frame::of(&Delivery {
        position: at(offset),
        event: Some(event),
    })
}

fn filter(column: &str, value: i64) -> Vec<Condition> {
    vec![Condition {
        column: column.into(),
        test: Test::Eq(Value::Integer(value)),
    }]
}

/// A topic on a table of a database of its own, and the filters of a gateway that reads it.
async fn filters(folder: &tempfile::TempDir) -> (Arc<Topic>, rusqlite::Connection, Ring, Filters) {
    let path = folder.path().join("t.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)")
        .unwrap();
    let table = sqlite::introspect(&sqlite::open(&path, Mode::Read).unwrap(), "t");
    let spec = serde_json::from_value(json!({ "type": "t", "table": "t" })).unwrap();
    let topic = Arc::new(Topic::resolve(&spec, Some(&table.unwrap().unwrap())).unwrap());
    let timeout = Duration::from_secs(20);
    let store = SqliteStore::new(SqliteStoreConfig {
        path: path.clone(),
        connections: 1,
        timeout,
    });
    let limits = QueryLimits {
        timeout,
        waiting: 10,
        requests: 10,
        connections: 1,
    };
    let (queries, inbox) = query::channel(limits, Metrics::default());
    tokio::spawn(query::run(
        store,
        inbox,
        Health::default(),
        Metrics::default(),
    ));
    let ring = Ring::new(at(0), 1 << 20);
    let filters = Filters::new(ring.clone(), queries);
    (topic, conn, ring, filters)
}

/// A session that has come to a row that it cannot judge waits for that, and asks for nothing itself.
#[tokio::test]
async fn whoever_has_a_table_described_wakes_those_who_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, _conn, ring, filters) = filters(&folder).await;
    let mut woken = ring.watch();
    assert!(!woken.has_changed().unwrap());
    filters.compile(&topic, filter("a", 5)).await.unwrap();
    assert!(woken.has_changed().unwrap());
    woken.mark_unchanged();
    // It is known now: nobody waits.
    filters.compile(&topic, filter("b", 5)).await.unwrap();
    assert!(!woken.has_changed().unwrap());
    // Until it may be another one.
    ring.append(vec![frame(1, Op::Reload)], None);
    woken.mark_unchanged();
    filters.compile(&topic, filter("a", 5)).await.unwrap();
    assert!(woken.has_changed().unwrap());
    // One who has it described for a policy does the same, and where it cannot be nobody is woken for nothing.
    ring.restart(at(9));
    woken.mark_unchanged();
    std::fs::rename(folder.path().join("t.db"), folder.path().join("away")).unwrap();
    assert!(filters.compile(&topic, filter("a", 5)).await.is_err());
    assert!(!woken.has_changed().unwrap());
    std::fs::rename(folder.path().join("away"), folder.path().join("t.db")).unwrap();
    filters.compile(&topic, filter("a", 5)).await.unwrap();
    assert!(woken.has_changed().unwrap());
}

#[tokio::test]
async fn equal_filters_are_one_until_the_table_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, conn, ring, filters) = filters(&folder).await;
    let first = filters.compile(&topic, filter("a", 5)).await.unwrap();
    assert!(Arc::ptr_eq(
        &first,
        &filters.compile(&topic, filter("a", 5)).await.unwrap()
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &filters.compile(&topic, filter("a", 6)).await.unwrap()
    ));
    conn.execute_batch("ALTER TABLE t ADD COLUMN c").unwrap();
    // The database is asked again only when the stream says that the table is another.
    assert!(filters.compile(&topic, filter("c", 5)).await.is_err());
    ring.append(vec![frame(1, Op::Reload)], None);
    filters.compile(&topic, filter("c", 5)).await.unwrap();
    assert!(!Arc::ptr_eq(
        &first,
        &filters.compile(&topic, filter("a", 5)).await.unwrap()
    ));
    // A ring that begins again may have left out a reload.
    conn.execute_batch("ALTER TABLE t ADD COLUMN d").unwrap();
    assert!(filters.compile(&topic, filter("d", 5)).await.is_err());
    ring.restart(at(9));
    filters.compile(&topic, filter("d", 5)).await.unwrap();
}

#[tokio::test]
async fn every_form_of_a_frame_is_made_once_and_counted_while_it_is_held() {
    let table = super::views::table_of_three();
    let spec = serde_json::from_value(json!({ "type": "t", "table": "t" })).unwrap();
    let topic = Topic::resolve(&spec, Some(&table)).unwrap();
    let view = topic.view.as_ref().unwrap();
    let of = |value| {
        rowcast::predicate::Predicate::of_filter(&filter("a", value), view, &table).unwrap()
    };
    let ring = Ring::new(at(0), 1 << 20);
    ring.append(vec![frame(1, Op::Update)], None);
    let before = ring.size().1;
    assert!(before > 2000, "the row before is held, too: {before}");
    let held = ring.read(0, u64::MAX, 1).unwrap().remove(0);
    for (value, expected) in [
        (5, Verdict::Insert),
        (4, Verdict::Delete),
        (3, Verdict::Nothing),
    ] {
        let verdict = held.judged(Judges::filter(&of(value)), &table);
        assert_eq!(verdict, expected);
        let forms = [held.form(verdict, None), held.form(verdict, None)];
        let places = forms.map(|form| form.map(|form| form.as_ptr()));
        assert_eq!(places[0], places[1]);
    }
    let text = held.form(Verdict::Delete, None).unwrap();
    assert!(text.starts_with(br#"{"type":"t","op":"delete","key":{"id":1},"data":null,"#));
    assert!(
        !String::from_utf8_lossy(&text).contains("yyy"),
        "the row before is never sent"
    );
    let made = ring.size().1;
    assert!(
        made > before + 3000,
        "two texts and the images: {before} → {made}"
    );
    held.form(Verdict::Insert, None).unwrap();
    held.judged(Judges::filter(&of(7)), &table);
    assert_eq!(ring.size().1, made);
    // What is made counts against what the ring may hold, until it is let go.
    let small = Ring::new(at(0), before * 2);
    small.append(vec![frame(1, Op::Update)], None);
    let held = small.read(0, u64::MAX, 1).unwrap().remove(0);
    held.form(held.judged(Judges::filter(&of(5)), &table), None)
        .unwrap();
    small.append(vec![frame(2, Op::Update)], None);
    assert_eq!(small.size().0, 1);
    drop(held);
    assert_eq!(small.size().1, before);
}
