//! Reads what is asked for, each way by which it comes by itself.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::{
    Ask, Read, answer,
    first_pages::FirstPages,
    is_first_page,
    marks::Marks,
    shared::{Reply, Shared},
    turns::{Turn, Turns},
};
use crate::{
    horizon::Horizon,
    metrics::{Health, Metrics, Part},
    protocol::{ErrorCode, Failure},
    store::{Store, StoreError},
};

/// Reads what is asked for as it comes, so much of it at once.
pub async fn serve(
    reader: &Arc<Reader<impl Store>>,
    mut asks: mpsc::Receiver<Ask>,
    running: Arc<Semaphore>,
) {
    while let Some(ask) = asks.recv().await {
        let Ok(permit) = running.clone().acquire_owned().await else {
            break;
        };
        let reader = reader.clone();
        tokio::spawn(async move {
            let _permit = permit;
            match ask {
                Ask::Read(read) => reader.read_on(&read).await,
                Ask::Describe(topic, reply) => {
                    let found = reader.store.describe(topic).await;
                    tell(&reader.health, found.as_ref().err());
                    // An asker that has gone needs no answer.
                    let _ = reply.send(found);
                }
            }
        });
    }
}

/// Reads what may take long, whoever's turn it is.
pub async fn serve_in_turns(
    reader: &Arc<Reader<impl Store>>,
    mut turns: Turns,
    running: Arc<Semaphore>,
) {
    while let Some(turn) = turns.next().await {
        let (reader, running) = (reader.clone(), running.clone());
        tokio::spawn(async move {
            // There are fewer turns than connections: what it waits for is quick.
            let _permit = running.acquire_owned().await;
            reader.read_once(turn).await;
        });
    }
}

/// What a read is done with.
pub struct Reader<S> {
    pub store: S,
    pub shared: Shared,
    pub first_pages: FirstPages,
    pub marks: Marks,
    pub health: Health,
    pub metrics: Metrics,
}

impl<S: Store> Reader<S> {
    /// Reads as long as somebody waits for this read.
    async fn read_on(&self, read: &Read) {
        loop {
            // All who are about to ask for the same join first: on a busy machine that is one read for
            // many, and on an idle one it takes no time.
            tokio::task::yield_now().await;
            let Some(askers) = self.shared.begin(&read.key) else {
                return;
            };
            self.read(read, askers).await;
        }
    }

    /// Reads for those who wait now, if anybody still does.
    async fn read_once(&self, mut turn: Turn) {
        tokio::task::yield_now().await;
        let askers = turn.begin();
        if !askers.is_empty() {
            self.read(&turn.read, askers).await;
        }
    }

    async fn read(&self, Read { key, topic }: &Read, askers: Vec<Reply>) {
        let found = self
            .store
            .snapshot(topic.clone(), key.select().clone())
            .await;
        self.metrics.query(outcome(&found));
        if is_first_page(key.select()) {
            match &found {
                Ok(snapshot) => self.first_pages.took(key, Some(snapshot.took)),
                Err(StoreError::Timeout) => self.first_pages.took(key, None),
                Err(_) => {}
            }
        }
        tell(&self.health, found.as_ref().err());
        match found {
            Ok(mut snapshot)
                if key.placed() && matches!(snapshot.horizon, Some(Horizon::Visible(_))) =>
            {
                let marks = self.marks.clone();
                // The next read need not wait for this one's mark.
                tokio::spawn(async move {
                    snapshot.settled = marks.settled().await;
                    answer(askers, Ok(snapshot));
                });
            }
            found => answer(askers, found.map_err(Failure::from)),
        }
    }
}

fn outcome<T>(found: &Result<T, StoreError>) -> &'static str {
    match found {
        Ok(_) => "ok",
        Err(StoreError::BadParam(_)) => ErrorCode::BadParam.slug(),
        Err(StoreError::Timeout | StoreError::Busy) => ErrorCode::QueryTimeout.slug(),
        Err(StoreError::Gone(_) | StoreError::Unavailable(_)) => ErrorCode::DbUnavailable.slug(),
    }
}

fn tell(health: &Health, failure: Option<&StoreError>) {
    match failure {
        Some(StoreError::Unavailable(err)) => health.down(Part::Store, err),
        Some(StoreError::Timeout | StoreError::Busy) => {}
        // Told by the source already; other topics are served.
        Some(StoreError::Gone(reason)) => tracing::debug!(reason, "a topic cannot be served"),
        Some(StoreError::BadParam(_)) | None => health.up(Part::Store),
    }
}
