//! How fast connections may come from elsewhere: all who were there may come back at once, and nobody goes on
//! coming and going as fast as he can.
//!
//! What must hold: who has not come lately is let in, whatever others do. They all have one rate together, and when
//! that is used up there is a reserve, of which each network, for who has one address of it may have them all, has a
//! [`NETWORKS`]th at once, and a [`NETWORKS`]th of the rate then. What is taken of the reserve comes back before
//! anybody has anything else. So those who come without end have of it what is theirs and no more, and N networks of
//! theirs leave the others all but N parts of it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Address, Full, Room,
    buckets::Buckets,
    rate::{Bucket, Rate},
};

/// The least part of the rate that one address has: else one that comes and goes would leave none of it to the
/// others.
const PART: u32 = 10;

/// Networks that use up the reserve together.
const NETWORKS: u32 = 300;

/// The least that each of them has of it at once: a browser opens six connections for a page, and a socket.
const AT_ONCE: u32 = 16;

/// What is left of the rate, to all together, to each address, and of the reserve to each network.
#[derive(Debug)]
pub struct Arrivals {
    rate: Rate,
    with_reserve: Rate,
    all: Bucket,
    each: Buckets,
    networks: Buckets,
}

impl Arrivals {
    /// Nobody has come yet.
    pub fn new(room: Room) -> Self {
        let rate = room.arrivals;
        // As many as were there may be others, who come when all of these have come back.
        let reserve = Rate {
            burst: rate.burst.max(NETWORKS * AT_ONCE),
            ..rate
        };
        Self {
            rate,
            with_reserve: Rate {
                burst: rate.burst.saturating_add(reserve.burst),
                ..rate
            },
            all: Bucket::default(),
            each: Buckets::new(of_one(room)),
            networks: Buckets::of_parts(reserve, NETWORKS),
        }
    }

    /// Takes note of a connection from there. One that is refused has taken nothing, of anything.
    ///
    /// # Errors
    /// [`Full::TooFast`]
    pub fn take(&mut self, from: Address, now: Instant) -> Result<(), Full> {
        let (all, networks) = (&mut self.all, &mut self.networks);
        let mut with = |rate| all.take(rate, now);
        let taken = self.each.take_where(&from, now, || {
            with(self.rate).or_else(|_: Duration| {
                networks.take_where(&from.network(), now, || with(self.with_reserve))
            })
        });
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

    /// An address of a network that no other number has.
    fn apart(number: u32) -> Address {
        let [_, a, b, c] = number.to_be_bytes();
        Address::V4([a, b, c, 1])
    }

    /// One of the 65,536 of one network of IPv6.
    fn of_one_network(number: u32) -> Address {
        let [.., g, h] = number.to_be_bytes();
        Address::V6([0x20, 0x01, 0x0d, 0xb8, 0, 1, g, h])
    }

    /// How many of so many from one address are let in at that time.
    fn come(arrivals: &mut Arrivals, from: Address, count: usize, now: Instant) -> usize {
        let come = (0..count).filter(|_| arrivals.take(from, now).is_ok());
        come.count()
    }

    #[test]
    fn a_full_house_comes_back_at_once_from_wherever_and_endless_churn_is_bounded() {
        for house in [apart, of_one_network, |number| apart(number / 100)] {
            let (mut arrivals, begun) = (Arrivals::new(room(100)), Instant::now());
            let came = |arrivals: &mut Arrivals, numbers: std::ops::Range<u32>, now| -> usize {
                numbers.map(|one| come(arrivals, house(one), 1, now)).sum()
            };
            assert_eq!(came(&mut arrivals, 0..10_000, begun), 10_000);
            let mut churned = 0;
            for second in 0..20 {
                let now = begun + Duration::from_secs(second);
                churned += came(&mut arrivals, 10_000..21_000, now);
            }
            let most = 10_000 + 500 * 20;
            assert!(churned <= most, "{churned}");
        }
    }

    #[test]
    fn one_address_that_comes_and_goes_leaves_the_rate_to_the_others() {
        let (mut arrivals, begun) = (Arrivals::new(room(100)), Instant::now());
        assert_eq!(come(&mut arrivals, apart(1), 5_000, begun), 100);
        let (mut churned, mut others) = (0, 0);
        for second in 1..=60 {
            let now = begun + Duration::from_secs(second);
            churned += come(&mut arrivals, apart(1), 5_000, now);
            others += come(&mut arrivals, apart(1000 + second as u32), 20, now);
        }
        assert_eq!((churned, others), (60 * 50, 60 * 20));
    }

    #[test]
    fn who_has_not_come_lately_is_let_in_whatever_a_crowd_does() {
        let neighbours = (0..=255).map(|last| Address::V4([192, 0, 2, last]));
        // Each comes more often than an address may; of the last there are always some that have not come yet.
        let crowds: [Vec<Address>; 5] = [
            vec![apart(1)],
            (0..20).map(apart).collect(),
            (0..200).map(apart).collect(),
            neighbours.collect(),
            (0..65_536).map(of_one_network).collect(),
        ];
        for crowd in crowds {
            let (mut arrivals, begun) = (Arrivals::new(room(100)), Instant::now());
            let (mut churn, mut churned) = (crowd.iter().cycle(), 0);
            for tick in 0..200 {
                let now = begun + Duration::from_millis(100 * tick);
                let times = if tick == 0 { 110 } else { 6 };
                for address in churn.by_ref().take(crowd.len().min(400)) {
                    churned += come(&mut arrivals, *address, times, now);
                }
                for newcomer in 0..10 {
                    let newcomer = apart(1_000_000 + 10 * tick as u32 + newcomer);
                    let came = come(&mut arrivals, newcomer, 1, now);
                    assert_eq!(came, 1, "of {}, {tick} tenths later", crowd.len());
                }
            }
            // Nothing of the rate is kept for nobody: beyond what newcomers took it is theirs.
            let least = (10_000 + (500 - 100) * 19).min(crowd.len() * 50 * 19);
            assert!(churned >= least, "{}: {churned} of {least}", crowd.len());
        }
    }

    #[test]
    fn who_is_refused_has_spent_nothing() {
        let (mut arrivals, begun) = (Arrivals::new(room(100)), Instant::now());
        let came = (0..20_000).map(|one| come(&mut arrivals, apart(one), 1, begun));
        assert_eq!(came.sum::<usize>(), 20_000);
        let late = apart(1_000_000);
        assert_eq!(come(&mut arrivals, late, 1_000, begun), 0);
        let later = begun + Duration::from_secs(1);
        let part = 10_000 / NETWORKS as usize;
        assert_eq!(come(&mut arrivals, late, 1_000, later), part);
    }

    #[test]
    fn an_address_that_may_have_all_places_has_all_of_the_rate() {
        for of_one in [10_000, 10_000_000] {
            let (mut arrivals, begun) = (Arrivals::new(room(of_one)), Instant::now());
            assert_eq!(come(&mut arrivals, apart(1), 11_000, begun), 10_000);
            let later = begun + Duration::from_secs(1);
            assert_eq!(come(&mut arrivals, apart(1), 2_000, later), 500);
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
