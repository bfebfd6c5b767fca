//! Direct queries on a real PostgreSQL: every type, every parameter, and a server that is frozen,
//! killed or busy.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rowcast::{
    postgres::Address,
    protocol::{JsonLimits, Request, Select},
    store::{
        Snapshot, Store, StoreError,
        postgres::{PostgresStore, PostgresStoreConfig},
    },
    topic::{Topic, TopicSpec},
};
use serde_json::{Value as Json, json};

use crate::support::{
    Folder, STANDSTILL, in_time,
    postgres::{Cluster, Database, database},
    values::{VALUES, table},
    wait_until,
};

const PATIENT: Duration = Duration::from_secs(20);

fn store(url: &str, connections: usize, timeout: Duration) -> PostgresStore {
    PostgresStore::new(PostgresStoreConfig {
        address: Address::parse(url).unwrap(),
        connections,
        timeout,
    })
}

fn topic(database: &Database, name: &str, more: Json) -> Arc<Topic> {
    let mut spec = json!({ "type": "item", "table": name });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let spec: TopicSpec = serde_json::from_value(spec).unwrap();
    Arc::new(Topic::resolve(&spec, Some(&database.table(name))).unwrap())
}

fn select(params: &Json) -> Select {
    let mut request = params.clone();
    request["type"] = "item".into();
    match Request::parse(&request.to_string(), &JsonLimits::default()).unwrap() {
        Request::Query { select, .. } => select,
        other => panic!("{other:?}"),
    }
}

async fn ask(
    store: &PostgresStore,
    topic: &Arc<Topic>,
    what: &Json,
) -> Result<Snapshot, StoreError> {
    in_time("a snapshot", store.snapshot(topic.clone(), select(what))).await
}

fn text(snapshot: &Snapshot) -> String {
    let mut out = Vec::new();
    snapshot.rows.write_array(&mut out, 0..snapshot.rows.len());
    String::from_utf8(out).unwrap()
}

fn ids(snapshot: &Snapshot) -> Vec<i64> {
    let rows: Vec<Json> = serde_json::from_str(&text(snapshot)).unwrap();
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn every_type_is_told_as_the_document_says() {
    let database = database();
    let (create, insert) = table("every");
    database.sql(&create);
    database.sql(&insert);
    let (store, topic) = (
        store(&database.url(), 1, PATIENT),
        topic(&database, "every", json!({})),
    );
    let read = ask(&store, &topic, &json!({ "id": 1 })).await.unwrap();
    let mut expected = String::from("[{\"id\":1");
    for (n, (.., json)) in VALUES.iter().enumerate() {
        expected += &format!(",\"v{n}\":{json}");
    }
    let (found, expected) = (text(&read), expected + "}]");
    let at = found
        .bytes()
        .zip(expected.bytes())
        .position(|(a, b)| a != b);
    assert_eq!(
        found,
        expected,
        "{:?}",
        at.map(|at| found.get(at.saturating_sub(40)..))
    );
}

#[tokio::test]
async fn a_filter_is_typed_by_its_column_and_what_does_not_fit_is_refused() {
    let database = database();
    database.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE every (id bigint PRIMARY KEY, b boolean, i int, f real, d double precision,
            n numeric(9,2), t text, c char(5), z timestamptz, day date, u uuid, x bytea, m mood,
            a int[], j jsonb, ip inet, o oid);
         INSERT INTO every VALUES (9007199254740993, true, 7, 0.1, 0.1, 1.50, 'O''Neil', 'ab',
            '2026-11-23 02:36:00.5+00', '2026-11-23', '01234567-89ab-cdef-0123-456789abcdef',
            '\\x00ff', 'glad', '{1}', '{}', '10.0.0.1', 4000000000)",
    );
    let (store, topic) = (
        store(&database.url(), 2, PATIENT),
        topic(&database, "every", json!({})),
    );
    for filter in [
        json!({ "b": true }),
        json!({ "b": "true" }),
        json!({ "i": 7 }),
        json!({ "i": "7" }),
        json!({ "i": { "lt": 99_999_999_999_i64 } }),
        json!({ "id": "9007199254740993" }),
        json!({ "f": 0.1 }),
        json!({ "d": { "lte": 0.1, "gt": -1 } }),
        json!({ "d": { "lt": "Infinity" } }),
        json!({ "n": "1.5" }),
        json!({ "n": 1.5 }),
        json!({ "t": "O'Neil" }),
        json!({ "t": { "like": "O'%" } }),
        json!({ "t": { "like": "_'N%\\" , "ne": "x" }, "i": [1, 7] }),
        json!({ "c": "ab" }),
        json!({ "z": "2026-11-23T02:36:00.5Z" }),
        json!({ "z": { "gt": "2026-11-23", "lt": "2026-11-24T00:00:00+01:00" } }),
        json!({ "day": "2026-11-23" }),
        json!({ "u": "01234567-89AB-CDEF-0123-456789ABCDEF" }),
        json!({ "x": "\\x00ff" }),
        json!({ "m": "glad" }),
        json!({ "m": ["sad", null, "glad"] }),
        json!({ "ip": "10.0.0.1" }),
        json!({ "o": 4_000_000_000_u32 }),
        json!({ "j": { "ne": null } }),
    ] {
        let found = ask(&store, &topic, &json!({ "params": { "filter": filter } })).await;
        let expected = if filter["t"]["like"] == "_'N%\\" {
            0
        } else {
            1
        };
        assert_eq!(found.unwrap().rows.len(), expected, "{filter}");
    }
    for filter in [
        json!({ "b": "maybe" }),
        json!({ "b": 2 }),
        json!({ "i": "seven" }),
        json!({ "i": 7.5 }),
        json!({ "i": "9223372036854775808" }),
        json!({ "f": "0x1" }),
        json!({ "f": 1e300 }),
        json!({ "n": "one" }),
        json!({ "z": "yesterdayish" }),
        json!({ "z": "2026-02-30" }),
        json!({ "z": 5 }),
        json!({ "day": "2026-13-01" }),
        json!({ "u": "0123" }),
        json!({ "x": "00ff" }),
        json!({ "m": "angry" }),
        json!({ "a": "{1}" }),
        json!({ "j": "{}" }),
        json!({ "ip": "10.0.0" , "i": 7}),
        json!({ "o": -1 }),
    ] {
        let found = ask(&store, &topic, &json!({ "params": { "filter": filter } })).await;
        assert!(
            matches!(found, Err(StoreError::BadParam(_))),
            "{filter}: {found:?}"
        );
    }
    for what in [
        json!({ "id": "x" }),
        json!({ "id": { "t": 1 } }),
        json!({ "params": { "order": "j" } }),
        json!({ "params": { "order": "a desc" } }),
    ] {
        let found = ask(&store, &topic, &what).await;
        assert!(
            matches!(found, Err(StoreError::BadParam(_))),
            "{what}: {found:?}"
        );
    }
}

