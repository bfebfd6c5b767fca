//! The change producer's side: one batch in flight, each fenced by the sequence of the last
//! change, so that the stream itself is the checkpoint and a second producer can store nothing.

use std::collections::HashMap;

use async_nats::HeaderMap;

use super::{
    super::{PublishError, Published},
    Failure, JetStreamBus,
    batch::{Outgoing, Refused},
    outgoing::{self, HEADER_BYTES, Item},
    record::{self, Kind, Record, Stored, random_name},
    stream::Ready,
};
use crate::{
    event::{Batch, MAX_EVENT_BYTES},
    position::{Checkpoint, Epoch, Position},
};

/// Attempts at one call before it is told as unavailable: each follows a race lost.
const TRIES: usize = 8;

/// What a producer knows of the stream since it claimed it.
#[derive(Debug)]
pub struct Claim {
    /// The claim's own name.
    producer: String,
    /// Of the stream claimed.
    created_ns: i128,
    /// The connection over which all this was found.
    generation: u64,
    /// The sequence of the last message under the changes' subject.
    seq: u64,
    epoch: Epoch,
    begins: u64,
    checkpoint: Option<Checkpoint>,
    /// Where the producer stood before the transaction whose last part is missing.
    open: Option<u64>,
    /// Whether an attempt's outcome is unknown.
    unsure: bool,
    /// A new epoch to be declared before anything else, and why.
    declare: Option<&'static str>,
    /// Whether the next batch tells new definitions of topics.
    announce: bool,
    /// The definitions as told last.
    topics: HashMap<String, String>,
}

fn unavailable(err: impl Into<Failure>) -> PublishError {
    PublishError::Unavailable(err.into())
}

impl JetStreamBus {
    /// Takes over as the change producer.
    pub(super) async fn take_over(&self) -> Result<Option<Checkpoint>, PublishError> {
        let mut writer = self.writer.lock().await;
        *writer = None;
        for _ in 0..TRIES {
            let ready = self.ready().await.map_err(unavailable)?;
            let claimed = self.try_claim(&ready).await;
            match claimed {
                Ok(Some(claim)) => {
                    let checkpoint = claim.checkpoint.clone();
                    *writer = Some(claim);
                    return Ok(checkpoint);
                }
                // Another message came between: look again.
                Ok(None) => {}
                Err(err) => {
                    self.unready().await;
                    return Err(unavailable(err));
                }
            }
        }
        Err(unavailable(
            "other producers claim the bus at the same time",
        ))
    }

    async fn try_claim(&self, ready: &Ready) -> Result<Option<Claim>, Failure> {
        let last = self.last_of(&self.names.changes).await?;
        let state = self.last_of(&self.names.state).await?;
        let told = state.as_ref().and_then(Stored::record);
        let mut claim = Claim {
            producer: random_name("p"),
            created_ns: ready.created_ns,
            generation: ready.generation,
            seq: last.as_ref().map_or(0, |last| last.seq),
            epoch: Epoch::parse(&random_name("e"))?,
            begins: 0,
            checkpoint: None,
            open: None,
            unsure: false,
            declare: None,
            announce: false,
            topics: self.config.fingerprints.iter().cloned().collect(),
        };
        let kind = match last.as_ref().and_then(Stored::epoch) {
            None => Kind::Epoch,
            Some(epoch) => {
                if told
                    .as_ref()
                    .is_some_and(|told| told.epoch != epoch.as_str())
                {
                    return Ok(None);
                }
                claim.begins = match (&told, &state) {
                    (Some(told), Some(state)) if told.kind == Kind::Epoch => state.seq,
                    (Some(told), _) => told.begins.unwrap_or(0),
                    _ => 0,
                };
                // Until the first batch the definitions of before stand: it reloads what changed.
                let known = told.map(|told| told.topics.into_iter().collect::<HashMap<_, _>>());
                if let Some(known) = known.filter(|known| *known != claim.topics) {
                    claim.topics = known;
                    claim.announce = true;
                }
                claim.epoch = epoch;
                claim.checkpoint = last.as_ref().and_then(Stored::checkpoint);
                claim.open = last.as_ref().and_then(Stored::more);
                Kind::Claim
            }
        };
        *self
            .declared
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = claim.topics.clone();
        let reason = (kind == Kind::Epoch).then_some("a new stream");
        let mut message = claim.record(kind, reason, &self.names.state).message;
        claim.finish(&mut message.headers, claim.checkpoint.as_ref());
        if let Some(open) = claim.open {
            message.headers.insert(record::MORE, open.to_string());
        }
        match self
            .store(vec![message], Some((&self.names.changes, claim.seq)))
            .await
        {
            Ok(ack) => {
                claim.seq = ack.seq;
                if kind == Kind::Epoch {
                    claim.begins = ack.seq;
                }
                Ok(Some(claim))
            }
            Err(Refused::Mismatch | Refused::Known) => Ok(None),
            Err(Refused::Unknown(err)) => Err(err),
        }
    }

