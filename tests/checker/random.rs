//! A small random generator of our own, so that a seed means the same decisions everywhere.

use std::time::Duration;

/// A stream of decisions.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for whoever has another number.
    pub fn of(seed: u64, number: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number << 32));
        // Neighbouring seeds begin alike.
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// A time in milliseconds.
    pub fn millis(&mut self, low: i64, high: i64) -> Duration {
        Duration::from_millis(self.between(low, high) as u64)
    }
}
