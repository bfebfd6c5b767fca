//! Whatever another program commits reaches the client, and no program ever fails because of us.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use crate::support::{
    Follower, Server,
    follower::{BEAT, brief, read, serve, topics},
    python, sqlite3, wait_for,
};

const PEOPLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, age INTEGER DEFAULT 80);
    INSERT INTO t (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c');";

const UNIQUE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, bed TEXT UNIQUE, n INTEGER);
    INSERT INTO t VALUES (1, 'x', 0), (2, 'y', 0), (3, 'z', 0);";

const UNIQUE_INDEX: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, bed TEXT, n INTEGER);
    CREATE UNIQUE INDEX beds ON t (bed);
    INSERT INTO t VALUES (1, 'x', 0), (2, 'y', 0), (3, 'z', 0);";

/// Runs statements on a table `t` made by `sql`, one after the other and all in one transaction,
/// and holds the client against the table each time. Returns the events of the single steps.
async fn act(sql: &str, key: &[&str], steps: &[&str]) -> Vec<Vec<Json>> {
    let server = serve(sql, "");
    let mut follower = Follower::of(&server, "t", key).await;
    let mut events = Vec::new();
    for step in steps {
        events.push(follower.after(&[step]).await);
        follower.agrees_with(&server.database());
    }
    let server = serve(sql, "");
    let mut follower = Follower::of(&server, "t", key).await;
    let mut all = vec!["BEGIN"];
    all.extend(steps);
    all.push("COMMIT");
    follower.after(&all).await;
    follower.agrees_with(&server.database());
    events
}

#[tokio::test]
async fn inserts_updates_and_deletes_of_any_program_arrive_with_the_row() {
    let events = act(
        PEOPLE,
        &["id"],
        &[
            "INSERT INTO t (id, name) VALUES (4, 'd'), (5, 'e')",
            "UPDATE t SET age = age + 1 WHERE id < 3",
            "DELETE FROM t WHERE id = 3",
            "INSERT INTO t (id, name) VALUES (1, 'up') ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            "INSERT OR IGNORE INTO t (id, name) VALUES (1, 'ignored'), (6, 'f')",
            "REPLACE INTO t (id, name) VALUES (2, 'again')",
            "UPDATE t SET id = 9 WHERE id = 1",
            "UPDATE t SET name = name WHERE id = 2",
            "DELETE FROM t",
        ],
    )
    .await;
    let briefs: Vec<Vec<String>> = events.iter().map(|events| brief(events)).collect();
    assert_eq!(briefs[0], ["insert 4", "insert 5"]);
    assert_eq!(briefs[1], ["update 1", "update 2"]);
    assert_eq!(briefs[2], ["delete 3"]);
    assert_eq!(briefs[3], ["update 1"]);
    assert_eq!(briefs[4], ["insert 6"]);
    assert_eq!(briefs[5], ["insert 2"], "a REPLACE is an insert of the row");
    assert_eq!(briefs[6], ["update 1 -> 9"]);
    assert_eq!(
        briefs[7],
        ["update 2"],
        "what alters nothing is pushed all the same"
    );
    assert_eq!(briefs[8].len(), 5);
    assert_eq!(
        events[0][0]["data"],
        json!({"id": 4, "name": "d", "age": 80})
    );
    assert_eq!(events[2][0]["data"], Json::Null);
    assert_eq!(events[6][0]["old_key"], json!({"id": 1}));
}

