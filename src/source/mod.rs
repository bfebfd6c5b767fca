//! Source: turns a database's committed changes into [`Change`]s.

pub mod postgres;
pub mod sqlite;

use std::{future::Future, sync::Arc};

use crate::{event::Change, position::Checkpoint};

/// Whole transactions, read together.
#[derive(Debug, Clone)]
pub struct Transactions {
    /// In commit order; possibly none.
    pub changes: Vec<Change>,
    /// How far the source has been read with them.
    pub checkpoint: Checkpoint,
    /// Marks that came by with these transactions, after whose batch the bus answers them: who
    /// set a mark learns from the answer that everything visible before it is on the bus.
    pub marks: Vec<Arc<str>>,
    /// The batch ends within a transaction that is too large for one; the next goes on with it.
    pub more: bool,
}

/// Why a source cannot say what changed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The database cannot be read now. Call again; the source reconnects by itself.
    #[error("the database cannot be read: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another producer reads this source. Begin again: this one takes over when that one is gone.
    #[error("standing by: {0}")]
    Standby(String),
    /// The source has stopped for good, because its owner dropped it or it was told to.
    #[error("the source has stopped")]
    Stopped,
}

/// A database whose committed changes can be followed.
///
/// *Order*: changes come in commit order; checkpoints grow. *Wholeness*: a transaction is split
/// between two batches only where it is too large for one, and then all but its last part say
/// [`Transactions::more`]. *Loss*: none between the confirmed checkpoint and the present, as
/// long as the database keeps what was not confirmed. *Duplicates*: after a restart the source
/// resumes just after the last confirmed checkpoint, so what was read but not confirmed comes
/// again, under the same checkpoints.
///
/// A history that cannot be continued (a restored, replaced or re-created database) is not an
/// error: the next batch carries a checkpoint with another `source`, and no change from before.
pub trait Source: Send + 'static {
    /// Connects, and makes sure that nobody else reads the source. Called before anything else,
    /// and again after every error of [`Source::next_batch`].
    ///
    /// # Errors
    /// [`SourceError::Unavailable`], [`SourceError::Standby`]: wait a little and call again.
    ///
    /// # Cancel safety
    /// Cancel safe: call it again.
    fn begin(&mut self) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Waits for the next whole transactions. The first batch after a start may be empty: it
    /// says which history the source follows, and from where.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`]: nothing was consumed that was confirmed; wait a little and
    /// begin again.
    ///
    /// # Cancel safety
    /// Cancel safe: a batch is either returned or still to come.
    fn next_batch(&mut self) -> impl Future<Output = Result<Transactions, SourceError>> + Send;

    /// Records that everything up to `checkpoint` is durable on the bus, and need not be kept.
    ///
    /// Called once after every [`Source::begin`], before [`Source::next_batch`], with what the bus
    /// already holds, if anything, which is where reading resumes; then after every batch that the
    /// bus has stored.
    fn confirm(&mut self, checkpoint: Option<&Checkpoint>);
}
