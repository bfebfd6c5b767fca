//! Which topics' first pages are read quickly. Most are, and need not wait for a turn then; those of a large table are
//! not, as its rows are counted, and wait for theirs as everything else that may take long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What takes longer is slow.
const QUICK: Duration = Duration::from_millis(250);

/// How long a topic is taken for slow after it was. Some see more of it than others: one who sees little does not
/// speak for one who sees much.
const REMEMBERED: Duration = Duration::from_secs(60);

/// When a first page of each topic was slow last, if one was; there is nothing of a topic of which none was read.
/// No larger than the configuration. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct FirstPages(Arc<Mutex<HashMap<Arc<str>, Option<Instant>>>>);

impl FirstPages {
    /// Whether a topic's first page is known to be quick.
    pub fn are_quick(&self, topic: &str) -> bool {
        let known = self.lock().get(topic).copied();
        known.is_some_and(|slow| slow.is_none_or(|at| at.elapsed() >= REMEMBERED))
    }

    /// A topic's first page took so long to read; none where it was not read to its end in time.
    pub fn took(&self, topic: &Arc<str>, time: Option<Duration>) {
        let mut known = self.lock();
        match time.is_some_and(|time| time <= QUICK) {
            true => {
                known.entry(topic.clone()).or_default();
            }
            false => {
                known.insert(topic.clone(), Some(Instant::now()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Option<Instant>>> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_slow_is_taken_for_slow_for_a_while_whatever_else_is_quick() {
        let pages = FirstPages::default();
        let topic: Arc<str> = "t".into();
        assert!(!pages.are_quick(&topic), "nothing is known yet");
        pages.took(&topic, Some(QUICK));
        assert!(pages.are_quick(&topic) && !pages.are_quick("another"));
        for slow in [None, Some(QUICK + Duration::from_millis(1))] {
            pages.took(&topic, slow);
            assert!(!pages.are_quick(&topic));
            tokio::time::advance(REMEMBERED - Duration::from_millis(1)).await;
            pages.took(&topic, Some(Duration::ZERO));
            assert!(!pages.are_quick(&topic));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(pages.are_quick(&topic));
        }
    }
}
