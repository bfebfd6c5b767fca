//! The fast lane: one task per core that writes new frames straight to the sockets that stand at the
//! head of the ring, one system call each, with no task woken and nothing allocated per socket. What
//! is more than that is the session's own: a socket that takes no more, a filter to be compiled
//! anew, a reply. It takes its place back for it, and later stands in the lane again.
//!
//! The invariant: a frame at or after a seat's `seq` is written by exactly one of the two, lane or
//! session; whoever holds the seat's lock and finds the stand in it writes, and moves `seq` past.

mod pass;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use pass::{Pass, Piece};
use socket2::SockRef;
use tokio::{net::TcpStream, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{
    deflate::{Agreed, framed},
    filters::Interests,
    link::PIECES,
    seats::Seats,
    seen::Seen,
};
use crate::{
    metrics::Metrics,
    position::Position,
    predicate::Verdict,
    protocol::Encoded,
    ring::{Frame, FrameKind, Ring},
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
    stream: Arc<TcpStream>,
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

/// Where a socket stands that has been sent everything before, and waits for nothing.
#[derive(Debug)]
pub struct Stand {
    /// The place in the ring.
    pub seq: u64,
    /// The position of the last frame sent or passed over.
    pub cursor: Position,
    /// What the socket takes.
    pub interests: Interests,
    /// What the last default page of each topic saw.
    pub seen: Seen,
    /// The rest of a frame of which the socket took only a part; it is before `seq`.
    pub unsent: Bytes,
    /// The connection is broken.
    pub broken: bool,
}

/// A session's hold on its seat; it is free again when this is dropped.
#[derive(Debug)]
pub struct Seated {
    seat: Arc<Seat>,
    lane: Arc<Lane>,
    slot: usize,
}

/// What became of one socket in a pass.
#[derive(Debug, PartialEq, Eq)]
enum Went {
    /// It was sent so many frames, and stands at the end.
    Through(u64),
    /// Its session must go on.
    Out(u64),
}

impl Lanes {
    /// Lanes for a ring, as many as there are cores. They must be created before the first session,
    /// and each be [`run`](Self::run).
    pub fn new(ring: &Ring, count: usize) -> Self {
        let passed = ring.head().seq;
        let lane = |_| {
            Arc::new(Lane {
                seats: Mutex::default(),
                passed: AtomicU64::new(passed),
            })
        };
        Self(Arc::new(Inner {
            lanes: (0..count.max(1)).map(lane).collect(),
            next: AtomicUsize::new(0),
        }))
    }

    /// Takes a seat for a socket, in each lane in turn.
    pub fn seat(&self, stream: Arc<TcpStream>, agreed: Option<Agreed>) -> Seated {
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

    /// The loops of all lanes, each a task of its own, until `stop` is cancelled.
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
        while let Some(mut pass) = Pass::read(&ring, seq) {
            seq = pass.end();
            // Before anybody is looked at: who takes a place from now on sees that this pass may have
            // gone by, and does not stand in the lane with what it carries still to be sent.
            lane.passed.store(seq, Ordering::SeqCst);
            let mut sent = 0;
            let mut next = Some(0);
            while let Some(first) = next {
                next = lane.lock().turn(first, TURN, &mut turn);
                sent += turn.drain(..).map(|seat| seat.pass(&mut pass)).sum::<u64>();
                tokio::task::yield_now().await;
            }
            metrics.pushes_sent.inc_by(sent);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = grown.changed() => if changed.is_err() { return },
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Seats<Seat>> {
        // Nothing in here panics half way through a change.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, Place> {
        // Nothing in here panics half way through a change.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is new to this socket, if it stands here; returns how many frames it was.
    fn pass(&self, pass: &mut Pass) -> u64 {
        let mut place = self.lock();
        let Place::Here(stand) = &mut *place else {
            return 0;
        };
        match stand.go(pass, &self.peer) {
            Went::Through(sent) => sent,
            Went::Out(sent) => {
                if let Place::Here(stand) = std::mem::replace(&mut *place, Place::Away) {
                    *place = Place::Returned(stand);
                }
                drop(place);
                self.returned.notify_one();
                sent
            }
        }
    }
}

impl Peer {
    /// Asked without the runtime, which would look up what it knows of the stream's readiness, for each
    /// socket somewhere else in memory. Who finds no room leaves it to the session, which asks the
    /// runtime.
    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&*self.stream)
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
    pub fn stand(&self, stand: Stand) -> Option<Stand> {
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
        std::mem::replace(&mut *self.seat.lock(), Place::Away).into_stand()
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
        self.lane.lock().remove(self.slot);
    }
}

impl Stand {
    /// Goes along with a pass, as far as the socket takes it.
    fn go(&mut self, pass: &mut Pass, peer: &Peer) -> Went {
        if self.seq >= pass.end() {
            // It came later than this pass began.
            return Went::Through(0);
        }
        let Some(first) = self.seq.checked_sub(pass.from) else {
            return Went::Out(0);
        };
        let first = first as usize;
        let piece = match !pass.pages || self.seen.is_empty() {
            true => pass.piece_for(&self.interests, peer.agreed),
            false => None,
        };
        match piece {
            Some(number) => self.go_with_all(pass, (pass.piece(number), first), peer),
            None => self.go_with_some(pass, first, peer),
        }
    }

    /// All that it takes, in one piece that is shared by all who take the same.
    fn go_with_all(&mut self, pass: &Pass, (piece, first): (&Piece, usize), peer: &Peer) -> Went {
        let bytes = &piece.bytes[piece.starts[first]..];
        let written = match bytes.is_empty() {
            true => 0,
            false => match self.written(peer.socket().send(bytes)) {
                Some(written) => written,
                None => return Went::Out(0),
            },
        };
        let reached = piece.starts[first] + written;
        // The frames that are written, those that have no bytes included.
        let next = piece.starts.partition_point(|start| *start <= reached) - 1;
        let whole = piece.starts[first..=next].windows(2);
        let sent = whole.filter(|ends| ends[0] < ends[1]).count() as u64;
        self.stand_after(pass, next);
        if reached == piece.bytes.len() {
            return Went::Through(sent);
        }
        let part = reached - piece.starts[next];
        if part > 0
            && let Some(text) = &pass.frames[next].text
        {
            self.unsent = framed(text, peer.agreed).slice(part..);
            self.stand_after(pass, next + 1);
            return Went::Out(sent + 1);
        }
        Went::Out(sent)
    }

    /// The frames that this socket takes, in the form in which it does.
    fn go_with_some(&mut self, pass: &Pass, mut first: usize, peer: &Peer) -> Went {
        let mut sent = 0;
        while first < pass.frames.len() {
            let mut shown = Vec::new();
            let mut next = first;
            while next < pass.frames.len() && shown.len() < PIECES {
                let frame = &pass.frames[next];
                if frame.is_reload() && self.interests.filters(&frame.topic) {
                    break;
                }
                if let Some((_, text)) = self.form(frame) {
                    shown.push((next, text));
                }
                next += 1;
            }
            if !shown.is_empty() {
                let pieces: Vec<IoSlice<'_>> = shown
                    .iter()
                    .map(|(_, text)| IoSlice::new(framed(text, peer.agreed)))
                    .collect();
                let Some(mut written) = self.written(peer.socket().send_vectored(&pieces)) else {
                    return Went::Out(sent);
                };
                for (index, text) in shown {
                    let frame = framed(&text, peer.agreed);
                    let length = frame.len();
                    if written < length {
                        self.stand_after(pass, index);
                        if written > 0 {
                            self.unsent = frame.slice(written..);
                            self.stand_after(pass, index + 1);
                            sent += 1;
                        }
                        return Went::Out(sent);
                    }
                    written -= length;
                    sent += 1;
                }
            }
            self.stand_after(pass, next);
            if next == first {
                // What filters are judged by must be looked at again, which takes time.
                return Went::Out(sent);
            }
            first = next;
        }
        Went::Through(sent)
    }

    /// Just after the first `count` frames of a pass.
    fn stand_after(&mut self, pass: &Pass, count: usize) {
        self.seq = pass.from + count as u64;
        if let Some(last) = count.checked_sub(1) {
            self.cursor = pass.frames[last].position.clone();
        }
    }

    /// What the socket took; `None` where that is nothing.
    fn written(&mut self, written: io::Result<usize>) -> Option<usize> {
        match written {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(err) => {
                self.broken = err.kind() != io::ErrorKind::WouldBlock;
                None
            }
        }
    }

    /// The form in which the socket gets a frame.
    fn form(&self, frame: &Frame) -> Option<(Verdict, Encoded)> {
        let seen = || match &frame.kind {
            FrameKind::Event { .. } => false,
            FrameKind::Page(page) => self.seen.covers(&frame.topic, page.as_ref()),
        };
        match self.interests.takes(&frame.topic) && !seen() {
            true => self.interests.form(frame),
            false => None,
        }
    }
}
