//! Who is connected: how many in all, how many from each address, and how many of each identity, so that
//! no one of them takes the room of all. And how often each of them may come, and ask.

mod arrivals;
mod asker;
mod buckets;
mod identities;
mod pace;
mod rate;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use arrivals::Arrivals;
pub use asker::Asker;
pub use identities::{Crowded, Identities, Share};
pub use pace::Pace;
pub use rate::{Bucket, Rate};

use crate::metrics::Metrics;

/// How many may be connected at once, and how fast they may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub all: usize,
    /// From one address.
    pub of_one: usize,
    /// From elsewhere than this machine, and not through a proxy that is believed; at once as many as were there
    /// before.
    pub arrivals: Rate,
}

/// Places kept for this machine itself: a supervisor that asks how a full process is must not take it
/// for dead.
const OWN: usize = 16;

/// All who are connected. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Callers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    room: Room,
    metrics: Metrics,
    present: Mutex<Present>,
    arrivals: Mutex<Arrivals>,
}

#[derive(Debug, Default)]
struct Present {
    all: usize,
    /// Only those who are counted by address.
    of: HashMap<Address, usize>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// There is no room for anybody.
    All,
    /// There is none for this address.
    OfOne,
    /// There is, and too many have come just now.
    TooFast,
}

/// A place among the callers until dropped.
#[derive(Debug)]
pub struct Permit {
    callers: Arc<Inner>,
    /// What its address has of it.
    portion: Option<Portion>,
}

/// One of the places that an address may have, until dropped.
#[derive(Debug)]
pub struct Portion {
    callers: Arc<Inner>,
    /// None for this machine, which has no bound of its own.
    address: Option<Address>,
}

/// What counts as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Address {
    V4([u8; 4]),
    /// Its first half: a single household or server has all of the second.
    V6([u8; 8]),
}

impl Callers {
    /// Nobody yet.
    pub fn new(room: Room, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            room,
            metrics,
            present: Mutex::default(),
            arrivals: Mutex::new(Arrivals::new(room)),
        }))
    }

    /// Takes a place for a connection from there. This machine itself has no bound of its own: a
    /// proxy on it brings everybody.
    ///
    /// # Errors
    /// Where there is no room, or too many come, which is counted.
    pub fn admit(&self, from: IpAddr) -> Result<Permit, Full> {
        let mut permit = self.admit_proxy(from)?;
        permit.portion = Some(self.counted(self.portion(from))?);
        // Last, so that whoever finds no room takes nothing of the others' rate.
        self.counted(self.0.arrive(Address::of(from)))?;
        Ok(permit)
    }

    /// Takes a place for a connection on which a proxy brings others: each of them is to have a
    /// [`Self::portion`] of its own.
    ///
    /// # Errors
    /// As [`Self::admit`], but the proxy's address has no bound.
    pub fn admit_proxy(&self, from: IpAddr) -> Result<Permit, Full> {
        self.counted(self.0.admit(Address::of(from)))?;
        self.0.metrics.connections.inc();
        Ok(Permit {
            callers: self.0.clone(),
            portion: None,
        })
    }

    /// Takes one of the places of an address.
    ///
    /// # Errors
    /// Where it has them all; whoever refuses it for that counts it.
    pub fn portion(&self, of: IpAddr) -> Result<Portion, Full> {
        let address = Address::of(of);
        self.0.take(address)?;
        Ok(Portion {
            callers: self.0.clone(),
            address,
        })
    }

    fn counted<T>(&self, admitted: Result<T, Full>) -> Result<T, Full> {
        admitted.inspect_err(|full| self.0.metrics.refused_connection(full.kind()))
    }
}

impl Full {
    /// What it is counted as.
    pub fn kind(self) -> &'static str {
        match self {
            Self::All => "total",
            Self::OfOne => "address",
            Self::TooFast => "rate",
        }
    }
}

