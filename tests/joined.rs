//! Topics over a query on several tables of a SQLite file. tests/production_commands/joined.rs
//! has the same for PostgreSQL and NATS; how such a topic is queried, tests/store_contract.rs.

use std::time::Instant;

use serde_json::json;

use crate::{
    support::{Folder, Python, Server, sqlite3, wait_until},
    wire::ids,
};

const TABLES: &str = "
    CREATE TABLE patient (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INTEGER);
    INSERT INTO patient VALUES (1, '王秀英', 86), (2, '李建国', 82);
    CREATE TABLE visit (id INTEGER PRIMARY KEY, patient_id INTEGER, visitor TEXT);
    INSERT INTO visit VALUES (1, 1, '王芳');
    CREATE TABLE bed (id INTEGER PRIMARY KEY);
    CREATE VIEW overview AS SELECT 1 AS id;
    CREATE TABLE keyless (a);";

const QUERY: &str = "SELECT v.id, v.visitor, p.name AS patient \
    FROM visit v JOIN patient p ON p.id = v.patient_id";

fn board(query: &str) -> String {
    format!(
        "[[topics]]\ntype = \"board\"\nquery = \"\"\"{query};\n\"\"\"\nkey = [\"id\"]\n\
         watch = [\"Visit\", \"patient\", \"visit\"]\norder_by = [\"id\"]\n\
         [[topics]]\ntype = \"bed\"\ntable = \"bed\"\n"
    )
}

fn serve() -> Server {
    Server::configured(&board(QUERY), TABLES)
}

#[tokio::test]
async fn a_change_of_any_watched_table_pushes_the_page() {
    let server = serve();
    let mut socket = server.socket("types=board").await;
    for (change, expected) in [
        (
            "UPDATE patient SET name = '王英' WHERE id = 1",
            json!([{ "id": 1, "visitor": "王芳", "patient": "王英" }]),
        ),
        (
            "INSERT INTO visit VALUES (2, 2, '李强')",
            json!([{ "id": 1, "visitor": "王芳", "patient": "王英" },
                   { "id": 2, "visitor": "李强", "patient": "李建国" }]),
        ),
        (
            "DELETE FROM patient WHERE id = 1",
            json!([{ "id": 2, "visitor": "李强", "patient": "李建国" }]),
        ),
    ] {
        sqlite3(&server.database(), change);
        let page = socket.next().await;
        assert_eq!((&page["op"], &page["data"]), (&json!("replace"), &expected));
        let reply = socket.ask(json!({ "type": "board", "rid": 1 })).await;
        assert_eq!(reply["data"], expected);
    }
    let one = json!({ "type": "board", "rid": 2, "id": 2 });
    assert_eq!(ids(&socket.ask(one).await), [2]);
    let list =
        json!({ "type": "board", "rid": 3, "params": { "filter": { "patient": "李建国" } } });
    let reply = socket.ask(list).await;
    assert_eq!((ids(&reply), &reply["page"]["total"]), (vec![2], &json!(1)));
    // A table that is altered under capture, and one that is nobody's.
    sqlite3(
        &server.database(),
        "INSERT INTO bed VALUES (1); ALTER TABLE visit RENAME COLUMN patient_id TO patient",
    );
    sqlite3(
        &server.database(),
        "ALTER TABLE visit RENAME COLUMN patient TO patient_id; UPDATE visit SET visitor = '李'",
    );
    let changed = |page: &serde_json::Value| page["data"][0]["visitor"] == "李";
    socket
        .next_where("a page of the altered table", changed)
        .await;
}

