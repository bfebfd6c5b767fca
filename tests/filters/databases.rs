//! Every test of a filter on columns of every kind, with values at the edges: the rows that the
//! filter holds for, judged on their JSON as a frame has it, are those that the query returns.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rowcast::{
    postgres::Address,
    predicate::{BadFilter, Predicate, image},
    protocol::{Params, Select},
    row::Row,
    sqlite::{self, Mode},
    store::{
        Store, StoreError,
        postgres::{PostgresStore, PostgresStoreConfig},
        sqlite::{SqliteStore, SqliteStoreConfig},
    },
    topic::{Table, Topic},
};
use serde_json::{Map, Value as Json, json};

use crate::{
    predicate_postgres::{COLUMNS, fill},
    support::{in_time, postgres::database},
};

const PATIENT: Duration = Duration::from_secs(20);

struct Bench<S> {
    store: S,
    topic: Arc<Topic>,
    table: Arc<Table>,
    rows: Vec<(i64, Row)>,
}

fn all(filter: &Json) -> Select {
    let params = json!({ "all": true, "filter": filter });
    Select::read(params.as_object().unwrap()).unwrap()
}

async fn read<S: Store>(
    bench: &Bench<S>,
    filter: &Json,
) -> Result<Vec<Map<String, Json>>, StoreError> {
    let found = in_time(
        "a query",
        bench.store.snapshot(bench.topic.clone(), all(filter)),
    )
    .await?;
    let mut out = Vec::new();
    found.rows.write_array(&mut out, 0..found.rows.len());
    Ok(serde_json::from_slice(&out).unwrap())
}

impl<S: Store> Bench<S> {
    async fn new(store: S, table: Table) -> Self {
        let spec = serde_json::from_value(json!({ "type": "t", "table": "t" })).unwrap();
        let topic = Arc::new(Topic::resolve(&spec, Some(&table)).unwrap());
        let table = Arc::new(table);
        let mut bench = Self {
            store,
            topic,
            table,
            rows: Vec::new(),
        };
        let rows = read(&bench, &json!({})).await.unwrap();
        let id = |row: &Map<String, Json>| row["id"].as_i64().unwrap();
        bench.rows = rows
            .iter()
            .map(|row| (id(row), image(&bench.table, row)))
            .collect();
        assert!(bench.rows.len() > 10);
        bench
    }

    /// Whether the filter can be judged; then it must be as the database judges it.
    async fn check(&self, filter: Json) -> Result<(), BadFilter> {
        let Select::All(Params {
            filter: conditions, ..
        }) = all(&filter)
        else {
            panic!("{filter}")
        };
        let view = self.topic.view.as_ref().unwrap();
        let predicate = Predicate::of_filter(&conditions, view, &self.table)?;
        let rows = read(self, &filter).await;
        let rows = rows.unwrap_or_else(|err| panic!("{filter} is refused by the query: {err}"));
        let theirs: BTreeSet<i64> = rows.iter().map(|row| row["id"].as_i64().unwrap()).collect();
        let ours = self.rows.iter().filter(|(_, row)| predicate.holds(row));
        let ours: BTreeSet<i64> = ours.map(|(id, _)| *id).collect();
        let differ: Vec<_> = ours.symmetric_difference(&theirs).collect();
        let row = differ
            .first()
            .and_then(|id| self.rows.iter().find(|(other, _)| other == *id));
        assert!(differ.is_empty(), "{filter}: not alike on {row:?}");
        Ok(())
    }

    /// The same on a topic that shows one column beside the key.
    fn of(&self, column: &str) -> Self
    where
        S: Clone,
    {
        let spec = json!({ "type": "t", "table": "t", "columns": ["id", column] });
        let topic = Topic::resolve(&serde_json::from_value(spec).unwrap(), Some(&self.table));
        Self {
            store: self.store.clone(),
            topic: Arc::new(topic.unwrap()),
            table: self.table.clone(),
            rows: self.rows.clone(),
        }
    }

