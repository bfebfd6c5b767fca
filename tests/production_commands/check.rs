//! `rowcast check` and `rowcast init`: what is not met is named with its remedy.

use crate::support::{
    Folder, Nats, NatsOptions,
    postgres::{Cluster, database},
};

use super::{Site, TABLE, TOPIC, nobody, rowcast, says};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_installation_passes_before_and_while_a_producer_runs() {
    let site = Site::new(TABLE);
    let config = site.config(TOPIC);
    let ran = rowcast(&config, &["check"]);
    let slot = site.slot();
    says(
        &ran,
        0,
        &[
            "topics: 1 fit the database",
            &format!("the replication slot \"{slot}\" will be made"),
            "the publication \"rowcast\" will be made",
            "public.t can be followed",
            "BUFFERED",
        ],
    );
    assert!(!ran.stdout.contains("FAILED"), "{}", ran.stdout);
    // Nothing was made by looking.
    assert_eq!(
        site.database.one("SELECT count(*) FROM pg_publication"),
        "0"
    );
    let _producer = site.producer(TOPIC).await;
    let ran = rowcast(&config, &["check"]);
    says(
        &ran,
        0,
        &[
            &format!("the replication slot \"{slot}\" is read by process"),
            "the publication \"rowcast\" is ours",
        ],
    );
}

#[test]
fn what_is_wrong_with_a_database_is_named_with_its_remedy() {
    let site = Site::new(TABLE);
    let nats = site.nats.url();
    let fails = |database: &str, topics: &str, parts: &[&str]| {
        let ran = rowcast(&site.config_of(database, &nats, topics), &["check"]);
        says(&ran, 1, parts);
        assert!(ran.stdout.contains("FAILED"), "{}", ran.stdout);
    };
    let url = site.database.url();
    let role = format!("plain_{}", site.database.name());
    site.database.sql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON t TO {role}"
    ));
    fails(
        &url.replace("postgres@", &format!("{role}@")),
        TOPIC,
        &[
            &format!("role {role} lacks REPLICATION"),
            &format!("ALTER ROLE \"{role}\" REPLICATION"),
        ],
    );
    site.database
        .sql("CREATE TABLE loose (id int NOT NULL UNIQUE, n int)");
    let loose = "[[topics]]\ntype = \"t\"\ntable = \"loose\"\nkey = [\"id\"]\n";
    fails(
        &url,
        loose,
        &[
            "public.loose has no replica identity",
            "REPLICA IDENTITY FULL",
        ],
    );
    site.database.sql("ALTER TABLE loose REPLICA IDENTITY FULL");
    let ran = rowcast(&site.config_of(&url, &nats, loose), &["check"]);
    says(&ran, 0, &["public.loose can be followed"]);
    let slot = site.slot();
    site.database.sql(&format!(
        "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
    ));
    fails(
        &url,
        TOPIC,
        &[
            &format!("the replication slot \"{slot}\" is another's"),
            "name another one",
        ],
    );
    // Whoever is refused removes nothing either.
    says(
        &rowcast(&site.config(TOPIC), &["remove"]),
        1,
        &["is another's"],
    );
    fails(
        &format!("{}/test", nobody("postgres://postgres@")),
        TOPIC,
        &[
            "cannot be read",
            "refused",
            "see that PostgreSQL runs there",
        ],
    );
    let missing = "[[topics]]\ntype = \"t\"\ntable = \"lose\"\nkey = [\"id\"]\n";
    let ran = rowcast(&site.config_of(&url, &nats, missing), &["check"]);
    says(
        &ran,
        64,
        &[
            "no table \"lose\"",
            "did you mean \"public.loose\"?",
            "rowcast.toml",
        ],
    );
    site.database.sql(&format!(
        "SELECT pg_drop_replication_slot('{slot}'); DROP OWNED BY {role}; DROP ROLE {role}"
    ));
}

#[test]
fn a_server_that_logs_too_little_is_named() {
    let cluster = Cluster::own(&[("wal_level", "replica")]);
    let database = cluster.database();
    database.sql(TABLE);
    let nats = Nats::start();
    let config = format!(
        "[database]\nurl = \"{}\"\n[bus]\nurl = \"{}\"\n{TOPIC}",
        database.url(),
        nats.url()
    );
    says(
        &rowcast(&config, &["check"]),
        1,
        &[
            "wal_level is replica",
            "ALTER SYSTEM SET wal_level = logical, and restart the server",
        ],
    );
}

#[test]
fn what_is_wrong_with_nats_is_named_with_its_remedy() {
    let database = database();
    database.sql(TABLE);
    let check = |bus: &str| {
        let url = database.url();
        let config = format!("[database]\nurl = \"{url}\"\n[bus]\nurl = \"{bus}\"\n{TOPIC}");
        rowcast(&config, &["check"])
    };
    let remedy = "nats-server 2.12 or later runs there with JetStream";
    says(&check(&nobody("nats://")), 1, &["FAILED  bus:", remedy]);
    let bare = Nats::with(NatsOptions {
        bare: true,
        ..NatsOptions::default()
    });
    says(
        &check(&bare.url()),
        1,
        &["FAILED  bus:", "JetStream", "nats-server -js"],
    );
    let guarded = Nats::with(NatsOptions {
        extra: "authorization { user: care, password: right }\n".into(),
        sync_interval: Some("always".into()),
        ..NatsOptions::default()
    });
    let ran = check(&guarded.url_of("care", "s3cret-and-wrong"));
    says(
        &ran,
        1,
        &["FAILED  bus:", "refuses these credentials", "password"],
    );
    assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
    says(&check(&guarded.url_of("care", "right")), 0, &["answers"]);
}

#[test]
fn init_writes_a_configuration_that_passes() {
    let site = Site::new(TABLE);
    site.database.sql(
        "CREATE TABLE visit (patient int, day date, note text, PRIMARY KEY (patient, day));
         CREATE TABLE auth_token (id int PRIMARY KEY, secret text)",
    );
    let folder = Folder::new();
    let made = folder.run(&["init", "--database", &site.database.url()]);
    says(&made, 0, &[]);
    let written = std::fs::read_to_string(folder.path("rowcast.toml")).unwrap();
    assert!(written.contains("visit"), "{written}");
    let bus = site.nats.url();
    let args = ["check", "--config", "rowcast.toml", "--bus", &bus];
    says(
        &folder.run(&args),
        0,
        &["topics: 2 fit the database", "public.visit can be followed"],
    );
    // It is not written over.
    says(
        &folder.run(&["init", "--database", &site.database.url()]),
        64,
        &["--force"],
    );
}
