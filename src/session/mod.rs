//! One WebSocket of the group: one task, one loop. The session holds a cursor into the ring,
//! never a queue of events; while a direct query runs the cursor stands still, so that the reply
//! takes its exact place between two events (docs/protocol.md §1.1).

mod frame;
mod requests;
mod stream;
mod wire;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::extract::ws::WebSocket;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use wire::{BUFFER_BYTES, MAX_READ_BYTES, echo};
use wire::{Inbound, Wire};

use crate::{
    fanout::Backlog,
    groups::Group,
    metrics::{Health, Metrics, Part},
    position::{Checkpoint, Position},
    protocol::{self, CloseReason, Failure, Language, Rid, Select},
    query::Queries,
    ring::{Place, Ring},
    store::Snapshot,
    topic::{Topic, Topics},
};

/// How long a reply waits for the stream to pass what it saw, before it says `"exact":false`.
const SETTLE: Duration = Duration::from_millis(250);

/// How often a query is read again whose place was lost before it could be sent.
const MAX_TRIES: u8 = 3;

/// Sockets that are closed all at once; more are closed in waves over a part of the grace period.
const CLOSED_AT_ONCE: usize = 100;

/// The limits and clocks of every session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The pause between two pings.
    pub ping_interval: Duration,
    /// How long a pong may take.
    pub pong_timeout: Duration,
    /// How long a `hello=1` socket may take to say hello.
    pub hello_timeout: Duration,
    /// The pause between two ticks, after a hello.
    pub tick_interval: Duration,
    /// How long a socket may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// How long the waves of a shutdown may take.
    pub drain: Duration,
    /// The most bytes of a message.
    pub max_message_bytes: usize,
    /// Direct queries of one socket that run at once.
    pub queries_running: usize,
    /// Direct queries of one socket that wait.
    pub queries_queued: usize,
    /// The language of `msg` texts.
    pub language: Language,
}

/// What all sessions of a gateway share.
#[derive(Debug)]
pub struct Gateway {
    /// The topics.
    pub topics: Topics,
    /// The recent frames.
    pub ring: Ring,
    /// What has left the ring.
    pub backlog: Backlog,
    /// Direct queries.
    pub queries: Queries,
    /// The audience.
    pub group: Group,
    /// What is counted.
    pub metrics: Metrics,
    /// What is well: a tick proves nothing while no source is.
    pub health: Health,
    /// Limits and clocks.
    pub config: SessionConfig,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
}

/// What the URL of a socket asked for, and when.
#[derive(Debug)]
pub struct Opening {
    /// The head of the ring before the handshake was answered: a client that sees its socket
    /// open gets every event from then on.
    pub head: Place,
    /// Only these topics.
    pub types: Option<HashSet<Arc<str>>>,
    /// The cursor to resume from.
    pub since: Option<Position>,
    /// Nothing is pushed before `sys:hello`.
    pub hello_first: bool,
}

/// A direct query of this session.
#[derive(Debug, Clone)]
struct Ask {
    topic: Arc<Topic>,
    rid: Option<Rid>,
    select: Select,
    /// Not asked by the client: a page topic's page, fresh after a replay.
    fresh_page: bool,
    tries: u8,
}

/// A query that was read and waits for its place in the stream.
struct Held {
    ask: Ask,
    snapshot: Snapshot,
    until: Instant,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The server closes it.
    Close(CloseReason),
    /// The client has closed it, or the connection is broken.
    Gone,
}

type Answer = (Ask, Result<Snapshot, Failure>);

struct Session {
    gateway: Arc<Gateway>,
    wire: Wire,
    /// Only these topics; all where none.
    types: Option<HashSet<Arc<str>>>,
    /// The place in the ring; none while what follows the cursor has left it.
    seq: Option<u64>,
    /// The position of the last frame sent or passed over.
    cursor: Position,
    /// What came after the client's own cursor is being sent.
    replaying: bool,
    /// Nothing is pushed before the hello.
    silent: bool,
    greeted: bool,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
    queued: VecDeque<Ask>,
    held: Vec<Held>,
    /// What the last default page of each topic saw: an older one is not pushed after it.
    seen: HashMap<Arc<str>, Checkpoint>,
    strikes: VecDeque<Instant>,
    clocks: Clocks,
}

/// When something is due.
struct Clocks {
    ping: Instant,
    pong: Option<Instant>,
    tick: Option<Instant>,
    hello: Option<Instant>,
    /// The bus could not be read: when to try again.
    retry: Option<Instant>,
}

/// Serves one socket of the group until it is closed.
pub async fn run(socket: WebSocket, gateway: Arc<Gateway>, opening: Opening) {
    let wire = Wire::new(socket, gateway.config.write_timeout);
    let Some(_membership) = gateway.group.join() else {
        gateway.metrics.close(CloseReason::Overloaded.code());
        return wire.close(CloseReason::Overloaded).await;
    };
    gateway.metrics.sessions.inc();
    let mut session = Session::new(gateway.clone(), wire, opening);
    let end = session.serve().await;
    if let End::Close(reason) = end {
        gateway.metrics.close(reason.code());
        session.wire.close(reason).await;
    }
    gateway.metrics.sessions.dec();
}

