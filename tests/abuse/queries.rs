//! A16, A26, A30: parameters of queries that want to be SQL, more than there is, or times that are none; on
//! SQLite and on PostgreSQL, over a socket and over HTTP. A value is bound literally or refused, a name
//! is one of the topic's columns or refused; what PostgreSQL was told is in its log, and holds no word of
//! any of it, and its statistics know no statement that a harmless text does not lead to as well.

use serde_json::{Value as Json, json};

use super::{
    inputs::is_name,
    stage::Stage,
    told::{Told, bad_param, framed, status, unknown_type},
};
use crate::{
    support::{
        Options, Server,
        postgres::{Cluster, Database},
    },
    wire::CARE,
};

/// Stands in every text of these inputs.
const MARK: &str = "Gr1ffin";

/// The care home of the wire's tests, and a table of times.
const TABLES: &str = "
    CREATE TABLE patient (id int PRIMARY KEY, name text NOT NULL, ward text, age int, left_at text);
    INSERT INTO patient VALUES (1, '王秀英', '3', 86, NULL), (2, '李建国', '3', 82, NULL),
        (3, '张桂兰', '5', 91, NULL), (4, '赵德厚', NULL, NULL, NULL), (5, '孙淑芳', '5', 79, '2026-01-02');
    CREATE TABLE stay (bed text, day int, note text, PRIMARY KEY (day, bed));
    INSERT INTO stay VALUES ('3-1', 7, '早'), ('3-1', 8, '晚');
    CREATE TABLE moment (id int PRIMARY KEY, z timestamptz, s timestamp, d date, t time, u uuid, n numeric, x bytea);
    INSERT INTO moment VALUES (1, 'infinity', '0044-03-15 12:00:00 BC', '10000-01-01', '24:00:00', NULL, 'NaN', '\\x00'),
        (2, '2026-11-23 02:36:00+15:59', '-infinity', 'infinity', '02:36', NULL, 1, '\\xff');
    CREATE DOMAIN place AS regclass;
    CREATE TABLE odd (id int PRIMARY KEY, v tsvector, q tsquery, r regclass, k regtype, o regrole, p place, x xml,
        i inet, l interval, b bit(3), g int4range);
    INSERT INTO odd VALUES (1, 'a b', 'a & b', 'pg_class', 'int4', 'pg_monitor', 'pg_class', '<a/>',
        '10.0.0.1', '1 day', '101', '[1,3)');";

const MOMENT: &str = "\n[[topics]]\ntype = \"moment\"\ntable = \"moment\"\n[[topics]]\ntype = \"odd\"\ntable = \"odd\"\n";

/// Which database answers, where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Sqlite,
    Postgres,
}

#[tokio::test]
async fn no_text_of_a_client_becomes_sql_in_sqlite() {
    let mut stage = Stage::care().await;
    let before = dump(&stage.server);
    injections(&mut stage, On::Sqlite).await;
    sizes(&mut stage).await;
    assert_eq!(dump(&stage.server), before);
    stage.end().await;
}

/// The statements of the gateway, in which `$1` and the like stand for all values.
fn statements(database: &Database) -> Vec<String> {
    let rows = database.sql(
        "SELECT query FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE rolname = 'gateway'",
    );
    rows.into_iter().flatten().flatten().collect()
}

/// Schema and rows of the database.
fn dump(server: &Server) -> String {
    crate::support::sqlite3(
        &server.database(),
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '_rowcast%' ORDER BY 1; \
         SELECT * FROM patient; SELECT * FROM stay;",
    )
}

