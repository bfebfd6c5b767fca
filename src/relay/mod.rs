//! Source → Bus. One task reads whole transactions, turns them into events, and has the bus
//! store them before the source may forget them: durable before confirmed, in one place.

mod translate;

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    bus::{Bus, PublishError, Published},
    clock::now_ms,
    event::{Batch, Event},
    metrics::{Health, Metrics, Part},
    position::Checkpoint,
    sabotage::{self, Fault},
    source::{Source, SourceError},
    topic::Topics,
};
pub use translate::Translator;

/// The pause after the source or the bus could not be reached.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How long the source is held while the bus cannot be claimed.
const CLAIM_PATIENCE: Duration = Duration::from_secs(20);

/// The pause of a producer that stands by: whoever waits for it waits for three seconds at most.
const STANDBY_PAUSE: Duration = Duration::from_millis(600);

/// How often progress is stored that carries nothing but marks: a mark for each of many queries a
/// second would fill the bus.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How late a sabotaged relay stores: by then the database has heard the confirmation.
const LATE: Duration = Duration::from_millis(1500);

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
        let Some(mut durable) = self.claim().await? else {
            return Ok(());
        };
        let mut redefined = self.bus.redefined();
        let mut stored_at: Option<Instant> = None;
        let mut late = VecDeque::new();
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
            let committed_ms = transactions.changes.last().map(|change| change.at_ms);
            self.metrics.read.stand(&transactions.checkpoint);
            self.metrics.read.pass(read, committed_ms.map(since));
            let mut events = self.translator.events(&transactions.changes);
            let only_marks = events.is_empty()
                && !transactions.more
                && !transactions.marks.is_empty()
                && redefined.is_empty();
            if only_marks
                && stored_at.is_some_and(|at| at.elapsed() < PROGRESS_INTERVAL)
                && self.bus.answer(&transactions.marks).await
            {
                continue;
            }
            let is_news = durable.as_ref() != Some(&transactions.checkpoint);
            if is_news && !transactions.more {
                let topics = std::mem::take(&mut redefined);
                let place = &transactions.checkpoint;
                events.extend(self.translator.reloads(&topics, place, now_ms()));
            }
            disorder(&mut events);
            let mut batch = Batch {
                events,
                checkpoint: Some(transactions.checkpoint.clone()),
                marks: transactions.marks,
                more: transactions.more,
            };
            // Sabotage: what was read counts as stored now, and is stored much later.
            if sabotage::active(Fault::ConfirmEarly) {
                durable = batch.checkpoint.clone();
                late.push_back((Instant::now(), batch));
                let Some((_, old)) = late.pop_front_if(|(since, _)| since.elapsed() > LATE) else {
                    continue;
                };
                batch = old;
            }
            let Some(published) = self.publish(batch).await? else {
                return Ok(());
            };
            let (stored, lag) = (published.stored as u64, committed_ms.map(since));
            self.metrics.events_published.inc_by(stored);
            self.metrics.stored.stand(&published.position);
            self.metrics.stored.pass(stored, lag);
            if let Some(lag) = lag {
                self.metrics.publish_lag.set(lag as f64 / 1000.0);
            }
            self.health.up(Part::Source);
            stored_at = Some(Instant::now());
            durable = Some(transactions.checkpoint);
        }
    }

    /// Claims the bus, trying for a while: the source is held meanwhile, for to begin it anew costs
    /// the database more. After that it is begun anew, which tells how much it keeps for us. `None`
    /// when told to stop.
    async fn claim(&self) -> Result<Option<Option<Checkpoint>>, Duration> {
        let begun = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                claimed = self.bus.claim() => match claimed {
                    Ok(durable) => return Ok(Some(durable)),
                    Err(err) => {
                        let pause = self.bus_failed(&err);
                        if begun.elapsed() > CLAIM_PATIENCE {
                            return Err(pause);
                        }
                    }
                },
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(RETRY_PAUSE) => {}
            }
        }
    }

    /// Publishes a batch, again and again if the bus is away; `None` when told to stop meanwhile.
    async fn publish(&self, batch: Batch) -> Result<Option<Published>, Duration> {
        loop {
            match self.bus.publish(batch.clone()).await {
                Ok(published) => {
                    self.health.up(Part::Bus);
                    return Ok(Some(published));
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
        if let SourceError::Standby(_) = err {
            self.health.standby(Part::Source, err);
            return Err(STANDBY_PAUSE);
        }
        self.health.down(Part::Source, err);
        Err(RETRY_PAUSE)
    }

    fn bus_failed(&self, err: &PublishError) -> Duration {
        self.health.down(Part::Bus, err);
        RETRY_PAUSE
    }
}

/// Milliseconds since a commit; none that is negative, for two clocks may differ.
fn since(committed_ms: i64) -> i64 {
    now_ms().saturating_sub(committed_ms).max(0)
}

/// Puts events where they do not belong, for tests of the tests.
fn disorder(events: &mut [Event]) {
    if sabotage::active(Fault::SwapTwo) && events.len() > 4 {
        let last = events.len() - 1;
        events.swap(last, last - 3);
    }
    if sabotage::active(Fault::TearTransaction)
        && let Some(end) = (2..events.len()).find(|end| {
            let before = &events[end - 1].tx;
            before.is_some() && *before == events[end - 2].tx && *before != events[*end].tx
        })
    {
        events.swap(end, end - 1);
    }
}
