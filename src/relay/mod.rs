//! Source → Bus. One task reads whole transactions, turns them into events, and has the bus
//! store them before the source may forget them: durable before confirmed, in one place.

mod translate;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, PublishError},
    event::Batch,
    metrics::{Health, Metrics, Part},
    source::{Source, SourceError},
    topic::Topics,
};
pub use translate::Translator;

/// The pause after the source or the bus could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Runs until `stop` is cancelled and what was read by then is stored, or the source has ended.
///
/// Where several producers run, one gets beyond [`Source::begin`]; the others wait in it. One that
/// finds itself fenced begins again, and so stands by.
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
    let mut relay = Relay {
        translator: Translator::new(topics, origin),
        bus,
        health,
        metrics,
        stop,
    };
    loop {
        let ended = relay.follow(&mut source).await;
        let Err(pause) = ended else { return };
        tokio::select! {
            () = relay.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Relay<B> {
    translator: Translator,
    bus: B,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
}

impl<B: Bus> Relay<B> {
    /// Follows the source until there is a reason to begin again, after a pause, or none to.
    async fn follow(&mut self, source: &mut impl Source) -> Result<(), Duration> {
        let stop = self.stop.clone();
        let begun = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            begun = source.begin() => begun,
        };
        begun.or_else(|err| self.source_failed(&err))?;
        let mut durable = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            claimed = self.bus.claim() => claimed.map_err(|err| self.bus_failed(&err))?,
        };
        loop {
            // The only confirmation, and only of what the bus holds.
            source.confirm(durable.as_ref());
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                read = source.next_batch() => read,
            };
            let transactions = match read {
                Ok(transactions) => transactions,
                Err(SourceError::Stopped) => return Ok(()),
                Err(err) => return self.source_failed(&err),
            };
            let read = transactions.changes.len() as u64;
            self.metrics.changes_read.inc_by(read);
            let batch = Batch {
                events: self.translator.events(&transactions.changes),
                checkpoint: Some(transactions.checkpoint.clone()),
                marks: transactions.marks,
                more: transactions.more,
            };
            match self.publish(batch).await? {
                Some(stored) => self.metrics.events_published.inc_by(stored as u64),
                None => return Ok(()),
            };
            self.health.up(Part::Source);
            durable = Some(transactions.checkpoint);
        }
    }

    /// Publishes a batch, again and again if the bus is away; `None` when told to stop meanwhile.
    async fn publish(&self, batch: Batch) -> Result<Option<usize>, Duration> {
        loop {
            match self.bus.publish(batch.clone()).await {
                Ok(published) => {
                    self.health.up(Part::Bus);
                    return Ok(Some(published.stored));
                }
                Err(err @ PublishError::Fenced) => {
                    tracing::warn!("fenced: another producer has taken over; standing by");
                    self.health.down(Part::Source, &err);
                    return Err(RETRY_PAUSE);
                }
                Err(err @ (PublishError::Unavailable(_) | PublishError::TooLarge { .. })) => {
                    self.bus_failed(&err);
                }
            }
            // The source keeps what was not confirmed, so to stop here loses nothing.
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    fn source_failed(&self, err: &SourceError) -> Result<(), Duration> {
        if let SourceError::Stopped = err {
            return Ok(());
        }
        self.health.down(Part::Source, err);
        Err(RETRY_PAUSE)
    }

    fn bus_failed(&self, err: &PublishError) -> Duration {
        self.health.down(Part::Bus, err);
        RETRY_PAUSE
    }
}