#[tokio::test]
async fn a_burst_on_both_tables_is_read_a_few_times_at_the_most() {
    let server = serve();
    let mut socket = server.socket("types=board").await;
    let mut python = Python::on(&server.database());
    let begun = Instant::now();
    for id in 10..60 {
        python.run(&[
            &format!("INSERT INTO visit VALUES ({id}, 1, 'v{id}')"),
            &format!("UPDATE patient SET name = 'p{id}' WHERE id = 1"),
        ]);
    }
    let mut pages = 0;
    let last = socket.next_where("the last page", |page| {
        pages += 1;
        page["page"]["total"] == 51 && page["data"][0]["patient"] == "p59"
    });
    assert_eq!(last.await["op"], "replace");
    let took = begun.elapsed();
    // One every 40 ms, however slowly they are written here, and one at the start.
    let most = took.as_millis() / 40 + 2;
    assert!(pages <= most, "{pages} pages in {took:?}");
    let reads = u128::from(server.counted("pages_read_total").await);
    assert!(reads <= most + 1, "{reads} reads in {took:?}");
}

/// The cursor of a reply now, as its epoch and its offset.
async fn cursor(server: &Server) -> (String, u64) {
    let mut socket = server.socket("types=board").await;
    let reply = socket.ask(json!({ "type": "board", "rid": 1 })).await;
    let (epoch, place) = reply["cursor"].as_str().unwrap().split_once(':').unwrap();
    let offset = place.split('-').next().unwrap();
    (epoch.to_owned(), offset.parse().unwrap())
}

#[tokio::test]
async fn another_query_and_other_tables_to_watch_are_told_after_a_restart() {
    let mut server = serve();
    let (epoch, first) = cursor(&server).await;
    let mut told = first;
    let config = server.folder().join("rowcast.toml");
    let wider = QUERY.replace("p.name", "p.id + 1000");
    let fewer = board(&wider).replace("\"Visit\", \"patient\", \"visit\"", "\"patient\"");
    for (definition, more) in [(board(QUERY), 0), (board(&wider), 1), (fewer, 1)] {
        std::fs::write(&config, definition).unwrap();
        server.kill();
        server.restart();
        told += more;
        wait_until("what a changed definition brings", || async {
            (cursor(&server).await.1 == told).then_some(())
        })
        .await;
        // Nothing was told beside it: the next change is the next event.
        let mut socket = server.socket("types=board").await;
        let change = "UPDATE patient SET age = age + 1 WHERE id = 1";
        sqlite3(&server.database(), change);
        told += 1;
        assert_eq!(socket.next().await["op"], "replace");
        assert_eq!(cursor(&server).await.1, told);
    }
    // Whoever resumes gets the page as it is now, and no reset.
    let since = format!("types=board&since={epoch}:{first}");
    let mut socket = server.socket(&since).await;
    assert_eq!(socket.next().await["type"], "sys:caught_up");
    assert_eq!(socket.next().await["data"][0]["patient"], 1001);
}

#[tokio::test]
async fn the_topics_name_what_a_query_watches_and_its_columns() {
    let server = serve();
    let (_, topics) = server.get("/api/topics").await;
    let board = &topics["topics"][0];
    assert_eq!(board["push"], "page");
    assert_eq!(board["table"], json!(null));
    assert_eq!(board["watch"], json!(["visit", "patient"]));
    assert_eq!(board["key"], json!(["id"]));
    assert_eq!(board["columns"], json!(["id", "visitor", "patient"]));
    let visitor = &board["schema"]["properties"]["visitor"];
    assert_eq!(visitor["type"], json!(["string", "null"]));
}

