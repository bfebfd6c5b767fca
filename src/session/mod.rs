//! One WebSocket of the group: one task, one loop. The session holds a cursor into the ring,
//! never a queue of events; while a direct query runs the cursor stands still, so that the reply
//! takes its exact place between two events (docs/protocol.md §1.1).

mod asks;
mod condense;
mod confines;
pub mod deflate;
mod described;
mod echo;
mod entrance;
mod events;
mod filters;
mod frame;
pub mod inbound;
mod inexact;
mod interests;
mod lane;
mod latest;
mod link;
mod place;
mod reads;
mod replies;
mod requests;
mod resume;
mod rights;
mod scopes;
mod seats;
mod seen;
mod socket;
mod stream;
mod wire;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use asks::Asks;
use confines::Confines;
pub use described::keep_described;
pub use echo::{echo, mirror};
pub use entrance::{CONNECTIONS, crowded, join, refuse, stream};
pub use filters::{Filters, NO_SUCH_TOPICS};
use interests::Interests;
pub use lane::Lanes;
use lane::Seated;
use reads::Reads;
use requests::Strikes;
use rights::Rights;
use seen::Seen;
pub use socket::{Duplex, Socket};
use wire::Wire;

use crate::{
    auth::Auth,
    callers::{Bucket, Identities, Pace, Rate, Share},
    fanout::{Backlog, Pages},
    groups::Group,
    identity::Identity,
    metrics::{Behind, Health, Metrics, Part},
    position::Position,
    protocol::{self, CloseReason, Failure, JsonLimits, Language, Mode, Rid, Select},
    query::{Queries, SETTLE},
    ring::{Place, Ring},
    store::Snapshot,
    topic::{Topic, Topics},
};

/// How often a query is read again that has no place in the stream, or that lost it too early.
const MAX_TRIES: u8 = 6;

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
    /// The most frames in which a message may come.
    pub max_fragments: usize,
    /// Messages of one socket that are answered; one that sends ten times as many is closed.
    pub messages: Rate,
    /// Pings and pongs of one socket.
    pub controls: Rate,
    /// How much JSON a request may be.
    pub json: JsonLimits,
    /// Topics that one socket may choose, and filters that it may set.
    pub max_topics: usize,
    /// Direct queries of one socket that run at once.
    pub queries_running: usize,
    /// Direct queries of one socket that wait.
    pub queries_queued: usize,
    /// Whether an offer of permessage-deflate is taken.
    pub compression: bool,
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
    /// The pages of page topics as they were read last.
    pub pages: Pages,
    /// What has left the ring.
    pub backlog: Backlog,
    /// Direct queries.
    pub queries: Queries,
    /// Those who write to the sockets that are up to date.
    pub lanes: Lanes,
    /// The filters of all sockets.
    pub filters: Filters,
    /// Who may connect.
    pub auth: Auth,
    /// How many connections each of them has.
    pub identities: Identities,
    /// The queries without a socket of each identity that are under way.
    pub askers: Identities,
    /// How often each may ask without a socket.
    pub pace: Pace,
    /// The audience.
    pub group: Group,
    /// What is counted.
    pub metrics: Metrics,
    /// What is well: a tick proves nothing while the source or the bus is not.
    pub health: Health,
    /// Limits and clocks.
    pub config: SessionConfig,
    /// Cancelled when the process stops; the loops of the lanes end by it, and wake every session.
    pub stop: CancellationToken,
}

/// What the URL of a socket asked for, and when.
#[derive(Debug)]
pub struct Opening {
    /// The head of the ring before the handshake was answered: a client that sees its socket
    /// open gets every event from then on.
    pub head: Place,
    /// Only these topics.
    pub types: Option<Vec<Arc<str>>>,
    /// The cursor to resume from.
    pub since: Option<Position>,
    /// Nothing is pushed before `sys:hello`.
    pub hello_first: bool,
    /// What is sent once the socket has fallen behind.
    pub mode: Mode,
    /// Who opens it.
    pub identity: Identity,
    /// As which it counts among his connections.
    pub share: Share,
    /// Nobody knows yet who that is: the hello must bring a token.
    pub owes_token: bool,
    /// Where he comes from, as which he counts where it is not known who he is.
    pub from: Option<IpAddr>,
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
    /// As the session's confines, when the topic was found.
    changes: u32,
    /// As [`Ring::restarts`] said before the read began.
    restarts: u64,
}

