//! Follows the stream for one reader. Every message is held against the one before it; after
//! each new connection, against what was seen before. What is missing is told.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    super::{Chunk, Head, ReadError},
    Failure, JetStreamBus,
    connect::jittered,
    denied::Denied,
    illegible::SPELL,
    look::Look,
    pull::{Pull, Pulled},
    record::{Kind, Stored},
};
use crate::{
    event::Delivery,
    position::{Checkpoint, Epoch, Position},
};

/// Messages in one chunk.
const CHUNK: usize = 500;

/// Bytes in one chunk.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// After so many waits in vain at one place what stands there is read by itself, however legible it seems: any server
/// may be restarted once.
const IN_VAIN: u32 = 2;

/// The pause before the stream is asked again, while each message is read by itself, and there was none.
const POLL: Duration = Duration::from_millis(20);

/// The pause after an error.
const PAUSE: Duration = Duration::from_millis(200);

/// How a reader comes by what follows.
#[derive(Debug)]
enum Way {
    /// By a consumer.
    Pull(Box<Pull>),
    /// Each message by itself.
    Singly,
}

/// One reader's place.
pub struct Follower {
    bus: JetStreamBus,
    epoch: Epoch,
    /// The last offset delivered.
    last: u64,
    /// The last sequence looked at. Beyond `last` lies a transaction whose last part is missing.
    looked: u64,
    /// The last message looked at, and when it was stored: its identity.
    seen: Option<(u64, i128)>,
    /// Where the reader was told to begin; its check is verified before anything was seen.
    from: Position,
    /// Whether a transaction is being held back.
    holding: bool,
    /// A transaction that is whole now, up to this offset, and whether that is the head.
    whole: Option<(u64, bool)>,
    /// How far the source has been read, as the messages since the beginning told.
    checkpoint: Option<Checkpoint>,
    /// What was known at the beginning.
    begun: Option<Look>,
    way: Option<Way>,
    /// The connection over which the place was found.
    generation: u64,
    waiting: VecDeque<Pulled>,
    /// How often a consumer was waited for in vain for what follows `looked`, and for which `looked`.
    in_vain: (u64, u32),
    /// Until when messages are read by themselves, since there was one that had to be.
    spell: Option<Instant>,
    failed: bool,
}

impl Follower {
    /// A reader that stands just after `from`.
    pub fn new(bus: JetStreamBus, from: Position) -> Self {
        Self {
            bus,
            epoch: from.epoch.clone(),
            last: from.offset,
            looked: from.offset,
            seen: None,
            from,
            holding: false,
            whole: None,
            checkpoint: None,
            begun: None,
            way: None,
            generation: 0,
            waiting: VecDeque::new(),
            in_vain: (0, 0),
            spell: None,
            failed: false,
        }
    }

    /// The next chunk, or why there is none. May be called again after an error.
    pub async fn next(&mut self) -> Result<Chunk, ReadError> {
        if std::mem::take(&mut self.failed) {
            tokio::time::sleep(jittered(PAUSE)).await;
        }
        let next = self.try_next().await;
        let next = next.map_err(|err| self.bus.unread(err));
        match &next {
            Ok(_) => self.tell(),
            Err(_) => {
                self.failed = true;
                self.way = None;
                self.waiting.clear();
            }
        }
        next
    }

    async fn try_next(&mut self) -> Result<Chunk, ReadError> {
        loop {
            if let Some((upto, at_head)) = self.whole {
                return self.catch_up(upto, at_head).await;
            }
            if self.way.is_none()
                && let Some(chunk) = self.begin().await?
            {
                return Ok(chunk);
            }
            if self.waiting.is_empty()
                && let Err(err) = self.wait().await
            {
                // To begin again tells what is wrong, if anything still is; but not that this user may
                // begin and not go on.
                tracing::debug!(error = %err, "following the bus anew");
                if let Some(Way::Pull(_)) = self.way.take() {
                    let times = match self.in_vain {
                        (looked, times) if looked == self.looked => times,
                        _ => 0,
                    };
                    self.in_vain = (self.looked, times + 1);
                }
                let err = self.bus.reason(err);
                // Another client is there at once, and nobody need be told that there was none.
                let renewed = self.bus.connection.renewed(self.generation);
                let _ = tokio::time::timeout(PAUSE, renewed).await;
                if err.is::<Denied>() {
                    return Err(ReadError::Unavailable(err));
                }
                continue;
            }
            if let Some(chunk) = self.take() {
                return Ok(chunk);
            }
        }
    }

