//! What is counted, and what is well: the numbers behind `/metrics` and the reasons behind
//! `/readyz`. Every drop, reset and close is counted here, whoever causes it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};

/// The one label of a family: why, or of which kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    kind: String,
}

/// Counters and gauges of one process. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Changes read from the source.
    pub changes_read: Counter,
    /// Events that the bus stored for this process, changes and applications' together.
    pub events_published: Counter,
    /// Messages on the bus that are no event.
    pub dead_letters: Counter,
    /// Frames that fanout appended to the ring.
    pub frames_ringed: Counter,
    /// Seconds from the commit of the last event in the ring to its coming there.
    pub event_lag: Gauge<f64, AtomicU64>,
    /// Seconds from the last commit published by this process to its being stored.
    pub publish_lag: Gauge<f64, AtomicU64>,
    /// Bytes of WAL that the database keeps for this producer.
    pub retained_bytes: Gauge,
    /// Frames written to sockets: events, pages and replays.
    pub pushes_sent: Counter,
    /// Pages of page topics read from the database.
    pub pages_read: Counter,
    /// Sockets open now.
    pub sessions: Gauge,
    /// The last offset in the ring.
    pub ring_offset: Gauge,
    /// Bytes of frames in the ring.
    pub ring_bytes: Gauge,
    /// Blocks read from the bus for sockets that had fallen out of the ring.
    pub backlog_reads: Counter,
    /// Stretches for such sockets that needed no read of their own.
    pub backlog_hits: Counter,
    queries: Family<Kind, Counter>,
    inexact: Family<Kind, Counter>,
    resets: Family<Kind, Counter>,
    closes: Family<Kind, Counter>,
    errors: Family<Kind, Counter>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rowcast");
        let r = &mut registry;
        Self {
            changes_read: new(r, "changes_read", "Row changes read from the source"),
            events_published: new(r, "events_published", "Events stored on the bus"),
            dead_letters: new(r, "dead_letters", "Messages on the bus that are no event"),
            frames_ringed: new(r, "frames_ringed", "Frames encoded into the ring"),
            event_lag: new(
                r,
                "event_lag_seconds",
                "From commit to the ring, last event",
            ),
            publish_lag: new(
                r,
                "publish_lag_seconds",
                "From commit to the bus, last event",
            ),
            retained_bytes: new(r, "retained_wal_bytes", "WAL kept by the database for us"),
            pushes_sent: new(r, "pushes_sent", "Frames written to sockets"),
            pages_read: new(r, "pages_read", "Pages read for page topics"),
            sessions: new(r, "sessions", "Open sockets"),
            ring_offset: new(r, "ring_offset", "Last bus offset in the ring"),
            ring_bytes: new(r, "ring_bytes", "Bytes of frames in the ring"),
            backlog_reads: new(r, "backlog_reads", "Blocks read from the bus for sockets"),
            backlog_hits: new(r, "backlog_hits", "Stretches for sockets without a read"),
            queries: new(r, "queries", "Direct queries by outcome"),
            inexact: new(r, "inexact", "Replies without an exact place, by reason"),
            resets: new(r, "resets", "Clients told to query again, by reason"),
            closes: new(r, "closes", "Sockets closed by the server, by code"),
            errors: new(r, "errors", "Error answers, by slug"),
            registry: Arc::new(registry),
        }
    }
}

/// Makes a metric and has the registry encode it under that name.
fn new<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Metrics {
    /// Counts a direct query: `ok`, or the slug of its error.
    pub fn query(&self, outcome: &str) {
        self.queries.get_or_create(&kind(outcome)).inc();
    }

    /// Counts a reply that says `"exact":false`, by why.
    pub fn inexact(&self, reason: &str) {
        self.inexact.get_or_create(&kind(reason)).inc();
    }

    /// Counts a `sys:reset`.
    pub fn reset(&self, reason: &str) {
        self.resets.get_or_create(&kind(reason)).inc();
    }

    /// Counts a socket that the server closes.
    pub fn close(&self, code: u16) {
        self.closes.get_or_create(&kind(&code.to_string())).inc();
    }

    /// Counts an error answer.
    pub fn error(&self, slug: &str) {
        self.errors.get_or_create(&kind(slug)).inc();
    }

    /// All of it in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory cannot fail");
        text
    }
}

fn kind(kind: &str) -> Kind {
    Kind {
        kind: kind.to_owned(),
    }
}

/// A part of the process that can be down while the rest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Reading changes from the database.
    Source,
    /// Storing and following events.
    Bus,
    /// Answering direct queries.
    Store,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Bus => "bus",
            Self::Store => "store",
        })
    }
}

/// Which parts are well. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Part, Option<String>>>>);

impl Health {
    /// Marks a part as not yet there.
    pub fn expect(&self, part: Part) {
        self.set(part, Some("starting".to_owned()));
    }

    /// Marks a part as well.
    pub fn up(&self, part: Part) {
        if self.set(part, None) {
            tracing::info!(%part, "up");
        }
    }

    /// Marks a part as down, and logs it if that is news.
    pub fn down(&self, part: Part, reason: &dyn fmt::Display) {
        let reason = reason.to_string();
        if self.set(part, Some(reason.clone())) {
            tracing::warn!(%part, error = %reason, "down");
        }
    }

    /// Whether a part is down.
    pub fn is_down(&self, part: Part) -> bool {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(&part).is_some_and(Option::is_some)
    }

    /// What is missing, by part; nothing when all is well.
    pub fn missing(&self) -> Vec<(Part, String)> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter_map(|(part, reason)| Some((*part, reason.clone()?)))
            .collect()
    }

    /// Returns whether anything changed.
    fn set(&self, part: Part, reason: Option<String>) -> bool {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(part, reason.clone()) != Some(reason)
    }
}
