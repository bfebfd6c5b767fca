//! The gateway's bounded log of recent frames. Each is encoded once; every session reads it
//! through its own cursor, so a slow session costs nothing here: its cursor falls behind, and
//! in the end out of the ring.

mod change;
mod cut;
mod frame;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

pub use change::Particulars;
use cut::Gone;
pub use frame::{Frame, FrameKind};

use crate::{
    horizon::{Horizon, Settled},
    position::{Checkpoint, Position},
    protocol::Encoded,
};

/// A place between two frames of the ring.
///
/// `seq` counts the ring's frames from its creation and never goes back; `position` is that of
/// the frame before.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// How many frames the ring has ever held before this place.
    pub seq: u64,
    /// The position of the last event before this place.
    pub position: Position,
}

/// Where a cursor stands in relation to the ring.
#[derive(Debug, Clone, PartialEq)]
pub enum Seek {
    /// Everything after it is in the ring, from this place on.
    At(Place),
    /// What follows it has left the ring.
    Behind,
    /// It belongs to another epoch.
    Epoch,
    /// It is beyond the head.
    Ahead,
    /// At its place sits another message.
    Mismatch,
}

/// Where a read of the database stands in relation to the ring.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// Not all that the read saw has come through the bus yet.
    Wait,
    /// What is before this place the read saw, what is after it not.
    At(Place),
    /// The place has left the ring, or there is none, for the read saw a change and not one that
    /// stands before it: read again.
    Fallen,
    /// Nothing tells how far the stream has come.
    Unknown,
}

/// The log. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Ring {
    inner: Arc<Mutex<Inner>>,
    end: Arc<watch::Sender<u64>>,
    max_bytes: usize,
}

/// A frame in its place.
#[derive(Debug)]
struct Entry {
    frame: Arc<Frame>,
    /// The highest transaction id of this frame and all before it, those that have left included.
    highest: u64,
}

#[derive(Debug)]
struct Inner {
    frames: VecDeque<Entry>,
    bytes: usize,
    /// What was made of frames after they were appended.
    grown: Arc<AtomicUsize>,
    /// Where each topic was last told to be queried again.
    reloads: HashMap<Arc<str>, u64>,
    /// The place before the first frame.
    base: Place,
    /// The places of the frames that have a source checkpoint: among many that have none they are found
    /// at once.
    marked: VecDeque<u64>,
    /// The source checkpoint of the last change that has left.
    evicted: Option<Checkpoint>,
    head: Position,
    /// How far the source has come through the bus.
    progress: Option<Checkpoint>,
    /// Where each transaction begins of whose frames none has left.
    begun: HashMap<u64, u64>,
    gone: Gone,
    restarts: u64,
}