    /// Stores a batch of the change producer's.
    pub(super) async fn publish_changes(&self, batch: Batch) -> Result<Published, PublishError> {
        let Some(checkpoint) = batch.checkpoint.clone() else {
            return Err(unavailable("a change without a checkpoint"));
        };
        let mut writer = self.writer.lock().await;
        let mut stored = 0;
        for _ in 0..TRIES {
            let claim = writer.as_mut().ok_or(PublishError::Fenced)?;
            let ready = self.ready().await.map_err(unavailable)?;
            if claim.unsure || claim.generation != ready.generation {
                match self.reconcile(claim, &ready).await {
                    Ok(()) => {}
                    Err(PublishError::Fenced) => {
                        *writer = None;
                        return Err(PublishError::Fenced);
                    }
                    Err(err) => {
                        self.unready().await;
                        return Err(err);
                    }
                }
            }
            match self
                .try_publish(claim, &batch, &checkpoint, &ready, &mut stored)
                .await
            {
                Ok(()) => {
                    let position = claim.position();
                    self.tell_marks(&batch.marks, &position).await;
                    return Ok(Published { position, stored });
                }
                Err(Attempt::Again) => claim.unsure = true,
                Err(Attempt::Failed(err)) => {
                    claim.unsure = true;
                    self.unready().await;
                    return Err(err);
                }
                Err(Attempt::TooLarge(bytes)) => return Err(PublishError::TooLarge { bytes }),
            }
        }
        Err(unavailable("the stream changes under the producer"))
    }

    async fn try_publish(
        &self,
        claim: &mut Claim,
        batch: &Batch,
        checkpoint: &Checkpoint,
        ready: &Ready,
        stored: &mut usize,
    ) -> Result<(), Attempt> {
        let known = claim.checkpoint.as_ref();
        let other = known.is_some_and(|known| known.source != checkpoint.source);
        if claim.declare.is_none() && known.is_some_and(|known| known.covers(checkpoint)) {
            return Ok(());
        }
        let max_bytes = MAX_EVENT_BYTES.min(ready.max_payload.saturating_sub(HEADER_BYTES));
        let items = self.items(claim, batch, max_bytes)?;
        if let Some(reason) = claim
            .declare
            .or_else(|| other.then_some("another history of the source"))
        {
            self.declare(claim, reason, other).await?;
        }
        let mut items = items;
        if claim.announce {
            claim.topics = self.config.fingerprints.iter().cloned().collect();
            items.insert(0, claim.record(Kind::Topics, None, &self.names.state));
        }
        if items.is_empty() {
            items.push(claim.record(Kind::Progress, None, &self.names.state));
        }
        let parts = outgoing::parts(items);
        let count = parts.len();
        let before = claim.open.unwrap_or(claim.seq);
        for (index, mut part) in parts.into_iter().enumerate() {
            let last = index + 1 == count;
            let more = !last || batch.more;
            let reached = match last {
                true => Some(checkpoint.clone()),
                false => part.last().and_then(|item| item.checkpoint.clone()),
            };
            for item in &mut part {
                let headers = &mut item.message.headers;
                headers.insert(record::EPOCH, claim.epoch.as_str());
                headers.insert(record::PRODUCER, claim.producer.as_str());
                if more {
                    headers.insert(record::MORE, before.to_string());
                }
            }
            if let Some(item) = part.last_mut() {
                claim.finish(&mut item.message.headers, reached.as_ref());
            }
            let events = part.iter().filter(|item| item.event).count();
            let messages = part.into_iter().map(|item| item.message).collect();
            let expected = Some((&*self.names.changes, claim.seq));
            claim.seq = self.store(messages, expected).await?.seq;
            claim.checkpoint = reached.or(claim.checkpoint.take());
            claim.open = more.then_some(before);
            claim.announce = false;
            *stored += events;
        }
        Ok(())
    }