    /// Finds the place again, and whether it still is the same one.
    async fn begin(&mut self) -> Result<Option<Chunk>, ReadError> {
        self.generation = self.bus.connection.generation();
        let look = self.bus.look().await?;
        self.waiting.clear();
        if look.epoch != self.epoch {
            self.enter(look.epoch.clone(), look.first() - 1);
        } else {
            self.verify(&look).await?;
        }
        self.way = Some(match self.is_apart(&look) {
            true => Way::Singly,
            false => self
                .pull(self.looked + 1)
                .await
                .map_err(ReadError::Unavailable)?,
        });
        self.checkpoint = None;
        let at_head = self.looked == look.stream_last && !self.holding;
        self.begun = Some(look);
        Ok(at_head.then(|| self.chunk(Vec::new(), true)))
    }

    /// Whether what follows is to be read by itself.
    fn is_apart(&self, look: &Look) -> bool {
        let next = self.looked + 1;
        let mut illegible = self.bus.illegible();
        let there = next <= look.stream_last;
        let (at, times) = self.in_vain;
        if there && at == self.looked && times >= IN_VAIN {
            illegible.note(next);
        }
        self.in_spell() || there && illegible.next(next) == Some(next)
    }

    fn in_spell(&self) -> bool {
        self.spell.is_some_and(|until| Instant::now() < until)
    }

    async fn pull(&self, from: u64) -> Result<Way, Failure> {
        let stream = &self.bus.names.stream;
        let pull = Pull::open(&self.bus, stream, from).await?;
        Ok(Way::Pull(Box::new(pull)))
    }

    /// Refuses to go on where the stream is not the one that was followed.
    async fn verify(&mut self, look: &Look) -> Result<(), ReadError> {
        if self.last < look.begins {
            // Nothing of the epoch lies between.
            self.last = look.begins;
            self.looked = self.looked.max(self.last);
        }
        let beyond = self.last > look.visible && !self.holding;
        if self.looked > look.stream_last || beyond {
            return Err(ReadError::Ahead);
        }
        let begun = self.begun.as_ref();
        if begun.is_some_and(|begun| begun.created_ns != look.created_ns) {
            return Err(ReadError::Epoch);
        }
        if let Some((seq, at_ns)) = self.seen {
            let found = self.bus.at(seq).await.map_err(ReadError::Unavailable)?;
            if found.is_some_and(|found| found.at_ns != at_ns) {
                return Err(ReadError::Epoch);
            }
        } else if self.from.check.is_some() && self.from.offset == self.looked {
            let found = self.bus.at(self.looked).await;
            let found = found.map_err(ReadError::Unavailable)?;
            if found.is_some_and(|found| found.position(&self.epoch).contradicts(&self.from)) {
                return Err(ReadError::Mismatch);
            }
        }
        if self.looked + 1 < look.stream_first {
            return Err(ReadError::Trimmed);
        }
        if self.looked < look.stream_last {
            let next = self.bus.at(self.looked + 1).await;
            if next.map_err(ReadError::Unavailable)?.is_none() {
                return Err(ReadError::Trimmed);
            }
        }
        Ok(())
    }

    /// Goes on in another epoch, whose first offset follows `before`.
    fn enter(&mut self, epoch: Epoch, before: u64) {
        self.epoch = epoch;
        self.last = before;
        self.looked = before;
        self.seen = None;
        self.holding = false;
        self.whole = None;
        self.checkpoint = None;
    }

    /// Waits for messages, and takes along those that have come with the first. There may be none yet.
    async fn wait(&mut self) -> Result<(), Failure> {
        let pull = match &mut self.way {
            Some(Way::Pull(pull)) => pull,
            Some(Way::Singly) => return self.wait_singly().await,
            None => return Ok(()),
        };
        let first = pull.next(&self.bus).await?;
        let mut bytes = first.0.payload.len();
        self.waiting.push_back(first);
        while self.waiting.len() < CHUNK
            && bytes < CHUNK_BYTES
            && let Some(more) = pull.ready()?
        {
            bytes += more.0.payload.len();
            self.waiting.push_back(more);
        }
        for (message, _) in &mut self.waiting {
            if message.is_doubtful()
                && let Some(again) = self.bus.at(message.seq).await?
            {
                *message = again;
            }
        }
        Ok(())
    }

