//! Changes of a SQLite file, whoever made them: `sqlite3`, Django, any program.
//!
//! Triggers note operation and key in a changelog in the same file; a thread reads it together
//! with the rows' present state. Nothing hooks into our own writes.

mod batch;
mod changelog;
mod displaced;
mod evidence;
mod open;
mod tail;
mod upkeep;
mod watch;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::Duration,
};

use tokio::sync::mpsc;

pub use changelog::{Capture, MAX_KEY_COLUMNS, Watched, inspect, install, remove, watched};
use tail::Tail;
use watch::Wake;

use super::{Source, SourceError, Transactions};
use crate::position::Checkpoint;

/// What the source follows, and how.
#[derive(Debug, Clone)]
pub struct SqliteSourceConfig {
    /// The database file.
    pub path: PathBuf,
    /// The tables to watch.
    pub watched: Vec<Watched>,
    /// The longest that a commit of another process goes unnoticed, should the file system not
    /// announce it.
    pub poll_interval: Duration,
    /// How long confirmed changelog entries are kept.
    pub changelog_keep: Duration,
    /// The most confirmed changelog entries that are kept.
    pub changelog_max_rows: u64,
}

/// A [`Source`] that follows a SQLite file from a thread of its own.
///
/// The thread starts with the first [`Source::confirm`] and ends when this value is dropped.
#[derive(Debug)]
pub struct SqliteSource {
    config: SqliteSourceConfig,
    confirmed: Arc<AtomicU64>,
    waker: Waker,
    wakes: Option<std::sync::mpsc::Receiver<Wake>>,
    batches: Option<mpsc::Receiver<Result<Transactions, SourceError>>>,
}

/// Tells the source that this process has committed something itself, which saves it the poll.
#[derive(Debug, Clone)]
pub struct Waker(SyncSender<Wake>);

impl SqliteSource {
    /// A source that has not started yet.
    pub fn new(config: SqliteSourceConfig) -> Self {
        let (sender, wakes) = sync_channel(1);
        Self {
            config,
            confirmed: Arc::default(),
            waker: Waker(sender),
            wakes: Some(wakes),
            batches: None,
        }
    }

    /// A handle that wakes the source.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Waker {
    /// Looks at once instead of at the next poll. Cheap; never waits.
    pub fn wake(&self) {
        // Full means that a wake is already pending, which is all that is asked for.
        let _ = self.0.try_send(Wake);
    }
}

impl Source for SqliteSource {
    async fn begin(&mut self) -> Result<(), SourceError> {
        // The bus file's lock keeps a second process out, and the thread opens the file itself.
        Ok(())
    }

    async fn next_batch(&mut self) -> Result<Transactions, SourceError> {
        let batches = self.batches.as_mut().ok_or(SourceError::Stopped)?;
        batches.recv().await.unwrap_or(Err(SourceError::Stopped))
    }

    fn confirm(&mut self, checkpoint: Option<&Checkpoint>) {
        let Some(wakes) = self.wakes.take() else {
            if let Some(checkpoint) = checkpoint {
                self.confirmed.store(checkpoint.high, Ordering::Release);
            }
            return;
        };
        let (sender, batches) = mpsc::channel(1);
        self.batches = Some(batches);
        let tail = Tail::new(
            self.config.clone(),
            self.confirmed.clone(),
            checkpoint.cloned(),
            self.waker.0.clone(),
        );
        let name = "sqlite-source".to_owned();
        let spawned = std::thread::Builder::new()
            .name(name)
            .spawn(move || tail.run(&wakes, &sender));
        if let Err(err) = spawned {
            // `batches` is closed already: the next call says that the source has stopped.
            tracing::error!(error = %err, "the source's thread cannot be started");
        }
    }
}
