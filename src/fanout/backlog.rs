//! What has left the ring, read again from the bus for the sessions that still need it. However
//! many ask at once, each block is read once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::block::{BLOCK, Block, Blocks, Found, Key, Stretch};
use crate::{
    bus::{Bus, Head, ReadError},
    metrics::Metrics,
    position::Position,
    protocol::ResetReason,
    ring::Ring,
};

/// Requests that wait to be looked at. A session has one at a time, and waits for its turn.
const QUEUE: usize = 256;

/// Reads of the bus at once.
const READING: usize = 4;

/// Why a stretch cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It never can: the client must query again.
    Reset(ResetReason),
    /// The bus cannot be reached now, or the ring does not know yet what it holds. Ask again.
    Later,
}

/// Asks for stretches of the bus. Cloning shares the loop behind it.
#[derive(Debug, Clone)]
pub struct Backlog(mpsc::Sender<Ask>);

#[derive(Debug)]
struct Ask {
    after: Position,
    /// Only whether the bus knows the place at all.
    place: bool,
    reply: oneshot::Sender<Result<Stretch, Missing>>,
}

/// A read that is to be made.
#[derive(Debug)]
enum Work {
    Block(Key),
    /// For one session: the block has holes.
    Rest(Ask),
    Head,
}

/// A read that was made.
enum Done {
    Block(Key, u64, Result<Block, ReadError>),
    Rest(Ask, Result<Block, ReadError>),
    Head(Result<Head, ReadError>),
}

/// The loop's own. What waits is bounded by the number of sessions: each has one request.
struct Reader<B> {
    bus: B,
    ring: Ring,
    metrics: Metrics,
    blocks: Blocks,
    /// Cursors of its epoch below it are known to be trimmed.
    trimmed: Option<Position>,
    /// As [`Ring::restarts`] said when all this was read.
    restarts: u64,
    waiting: HashMap<Key, Vec<Ask>>,
    /// Who asks for a place: to be told by a head that is asked for after they came.
    next_head: Vec<Ask>,
    this_head: Vec<Ask>,
    work: VecDeque<Work>,
    reading: JoinSet<Done>,
}

/// Starts answering from `bus`, for a gateway with that ring, until every handle is dropped.
pub fn serve(bus: impl Bus, ring: Ring, metrics: Metrics) -> Backlog {
    let (sender, mut asks) = mpsc::channel::<Ask>(QUEUE);
    let mut reader = Reader {
        restarts: ring.restarts(),
        bus,
        ring,
        metrics,
        blocks: Blocks::default(),
        trimmed: None,
        waiting: HashMap::new(),
        next_head: Vec::new(),
        this_head: Vec::new(),
        work: VecDeque::new(),
        reading: JoinSet::new(),
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => reader.take(ask),
                    None => return,
                },
                Some(done) = reader.reading.join_next() => reader.done(done),
            }
            reader.start();
        }
    });
    Backlog(sender)
}

impl<B: Bus> Reader<B> {
    fn take(&mut self, ask: Ask) {
        self.renew();
        if ask.place {
            self.next_head.push(ask);
            return;
        }
        let gone = self
            .trimmed
            .as_ref()
            .filter(|gone| gone.epoch == ask.after.epoch && ask.after.offset < gone.offset);
        if gone.is_some() {
            return ask.answer(Err(Missing::Reset(ResetReason::Trimmed)));
        }
        if let Some(found) = self.blocks.after(&ask.after) {
            self.metrics.backlog_hits.inc();
            return ask.answer(understood(found));
        }
        let key = Key::of(&ask.after);
        let waiting = self.waiting.entry(key.clone()).or_default();
        if waiting.is_empty() {
            self.work.push_back(Work::Block(key));
        } else {
            self.metrics.backlog_hits.inc();
        }
        waiting.push(ask);
    }

    /// Forgets what was read, if the ring has begun again.
    fn renew(&mut self) {
        let restarts = self.ring.restarts();
        if restarts != self.restarts {
            self.restarts = restarts;
            self.blocks.clear();
            self.trimmed = None;
        }
    }