    /// Reads what follows one by one, past whatever the client cannot read; and once nothing of that kind has come for
    /// some time, goes on with a consumer.
    async fn wait_singly(&mut self) -> Result<(), Failure> {
        let (stream, first) = (&self.bus.names.stream, self.looked + 1);
        let read = self.bus.singly(stream, first, CHUNK).await?;
        if self.bus.connection.generation() != self.generation {
            // The server may be back with another stream.
            return Err("the connection is a new one".into());
        }
        if read.illegible {
            if !self.in_spell() {
                tracing::warn!(
                    offset = first,
                    messages = read.messages.len(),
                    "messages are read one by one for a while: one of them has headers that are none"
                );
            }
            self.spell = Some(Instant::now() + SPELL);
        }
        let mut left = read.messages.len() as u64 + u64::from(!read.whole);
        self.waiting
            .extend(read.messages.into_iter().map(|message| {
                left -= 1;
                (message, left)
            }));
        if !self.in_spell() {
            let next = self.waiting.back().map_or(first, |(last, _)| last.seq + 1);
            self.way = Some(self.pull(next).await?);
        } else if self.waiting.is_empty() {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// What can be delivered of the messages that wait, all of one epoch.
    fn take(&mut self) -> Option<Chunk> {
        let mut deliveries = Vec::new();
        while let Some((message, pending)) = self.waiting.pop_front() {
            if message.seq <= self.looked {
                continue;
            }
            if message.seq != self.looked + 1 {
                // Something is missing: to begin again finds out what.
                self.way = None;
                self.waiting.clear();
                break;
            }
            if let Some(epoch) = self.declared(&message) {
                if !deliveries.is_empty() {
                    self.waiting.push_front((message, pending));
                    break;
                }
                self.enter(epoch, message.seq);
                self.seen = Some((message.seq, message.at_ns));
                self.checkpoint = message.checkpoint();
                if let Some(begun) = &mut self.begun {
                    begun.begins = message.seq;
                }
                if pending == 0 {
                    return Some(self.chunk(deliveries, true));
                }
                continue;
            }
            self.looked = message.seq;
            self.seen = Some((message.seq, message.at_ns));
            if self.held(&message, pending) {
                match self.whole {
                    Some(_) => break,
                    None => continue,
                }
            }
            // Anybody may write such a header above an event.
            if self.bus.names.is_change(&message.subject) {
                self.checkpoint = message.checkpoint().or(self.checkpoint.take());
            }
            deliveries.push(self.deliver(&message));
            self.last = message.seq;
            if pending == 0 {
                return Some(self.chunk(deliveries, true));
            }
        }
        (!deliveries.is_empty()).then(|| self.chunk(deliveries, false))
    }

    /// The epoch that a message declares.
    fn declared(&self, message: &Stored) -> Option<Epoch> {
        if message.subject != self.bus.names.state {
            return None;
        }
        let record = message.record()?;
        (record.kind == Kind::Epoch).then(|| message.epoch())?
    }

    /// Whether a message belongs to a transaction that is held back, or ends one.
    fn held(&mut self, message: &Stored, pending: u64) -> bool {
        let change = self.bus.names.is_change(&message.subject);
        if change && message.more().is_some() {
            self.holding = true;
        } else if change && self.holding {
            // A batch is stored whole, so what follows in it is there, too.
            self.holding = false;
            self.checkpoint = message.checkpoint().or(self.checkpoint.take());
            self.whole = Some((message.seq, pending == 0));
            return true;
        }
        if self.holding {
            // Applications' messages in between are judged now, and delivered with the rest.
            self.deliver(message);
        }
        self.holding
    }

    fn deliver(&self, message: &Stored) -> Delivery {
        let (delivery, letter) = self.bus.delivery(&self.epoch, message);
        if let Some(letter) = letter {
            self.bus.reject(letter);
        }
        delivery
    }

    /// Reads a transaction again that is whole now.
    async fn catch_up(&mut self, upto: u64, at_head: bool) -> Result<Chunk, ReadError> {
        let deliveries = self.bus.whole(&self.epoch, self.last + 1, upto).await?;
        self.last = deliveries.last().map_or(upto, |last| last.position.offset);
        let done = self.last >= upto;
        if done {
            self.whole = None;
        }
        Ok(self.chunk(deliveries, done && at_head))
    }

    fn chunk(&self, deliveries: Vec<Delivery>, at_head: bool) -> Chunk {
        let head = self.begun.as_ref().filter(|_| at_head).and_then(|begun| {
            let told = self.looked >= begun.stream_last;
            let checkpoint = match &self.checkpoint {
                Some(checkpoint) => Some(checkpoint.clone()),
                None if begun.epoch != self.epoch => None,
                None if told => begun.checkpoint.clone(),
                None => return None,
            };
            Some(Head {
                position: Position::new(self.epoch.clone(), self.last),
                stored: self.looked,
                first: begun.stream_first.max(begun.begins + 1),
                checkpoint,
            })
        });
        Chunk { deliveries, head }
    }

    /// Lets reads of what was delivered do without asking for the head.
    fn tell(&self) {
        if let Some(begun) = &self.begun {
            self.bus.know(&Look {
                epoch: self.epoch.clone(),
                visible: self.last,
                check: None,
                ..begun.clone()
            });
        }
    }
}
