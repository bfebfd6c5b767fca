//! The bus of one machine: an SQLite file of its own beside the database. One thread writes it,
//! each commit is an fsync, and readers follow it by offset.

mod log;
mod revoked;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot, watch};

use self::log::Log;
use super::{Bus, Chunk, Durability, Head, KeptRevocation, PublishError, Published, ReadError};
use crate::{
    event::{Batch, Delivery},
    position::{Checkpoint, Position},
};

/// What waits for the writer: batches, for the most part. It takes all that wait in one commit, so that a slow disk
/// makes the commits larger and not the queue longer.
const WRITER_QUEUE: usize = 256;

/// Events read at once while following the bus.
const CHUNK: usize = 1000;

/// How often what is old is deleted: after a write, so an idle bus keeps what it has.
const TRIM_INTERVAL: Duration = Duration::from_millis(1000);

/// Where the bus keeps its events, and for how long.
#[derive(Debug, Clone)]
pub struct EmbeddedBusConfig {
    /// The file, by convention the database's path with `-bus` appended.
    pub path: PathBuf,
    /// How long an event is retained.
    pub keep: Duration,
    /// The most bytes of events retained.
    pub max_bytes: u64,
}

/// Why the bus cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another rowcast serves this database (it holds {0})")]
    Taken(PathBuf),
    /// The file cannot be opened, or is no bus.
    #[error("the bus file {path} cannot be used; may this user write its folder?")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Answers to marks that wait for their reader; more are lost.
const MARKS: usize = 256;

/// A [`Bus`] in this process, durable in its own file.
#[derive(Debug, Clone)]
pub struct EmbeddedBus {
    writer: mpsc::Sender<Order>,
    head: watch::Receiver<Head>,
    reader: Arc<Mutex<Log>>,
    /// Where answers to marks are told.
    marks: Arc<Mutex<Option<Answers>>>,
    name: Arc<str>,
    /// Held as long as any handle lives, so that no second process opens the file.
    _lock: Arc<File>,
}

/// Answers to marks on their way to their reader.
type Answers = mpsc::Sender<(Arc<str>, Position)>;

/// What the writer is asked for.
enum Order {
    Publish {
        batch: Batch,
        reply: oneshot::Sender<Result<Published, PublishError>>,
    },
    Revoke {
        revocation: KeptRevocation,
        until: SystemTime,
        reply: oneshot::Sender<Result<(), PublishError>>,
    },
}

impl EmbeddedBus {
    /// Opens the bus, or creates it, and starts its writer thread, which ends when the last
    /// handle is dropped.
    ///
    /// # Errors
    /// [`OpenError::Taken`] where another process has the file open.
    pub fn open(config: &EmbeddedBusConfig) -> Result<Self, OpenError> {
        let file = |source| OpenError::File {
            path: config.path.clone(),
            source,
        };
        let lock = lock(&config.path)?;
        let mut log = Log::open(&config.path).map_err(&file)?;
        let reader = Log::open(&config.path).map_err(&file)?;
        let (sender, head) = watch::channel(log.head().map_err(&file)?);
        let (writer, queue) = mpsc::channel(WRITER_QUEUE);
        let name = config.path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into();
        let config = config.clone();
        std::thread::Builder::new()
            .name("bus-writer".to_owned())
            .spawn(move || write_loop(&mut log, &config, queue, &sender))
            .map_err(|err| file(err.into()))?;
        Ok(Self {
            writer,
            head,
            reader: Arc::new(Mutex::new(reader)),
            marks: Arc::default(),
            name,
            _lock: Arc::new(lock),
        })
    }

    /// Keeps a revocation until that time, and waits until it is on the disk.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`]: keep it again, which does no harm.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be kept.
    pub async fn keep_revocation(
        &self,
        revocation: KeptRevocation,
        until: SystemTime,
    ) -> Result<(), PublishError> {
        let (reply, outcome) = oneshot::channel();
        let order = Order::Revoke {
            revocation,
            until,
            reply,
        };
        self.writer.send(order).await.map_err(|_| stopped())?;
        outcome.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// The revocations that are kept, the oldest first.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] only.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn revocations(&self) -> Result<Vec<KeptRevocation>, ReadError> {
        self.blocking(|log| log.revoked().map_err(ReadError::Unavailable))
            .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Log) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let reader = self.reader.clone();
        let task = tokio::task::spawn_blocking(move || read(&guard(&reader)));
        task.await
            .unwrap_or_else(|err| Err(ReadError::Unavailable(err.into())))
    }
}

fn stopped() -> PublishError {
    PublishError::Unavailable("the bus has stopped".into())
}

fn guard<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left nothing half done: logs are only read, and answers set whole.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether another process has the bus open.
pub fn is_taken(path: &Path) -> bool {
    path.exists() && matches!(lock(path), Err(OpenError::Taken(_)))
}

/// Where a read of the database stands in the bus, for a process that only looks: the position
/// of the last event that the read saw. `None` where the bus has not come that far, or is not
/// there.
pub fn cut(path: &Path, horizon: &Checkpoint) -> Option<Position> {
    let found = path
        .exists()
        .then(|| Log::look(path).and_then(|log| log.cut(horizon)))?;
    found.unwrap_or_else(|err| {
        tracing::debug!(error = %err, "the bus cannot be read");
        None
    })
}

