//! A bus that keeps its last events in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, stream};
use rowcast::{
    bus::{Bus, Chunk, Durability, Head, PublishError, Published, ReadError},
    event::{Batch, Delivery, Event},
    position::{Checkpoint, Epoch, Position},
};
use tokio::sync::watch;

/// Events that are kept.
const KEPT: usize = 20_000;

/// The bus. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Memory {
    kept: Arc<Mutex<VecDeque<Delivery>>>,
    head: Arc<watch::Sender<u64>>,
}

impl Memory {
    /// Nothing in it.
    pub fn new() -> Self {
        Self {
            kept: Arc::default(),
            head: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Adds events at the head; returns the last one's position.
    pub fn append(&self, events: Vec<Event>) -> Position {
        let mut kept = self.kept.lock().unwrap();
        let mut offset = *self.head.borrow();
        for event in events {
            offset += 1;
            kept.push_back(Delivery {
                position: place(offset),
                event: Some(event),
            });
        }
        let gone = kept.len().saturating_sub(KEPT);
        kept.drain(..gone);
        drop(kept);
        self.head.send_replace(offset);
        place(offset)
    }

    fn after(&self, offset: u64, limit: usize) -> Result<Vec<Delivery>, ReadError> {
        let kept = self.kept.lock().unwrap();
        let first = kept.front().map_or(1, |first| first.position.offset);
        if offset + 1 < first {
            return Err(ReadError::Trimmed);
        }
        let skip = (offset + 1 - first) as usize;
        Ok(kept.iter().skip(skip).take(limit).cloned().collect())
    }
}

fn place(offset: u64) -> Position {
    Position::new(Epoch::parse("bench").unwrap(), offset)
}

impl Bus for Memory {
    async fn claim(&self) -> Result<Option<Checkpoint>, PublishError> {
        Ok(None)
    }

    async fn publish(&self, batch: Batch) -> Result<Published, PublishError> {
        let stored = batch.events.len();
        let position = self.append(batch.events);
        Ok(Published { position, stored })
    }

    async fn answer(&self, _marks: &[Arc<str>]) -> bool {
        false
    }

    fn marks(&self) -> impl Stream<Item = (Arc<str>, Position)> + Send + Unpin + 'static {
        stream::pending()
    }

    fn subscribe(
        &self,
        from: Position,
    ) -> impl Stream<Item = Result<Chunk, ReadError>> + Send + Unpin + 'static {
        let state = (self.clone(), self.head.subscribe(), from.offset);
        Box::pin(stream::unfold(
            state,
            |(bus, mut grown, offset)| async move {
                grown.wait_for(|head| *head > offset).await.ok()?;
                let chunk = bus.after(offset, KEPT).map(|deliveries| Chunk {
                    head: None,
                    deliveries,
                });
                let last = chunk
                    .as_ref()
                    .ok()
                    .and_then(|chunk| chunk.deliveries.last());
                let offset = last.map_or(*bus.head.borrow(), |last| last.position.offset);
                Some((chunk, (bus, grown, offset)))
            },
        ))
    }

    async fn read(&self, after: Position, limit: usize) -> Result<Vec<Delivery>, ReadError> {
        self.after(after.offset, limit)
    }

    async fn head(&self) -> Result<Head, ReadError> {
        let stored = *self.head.borrow();
        let first = self
            .kept
            .lock()
            .unwrap()
            .front()
            .map(|first| first.position.offset);
        Ok(Head {
            position: place(stored),
            stored,
            first: first.unwrap_or(stored + 1),
            checkpoint: None,
        })
    }

    fn describe(&self) -> String {
        "memory".into()
    }

    async fn durability(&self) -> Durability {
        Durability::Buffered
    }
}
