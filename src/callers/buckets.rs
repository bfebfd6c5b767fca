//! What is left of a rate to each of many: of those who came lately, so that strangers cannot fill the memory
//! with their names.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::Duration,
};

use tokio::time::Instant;

use super::rate::{Bucket, Rate};

/// How many are remembered, and as many of those before them: each is some 30 bytes. Who is forgotten has all of
/// his burst again, which is what so many others had meanwhile.
const LATELY: usize = 4096;

/// A bucket for each name.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    /// Names are kept as their hashes, which nobody can foresee: a long one costs no more than a short one.
    names: RandomState,
    lately: HashMap<u64, Bucket>,
    before: HashMap<u64, Bucket>,
}

impl Buckets {
    /// All of them full.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            names: RandomState::new(),
            lately: HashMap::new(),
            before: HashMap::new(),
        }
    }

    /// Takes one of what a name has.
    ///
    /// # Errors
    /// As [`Bucket::take`].
    pub fn take(&mut self, name: &impl Hash, now: Instant) -> Result<(), Duration> {
        let name = self.names.hash_one(name);
        if let Some(bucket) = self.lately.get_mut(&name) {
            return bucket.take(self.rate, now);
        }
        let mut bucket = self.before.remove(&name).unwrap_or_default();
        if self.lately.len() >= LATELY {
            self.before = std::mem::take(&mut self.lately);
        }
        let taken = bucket.take(self.rate, now);
        self.lately.insert(name, bucket);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    #[test]
    fn each_name_has_a_rate_of_its_own() {
        let (mut buckets, begun) = (Buckets::new(RATE), Instant::now());
        for name in ["ann", "bob"] {
            assert!((0..3).all(|_| buckets.take(&name, begun).is_ok()));
            assert_eq!(buckets.take(&name, begun), Err(Duration::from_millis(100)));
        }
        let later = begun + Duration::from_millis(100);
        assert_eq!(buckets.take(&"ann", later), Ok(()));
        assert!(buckets.take(&"ann", later).is_err());
    }

    #[test]
    fn memory_has_a_bound_and_who_goes_on_is_not_forgotten() {
        let (mut buckets, begun) = (Buckets::new(RATE), Instant::now());
        assert!((0..3).all(|_| buckets.take(&"greedy", begun).is_ok()));
        for stranger in 0..10 * LATELY {
            assert!(buckets.take(&stranger, begun).is_ok());
            if stranger % 1000 == 0 {
                assert!(buckets.take(&"greedy", begun).is_err(), "{stranger}");
            }
            assert!(buckets.lately.len() <= LATELY && buckets.before.len() <= LATELY);
        }
    }
}
