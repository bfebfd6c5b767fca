//! The servers that are measured, and the table that changes.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use crate::support::{
    Nats, NatsOptions, Options, Producer, Server,
    postgres::{Cluster, Database},
    wait_until,
};

/// Nobody waits longer for one of the parts to get anywhere.
const PATIENCE: Duration = Duration::from_secs(300);

/// Rows as a shop might have them: an event of one is some 500 bytes.
const TABLE: &str = "
CREATE TABLE item (
    id bigint PRIMARY KEY, name text NOT NULL, price numeric(10, 2) NOT NULL,
    stock int NOT NULL, changed timestamptz NOT NULL DEFAULT now());";

/// `changes` changes of rows, ten in each transaction: five new rows, each updated once.
const FILL: &str = "
CREATE PROCEDURE fill(changes bigint) LANGUAGE plpgsql AS $$
DECLARE at bigint := 0;
BEGIN
    WHILE at * 2 < changes LOOP
        INSERT INTO item
            SELECT i, 'item number ' || i, (i % 10000) / 100.0, i % 1000
            FROM generate_series(at + 1, at + 5) i;
        UPDATE item SET stock = stock + 1 WHERE id BETWEEN at + 1 AND at + 5;
        COMMIT;
        at := at + 5;
    END LOOP;
END $$;";

/// PostgreSQL, which syncs its log as in production, and NATS.
pub struct Parts {
    _cluster: Cluster,
    pub database: Database,
    pub nats: Nats,
    pub config: String,
}

impl Parts {
    /// Starts both servers; `sync` is the `sync_interval` of NATS, its own default where none.
    pub fn start(sync: Option<&str>) -> Self {
        let cluster = Cluster::own(&[("fsync", "on"), ("max_wal_size", "8GB")]);
        let database = cluster.database();
        database.sql(TABLE);
        database.sql(FILL);
        let nats = Nats::with(NatsOptions {
            sync_interval: sync.map(str::to_owned),
            ..NatsOptions::default()
        });
        let config = format!(
            "[database]\nurl = \"{}\"\n[bus]\nurl = \"{}\"\n\
             [[topics]]\ntype = \"item\"\ntable = \"item\"\npush = \"row\"\n",
            database.url(),
            nats.url()
        );
        Self {
            _cluster: cluster,
            database,
            nats,
            config,
        }
    }

    /// Starts a producer that reads and publishes.
    pub async fn produce(&self) -> Producer {
        let producer = Producer::start(&self.config);
        wait_until("the producer to be ready", async || {
            producer.is_ready().await.then_some(())
        })
        .await;
        producer
    }

    /// Starts a gateway.
    pub async fn serve(&self) -> Server {
        let server = Server::with(Options {
            config: Some(self.config.clone()),
            // One socket asks as fast as it is answered.
            env: ["MESSAGES_PER_SECOND", "MESSAGES_BURST"]
                .map(|name| (format!("ROWCAST__LIMITS__{name}"), "100000".to_owned()))
                .into(),
            ..Options::default()
        });
        wait_until("the gateway to be ready", async || {
            (server.get("/readyz").await.0 == 200).then_some(())
        })
        .await;
        server
    }

    /// A session of one's own with the database.
    pub async fn session(&self) -> Client {
        let connected = tokio_postgres::connect(&self.database.url(), NoTls).await;
        let (client, connection) = connected.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The server's process that reads a slot, once there is one.
    pub async fn walsender(&self, slot: &str) -> u32 {
        let sql = format!(
            "SELECT active_pid FROM pg_replication_slots
             WHERE slot_name = '{slot}' AND active_pid IS NOT NULL"
        );
        wait_until("the slot to be read", async || {
            let rows = self.database.sql(&sql);
            rows.first()?.first()?.as_ref()?.parse().ok()
        })
        .await
    }
}

/// What the NATS server is set to, for the table.
pub fn named(sync: Option<&str>) -> String {
    format!("sync_interval {}", sync.unwrap_or("2m, the default"))
}

/// Asks every few milliseconds until there is an answer, longer than tests do.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
    }
}
