//! What is counted, and what is well: the numbers behind `/metrics` and the reasons behind
//! `/readyz`. Every drop, reset and close is counted here, whoever causes it, and told as an
//! incident.

mod auth;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Metric, Registry},
};

pub use auth::AuthMetrics;

use crate::{
    clock::now_ms,
    status::{IncidentKind, Incidents, Progress, State, Trouble, brief},
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
    /// How far the source has been read.
    pub read: Progress,
    /// How far the relay has stored what was read.
    pub stored: Progress,
    /// What has come into the ring.
    pub ringed: Progress,
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
    /// Connections open now, sockets among them.
    pub connections: Gauge,
    /// Sockets open now.
    pub sessions: Gauge,
    /// Those of them that read from the bus what has left the ring.
    pub behind: Gauge,
    /// The last offset in the ring.
    pub ring_offset: Gauge,
    /// Bytes of frames in the ring.
    pub ring_bytes: Gauge,
    /// Blocks read from the bus for sockets that had fallen out of the ring.
    pub backlog_reads: Counter,
    /// Stretches for such sockets that needed no read of their own.
    pub backlog_hits: Counter,
    /// Who may connect.
    pub auth: AuthMetrics,
    /// All direct queries, whatever came of them.
    asked: Counter,
    incidents: Incidents,
    queries: Family<Kind, Counter>,
    inexact: Family<Kind, Counter>,
    resets: Family<Kind, Counter>,
    closes: Family<Kind, Counter>,
    refused: Family<Kind, Counter>,
    errors: Family<Kind, Counter>,
    limited: Family<Kind, Counter>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rowcast");
        let r = &mut registry;
        Self {
            changes_read: new(r, "changes_read", "Row changes read from the source"),
            events_published: new(r, "events_published", "Events stored on the bus"),
            read: Progress::default(),
            stored: Progress::default(),
            ringed: Progress::default(),
            dead_letters: new(r, "dead_letters", "Messages on the bus that are no event"),
            auth: AuthMetrics::new(r),
            asked: Counter::default(),
            incidents: Incidents::default(),
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
            connections: new(r, "connections", "Open connections"),
            sessions: new(r, "sessions", "Open sockets"),
            behind: new(r, "sessions_behind", "Sockets that read from the bus"),
            ring_offset: new(r, "ring_offset", "Last bus offset in the ring"),
            ring_bytes: new(r, "ring_bytes", "Bytes of frames in the ring"),
            backlog_reads: new(r, "backlog_reads", "Blocks read from the bus for sockets"),
            backlog_hits: new(r, "backlog_hits", "Stretches for sockets without a read"),
            queries: new(r, "queries", "Direct queries by outcome"),
            inexact: new(r, "inexact", "Replies without an exact place, by reason"),
            resets: new(r, "resets", "Clients told to query again, by reason"),
            closes: new(r, "closes", "Sockets closed by the server, by code"),
            refused: new(r, "connections_refused", "Connections refused, by reason"),
            errors: new(r, "errors", "Error answers, by slug"),
            limited: new(r, "limited", "Refusals and closes for a limit, by which"),
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
        self.asked.inc();
        self.queries.get_or_create(&kind(outcome)).inc();
    }

    /// How many direct queries there were.
    pub fn queries(&self) -> u64 {
        self.asked.get()
    }

    /// Counts a reply that says `"exact":false`, by why.
    pub fn inexact(&self, reason: &str) {
        self.inexact.get_or_create(&kind(reason)).inc();
        let text = "a reply has no exact place in the stream";
        self.incidents.tell(IncidentKind::Inexact, reason, text);
    }

    /// Counts a `sys:reset`.
    pub fn reset(&self, reason: &str) {
        self.resets.get_or_create(&kind(reason)).inc();
        let text = "a client was told to query again";
        self.incidents.tell(IncidentKind::Reset, reason, text);
    }

    /// Counts a socket that the server closes; `text` is what it tells the client.
    pub fn close(&self, code: u16, text: &str) {
        let code = code.to_string();
        self.closes.get_or_create(&kind(&code)).inc();
        self.incidents.tell(IncidentKind::Close, &code, text);
    }

    /// Counts a message on the bus that is no event.
    pub fn dead_letter(&self, subject: &str, reason: &str) {
        self.dead_letters.inc();
        self.incidents
            .tell(IncidentKind::DeadLetter, subject, reason);
    }

    /// Counts a socket among those behind, until what is returned is dropped.
    pub fn falls_behind(&self) -> Behind {
        self.behind.inc();
        Behind(self.behind.clone())
    }

    /// Tells of a socket that has fallen out of the ring.
    pub fn slow(&self) {
        let text = "a socket fell behind what is in memory, and is served from the bus";
        self.incidents.tell(IncidentKind::Slow, "ring", text);
    }

    /// What has happened lately.
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Counts a connection that was not served, by why.
    pub fn refused_connection(&self, reason: &str) {
        self.refused.get_or_create(&kind(reason)).inc();
    }

    /// Counts an error answer.
    pub fn error(&self, slug: &str) {
        self.errors.get_or_create(&kind(slug)).inc();
    }

    /// Counts a refusal or a close because of a limit, by which (docs/operations.md, "Limits").
    pub fn limited(&self, limit: &str) {
        self.limited.get_or_create(&kind(limit)).inc();
    }

    /// All of it in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to memory cannot fail");
        text
    }
}

/// Counts a socket among those behind for as long as it lives.
#[derive(Debug)]
pub struct Behind(Gauge);

