//! Source: turns a database's committed changes into [`Change`]s.

pub mod sqlite;

use std::future::Future;

use crate::{event::Change, position::Checkpoint};

/// Whole transactions, read together.
#[derive(Debug, Clone)]
pub struct Transactions {
    /// In commit order; possibly none.
    pub changes: Vec<Change>,
    /// How far the source has been read with them.
    pub checkpoint: Checkpoint,
}

/// Why a source cannot say what changed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The database cannot be read now. Call again; the source reconnects by itself.
    #[error("the database cannot be read: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The source has stopped for good, because its owner dropped it or it was told to.
    #[error("the source has stopped")]
    Stopped,
}

/// A database whose committed changes can be followed.
///
/// *Order*: changes come in commit order; checkpoints grow. *Wholeness*: a transaction is never
/// split between two batches. *Loss*: none between the confirmed checkpoint and the present, as
/// long as the database keeps what was not confirmed. *Duplicates*: after a restart the source
/// resumes just after the last confirmed checkpoint, so what was read but not confirmed comes
/// again, under the same checkpoints.
///
/// A history that cannot be continued (a restored, replaced or re-created database) is not an
/// error: the next batch carries a checkpoint with another `source`, and no change from before.
pub trait Source: Send + 'static {
    /// Waits for the next whole transactions. The first batch after a start may be empty: it
    /// says which history the source follows, and from where.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`]: nothing was consumed; wait a little and call again.
    ///
    /// # Cancel safety
    /// Cancel safe: a batch is either returned or still to come.
    fn next_batch(&mut self) -> impl Future<Output = Result<Transactions, SourceError>> + Send;

    /// Records that everything up to `checkpoint` is durable on the bus, and need not be kept.
    ///
    /// Called once before the first [`Source::next_batch`] with what the bus already holds, if
    /// anything, which is where reading resumes; then after every batch that the bus has stored.
    fn confirm(&mut self, checkpoint: Option<&Checkpoint>);
}
