//! Bus → Ring. One task per gateway follows the bus in order and appends each event to the ring
//! as a frame encoded once. A hole is never papered over: where events are missing the ring
//! begins again, and every session is told to reset (docs/protocol.md §1.3).

mod backlog;
mod pages;
mod publish;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

pub use backlog::{Backlog, Missing, serve as serve_backlog};
pub use pages::{Pages, run as run_pages};
pub use publish::{Publisher, serve as serve_publisher};

use crate::{
    bus::{Bus, Chunk, ReadError},
    event::{Body, Delivery, Event, Op},
    metrics::{Health, Metrics, Part},
    position::Position,
    protocol,
    ring::{Frame, FrameKind, Ring},
};

/// Follows the bus from `from`, just after which the ring begins, until `stop` is cancelled.
pub async fn run(
    bus: impl Bus,
    from: Position,
    ring: Ring,
    pages: Pages,
    (health, metrics): (Health, Metrics),
    stop: CancellationToken,
) {
    let mut fanout = Fanout {
        ring,
        pages,
        metrics,
        last: from.clone(),
    };
    let mut chunks = bus.subscribe(from);
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = chunks.next() => next,
        };
        match next {
            Some(Ok(chunk)) => {
                health.up(Part::Bus);
                fanout.append(chunk);
            }
            Some(Err(ReadError::Unavailable(err))) => health.down(Part::Bus, &err),
            Some(Err(lost @ (ReadError::Trimmed | ReadError::Ahead | ReadError::Epoch))) => {
                tracing::warn!(error = %lost, position = %fanout.last, "events are missing: every session is told");
                if let Ok(head) = bus.head().await {
                    fanout.restart(head.position.clone());
                    chunks = bus.subscribe(head.position);
                }
            }
            None => return,
        }
    }
}

struct Fanout {
    ring: Ring,
    pages: Pages,
    metrics: Metrics,
    /// The last event appended.
    last: Position,
}

impl Fanout {
    fn append(&mut self, chunk: Chunk) {
        let first = chunk.deliveries.first().map(|delivery| &delivery.position);
        let epoch = first.or(chunk.head.as_ref().map(|head| &head.position));
        if let Some(position) = epoch.filter(|position| position.epoch != self.last.epoch) {
            let before = first.map_or(position.offset, |first| first.offset - 1);
            self.restart(position.at(before));
        }
        let contiguous = first.is_none_or(|first| first.offset == self.last.offset + 1);
        if !contiguous {
            tracing::error!(position = %self.last, "the bus left out events: every session is told");
            let before = first.map_or(self.last.clone(), |first| first.at(first.offset - 1));
            self.restart(before);
        }
        for delivery in &chunk.deliveries {
            if let Some(event) = &delivery.event
                && let Body::Change { data, .. } = &event.body
                && data.op == Op::Touch
            {
                self.pages.touch(&event.topic);
            }
        }
        if let Some(last) = chunk.deliveries.last() {
            self.last = last.position.clone();
        }
        self.metrics
            .frames_ringed
            .inc_by(chunk.deliveries.len() as u64);
        let frames = chunk.deliveries.iter().map(frame).collect();
        self.ring
            .append(frames, chunk.head.and_then(|head| head.checkpoint));
        self.metrics
            .ring_offset
            .set(i64::try_from(self.last.offset).unwrap_or(i64::MAX));
        self.metrics
            .ring_bytes
            .set(i64::try_from(self.ring.size().1).unwrap_or(i64::MAX));
    }

    fn restart(&mut self, position: Position) {
        self.ring.restart(position.clone());
        self.last = position;
        // What the pages show may come from the history that is over.
        self.pages.touch_all();
    }
}

/// A delivery as a frame of the ring.
fn frame(delivery: &Delivery) -> Frame {
    let event = delivery.event.as_ref();
    Frame {
        topic: event.map_or_else(|| "".into(), |event| event.topic.clone()),
        position: delivery.position.clone(),
        text: protocol::event(delivery).map(Bytes::from),
        kind: FrameKind::Event(event.and_then(Event::checkpoint).cloned()),
    }
}
