//! The loops of a process, and which database and which bus they are started with: the one place
//! where a backend is picked.

use std::{panic::AssertUnwindSafe, path::Path, time::Duration};

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{
        Bus,
        embedded::{EmbeddedBus, EmbeddedBusConfig},
    },
    config::{Config, DatabaseUrl},
    fanout::{self, Pages},
    metrics::{Health, Metrics, Part},
    position::Position,
    postgres::Address,
    query::{self, Queries, QueryLimits},
    relay,
    ring::Ring,
    source::{
        postgres::{PostgresSource, PostgresSourceConfig, SourceStatus, Watched},
        sqlite::{self as capture, SqliteSource, SqliteSourceConfig, Waker},
    },
    store::{
        postgres::{PostgresStore, PostgresStoreConfig},
        sqlite::{SqliteStore, SqliteStoreConfig},
    },
    topic::Topics,
};

/// How often the metrics of the source are brought up to date.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// What is told to stop, in the order in which it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    pub accept: CancellationToken,
    pub relay: CancellationToken,
    pub sessions: CancellationToken,
    pub fanout: CancellationToken,
}

/// What the loops are started with, beside what they connect.
#[derive(Debug, Clone)]
pub(super) struct Loops {
    pub stops: Stops,
    pub health: Health,
    pub metrics: Metrics,
    /// Cancelled when a loop has panicked: the process is no use without it.
    pub failed: CancellationToken,
}

impl Default for Loops {
    fn default() -> Self {
        let metrics = Metrics::default();
        Self {
            stops: Stops::default(),
            health: Health::telling(metrics.incidents().clone()),
            metrics,
            failed: CancellationToken::new(),
        }
    }
}

impl Loops {
    /// Starts a loop that is noticed should it panic.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let failed = self.failed.clone();
        tokio::spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(name, "a loop has panicked: the process ends");
                failed.cancel();
            }
        })
    }

    /// What every loop tells how it is.
    pub fn both(&self) -> (Health, Metrics) {
        (self.health.clone(), self.metrics.clone())
    }

    /// Direct queries, with the store that answers them.
    pub fn queries(&self, config: &Config) -> Queries {
        let limits = QueryLimits {
            timeout: config.database.query_timeout,
            waiting: config.limits.reads_waiting,
            requests: config.limits.requests_running,
            connections: config.database.read_connections,
        };
        let (health, metrics) = self.both();
        let (queries, inbox) = query::channel(limits, metrics.clone());
        match &config.database.url {
            DatabaseUrl::Sqlite(path) => {
                let store = sqlite_store(config, path);
                self.spawn("queries", query::run(store, inbox, health, metrics));
            }
            DatabaseUrl::Postgres(address) => {
                let store = postgres_store(config, address);
                self.spawn("queries", query::run(store, inbox, health, metrics));
            }
        }
        queries
    }

    /// Bus → Ring, and beside it the pages of page topics.
    pub fn fanout(
        &self,
        silence: Option<Duration>,
        bus: &impl Bus,
        from: Position,
        ring: &Ring,
        pages: &Pages,
        queries: &Queries,
    ) {
        self.spawn(
            "fanout",
            fanout::run(
                bus.clone(),
                from,
                ring.clone(),
                pages.clone(),
                self.both(),
                (silence, self.stops.fanout.clone()),
            ),
        );
        self.spawn(
            "marks",
            fanout::run_marks(
                bus.clone(),
                queries.marks().clone(),
                self.stops.fanout.clone(),
            ),
        );
        self.spawn(
            "pages",
            fanout::run_pages(
                pages.clone(),
                queries.clone(),
                ring.clone(),
                self.metrics.clone(),
                self.stops.fanout.clone(),
            ),
        );
    }

    /// Source → Bus, and what wakes the source where a writer of ours need not wait for it to look.
    pub fn relay(
        &self,
        config: &Config,
        bus: &impl Bus,
        topics: &Topics,
    ) -> (JoinHandle<()>, Option<Waker>) {
        self.health.expect(Part::Source);
        let (bus, topics) = (bus.clone(), topics.clone());
        let (both, stop) = (self.both(), self.stops.relay.clone());
        match &config.database.url {
            DatabaseUrl::Sqlite(path) => {
                let source = sqlite_source(config, path, &topics);
                let origin = format!("/sqlite/{}", stem(path));
                let waker = Some(source.waker());
                let task = relay::run(source, bus, topics, origin, both, stop);
                let task = self.spawn("relay", task);
                (task, waker)
            }
            DatabaseUrl::Postgres(address) => {
                let source = postgres_source(config, address, &topics);
                let origin = format!("/postgres/{}", address.dbname());
                tokio::spawn(tell(source.status(), self.metrics.clone(), stop.clone()));
                let task = relay::run(source, bus, topics, origin, both, stop);
                let task = self.spawn("relay", task);
                (task, None)
            }
        }
    }
}

/// The source of a SQLite file.
fn sqlite_source(config: &Config, path: &Path, topics: &Topics) -> SqliteSource {
    SqliteSource::new(SqliteSourceConfig {
        path: path.to_owned(),
        watched: capture::watched(topics),
        poll_interval: config.database.poll_interval,
        changelog_keep: config.database.changelog_keep,
        changelog_max_rows: config.database.changelog_max_rows,
    })
}

/// The store of a SQLite file.
pub fn sqlite_store(config: &Config, path: &Path) -> SqliteStore {
    SqliteStore::new(SqliteStoreConfig {
        path: path.to_owned(),
        connections: config.database.read_connections,
        timeout: config.database.query_timeout,
    })
}

/// The bus of this process alone.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(super) fn embedded(config: &Config) -> anyhow::Result<EmbeddedBus> {
    Ok(EmbeddedBus::open(&EmbeddedBusConfig {
        path: config.bus_path(),
        keep: config.bus.keep,
        max_bytes: config.bus.max_bytes,
    })?)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn postgres_source(config: &Config, address: &Address, topics: &Topics) -> PostgresSource {
    PostgresSource::new(PostgresSourceConfig {
        slot: config.database.slot.clone(),
        publication: config.database.publication.clone(),
        manage: config.database.manage,
        heartbeat_interval: config.database.heartbeat_interval,
        takeover: config.database.takeover,
        ..PostgresSourceConfig::new(address.clone(), Watched::of(topics))
    })
}

/// The store of a PostgreSQL database.
pub fn postgres_store(config: &Config, address: &Address) -> PostgresStore {
    PostgresStore::new(PostgresStoreConfig {
        address: address.clone(),
        connections: config.database.read_connections,
        timeout: config.database.query_timeout,
    })
}

/// Keeps the metrics of a PostgreSQL source up to date.
async fn tell(status: SourceStatus, metrics: Metrics, stop: CancellationToken) {
    let mut looks = tokio::time::interval(STATUS_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let bytes = i64::try_from(status.retained_bytes()).unwrap_or(i64::MAX);
        metrics.retained_bytes.set(bytes);
    }
}
