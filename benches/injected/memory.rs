//! A bus that keeps its last events in memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, stream};
use rowcast::{
    bus::{Bus, Chunk, Durability, Head, PublishError, Published, ReadError},
    event::{Batch, Body, Delivery, Event},
    position::{Checkpoint, Epoch, Position},
};
use tokio::sync::watch;

/// Bytes of events that are kept: what this bus holds must not pass for what the gateway does.
const KEPT_BYTES: usize = 8 * 1024 * 1024;

/// What an event costs beside its text.
const OVERHEAD: usize = 200;

/// The bus. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Memory {
    kept: Arc<Mutex<Kept>>,
    head: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Kept {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, delivery: Delivery) {
        self.bytes += cost(&delivery);
        self.deliveries.push_back(delivery);
        while self.bytes > KEPT_BYTES
            && let Some(gone) = self.deliveries.pop_front()
        {
            self.bytes -= cost(&gone);
        }
    }
}

fn cost(delivery: &Delivery) -> usize {
    let text = match delivery.event.as_ref().map(|event| &event.body) {
        Some(Body::Application(text)) => text.get().len(),
        _ => 0,
    };
    OVERHEAD + text
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
            kept.push(Delivery {
                position: place(offset),
                event: Some(event),
            });
        }
        drop(kept);
        self.head.send_replace(offset);
        place(offset)
    }

    fn after(&self, offset: u64, limit: usize) -> Result<Vec<Delivery>, ReadError> {
        let kept = &self.kept.lock().unwrap().deliveries;
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
                let chunk = bus.after(offset, usize::MAX).map(|deliveries| Chunk {
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
            .deliveries
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
