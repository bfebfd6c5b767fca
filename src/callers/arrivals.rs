//! How fast connections may come from elsewhere: all who were there may come back at once, and nobody goes on
//! coming and going as fast as he can.

use tokio::time::Instant;

use super::{
    Address, Full, Room,
    buckets::Buckets,
    rate::{Bucket, Rate},
};

/// The least part of the rate that one address has: else one that comes and goes would leave none of it to the
/// others.
const PART: u32 = 10;

/// What is left of the rate, to all together and to each address.
#[derive(Debug)]
pub struct Arrivals {
    rate: Rate,
    all: Bucket,
    each: Buckets,
}

impl Arrivals {
    /// Nobody has come yet.
    pub fn new(room: Room) -> Self {
        Self {
            rate: room.arrivals,
            all: Bucket::default(),
            each: Buckets::new(of_one(room)),
        }
    }

    /// Takes note of a connection from there.
    ///
    /// # Errors
    /// [`Full::TooFast`]
    pub fn take(&mut self, from: Address, now: Instant) -> Result<(), Full> {
        let taken = self.each.take(&from, now);
        let taken = taken.and_then(|()| self.all.take(self.rate, now));
        taken.map_err(|_| Full::TooFast)
    }
}

/// What one address has: all of its places at once, or where those are few a second's worth, and as large a part
/// of the rate as of the places, for it may be that of a proxy that brings everybody.
fn of_one(room: Room) -> Rate {
    let Rate { per_second, burst } = room.arrivals;
    let places = u32::try_from(room.of_one).unwrap_or(u32::MAX).min(burst);
    let part = u64::from(per_second) * u64::from(places) / u64::from(burst.max(1));
    let part = u32::try_from(part).unwrap_or(per_second);
    let per_second = part.max(per_second / PART).max(1);
    Rate {
        per_second,
        burst: places.max(per_second),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn room(of_one: usize) -> Room {
        Room {
            all: 12_000,
            of_one,
            arrivals: Rate {
                per_second: 500,
                burst: 10_000,
            },
        }
    }

    fn address(number: u32) -> Address {
        Address::V4(number.to_be_bytes())
    }

    /// How many of so many from an address, or one each where there is none, are let in at that time.
    fn come(arrivals: &mut Arrivals, from: Option<u32>, count: u32, now: Instant) -> usize {
        let from = |number| address(from.unwrap_or(number));
        let come = (0..count).filter(|number| arrivals.take(from(*number), now).is_ok());
        come.count()
    }

    #[test]
    fn a_full_house_comes_back_at_once_and_endless_churn_is_bounded() {
        let (mut arrivals, begun) = (Arrivals::new(room(100)), Instant::now());
        assert_eq!(come(&mut arrivals, None, 11_000, begun), 10_000);
        let later = begun + Duration::from_secs(1);
        assert_eq!(come(&mut arrivals, None, 2_000, later), 500);
    }

    #[test]
    fn one_address_that_comes_and_goes_leaves_the_rate_to_the_others() {
        let (mut arrivals, begun) = (Arrivals::new(room(100)), Instant::now());
        assert_eq!(come(&mut arrivals, Some(1), 5_000, begun), 100);
        let (mut churned, mut others) = (0, 0);
        for second in 1..=60 {
            let now = begun + Duration::from_secs(second);
            churned += come(&mut arrivals, Some(1), 5_000, now);
            others += come(&mut arrivals, Some(1000 + second as u32), 20, now);
        }
        assert_eq!((churned, others), (60 * 50, 60 * 20));
    }

    #[test]
    fn an_address_that_may_have_all_places_has_all_of_the_rate() {
        for of_one in [10_000, 10_000_000] {
            let (mut arrivals, begun) = (Arrivals::new(room(of_one)), Instant::now());
            assert_eq!(come(&mut arrivals, Some(1), 11_000, begun), 10_000);
            let later = begun + Duration::from_secs(1);
            assert_eq!(come(&mut arrivals, Some(1), 2_000, later), 500);
        }
        let least = Room {
            arrivals: Rate {
                per_second: 1,
                burst: 1,
            },
            ..room(1)
        };
        assert_eq!(of_one(least), least.arrivals);
    }
}
