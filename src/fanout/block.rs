//! Blocks: aligned stretches of the bus, encoded once and kept for a while, so that many sessions
//! that left the ring at the same time read each of them once.

use std::{collections::HashMap, sync::Arc};

use crate::{
    event::Delivery,
    position::{Epoch, Position},
    ring::Frame,
};

/// Offsets in one block: some 100 KiB, which a session sends before it asks for more.
pub const BLOCK: u64 = 500;

/// Bytes of blocks that are kept.
///
/// As much as a quarter of the ring: sessions that return together are within some blocks of one
/// another, however far they have to go.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// Which block: the offsets just after `number * BLOCK`, as many as [`BLOCK`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    epoch: Epoch,
    number: u64,
}

/// Frames of the bus just after a position.
#[derive(Debug, Clone)]
pub struct Stretch {
    frames: Arc<[Arc<Frame>]>,
    from: usize,
}

/// What can be had of one block.
#[derive(Debug)]
pub struct Block {
    /// The lowest offset just after which the block goes on.
    floor: u64,
    /// The position just before the first frame, if its message was read, too.
    before: Option<Position>,
    frames: Arc<[Arc<Frame>]>,
    bytes: usize,
}

/// What a block says to a cursor.
#[derive(Debug)]
pub enum Found {
    /// This follows, and is not nothing.
    Part(Stretch),
    /// The head, or beyond it, when the block was read.
    Beyond,
    /// What follows the cursor is not retained any more.
    Trimmed,
    /// At the cursor sits another message.
    Mismatch,
}

/// The blocks that are kept: those used last.
#[derive(Debug, Default)]
pub struct Blocks {
    kept: HashMap<Key, (Arc<Block>, u64)>,
    bytes: usize,
    uses: u64,
}

impl Key {
    /// The block in which what follows a position begins.
    pub fn of(after: &Position) -> Self {
        Self {
            epoch: after.epoch.clone(),
            number: after.offset / BLOCK,
        }
    }

    /// The place just before the block.
    pub fn start(&self) -> Position {
        Position::new(self.epoch.clone(), self.number * BLOCK)
    }
}

impl Stretch {
    /// The frames, in order; never none.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Frame>> {
        self.frames[self.from..].iter()
    }
}

impl Block {
    /// A block as it was read from `floor` on, perhaps with the message at `floor`.
    pub fn new(floor: u64, mut read: Vec<Delivery>) -> Self {
        let has_before = read.first().is_some_and(|d| d.position.offset <= floor);
        let before = has_before.then(|| read.remove(0).position);
        let frames: Arc<[_]> = read.iter().map(Frame::of).map(Arc::new).collect();
        Self {
            floor,
            before,
            bytes: frames.iter().map(|frame| frame.cost()).sum(),
            frames,
        }
    }

    /// What follows a position of this block.
    pub fn after(&self, after: &Position) -> Found {
        if after.offset < self.floor {
            return Found::Trimmed;
        }
        let from = self
            .frames
            .partition_point(|frame| frame.position.offset <= after.offset);
        let there = match from.checked_sub(1) {
            Some(index) => Some(&self.frames[index].position),
            None => self.before.as_ref(),
        };
        if there.is_some_and(|there| there.contradicts(after)) {
            return Found::Mismatch;
        }
        let frames = self.frames.clone();
        match from < frames.len() {
            true => Found::Part(Stretch { frames, from }),
            false => Found::Beyond,
        }
    }

    /// Below which offset cursors are known to be trimmed, where that is within the block.
    pub fn trimmed(&self, key: &Key) -> Option<Position> {
        let start = key.start();
        (self.floor > start.offset).then(|| start.at(self.floor))
    }
}

impl Blocks {
    /// Answers a cursor, if what is kept can.
    pub fn after(&mut self, after: &Position) -> Option<Found> {
        let (block, used) = self.kept.get_mut(&Key::of(after))?;
        let found = block.after(after);
        // It was read when less was there, or for a cursor further on.
        if matches!(found, Found::Beyond | Found::Trimmed) {
            return None;
        }
        self.uses += 1;
        *used = self.uses;
        Some(found)
    }

    /// Keeps a block instead of the one that there was, and lets go of those not used for long.
    pub fn keep(&mut self, key: Key, block: Arc<Block>) {
        self.uses += 1;
        self.bytes += block.bytes;
        if let Some((old, _)) = self.kept.insert(key, (block, self.uses)) {
            self.bytes -= old.bytes;
        }
        while self.bytes > KEPT_BYTES && self.kept.len() > 1 {
            let oldest = self.kept.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some((gone, _)) = self.kept.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Check;

    fn at(offset: u64) -> Position {
        let check = Check::of(&offset.to_le_bytes());
        Position::new(Epoch::parse("e").unwrap(), offset).checked(Some(check))
    }

    fn block(first: u64, last: u64) -> (Key, Block) {
        let read = (first..=last).map(|offset| Delivery {
            position: at(offset),
            event: None,
        });
        let key = Key::of(&at(last - 1));
        let floor = first.max(key.start().offset);
        (key.clone(), Block::new(floor, read.collect()))
    }

    fn said(found: &Found) -> (&str, Vec<u64>) {
        match found {
            Found::Part(part) => ("part", part.iter().map(|f| f.position.offset).collect()),
            Found::Beyond => ("beyond", vec![]),
            Found::Trimmed => ("trimmed", vec![]),
            Found::Mismatch => ("mismatch", vec![]),
        }
    }

    #[test]
    fn a_block_goes_on_after_each_of_its_cursors() {
        let (key, block) = block(500, 1000);
        assert_eq!(block.trimmed(&key), None);
        let from = |offset| said(&block.after(&at(offset))).1;
        assert_eq!(from(500), (501..=1000).collect::<Vec<_>>());
        assert_eq!(from(998), [999, 1000]);
        // The message before the block is known, too.
        for offset in [500, 501, 999] {
            let other = at(offset).checked(Some(Check::of(b"another")));
            assert_eq!(said(&block.after(&other)).0, "mismatch", "{offset}");
        }
    }

    #[test]
    fn a_block_that_is_not_whole_says_so() {
        let (key, rest) = block(703, 800);
        assert_eq!(said(&rest.after(&at(702))).0, "trimmed");
        assert_eq!(said(&rest.after(&at(703))).1.len(), 97);
        assert_eq!(said(&rest.after(&at(800))).0, "beyond");
        assert_eq!(rest.trimmed(&key), Some(at(703)));
        let mut blocks = Blocks::default();
        blocks.keep(key, Arc::new(rest));
        assert!(blocks.after(&at(702)).is_none(), "to be read anew");
        assert!(blocks.after(&at(800)).is_none(), "to be read anew");
        assert!(blocks.after(&at(799)).is_some());
    }

    #[test]
    fn the_blocks_used_last_are_kept() {
        let mut blocks = Blocks::default();
        let keep = |blocks: &mut Blocks, number: u64| {
            let (key, mut block) = block(number * BLOCK, number * BLOCK + BLOCK);
            block.bytes = KEPT_BYTES / 2;
            blocks.keep(key, Arc::new(block));
        };
        keep(&mut blocks, 1);
        keep(&mut blocks, 2);
        assert!(blocks.after(&at(BLOCK)).is_some());
        keep(&mut blocks, 3);
        assert!(blocks.after(&at(BLOCK)).is_some());
        assert!(blocks.after(&at(2 * BLOCK)).is_none());
        keep(&mut blocks, 3);
        assert_eq!(blocks.bytes, KEPT_BYTES);
    }
}