    /// The batch's events that the stream does not hold yet, as messages.
    fn items(&self, claim: &Claim, batch: &Batch, max_bytes: usize) -> Result<Vec<Item>, Attempt> {
        let mut items = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let Some(place) = event.checkpoint() else {
                let payload = event.to_json();
                if payload.len() > max_bytes {
                    return Err(Attempt::TooLarge(payload.len()));
                }
                items.push(Item {
                    message: outgoing::application(&self.names, event, payload),
                    checkpoint: None,
                    event: true,
                });
                continue;
            };
            let known = claim.checkpoint.as_ref();
            if !known.is_some_and(|known| known.covers(place)) {
                items.extend(outgoing::change(&self.names, event, max_bytes));
            }
        }
        Ok(items)
    }

    /// Declares a new epoch, with nothing in it.
    async fn declare(
        &self,
        claim: &mut Claim,
        reason: &'static str,
        other: bool,
    ) -> Result<(), Attempt> {
        let epoch = Epoch::parse(&random_name("e"));
        let epoch = epoch.map_err(|err| Attempt::Failed(unavailable(err)))?;
        let old = std::mem::replace(&mut claim.epoch, epoch);
        let checkpoint = claim.checkpoint.clone().filter(|_| !other);
        claim.topics = self.config.fingerprints.iter().cloned().collect();
        let mut message = claim
            .record(Kind::Epoch, Some(reason), &self.names.state)
            .message;
        claim.finish(&mut message.headers, checkpoint.as_ref());
        let expected = Some((&*self.names.changes, claim.seq));
        match self.store(vec![message], expected).await {
            Ok(ack) => {
                tracing::warn!(epoch = %claim.epoch, reason, "a new epoch of the bus: every client queries again");
                claim.seq = ack.seq;
                claim.begins = ack.seq;
                claim.checkpoint = checkpoint;
                claim.open = None;
                claim.announce = false;
                claim.declare = None;
                Ok(())
            }
            Err(refused) => {
                claim.epoch = old;
                Err(refused.into())
            }
        }
    }

    /// Finds out what became of an attempt, and whether the stream is still the one claimed.
    async fn reconcile(&self, claim: &mut Claim, ready: &Ready) -> Result<(), PublishError> {
        let last = self
            .last_of(&self.names.changes)
            .await
            .map_err(unavailable)?;
        let extent = self.extent().await.map_err(unavailable)?;
        if extent.created_ns != claim.created_ns {
            claim.declare = Some("the stream was created anew");
            claim.created_ns = extent.created_ns;
        }
        let ours = |last: &Stored| last.header(record::PRODUCER) == Some(&claim.producer);
        match last {
            Some(last) if claim.declare.is_none() && last.seq >= claim.seq => {
                if !ours(&last) {
                    return Err(PublishError::Fenced);
                }
                if last.seq > claim.seq {
                    // An earlier attempt was stored after all.
                    let epoch = last.epoch().filter(|epoch| *epoch != claim.epoch);
                    if let Some(epoch) = epoch {
                        claim.epoch = epoch;
                        claim.begins = last.seq;
                    }
                    claim.checkpoint = last.checkpoint();
                    claim.open = last.more();
                    claim.seq = last.seq;
                }
            }
            // Nothing of ours is retained: it was trimmed, and the history is the same.
            None if claim.declare.is_none() && extent.first > claim.seq => claim.seq = 0,
            last => {
                claim.declare = claim.declare.or(Some("the stream has gone back"));
                claim.seq = last.map_or(0, |last| last.seq);
            }
        }
        claim.generation = ready.generation;
        claim.unsure = false;
        Ok(())
    }
}

impl Claim {
    /// The position of the last message of this producer.
    fn position(&self) -> Position {
        Position::new(self.epoch.clone(), self.seq)
    }

    /// Where all that was published stands, if that is certain over the connection of this generation.
    pub(super) fn certain(&self, generation: u64) -> Option<Position> {
        let certain = !self.unsure && self.open.is_none() && self.declare.is_none();
        (certain && self.generation == generation).then(|| self.position())
    }

    /// A record, without headers that say how far the source has been read.
    fn record(&self, kind: Kind, reason: Option<&str>, subject: &str) -> Item {
        let record = Record {
            kind,
            epoch: self.epoch.to_string(),
            begins: (kind != Kind::Epoch).then_some(self.begins),
            reason: reason.map(str::to_owned),
            checkpoint: self.checkpoint.as_ref().map(ToString::to_string),
            topics: self.topics.clone().into_iter().collect(),
        };
        Item {
            message: Outgoing {
                subject: subject.to_owned(),
                headers: HeaderMap::new(),
                payload: record.to_json(),
            },
            checkpoint: None,
            event: false,
        }
    }

    /// Writes what the last message of a batch says.
    fn finish(&self, headers: &mut HeaderMap, checkpoint: Option<&Checkpoint>) {
        headers.insert(record::EPOCH, self.epoch.as_str());
        headers.insert(record::PRODUCER, self.producer.as_str());
        if let Some(checkpoint) = checkpoint {
            headers.insert(record::CHECKPOINT, checkpoint.to_string().as_str());
        }
    }
}

/// Why an attempt came to nothing.
enum Attempt {
    /// The stream is not as expected: look and try again.
    Again,
    /// The outcome is unknown.
    Failed(PublishError),
    /// An event is too large.
    TooLarge(usize),
}

impl From<Refused> for Attempt {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Mismatch | Refused::Known => Self::Again,
            Refused::Unknown(err) => Self::Failed(unavailable(err)),
        }
    }
}
