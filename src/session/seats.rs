//! The seats of a lane, in numbered slots that are used again.

use std::sync::Arc;

/// Slots with what sits in them.
#[derive(Debug)]
pub struct Seats<T> {
    slots: Vec<Option<Arc<T>>>,
    free: Vec<usize>,
}

impl<T> Seats<T> {
    /// Takes a free slot, and returns its number.
    pub fn add(&mut self, seat: Arc<T>) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(seat);
        slot
    }

    /// Frees a slot that was taken.
    pub fn remove(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.free.push(slot);
    }

    /// The seats of `count` slots from `first` on; returns whether there are any slots left.
    pub fn turn(&self, first: usize, count: usize, turn: &mut Vec<Arc<T>>) -> bool {
        let slots = self.slots.iter().skip(first).take(count);
        turn.extend(slots.flatten().cloned());
        first < self.slots.len()
    }
}

impl<T> Default for Seats<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}
