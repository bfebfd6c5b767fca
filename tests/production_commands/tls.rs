//! PostgreSQL over TLS, with a password: queries and the change stream.

use serde_json::json;

use crate::support::{
    Authority, Nats, Producer,
    postgres::{Cluster, Database},
    wait_for, wait_until,
};

use super::{TABLE, TOPIC, gateway, ready, rowcast, says};

/// `care` gets in over TLS with a password only.
const HBA: &str = "
host all postgres 127.0.0.1/32 trust
hostssl all care 127.0.0.1/32 scram-sha-256
";

fn certify(cluster: &Cluster, database: &Database, (cert, key): (String, String)) {
    cluster.write("server.crt", &cert);
    cluster.write("server.key", &key);
    cluster.write("pg_hba.conf", HBA);
    database.sql("ALTER SYSTEM SET ssl = on");
    database.sql("SELECT pg_reload_conf()");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_connections_are_private_and_check_the_server() {
    let cluster = Cluster::own(&[]);
    let database = cluster.database();
    database.sql(TABLE);
    let name = database.name();
    database.sql(&format!(
        "CREATE ROLE care LOGIN REPLICATION PASSWORD 's3cret'; ALTER TABLE t OWNER TO care;
         ALTER DATABASE {name} OWNER TO care"
    ));
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    certify(&cluster, &database, right.sign("IP:127.0.0.1"));
    let nats = Nats::start();
    let config = |user: &str, tls: &str| {
        let url = database.url().replace("postgres@", &format!("{user}@"));
        let url = url.replace("sslmode=disable", tls);
        format!(
            "[database]\nurl = \"{url}\"\n[bus]\nurl = \"{}\"\n{TOPIC}",
            nats.url()
        )
    };
    let trusting = |authority: &Authority| {
        let file = authority.path("ca.pem");
        format!("sslmode=verify-full&sslrootcert={}", file.display())
    };
    let good = config("care:s3cret", &trusting(&right));
    // Settings are read again some moment after the server is told to.
    let ran = wait_for("the server to take TLS", || {
        let ran = rowcast(&good, &["check"]);
        (ran.code == 0).then_some(ran)
    });
    says(&ran, 0, &["the connection is encrypted"]);
    // The system's authorities, which replication is to trust as queries do.
    let system = config("care:s3cret", "sslmode=verify-full");
    let trusted = right.path("ca.pem");
    let trusting_system =
        Producer::start_with(&system, "SSL_CERT_FILE", &trusted.to_string_lossy());
    drop(ready(trusting_system).await);
    let _producer = ready(Producer::start(&good)).await;
    let gateway = gateway(good.clone());
    let mut socket = gateway.socket("").await;
    database.sql("UPDATE t SET n = 7");
    assert_eq!(socket.next().await["data"], json!({"id": 1, "n": 7}));
    let reply = socket.ask(json!({"type": "t", "rid": 1, "id": 1})).await;
    assert_eq!(reply["data"], json!([{"id": 1, "n": 7}]));
    let bare = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE usename = 'care' AND NOT ssl";
    assert_eq!(database.one(bare), "0");
    let streams = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl";
    assert_eq!(database.one(streams), "1");

    let refused = |config: &str, parts: &[&str]| {
        let ran = rowcast(config, &["check"]);
        says(&ran, 1, parts);
        assert!(!format!("{ran:?}").contains("s3cret"), "{ran:?}");
    };
    refused(
        &config("care:s3cret-and-wrong", &trusting(&right)),
        &["password authentication failed", "password"],
    );
    refused(
        &config("care:s3cret", "sslmode=disable"),
        &["pg_hba.conf", "no encryption"],
    );
    let distrusting = config("care:s3cret", &trusting(&wrong));
    refused(
        &distrusting,
        &[
            "invalid peer certificate: UnknownIssuer",
            "sslrootcert names",
        ],
    );
    refused(
        &config(
            "care:s3cret",
            "sslmode=verify-full&sslrootcert=/nowhere.pem",
        ),
        &["/nowhere.pem"],
    );
    let waiting = Producer::start(&distrusting);
    wait_until("the producer to say why", async || {
        let (status, said) = waiting.get("/readyz").await;
        (status == 503 && said.to_string().contains("UnknownIssuer")).then_some(())
    })
    .await;
    says(
        &rowcast(&distrusting, &["query", "t"]),
        1,
        &["UnknownIssuer"],
    );
}
