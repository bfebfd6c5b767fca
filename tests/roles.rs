//! The roles of deploy/roles.sql: with them the whole chain works, and neither of them writes a row or
//! reads one that is not its business. The file is run as it is, by psql.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{
    Folder, Nats, Options, Producer, Server,
    nats::shipped,
    postgres::{Cluster, Database, binaries},
    wait_until,
};

const TABLES: &str = "
CREATE TABLE patient (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE visit (id int PRIMARY KEY, patient_id int NOT NULL, visitor text NOT NULL);
CREATE TABLE account (id serial PRIMARY KEY, password text NOT NULL);
INSERT INTO patient VALUES (1, 'Anna');
INSERT INTO account (password) VALUES ('s3cret');
CREATE FUNCTION renames() RETURNS int LANGUAGE sql SECURITY DEFINER
    AS 'UPDATE patient SET name = ''Nobody'' RETURNING id';
";

const TOPICS: &str = "
[[topics]]
type = \"patient\"
table = \"patient\"

[[topics]]
type = \"visitors\"
query = \"SELECT v.id, v.visitor, p.name FROM visit v JOIN patient p ON p.id = v.patient_id\"
watch = [\"visit\", \"patient\"]
key = [\"id\"]
";

/// A server of one's own, for roles belong to the whole of it.
struct Site {
    _cluster: Cluster,
    database: Database,
}

impl Site {
    /// With the roles, made the strict way or not.
    fn new(strict: bool) -> Self {
        let cluster = Cluster::own(&[]);
        let database = cluster.database();
        database.sql(TABLES);
        let site = Self {
            _cluster: cluster,
            database,
        };
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/roles.sql");
        let mut args = vec!["-v", "tables=patient, visit", "-f", file];
        if strict {
            args.extend(["-v", "strict=1"]);
        }
        let made = site.psql("postgres", &args);
        assert_eq!(made, Ok(String::new()), "roles.sql");
        site
    }

    fn url(&self, role: &str) -> String {
        let url = self.database.url();
        url.replace("postgres@", &format!("{role}@"))
    }

    /// What psql prints as a role, or what it says went wrong.
    fn psql(&self, role: &str, args: &[&str]) -> Result<String, String> {
        let ran = Command::new(binaries().join("psql"))
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set", "ON_ERROR_STOP=1", "--dbname", &self.url(role)])
            .args(args)
            .env("ROWCAST_PRODUCER_PASSWORD", "p'1")
            .env("ROWCAST_GATEWAY_PASSWORD", "g$1")
            .stdin(Stdio::null())
            .output()
            .expect("psql is missing: apt-get install -y postgresql");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match ran.status.success() {
            true => Ok(text(&ran.stdout)),
            false => Err(text(&ran.stderr)),
        }
    }

    /// One statement as a role that has freed itself of its settings, as anybody may.
    fn freed(&self, role: &str, sql: &str) -> Result<String, String> {
        let free = "SET default_transaction_read_only = off";
        self.psql(role, &["-c", free, "-c", sql])
    }

    fn config(&self, nats: &Nats, role: &str, user: &str) -> String {
        format!(
            "[database]\nurl = \"{}\"\nheartbeat_interval_ms = 500\n[bus]\nurl = \"{}\"\n{TOPICS}",
            self.url(role),
            nats.url_as(user)
        )
    }
}

async fn whole_chain(site: &Site) {
    let nats = Nats::with(shipped());
    let config = site.config(&nats, "rowcast_producer", "producer");
    let folder = Folder::new();
    folder.write("rowcast.toml", &config);
    let checked = folder.run(&["check"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    assert!(
        !checked.stdout.contains("warning public."),
        "{}",
        checked.stdout
    );
    let producer = Producer::start(&config);
    wait_until("a producer", async || {
        producer.is_ready().await.then_some(())
    })
    .await;
    let gateway = Server::with(Options {
        config: Some(site.config(&nats, "rowcast_gateway", "gateway")),
        ..Options::default()
    });
    let mut socket = gateway.socket("").await;
    site.database.sql("UPDATE patient SET name = 'Berta'");
    let told = socket.next_of("patient").await;
    assert_eq!(told["data"]["name"], "Berta", "{told}");
    site.database.sql("INSERT INTO visit VALUES (1, 1, 'Emil')");
    let page = socket
        .next_where("the visit", |frame| {
            frame["type"] == "visitors" && frame["data"][0]["visitor"] == "Emil"
        })
        .await;
    assert_eq!(page["data"][0]["name"], "Berta", "{page}");
    for topic in ["patient", "visitors"] {
        let reply = socket.ask(json!({"type": topic, "rid": 1})).await;
        assert_eq!(reply["data"][0]["name"], "Berta", "{reply}");
        assert_eq!(reply.get("exact"), None, "{reply}");
    }
    // The application emits an event in its own transaction, if it may.
    site.database
        .sql("SELECT pg_logical_emit_message(true, 'rowcast:patient', '{\"n\":1}')");
    let emitted = socket
        .next_where("the event", |frame| frame["op"] == "event")
        .await;
    assert_eq!(emitted["data"]["n"], 1);
}

/// Statements that neither role can carry out, whatever it sets.
const WRITES: [&str; 23] = [
    "INSERT INTO patient VALUES (2, 'x')",
    "UPDATE patient SET name = 'x'",
    "DELETE FROM patient",
    "TRUNCATE patient",
    "SELECT id FROM patient FOR UPDATE",
    "DO $$ BEGIN LOCK TABLE patient IN SHARE MODE; END $$",
    "COPY patient FROM '/dev/null'",
    "COPY patient TO PROGRAM 'cat'",
    "CREATE TABLE public.mine (id int)",
    "CREATE SCHEMA mine",
    "CREATE PUBLICATION mine",
    "CREATE INDEX ON patient (name)",
    "ALTER TABLE patient ADD COLUMN mine int",
    "ALTER TABLE patient REPLICA IDENTITY NOTHING",
    "ALTER PUBLICATION rowcast DROP TABLE patient",
    "DROP PUBLICATION rowcast",
    "DROP TABLE patient",
    "CREATE ROLE mine",
    "ALTER ROLE rowcast_gateway SUPERUSER",
    "SELECT nextval('account_id_seq')",
    "SELECT password FROM account",
    "SELECT pg_read_file('/etc/passwd')",
    "SET ROLE postgres",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_chain_works_with_the_two_roles() {
    let site = Site::new(false);
    whole_chain(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_chain_works_with_the_two_roles_made_the_strict_way() {
    let site = Site::new(true);
    whole_chain(&site).await;
    site.database.sql("CREATE ROLE stranger LOGIN");
    for (role, sql) in [
        ("rowcast_gateway", "CREATE TEMPORARY TABLE mine (id int)"),
        ("stranger", "CREATE TEMPORARY TABLE mine (id int)"),
        ("stranger", "CREATE TABLE public.mine (id int)"),
        (
            "stranger",
            "SELECT pg_logical_emit_message(true, 'rowcast:patient', '1')",
        ),
    ] {
        let refused = site.freed(role, sql).unwrap_err();
        assert!(
            refused.contains("permission denied"),
            "{role}: {sql}: {refused}"
        );
    }
}

#[test]
fn neither_role_writes_or_reads_what_is_not_its_business() {
    let site = Site::new(false);
    for role in ["rowcast_gateway", "rowcast_producer"] {
        for sql in WRITES {
            let refused = site.freed(role, sql).expect_err(sql);
            let denied = [
                "permission denied",
                "must be owner",
                "must be superuser",
                "must be member",
            ];
            assert!(
                denied.iter().any(|text| refused.contains(text)),
                "{role}: {sql}: {refused}"
            );
        }
    }
    // The producer reads no table, the gateway no log.
    let read = "SELECT name FROM patient";
    assert!(
        site.freed("rowcast_producer", read)
            .unwrap_err()
            .contains("permission denied")
    );
    assert_eq!(site.freed("rowcast_gateway", read), Ok("Anna".into()));
    let slot = "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')";
    let refused = site.freed("rowcast_gateway", slot).unwrap_err();
    assert!(
        refused.contains("superuser or replication role") || refused.contains("permission denied"),
        "{refused}"
    );
    // What was granted by mistake, and a function with its owner's rights, are stopped by the settings.
    site.database
        .sql("GRANT INSERT ON patient TO rowcast_gateway, rowcast_producer");
    for role in ["rowcast_gateway", "rowcast_producer"] {
        for sql in ["INSERT INTO patient VALUES (2, 'x')", "SELECT renames()"] {
            let refused = site.psql(role, &["-c", sql]).unwrap_err();
            assert!(
                refused.contains("read-only transaction"),
                "{role}: {sql}: {refused}"
            );
        }
    }
    assert_eq!(site.database.one("SELECT name FROM patient"), "Anna");
    // Who has the gateway's password keeps nobody waiting for long.
    for name in [
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
    ] {
        let shown = site.psql("rowcast_gateway", &["-c", &format!("SHOW {name}")]);
        assert_eq!(shown, Ok("10s".into()), "{name}");
    }
}
