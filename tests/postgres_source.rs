//! What PostgreSQL tells and how it fails, acted out against real servers: beyond what every
//! source promises (source_contract.rs).

mod failures;
mod images;
mod takeover;

use std::time::Duration;

use rowcast::{
    event::{Change, What},
    position::Checkpoint,
    postgres::Address,
    row::{self, Row},
    source::{
        Source, SourceError, Transactions,
        postgres::{PostgresSource, PostgresSourceConfig, Watched},
    },
    topic::{Column, Table, Topic, TopicSpec, Topics},
};

use crate::support::{in_time, postgres::Database, wait_for};

/// A configuration for a database that watches tables whose key is `id`. Slots are the server's,
/// so each database has a slot of its own.
pub fn config(database: &Database, tables: &[&str]) -> PostgresSourceConfig {
    let address = Address::parse(&database.url()).unwrap();
    let mut config = PostgresSourceConfig::new(address, watched(tables));
    config.slot = format!("slot_{}", database.name());
    config.heartbeat_interval = Duration::from_millis(200);
    config
}

fn watched(tables: &[&str]) -> Watched {
    let topics = tables.iter().map(|table| {
        let spec = format!(
            r#"{{"type":"{}","table":"{table}"}}"#,
            table.replace('.', "_")
        );
        let spec: TopicSpec = serde_json::from_str(&spec).unwrap();
        let column = |name: &str| Column {
            name: name.into(),
            declared: String::new(),
            affinity: rowcast::topic::Affinity::Blob,
            kind: None,
            collation: rowcast::topic::Collation::Binary,
            not_null: true,
        };
        let table = Table {
            name: (*table).into(),
            columns: vec![column("id")],
            primary_key: vec!["id".into()],
            unique: Vec::new(),
            displaces: false,
        };
        Topic::resolve(&spec, Some(&table)).unwrap()
    });
    Watched::of(&Topics::new(topics.collect()).unwrap())
}

/// Waits until the server answers; the session of before ended with it.
pub fn answers(database: &Database) {
    wait_for("the database to answer", || {
        database.try_sql("SELECT 1").ok()
    });
}

/// A producer whose bus stores everything at once, and remembers how far.
struct Producer {
    source: PostgresSource,
    stored: Option<Checkpoint>,
    /// What it was last told when it had to begin again.
    told: Vec<String>,
}

impl Producer {
    fn new(config: &PostgresSourceConfig) -> Self {
        Self {
            source: PostgresSource::new(config.clone()),
            stored: None,
            told: Vec::new(),
        }
    }

    /// Begun, and the first batch read.
    async fn started(config: &PostgresSourceConfig) -> Self {
        let mut producer = Self::new(config);
        producer.begin().await;
        producer.batch().await;
        producer
    }

    /// The same bus, another process.
    async fn restarted(self, config: &PostgresSourceConfig) -> Self {
        let stored = self.stored.clone();
        drop(self);
        let mut producer = Self::new(config);
        producer.stored = stored;
        producer.begin().await;
        producer
    }

    /// Tries once, as the relay does after each pause.
    async fn try_begin(&mut self) -> Result<(), SourceError> {
        self.source.begin().await?;
        self.source.confirm(self.stored.as_ref());
        Ok(())
    }

    async fn begin(&mut self) {
        let begun = async {
            let mut pause = tokio::time::interval(Duration::from_millis(20));
            while let Err(err) = self.try_begin().await {
                self.told.push(err.to_string());
                pause.tick().await;
            }
        };
        if tokio::time::timeout(crate::support::DEADLINE, begun)
            .await
            .is_err()
        {
            panic!("the source did not begin: {:?}", self.told.last());
        }
    }

    /// The next batch, stored at once; after an error it begins again.
    async fn batch(&mut self) -> Transactions {
        loop {
            match in_time("a batch", self.source.next_batch()).await {
                Ok(batch) => {
                    self.store(&batch);
                    return batch;
                }
                Err(err) => {
                    self.told.push(err.to_string());
                    self.begin().await;
                }
            }
        }
    }

    fn store(&mut self, batch: &Transactions) {
        self.stored = Some(batch.checkpoint.clone());
        self.source.confirm(self.stored.as_ref());
    }

    /// Reads until there are so many changes.
    async fn changes(&mut self, count: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        let reading = async {
            while changes.len() < count {
                // Heartbeats come in any case.
                changes.extend(self.batch().await.changes);
            }
        };
        in_time("the changes", reading).await;
        assert_eq!(changes.len(), count, "{changes:?}");
        changes
    }

    /// Reads until this is told, whatever else comes before or with it.
    async fn until(&mut self, wanted: &str) {
        while !self
            .batch()
            .await
            .changes
            .iter()
            .any(|change| told(change) == wanted)
        {}
    }

    async fn change(&mut self) -> Change {
        self.changes(1).await.remove(0)
    }

    fn history(&self) -> String {
        let stored = self.stored.as_ref().expect("a first batch");
        stored.source.to_string()
    }
}

/// A row as JSON.
fn json(row: &Row) -> String {
    let mut out = Vec::new();
    row::write_object(&mut out, row.iter());
    String::from_utf8(out).unwrap()
}

/// A change in one line: `insert new`, `update old -> new`, `delete old`, `truncate`, …
fn told(change: &Change) -> String {
    match &change.what {
        What::Row {
            inserted, old, new, ..
        } => {
            let image = |row: &Option<Row>| row.as_ref().map_or("-".to_owned(), json);
            let op = match (inserted, new) {
                (true, _) => "insert",
                (_, Some(_)) => "update",
                (_, None) => "delete",
            };
            format!("{op} {} -> {}", image(old), image(new))
        }
        What::Message { topic, data } => format!("message {topic} {data}"),
        What::Truncate => format!("truncate {}", change.table),
        What::Reload => format!("reload {}", change.table),
    }
}
