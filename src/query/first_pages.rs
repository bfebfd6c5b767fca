//! Whose first pages are read quickly. Most are, and need not wait for a turn then; those of a large table are not, as
//! its rows are counted, and wait for theirs as everything else that may take long.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::shared::Key;

/// What takes longer is slow.
const QUICK: Duration = Duration::from_millis(250);

/// Pages that are known: beyond them the one that was quick first is as if it had not been read yet.
const KNOWN: usize = 16_384;

/// The first pages that were quick when they were read last: of a topic as its readers see it, for one who sees little
/// does not speak for one who sees much. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct FirstPages(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    quick: HashSet<u64>,
    /// In the order in which they were found to be; some are not any more.
    order: VecDeque<u64>,
}

impl FirstPages {
    /// Whether a first page is known to be quick.
    pub fn is_quick(&self, page: &Key) -> bool {
        self.lock().quick.contains(&page.rows())
    }

    /// A first page took so long to read; none where it was not read to its end in time.
    pub fn took(&self, page: &Key, time: Option<Duration>) {
        let (page, mut known) = (page.rows(), self.lock());
        if time.is_none_or(|time| time > QUICK) {
            known.quick.remove(&page);
        } else if known.quick.insert(page) {
            known.order.push_back(page);
            while known.order.len() > KNOWN {
                let first = known.order.pop_front();
                first.map(|first| known.quick.remove(&first));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Params, Select},
        topic::Topic,
    };

    fn page(topic: &str, placed: bool) -> Key {
        let spec = serde_json::json!({ "type": topic });
        let topic = Topic::resolve(&serde_json::from_value(spec).unwrap(), None);
        Key::of(&topic.unwrap(), Select::Page(Params::default()), placed)
    }

    #[test]
    fn what_was_quick_the_last_time_is() {
        let pages = FirstPages::default();
        assert!(!pages.is_quick(&page("t", true)), "nothing is known yet");
        for slow in [None, Some(QUICK + Duration::from_millis(1))] {
            pages.took(&page("t", true), Some(QUICK));
            // Whether its place is asked for makes no difference to the database.
            assert!(pages.is_quick(&page("t", false)) && pages.is_quick(&page("t", true)));
            assert!(!pages.is_quick(&page("another", true)));
            pages.took(&page("t", false), slow);
            assert!(!pages.is_quick(&page("t", true)));
        }
    }

    #[test]
    fn there_is_room_for_so_many() {
        let pages = FirstPages::default();
        for number in 0..=KNOWN {
            pages.took(&page(&format!("t{number}"), true), Some(QUICK));
        }
        assert!(!pages.is_quick(&page("t0", true)) && pages.is_quick(&page("t1", true)));
        let known = pages.lock();
        assert_eq!((known.quick.len(), known.order.len()), (KNOWN, KNOWN));
    }
}
