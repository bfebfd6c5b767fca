//! `rowcast remove` and the rest that need no event.

use serde_json::{Value as Json, json};

use crate::support::wait_for;

use super::{Site, TABLE, TOPIC, nobody, rowcast, says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slot_and_publication_are_taken_off_unless_a_producer_reads() {
    let site = Site::new(TABLE);
    let config = site.config(TOPIC);
    let slot = site.slot();
    says(
        &rowcast(&config, &["remove"]),
        0,
        &["nothing of Rowcast is in"],
    );
    let mut producer = site.producer(TOPIC).await;
    says(
        &rowcast(&config, &["remove"]),
        1,
        &[
            &format!("\"{slot}\" is read by process"),
            "stop the producer first",
        ],
    );
    let count = "SELECT (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())";
    assert_eq!(site.database.one(count), "2");
    producer.kill();
    let active = "SELECT count(*) FROM pg_replication_slots
        WHERE active AND database = current_database()";
    wait_for("the slot to be free", || {
        (site.database.one(active) == "0").then_some(())
    });
    says(
        &rowcast(&config, &["remove"]),
        0,
        &[
            &format!("removed replication slot \"{slot}\" and publication \"rowcast\""),
            "nats stream rm",
        ],
    );
    assert_eq!(site.database.one(count), "0");
    says(
        &rowcast(&config, &["remove"]),
        0,
        &["nothing of Rowcast is in"],
    );
    let away = site.config_of(
        &format!("{}/test", nobody("postgres://postgres:s3cret@")),
        "nats://127.0.0.1",
        TOPIC,
    );
    let ran = rowcast(&away, &["remove"]);
    says(&ran, 1, &["refused"]);
    assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
}

#[test]
fn a_query_is_answered_straight_from_postgresql() {
    let site = Site::new(TABLE);
    site.database
        .sql("INSERT INTO t VALUES (2, 9007199254740993)");
    let config = site.config(TOPIC);
    let ran = rowcast(&config, &["query", "t", "--id", "2"]);
    says(&ran, 0, &[]);
    let frame: Json = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(frame["data"], json!([{"id": 2, "n": "9007199254740993"}]));
    assert_eq!(frame["exact"], false, "{frame}");
    let filtered = ["query", "t", "--filter", "{\"n\":{\"gt\":5}}"];
    let ran = rowcast(&config, &filtered);
    says(&ran, 0, &["\"id\":2"]);
    assert!(!ran.stdout.contains("\"id\":1"), "{}", ran.stdout);
    says(
        &rowcast(&config, &["query", "nothing"]),
        1,
        &["sys:error", "404"],
    );
    let away = format!("{}/test", nobody("postgres://postgres@"));
    let away = site.config_of(&away, "nats://127.0.0.1", TOPIC);
    says(
        &rowcast(&away, &["query", "t"]),
        1,
        &["cannot be read", "refused"],
    );
}

#[test]
fn a_producer_of_an_embedded_bus_says_what_to_do() {
    let config = "[database]\nurl = \"postgres://postgres@127.0.0.1/test\"\n";
    says(
        &rowcast(config, &["produce"]),
        1,
        &[
            "the bus is embedded",
            "rowcast serve",
            "--bus nats://host:4222",
        ],
    );
}