impl Permit {
    /// The place of a connection that is somebody's alone from here on, such as a socket's behind a
    /// proxy.
    pub fn of(mut self, portion: Option<Portion>) -> Self {
        if portion.is_some() {
            self.portion = portion;
        }
        self
    }
}

impl Inner {
    fn admit(&self, address: Option<Address>) -> Result<(), Full> {
        let mut present = self.guard();
        let own = if address.is_none() { OWN } else { 0 };
        if present.all >= self.room.all.saturating_add(own) {
            return Err(Full::All);
        }
        present.all += 1;
        Ok(())
    }

    fn take(&self, address: Option<Address>) -> Result<(), Full> {
        if let Some(address) = address {
            let mut present = self.guard();
            let there = present.of.get(&address).copied().unwrap_or(0);
            if there >= self.room.of_one {
                return Err(Full::OfOne);
            }
            present.of.insert(address, there + 1);
        }
        Ok(())
    }

    fn arrive(&self, address: Option<Address>) -> Result<(), Full> {
        let Some(address) = address else {
            return Ok(());
        };
        let arrivals = self.arrivals.lock();
        let mut arrivals = arrivals.unwrap_or_else(PoisonError::into_inner);
        arrivals.take(address, Instant::now())
    }

    fn guard(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.callers.guard().all -= 1;
        self.callers.metrics.connections.dec();
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        let Some(address) = self.address else {
            return;
        };
        let mut present = self.callers.guard();
        if let Some(there) = present.of.get_mut(&address) {
            *there -= 1;
            // Who has gone leaves nothing behind, or addresses would fill the memory.
            if *there == 0 {
                present.of.remove(&address);
            }
        }
    }
}

impl Address {
    /// What stands for its network: for a /24 of IPv4, or a /48 of IPv6, which is what a household, a company or a
    /// rented server may have whole.
    fn network(self) -> Self {
        match self {
            Self::V4([a, b, c, _]) => Self::V4([a, b, c, 0]),
            Self::V6([a, b, c, d, e, f, ..]) => Self::V6([a, b, c, d, e, f, 0, 0]),
        }
    }

