//! Turns of those who have waited in vain. Who asks again soon has the turn that he would have had; else, where many ask
//! for what is slow, whoever gives up and begins at the end again would never have one.

use std::{
    collections::{BTreeMap, HashMap},
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
    turns: HashMap<Who, Turn>,
    /// In the order in which they were given up.
    order: BTreeMap<u64, Who>,
    given_up: u64,
}

#[derive(Debug)]
struct Turn {
    since: Instant,
    order: u64,
    number: u64,
}

impl Kept {
    /// None yet, and room for so many: the oldest goes for the next.
    pub fn new(room: usize) -> Self {
        Self {
            room,
            turns: HashMap::new(),
            order: BTreeMap::new(),
            given_up: 0,
        }
    }

    /// Keeps the turn of that number for somebody who waits no longer.
    pub fn keep(&mut self, who: Who, number: u64) {
        self.take(&who);
        self.given_up += 1;
        let turn = Turn {
            since: Instant::now(),
            order: self.given_up,
            number,
        };
        self.order.insert(turn.order, who.clone());
        self.turns.insert(who, turn);
        while self.order.len() > self.room {
            self.let_go_first();
        }
    }

    /// The turn of somebody who asks again; it is kept no longer.
    pub fn take(&mut self, who: &Who) -> Option<u64> {
        let is_over = |turn: &Turn| turn.since.elapsed() >= KEPT;
        while let Some((_, first)) = self.order.first_key_value()
            && self.turns.get(first).is_none_or(is_over)
        {
            self.let_go_first();
        }
        let turn = self.turns.remove(who)?;
        self.order.remove(&turn.order);
        Some(turn.number)
    }

    fn let_go_first(&mut self) {
        let first = self.order.pop_first();
        first.map(|(_, who)| self.turns.remove(&who));
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
        // Who has one has no other besides, however often he gives up.
        for _ in 0..10 {
            kept.keep(two.clone(), 2);
        }
        kept.keep(one.clone(), 1);
        assert_eq!(kept.take(&two), Some(2));
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
