//! What each address may have of the questions that are asked at once: one that brings wrong tokens as fast as it
//! can waits for itself, and not everybody for it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions of one address at once, an eighth of all: more of it wait until those are answered, and who comes from
/// elsewhere has no more of each address before him. A whole house behind one is let in by the hundred a second,
/// where the endpoint takes 40 ms.
const OF_ONE: usize = 8;

/// Addresses after which those are forgotten that have nothing under way.
const REMEMBERED: usize = 1024;

/// The shares of all addresses.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<u64, Weak<Semaphore>>>);

impl Shares {
    /// Waits until there is room in the share of an address; it is taken until dropped. This machine, which
    /// may bring everybody, has no share, and nor has who asks over NATS.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn take(&self, from: Option<IpAddr>) -> Option<OwnedSemaphorePermit> {
        let share = self.of(network(from?)?);
        // Never closed.
        share.acquire_owned().await.ok()
    }

    fn of(&self, network: u64) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = all.get(&network).and_then(Weak::upgrade) {
            return share;
        }
        if all.len() >= REMEMBERED {
            all.retain(|_, share| share.strong_count() > 0);
        }
        let share = Arc::new(Semaphore::new(OF_ONE));
        all.insert(network, Arc::downgrade(&share));
        share
    }
}

/// What counts as one address: of IPv6 the first half, which a household has all of. None for this machine.
fn network(from: IpAddr) -> Option<u64> {
    match from.to_canonical() {
        own if own.is_loopback() => None,
        IpAddr::V4(address) => Some(u64::from(address.to_bits())),
        IpAddr::V6(address) => Some((address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_address_waits_for_itself_and_leaves_nothing_behind() {
        let shares = Shares::default();
        let take = |from: &str| shares.take(Some(from.parse().unwrap())).now_or_never();
        let mut held: Vec<_> = (0..OF_ONE).map(|_| take("192.0.2.1").unwrap()).collect();
        assert!(take("192.0.2.1").is_none() && take("::ffff:192.0.2.1").is_none());
        assert!(take("192.0.2.2").unwrap().is_some());
        held.pop();
        assert!(take("192.0.2.1").unwrap().is_some());
        held.extend((0..OF_ONE).map(|n| take(&format!("2001:db8:1:2::{n}")).unwrap()));
        assert!(take("2001:db8:1:2:ffff::1").is_none());
        assert!(take("2001:db8:1:3::1").unwrap().is_some());
        // This machine, and who has no address, wait for nothing.
        for _ in 0..2 * OF_ONE {
            held.push(take("127.0.0.1").unwrap());
            held.push(shares.take(None).now_or_never().unwrap());
        }
        drop(held);
        for n in 0..5000_u32 {
            let from = IpAddr::from((0xc612_0000 + n).to_be_bytes());
            drop(shares.take(Some(from)).now_or_never());
        }
        assert!(shares.0.lock().unwrap().len() <= REMEMBERED);
    }
}