    /// None for this machine.
    fn of(from: IpAddr) -> Option<Self> {
        match from.to_canonical() {
            own if own.is_loopback() => None,
            IpAddr::V4(address) => Some(Self::V4(address.octets())),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Some(Self::V6([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(all: usize, of_one: usize) -> Callers {
        let arrivals = Rate {
            per_second: 1000,
            burst: 1000,
        };
        let room = Room {
            all,
            of_one,
            arrivals,
        };
        Callers::new(room, Metrics::default())
    }

    fn from(callers: &Callers, address: &str) -> Result<Permit, Full> {
        callers.admit(address.parse().unwrap())
    }

    #[test]
    fn one_address_takes_no_more_than_its_share_and_gives_it_back() {
        let callers = callers(100, 2);
        let first = from(&callers, "192.0.2.1").unwrap();
        let _second = from(&callers, "192.0.2.1").unwrap();
        assert_eq!(from(&callers, "192.0.2.1").err(), Some(Full::OfOne));
        let _other = from(&callers, "192.0.2.2").unwrap();
        assert_eq!(callers.0.metrics.connections.get(), 3);
        drop(first);
        let _again = from(&callers, "192.0.2.1").unwrap();
        assert_eq!(from(&callers, "192.0.2.1").err(), Some(Full::OfOne));
        let text = callers.0.metrics.to_text();
        assert!(text.contains("rowcast_connections_refused_total{kind=\"address\"} 2"));
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written_and_a_network_of_ipv6_is_one() {
        for (one, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ] {
            let callers = callers(100, 1);
            let _first = from(&callers, one).unwrap();
            assert_eq!(from(&callers, same).err(), Some(Full::OfOne), "{same}");
        }
        let callers = callers(100, 1);
        let _first = from(&callers, "2001:db8:1:2::1").unwrap();
        assert!(from(&callers, "2001:db8:1:3::1").is_ok());
        assert!(from(&callers, "::ffff:192.0.2.1").is_ok());
    }

    #[test]
    fn neighbours_are_of_one_network() {
        for (one, neighbour, other) in [
            ("192.0.2.1", "192.0.2.255", "192.0.3.1"),
            ("2001:db8:1:2::1", "2001:db8:1:ffff::1", "2001:db8:2:2::1"),
        ] {
            let network = |text: &str| Address::of(text.parse().unwrap()).unwrap().network();
            assert_eq!(network(one), network(neighbour));
            assert_ne!(network(one), network(other));
        }
    }

    #[test]
    fn this_machine_has_no_share_and_all_together_have_a_bound() {
        let callers = callers(3, 1);
        let own = ["127.0.0.1", "127.0.0.2", "::1"];
        let mut permits: Vec<_> = own.map(|own| from(&callers, own).unwrap()).into();
        assert_eq!(from(&callers, "192.0.2.1").err(), Some(Full::All));
        permits.pop();
        permits.push(from(&callers, "192.0.2.1").unwrap());
        // A few more of its own are let in, and no more.
        permits.extend((0..OWN).map(|_| from(&callers, "::ffff:127.0.0.1").unwrap()));
        assert_eq!(from(&callers, "127.0.0.1").err(), Some(Full::All));
    }

    #[test]
    fn a_proxy_has_no_share_and_those_whom_it_brings_have_theirs() {
        let callers = callers(3, 1);
        let proxy = "192.0.2.1".parse().unwrap();
        let client = "198.51.100.1".parse().unwrap();
        let first = callers.admit_proxy(proxy).unwrap();
        let second = callers.admit_proxy(proxy).unwrap();
        let first = first.of(Some(callers.portion(client).unwrap()));
        assert_eq!(callers.portion(client).err(), Some(Full::OfOne));
        let _other = callers.portion("198.51.100.2".parse().unwrap()).unwrap();
        drop(first);
        let second = second.of(Some(callers.portion(client).unwrap()));
        let _direct = from(&callers, "192.0.2.1").unwrap();
        let _last = callers.admit_proxy(proxy).unwrap();
        assert_eq!(callers.admit_proxy(proxy).err(), Some(Full::All));
        drop(second);
        assert!(callers.portion(client).is_ok());
    }

    #[test]
    fn who_comes_too_fast_is_refused_and_counted_and_who_finds_no_room_takes_nothing_of_the_rate() {
        let room = Room {
            all: 3,
            of_one: 2,
            arrivals: Rate {
                per_second: 1,
                burst: 3,
            },
        };
        let callers = Callers::new(room, Metrics::default());
        let held = ["192.0.2.1"; 2].map(|one| from(&callers, one).unwrap());
        for _ in 0..100 {
            assert_eq!(from(&callers, "192.0.2.1").err(), Some(Full::OfOne));
        }
        drop(from(&callers, "192.0.2.2").unwrap());
        // This machine's own, and those whom a proxy brings, are not counted.
        for _ in 0..100 {
            drop(from(&callers, "127.0.0.1").unwrap());
            drop(callers.admit_proxy("192.0.2.9".parse().unwrap()).unwrap());
        }
        // However slow this machine is: a hundred take less than a hundred seconds.
        let refused = (0..100).find_map(|_| from(&callers, "192.0.2.3").err());
        assert_eq!(refused, Some(Full::TooFast));
        let text = callers.0.metrics.to_text();
        assert!(text.contains("rowcast_connections_refused_total{kind=\"rate\"} 1"));
        // Nothing of one who was refused stays.
        drop(held);
        assert_eq!(callers.0.metrics.connections.get(), 0);
        assert!(callers.0.guard().of.is_empty());
    }

    #[test]
    fn who_has_gone_leaves_nothing_behind() {
        let callers = callers(1000, 10);
        for last in 0..=255 {
            drop(from(&callers, &format!("192.0.2.{last}")).unwrap());
        }
        let present = callers.0.guard();
        assert!(present.of.is_empty() && present.all == 0);
    }
}