/// A query that was read and waits for its place in the stream.
struct Held {
    ask: Ask,
    snapshot: Arc<Snapshot>,
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

type Answer = (Ask, Result<Arc<Snapshot>, Failure>);

struct Session {
    gateway: Arc<Gateway>,
    wire: Wire,
    /// Who is connected. What he may see is judged by these claims, and by the newest of them.
    identity: Identity,
    rights: Rights,
    from: Option<IpAddr>,
    /// Where the lane writes to this socket; taken when it is up to date for the first time.
    seat: Option<Seated>,
    /// The lane goes on along the stream: seq, cursor, interests and what was seen are there.
    stands: bool,
    /// What is sent to him of guarded topics.
    confines: Confines,
    /// The topics that are taken, and their rows.
    interests: Interests,
    mode: Mode,
    /// The place in the ring; none while what follows the cursor has left it.
    seq: Option<u64>,
    /// The position of the last frame sent or passed over.
    cursor: Position,
    /// What came after the client's own cursor is being sent.
    replaying: bool,
    behind: Option<Behind>,
    /// Pages may have been among what has left the ring before it was sent.
    missed_pages: bool,
    /// Nothing is pushed before the hello.
    silent: bool,
    greeted: bool,
    asks: Asks,
    seen: Seen,
    strikes: Option<Box<Strikes>>,
    /// Messages that are still answered.
    messages: Bucket,
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
            identity: Identity::anonymous(),
            rights: Rights::default(),
            from: opening.from,
            seat: None,
            stands: false,
            confines: Confines::default(),
            interests: Interests::new(opening.types),
            mode: opening.mode,
            seq: Some(head.seq),
            cursor: head.position,
            replaying: false,
            behind: None,
            missed_pages: false,
            silent: opening.hello_first,
            greeted: false,
            asks: Asks::default(),
            seen: Seen::default(),
            strikes: None,
            messages: Bucket::default(),
            clocks,
            gateway,
        };
        session.identify(opening.identity);
        session.rights.share = opening.share;
        session.rights.owes_token = opening.owes_token;
        if session.wire.is_one_way() {
            // As after a hello: the client cannot say one.
            session.greeted = true;
            session.clocks.tick = Some(now + session.gateway.config.tick_interval);
        }
        match opening.since {
            Some(since) => session.resume_from(since),
            // Who comes back before the first event has missed nothing.
            None => session.wire.stand(&session.cursor),
        }
        session
    }

    async fn live(&mut self) {
        let gateway = self.gateway.clone();
        gateway.metrics.sessions.inc();
        if let End::Close(reason) = self.serve().await {
            gateway.closes(reason);
            if reason.silences() {
                self.wire.forget();
            }
            Box::pin(self.wire.close(reason)).await;
        }
        gateway.metrics.sessions.dec();
    }

    async fn serve(&mut self) -> End {
        if self.wire.is_one_way() {
            // The client learns at once where it stands, and that it is connected.
            if let Err(end) = Box::pin(self.wire.ping()).await {
                return end;
            }
        }
        let mut ring = self.gateway.ring.watch();
        ring.borrow_and_update();
        self.stand_at_once();
        // What takes its time is boxed: a socket that waits should cost little.
        if !self.stands
            && let Err(end) = Box::pin(self.settle(&mut ring)).await
        {
            return end;
        }
        loop {
            let woken = self.wait(&mut ring).await;
            if let Err(end) = Box::pin(self.attend(woken, &mut ring)).await {
                return end;
            }
        }
    }

    /// When the next thing is due.
    fn due(&self) -> Instant {
        let clocks = &self.clocks;
        // Nothing becomes of a held reply while another query is read, nor before the last of them is due.
        let held = match self.asks.running() {
            0 => self.asks.held().iter().map(|held| held.until).max(),
            _ => None,
        };
        let others = [
            clocks.pong,
            clocks.tick,
            clocks.hello,
            clocks.retry,
            self.rights.until,
        ];
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
            self.wire.stand(&self.cursor);
            let health = &self.gateway.health;
            let heard = !health.is_down(Part::Source) && !health.is_down(Part::Bus);
            if heard {
                let frame = protocol::tick(&self.cursor);
                self.wire.send(frame).await?;
            } else if self.wire.is_one_way() {
                self.wire.ping().await?;
            }
        }
        if self.clocks.ping <= now {
            self.clocks.ping = now + self.gateway.config.ping_interval;
            if self.wire.is_one_way() {
                return self.wire.ping().await;
            }
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
        let work = self.asks.work();
        work.running = Reads::default();
        work.queued.clear();
        let mut sent = self.advance().await;
        if sent.is_ok() && self.greeted {
            sent = self.wire.send(protocol::drain(away(waiting))).await;
        }
        match sent {
            Ok(()) => End::Close(CloseReason::Restart),
            Err(end) => end,
        }
    }
}

/// The wait before clients of a gateway that stops come back, so that other gateways are not asked by
/// all at once: 2 ms for each of them.
fn away(sockets: usize) -> [u32; 2] {
    let most = u32::try_from(sockets).unwrap_or(u32::MAX).saturating_mul(2);
    [0, most.clamp(500, 8000)]
}

/// A random number below `limit`, or 0.
fn random_below(limit: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    // Without randomness all close at once, which is no worse than a crash.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes).checked_rem(limit).unwrap_or(0)
}
