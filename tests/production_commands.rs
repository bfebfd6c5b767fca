//! The commands beside `serve` and `produce` against PostgreSQL and NATS, and what a whole
//! installation does with topics that change, messages that are no events, types and TLS.

pub mod bus;
mod check;
mod events;
mod joined;
mod remove;
mod tls;

use crate::support::{
    Folder, Nats, Options, Producer, Ran, Server,
    postgres::{self, Database},
    wait_until,
};

const TOPIC: &str = "
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
";

const TABLE: &str = "
CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO t VALUES (1, 0);
";

/// A database of the cluster that all tests share, and a NATS of one's own.
pub struct Site {
    /// Its database.
    pub database: Database,
    nats: Nats,
}

impl Site {
    /// With tables made by `sql`.
    pub fn new(sql: &str) -> Self {
        let database = postgres::database();
        database.sql(sql);
        Self {
            database,
            nats: Nats::start(),
        }
    }

    /// A `rowcast.toml`; the slot is named after the database, for slots are the cluster's.
    pub fn config(&self, topics: &str) -> String {
        self.config_of(&self.database.url(), &self.nats.url(), topics)
    }

    fn config_of(&self, database: &str, bus: &str, topics: &str) -> String {
        let slot = self.slot();
        format!(
            "[database]\nurl = \"{database}\"\nslot = \"{slot}\"\nheartbeat_interval_ms = 500\n\
             [bus]\nurl = \"{bus}\"\n{topics}"
        )
    }

    fn slot(&self) -> String {
        format!("slot_{}", self.database.name())
    }

    /// A producer that reads and publishes.
    pub async fn producer(&self, topics: &str) -> Producer {
        ready(Producer::start(&self.config(topics))).await
    }

    pub fn gateway(&self, topics: &str) -> Server {
        gateway(self.config(topics))
    }
}

fn gateway(config: String) -> Server {
    Server::with(Options {
        config: Some(config),
        ..Options::default()
    })
}

/// Waits until it reads and publishes.
async fn ready(producer: Producer) -> Producer {
    wait_until("a producer", async || {
        producer.is_ready().await.then_some(())
    })
    .await;
    producer
}

/// A command with this `rowcast.toml`.
pub fn rowcast(config: &str, args: &[&str]) -> Ran {
    let folder = Folder::new();
    folder.write("rowcast.toml", config);
    folder.run(args)
}

/// A URL of a port where nobody listens.
fn nobody(scheme: &str) -> String {
    format!("{scheme}127.0.0.1:{}", crate::support::nats::free_port())
}

/// Holds what a command said, and its exit code, against these.
#[track_caller]
pub fn says(ran: &Ran, code: i32, parts: &[&str]) {
    let both = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, code, "{both}");
    for part in parts {
        assert!(both.contains(part), "\"{part}\" is not in:\n{both}");
    }
}