#[test]
fn a_query_that_cannot_be_a_topic_ends_with_64_and_says_why() {
    let good = ("query", format!("\"{QUERY}\""));
    let topic = |changed: &[(&'static str, &str)]| {
        let mut keys = vec![
            good.clone(),
            ("watch", "[\"visit\", \"patient\"]".to_owned()),
            ("key", "[\"id\"]".to_owned()),
        ];
        keys.retain(|(key, _)| changed.iter().all(|(other, _)| other != key));
        let changed = changed.iter().filter(|(_, value)| !value.is_empty());
        keys.extend(changed.map(|(key, value)| (*key, (*value).to_owned())));
        let lines = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
        format!("[[topics]]\ntype = \"t\"\n{}", lines.collect::<String>())
    };
    let fine = Folder::with(&topic(&[]), TABLES).run(&["check"]);
    assert_eq!(fine.code, 0, "{fine:?}");
    for (changed, words) in [
        (
            &[("table", "\"visit\"")][..],
            &["topics[0].query", "`table` or a `query`"][..],
        ),
        (&[("watch", "")], &["topics[0].watch", "needs the tables"]),
        (
            &[("query", ""), ("key", "")],
            &["topics[0].watch", "belongs to a `query`"],
        ),
        (
            &[("where", "\"id = 1\"")],
            &["topics[0].where", "in itself"],
        ),
        (&[("push", "\"row\"")], &["topics[0].push", "pushes pages"]),
        (&[("key", "")], &["topics[0].key", "tell its rows apart"]),
        (
            &[("key", "[\"idd\"]")],
            &[
                "topics[0].key",
                "the query's result",
                "did you mean \"id\"?",
            ],
        ),
        (
            &[("columns", "[\"nam\"]")],
            &["topics[0].columns", "visitor, patient"],
        ),
        (
            &[("order_by", "[\"visito\"]")],
            &["topics[0].order_by", "did you mean \"visitor\"?"],
        ),
        (
            &[("watch", "[\"visits\"]")],
            &["topics[0].watch", "did you mean \"visit\"?"],
        ),
        (
            &[("watch", "[\"overview\"]")],
            &["topics[0].watch", "views cannot be watched"],
        ),
        (
            &[("watch", "[\"keyless\"]")],
            &["topics[0].watch", "\"keyless\" has no primary key"],
        ),
        (
            &[("query", "\"DELETE FROM visit\"")],
            &["topics[0].query", "must be one SELECT"],
        ),
        (
            &[("query", "\"VALUES (1)\"")],
            &["topics[0].query", "must be one SELECT"],
        ),
        (
            &[("query", "\"/* a */ -- b\\nPRAGMA user_version\"")],
            &["topics[0].query", "must be one SELECT"],
        ),
        (
            &[("query", "\"WITH x AS (SELECT 1) DELETE FROM visit\"")],
            &["topics[0].query", "must be one SELECT"],
        ),
        (
            &[("query", "\"SELECT 1 AS id; DELETE FROM visit\"")],
            &["topics[0].query", "nothing behind it"],
        ),
        (
            &[("query", "\"SELECT 1 AS id) t; --\"")],
            &["topics[0].query", "refuses it"],
        ),
        (
            &[("query", "\"SELECT ? AS id\"")],
            &["topics[0].query", "cannot have parameters"],
        ),
        (
            &[("query", "\"SELECT idd FROM visit\"")],
            &["topics[0].query", "no such column: idd"],
        ),
        (
            &[("query", "\"SELECT v.id, p.ID FROM visit v, patient p\"")],
            &["topics[0].query", "two columns \"id\""],
        ),
        (
            &[("query", "\"\"")],
            &["topics[0].query", "must be one SELECT"],
        ),
    ] {
        let folder = Folder::with(&topic(changed), TABLES);
        for command in ["check", "serve"] {
            let ran = folder.run(&[command]);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert_eq!(ran.code, 64, "{changed:?}: {said}");
            for word in words.iter().chain(&["rowcast.toml"]) {
                assert!(said.contains(word), "{changed:?}: {word} is not in {said}");
            }
        }
    }
}

#[tokio::test]
async fn triggers_of_watched_tables_are_taken_off_again() {
    let mut server = serve();
    let count = "SELECT group_concat(tbl_name, ' ') FROM (SELECT DISTINCT tbl_name
        FROM sqlite_schema WHERE type = 'trigger' ORDER BY tbl_name)";
    wait_until("triggers", async || {
        (sqlite3(&server.database(), count).trim() == "bed patient visit").then_some(())
    })
    .await;
    server.kill();
    let ran = crate::support::command::run(server.folder(), &["remove"], &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(sqlite3(&server.database(), count).trim(), "");
}
