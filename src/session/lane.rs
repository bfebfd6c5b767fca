//! The fast lane: one task per core that writes new frames straight to the sockets that stand at the
//! head of the ring, one system call each, with no task woken and nothing allocated per socket. What
//! is more than that is the session's own: a socket that takes no more, a filter to be compiled
//! anew, a reply. It takes its place back for it, and later stands in the lane again.
//!
//! The invariant: a frame at or after a seat's `seq` is written by exactly one of the two, lane or
//! session; whoever holds the seat's lock and finds the stand in it writes, and moves `seq` past.
//!
//! Where topics are guarded, a lane looks only at the seats that a frame concerns (`lane/index.rs`). The
//! others move along without being looked at: when a pass is over, all before its end is `settled` for
//! everybody who stands here, and whoever looks at a stand next, lane or session, moves it there first.
//!
//! What is no plain TCP, such as TLS or a response of Server-Sent Events, no lane can write to. It stands here
//! where topics are guarded, so as not to be woken by what does not concern it: its place is given back as soon as
//! there is a frame for it, and the session writes that.

mod index;
mod pass;
mod stand;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use index::Index;
use pass::Pass;
use socket2::SockRef;
pub use stand::Stand;
use stand::Went;
use tokio::{net::TcpStream, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{deflate::Agreed, seats::Seats};
use crate::{
    metrics::Metrics,
    ring::{self, Ring},
    topic::Topics,
};

/// Sockets that are written to before other tasks of the core have their turn: with one event for each
/// that is a few hundred microseconds, with a burst some milliseconds.
const TURN: usize = 128;

/// The lanes of a gateway. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Lanes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lanes: Vec<Arc<Lane>>,
    next: AtomicUsize,
}

#[derive(Debug)]
struct Lane {
    seats: Mutex<Seats<Seat>>,
    /// The place in the ring up to which the lane has gone or is going.
    passed: AtomicU64,
    /// Who is to be looked at; none where no topic is guarded, and everybody is.
    selects: Option<Selects>,
}

#[derive(Debug)]
struct Selects {
    index: Mutex<Index>,
    /// The place up to which everybody who stands in the lane has been sent what concerns him.
    settled: Mutex<ring::Place>,
}

/// A socket's seat, shared by its session and its lane.
#[derive(Debug)]
struct Seat {
    peer: Peer,
    place: Mutex<Place>,
    returned: Notify,
}

/// Whom a seat writes to, and in which form.
#[derive(Debug)]
struct Peer {
    /// None where the session alone can write.
    stream: Option<Arc<TcpStream>>,
    agreed: Option<Agreed>,
}

/// Who goes on along the stream.
#[derive(Debug)]
enum Place {
    /// The session.
    Away,
    /// The lane.
    Here(Stand),
    /// The session, as soon as it looks.
    Returned(Stand),
}

/// A session's hold on its seat; it is free again when this is dropped.
#[derive(Debug)]
pub struct Seated {
    seat: Arc<Seat>,
    lane: Arc<Lane>,
    slot: usize,
}

impl Lanes {
    /// Lanes for a ring, as many as there are cores. They must be created before the first session,
    /// and each be [`run`](Self::run).
    pub fn new(ring: &Ring, topics: &Topics, count: usize) -> Self {
        let head = ring.head();
        let lane = |_| {
            Arc::new(Lane {
                seats: Mutex::default(),
                passed: AtomicU64::new(head.seq),
                selects: Index::of(topics).map(|index| Selects {
                    index: Mutex::new(index),
                    settled: Mutex::new(head.clone()),
                }),
            })
        };
        Self(Arc::new(Inner {
            lanes: (0..count.max(1)).map(lane).collect(),
            next: AtomicUsize::new(0),
        }))
    }

    /// Whether it is looked up whom a frame concerns, so that also those gain by standing here to whom only
    /// their sessions can write.
    pub fn look_up(&self) -> bool {
        self.0.lanes.iter().any(|lane| lane.selects.is_some())
    }

    /// Takes a seat for a socket, in each lane in turn. Without a stream to write to it only learns that there
    /// is something for it.
    pub fn seat(&self, stream: Option<Arc<TcpStream>>, agreed: Option<Agreed>) -> Seated {
        let lanes = &self.0.lanes;
        let next = self.0.next.fetch_add(1, Ordering::Relaxed);
        let lane = lanes[next % lanes.len()].clone();
        let seat = Arc::new(Seat {
            peer: Peer { stream, agreed },
            place: Mutex::new(Place::Away),
            returned: Notify::new(),
        });
        let slot = lane.lock().add(seat.clone());
        Seated { seat, lane, slot }
    }

    /// The loops of all lanes, each a task of its own, until `stop` is cancelled: then every place is given back,
    /// and whoever waits for the ring is woken, so that sessions need not wait for `stop` themselves.
    pub fn loops(
        &self,
        ring: &Ring,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Vec<impl Future<Output = ()> + Send + 'static> {
        let each = self.0.lanes.iter();
        each.map(|lane| run(lane.clone(), ring.clone(), metrics.clone(), stop.clone()))
            .collect()
    }
}