    /// Starts what is to be read, as much at once as may be.
    fn start(&mut self) {
        if self.this_head.is_empty() && !self.next_head.is_empty() {
            self.this_head = std::mem::take(&mut self.next_head);
            self.work.push_back(Work::Head);
        }
        while self.reading.len() < READING
            && let Some(work) = self.work.pop_front()
        {
            let (bus, restarts) = (self.bus.clone(), self.restarts);
            self.reading.spawn(async move {
                match work {
                    Work::Block(key) => {
                        let read = block(&bus, &key).await;
                        Done::Block(key, restarts, read)
                    }
                    Work::Rest(ask) => {
                        let read = rest(&bus, &ask.after).await;
                        Done::Rest(ask, read)
                    }
                    Work::Head => Done::Head(bus.head().await),
                }
            });
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        self.renew();
        match done {
            Ok(Done::Block(key, restarts, _)) if restarts != self.restarts => {
                self.work.push_back(Work::Block(key));
            }
            Ok(Done::Block(key, _, read)) => self.read(key, read),
            Ok(Done::Rest(ask, read)) => {
                self.metrics.backlog_reads.inc();
                let found = read.map_err(missing);
                let found = found.and_then(|block| understood(block.after(&ask.after)));
                ask.answer(found);
            }
            Ok(Done::Head(head)) => {
                for ask in std::mem::take(&mut self.this_head) {
                    let missing = judged(&ask.after, &head);
                    ask.answer(Err(missing));
                }
            }
            // A reader that panicked has told nothing; whoever waited asks again.
            Err(err) => {
                tracing::error!(error = %err, "reading the bus failed");
                self.waiting.clear();
                self.this_head.clear();
                self.work.clear();
                self.reading.abort_all();
            }
        }
    }

    /// Answers all that wait for a block.
    fn read(&mut self, key: Key, read: Result<Block, ReadError>) {
        self.metrics.backlog_reads.inc();
        let waiting = self.waiting.remove(&key).unwrap_or_default();
        match read {
            Ok(block) => {
                self.trimmed = block.trimmed(&key).or(self.trimmed.take());
                for ask in waiting {
                    let found = block.after(&ask.after);
                    ask.answer(understood(found));
                }
                self.blocks.keep(key, Arc::new(block));
            }
            Err(ReadError::Trimmed) => self.work.extend(waiting.into_iter().map(Work::Rest)),
            Err(err) => {
                let missing = missing(err);
                for ask in waiting {
                    ask.answer(Err(missing));
                }
            }
        }
    }
}

/// Reads a block, or what is left of it; [`ReadError::Trimmed`] where messages are missing within.
async fn block(bus: &impl Bus, key: &Key) -> Result<Block, ReadError> {
    let start = key.start();
    // With the message before it, so that cursors there can be verified.
    let before = start.at(start.offset.saturating_sub(1));
    match read(bus, &before, &start).await {
        Ok(found) => return Ok(Block::new(start.offset, found)),
        Err(ReadError::Trimmed) => {}
        Err(err) => return Err(err),
    }
    let head = bus.head().await?;
    if head.position.epoch != start.epoch {
        return Err(ReadError::Epoch);
    }
    let floor = head.first.saturating_sub(1).max(start.offset);
    let found = match floor < start.offset + BLOCK {
        true => read(bus, &start.at(floor), &start).await?,
        false => Vec::new(),
    };
    Ok(Block::new(floor, found))
}

/// Reads what follows one cursor in its block.
async fn rest(bus: &impl Bus, after: &Position) -> Result<Block, ReadError> {
    let key = Key::of(after);
    let found = read(bus, after, &key.start()).await?;
    Ok(Block::new(after.offset, found))
}

async fn read(
    bus: &impl Bus,
    after: &Position,
    start: &Position,
) -> Result<Vec<crate::event::Delivery>, ReadError> {
    let count = start.offset + BLOCK - after.offset;
    bus.read(after.clone(), usize::try_from(count).unwrap_or(usize::MAX))
        .await
}

fn understood(found: Found) -> Result<Stretch, Missing> {
    match found {
        Found::Part(stretch) => Ok(stretch),
        // The ring has what follows, or will have it soon.
        Found::Beyond => Err(Missing::Later),
        Found::Trimmed => Err(Missing::Reset(ResetReason::Trimmed)),
        Found::Mismatch => Err(Missing::Reset(ResetReason::Mismatch)),
    }
}

fn missing(err: ReadError) -> Missing {
    match err {
        ReadError::Epoch => Missing::Reset(ResetReason::Epoch),
        ReadError::Trimmed => Missing::Reset(ResetReason::Trimmed),
        ReadError::Ahead => Missing::Reset(ResetReason::Ahead),
        ReadError::Mismatch => Missing::Reset(ResetReason::Mismatch),
        ReadError::Unavailable(_) => Missing::Later,
    }
}

/// What the bus's head says of a cursor that the ring does not know.
fn judged(cursor: &Position, head: &Result<Head, ReadError>) -> Missing {
    match head {
        Ok(head) if head.position.epoch != cursor.epoch => Missing::Reset(ResetReason::Epoch),
        Ok(head) if head.stored < cursor.offset => Missing::Reset(ResetReason::Ahead),
        // Another gateway was quicker, or it lies within a transaction whose last part is missing:
        // this one will come to it.
        Ok(_) | Err(_) => Missing::Later,
    }
}

impl Ask {
    fn answer(self, found: Result<Stretch, Missing>) {
        // A session that has gone needs no answer.
        let _ = self.reply.send(found);
    }
}

impl Backlog {
    /// The frames just after a position, some hundreds at the most and at least one.
    ///
    /// # Errors
    /// [`Missing`] says whether they can be had later.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn after(&self, after: Position) -> Result<Stretch, Missing> {
        self.ask(after, false).await
    }

    /// What the bus says of a cursor of another epoch than the ring's, or beyond its head:
    /// [`Missing::Later`] where another gateway has only seen more than this one yet.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn place(&self, cursor: Position) -> Missing {
        self.ask(cursor, true).await.err().unwrap_or(Missing::Later)
    }

    async fn ask(&self, after: Position, place: bool) -> Result<Stretch, Missing> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            after,
            place,
            reply,
        };
        self.0.send(ask).await.map_err(|_| Missing::Later)?;
        answer.await.unwrap_or(Err(Missing::Later))
    }
}
