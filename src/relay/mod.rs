//! Source → Bus. One task reads whole transactions, turns them into events, and has the bus
//! store them before the source may forget them: durable before confirmed, in one place.

mod translate;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, PublishError},
    event::Batch,
    metrics::{Health, Metrics, Part},
    position::Checkpoint,
    source::{Source, SourceError},
    topic::Topics,
};
pub use translate::Translator;

/// The pause after the source or the bus could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Runs until `stop` is cancelled and what was read by then is stored, or the source has ended.
///
/// `origin` begins every event's `source`, for example `/sqlite/care`.
pub async fn run(
    mut source: impl Source,
    bus: impl Bus,
    topics: Topics,
    origin: String,
    (health, metrics): (Health, Metrics),
    stop: CancellationToken,
) {
    let mut translator = Translator::new(topics, origin);
    let mut durable = stored(&bus, &health).await;
    loop {
        // The only confirmation, and only of what the bus holds.
        source.confirm(durable.as_ref());
        let read = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            read = source.next_batch() => read,
        };
        let transactions = match read {
            Ok(transactions) => transactions,
            Err(SourceError::Stopped) => return,
            Err(err) => {
                health.down(Part::Source, &err);
                tokio::time::sleep(RETRY_PAUSE).await;
                continue;
            }
        };
        metrics
            .changes_read
            .inc_by(transactions.changes.len() as u64);
        let batch = Batch {
            events: translator.events(&transactions.changes),
            checkpoint: Some(transactions.checkpoint.clone()),
        };
        let Some(count) = publish(&bus, batch, &health, &stop).await else {
            return;
        };
        metrics.events_published.inc_by(count as u64);
        health.up(Part::Source);
        durable = Some(transactions.checkpoint);
    }
}

/// How far the bus says it has come. Asked until it answers.
async fn stored(bus: &impl Bus, health: &Health) -> Option<Checkpoint> {
    loop {
        match bus.head().await {
            Ok(head) => return head.checkpoint,
            Err(err) => {
                health.down(Part::Bus, &err);
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// Publishes a batch, again and again if the bus is away; `None` when told to stop meanwhile.
async fn publish(
    bus: &impl Bus,
    batch: Batch,
    health: &Health,
    stop: &CancellationToken,
) -> Option<usize> {
    loop {
        match bus.publish(batch.clone()).await {
            Ok(published) => {
                health.up(Part::Bus);
                return Some(published.stored);
            }
            Err(err @ (PublishError::Unavailable(_) | PublishError::TooLarge { .. })) => {
                health.down(Part::Bus, &err);
            }
        }
        // The source keeps what was not confirmed, so to stop here loses nothing.
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}
