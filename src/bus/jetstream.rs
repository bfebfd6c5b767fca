//! The bus of production: a stream of NATS JetStream. Offsets are its sequences, the change
//! producer fences itself by them, and applications publish into it as they like
//! (nats/README.md says who writes what).

mod answers;
mod batch;
mod connect;
mod control;
mod dead;
mod decode;
mod denied;
mod durability;
mod follow;
mod illegible;
mod letters;
mod lives;
mod look;
mod marks;
mod outgoing;
mod pull;
mod range;
mod read;
mod record;
mod revocations;
mod single;
mod status;
mod stream;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex as SyncMutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use futures_util::Stream;
use tokio::sync::{Mutex, Semaphore};

pub use self::{
    answers::Apart,
    connect::ConnectError,
    outgoing::header_text,
    revocations::{REVOKE, Revocations, Told, Untold},
};
use self::{
    connect::Connection, follow::Follower, illegible::Illegible, look::Look, stream::Ready,
    writer::Claim,
};
use super::{Bus, Chunk, DeadLetters, Durability, Head, PublishError, Published, ReadError};
use crate::{
    event::{Batch, Delivery},
    metrics::Metrics,
    position::{Checkpoint, Epoch, Position},
    status::Report,
};

/// What went wrong, as a text.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Applications' batches in flight at once; a server takes 50 open batches for a stream.
const APPLICATIONS: usize = 32;

/// Where the bus is, and how it is kept.
#[derive(Clone)]
pub struct JetStreamConfig {
    /// URLs of one or more servers of one cluster, comma separated:
    /// `nats://user:password@host:4222`, `tls://host:4222`.
    pub servers: String,
    /// How the connection calls itself.
    pub name: String,
    /// What every subject begins with; in upper case, the name of the stream.
    pub prefix: String,
    /// A file of credentials (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// A file of certificates to trust, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Files of a certificate of ours and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How many servers keep a copy.
    pub replicas: usize,
    /// How long an event is retained.
    pub keep: Duration,
    /// The most bytes of events retained.
    pub max_bytes: u64,
    /// How long revocations are kept.
    pub keep_revoked: Duration,
    /// Whether a producer may create the streams and change their limits.
    pub manage: bool,
    /// The topics' names. An application's event of another one is a dead letter; none means
    /// that any will do.
    pub types: Vec<String>,
    /// The topics and the fingerprints of their definitions, which a producer declares.
    pub fingerprints: Vec<(String, String)>,
    /// The base of the server's monitoring, for example `http://127.0.0.1:8222`.
    pub monitor: Option<String>,
    /// Where dead letters are counted.
    pub metrics: Metrics,
}

impl Default for JetStreamConfig {
    fn default() -> Self {
        Self {
            servers: "nats://127.0.0.1:4222".to_owned(),
            name: "rowcast".to_owned(),
            prefix: "rowcast".to_owned(),
            credentials: None,
            ca: None,
            client_certificate: None,
            replicas: 1,
            keep: Duration::from_secs(24 * 3600),
            max_bytes: 8 << 30,
            keep_revoked: Duration::from_hours(30 * 24),
            manage: true,
            types: Vec::new(),
            fingerprints: Vec::new(),
            monitor: None,
            metrics: Metrics::default(),
        }
    }
}

/// What a process does with the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Publishes changes. Alone may create the stream and declare epochs.
    Producer,
    /// Follows, and publishes events of applications.
    Gateway,
    /// A command of whoever the URL names: looks on, or publishes an application's event. It
    /// tells of no dead letters.
    Command,
}

/// A [`Bus`] on NATS JetStream. Cloning shares the connection.
///
/// An offset belongs to the epoch declared last before it. The declaration itself is the offset
/// just before the epoch's first, so an epoch seldom begins with offset 1. The producer's other
/// records are deliveries without an event.
///
/// The connection is made in the background and remade for ever; meanwhile everything is
/// `Unavailable`, with a text that stays the same while the reason does.
#[derive(Debug, Clone)]
pub struct JetStreamBus(Arc<Shared>);

impl std::ops::Deref for JetStreamBus {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// What all handles share.
#[derive(Debug)]
pub struct Shared {
    config: JetStreamConfig,
    role: Role,
    names: Names,
    types: HashSet<String>,
    connection: Connection,
    ready: Mutex<Option<Ready>>,
    writer: Mutex<Option<Claim>>,
    applications: Semaphore,
    /// The newest state seen, and the connection over which.
    known: SyncMutex<Option<(u64, Known)>>,
    /// The fingerprints as found by the last claim.
    declared: SyncMutex<HashMap<String, String>>,
    dead: dead::Dead,
    illegible: SyncMutex<Illegible>,
    /// Where other processes answer how they are.
    inbox: OnceLock<String>,
}

/// Enough of a [`Look`] to answer reads of what is old.
#[derive(Debug, Clone)]
struct Known {
    epoch: Epoch,
    begins: u64,
    visible: u64,
}

/// The names that follow from the prefix.
#[derive(Debug)]
pub struct Names {
    stream: String,
    changes: String,
    state: String,
    events: String,
    dead: String,
    dead_stream: String,
    revoke: String,
    revoked_stream: String,
    prefix: String,
}

impl Names {
    /// The names below a prefix, which is one word of a subject.
    pub fn new(prefix: &str) -> Self {
        let stream = prefix.to_uppercase().replace('.', "_");
        Self {
            changes: format!("{prefix}.change.>"),
            state: format!("{prefix}.change.sys.state"),
            events: format!("{prefix}.event.>"),
            dead: format!("{prefix}.dlq.>"),
            dead_stream: format!("{stream}_DLQ"),
            revoke: format!("{prefix}.control.{REVOKE}"),
            revoked_stream: format!("{stream}_REVOKED"),
            prefix: prefix.to_owned(),
            stream,
        }
    }

