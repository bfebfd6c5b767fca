//! Bus: carries Events in one total order, durably.

pub mod embedded;
pub mod jetstream;

use std::{future::Future, sync::Arc, time::SystemTime};

use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::{
    event::{Batch, Delivery},
    position::{Checkpoint, Position},
    status::Report,
};

/// What the bus holds at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The last event's position, with its check where that costs nothing; offset 0 where there
    /// has been none.
    pub position: Position,
    /// The last offset that was given: beyond `position` where a transaction's last part is missing.
    pub stored: u64,
    /// The first offset still retained; `position.offset + 1` where nothing is.
    pub first: u64,
    /// How far the active source has been read into the bus.
    pub checkpoint: Option<Checkpoint>,
}

/// Deliveries read together, and what was known when they were read.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// In order and without a hole; possibly none.
    pub deliveries: Vec<Delivery>,
    /// The head, if these deliveries reach it: everything up to its checkpoint has been seen.
    pub head: Option<Head>,
}

/// What became of a published batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The position of the last event stored, or of the first copy of a single repeated event.
    pub position: Position,
    /// How many events were new.
    pub stored: usize,
}

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// An event is over [`crate::event::MAX_EVENT_BYTES`]. Nothing was stored; retrying cannot help.
    #[error("an event of {bytes} bytes is too large for the bus")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Another producer has taken over. Nothing was stored; stop, or stand by.
    #[error("another producer has taken over")]
    Fenced,
    /// The outcome is unknown. Retry with the same batch.
    #[error("the bus cannot store: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a stretch of the bus cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position belongs to another history.
    #[error("the bus holds another epoch")]
    Epoch,
    /// What follows the position is not retained any more.
    #[error("the events are no longer retained")]
    Trimmed,
    /// The position is beyond the head: the bus has gone back.
    #[error("the position is beyond the head")]
    Ahead,
    /// At the position sits another message than its check was told of: the bus was restored.
    #[error("the bus holds another message at this position")]
    Mismatch,
    /// The bus cannot be reached now. Try again.
    #[error("the bus cannot be read: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// How far an acknowledged event is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk.
    Fsynced,
    /// Three servers or more hold it.
    Replicated,
    /// One server holds it, and writes it to the disk some time later: a power failure may take
    /// it back. Also where it is not known.
    Buffered,
}

impl Durability {
    /// The word of the log, of `rowcast check` and of `/api/pipeline`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fsynced => "fsynced",
            Self::Replicated => "replicated",
            Self::Buffered => "buffered",
        }
    }
}

/// A message of an application that no reader understands, as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its number among the dead letters.
    pub seq: u64,
    /// When it was put there, Unix milliseconds.
    pub at_ms: i64,
    /// The subject to which it was published.
    pub subject: String,
    /// The topic that this subject names.
    pub topic: String,
    /// Why it is no event.
    pub reason: String,
    /// Its offset on the bus.
    pub of: Option<u64>,
    /// Bytes of its body, as kept.
    pub size: usize,
    /// Its body's first [`LETTER_CHARS`] characters; what is no UTF-8 is replaced.
    pub text: String,
}

/// A revocation as it is kept beside the events, for gateways that start. What it says is nothing to the
/// bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptRevocation {
    /// When it was said: of a stream when it was stored.
    pub at: SystemTime,
    /// What was said.
    pub body: Bytes,
}

/// The most characters of a [`DeadLetter`] that are read out.
pub const LETTER_CHARS: usize = 2000;

/// Dead letters, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetters {
    /// Some of them.
    pub letters: Vec<DeadLetter>,
    /// How many there are.
    pub total: u64,
    /// Whether this bus keeps any: where nobody else publishes, nothing can become one.
    pub kept: bool,
}

