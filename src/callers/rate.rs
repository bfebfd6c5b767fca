//! How often a client may do something: a token bucket in the form that remembers one moment and needs
//! no timer (GCRA, ITU-T I.371).

use std::time::Duration;

use tokio::time::Instant;

/// So many a second, and so many at once after a quiet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A second, at least one.
    pub per_second: u32,
    /// At once, at least one.
    pub burst: u32,
}

/// What is left of a [`Rate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// When all of the burst will be there again.
    full_at: Option<Instant>,
}

impl Rate {
    /// So many times as much.
    pub fn times(self, factor: u32) -> Self {
        Self {
            per_second: self.per_second.saturating_mul(factor),
            burst: self.burst.saturating_mul(factor),
        }
    }
}

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// How long it is until there is one; nothing was taken.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.take_many(1, rate, now)
    }

    /// Takes so many at once, which must not be more than the burst.
    ///
    /// # Errors
    /// How long it is until there are so many; nothing was taken.
    pub fn take_many(&mut self, count: u32, rate: Rate, now: Instant) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let room = interval * rate.burst.max(1);
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + interval * count;
        match (full_at - now).checked_sub(room) {
            Some(missing) if !missing.is_zero() => Err(missing),
            _ => {
                self.full_at = Some(full_at);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 20,
        burst: 40,
    };

    fn taken(bucket: &mut Bucket, now: Instant) -> u32 {
        let mut taken = 0;
        while bucket.take(RATE, now).is_ok() {
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_burst_is_taken_at_once_and_then_what_comes_with_the_time() {
        let (mut bucket, begun) = (Bucket::default(), Instant::now());
        assert_eq!(taken(&mut bucket, begun), 40);
        assert_eq!(bucket.take(RATE, begun), Err(Duration::from_millis(50)));
        let later = |ms| begun + Duration::from_millis(ms);
        assert_eq!(bucket.take(RATE, later(49)), Err(Duration::from_millis(1)));
        assert_eq!(bucket.take(RATE, later(50)), Ok(()));
        assert_eq!(taken(&mut bucket, later(1050)), 20);
        // A quiet time gives back no more than the burst.
        assert_eq!(taken(&mut bucket, later(3_600_000)), 40);
    }

    #[test]
    fn what_is_refused_costs_nothing() {
        let (mut bucket, begun) = (Bucket::default(), Instant::now());
        taken(&mut bucket, begun);
        for _ in 0..1000 {
            bucket.take(RATE, begun).unwrap_err();
        }
        let later = begun + Duration::from_millis(100);
        assert_eq!(taken(&mut bucket, later), 2);
    }

    #[test]
    fn many_are_taken_together_or_none_of_them() {
        let (mut bucket, begun) = (Bucket::default(), Instant::now());
        assert_eq!(bucket.take_many(30, RATE, begun), Ok(()));
        let missing = bucket.take_many(30, RATE, begun);
        assert_eq!(missing, Err(Duration::from_secs(1)));
        assert_eq!(taken(&mut bucket, begun), 10);
    }

    #[test]
    fn ten_times_a_rate_is_ten_times_all_of_it() {
        let (ten, now) = (RATE.times(10), Instant::now());
        let mut bucket = Bucket::default();
        let taken = (0..).take_while(|_| bucket.take(ten, now).is_ok()).count();
        assert_eq!(taken, 400);
        assert_eq!(bucket.take(ten, now), Err(Duration::from_millis(5)));
    }
}
