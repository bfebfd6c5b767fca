//! Topics over a query on several tables, from PostgreSQL by way of NATS.

use serde_json::{Value as Json, json};

use crate::support::wait_until;

use super::{Site, rowcast, says};

const TABLES: &str = "
CREATE TYPE level AS ENUM ('low', 'high');
CREATE TABLE patient (id int PRIMARY KEY, name text NOT NULL, care level NOT NULL, data json);
CREATE TABLE visit (id bigint PRIMARY KEY, patient int, visitor text, arrived timestamptz);
CREATE TABLE bed (id int PRIMARY KEY);
INSERT INTO patient VALUES (1, 'Wang', 'low', '{\"a\": 1}'), (2, 'Li', 'high', NULL);
INSERT INTO visit VALUES (1, 1, 'Fang', '2026-01-02 03:04:05+00');
";

const QUERY: &str = "SELECT v.id, p.name, p.care, p.data, v.arrived, count(*) OVER () AS visits \
    FROM visit v LEFT JOIN patient p ON p.id = v.patient;";

fn topic(query: &str, watch: &str) -> String {
    format!(
        "[[topics]]\ntype = \"board\"\nquery = '''{query}'''\nwatch = [{watch}]\nkey = [\"id\"]\n"
    )
}

fn both(query: &str) -> String {
    topic(query, "\"visit\", \"public.patient\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_any_watched_table_pushes_the_page_on_every_gateway() {
    let site = Site::new(TABLES);
    let mut producer = site.producer(&both(QUERY)).await;
    let published =
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    assert_eq!(site.database.one(published), "patient visit");
    let gateways = [site.gateway(&both(QUERY)), site.gateway(&both(QUERY))];
    let mut sockets = Vec::new();
    for gateway in &gateways {
        sockets.push(gateway.socket("").await);
    }
    let first = json!({ "id": 1, "name": "Wang", "care": "low", "data": { "a": 1 },
        "arrived": "2026-01-02T03:04:05Z", "visits": 1 });
    for (change, name, care) in [
        (
            "UPDATE patient SET name = 'W' WHERE id = 1",
            "W",
            json!("low"),
        ),
        (
            "UPDATE visit SET patient = 2; INSERT INTO bed VALUES (1)",
            "Li",
            json!("high"),
        ),
    ] {
        site.database.sql(change);
        for socket in &mut sockets {
            let page = socket.next().await;
            let row = &page["data"][0];
            assert_eq!(
                (&page["op"], &row["name"]),
                (&json!("replace"), &json!(name))
            );
            assert_eq!(row["care"], care);
            assert_eq!(
                row["arrived"].as_str().map(|at| &at[..10]),
                Some("2026-01-02")
            );
        }
    }
    site.database
        .sql("UPDATE visit SET patient = 1; UPDATE patient SET name = 'Wang' WHERE id = 1");
    let settled = |page: &Json| page["data"][0]["name"] == "Wang";
    let page = sockets[1].next_where("both changes", settled).await;
    assert_eq!(page["data"][0]["data"], first["data"]);
    for (params, expected) in [
        (json!({ "filter": { "care": "low", "visits": 1 } }), 1),
        (json!({ "filter": { "care": "high" } }), 0),
        (
            json!({ "filter": { "arrived": { "gt": "2026-01-01T00:00:00Z" } } }),
            1,
        ),
        (json!({ "all": true, "order": "care desc" }), 1),
    ] {
        let question = json!({ "type": "board", "rid": 1, "params": params });
        let reply = sockets[1].ask(question).await;
        assert_eq!(
            reply["data"].as_array().map(Vec::len),
            Some(expected),
            "{reply}"
        );
    }
    // Such a reply has its exact place in the stream, too.
    wait_until("an exact reply", || async {
        let mut socket = gateways[0].socket("").await;
        let reply = socket
            .ask(json!({ "type": "board", "rid": 2, "id": 1 }))
            .await;
        assert_eq!(reply["data"][0]["name"], "Wang");
        reply["exact"].is_null().then_some(())
    })
    .await;
    // Another definition is told by the producer that brings it.
    producer.kill();
    let wider = both(&QUERY.replace("p.name", "upper(p.name) AS name"));
    let told = gateways[0].counted("pages_read_total").await;
    let _producer = site.producer(&wider).await;
    wait_until("a page for the new definition", || async {
        (gateways[0].counted("pages_read_total").await > told).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_query_is_named() {
    let site = Site::new(TABLES);
    site.database.sql(
        "CREATE VIEW overview AS SELECT 1 AS id; CREATE TABLE bare (id int);
         CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL",
    );
    for (query, watch, words) in [
        (
            "SELECT 1 AS id; SELECT 2",
            "\"visit\"",
            &["query", "multiple commands"][..],
        ),
        (
            "WITH x AS (DELETE FROM visit RETURNING id) SELECT id FROM x",
            "\"visit\"",
            &["query", "refuses it"],
        ),
        (
            "SELECT id FROM visit FOR UPDATE",
            "\"visit\"",
            &["query", "read-only"],
        ),
        (
            "SELECT id INTO t FROM visit",
            "\"visit\"",
            &["query", "must be one SELECT"],
        ),
        (
            "SELECT $1::int AS id",
            "\"visit\"",
            &["query", "cannot have parameters"],
        ),
        ("SELECT idd FROM visit", "\"visit\"", &["query", "idd"]),
        (
            "SELECT v.id, p.id FROM visit v, patient p",
            "\"visit\"",
            &["query", "two columns \"id\""],
        ),
        (
            "SELECT data AS id FROM patient",
            "\"patient\"",
            &["key", "no order"],
        ),
        (
            "SELECT 1 AS id",
            "\"visits\"",
            &["watch", "did you mean \"public.visit\"?"],
        ),
        (
            "SELECT 1 AS id",
            "\"overview\"",
            &["watch", "a view cannot be watched"],
        ),
    ] {
        let ran = rowcast(&site.config(&topic(query, watch)), &["check"]);
        says(&ran, 64, words);
        says(&ran, 64, &[&format!("topics[0].{}", words[0])]);
    }
    let config = site.config(&topic("SELECT 1 AS id", "\"whole\", \"visit\""));
    says(
        &rowcast(&config, &["check"]),
        0,
        &["public.whole can be followed", "public.visit can be"],
    );
    // A producer's role may lack the right to read what it publishes.
    let role = format!("blind_{}", site.database.name());
    site.database
        .sql(&format!("CREATE ROLE {role} LOGIN REPLICATION"));
    let url = site
        .database
        .url()
        .replace("postgres@", &format!("{role}@"));
    let config = site.config_of(&url, &site.nats.url(), &both(QUERY));
    let ran = rowcast(&config, &["check"]);
    says(
        &ran,
        0,
        &["topics: 1 fit the database", "public.visit may not be read"],
    );
    let config = site.config(&topic("SELECT 1 AS id", "\"bare\""));
    says(
        &rowcast(&config, &["check"]),
        1,
        &["public.bare has no replica identity"],
    );
}