/// Takes the lock file beside the bus. The bus file itself cannot be locked: SQLite closes and
/// opens descriptors of it as it likes.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    let path = PathBuf::from(name);
    let open = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = open.map_err(|err| OpenError::File {
        path: path.clone(),
        source: err.into(),
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(OpenError::Taken(path)),
    }
}

fn write_loop(
    log: &mut Log,
    config: &EmbeddedBusConfig,
    mut queue: mpsc::Receiver<Order>,
    head: &watch::Sender<Head>,
) {
    let mut waiting = Vec::new();
    let mut next_trim = std::time::Instant::now() + TRIM_INTERVAL;
    while queue.blocking_recv_many(&mut waiting, WRITER_QUEUE) > 0 {
        let (mut batches, mut replies) = (Vec::new(), Vec::new());
        let (mut revoked, mut revokers) = (Vec::new(), Vec::new());
        for order in waiting.drain(..) {
            match order {
                Order::Publish { batch, reply } => {
                    batches.push(batch);
                    replies.push(reply);
                }
                Order::Revoke {
                    revocation,
                    until,
                    reply,
                } => {
                    revoked.push((revocation, until));
                    revokers.push(reply);
                }
            }
        }
        if !revoked.is_empty() {
            keep(log, &revoked, revokers);
        }
        let outcomes = log.append(&batches);
        tell(log, head);
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // The publisher may have gone; what it sent is stored all the same.
            let _ = reply.send(outcome);
        }
        if next_trim <= std::time::Instant::now() {
            next_trim = std::time::Instant::now() + TRIM_INTERVAL;
            match log.trim(config.keep, config.max_bytes) {
                // A step deletes more than a commit adds, so the next one need not be awaited.
                Ok(more) if more => next_trim = std::time::Instant::now(),
                Ok(_) => {}
                Err(err) => tracing::warn!(error = %err, "the bus cannot be trimmed"),
            }
            tell(log, head);
        }
    }
}

/// Keeps revocations, and says so to those who asked for it.
fn keep(
    log: &mut Log,
    revoked: &[(KeptRevocation, SystemTime)],
    revokers: Vec<oneshot::Sender<Result<(), PublishError>>>,
) {
    let kept = log.keep_revoked(revoked).map_err(|err| err.to_string());
    for reply in revokers {
        let kept = kept.clone();
        // Who asked may have gone.
        let _ = reply.send(kept.map_err(|err| PublishError::Unavailable(err.into())));
    }
}

/// Tells readers what the file holds now.
fn tell(log: &Log, head: &watch::Sender<Head>) {
    match log.head() {
        Ok(now) => {
            head.send_if_modified(|known| {
                let news = *known != now;
                *known = now;
                news
            });
        }
        Err(err) => tracing::error!(error = %err, "the bus cannot be read after a write"),
    }
}

impl Bus for EmbeddedBus {
    async fn claim(&self) -> Result<Option<Checkpoint>, PublishError> {
        // The lock file has kept everybody else out since the bus was opened.
        let read = self.blocking(|log| log.reached().map_err(ReadError::Unavailable));
        read.await
            .map_err(|err| PublishError::Unavailable(err.into()))
    }

    async fn publish(&self, batch: Batch) -> Result<Published, PublishError> {
        let (reply, outcome) = oneshot::channel();
        let marks = batch.marks.clone();
        let sent = self.writer.send(Order::Publish { batch, reply }).await;
        sent.map_err(|_| stopped())?;
        let stored = outcome.await.unwrap_or_else(|_| Err(stopped()))?;
        self.answer(&marks).await;
        Ok(stored)
    }

    async fn answer(&self, marks: &[Arc<str>]) -> bool {
        let reader = guard(&self.marks).clone();
        let position = self.head.borrow().position.clone();
        for mark in marks {
            // Who set a mark does not wait for ever: one that cannot be told is as one lost.
            if let Some(reader) = &reader {
                let _ = reader.try_send((mark.clone(), position.clone()));
            }
        }
        true
    }

    fn marks(&self) -> impl Stream<Item = (Arc<str>, Position)> + Send + Unpin + 'static {
        let (sender, answers) = mpsc::channel(MARKS);
        *guard(&self.marks) = Some(sender);
        Box::pin(futures_util::stream::unfold(
            answers,
            |mut answers| async move { Some((answers.recv().await?, answers)) },
        ))
    }

    fn subscribe(
        &self,
        from: Position,
    ) -> impl Stream<Item = Result<Chunk, ReadError>> + Send + Unpin + 'static {
        let state = (self.clone(), from, true);
        Box::pin(futures_util::stream::unfold(
            state,
            |(mut bus, from, at_once)| async move {
                // At once the first time, and while there is more; then with every new head.
                if !at_once && bus.head.changed().await.is_err() {
                    return None;
                }
                bus.head.borrow_and_update();
                let after = from.clone();
                match bus.blocking(move |log| log.follow(&after, CHUNK)).await {
                    Ok((chunk, next)) => {
                        let more = chunk.head.is_none();
                        Some((Ok(chunk), (bus, next, more)))
                    }
                    Err(err) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Some((Err(err), (bus, from, true)))
                    }
                }
            },
        ))
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Delivery>, ReadError> {
        self.blocking(move |log| log.read(&after, limit)).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        Ok(self.head.borrow().clone())
    }

    fn describe(&self) -> String {
        format!("embedded {}", self.name)
    }

    async fn durability(&self) -> Durability {
        Durability::Fsynced
    }
}
