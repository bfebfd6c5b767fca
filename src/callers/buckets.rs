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
    /// What one thing takes of it.
    cost: u32,
    /// Names are kept as their hashes, which nobody can foresee: a long one costs no more than a short one.
    names: RandomState,
    lately: HashMap<u64, Bucket>,
    before: HashMap<u64, Bucket>,
}

impl Buckets {
    /// All of them full.
    pub fn new(rate: Rate) -> Self {
        Self::of_parts(rate, 1)
    }

    /// All of them full, of a rate for so many names together: each has that part of it, which may be less than
    /// one a second. The burst must be as large as there are parts.
    pub fn of_parts(rate: Rate, parts: u32) -> Self {
        Self {
            rate,
            cost: parts,
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
        self.take_where(name, now, || Ok(()))
    }

    /// Takes one of what a name has, where something else allows it, too, which is asked only if this does.
    ///
    /// # Errors
    /// As [`Bucket::take`], or what is said instead. Nothing was taken of the name, and a stranger is not
    /// remembered.
    pub fn take_where(
        &mut self,
        name: &impl Hash,
        now: Instant,
        allows: impl FnOnce() -> Result<(), Duration>,
    ) -> Result<(), Duration> {
        let name = self.names.hash_one(name);
        let lately = self.lately.get(&name).copied();
        let known = lately.or_else(|| self.before.get(&name).copied());
        let mut bucket = known.unwrap_or_default();
        let taken = bucket.take_many(self.cost, self.rate, now);
        let taken = taken.and_then(|()| allows());
        let Some(kept) = taken.map_or(known, |()| Some(bucket)) else {
            return taken;
        };
        if lately.is_none() {
            self.before.remove(&name);
            if self.lately.len() >= LATELY {
                self.before = std::mem::take(&mut self.lately);
            }
        }
        self.lately.insert(name, kept);
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
    #[test]
    fn what_something_else_does_not_allow_costs_nothing_and_is_not_remembered() {
        let (mut buckets, begun) = (Buckets::new(RATE), Instant::now());
        let refusal = Err(Duration::from_secs(7));
        assert_eq!(buckets.take_where(&"ann", begun, || refusal), refusal);
        assert!(buckets.lately.is_empty() && buckets.before.is_empty());
        for _ in 0..3 {
            assert_eq!(buckets.take_where(&"ann", begun, || refusal), refusal);
            assert_eq!(buckets.take(&"ann", begun), Ok(()));
        }
        let asked = || panic!("it was asked although there is nothing left");
        let missing = Err(Duration::from_millis(100));
        assert_eq!(buckets.take_where(&"ann", begun, asked), missing);
    }

    #[test]
    fn a_part_of_a_rate_may_be_less_than_one_a_second() {
        let rate = Rate {
            per_second: 10,
            burst: 60,
        };
        let (mut buckets, begun) = (Buckets::of_parts(rate, 20), Instant::now());
        for name in ["ann", "bob"] {
            assert!((0..3).all(|_| buckets.take(&name, begun).is_ok()));
            assert_eq!(buckets.take(&name, begun), Err(Duration::from_secs(2)));
        }
        let later = begun + Duration::from_secs(2);
        assert_eq!(buckets.take(&"ann", later), Ok(()));
        assert!(buckets.take(&"ann", later).is_err());
    }
}
