//! Store: answers direct queries, and says exactly what the answer saw.

pub mod demo;
pub mod postgres;
pub mod sql;
pub mod sqlite;

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    horizon::{Horizon, Settled},
    protocol::{ErrorCode, Failure, Page, Select},
    row::Rows,
    topic::{Table, Topic},
};

/// The rows of one read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What the read saw; none where the database is not captured, so that nothing can be said.
    pub horizon: Option<Horizon>,
    /// How far the stream must have come to hold all that the read saw. None where that is not
    /// known, or needs no saying: a [`Horizon::Checkpoint`] is a place in the stream by itself.
    pub settled: Option<Settled>,
    /// The rows, in the order asked for.
    pub rows: Rows,
    /// The page's place in the list; none for one row and for the whole view.
    pub page: Option<Page>,
    /// How long the database took, without what the read waited for a connection.
    pub took: Duration,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The request does not fit the topic; the text names the parameter, never its value.
    #[error("{0}")]
    BadParam(&'static str),
    /// The topic's table, or a column that it needs, is not there any more. The rest is well.
    #[error("{0}")]
    Gone(String),
    /// The read was stopped after the query timeout.
    #[error("the query took too long")]
    Timeout,
    /// No connection was free before the query timeout was over: nothing was read.
    #[error("no connection to the database was free in time")]
    Busy,
    /// The database, or the topic's table as it is now, cannot be read.
    #[error("the database cannot be read: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the asker is told: never what the database said.
impl From<StoreError> for Failure {
    fn from(err: StoreError) -> Self {
        match err {
            StoreError::BadParam(detail) => Failure::param(detail),
            StoreError::Timeout | StoreError::Busy => ErrorCode::QueryTimeout.into(),
            StoreError::Gone(_) | StoreError::Unavailable(_) => ErrorCode::DbUnavailable.into(),
        }
    }
}

/// A database that direct queries are answered from.
///
/// Reads only. Every snapshot is one consistent read: rows, page and horizon belong together.
pub trait Store: Clone + Send + Sync + 'static {
    /// Runs one read of a topic that has a view.
    ///
    /// # Errors
    /// [`StoreError::BadParam`] is the asker's to mend, `Timeout`, `Busy`, `Gone` and `Unavailable` may pass.
    /// The read never outlasts the configured timeout by more than a few milliseconds.
    ///
    /// # Cancel safety
    /// Cancel safe: the read runs to its end unheeded, within its timeout.
    fn snapshot(
        &self,
        topic: Arc<Topic>,
        select: Select,
    ) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// The topic's table as it is now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; [`StoreError::Gone`] where the table does not exist;
    /// [`StoreError::BadParam`] for a topic that has no view.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn describe(&self, topic: Arc<Topic>)
    -> impl Future<Output = Result<Table, StoreError>> + Send;

    /// Puts a mark into the database's log, which the change producer answers when all that was
    /// visible before this call is on the bus, and returns the mark's own transaction id. For a
    /// store whose snapshots are [`Horizon::Visible`]; `name` is at most 64 letters of ASCII.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where none can be set: nobody will answer.
    ///
    /// # Cancel safety
    /// Cancel safe: the mark may be set, and is answered to nobody.
    fn mark(&self, name: &str) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