#[tokio::test]
async fn no_text_of_a_client_becomes_sql_in_postgresql() {
    // Statements alone, without the values that are bound to them, and without what is wrong with those.
    let cluster = Cluster::own(&[
        ("log_statement", "all"),
        ("log_parameter_max_length", "0"),
        ("log_parameter_max_length_on_error", "0"),
        ("log_min_messages", "log"),
        ("log_min_error_statement", "panic"),
        ("shared_preload_libraries", "pg_stat_statements"),
        ("pg_stat_statements.track", "all"),
    ]);
    let database = cluster.database();
    database.sql(TABLES);
    database.sql("CREATE EXTENSION pg_stat_statements; CREATE ROLE gateway SUPERUSER LOGIN");
    let server = Server::with(Options {
        config: Some(format!(
            "[log]\nlevel = \"debug\"\n[database]\nurl = \"{}\"\n{CARE}{MOMENT}",
            database.url().replace("postgres@", "gateway@")
        )),
        ..Options::default()
    });
    let mut stage = Stage::of(server).await;
    injection(&mut stage, On::Postgres, "harmless").await;
    let allowed = statements(&database);
    injections(&mut stage, On::Postgres).await;
    let mut others = statements(&database);
    others.retain(|statement| !allowed.contains(statement));
    // What it asks of its own accord, whenever that is, it asks of the catalogue.
    others.retain(|statement| {
        !statement.contains("pg_catalog.") || statement.contains("\"public\".")
    });
    assert_eq!(
        others, [""; 0],
        "statements that only hostile texts lead to"
    );
    sizes(&mut stage).await;
    moments(&mut stage).await;
    languages(&mut stage).await;
    let log = cluster.log();
    assert!(
        log.contains("SELECT") && log.contains("\"patient\""),
        "the log tells of no statement"
    );
    let told = log.lines().find(|line| line.contains(MARK));
    assert_eq!(told, None, "a client's text in a statement");
    assert_eq!(database.one("SELECT count(*) FROM patient"), "5");
    stage.end().await;
}

// === A16 ===

/// What has worked elsewhere.
fn payloads() -> Vec<String> {
    let shapes = [
        "MARK'",
        "MARK\"",
        "MARK`",
        "MARK\\",
        "MARK';--",
        "MARK' OR 1=1--",
        "MARK' OR 'a'='a",
        "MARK\" OR \"\"=\"",
        "MARK'; DROP TABLE patient; --",
        "MARK; DELETE FROM patient",
        "1; UPDATE patient SET name='MARK'",
        "MARK' UNION SELECT name FROM sqlite_master--",
        "MARK' UNION ALL SELECT passwd FROM pg_shadow--",
        "MARK'||(SELECT version())||'",
        "MARK' AND pg_sleep(10)--",
        "MARK'); SELECT pg_sleep(10); --",
        "(SELECT MARK FROM pg_sleep(10))",
        "id,(SELECT MARK)",
        "id; SELECT MARK",
        "id DESC, (SELECT MARK)",
        "MARK/**/OR/**/1=1",
        "MARK' AND 1=CAST((SELECT 1/0) AS int)--",
        "$1MARK",
        "?1MARK",
        ":MARK",
        "@MARK",
        "$$MARK$$",
        "$MARK$x$MARK$",
        "E'MARK\\''",
        "U&'\\0027MARK'",
        "X'4d41524b' MARK",
        "MARK\u{2019} OR 1=1",
        "MARK\u{ff07} OR 1=1",
        "MARK\u{5c}' OR 1=1",
        "MARK%",
        "%MARK%",
        "_MARK_",
        "MARK\\%",
        "MARK[^a]",
        "{\"MARK\":1}",
        "MARK\r\n;DROP TABLE patient",
        "MARK\u{1b}[2J",
        "MARK\u{202e}",
        "COPY patient TO PROGRAM 'MARK'",
        "ATTACH 'MARK' AS x",
        "PRAGMA MARK",
        "load_extension('MARK')",
        "CASE WHEN 1=1 THEN MARK END",
        "MARK=MARK",
        "NOT MARK",
        "EXISTS(SELECT MARK)",
        "rowidMARK",
        "ctid, MARK",
        "*, MARK",
        "patient.MARK",
        "public.patient.MARK",
        "main.MARK",
        "\"MARK\"",
        "[MARK]",
        "`MARK`",
        "name COLLATE MARK",
        "name MARK",
        "name NULLS FIRST MARK",
        "lower(MARK)",
        "0xMARK",
        "1e9MARK",
        "MARK::int",
        "cast(MARK as int)",
        "json_extract(MARK)",
    ];
    let mut payloads: Vec<String> = shapes
        .iter()
        .map(|shape| shape.replace("MARK", MARK))
        .collect();
    payloads.push(format!("{MARK}{}", "%".repeat(200)));
    payloads.push(format!("{MARK}{}", "'".repeat(200)));
    payloads
}

async fn injections(stage: &mut Stage, on: On) {
    for text in payloads() {
        injection(stage, on, &text).await;
    }
}