#[tokio::test]
async fn pages_follow_one_another_whatever_the_order() {
    let database = database();
    database.sql(
        "CREATE TABLE item (id int, u uuid DEFAULT gen_random_uuid(), t text, z timestamptz,
            f real, d double precision, n numeric, b boolean, c char(4), x bytea, PRIMARY KEY (id, u));
         INSERT INTO item SELECT i, gen_random_uuid(),
            CASE WHEN i % 3 > 0 THEN (ARRAY['a', 'B', 'ä', 'Z', 'z ', ''])[i % 6 + 1] END,
            CASE WHEN i % 4 > 0 THEN timestamptz '2026-11-23' + i % 5 * interval '0.3 s' END,
            CASE WHEN i % 5 > 0 THEN (ARRAY[0.1, 'NaN', '-Infinity', 3])[i % 4 + 1]::real END,
            CASE WHEN i % 5 > 0 THEN (ARRAY['0.1', 'NaN', '-0', '1e300'])[i % 4 + 1]::float8 END,
            CASE WHEN i % 2 > 0 THEN (ARRAY['1.50', '1.5', 'NaN'])[i % 3 + 1]::numeric END,
            CASE WHEN i % 7 > 1 THEN i % 2 = 0 END, CASE WHEN i % 7 > 1 THEN (i % 3)::text END,
            CASE WHEN i % 3 > 1 THEN decode(md5((i % 4)::text), 'hex') END
         FROM generate_series(1, 40) i",
    );
    let (store, topic) = (
        store(&database.url(), 2, PATIENT),
        topic(&database, "item", json!({})),
    );
    for column in ["t", "z", "f", "d", "n", "b", "c", "x", "u"] {
        for order in [column.to_owned(), format!("{column} desc")] {
            let all = json!({ "params": { "all": true, "order": order } });
            let all = ids(&ask(&store, &topic, &all).await.unwrap());
            let mut what = json!({ "params": { "size": 7, "order": order } });
            let mut paged = Vec::new();
            loop {
                let read = ask(&store, &topic, &what).await.unwrap();
                paged.extend(ids(&read));
                let page = read.page.unwrap();
                assert_eq!(page.total, 40);
                let Some(next) = page.next else { break };
                what = json!({ "params": { "after": next } });
            }
            assert_eq!(paged, all, "{order}");
        }
    }
}