    /// Every test of a column with these values; returns how many could be judged.
    async fn sweep(&self, column: &str, values: &[Json], patterns: &[&str]) -> usize {
        let mut judged = 0;
        for (index, value) in values.iter().enumerate() {
            let next = &values[(index + 1) % values.len()];
            let mut tests = vec![json!(value), json!({ "ne": value })];
            tests.push(json!([
                value,
                next,
                if index % 3 == 0 { &Json::Null } else { next }
            ]));
            let ordered = [["lt", "gte"], ["lte", "gt"]];
            if !value.is_null() {
                tests.extend(ordered[index % 2].map(|test| json!({ test: value })));
            }
            if index == 0 {
                tests.push(json!([]));
            }
            for test in tests {
                judged += usize::from(self.check(json!({ column: test })).await.is_ok());
            }
        }
        for pattern in patterns {
            let like = json!({ column: { "like": pattern } });
            judged += usize::from(self.check(like).await.is_ok());
        }
        judged
    }
}

const SQLITE: &str = "
    CREATE TABLE t (id INTEGER PRIMARY KEY, i INTEGER, t TEXT, tn TEXT COLLATE NOCASE,
        tr TEXT COLLATE RTRIM, r REAL, n NUMERIC, b BLOB, u);
    WITH texts(n, v) AS (VALUES (0, NULL), (1, ''), (2, 'a'), (3, 'A'), (4, 'ab '), (5, 'ä'),
        (6, 'Ä'), (7, '3'), (8, '3.0'), (9, 'a%b'), (10, 'a_b'), (11, '王秀英'), (12, '1e2'),
        (13, '9007199254740993'), (14, 'a\\b'), (15, 'Infinity'), (16, x'61' || 'B')),
    numbers(n, v) AS (VALUES (0, NULL), (1, 0), (2, 1), (3, -1), (4, 2.5), (5, 3), (6, 3.0),
        (7, 9007199254740993), (8, -9223372036854775808), (9, 1e300), (10, 'x'), (11, x'00ff'),
        (12, 9e999), (13, 100), (14, -9e999), (15, 0.1), (16, 1))
    INSERT INTO t SELECT t.n, numbers.v, t.v, t.v, t.v, numbers.v, numbers.v,
        CASE WHEN t.n % 2 THEN numbers.v ELSE x'00' END,
        CASE WHEN t.n IN (9, 10, 11, 14) THEN t.v ELSE numbers.v END
        FROM texts t JOIN numbers USING (n);
    UPDATE t SET u = 7.0 WHERE u = 9e999; UPDATE t SET u = -7.0 WHERE u = -9e999;
    UPDATE t SET b = 7.0 WHERE b = 9e999; UPDATE t SET b = -7.0 WHERE b = -9e999;";

#[tokio::test]
async fn filters_hold_for_the_rows_that_sqlite_selects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(SQLITE).unwrap();
    let table = sqlite::introspect(&sqlite::open(&path, Mode::Read).unwrap(), "t");
    let store = SqliteStore::new(SqliteStoreConfig {
        path,
        connections: 1,
        timeout: PATIENT,
    });
    let bench = Bench::new(store, table.unwrap().unwrap()).await;
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(-1),
        json!(2.5),
        json!(3),
        json!(3.0),
        json!(100),
        json!(true),
        json!(9_007_199_254_740_993_i64),
        json!(i64::MIN),
        json!(1e300),
        json!(""),
        json!("a"),
        json!("AB"),
        json!("ab"),
        json!("ä"),
        json!("3"),
        json!(" 3.0"),
        json!("3.0"),
        json!("x"),
        json!("王秀英"),
        json!("1e2"),
        json!("9007199254740993"),
        json!("\\x00ff"),
        json!("\\x00"),
        json!("Infinity"),
    ];
    let patterns = [
        "%", "_", "a%", "A%", "%B", "a_b", "ä", "Ä%", "a\\%b", "王_英", "", "%3%", "a\0b",
    ];
    for column in ["i", "t", "tn", "tr", "r", "n", "b", "u"] {
        let judged = bench.of(column).sweep(column, &values, &patterns).await;
        let like = if column.starts_with('t') {
            patterns.len()
        } else {
            0
        };
        assert!(judged >= values.len() * 4 + like, "{column}: {judged}");
    }
    let both = json!({ "i": { "gte": 0, "ne": 3 }, "t": { "like": "%a%" }, "r": [null, 1, 2.5] });
    bench.check(both).await.unwrap();
    bench.check(json!({})).await.unwrap();
    assert_eq!(
        bench.check(json!({ "i": { "like": "3" } })).await,
        Err(BadFilter::Test)
    );
    assert_eq!(
        bench.check(json!({ "t": 2.5 })).await,
        Err(BadFilter::Value)
    );
    assert_eq!(
        bench.check(json!({ "none": 1 })).await,
        Err(BadFilter::Column)
    );
}