/// Follows the ring, and writes what is new to everybody who stands in the lane.
async fn run(lane: Arc<Lane>, ring: Ring, metrics: Metrics, stop: CancellationToken) {
    let mut grown = ring.watch();
    let mut seq = lane.passed.load(Ordering::SeqCst);
    let mut turn = Vec::with_capacity(TURN);
    loop {
        grown.borrow_and_update();
        while !stop.is_cancelled()
            && let Some(mut pass) = Pass::read(&ring, seq)
        {
            seq = pass.end();
            // Before anybody is looked at: who takes a place from now on sees that this pass may have
            // gone by, and does not stand in the lane with what it carries still to be sent.
            lane.passed.store(seq, Ordering::SeqCst);
            // Nor before that whom it concerns: who is listed from now on sees it as well.
            let (concerned, settled) = lane.select(&pass);
            let mut sent = 0;
            let mut next = Some(0);
            while let Some(first) = next {
                next = match &concerned {
                    Some(slots) => {
                        let last = slots.len().min(first + TURN);
                        lane.lock().pick(&slots[first..last], &mut turn);
                        (last < slots.len()).then_some(last)
                    }
                    None => lane.lock().turn(first, TURN, &mut turn),
                };
                let seats = turn.drain(..);
                let went = seats.map(|seat| seat.pass(&mut pass, settled.as_ref()));
                sent += went.sum::<u64>();
                tokio::task::yield_now().await;
            }
            lane.settle(&pass);
            metrics.pushes_sent.inc_by(sent);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = grown.changed() => if changed.is_err() { break },
        }
    }
    lane.end();
    ring.wake();
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Seats<Seat>> {
        // Nothing in here panics half way through a change.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom a pass concerns, all where that is not known, and up to where everything is settled.
    fn select(&self, pass: &Pass) -> (Option<Vec<usize>>, Option<ring::Place>) {
        let Some(selects) = &self.selects else {
            return (None, None);
        };
        let index = selects.index();
        let leads = !pass.frames.is_empty();
        let concerned = leads.then(|| index.concerned(&pass.frames)).flatten();
        (concerned, Some(selects.settled().clone()))
    }

    /// Gives every place back, and takes none from now on.
    fn end(&self) {
        // Whoever comes to stand sees that everything has gone by.
        self.passed.store(u64::MAX, Ordering::SeqCst);
        let settled = self
            .selects
            .as_ref()
            .map(|selects| selects.settled().clone());
        let mut seats = Vec::new();
        self.lock().turn(0, usize::MAX, &mut seats);
        for seat in seats {
            seat.give_back(settled.as_ref());
        }
    }

    /// A pass is over.
    fn settle(&self, pass: &Pass) {
        if let Some(selects) = &self.selects {
            *selects.settled() = pass.last.clone();
        }
    }
}

impl Selects {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Nothing in here panics half way through a change.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, ring::Place> {
        // Nothing in here panics half way through a change.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Place> {
        // Nothing in here panics half way through a change.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is new to this socket, if it stands here; returns how many frames it was.
    fn pass(&self, pass: &mut Pass, settled: Option<&ring::Place>) -> u64 {
        let mut place = self.lock();
        let Place::Here(stand) = &mut *place else {
            return 0;
        };
        stand.move_along(settled);
        match stand.go(pass, &self.peer) {
            Went::Through(sent) => sent,
            Went::Out(sent) => {
                self.returns(place);
                sent
            }
        }
    }

    /// Gives the place back to the session, if the lane has it.
    fn give_back(&self, settled: Option<&ring::Place>) {
        let mut place = self.lock();
        if let Place::Here(stand) = &mut *place {
            stand.move_along(settled);
            self.returns(place);
        }
    }

    fn returns(&self, mut place: MutexGuard<'_, Place>) {
        if let Place::Here(stand) = std::mem::replace(&mut *place, Place::Away) {
            *place = Place::Returned(stand);
        }
        drop(place);
        self.returned.notify_one();
    }
}

impl Peer {
    /// Asked without the runtime, which would look up what it knows of the stream's readiness, for each
    /// socket somewhere else in memory. Who finds no room leaves it to the session, which asks the
    /// runtime.
    fn socket(&self) -> Option<SockRef<'_>> {
        self.stream.as_deref().map(SockRef::from)
    }
}

impl Place {
    fn into_stand(self) -> Option<Stand> {
        match self {
            Self::Here(stand) | Self::Returned(stand) => Some(stand),
            Self::Away => None,
        }
    }
}

impl Seated {
    /// Has the lane go on from where the socket stands, which must be the head of the ring. Gives the
    /// stand back where the lane may have gone by meanwhile: look at the ring again.
    pub fn stand(&self, mut stand: Stand) -> Option<Stand> {
        if let Some(selects) = &self.lane.selects
            && let Some(stakes) = stand.interests.stakes()
        {
            selects.index().list(self.slot, stakes);
        }
        let mut place = self.seat.lock();
        let seq = stand.seq;
        *place = Place::Here(stand);
        // Looked at only now, under the seat's lock: a pass that begins later finds us here.
        if self.lane.passed.load(Ordering::SeqCst) <= seq {
            return None;
        }
        std::mem::replace(&mut *place, Place::Away).into_stand()
    }

    /// Takes the place back from the lane: from here on the session goes on. `None` where it has it
    /// already.
    pub fn take(&self) -> Option<Stand> {
        let mut place = self.seat.lock();
        if let (Place::Here(stand), Some(selects)) = (&mut *place, &self.lane.selects) {
            stand.move_along(Some(&selects.settled()));
        }
        std::mem::replace(&mut *place, Place::Away).into_stand()
    }

    /// Waits until the lane gives the place back.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn returned(&self) {
        self.seat.returned.notified().await;
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        if let Some(selects) = &self.lane.selects {
            selects.index().forget(self.slot);
        }
        self.lane.lock().remove(self.slot);
    }
}
