//! Turns of those who have waited in vain. Who asks again soon has the turn that he would have had; else, where many ask
//! for what is slow, whoever gives up and begins at the end again would never have one.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::Who;

/// For how long a turn is kept.
const KEPT: Duration = Duration::from_secs(10);

/// The turns that are kept, a bounded number.
#[derive(Debug)]
pub struct Kept {
    room: usize,
    turns: HashMap<Who, (Instant, u64)>,
    /// In the order in which they were given up.
    order: VecDeque<(Instant, Who)>,
}

impl Kept {
    /// None yet, and room for so many: the oldest goes for the next.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            turns: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Keeps the turn of somebody who waits no longer.
    pub fn keep(&mut self, who: Who, turn: u64) {
        let now = Instant::now();
        self.turns.insert(who.clone(), (now, turn));
        self.order.push_back((now, who));
        self.clear();
    }

    /// The turn of somebody who asks again; it is kept no longer.
    pub fn take(&mut self, who: &Who) -> Option<u64> {
        self.clear();
        self.turns.remove(who).map(|(_, turn)| turn)
    }

    /// Lets go what is too old, or too much.
    fn clear(&mut self) {
        let is_over = |(since, _): &(Instant, Who)| since.elapsed() >= KEPT;
        while self.order.len() > self.room || self.order.front().is_some_and(is_over) {
            let Some((since, who)) = self.order.pop_front() else {
                return;
            };
            // He may have come again since, and have waited in vain again.
            if self.turns.get(&who).is_some_and(|(kept, _)| *kept == since) {
                self.turns.remove(&who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::asker, *};

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_kept_for_a_while_and_no_more_than_there_is_room_for() {
        let mut kept = Kept::new(2);
        let [one, two, three] = ["one", "two", "three"].map(asker);
        kept.keep(one.clone(), 1);
        assert_eq!(kept.take(&one), Some(1));
        assert_eq!(kept.take(&one), None);
        kept.keep(one.clone(), 1);
        kept.keep(two.clone(), 2);
        kept.keep(three.clone(), 3);
        assert_eq!([&one, &three].map(|who| kept.take(who)), [None, Some(3)]);
        tokio::time::advance(KEPT).await;
        assert_eq!(kept.take(&two), None);
        assert!(kept.order.is_empty() && kept.turns.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_in_vain_again_has_the_whole_time_again() {
        let mut kept = Kept::new(10);
        kept.keep(Who::Nobody, 1);
        tokio::time::advance(KEPT / 2).await;
        assert_eq!(kept.take(&Who::Nobody), Some(1));
        kept.keep(Who::Nobody, 1);
        tokio::time::advance(KEPT - KEPT / 4).await;
        assert_eq!(kept.take(&Who::Nobody), Some(1));
    }
}