#[tokio::test]
async fn keys_that_change_and_change_places_leave_every_client_right() {
    act(
        PEOPLE,
        &["id"],
        &[
            "UPDATE t SET id = id + 10",
            "UPDATE t SET id = -1 WHERE id = 11",
            "UPDATE t SET id = 11 WHERE id = 12",
            "UPDATE t SET id = 12 WHERE id = -1",
            "UPDATE t SET id = 20, name = 'moved' WHERE id = 12",
            "UPDATE t SET name = 'after' WHERE id = 20",
            "UPDATE t SET id = 21 WHERE id = 20",
            "INSERT INTO t (id, name) VALUES (20, 'new tenant')",
            "UPDATE OR REPLACE t SET id = 20 WHERE id = 21",
            "DELETE FROM t WHERE id = 20",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_row_that_replace_displaces_is_deleted_at_every_client() {
    for table in [UNIQUE, UNIQUE_INDEX] {
        let events = act(
            table,
            &["id"],
            &[
                "INSERT OR REPLACE INTO t VALUES (4, 'x', 1)",
                "UPDATE OR REPLACE t SET bed = 'y' WHERE id = 3",
                "UPDATE t SET n = n + 1 WHERE id = 4",
                "INSERT OR REPLACE INTO t VALUES (5, 'x', 2)",
                "INSERT OR REPLACE INTO t VALUES (3, 'x', 3)",
                "INSERT INTO t VALUES (6, 'w', 0), (7, 'v', 0)",
                "INSERT OR REPLACE INTO t VALUES (6, 'v', 0)",
                "INSERT INTO t VALUES (7, 'w', 9)",
            ],
        )
        .await;
        let mut first = brief(&events[0]);
        first.sort();
        assert_eq!(first, ["delete 1", "insert 4"]);
        let mut second = brief(&events[1]);
        second.sort();
        assert_eq!(second, ["delete 2", "update 3"]);
    }
}

#[tokio::test]
async fn a_row_displaced_by_another_spelling_of_its_key_is_deleted_too() {
    let table = "CREATE TABLE t (code TEXT COLLATE NOCASE PRIMARY KEY, n) WITHOUT ROWID;
        INSERT INTO t VALUES ('a', 1), ('b', 2)";
    act(
        table,
        &["code"],
        &[
            "REPLACE INTO t VALUES ('A', 3)",
            "UPDATE t SET code = 'B' WHERE code = 'b'",
            "UPDATE t SET n = 5 WHERE code = 'b'",
            "DELETE FROM t WHERE code = 'a'",
        ],
    )
    .await;
    let table =
        "CREATE TABLE t (code TEXT COLLATE NOCASE PRIMARY KEY, n); INSERT INTO t VALUES ('a', 1)";
    act(table, &["code"], &["REPLACE INTO t VALUES ('A', 3)"]).await;
}

#[tokio::test]
async fn a_query_after_a_displacement_is_answered_at_its_place() {
    let server = serve(UNIQUE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    follower
        .writer
        .run(&["INSERT OR REPLACE INTO t VALUES (9, 'x', 1)"]);
    let deleted = |frame: &Json| frame["op"] == "delete" && frame["key"]["id"] == 1;
    follower
        .socket
        .next_where("the displaced row to go", deleted)
        .await;
    let answer = follower
        .socket
        .ask(json!({"type": "t", "rid": 1, "id": 9}))
        .await;
    assert_eq!(
        answer["data"],
        json!([{"id": 9, "bed": "x", "n": 1}]),
        "{answer}"
    );
    assert_eq!(answer["exact"], Json::Null);
    // A key that moved onto one that lives on is two events: the second must not be behind the reply.
    follower.writer.run(&[
        "BEGIN",
        "UPDATE t SET id = 30 WHERE id = 3",
        "INSERT INTO t VALUES (3, 'q', 0)",
        "UPDATE t SET id = 31 WHERE id = 30",
        "UPDATE t SET id = 30 WHERE id = 31",
        "COMMIT",
    ]);
    follower.sync().await;
    let answer = follower
        .socket
        .ask(json!({"type": "t", "rid": 2, "id": 30}))
        .await;
    assert_eq!(answer["data"][0]["bed"], "z");
}

#[tokio::test]
async fn cascades_of_foreign_keys_arrive_like_any_change() {
    let sql = "CREATE TABLE ward (id INTEGER PRIMARY KEY);
        INSERT INTO ward VALUES (1), (2), (3);
        CREATE TABLE t (id INTEGER PRIMARY KEY,
            ward INTEGER REFERENCES ward ON DELETE CASCADE ON UPDATE CASCADE,
            night INTEGER REFERENCES ward ON DELETE SET NULL ON UPDATE CASCADE);
        INSERT INTO t VALUES (1, 1, 2), (2, 1, 3), (3, 2, 3), (4, 2, 2)";
    let server = serve(sql, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    follower.writer.run(&["PRAGMA foreign_keys = ON"]);
    assert_eq!(
        brief(&follower.after(&["DELETE FROM ward WHERE id = 1"]).await),
        ["delete 1", "delete 2"]
    );
    assert_eq!(
        brief(&follower.after(&["DELETE FROM ward WHERE id = 3"]).await),
        ["update 3"]
    );
    assert_eq!(
        brief(
            &follower
                .after(&["UPDATE ward SET id = 7 WHERE id = 2"])
                .await
        )
        .len(),
        2
    );
    follower.agrees_with(&server.database());
}

#[tokio::test]
async fn what_is_rolled_back_is_never_seen() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let events = follower
        .after(&[
            "BEGIN",
            "INSERT INTO t (id) VALUES (10)",
            "ROLLBACK",
            "BEGIN",
            "INSERT INTO t (id) VALUES (11)",
            "SAVEPOINT one",
            "INSERT INTO t (id) VALUES (12)",
            "UPDATE t SET id = 99 WHERE id = 11",
            "SAVEPOINT two",
            "DELETE FROM t",
            "ROLLBACK TO one",
            "RELEASE one",
            "SAVEPOINT three",
            "UPDATE t SET name = 'kept' WHERE id = 1",
            "RELEASE three",
            "COMMIT",
        ])
        .await;
    assert_eq!(brief(&events), ["insert 11", "update 1"]);
    let failed = follower.writer.try_run(&[
        "BEGIN",
        "INSERT INTO t (id) VALUES (50)",
        "INSERT OR ROLLBACK INTO t (id) VALUES (1)",
    ]);
    assert!(failed.unwrap_err().contains("UNIQUE"));
    // OR FAIL keeps the rows before the one that failed.
    let failed = follower
        .writer
        .try_run(&["INSERT OR FAIL INTO t (id) VALUES (60), (1), (61)"]);
    assert!(failed.unwrap_err().contains("UNIQUE"));
    assert_eq!(brief(&follower.sync().await), ["insert 60"]);
    follower.agrees_with(&server.database());
}

#[tokio::test]
async fn the_changes_of_a_transaction_are_marked_and_stand_together() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let alone = follower.after(&["UPDATE t SET age = 1 WHERE id = 1"]).await;
    assert_eq!(alone.len(), 1);
    let events = follower
        .after(&[
            "BEGIN",
            "INSERT INTO t (id) VALUES (4), (5), (6)",
            "UPDATE t SET age = 3",
            "COMMIT",
        ])
        .await;
    assert_eq!(events.len(), 6, "the last state of each row, once");
    let mark = &events[0]["tx"];
    assert!(mark.is_string());
    assert!(events.iter().all(|event| event["tx"] == *mark));
    assert!(events.iter().all(|event| event["data"]["age"] == 3));
}

#[tokio::test]
async fn a_transaction_of_a_hundred_thousand_rows_arrives_whole() {
    let server = serve("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);", "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let start = Instant::now();
    let events = follower
        .after(&[
            "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 100000)
             INSERT INTO t SELECT i, i * 7 FROM k",
        ])
        .await;
    println!("100,000 rows in {} ms", start.elapsed().as_millis());
    assert_eq!(events.len(), 100_000);
    let mark = &events[0]["tx"];
    assert!(mark.is_string());
    for (n, event) in (1..).zip(&events) {
        assert_eq!(event["data"], json!({"id": n, "n": n * 7}));
        assert_eq!(event["tx"], *mark);
    }
}

#[tokio::test]
async fn values_of_every_kind_pass_unchanged() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, w, r REAL, b BLOB)";
    let server = serve(sql, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let events = follower
        .after(&[
            "INSERT INTO t (id, v) VALUES (1, x'00ff41')",
            "INSERT INTO t (id, v) VALUES (2, CAST(x'41ff42' AS TEXT))",
            "INSERT INTO t (id, v) VALUES (3, 'a' || char(0) || 'b')",
            "INSERT INTO t (id, w) VALUES (4, 9007199254740993), (5, -9223372036854775808), (6, 9007199254740991)",
            "INSERT INTO t (id, r) VALUES (7, 9e999), (8, -9e999), (9, 9e999 - 9e999), (10, 0.1), (11, 3)",
            "INSERT INTO t (id, b) VALUES (12, x''), (13, 'text in a blob column')",
            "INSERT INTO t (id, v) VALUES (14, '来访' || char(128512) || char(10) || '\"' || '\\')",
        ])
        .await;
    follower.agrees_with(&server.database());
    let data = |n: usize| &events[n - 1]["data"];
    assert_eq!(data(1)["v"], "\\x00ff41");
    assert_eq!(data(2)["v"], "A\u{fffd}B");
    assert_eq!(data(3)["v"], "a\0b");
    assert_eq!(data(4)["w"], "9007199254740993");
    assert_eq!(data(6)["w"], 9_007_199_254_740_991_i64);
    assert_eq!(data(7)["r"], "Infinity");
    assert_eq!(data(9)["r"], Json::Null, "SQLite stores a NaN as NULL");
    // The same rows, by a query.
    let live = follower.view.rows.clone();
    follower.ask_all().await;
    assert_eq!(live, follower.view.rows);
}

#[tokio::test]
async fn a_row_too_large_for_the_bus_is_told_by_its_key() {
    let server = serve("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let events = follower
        .after(&[
            "INSERT INTO t VALUES (1, zeroblob(5000000))",
            "INSERT INTO t VALUES (2, replace(hex(zeroblob(2500000)), '00', 'xy'))",
            "INSERT INTO t VALUES (3, 'small')",
        ])
        .await;
    assert_eq!(events.len(), 3);
    for event in &events[..2] {
        assert_eq!(event["op"], "insert");
        assert_eq!(event["too_large"], true);
        assert_eq!(event["data"], Json::Null);
    }
    assert_eq!(events[1]["key"], json!({"id": 2}));
    assert_eq!(events[2]["too_large"], Json::Null);
    follower
        .socket
        .send(json!({"type": "t", "rid": 1, "id": 2}))
        .await;
    let answer = follower
        .socket
        .next_where("the large row", |frame| frame["rid"] == 1)
        .await;
    assert_eq!(answer["data"][0]["v"].as_str().unwrap().len(), 5_000_000);
}

#[tokio::test]
async fn a_key_too_large_for_the_bus_stops_nobody() {
    let server = serve("CREATE TABLE t (id TEXT PRIMARY KEY, v)", "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    for bytes in [400_000, 700_000, 3_000_000] {
        let sql = format!(
            "INSERT INTO t VALUES (replace(hex(zeroblob({})), '00', '\"\"'), 1)",
            bytes / 2
        );
        let events = follower
            .after(&[&sql, "INSERT OR REPLACE INTO t VALUES ('small', 1)"])
            .await;
        let told = brief(&events[..1]);
        assert!(
            told[0].starts_with("reload") || events[0]["too_large"] == true,
            "{:.80}",
            told[0]
        );
        assert_eq!(brief(&events[1..]), ["insert \"small\""]);
    }
}

#[tokio::test]
async fn keys_may_be_composite_texts_bytes_or_null() {
    act(
        "CREATE TABLE t (ward TEXT, bed INTEGER, name, PRIMARY KEY (ward, bed));
         INSERT INTO t VALUES ('3', 1, 'a'), ('3', 2, 'b')",
        &["ward", "bed"],
        &[
            "INSERT INTO t VALUES ('来访', 1, 'c'), ('3\"', 7, 'd')",
            "UPDATE t SET bed = bed + 100 WHERE ward = '3'",
            "UPDATE t SET ward = '4', name = 'e' WHERE bed = 101",
            "REPLACE INTO t VALUES ('4', 101, 'f')",
            "DELETE FROM t WHERE bed = 7",
        ],
    )
    .await;
    act(
        "CREATE TABLE t (k BLOB PRIMARY KEY, n) WITHOUT ROWID; INSERT INTO t VALUES (x'00', 1), (x'ff', 2)",
        &["k"],
        &[
            "UPDATE t SET n = 3 WHERE k = x'00'",
            "INSERT INTO t VALUES ('text', 4), (5, 5), (5.5, 6)",
            "UPDATE t SET k = x'0011' WHERE k = x'ff'",
            "DELETE FROM t WHERE k = 5",
        ],
    )
    .await;
    act(
        "CREATE TABLE t (a, b, n, PRIMARY KEY (a, b)); INSERT INTO t VALUES (NULL, 1, 1)",
        &["a", "b"],
        &[
            "UPDATE t SET n = 2 WHERE b = 1",
            "INSERT INTO t VALUES (NULL, 2, 1)",
            "UPDATE t SET a = 1 WHERE b = 2",
            "DELETE FROM t WHERE b = 1",
        ],
    )
    .await;
}

#[tokio::test]
async fn writers_with_other_settings_are_seen_as_well() {
    for table in [UNIQUE, PEOPLE] {
        let server = serve(table, "");
        let mut follower = Follower::of(&server, "t", &["id"]).await;
        follower.writer.run(&[
            "PRAGMA recursive_triggers = ON",
            "PRAGMA foreign_keys = ON",
            "PRAGMA trusted_schema = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA defer_foreign_keys = ON",
        ]);
        let second = match table == UNIQUE {
            true => "bed",
            false => "name",
        };
        let statements = [
            format!("INSERT OR REPLACE INTO t (id, {second}) VALUES (4, 'x')"),
            format!("INSERT OR REPLACE INTO t (id, {second}) VALUES (4, 'y')"),
            format!("UPDATE OR REPLACE t SET {second} = 'z' WHERE id = 4"),
            "UPDATE OR IGNORE t SET id = 4 WHERE id = 1".to_owned(),
        ];
        for statement in &statements {
            follower.after(&[statement]).await;
            follower.agrees_with(&server.database());
        }
        // A program sees the same counts and ids as without Rowcast.
        let insert = format!("INSERT INTO t (id, {second}) VALUES (70, 'q')");
        let seen = follower
            .writer
            .run(&[&insert, "SELECT changes(), last_insert_rowid()"]);
        assert_eq!(seen, json!([[1, 70]]));
    }
}

#[tokio::test]
async fn an_applications_own_triggers_and_columns_do_no_harm() {
    act(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, twice AS (n * 2), \"a \"\"b\"\" 'c'\" TEXT, \"order\" TEXT);
         CREATE TABLE audit (what);
         CREATE TRIGGER stamp AFTER INSERT ON t BEGIN
             UPDATE t SET \"order\" = 'stamped' WHERE id = NEW.id; INSERT INTO audit VALUES (NEW.id); END;
         CREATE TRIGGER tidy AFTER UPDATE OF n ON t WHEN NEW.n < 0 BEGIN DELETE FROM t WHERE id = NEW.id; END;
         INSERT INTO t (id, n) VALUES (1, 1)",
        &["id"],
        &[
            "INSERT INTO t (id, n) VALUES (2, 2)",
            "UPDATE t SET n = 5 WHERE id = 1",
            "UPDATE t SET n = -1 WHERE id = 2",
            "UPDATE t SET \"a \"\"b\"\" 'c'\" = 'it''s'",
        ],
    )
    .await;
}

#[tokio::test]
async fn rows_enter_and_leave_a_view() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, left_at TEXT, ward INTEGER);
        INSERT INTO t VALUES (1, NULL, 3), (2, 'then', 3), (3, NULL, 4)";
    let server = serve(sql, "where = \"left_at IS NULL AND ward = 3\"");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    assert_eq!(follower.view.rows.len(), 1);
    let steps = [
        ("UPDATE t SET left_at = NULL WHERE id = 2", "update 2"),
        ("UPDATE t SET left_at = 'now' WHERE id = 1", "delete 1"),
        ("UPDATE t SET ward = NULL WHERE id = 2", "delete 2"),
        ("UPDATE t SET ward = 5 WHERE id = 3", "delete 3"),
        ("INSERT INTO t VALUES (4, NULL, 3)", "insert 4"),
        ("REPLACE INTO t VALUES (4, 'gone', 3)", "delete 4"),
        (
            "UPDATE t SET id = 40, left_at = NULL WHERE id = 4",
            "update 4 -> 40",
        ),
        // What may have stood under the new key is gone, too.
        (
            "UPDATE t SET id = 41, ward = 9 WHERE id = 40",
            "delete 40, delete 41",
        ),
        ("DELETE FROM t WHERE id = 41", "delete 41"),
    ];
    for (statement, expected) in steps {
        let events = brief(&follower.after(&[statement]).await);
        assert_eq!(events.join(", "), expected);
        let inside = "SELECT * FROM t WHERE left_at IS NULL AND ward = 3";
        assert_eq!(
            follower.view.rows.len(),
            read(&server.database(), inside).len()
        );
    }
    // A row from outside takes the key of one inside, which no trigger tells.
    let displaced = ["UPDATE OR REPLACE t SET id = 60 WHERE id = 3"];
    follower
        .after(&["INSERT INTO t VALUES (60, NULL, 3)"])
        .await;
    let displaced = brief(&follower.after(&displaced).await);
    assert_eq!(displaced, ["delete 3", "delete 60"]);
    assert!(follower.view.rows.is_empty());
    // A row that never was inside and is not now: nothing but a deletion that names nobody.
    let outside = follower
        .after(&["INSERT INTO t VALUES (50, 'gone', 3)"])
        .await;
    assert!(outside.iter().all(|event| event["op"] == "delete"));
}

/// `[database]` with a changelog that is trimmed after a second, or after 1000 rows.
fn trimmed(tables: &[(&str, &str)]) -> String {
    topics(tables) + "[database]\nchangelog_keep_ms = 1000\nchangelog_max_rows = 1000\n"
}

#[tokio::test]
async fn the_sqlite3_shell_which_waits_for_no_lock_never_fails_because_of_us() {
    let server = Server::configured(&trimmed(&[("t", "")]), &format!("{BEAT}{PEOPLE}"));
    let database = server.database();
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    // Enough old entries that trimming would have something to do all the time; no pause behind them,
    // which would be a moment for it.
    let updates = (0..2000).map(|n| format!("UPDATE t SET age = {n} WHERE id = {};", n % 3 + 1));
    let script = format!("{};{}", fill(5000), updates.collect::<String>());
    let writing = std::thread::spawn(move || {
        sqlite3(&database, &script);
        let start = Instant::now();
        for n in 0..200 {
            sqlite3(&database, &format!("UPDATE t SET age = {n} WHERE id = 1"));
        }
        start.elapsed()
    });
    let took = writing.join().unwrap();
    println!("a process a write: {} ms each", took.as_millis() / 200);
    follower.sync().await;
    follower.agrees_with(&server.database());
    // Once it is quiet, what is old is trimmed.
    changelog_shrinks(&server, 1000);
}

fn fill(rows: u32) -> String {
    format!(
        "WITH RECURSIVE k(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM k WHERE i < {})
         INSERT INTO t (id, age) SELECT i, i FROM k",
        rows + 999
    )
}

fn changelog_shrinks(server: &Server, to: i64) {
    let count = || {
        read(
            &server.database(),
            "SELECT count(*) AS n FROM _rowcast_changelog",
        )[0]["n"]
            .as_i64()
    };
    wait_for("the changelog to be trimmed", || {
        count().filter(|n| *n <= to)
    });
}

#[tokio::test]
async fn the_changelog_is_trimmed_by_rows_and_by_age_but_not_before_it_is_published() {
    let by_rows = topics(&[("t", "")]) + "[database]\nchangelog_max_rows = 1000\n";
    let server = Server::configured(&by_rows, &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let events = follower.after(&[&fill(3000)]).await;
    assert_eq!(events.len(), 3000);
    changelog_shrinks(&server, 1020);
    let by_age = topics(&[("t", "")]) + "[database]\nchangelog_keep_ms = 1000\n";
    let mut server = Server::configured(&by_age, &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    follower.after(&[&fill(3000)]).await;
    let cursor = follower
        .socket
        .ask(json!({"type": "t", "rid": 1, "id": 1}))
        .await["cursor"]
        .clone();
    changelog_shrinks(&server, 20);
    // A trimmed changelog does not hide that it is still the same history.
    server.kill();
    follower.writer.run(&["DELETE FROM t WHERE id = 1"]);
    server.restart();
    let mut socket = server
        .socket(&format!("since={}", cursor.as_str().unwrap()))
        .await;
    assert_eq!(socket.next().await["op"], "delete");
    assert_eq!(socket.next().await["type"], "sys:caught_up");
}

#[tokio::test]
async fn writers_are_not_kept_waiting() {
    let server = Server::configured(&trimmed(&[("t", "")]), &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let program = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
db.execute('PRAGMA synchronous = OFF')
worst = 0
for n in range(3000):
    start = time.perf_counter()
    db.execute('UPDATE t SET age = ? WHERE id = ?', (n, n % 3 + 1))
    worst = max(worst, time.perf_counter() - start)
print(round(worst * 1000))";
    let database = server.database();
    let worst = tokio::task::spawn_blocking(move || python(&database, program));
    println!(
        "the slowest of 3000 writes: {} ms",
        worst.await.unwrap().trim()
    );
    follower.sync().await;
    follower.agrees_with(&server.database());
}

/// Clock ticks of CPU time that a process has used; a hundred make a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn an_idle_gateway_uses_less_than_a_hundredth_of_a_core() {
    let server = Server::start();
    let _socket = server.socket("").await;
    let settled = Instant::now();
    wait_for("the start to be over", || {
        (settled.elapsed() > Duration::from_millis(500)).then_some(())
    });
    // A debug build works about three times as hard as what is delivered.
    let limit = match cfg!(debug_assertions) {
        true => 0.03,
        false => 0.01,
    };
    // On a crowded machine the start may take longer than that.
    wait_for("three idle seconds", || {
        let (before, start) = (ticks(server.pid()), Instant::now());
        wait_for("three seconds", || {
            (start.elapsed() > Duration::from_secs(3)).then_some(())
        });
        let used = (ticks(server.pid()) - before) as f64 / 100.0 / start.elapsed().as_secs_f64();
        println!("idle: {:.2} % of a core", used * 100.0);
        (used < limit).then_some(())
    });
}

#[tokio::test]
async fn a_commit_reaches_the_socket_within_milliseconds() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let program = "
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
for line in sys.stdin:
    db.execute('UPDATE t SET age = ? WHERE id = 1', (int(line),))
    print(time.time_ns(), flush=True)";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .arg(server.database())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut taken = Vec::new();
    for n in 0..100 {
        use std::io::{BufRead, Write};
        writeln!(stdin, "{n}").unwrap();
        let mut committed = String::new();
        lines.read_line(&mut committed).unwrap();
        follower
            .socket
            .next_where("the row", |frame| frame["data"]["age"] == n)
            .await;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let committed: u128 = committed.trim().parse().unwrap();
        taken.push(now.unwrap().as_nanos().saturating_sub(committed) as f64 / 1e6);
        // Spaced, and not in step with the poll.
        std::thread::park_timeout(Duration::from_millis(5 + n % 7));
    }
    let _ = child.kill();
    child.wait().unwrap();
    taken.sort_by(f64::total_cmp);
    println!(
        "commit to socket: p50 {:.1} ms, p90 {:.1} ms, max {:.1} ms",
        taken[50], taken[90], taken[99]
    );
    assert!(taken[50] <= 50.0);
}