/// The values of a column, and the literals of conditions, as a client would send them.
fn of_postgres(values: &str, more: &str) -> Vec<Json> {
    let texts = values
        .split('|')
        .chain(more.split('|').filter(|text| !text.is_empty()));
    let mut found = vec![json!(null)];
    for text in texts {
        let plain = text
            .trim_start_matches('X')
            .trim_matches('\'')
            .replace("''", "'");
        let bytes = text.starts_with("X'");
        found.push(if bytes {
            format!("\\x{plain}").into()
        } else {
            plain.clone().into()
        });
        let read = serde_json::from_str(&plain.to_lowercase());
        if let Ok(json @ (Json::Number(_) | Json::Bool(_))) = read {
            found.push(json);
        }
    }
    found.dedup();
    found
}

#[tokio::test]
async fn filters_hold_for_the_rows_that_postgres_selects() {
    let database = database();
    fill(&database);
    let store = PostgresStore::new(PostgresStoreConfig {
        address: Address::parse(&database.url()).unwrap(),
        connections: 1,
        timeout: PATIENT,
    });
    let bench = Bench::new(store, database.table("t")).await;
    let patterns = [
        "%", "_", "a%", "A%", "%b", "a_", "ä", "\\", "王", "%7%", "t%", "sad", "%@b", "",
    ];
    for (name, _, values, more) in COLUMNS {
        let judged = bench
            .sweep(name, &of_postgres(values, more), &patterns)
            .await;
        // No text is compared with these.
        let least = if matches!(*name, "j" | "p" | "l") {
            0
        } else {
            values.split('|').count() * 2
        };
        assert!(judged >= least, "{name}: {judged}");
    }
    for (filter, expected) in [
        (json!({ "t": { "like": "a%" } }), Ok(())),
        (json!({ "c": { "like": "a" } }), Ok(())),
        (json!({ "i": { "like": "-%" } }), Ok(())),
        (json!({ "e": { "like": "%a%" } }), Ok(())),
        (json!({ "u": { "like": "0%" } }), Ok(())),
        (json!({ "n": { "like": "1%" } }), Err(BadFilter::Test)),
        (json!({ "z": { "like": "2026%" } }), Err(BadFilter::Test)),
        (json!({ "t": { "lt": "b" } }), Err(BadFilter::Test)),
        (json!({ "tc": { "lt": "b" } }), Ok(())),
        (json!({ "e": { "gt": "sad" } }), Err(BadFilter::Test)),
        (json!({ "e": "angry" }), Err(BadFilter::Value)),
        (json!({ "i": "x" }), Err(BadFilter::Value)),
        (json!({ "z": "yesterday" }), Err(BadFilter::Value)),
        // JSON's null is not NULL, and looks like it; a row of NULLs is, and does not.
        (json!({ "j": null }), Err(BadFilter::Test)),
        (json!({ "l": null }), Ok(())),
        (json!({ "p": { "ne": null } }), Err(BadFilter::Test)),
        (
            json!({ "b": true, "i": { "gte": 0 }, "t": ["a", "A", null] }),
            Ok(()),
        ),
    ] {
        assert_eq!(bench.check(filter.clone()).await, expected, "{filter}");
    }
}
