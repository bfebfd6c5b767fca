//! Tables of a real PostgreSQL, as Rowcast describes them.

use rowcast::{
    postgres::{Address, DescribeError, connect, describe, tables},
    topic::{Collation, Kind, Table},
};
use tokio_postgres::Client;

use crate::support::{
    DEADLINE,
    postgres::{Cluster, Database, database},
};

async fn client(database: &Database) -> Client {
    let address = Address::parse(&database.url()).unwrap();
    connect(&address, DEADLINE, &[]).await.unwrap().client
}

async fn table(client: &Client, name: &str) -> Table {
    describe(client, name).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_table_is_described_with_its_kinds_keys_and_collations() {
    let database = database();
    database.sql(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE DOMAIN email AS varchar(99) CHECK (value LIKE '%@%');
         CREATE SCHEMA care;
         CREATE TABLE care.\"Patient x\" (gone int, id bigint GENERATED ALWAYS AS IDENTITY,
             name text NOT NULL, code text COLLATE \"C\" NOT NULL UNIQUE, mood mood, mail email,
             mails email[], size int, area int GENERATED ALWAYS AS (size * size) STORED,
             late int UNIQUE DEFERRABLE, PRIMARY KEY (name, id));
         ALTER TABLE care.\"Patient x\" DROP COLUMN gone;
         CREATE COLLATION folded (provider = icu, locale = 'und', deterministic = false);
         ALTER TABLE care.\"Patient x\" ADD word text COLLATE folded",
    );
    let client = client(&database).await;
    let table = table(&client, "care.Patient x").await;
    assert_eq!(table.name, "care.Patient x");
    let names: Vec<_> = table.columns.iter().map(|column| &*column.name).collect();
    assert_eq!(
        names,
        [
            "id", "name", "code", "mood", "mail", "mails", "size", "late", "word"
        ]
    );
    assert_eq!(table.primary_key, ["name", "id"]);
    assert_eq!(table.unique, [["code"]]);
    let kind = |name: &str| table.column(name).unwrap().kind.clone().unwrap();
    let labels = ["sad".into(), "glad".into()].into();
    assert_eq!(kind("mood"), Kind::Enum { labels });
    assert_eq!(kind("mail"), Kind::Text);
    let mails = Kind::Array {
        element: Box::new(Kind::Text),
        delimiter: ',',
    };
    assert_eq!(kind("mails"), mails);
    assert!(table.column("id").unwrap().not_null);
    assert!(!table.column("size").unwrap().not_null);
    let collation = |name: &str| table.column(name).unwrap().collation;
    assert_eq!(collation("code"), Collation::Binary);
    assert_eq!(collation("name"), Collation::Locale);
    assert_eq!(collation("word"), Collation::Other);
    assert_eq!(collation("size"), Collation::Binary);
}

#[tokio::test]
async fn a_name_is_found_on_the_search_path_or_in_its_schema() {
    let database = database();
    database.sql(
        "CREATE TABLE patient (id int PRIMARY KEY); CREATE SCHEMA care;
         CREATE TABLE care.patient (id int PRIMARY KEY, more int); CREATE TABLE care.ward (id int)",
    );
    let client = client(&database).await;
    assert_eq!(table(&client, "patient").await.name, "public.patient");
    assert_eq!(table(&client, "care.patient").await.columns.len(), 2);
    assert_eq!(describe(&client, "ward").await.unwrap(), None);
    assert_eq!(describe(&client, "Patient").await.unwrap(), None);
    assert_eq!(
        tables(&client).await.unwrap(),
        ["public.patient", "care.patient", "care.ward"]
    );
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_with_the_reason() {
    let database = database();
    database.sql(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t;
         CREATE UNLOGGED TABLE u (id int); CREATE TABLE child () INHERITS (t);
         CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (9);
         CREATE TABLE \"a.b\" (id int)",
    );
    let client = client(&database).await;
    for (name, reason) in [
        ("v", "a view cannot be watched"),
        ("u", "unlogged"),
        ("t", "INHERIT"),
        ("part", "a partition cannot be watched by itself"),
        ("public.a.b", "names with a dot"),
        ("say \"x\"", "names with a dot or a quote"),
    ] {
        let refused = describe(&client, name).await;
        let Err(DescribeError::Unfit(text)) = refused else {
            panic!("{name}: {refused:?}");
        };
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(table(&client, "parts").await.primary_key, ["id"]);
    assert_eq!(table(&client, "child").await.columns.len(), 1);
}

#[tokio::test]
async fn a_server_that_is_gone_or_frozen_is_told_in_time() {
    let cluster = Cluster::own(&[]);
    let address = Address::parse(&cluster.url("postgres")).unwrap();
    let short = std::time::Duration::from_millis(300);
    assert!(connect(&address, DEADLINE, &[]).await.is_ok());
    cluster.freeze();
    assert!(connect(&address, short, &[]).await.is_err());
    cluster.thaw();
    assert!(connect(&address, DEADLINE, &[]).await.is_ok());
    cluster.kill();
    assert!(connect(&address, DEADLINE, &[]).await.is_err());
    cluster.start();
    assert!(connect(&address, DEADLINE, &[]).await.is_ok());
}
