//! When the next event is due.

use std::time::Duration;

use super::{plan::Load, publisher::Publisher, tally::Window};

/// epoll counts whole milliseconds. Within the last one the loop turns without waiting, so that an
/// event is not sent up to a millisecond late.
const TURNING: Duration = Duration::from_millis(1);

/// The longest wait: the end of the run is looked for at least that often.
const LONGEST: Duration = Duration::from_millis(20);

/// Publishes what is due.
pub struct Pace {
    load: Load,
    begun_ns: u64,
    /// Bursts that were published by the clock.
    bursts: u64,
}

impl Pace {
    /// The first burst is due at once.
    pub fn new(load: Load, begun_ns: u64) -> Self {
        Self {
            load,
            begun_ns,
            bursts: 0,
        }
    }

    /// Publishes all that is due at `now_ns`; returns whether that was anything.
    pub fn publish(
        &mut self,
        publisher: &mut Publisher,
        now_ns: u64,
        window: Option<&Window>,
    ) -> bool {
        let before = publisher.published;
        while self.may(publisher, window) {
            let due_ns = match self.due_ns() {
                Some(due_ns) if due_ns > now_ns => break,
                Some(due_ns) => due_ns,
                None => now_ns,
            };
            self.bursts += 1;
            for _ in 0..self.load.burst {
                publisher.publish(due_ns);
            }
        }
        publisher.published > before
    }

    /// How long nothing will be due.
    pub fn timeout(&self, now_ns: u64, window: Option<&Window>, published: u64) -> Duration {
        let fits = |window: &Window| window.room(published) >= u64::from(self.load.burst);
        if !window.is_none_or(fits) {
            return LONGEST;
        }
        let due = self.due_ns().unwrap_or(now_ns).saturating_sub(now_ns);
        Duration::from_nanos(due)
            .saturating_sub(TURNING)
            .min(LONGEST)
    }

    fn may(&self, publisher: &Publisher, window: Option<&Window>) -> bool {
        let burst = u64::from(self.load.burst);
        let fits = |window: &Window| window.room(publisher.published) >= burst;
        let left = self.load.events.saturating_sub(publisher.published);
        left >= burst && publisher.has_room() && window.is_none_or(fits)
    }

    /// By the clock: when the next burst is due, however long ago that was.
    fn due_ns(&self) -> Option<u64> {
        let rate = self.load.rate?;
        let after_s = self.bursts as f64 * f64::from(self.load.burst) / rate;
        Some(self.begun_ns + (after_s * 1e9) as u64)
    }
}