/// One total order of events, kept for a window of time and size.
///
/// *Order*: offsets grow by one per event within an epoch; every reader sees the same order.
/// *Duplicates*: a batch whose checkpoint is not after the stored one stores nothing, and neither
/// does an application's event whose id was stored within the duplicate window (2 minutes).
/// *Durability*: what [`Bus::publish`] returned for survives the process and the machine.
/// *Checks*: the position of a delivery, and of an application's event just published, carries the
/// check of its message, the same for every reader.
/// *Epoch*: a batch whose checkpoint names another `source` begins a new epoch.
/// *Parts*: of batches with [`Batch::more`] readers see nothing until the one that ends the
/// transaction is stored; then all of it, contiguous among changes. A new epoch abandons an open part.
pub trait Bus: Clone + Send + Sync + 'static {
    /// Claims the bus for this change producer, and returns how far the source has been read into
    /// it. From then on a batch with a checkpoint from whoever claimed it before is refused with
    /// [`PublishError::Fenced`]. Events of applications need no claim.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`]: try again.
    ///
    /// # Cancel safety
    /// Cancel safe: claim again.
    fn claim(&self) -> impl Future<Output = Result<Option<Checkpoint>, PublishError>> + Send;

    /// Topics that were defined otherwise when the bus was claimed last, as far as it keeps
    /// definitions: who resumes across this point must be told to query them again.
    fn redefined(&self) -> Vec<String> {
        Vec::new()
    }

    /// Stores a batch, all of it or nothing, and waits until it is durable; then answers its marks.
    ///
    /// # Errors
    /// See [`PublishError`]; after `Unavailable` retry the same batch, which cannot store it twice.
    ///
    /// # Cancel safety
    /// Not cancel safe: after a drop the outcome is unknown, as after `Unavailable`.
    fn publish(&self, batch: Batch)
    -> impl Future<Output = Result<Published, PublishError>> + Send;

    /// Answers marks, storing nothing: whatever this handle has published is on the bus. Returns
    /// whether it could say so; if not, publish a batch that carries them.
    ///
    /// # Cancel safety
    /// Cancel safe: some may be answered, and an answer twice does no harm.
    fn answer(&self, marks: &[Arc<str>]) -> impl Future<Output = bool> + Send;

    /// The answers to marks from now on, whoever set them: everything that was in the database's
    /// log before the mark stands at or before the position. Some may be lost. There is one such
    /// reader in a process: a second one may take the first one's place.
    ///
    /// # Cancel safety
    /// Dropping the stream ends it; polling it is cancel safe.
    fn marks(&self) -> impl Stream<Item = (Arc<str>, Position)> + Send + Unpin + 'static;

    /// Follows the bus from just after `from`, for ever.
    ///
    /// The check of `from`, too, is held against what sits there.
    /// A chunk of another epoch than `from`'s begins with that epoch's first retained event.
    /// An error is not the end: the stream goes on where it stood once the bus can be read.
    ///
    /// # Cancel safety
    /// Dropping the stream ends the subscription; polling it is cancel safe.
    fn subscribe(
        &self,
        from: Position,
    ) -> impl Stream<Item = Result<Chunk, ReadError>> + Send + Unpin + 'static;

    /// Reads at most `limit` events just after `after`; none only where `after` is the head. The check
    /// of `after` is held against what sits there, if that is still retained.
    ///
    /// # Errors
    /// See [`ReadError`]: a stretch is never shortened at its beginning, nor has it holes. Where the bus cannot be read
    /// on any more it may end early: go on after it, or ask again.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is consumed.
    fn read(
        &self,
        after: Position,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, ReadError>> + Send;

    /// What the bus holds now.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] only.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn head(&self) -> impl Future<Output = Result<Head, ReadError>> + Send;

    /// Kind and place of the bus for a person, such as `nats host:4222`: no user, no password.
    fn describe(&self) -> String;

    /// What an acknowledgement is worth. May take seconds.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn durability(&self) -> impl Future<Output = Durability> + Send;

    /// Asks the processes on this bus how they are: their answers as they come, in any order, and
    /// those of who is asked itself among them. Who has asked decides how long to wait. It ends
    /// where nobody can be asked, as on a bus of one process.
    ///
    /// # Cancel safety
    /// Dropping the stream ends it; polling it is cancel safe.
    fn reports(&self) -> impl Stream<Item = Report> + Send + Unpin + 'static {
        stream::empty()
    }

    /// The newest dead letters, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] only.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn dead_letters(
        &self,
        _limit: usize,
    ) -> impl Future<Output = Result<DeadLetters, ReadError>> + Send {
        std::future::ready(Ok(DeadLetters::default()))
    }
}
