//! Changes of a PostgreSQL database, as its own log tells them: logical replication (`pgoutput`).
//!
//! A slot keeps the log until what was read of it is on the bus. A task reads and decodes ahead,
//! as far as one batch, while the one before is published.

mod assembly;
mod describe;
mod history;
mod inspect;
pub mod pgoutput;
mod place;
mod publication;
mod pulse;
mod refused;
mod relations;
mod session;
mod slot;
mod snapshot;
mod status;
mod tail;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

pub use assembly::Limits;
pub use inspect::{Finding, Grade, inspect, remove};
pub use refused::Refused;
pub use relations::Watched;
use session::Session;
use slot::Claim;
pub use status::SourceStatus;
use tail::{AbortOnDrop, Ends};

use super::{Source, SourceError, Transactions};
use crate::{position::Checkpoint, postgres::Address};

/// The name of slot and publication where none is given.
pub const DEFAULT_NAME: &str = "rowcast";

/// How long the server may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the source follows, and how.
#[derive(Debug, Clone)]
pub struct PostgresSourceConfig {
    /// The database.
    pub address: Address,
    /// The replication slot: `[a-z0-9_]{1,63}`.
    pub slot: String,
    /// The publication, of the same form.
    pub publication: String,
    /// Whether slot and publication are made, and the publication altered, where that is needed.
    pub manage: bool,
    /// The tables to watch.
    pub watched: Watched,
    /// How often an idle slot is moved and the stream is held for dead if nothing comes.
    pub heartbeat_interval: Duration,
    /// How long a producer may not answer the server before its slot is taken from it.
    pub takeover: Duration,
    /// How much one batch holds.
    pub batch: Limits,
}

/// A [`Source`] that follows a PostgreSQL database.
///
/// Its tasks start with [`Source::begin`] and [`Source::confirm`] and end when it is dropped.
#[derive(Debug)]
pub struct PostgresSource {
    config: PostgresSourceConfig,
    status: SourceStatus,
    claim: Claim,
    broken: Arc<AtomicBool>,
    /// Begun, and not yet told what the bus holds.
    begun: Option<Box<Session>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    batches: mpsc::Receiver<Result<Transactions, SourceError>>,
    confirmed: watch::Sender<Option<Checkpoint>>,
    _task: AbortOnDrop,
}

impl PostgresSourceConfig {
    /// The defaults for a database and its watched tables.
    pub fn new(address: Address, watched: Watched) -> Self {
        Self {
            address,
            slot: DEFAULT_NAME.into(),
            publication: DEFAULT_NAME.into(),
            manage: true,
            watched,
            heartbeat_interval: Duration::from_secs(5),
            takeover: Duration::from_secs(10),
            batch: Limits {
                // What fits one atomic batch of the bus.
                changes: 1000,
                bytes: 4 * 1024 * 1024,
            },
        }
    }
}

impl PostgresSource {
    /// A source that has not begun yet.
    pub fn new(config: PostgresSourceConfig) -> Self {
        let status = SourceStatus::default();
        Self {
            config,
            claim: Claim::new(status.clone()),
            status,
            broken: Arc::default(),
            begun: None,
            running: None,
        }
    }

    /// Its numbers.
    pub fn status(&self) -> SourceStatus {
        self.status.clone()
    }
}

impl Source for PostgresSource {
    async fn begin(&mut self) -> Result<(), SourceError> {
        self.running = None;
        self.begun = None;
        for (what, name) in [
            ("slot", &self.config.slot),
            ("publication", &self.config.publication),
        ] {
            if !is_name(name) {
                let text = format!("the {what}'s name \"{name}\" is not of a-z, 0-9 and _");
                return Err(Refused::new(text).into());
            }
        }
        self.claim.broken |= self.broken.swap(false, Ordering::AcqRel);
        let session = Session::open(&self.config, &mut self.claim).await?;
        self.begun = Some(Box::new(session));
        Ok(())
    }

    async fn next_batch(&mut self) -> Result<Transactions, SourceError> {
        let ended = || Refused::new("the source has not begun").into();
        let running = self.running.as_mut().ok_or_else(ended)?;
        running.batches.recv().await.unwrap_or_else(|| Err(ended()))
    }

    fn confirm(&mut self, checkpoint: Option<&Checkpoint>) {
        let Some(session) = self.begun.take() else {
            if let Some(running) = &self.running {
                running.confirmed.send_replace(checkpoint.cloned());
            }
            return;
        };
        let (out, batches) = mpsc::channel(1);
        let (confirmed, receiver) = watch::channel(None);
        let ends = Ends {
            out,
            confirmed: receiver,
            broken: self.broken.clone(),
        };
        let (config, status) = (self.config.clone(), self.status.clone());
        let task = tail::run(*session, config, checkpoint.cloned(), status, ends);
        self.running = Some(Running {
            batches,
            confirmed,
            _task: AbortOnDrop(tokio::spawn(task)),
        });
    }
}

/// Whether a text may name a slot, which goes into a command as it is.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed)
}
