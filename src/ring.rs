//! The gateway's bounded log of recent frames. Each is encoded once; every session reads it
//! through its own cursor, so a slow session costs nothing here: its cursor falls behind, and
//! in the end out of the ring.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::position::{Checkpoint, Position};

/// What a frame costs beside its text.
const FRAME_OVERHEAD: usize = 96;

/// One frame, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The topic that it belongs to.
    pub topic: Arc<str>,
    /// Where it stands: its cursor.
    pub position: Position,
    /// The text, UTF-8 JSON; none for an event that only gateways need.
    pub text: Option<Bytes>,
    /// What it is.
    pub kind: FrameKind,
}

/// What a frame is, and what it knows of the database.
#[derive(Debug, Clone, PartialEq)]
pub enum FrameKind {
    /// An event of the bus; a change carries where it stands in its source.
    Event(Option<Checkpoint>),
    /// A page read by this gateway, and what that read saw.
    Page(Option<Checkpoint>),
}

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
}

/// Where a read of the database stands in relation to the ring.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// Not all that the read saw has come through the bus yet.
    Wait,
    /// What is before this place the read saw, what is after it not.
    At(Place),
    /// The place has left the ring: read again.
    Fallen,
}

/// The log. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Ring {
    inner: Arc<Mutex<Inner>>,
    end: Arc<watch::Sender<u64>>,
    max_bytes: usize,
}

#[derive(Debug)]
struct Inner {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// The place before the first frame.
    base: Place,
    /// The source checkpoint of the last change that has left.
    evicted: Option<Checkpoint>,
    head: Position,
    /// How far the source has come through the bus.
    progress: Option<Checkpoint>,
}

impl Ring {
    /// An empty ring that begins at `position`, and keeps about `max_bytes` of frames.
    pub fn new(position: Position, max_bytes: usize) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                frames: VecDeque::new(),
                bytes: 0,
                base: Place {
                    seq: 0,
                    position: position.clone(),
                },
                evicted: None,
                head: position,
                progress: None,
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
            inner.bytes += cost(&frame);
            inner.head = frame.position.clone();
            inner.frames.push_back(Arc::new(frame));
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
        horizon: Option<Checkpoint>,
        text: impl FnOnce(&Position) -> String,
    ) {
        let mut inner = self.lock();
        let position = inner.head.clone();
        let text = Some(Bytes::from(text(&position)));
        let frame = Frame {
            topic,
            position,
            text,
            kind: FrameKind::Page(horizon),
        };
        inner.bytes += cost(&frame);
        inner.frames.push_back(Arc::new(frame));
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
            base: Place {
                seq,
                position: position.clone(),
            },
            evicted: None,
            head: position,
            progress: None,
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
        (inner.frames.len(), inner.bytes)
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
            .take_while(|frame| {
                let fits = bytes < max_bytes;
                bytes += cost(frame);
                fits
            });
        Some(frames.cloned().collect())
    }

    /// Finds the place just after an event.
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
            .partition_point(|frame| frame.position.offset <= cursor.offset);
        Seek::At(Place {
            seq: inner.base.seq + before as u64,
            position: cursor.clone(),
        })
    }

    /// Finds the place in the stream at which a read of the database stands.
    pub fn cut(&self, horizon: &Checkpoint) -> Cut {
        let inner = self.lock();
        if !inner
            .progress
            .as_ref()
            .is_some_and(|progress| progress.reaches(horizon))
        {
            return Cut::Wait;
        }
        let mut cut = inner.frames.len();
        let mut seen = inner
            .evicted
            .as_ref()
            .is_none_or(|last| horizon.covers(last));
        for (index, frame) in inner.frames.iter().enumerate().rev() {
            if let FrameKind::Event(Some(checkpoint)) = &frame.kind {
                if horizon.covers(checkpoint) {
                    seen = true;
                    break;
                }
                cut = index;
            }
        }
        if !seen {
            return Cut::Fallen;
        }
        let position = match cut.checked_sub(1) {
            Some(before) => inner.frames[before].position.clone(),
            None => inner.base.position.clone(),
        };
        Cut::At(Place {
            seq: inner.base.seq + cut as u64,
            position,
        })
    }

    /// A receiver that changes whenever the ring has grown or begun again.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// Waits until the stream has passed what a read saw, but not longer than `settle`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self, horizon: &Checkpoint, settle: std::time::Duration) -> Cut {
        let mut end = self.watch();
        let deadline = tokio::time::Instant::now() + settle;
        loop {
            end.borrow_and_update();
            let cut = self.cut(horizon);
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

    fn evict(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes && self.frames.len() > 1 {
            let Some(frame) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= cost(&frame);
            self.base = Place {
                seq: self.base.seq + 1,
                position: frame.position.clone(),
            };
            if let FrameKind::Event(Some(checkpoint)) = &frame.kind {
                self.evicted = Some(checkpoint.clone());
            }
        }
    }
}