#[tokio::test]
async fn the_session_can_only_read() {
    let database = database();
    database.sql(
        "CREATE TABLE item (id int PRIMARY KEY);
         CREATE FUNCTION leave(int) RETURNS boolean LANGUAGE sql AS
            'INSERT INTO item VALUES ($1) RETURNING true';
         CREATE VIEW v AS SELECT 1",
    );
    let address = Address::parse(&database.url()).unwrap();
    let reading = ["default_transaction_read_only=on"];
    let connected = rowcast::postgres::connect(&address, PATIENT, &reading).await;
    let refused = connected
        .unwrap()
        .client
        .execute("SELECT leave(1)", &[])
        .await;
    let told = rowcast::postgres::told(&refused.unwrap_err());
    assert!(told.contains("read-only transaction"), "{told}");
}

/// Fault F41: frozen, killed, and every session taken.
#[tokio::test]
async fn a_server_that_does_not_answer_is_told_in_time_and_read_again_when_it_does() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    database.sql("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)");
    let topic = topic(&database, "item", json!({}));
    let store = store(&database.url(), 2, Duration::from_secs(3));
    let all = json!({});
    assert_eq!(ids(&ask(&store, &topic, &all).await.unwrap()), [1]);

    for fault in [Cluster::freeze, Cluster::kill] {
        fault(&cluster);
        // More than there are sessions, so that some wait for their turn in vain.
        let start = Instant::now();
        let asked = (0..8).map(|_| ask(&store, &topic, &all));
        for answer in futures_util::future::join_all(asked).await {
            let told = matches!(
                answer,
                Err(StoreError::Timeout | StoreError::Unavailable(_))
            );
            assert!(told, "{answer:?}");
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(7) + STANDSTILL, "{took:?}");
        match cluster.is_running() {
            true => cluster.thaw(),
            false => cluster.start(),
        }
        let recovered = wait_until("the store to recover", || async {
            ask(&store, &topic, &all).await.ok()
        });
        assert_eq!(ids(&recovered.await), [1]);
        assert!(store.describe(topic.clone()).await.is_ok());
    }

    // A restart while nobody asks is not even noticed.
    cluster.stop();
    cluster.start();
    assert_eq!(ids(&ask(&store, &topic, &all).await.unwrap()), [1]);

    // Somebody's lock keeps every session busy.
    database.sql("BEGIN; LOCK item IN ACCESS EXCLUSIVE MODE");
    let start = Instant::now();
    let asked = (0..6).map(|_| ask(&store, &topic, &all));
    for answer in futures_util::future::join_all(asked).await {
        let late = matches!(answer, Err(StoreError::Timeout | StoreError::Busy));
        assert!(late, "{answer:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(7) + STANDSTILL);
    database.sql("ROLLBACK");
    assert_eq!(ids(&ask(&store, &topic, &all).await.unwrap()), [1]);
}

#[test]
fn init_writes_a_topic_for_every_table_and_no_password() {
    let database = database();
    database.sql(
        "CREATE TABLE patient (id int PRIMARY KEY, name text, password text);
         CREATE SCHEMA care; CREATE TABLE care.ward (id int PRIMARY KEY);
         CREATE TABLE auth_user (id int PRIMARY KEY); CREATE TABLE log (line text);
         CREATE VIEW everything AS SELECT * FROM patient",
    );
    let url = database.url().replace("postgres@", "postgres:canary@");
    let folder = Folder::new();
    let ran = folder.run(&["init", "--database", &url]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = std::fs::read_to_string(folder.path("rowcast.toml")).unwrap();
    assert!(!text.contains("canary"), "{text}");
    assert!(
        text.contains(&format!("url = \"{}\"", database.url())),
        "{text}"
    );
    for line in [
        "type = \"patient\"",
        "table = \"public.patient\"",
        "columns = [\"id\", \"name\"]",
        "type = \"care_ward\"",
        "table = \"care.ward\"",
        "## \"public.auth_user\" is left out: \"auth\" in a name looks private",
        "#table = \"public.log\"",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("everything"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waited_for_a_table_sees_what_was_done_to_it_meanwhile() {
    let database = database();
    database.sql("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)");
    let store = store(&database.url(), 1, PATIENT);
    // A snapshot from before would show an empty table: neither is MVCC.
    for (change, found) in [
        ("TRUNCATE item; INSERT INTO item VALUES (2)", [2]),
        ("ALTER TABLE item ALTER COLUMN id TYPE bigint", [2]),
    ] {
        let topic = topic(&database, "item", json!({}));
        ask(&store, &topic, &json!({})).await.unwrap();
        database.sql(&format!("BEGIN; {change}"));
        let reader = store.clone();
        let read = tokio::spawn(async move { ask(&reader, &topic, &json!({})).await.unwrap() });
        wait_until("the read to wait", async || {
            let waiting = "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
                WHERE NOT granted AND datname = current_database()";
            (database.one(waiting) == "1").then_some(())
        })
        .await;
        database.sql("COMMIT");
        assert_eq!(ids(&read.await.unwrap()), found, "{change}");
    }
}
