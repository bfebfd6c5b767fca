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

    /// Up to `count` seats, from the slot `first` on; returns the slot to go on from, `None` behind the
    /// last. Free slots cost next to nothing.
    pub fn turn(&self, first: usize, count: usize, turn: &mut Vec<Arc<T>>) -> Option<usize> {
        for (slot, seat) in self.slots.iter().enumerate().skip(first) {
            if turn.len() == count {
                return Some(slot);
            }
            turn.extend(seat.clone());
        }
        None
    }

    /// The seats of these slots, as far as somebody sits in them.
    pub fn pick(&self, slots: &[usize], turn: &mut Vec<Arc<T>>) {
        let seats = slots.iter().filter_map(|slot| self.slots.get(*slot));
        turn.extend(seats.flatten().cloned());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_of_those_who_are_there_however_many_have_gone() {
        let mut seats = Seats::default();
        for number in 0..1000 {
            assert_eq!(seats.add(Arc::new(number)), number);
        }
        for gone in 0..990 {
            seats.remove(gone);
        }
        let mut turn = Vec::new();
        let next = seats.turn(0, 8, &mut turn);
        assert_eq!(next, Some(998));
        assert_eq!(
            turn.drain(..).map(|seat| *seat).collect::<Vec<_>>(),
            (990..998).collect::<Vec<_>>()
        );
        assert_eq!(seats.turn(998, 8, &mut turn), None);
        assert_eq!(turn.len(), 2);
        assert!(seats.add(Arc::new(0)) < 990, "a free slot is used again");
    }
}