/// Closes a socket that may not be served at all. A browser cannot read a refused handshake.
pub async fn refuse(socket: WebSocket, gateway: &Gateway, reason: CloseReason) {
    gateway.metrics.close(reason.code());
    Wire::new(socket, gateway.config.write_timeout)
        .close(reason)
        .await;
}

impl Session {
    fn new(gateway: Arc<Gateway>, wire: Wire, opening: Opening) -> Self {
        let (now, config) = (Instant::now(), &gateway.config);
        let head = opening.head;
        let clocks = Clocks {
            ping: now + config.ping_interval,
            pong: None,
            tick: None,
            hello: opening.hello_first.then(|| now + config.hello_timeout),
            retry: None,
        };
        let mut session = Self {
            wire,
            types: opening.types,
            seq: Some(head.seq),
            cursor: head.position,
            replaying: false,
            silent: opening.hello_first,
            greeted: false,
            running: FuturesUnordered::new(),
            queued: VecDeque::new(),
            held: Vec::new(),
            seen: HashMap::new(),
            strikes: VecDeque::new(),
            clocks,
            gateway,
        };
        if let Some(since) = opening.since {
            session.resume_from(since);
        }
        session
    }

    async fn serve(&mut self) -> End {
        let mut ring = self.gateway.ring.watch();
        let stop = self.gateway.stop.clone();
        loop {
            ring.borrow_and_update();
            if let Err(end) = self.advance().await {
                return end;
            }
            let due = self.due();
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return self.leave().await,
                // Before what the client sends: a flood of it must not keep answers waiting.
                Some(answer) = self.running.next(), if !self.running.is_empty() => self.answered(answer).await,
                () = tokio::time::sleep_until(due) => self.tick().await,
                inbound = self.wire.recv() => self.inbound(inbound).await,
                Ok(()) = ring.changed() => Ok(()),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn inbound(&mut self, inbound: Inbound) -> Result<(), End> {
        // Whatever came, the client is there.
        self.clocks.pong = None;
        match inbound {
            Inbound::Text(text) => self.request(&text).await,
            Inbound::Alive => Ok(()),
            Inbound::Gone => Err(End::Gone),
            Inbound::Broken(reason) => Err(End::Close(reason)),
        }
    }

    /// When the next thing is due.
    fn due(&self) -> Instant {
        let clocks = &self.clocks;
        let held = self.held.iter().map(|held| held.until);
        let others = [clocks.pong, clocks.tick, clocks.hello, clocks.retry];
        let earliest = others.into_iter().flatten().chain(held).min();
        earliest.map_or(clocks.ping, |earliest| earliest.min(clocks.ping))
    }

    async fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let due = |clock: Option<Instant>| clock.is_some_and(|at| at <= now);
        if due(self.clocks.pong) {
            return Err(End::Close(CloseReason::NoPong));
        }
        if due(self.clocks.hello) {
            return Err(End::Close(CloseReason::Unauthorized));
        }
        if due(self.clocks.retry) {
            self.clocks.retry = None;
        }
        if due(self.clocks.tick) {
            self.clocks.tick = Some(now + self.gateway.config.tick_interval);
            // `advance` ran just before, so unless a query holds it the cursor is the head.
            if !self.gateway.health.is_down(Part::Source) {
                let frame = protocol::tick(&self.cursor);
                self.wire.send(frame).await?;
            }
        }
        if self.clocks.ping <= now {
            self.clocks.ping = now + self.gateway.config.ping_interval;
            // The oldest ping that is not answered counts, or frequent pings would put it off.
            let pong = now + self.gateway.config.pong_timeout;
            self.clocks.pong.get_or_insert(pong);
            self.wire.ping().await?;
        }
        Ok(())
    }

    /// The process stops: what is in the ring is still sent, then the socket closes.
    async fn leave(&mut self) -> End {
        let waiting = self.gateway.group.len();
        if waiting > CLOSED_AT_ONCE {
            let drain = u64::try_from(self.gateway.config.drain.as_millis()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(random_below(
                drain.min(waiting as u64),
            )))
            .await;
        }
        // A query that still runs is not answered; the client asks again when it is back.
        self.running.clear();
        self.queued.clear();
        let mut sent = self.advance().await;
        if sent.is_ok() && self.greeted {
            sent = self.wire.send(protocol::drain([200, 8000])).await;
        }
        match sent {
            Ok(()) => End::Close(CloseReason::Restart),
            Err(end) => end,
        }
    }
}

/// A random number below `limit`, or 0.
fn random_below(limit: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    // Without randomness all close at once, which is no worse than a crash.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes).checked_rem(limit).unwrap_or(0)
}
