//! Bus → Ring. One task per gateway follows the bus in order and appends each event to the ring
//! as a frame encoded once. A hole is never papered over: where events are missing the ring
//! begins again, and every session is told to reset (docs/protocol.md §1.3).

mod backlog;
mod block;
mod marks;
mod pages;
mod publish;

use std::time::Duration;

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

pub use backlog::{Backlog, Missing, serve as serve_backlog};
pub use block::Stretch;
pub use marks::run as run_marks;
pub use pages::{Pages, run as run_pages};
pub use publish::{Publisher, serve as serve_publisher};

use crate::{
    bus::{Bus, Chunk, ReadError},
    clock::now_ms,
    event::{Body, Delivery, Op},
    metrics::{Health, Metrics, Part},
    position::Position,
    ring::{Frame, Ring},
    sabotage::{self, Fault},
};

/// "Never", for a clock.
const FAR: Duration = Duration::from_secs(86_400 * 365);

/// Why a gateway cannot say that it is current.
#[derive(Debug)]
struct Silent(Duration);

impl std::fmt::Display for Silent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no change producer has been heard for {:?}", self.0)
    }
}

/// Whether a delivery was stored by a change producer: its changes, and its records, which are no
/// events.
fn is_producers(delivery: &Delivery) -> bool {
    let event = delivery.event.as_ref();
    event.is_none_or(|event| event.checkpoint().is_some())
}

/// Follows the bus from `from`, just after which the ring begins, until `stop` is cancelled.
///
/// `silence`, where given, is how long a change producer may be silent before the source counts
/// as down: it says something at every heartbeat.
pub async fn run(
    bus: impl Bus,
    from: Position,
    ring: Ring,
    pages: Pages,
    (health, metrics): (Health, Metrics),
    (silence, stop): (Option<Duration>, CancellationToken),
) {
    let mut heard = tokio::time::Instant::now();
    let mut fanout = Fanout {
        ring,
        pages,
        metrics,
        last: from.clone(),
        warm: false,
    };
    let mut chunks = bus.subscribe(from);
    loop {
        let limit = silence.map_or(FAR, |silence| silence);
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            next = chunks.next() => next,
            () = tokio::time::sleep_until(heard + limit) => {
                health.down(Part::Source, &Silent(limit));
                heard = tokio::time::Instant::now();
                continue;
            }
        };
        match next {
            Some(Ok(chunk)) => {
                health.up(Part::Bus);
                if silence.is_some() && chunk.deliveries.iter().any(is_producers) {
                    health.up(Part::Source);
                    heard = tokio::time::Instant::now();
                }
                fanout.append(chunk);
            }
            Some(Err(ReadError::Unavailable(err))) => health.down(Part::Bus, &err),
            Some(Err(lost)) => {
                tracing::warn!(error = %lost, position = %fanout.last, "events are missing: every session is told");
                if let Ok(head) = bus.head().await {
                    let from = checked(&bus, head.position).await;
                    fanout.restart(from.clone());
                    chunks = bus.subscribe(from);
                }
            }
            None => return,
        }
    }
}

/// A position with the check of the message there, as far as that can be had now. Where a ring
/// begins, cursors are verified by it.
pub async fn checked(bus: &impl Bus, position: Position) -> Position {
    let Some(before) = position.offset.checked_sub(1) else {
        return position;
    };
    if position.check.is_some() {
        return position;
    }
    let read = bus.read(position.at(before), 1).await;
    let there = read.ok().and_then(|found| found.into_iter().next());
    let there = there.map(|delivery| delivery.position);
    there.filter(|there| *there == position).unwrap_or(position)
}

struct Fanout {
    ring: Ring,
    pages: Pages,
    metrics: Metrics,
    /// The last event appended.
    last: Position,
    /// Whether the bus's head was reached once: what was there before says nothing of the lag.
    warm: bool,
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
                self.pages.touch(&event.topic, event.xid);
            }
        }
        if let Some(last) = chunk.deliveries.last() {
            self.last = last.position.clone();
        }
        let mut lag = None;
        let newest = chunk.deliveries.iter().rev();
        if let Some(event) = newest.filter_map(|delivery| delivery.event.as_ref()).next() {
            let passed = now_ms().saturating_sub(event.at_ms).max(0);
            self.metrics.event_lag.set(passed as f64 / 1000.0);
            lag = self.warm.then_some(passed);
        }
        let count = chunk.deliveries.len() as u64;
        self.metrics.frames_ringed.inc_by(count);
        self.metrics.ringed.pass(count, lag);
        self.warm |= chunk.head.is_some();
        let mut frames: Vec<Frame> = chunk.deliveries.iter().map(Frame::of).collect();
        if sabotage::active(Fault::SkipEvent) {
            let skipped = |frame: &&mut Frame| frame.position.offset.is_multiple_of(100);
            frames
                .iter_mut()
                .filter(skipped)
                .for_each(|frame| frame.text = None);
        }
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