    /// Where changes of a topic are published. A topic's name is one word of a subject
    /// ([`crate::topic::is_topic_name`]).
    pub fn change(&self, topic: &str) -> String {
        format!("{}.change.{topic}", self.prefix)
    }

    /// Whether a subject is the change producer's.
    fn is_change(&self, subject: &str) -> bool {
        let rest = subject.strip_prefix(&self.prefix);
        rest.is_some_and(|rest| rest.starts_with(".change."))
    }

    /// Where applications' events of a topic are published.
    pub fn event(&self, topic: &str) -> String {
        format!("{}.event.{topic}", self.prefix)
    }
}

impl JetStreamBus {
    /// Opens the bus and returns at once, whether a server answers or not.
    ///
    /// # Errors
    /// Only what the configuration alone decides: a file that cannot be read, a URL that is none.
    pub async fn connect(config: JetStreamConfig, role: Role) -> Result<Self, ConnectError> {
        let connection = Connection::open(&config, role).await?;
        let (dead, woken) = dead::Dead::new();
        let bus = Self(Arc::new(Shared {
            names: Names::new(&config.prefix),
            types: config.types.iter().cloned().collect(),
            role,
            connection,
            ready: Mutex::default(),
            writer: Mutex::default(),
            applications: Semaphore::new(APPLICATIONS),
            known: SyncMutex::default(),
            declared: SyncMutex::default(),
            dead,
            illegible: SyncMutex::default(),
            inbox: OnceLock::new(),
            config,
        }));
        let weak = Arc::downgrade(&bus.0);
        tokio::spawn(dead::bury(weak, woken));
        Ok(bus)
    }

    /// The topics' fingerprints as the producer before had declared them, found by the last
    /// [`Bus::claim`]; empty where none had. The first batch after a claim declares ours: it
    /// should begin with a `reload` of each topic that differs.
    pub fn declared_fingerprints(&self) -> HashMap<String, String> {
        let declared = self.declared.lock();
        declared.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The topics' fingerprints as declared now, for a gateway to compare with its own.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] only.
    pub async fn fingerprints(&self) -> Result<HashMap<String, String>, ReadError> {
        self.look().await.map(|look| look.topics)
    }

    /// What the client cannot read.
    fn illegible(&self) -> MutexGuard<'_, Illegible> {
        self.illegible
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was seen.
    fn know(&self, look: &Look) {
        let known = Known {
            epoch: look.epoch.clone(),
            begins: look.begins,
            visible: look.visible,
        };
        self.illegible().forget(look.stream_first);
        let generation = self.connection.generation();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some((generation, known));
    }

    /// What was seen over this connection.
    fn known(&self) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.connection.generation();
        known
            .as_ref()
            .filter(|(seen, _)| *seen == generation)
            .map(|(_, known)| known.clone())
    }
}

impl Bus for JetStreamBus {
    async fn claim(&self) -> Result<Option<Checkpoint>, PublishError> {
        let claimed = self.take_over().await;
        claimed.map_err(|err| self.unpublished(err))
    }

    fn redefined(&self) -> Vec<String> {
        let declared = self.declared_fingerprints();
        let ours = self.config.fingerprints.iter();
        let other = |(topic, fingerprint): &&(String, String)| {
            let theirs = declared.get(topic);
            theirs.is_some_and(|theirs| theirs != fingerprint)
        };
        ours.filter(other).map(|(topic, _)| topic.clone()).collect()
    }

    async fn publish(&self, batch: Batch) -> Result<Published, PublishError> {
        let published = match batch.checkpoint.is_some() {
            true => self.publish_changes(batch).await,
            false => self.publish_applications(batch).await,
        };
        published.map_err(|err| self.unpublished(err))
    }

    async fn answer(&self, marks: &[Arc<str>]) -> bool {
        self.answer_marks(marks).await
    }

    fn marks(&self) -> impl Stream<Item = (Arc<str>, Position)> + Send + Unpin + 'static {
        self.answered_marks()
    }

    fn subscribe(
        &self,
        from: Position,
    ) -> impl Stream<Item = Result<Chunk, ReadError>> + Send + Unpin + 'static {
        let follower = Follower::new(self.clone(), from);
        Box::pin(futures_util::stream::unfold(
            follower,
            |mut follower| async move {
                let chunk = follower.next().await;
                Some((chunk, follower))
            },
        ))
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Delivery>, ReadError> {
        let read = self.stretch(after, limit).await;
        read.map_err(|err| self.unread(err))
    }

    async fn head(&self) -> Result<Head, ReadError> {
        let looked = self.look().await;
        looked
            .map(|look| look.head())
            .map_err(|err| self.unread(err))
    }

    fn describe(&self) -> String {
        format!("nats {}", self.connection.servers())
    }

    async fn durability(&self) -> Durability {
        self.worth().await
    }

    fn reports(&self) -> impl Stream<Item = Report> + Send + Unpin + 'static {
        self.asked_status()
    }

    async fn dead_letters(&self, limit: usize) -> Result<DeadLetters, ReadError> {
        let letters = self.newest_letters(limit).await;
        letters.map_err(|err| ReadError::Unavailable(self.reason(err)))
    }
}