/// Puts a text wherever one can be put.
async fn injection(stage: &mut Stage, on: On, text: &str) {
    // A text is none of a number's values; SQLite compares whatever it is given.
    let number = match on {
        On::Sqlite => Told::Reply,
        On::Postgres => bad_param(),
    };
    let named = match is_name(text) {
        true => unknown_type(),
        false => bad_param(),
    };
    let filter = |filter: Json| json!({ "type": "patient", "params": { "filter": filter } });
    for (question, expected) in [
        (json!({ "type": "patient", "id": text }), number.clone()),
        (
            json!({ "type": "patient", "id": { "id": text } }),
            number.clone(),
        ),
        (
            json!({ "type": "stay", "id": { "day": 7, "bed": text } }),
            Told::Reply,
        ),
        (
            json!({ "type": "stay", "id": { "day": 7, (text): "3-1" } }),
            bad_param(),
        ),
        (filter(json!({ "name": text })), Told::Reply),
        (filter(json!({ "name": { "ne": text } })), Told::Reply),
        (
            filter(json!({ "name": { "gte": text, "lt": text } })),
            Told::Reply,
        ),
        (filter(json!({ "name": [text, "x"] })), Told::Reply),
        (filter(json!({ "name": { "like": text } })), Told::Reply),
        (filter(json!({ "age": text })), number.clone()),
        (filter(json!({ (text): "x" })), bad_param()),
        (filter(json!({ "name": { (text): "x" } })), bad_param()),
        (
            json!({ "type": "patient", "params": { "order": text } }),
            bad_param(),
        ),
        (
            json!({ "type": "patient", "params": { "order": ["id", text] } }),
            bad_param(),
        ),
        (
            json!({ "type": "patient", "params": { "page": text } }),
            bad_param(),
        ),
        (
            json!({ "type": "patient", "params": { "size": text } }),
            bad_param(),
        ),
        (
            json!({ "type": "patient", "params": { "all": text } }),
            bad_param(),
        ),
        (
            json!({ "type": "patient", "params": { "after": text } }),
            bad_param(),
        ),
        (
            json!({ "type": "patient", "params": { "after": token(text) } }),
            bad_param(),
        ),
        (json!({ "type": text }), unknown_type()),
        (
            json!({ "type": "sys:subscribe", "types": { "patient": { "filter": { "name": text } } } }),
            framed("sys:ok"),
        ),
        (
            json!({ "type": "sys:subscribe", "types": { "patient": { "filter": { (text): 1 } } } }),
            bad_param(),
        ),
        (
            json!({ "type": "sys:subscribe", "types": { (text): {} } }),
            named,
        ),
    ] {
        stage.ask("A16", question.to_string(), &[expected]).await;
    }
    let value: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let http = |told: &Told| match told {
        Told::Reply => status(200, ""),
        _ => status(400, "bad_param"),
    };
    for (query, expected) in [
        (format!("patient?id={value}"), http(&number)),
        (format!("patient?key[id]={value}"), http(&number)),
        (format!("patient?filter[name]={value}"), status(200, "")),
        (
            format!("patient?filter[name][like]={value}"),
            status(200, ""),
        ),
        (
            format!("patient?filter[{value}]=1"),
            status(400, "bad_param"),
        ),
        (
            format!("patient?filter[name][{value}]=1"),
            status(400, "bad_param"),
        ),
        (format!("patient?order={value}"), status(400, "bad_param")),
        (format!("patient?page={value}"), status(400, "bad_param")),
        (format!("patient?after={value}"), status(400, "bad_param")),
        (format!("{value}?id=1"), status(404, "unknown_type")),
    ] {
        let sent = format!(
            "GET /api/query/{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        stage.request("A16", sent.as_bytes(), &[expected]).await;
    }
}

/// A continuation that nobody was given: the columns are the client's.
fn token(text: &str) -> String {
    let parts = json!(["patient", 2, [[text, false]], [[text, "eq", text]], [text]]);
    rowcast::row::hex(parts.to_string().as_bytes())[2..].to_owned()
}

// === A26 ===

/// Asking for everything gets what is allowed, and far beyond the end is nothing.
async fn sizes(stage: &mut Stage) {
    // `max_page_size` is 4 here, and the view has four rows.
    for size in [1, 2, 3, 4, 5, 50, 200, 201, 1000, 1_000_000, u32::MAX] {
        for page in [1, 2, 1000, u32::MAX] {
            let expected = match size {
                0..=4 => Told::Reply,
                _ => bad_param(),
            };
            let question = json!({ "type": "patient", "params": { "size": size, "page": page } });
            let answer = stage
                .ask("A26", question.to_string(), std::slice::from_ref(&expected))
                .await;
            if expected == Told::Reply {
                let answer: Json = serde_json::from_str(&answer).unwrap();
                assert!(answer["data"].as_array().unwrap().len() <= 4, "{answer}");
            }
            let status = match expected {
                Told::Reply => status(200, ""),
                _ => status(400, "bad_param"),
            };
            let sent = format!(
                "GET /api/query/patient?size={size}&page={page} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            stage.request("A26", sent.as_bytes(), &[status]).await;
        }
    }
    for params in [
        json!({ "all": true, "page": 1 }),
        json!({ "all": true, "size": 4 }),
        json!({ "all": 1 }),
        json!({ "all": true, "after": "00" }),
        json!({ "filter": [] }),
        json!({ "filter": "x" }),
        json!({ "order": {} }),
        json!({ "order": [[]] }),
        json!({ "order": vec!["id"; 17] }),
        json!({ "filter": { "age": { "lt": null } } }),
        json!({ "filter": { "age": { "like": 1 } } }),
        json!({ "filter": { "age": { "eq": {} } } }),
        json!({ "filter": { "age": vec![1; 257] } }),
        json!({ "filter": { "age": [[1]] } }),
        json!({ "filter": { "name": { "like": "x".repeat(257) } } }),
    ] {
        let question = json!({ "type": "patient", "params": params });
        stage.ask("A26", question.to_string(), &[bad_param()]).await;
    }
    let many: serde_json::Map<String, Json> =
        (0..65).map(|n| (format!("c{n}"), json!(1))).collect();
    let question = json!({ "type": "patient", "params": { "filter": many } });
    stage.ask("A26", question.to_string(), &[bad_param()]).await;
    for params in [
        json!({ "filter": { "age": vec![1; 256] } }),
        json!({ "filter": { "age": [] } }),
        json!({ "filter": {} }),
        json!({ "order": [] }),
        json!({ "filter": { "age": {} } }),
        json!({ "filter": { "name": { "like": "%_".repeat(128) } } }),
        json!({ "all": false }),
        json!({ "order": vec!["name desc"; 16] }),
    ] {
        let question = json!({ "type": "patient", "params": params });
        stage.ask("A26", question.to_string(), &[Told::Reply]).await;
    }
}

// === A30 ===

/// Times, and other texts that a type must read, which PostgreSQL may or may not take. It is the asker's
/// mistake where it does not.
async fn moments(stage: &mut Stage) {
    let texts = [
        "2026-11-23T02:36:00Z",
        "2026-11-23 02:36:00+15:59",
        "2026-11-23 02:36:00-15:59",
        "2026-11-23 02:36:00+16:00",
        "2026-11-23 02:36:60Z",
        "2016-12-31T23:59:60Z",
        "2026-11-23 02:36:61Z",
        "2026-11-23 24:00:00",
        "2026-11-23 24:00:01",
        "2026-11-23 25:00:00",
        "0000-01-01",
        "0001-01-01",
        "0001-01-01 BC",
        "4713-01-01 BC",
        "4714-01-01 BC",
        "9999-12-31",
        "10000-01-01",
        "294276-12-31",
        "294277-01-01",
        "5874897-12-31",
        "5874898-01-01",
        "-1-01-01",
        "infinity",
        "-infinity",
        "Infinity",
        "+infinity",
        "inf",
        "nan",
        "epoch",
        "now",
        "today",
        "yesterday",
        "allballs",
        "2026-02-29",
        "2024-02-29",
        "2026-02-30",
        "2026-13-01",
        "2026-00-01",
        "2026-01-00",
        "2026-03-29 02:30:00 Europe/Berlin",
        "2026-10-25 02:30:00 Europe/Berlin",
        "2026-01-01 00:00 Nowhere/City",
        "2026-1-1",
        "20261123",
        "20261123T023600",
        "2026-327",
        "2026-W48-1",
        "23/11/2026",
        "11-23-2026",
        "Nov 23 2026",
        "1790000000",
        "1e9",
        "",
        " ",
        "2026",
        "02:36",
        "02:36:00.123456789",
        "2026-11-23T02:36:00.0000001Z",
        "2026-11-23T02:36:00.9999999Z",
        "٢٠٢٦-١١-٢٣",
        "2026-11-23T02:36:00Z\u{301}",
        "01234567-89ab-cdef-0123-456789abcdef",
        "{01234567-89ab-cdef-0123-456789abcdef}",
        "0123",
        "NaN",
        "1e999999",
        "-0",
        "\\x00",
        "\\x0",
        "\\\\000",
        "'",
        "x'; DROP TABLE moment",
    ];
    let either = [Told::Reply, bad_param()];
    for text in texts {
        for column in ["z", "s", "d", "t", "u", "n", "x"] {
            for filter in [json!({ column: text }), json!({ column: { "gte": text } })] {
                let question = json!({ "type": "moment", "params": { "filter": filter } });
                stage.ask("A30", question.to_string(), &either).await;
            }
            let followed = json!({ "type": "sys:subscribe", "types": { "moment": { "filter": { column: text } } } });
            let taken = [framed("sys:ok"), bad_param()];
            stage.ask("A30", followed.to_string(), &taken).await;
        }
    }
    for number in ["1", "-1", "1e300", "0.5", "9007199254740991", "true"] {
        for column in ["z", "s", "d", "t", "u", "x"] {
            let text = format!(
                "{{\"type\":\"moment\",\"params\":{{\"filter\":{{\"{column}\":{number}}}}}}}"
            );
            stage.ask("A30", &text, &[bad_param()]).await;
        }
    }
    // What is there is told as RFC 3339 in UTC where that can say it, and as PostgreSQL writes it else.
    let rows = stage
        .ask(
            "A30",
            r#"{"type":"moment","params":{"order":"id"}}"#,
            &[Told::Reply],
        )
        .await;
    for told in [
        "\"z\":\"infinity\"",
        "\"s\":\"0044-03-15 12:00:00 BC\"",
        "\"d\":\"10000-01-01\"",
        "\"t\":\"24:00:00\"",
        "\"z\":\"2026-11-22T10:37:00Z\"",
        "\"s\":\"-infinity\"",
        "\"d\":\"infinity\"",
    ] {
        assert!(rows.contains(told), "{told}: {rows}");
    }
}

/// Types whose texts are more than values, a language or a name of the catalogue's, are compared with nothing;
/// what is wrong with a text of the others is the asker's mistake. The database is well all the same.
async fn languages(stage: &mut Stage) {
    let texts = [
        "",
        "a",
        "a:b:c",
        "a &",
        "'",
        "!!(",
        "pg_class",
        "pg_authid",
        "no_such_table",
        "pg_monitor",
        "nobody_here",
        "int4",
        "1.2.3.4.5",
        "<a>",
        "P1Y",
        "1 fortnight of days",
        "101",
        "1x1",
        "[3,1)",
        "[1,2",
        "a\n2026-11-29T00:00:00.000000Z  WARN somebody else has said this",
        "\u{1b}[31m\r\u{85}\u{2028}",
    ];
    for text in texts {
        for column in ["v", "q", "r", "k", "o", "p", "x"] {
            for filter in [
                json!({ column: text }),
                json!({ column: { "ne": text } }),
                json!({ column: [text, "a"] }),
                json!({ column: { "gte": text } }),
            ] {
                let question = json!({ "type": "odd", "params": { "filter": filter } });
                stage.ask("A30", question.to_string(), &[bad_param()]).await;
            }
        }
        for column in ["i", "l", "b", "g"] {
            for filter in [json!({ column: text }), json!({ column: [text] })] {
                let question = json!({ "type": "odd", "params": { "filter": filter } });
                let either = [Told::Reply, bad_param()];
                stage.ask("A30", question.to_string(), &either).await;
            }
        }
    }
    for (column, text) in [
        ("i", "10.0.0.1"),
        ("l", "P1D"),
        ("b", "101"),
        ("g", "[1,2]"),
    ] {
        let question = json!({ "type": "odd", "params": { "filter": { column: text } } });
        let rows = stage.ask("A30", question.to_string(), &[Told::Reply]).await;
        assert!(rows.contains("\"id\":1"), "{column}: {rows}");
    }
    let ready = reqwest::get(stage.server.url("/readyz")).await.unwrap();
    assert_eq!(ready.status(), 200);
}