fn cost(frame: &Frame) -> usize {
    FRAME_OVERHEAD + frame.text.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Epoch;

    fn at(offset: u64) -> Position {
        Position {
            epoch: Epoch::parse("e").unwrap(),
            offset,
        }
    }

    fn checkpoint(high: u64) -> Checkpoint {
        Checkpoint {
            source: "s".into(),
            high,
            low: 0,
        }
    }

    fn change(offset: u64, high: u64) -> Frame {
        Frame {
            topic: "t".into(),
            position: at(offset),
            text: Some(Bytes::from(vec![b'x'; 100])),
            kind: FrameKind::Event(Some(checkpoint(high))),
        }
    }

    #[test]
    fn a_cursor_is_found_or_told_why_not() {
        let ring = Ring::new(at(10), 3 * 196);
        ring.append((11..=14).map(|n| change(n, n)).collect(), None);
        assert_eq!(ring.seek(&at(10)), Seek::Behind);
        assert_eq!(
            ring.seek(&at(11)),
            Seek::At(Place {
                seq: 1,
                position: at(11)
            })
        );
        assert_eq!(ring.seek(&at(14)), Seek::At(ring.head()));
        assert_eq!(ring.seek(&at(15)), Seek::Ahead);
        assert_eq!(ring.read(0, u64::MAX, 1000), None);
        assert_eq!(ring.read(1, u64::MAX, 1).unwrap().len(), 1);
        assert_eq!(ring.read(1, 3, 1000).unwrap().len(), 2);
        ring.restart(Position::start_of(Epoch::parse("f").unwrap()));
        assert_eq!(ring.seek(&at(14)), Seek::Epoch);
        assert_eq!(ring.read(4, u64::MAX, 1000), None);
    }

    #[test]
    fn a_read_stands_before_what_it_did_not_see() {
        let ring = Ring::new(at(0), 1 << 20);
        assert_eq!(ring.cut(&checkpoint(0)), Cut::Wait);
        ring.append(
            vec![change(1, 5), change(2, 7), change(3, 9)],
            Some(checkpoint(9)),
        );
        let place = |seq, offset| {
            Cut::At(Place {
                seq,
                position: at(offset),
            })
        };
        assert_eq!(ring.cut(&checkpoint(4)), place(0, 0));
        assert_eq!(ring.cut(&checkpoint(5)), place(1, 1));
        assert_eq!(ring.cut(&checkpoint(8)), place(2, 2));
        assert_eq!(ring.cut(&checkpoint(9)), place(3, 3));
        assert_eq!(ring.cut(&checkpoint(10)), Cut::Wait);
        let other = Checkpoint {
            source: "other".into(),
            ..checkpoint(1)
        };
        assert_eq!(ring.cut(&other), Cut::Wait);
    }

    #[test]
    fn a_read_older_than_the_ring_is_read_again() {
        let ring = Ring::new(at(0), 2 * 196);
        ring.append((1..=5).map(|n| change(n, n)).collect(), Some(checkpoint(5)));
        assert_eq!(ring.cut(&checkpoint(2)), Cut::Fallen);
        assert_eq!(
            ring.cut(&checkpoint(3)),
            Cut::At(Place {
                seq: 3,
                position: at(3)
            })
        );
    }
}