impl Ring {
    /// An empty ring that begins at `position`, and keeps about `max_bytes` of frames.
    pub fn new(position: Position, max_bytes: usize) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                frames: VecDeque::new(),
                bytes: 0,
                grown: Arc::default(),
                reloads: HashMap::new(),
                base: Place {
                    seq: 0,
                    position: position.clone(),
                },
                marked: VecDeque::new(),
                evicted: None,
                head: position,
                progress: None,
                begun: HashMap::new(),
                gone: Gone::default(),
                restarts: 0,
            })),
            end: Arc::new(watch::Sender::new(0)),
            max_bytes,
        }
    }

    /// Appends frames in order, then wakes every session.
    ///
    /// `progress`, where given, says that everything up to it has now been appended.
    pub fn append(&self, frames: Vec<Frame>, progress: Option<Checkpoint>) {
        let mut inner = self.lock();
        for frame in frames {
            inner.head = frame.position.clone();
            inner.push(frame);
        }
        if progress.is_some() {
            inner.progress = progress;
        }
        inner.evict(self.max_bytes);
        let end = inner.end();
        drop(inner);
        self.end.send_replace(end);
    }

    /// Appends a page at the head: its cursor is the last event's.
    ///
    /// `text` makes the frame from that cursor, and must be quick: the ring stands still.
    pub fn append_page(
        &self,
        topic: Arc<str>,
        horizon: Option<Horizon>,
        text: impl FnOnce(&Position) -> String,
    ) {
        let mut inner = self.lock();
        let position = inner.head.clone();
        let text = Some(Encoded::from(text(&position)));
        let frame = Frame {
            topic,
            position,
            text,
            kind: FrameKind::Page(horizon),
            change: None,
        };
        inner.push(frame);
        inner.evict(self.max_bytes);
        let end = inner.end();
        drop(inner);
        self.end.send_replace(end);
    }

    /// Forgets everything and begins again at `position`: the bus holds another history, or
    /// events were lost. Every session notices that it has fallen out.
    pub fn restart(&self, position: Position) {
        let mut inner = self.lock();
        let seq = inner.end() + 1;
        *inner = Inner {
            frames: VecDeque::new(),
            bytes: 0,
            grown: Arc::default(),
            reloads: [("".into(), seq)].into(),
            base: Place {
                seq,
                position: position.clone(),
            },
            marked: VecDeque::new(),
            evicted: None,
            head: position,
            progress: None,
            begun: HashMap::new(),
            gone: Gone::default(),
            restarts: inner.restarts + 1,
        };
        drop(inner);
        self.end.send_replace(seq);
    }

    /// The place after the last frame.
    pub fn head(&self) -> Place {
        let inner = self.lock();
        Place {
            seq: inner.end(),
            position: inner.head.clone(),
        }
    }

    /// How far the source has come through the bus, as far as this gateway knows.
    pub fn progress(&self) -> Option<Checkpoint> {
        self.lock().progress.clone()
    }

    /// Frames and bytes held now.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.frames.len(), inner.held())
    }

    /// Reads frames from `seq` up to, not including, `until`: at least one where there is one,
    /// and about `max_bytes`. `None` where `seq` has left the ring.
    pub fn read(&self, seq: u64, until: u64, max_bytes: usize) -> Option<Vec<Arc<Frame>>> {
        let inner = self.lock();
        let skip = usize::try_from(seq.checked_sub(inner.base.seq)?).ok()?;
        let count = usize::try_from(until.saturating_sub(seq)).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let frames = inner
            .frames
            .iter()
            .skip(skip)
            .take(count)
            .take_while(|entry| {
                let fits = bytes < max_bytes;
                bytes += entry.frame.cost();
                fits
            });
        Some(frames.map(|entry| entry.frame.clone()).collect())
    }

    /// How often the ring has begun again: what was read from the bus before may be of a history
    /// that is over.
    pub fn restarts(&self) -> u64 {
        self.lock().restarts
    }

    /// Finds the place just after an event. The cursor's check is held against what sits there.
    pub fn seek(&self, cursor: &Position) -> Seek {
        let inner = self.lock();
        if cursor.epoch != inner.head.epoch {
            return Seek::Epoch;
        }
        if cursor.offset > inner.head.offset {
            return Seek::Ahead;
        }
        if cursor.offset < inner.base.position.offset {
            return Seek::Behind;
        }
        // Offsets never fall from one frame to the next; pages share that of the event before.
        let before = inner
            .frames
            .partition_point(|entry| entry.frame.position.offset <= cursor.offset);
        let place = inner.place(before);
        match place.position.contradicts(cursor) {
            true => Seek::Mismatch,
            false => Seek::At(place),
        }
    }

    /// Finds the place in the stream at which a read of the database stands: of the topic's changes
    /// the read saw all that are before this place, and none that is after it.
    ///
    /// `settled` is needed for a [`Horizon::Visible`].
    pub fn cut(&self, topic: &str, horizon: &Horizon, settled: Option<&Settled>) -> Cut {
        let mut inner = self.lock();
        match (horizon, settled) {
            (Horizon::Checkpoint(horizon), _) => inner.cut_at(horizon),
            (Horizon::Visible(_), None) => Cut::Unknown,
            (Horizon::Visible(visible), Some(settled)) => {
                inner.cut_visible(topic, visible, settled)
            }
        }
    }

    /// A number that grows whenever the topic's table may be another than before.
    pub fn reloads(&self, topic: &str) -> u64 {
        let reloads = &self.lock().reloads;
        let last = [topic, ""].map(|topic| reloads.get(topic).copied());
        last.into_iter().flatten().max().unwrap_or(0)
    }

    /// A receiver that changes whenever the ring has grown or begun again, or all are [woken](Self::wake).
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Has everybody who waits for a change look up, although there is none: something else that one may wait for
    /// is there.
    pub fn wake(&self) {
        self.end.send_modify(|_| {});
    }

    /// Waits until the stream has passed what a read saw, but not longer than `settle`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(
        &self,
        topic: &str,
        (horizon, settled): (&Horizon, Option<&Settled>),
        settle: std::time::Duration,
    ) -> Cut {
        let mut end = self.watch();
        let deadline = tokio::time::Instant::now() + settle;
        loop {
            end.borrow_and_update();
            let cut = self.cut(topic, horizon, settled);
            let late = async {
                tokio::time::timeout_at(deadline, end.changed())
                    .await
                    .is_err()
            };
            if cut != Cut::Wait || late.await {
                return cut;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn end(&self) -> u64 {
        self.base.seq + self.frames.len() as u64
    }

    fn held(&self) -> usize {
        self.bytes + self.grown.load(Ordering::Relaxed)
    }

    fn push(&mut self, frame: Frame) {
        if let Some(change) = &frame.change {
            change.count_in(&self.grown);
        }
        if let Some(text) = &frame.text {
            text.count_in(&self.grown);
        }
        if frame.is_reload() {
            let place = self.end() + 1;
            self.reloads.insert(frame.topic.clone(), place);
        }
        if let Some(xid) = frame.xid() {
            let place = self.end();
            self.begun.entry(xid).or_insert(place);
        }
        if frame.checkpoint().is_some() {
            let place = self.end();
            self.marked.push_back(place);
        }
        let before = self
            .frames
            .back()
            .map_or(self.gone.highest, |entry| entry.highest);
        self.bytes += frame.cost();
        self.frames.push_back(Entry {
            highest: before.max(frame.xid().unwrap_or(0)),
            frame: Arc::new(frame),
        });
    }

    fn evict(&mut self, max_bytes: usize) {
        while self.held() > max_bytes && self.frames.len() > 1 {
            let Some(Entry { frame, .. }) = self.frames.pop_front() else {
                break;
            };
            if let Some(xid) = frame.xid() {
                self.begun.remove(&xid);
                self.gone.add(xid);
            }
            self.bytes -= frame.cost();
            self.base = Place {
                seq: self.base.seq + 1,
                position: frame.position.clone(),
            };
            if let Some(checkpoint) = frame.checkpoint() {
                self.marked.pop_front();
                self.evicted = Some(checkpoint.clone());
            }
        }
    }
}
