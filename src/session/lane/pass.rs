//! What a lane carries at once.

use std::{cell::OnceCell, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::{
    ring::{Frame, FrameKind, Ring},
    session::deflate::{Agreed, framed},
};

/// Bytes of frames that a lane carries at once.
const PASS_BYTES: usize = 128 * 1024;

/// What a lane carries at once: frames of the ring, and all of them in one piece.
pub struct Pass {
    /// The place of the first frame.
    pub from: u64,
    /// The frames.
    pub frames: Vec<Arc<Frame>>,
    plain: Piece,
    /// Made for the first socket that takes it.
    compressed: OnceCell<Piece>,
    /// There are pages among them, which a socket may have seen.
    pub pages: bool,
}

/// Frames one behind the other.
pub struct Piece {
    /// All of them.
    pub bytes: Bytes,
    /// Where in `bytes` each frame begins, and the last ends.
    pub starts: Vec<usize>,
}

impl Pass {
    /// What follows `seq` in the ring; `None` at its head. From a place that has left the ring an empty
    /// pass leads to the head, and everybody who stands before that out of the lane.
    pub fn read(ring: &Ring, seq: u64) -> Option<Self> {
        let head = ring.head().seq;
        let (from, frames) = match ring.read(seq, u64::MAX, PASS_BYTES) {
            Some(frames) if frames.is_empty() => return None,
            Some(frames) => (seq, frames),
            None if head == seq => return None,
            None => (head, Vec::new()),
        };
        let is_page = |frame: &Arc<Frame>| matches!(frame.kind, FrameKind::Page(_));
        Some(Self {
            from,
            pages: frames.iter().any(is_page),
            plain: Piece::of(&frames, None),
            compressed: OnceCell::new(),
            frames,
        })
    }

    /// All of it in the form for such a socket; `None` where what it can read depends on the frame.
    pub fn piece(&self, agreed: Option<Agreed>) -> Option<&Piece> {
        match agreed {
            None => Some(&self.plain),
            Some(all) if all.covers_all() => {
                let compressed = || Piece::of(&self.frames, agreed);
                Some(self.compressed.get_or_init(compressed))
            }
            Some(_) => None,
        }
    }

    pub fn end(&self) -> u64 {
        self.from + self.frames.len() as u64
    }
}

impl Piece {
    fn of(frames: &[Arc<Frame>], agreed: Option<Agreed>) -> Self {
        let mut starts = Vec::with_capacity(frames.len() + 1);
        let mut bytes = BytesMut::new();
        starts.push(0);
        for frame in frames {
            if let Some(text) = &frame.text {
                bytes.extend_from_slice(framed(text, agreed));
            }
            starts.push(bytes.len());
        }
        Self {
            bytes: bytes.freeze(),
            starts,
        }
    }
}
