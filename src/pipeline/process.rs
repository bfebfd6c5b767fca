//! What one process knows of itself.

use crate::{
    clock::now_ms,
    groups::Group,
    metrics::{Health, Metrics, Part},
    ring::Ring,
    status::{Own, Report, Stage, State, Trouble},
};

/// A process, and where it finds what it tells of itself.
#[derive(Debug)]
pub struct Process {
    /// Random: two processes may have one name.
    pub id: String,
    /// The address of its listener, or another name that a person would know it by.
    pub name: String,
    /// What it has counted.
    pub metrics: Metrics,
    /// How its parts are.
    pub health: Health,
    /// The database.
    pub source: Watching,
    /// Its sockets, where it has any.
    pub serving: Option<Serving>,
    /// When it began, Unix milliseconds.
    started: i64,
}

/// Who reads the changes of the database, which is described without user and password.
#[derive(Debug, Clone)]
pub enum Watching {
    /// This process.
    Here(String),
    /// Another one.
    Elsewhere(String),
}

/// What a gateway serves from.
#[derive(Debug)]
pub struct Serving {
    /// The frames.
    pub ring: Ring,
    /// The sockets.
    pub group: Group,
}

impl Process {
    /// A process that begins now.
    pub fn new(
        name: String,
        (health, metrics): (Health, Metrics),
        source: Watching,
        serving: Option<Serving>,
    ) -> Self {
        let mut id = [0_u8; 8];
        // Without randomness two processes of one name look like one.
        let _ = getrandom::fill(&mut id);
        Self {
            id: crate::row::hex(&id)[2..].to_owned(),
            name,
            metrics,
            health,
            source,
            serving,
            started: now_ms(),
        }
    }

    /// What other processes are told, too: all stages but the bus, which each sees for itself.
    pub fn report(&self) -> Report {
        let mut stages = Vec::new();
        if let Watching::Here(what) = &self.source {
            let (state, error) = self.part(Part::Source);
            stages.push(self.stage(self.source(what), state, error));
            let passed = self.metrics.stored.passed();
            let relay = Own::Relay {
                position: passed.position,
                lag_ms: passed.lag_ms,
                total: passed.total,
            };
            let (bus, error) = self.part(Part::Bus);
            stages.push(self.stage(relay, storing(state, bus), error));
        }
        if let Some(serving) = &self.serving {
            // What it cannot do without: pushes go on, but queries are not answered.
            let (state, error) = self.part(Part::Store);
            stages.push(self.stage(self.gateway(serving), state, error));
        }
        Report {
            id: self.id.clone(),
            process: self.name.clone(),
            stages,
        }
    }

    /// The stage of a source of which no process has told: what this one knows of it.
    pub fn missed_source(&self) -> Stage {
        let (Watching::Here(what) | Watching::Elsewhere(what)) = &self.source;
        let (state, error) = match self.health.of(Part::Source) {
            Some((State::Down, error)) => (State::Down, error),
            Some((_, error)) => (State::Silent, error),
            None => (State::Silent, None),
        };
        self.stage(self.source(what), state, error)
    }

    /// A stage of this process.
    pub fn stage(&self, own: Own, state: State, error: Option<Trouble>) -> Stage {
        Stage {
            own,
            process: self.name.clone(),
            state,
            error,
        }
    }

    /// The epoch of what is served here.
    pub fn epoch(&self) -> Option<String> {
        let head = self.serving.as_ref().map(|serving| serving.ring.head());
        head.map(|head| head.position.epoch.as_str().to_owned())
    }

    fn part(&self, part: Part) -> (State, Option<Trouble>) {
        self.health.of(part).unwrap_or((State::Starting, None))
    }

    fn source(&self, what: &str) -> Own {
        let passed = self.metrics.read.passed();
        Own::Source {
            what: what.to_owned(),
            position: passed.position,
            lag_ms: passed.lag_ms,
            total: passed.total,
            retained_bytes: count(self.metrics.retained_bytes.get()),
        }
    }

    fn gateway(&self, serving: &Serving) -> Own {
        let metrics = &self.metrics;
        let passed = metrics.ringed.passed();
        Own::Gateway {
            position: Some(serving.ring.head().position.to_string()),
            lag_ms: passed.lag_ms,
            total: passed.total,
            sockets: serving.group.len() as u64,
            behind: count(metrics.behind.get()),
            pushed: metrics.pushes_sent.get(),
            queries: metrics.queries(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
        }
    }
}

/// How a relay stands between its source and the bus.
fn storing(source: State, bus: State) -> State {
    match (source, bus) {
        (State::Standby, _) => State::Standby,
        (_, State::Down) => State::Down,
        (State::Starting, _) | (_, State::Starting) => State::Starting,
        _ => State::Up,
    }
}

fn count(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or(0)
}
