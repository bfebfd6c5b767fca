//! What a lane carries at once.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    ring::{Frame, FrameKind, Place, Ring},
    session::{
        deflate::{Agreed, framed},
        interests::Interests,
    },
};

/// Bytes of frames that a lane carries at once.
const PASS_BYTES: usize = 128 * 1024;

/// The most topics that a pass tells apart: bits of a number.
const MAX_TOPICS: usize = 64;

/// The most pieces that are made of a pass. Sockets that take yet another set of topics have theirs put
/// together one by one.
const MAX_PIECES: usize = 32;

/// What a lane carries at once: frames of the ring, and what sockets take of them, each in one piece that
/// is made for the first that takes it.
pub struct Pass {
    /// The place of the first frame.
    pub from: u64,
    /// The frames.
    pub frames: Vec<Arc<Frame>>,
    /// There are pages among them, which a socket may have seen.
    pub pages: bool,
    /// The topics of the frames, each once, as far as they can be told apart.
    topics: Vec<Arc<str>>,
    /// Of each frame its topic's place among them.
    topic_of: Vec<usize>,
    pieces: Vec<(Taken, Piece)>,
    /// The place where it ends.
    pub last: Place,
}

/// What a socket takes of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// A bit for each topic.
    topics: u64,
    agreed: Option<Agreed>,
}

/// Frames one behind the other.
pub struct Piece {
    /// All of them.
    pub bytes: Bytes,
    /// Where in `bytes` each frame of the pass begins, and the last ends. One that is not taken, or has no
    /// text, has no bytes.
    pub starts: Vec<usize>,
    /// How many before each of these have bytes.
    pub counts: Vec<u64>,
}

impl Pass {
    /// What follows `seq` in the ring; `None` at its head. From a place that has left the ring an empty
    /// pass leads to the head, and everybody who stands before that out of the lane.
    pub fn read(ring: &Ring, seq: u64) -> Option<Self> {
        let place = ring.head();
        let head = place.seq;
        let (from, frames) = match ring.read(seq, u64::MAX, PASS_BYTES) {
            Some(frames) if frames.is_empty() => return None,
            Some(frames) => (seq, frames),
            None if head == seq => return None,
            None => (head, Vec::new()),
        };
        let is_page = |frame: &Arc<Frame>| matches!(frame.kind, FrameKind::Page(_));
        let mut topics: Vec<Arc<str>> = Vec::new();
        let topic_of = frames.iter().map(|frame| {
            let known = topics.iter().position(|topic| *topic == frame.topic);
            known.unwrap_or_else(|| {
                topics.push(frame.topic.clone());
                topics.len() - 1
            })
        });
        let last = match frames.last() {
            Some(last) => Place {
                seq: from + frames.len() as u64,
                position: last.position.clone(),
            },
            None => place,
        };
        Some(Self {
            last,
            from,
            pages: frames.iter().any(is_page),
            topic_of: topic_of.collect(),
            topics,
            pieces: Vec::new(),
            frames,
        })
    }

    /// The number of the piece for such a socket; `None` where what it is sent depends on more than the
    /// topic of a frame.
    pub fn piece_for(&mut self, interests: &Interests, agreed: Option<Agreed>) -> Option<usize> {
        if self.topics.len() > MAX_TOPICS || agreed.is_some_and(|agreed| !agreed.covers_all()) {
            return None;
        }
        let mut taken = Taken { topics: 0, agreed };
        for (number, topic) in self.topics.iter().enumerate() {
            if interests.filters(topic) {
                return None;
            }
            taken.topics |= u64::from(interests.takes(topic)) << number;
        }
        let known = self.pieces.iter().position(|(of, _)| *of == taken);
        if known.is_none() && self.pieces.len() < MAX_PIECES {
            let piece = self.made(taken);
            self.pieces.push((taken, piece));
            return Some(self.pieces.len() - 1);
        }
        known
    }

    /// The piece of that number.
    pub fn piece(&self, number: usize) -> &Piece {
        &self.pieces[number].1
    }

    fn made(&self, taken: Taken) -> Piece {
        let mut starts = Vec::with_capacity(self.frames.len() + 1);
        let mut counts = Vec::with_capacity(self.frames.len() + 1);
        let mut bytes = BytesMut::new();
        let mut count = 0;
        starts.push(0);
        counts.push(0);
        for (frame, topic) in self.frames.iter().zip(&self.topic_of) {
            if let Some(text) = frame
                .text
                .as_ref()
                .filter(|_| taken.topics >> topic & 1 == 1)
            {
                bytes.extend_from_slice(framed(text, taken.agreed));
                count += 1;
            }
            starts.push(bytes.len());
            counts.push(count);
        }
        Piece {
            bytes: bytes.freeze(),
            starts,
            counts,
        }
    }

    pub fn end(&self) -> u64 {
        self.from + self.frames.len() as u64
    }
}