impl Drop for Behind {
    fn drop(&mut self) {
        self.0.dec();
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

/// How a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    state: State,
    /// Why it is not up.
    reason: String,
    /// What was wrong with it last.
    error: Option<Trouble>,
    /// Whether it has been expected, and has not been up since. What goes wrong until then belongs to
    /// its start: it is neither an incident nor kept.
    begins: bool,
}

/// Which parts are well. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<Part, Condition>>>,
    incidents: Incidents,
}

impl Health {
    /// Nothing known yet; what goes down and comes up is told among these incidents.
    pub fn telling(incidents: Incidents) -> Self {
        Self {
            incidents,
            ..Self::default()
        }
    }

    /// Marks a part as not yet there.
    pub fn expect(&self, part: Part) {
        self.set(part, State::Starting, "starting");
    }

    /// Marks a part as well.
    pub fn up(&self, part: Part) {
        let Some(before) = self.set(part, State::Up, "") else {
            return;
        };
        tracing::info!(%part, "up");
        if before.is_some_and(|before| !before.begins) {
            let text = "up again";
            self.incidents
                .tell(IncidentKind::Up, &part.to_string(), text);
        }
    }

    /// Marks a part as down, and logs it if that is news.
    pub fn down(&self, part: Part, reason: &dyn fmt::Display) {
        let reason = reason.to_string();
        let Some(before) = self.set(part, State::Down, &reason) else {
            return;
        };
        tracing::warn!(%part, error = %reason, "down");
        if before.is_none_or(|before| !before.begins && before.state != State::Down) {
            self.incidents
                .tell(IncidentKind::Down, &part.to_string(), &reason);
        }
    }

    /// Marks a part as waiting until another process makes room: it cannot be relied on, and
    /// nothing is wrong.
    pub fn standby(&self, part: Part, reason: &dyn fmt::Display) {
        let reason = reason.to_string();
        if self.set(part, State::Standby, &reason).is_some() {
            tracing::info!(%part, reason, "standing by");
        }
    }

    /// Whether a part is anything but up.
    pub fn is_down(&self, part: Part) -> bool {
        let parts = self.guard();
        parts.get(&part).is_some_and(|is| is.state != State::Up)
    }

    /// What is missing, by part; nothing when all is well.
    pub fn missing(&self) -> Vec<(Part, String)> {
        let parts = self.guard();
        let missing = parts.iter().filter(|(_, is)| is.state != State::Up);
        missing
            .map(|(part, is)| (*part, is.reason.clone()))
            .collect()
    }

    /// How a part is, and what was wrong with it last; none of one that was never heard of.
    pub fn of(&self, part: Part) -> Option<(State, Option<Trouble>)> {
        let parts = self.guard();
        parts.get(&part).map(|is| (is.state, is.error.clone()))
    }

    fn guard(&self) -> MutexGuard<'_, BTreeMap<Part, Condition>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how the part was before; none where nothing is new.
    fn set(&self, part: Part, state: State, reason: &str) -> Option<Option<Condition>> {
        let mut parts = self.guard();
        let known = parts.get(&part);
        if known.is_some_and(|is| is.state == state && is.reason == reason) {
            return None;
        }
        let begins = known.is_some_and(|is| is.begins);
        let error = known.and_then(|is| is.error.clone());
        let now = Condition {
            state,
            reason: reason.to_owned(),
            error: match state {
                State::Down => Some(Trouble {
                    text: brief(reason),
                    // Since when it is down, whatever it says meanwhile.
                    at: match known {
                        Some(Condition {
                            state: State::Down,
                            error: Some(error),
                            ..
                        }) => error.at,
                        _ => now_ms(),
                    },
                    over: false,
                }),
                State::Up if begins => None,
                State::Up => error.map(Trouble::over),
                _ => error,
            },
            begins: match state {
                State::Starting => true,
                State::Down | State::Silent => begins,
                State::Up | State::Standby => false,
            },
        };
        Some(parts.insert(part, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_is_known_when_it_is_over() {
        let health = Health::default();
        health.expect(Part::Bus);
        assert_eq!(health.of(Part::Bus), Some((State::Starting, None)));
        health.down(Part::Bus, &"locked");
        let (state, error) = health.of(Part::Bus).unwrap();
        assert_eq!((state, &*error.unwrap().text), (State::Down, "locked"));
        health.up(Part::Bus);
        assert_eq!(health.of(Part::Bus), Some((State::Up, None)));
        // Until here it was a start, of which one try has failed.
        health.down(Part::Bus, &"away");
        health.down(Part::Bus, &"gone");
        health.up(Part::Bus);
        let (state, error) = health.of(Part::Bus).unwrap();
        let error = error.unwrap();
        assert_eq!((state, &*error.text, error.over), (State::Up, "gone", true));
        assert!(health.missing().is_empty() && health.of(Part::Store).is_none());
        let told = health.incidents.all();
        let told = told.iter().map(|one| (one.kind, &*one.what, &*one.text));
        let down = (IncidentKind::Down, "bus", "away");
        assert!(told.eq([down, (IncidentKind::Up, "bus", "up again")]));
    }

    #[test]
    fn to_stand_by_is_no_incident_and_to_take_over_is_one() {
        let health = Health::default();
        health.expect(Part::Source);
        health.standby(Part::Source, &"another reads");
        assert!(health.is_down(Part::Source) && health.incidents.all().is_empty());
        assert_eq!(health.of(Part::Source), Some((State::Standby, None)));
        health.up(Part::Source);
        assert_eq!(health.incidents.all()[0].kind, IncidentKind::Up);
    }
}
