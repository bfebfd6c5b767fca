//! Direct queries. One loop takes them from sockets and HTTP and runs them on the store, a
//! bounded number at a time; each gets exactly one answer.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    metrics::{Health, Metrics, Part},
    protocol::{ErrorCode, Failure, Select},
    store::{Snapshot, Store, StoreError},
    topic::{Table, Topic},
};

/// Queries of all sockets together that wait for their turn; the next is refused with 429.
const QUEUE: usize = 1024;

/// Queries that run at once. The store bounds its own connections; this bounds the tasks.
const RUNNING: usize = 64;

/// What a refused client is told to wait.
pub const RETRY_AFTER_MS: u32 = 250;

/// How much longer than the store's own timeout an answer is waited for.
const SLACK: Duration = Duration::from_millis(500);

/// Asks direct queries. Cloning shares the loop.
#[derive(Debug, Clone)]
pub struct Queries {
    sender: mpsc::Sender<Ask>,
    timeout: Duration,
}

enum Ask {
    Snapshot(
        Arc<Topic>,
        Select,
        oneshot::Sender<Result<Snapshot, StoreError>>,
    ),
    Describe(Arc<Topic>, oneshot::Sender<Result<Table, StoreError>>),
}

/// The receiving end, for [`run`].
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Ask>);

/// A handle to ask with, and the inbox for the loop; `timeout` is the store's own.
pub fn channel(timeout: Duration) -> (Queries, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (
        Queries {
            sender,
            timeout: timeout + SLACK,
        },
        Inbox(receiver),
    )
}

/// Answers queries until every [`Queries`] is dropped.
pub async fn run(store: impl Store, mut inbox: Inbox, health: Health, metrics: Metrics) {
    let running = Arc::new(Semaphore::new(RUNNING));
    while let Some(ask) = inbox.0.recv().await {
        let Ok(permit) = running.clone().acquire_owned().await else {
            return;
        };
        let (store, health, metrics) = (store.clone(), health.clone(), metrics.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // An asker that has gone needs no answer.
            match ask {
                Ask::Snapshot(topic, select, reply) => {
                    let found = store.snapshot(topic, select).await;
                    metrics.query(outcome(&found));
                    tell(&health, found.as_ref().err());
                    let _ = reply.send(found);
                }
                Ask::Describe(topic, reply) => {
                    let found = store.describe(topic).await;
                    tell(&health, found.as_ref().err());
                    let _ = reply.send(found);
                }
            }
        });
    }
}

fn outcome<T>(found: &Result<T, StoreError>) -> &'static str {
    match found {
        Ok(_) => "ok",
        Err(StoreError::BadParam(_)) => ErrorCode::BadParam.slug(),
        Err(StoreError::Timeout) => ErrorCode::QueryTimeout.slug(),
        Err(StoreError::Gone(_) | StoreError::Unavailable(_)) => ErrorCode::DbUnavailable.slug(),
    }
}

fn tell(health: &Health, failure: Option<&StoreError>) {
    match failure {
        Some(StoreError::Unavailable(err)) => health.down(Part::Store, err),
        Some(StoreError::Timeout) => {}
        // Told by the source already; other topics are served.
        Some(StoreError::Gone(reason)) => tracing::debug!(reason, "a topic cannot be served"),
        Some(StoreError::BadParam(_)) | None => health.up(Part::Store),
    }
}

impl Queries {
    /// Runs one read and waits for its rows.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe: the answer is thrown away.
    pub async fn snapshot(&self, topic: Arc<Topic>, select: Select) -> Result<Snapshot, Failure> {
        self.ask(|reply| Ask::Snapshot(topic, select, reply)).await
    }

    /// The topic's table as it is now.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn describe(&self, topic: Arc<Topic>) -> Result<Table, Failure> {
        self.ask(|reply| Ask::Describe(topic, reply)).await
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Ask,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.sender.try_send(ask(reply)).map_err(|err| match err {
            mpsc::error::TrySendError::Full(_) => Failure {
                retry_after_ms: Some(RETRY_AFTER_MS),
                ..ErrorCode::TooManyRequests.into()
            },
            mpsc::error::TrySendError::Closed(_) => ErrorCode::DbUnavailable.into(),
        })?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(found)) => found.map_err(Failure::from),
            Ok(Err(_)) => Err(ErrorCode::Internal.into()),
            Err(_) => Err(ErrorCode::QueryTimeout.into()),
        }
    }
}
