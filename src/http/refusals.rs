//! What an operator is told of those who are not served: which setting it was, and what to do about it. Whoever is
//! refused is told no more than when to come back.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::callers::Full;

/// Between two lines of one kind: where one is refused there are many.
const NEWS: Duration = Duration::from_mins(1);

/// Why somebody is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no room for him.
    Full(Full),
    /// The head of his request is too long, or has too many headers.
    Head,
}

/// When each kind was told last.
#[derive(Debug, Default)]
pub struct Refusals([Mutex<Option<Instant>>; 4]);

impl Refusals {
    /// Tells of somebody at that address, where that is news.
    pub fn tell(&self, refusal: Refusal, from: IpAddr) {
        let mut last = self.0[refusal.number()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() > NEWS) {
            *last = Some(Instant::now());
            tracing::warn!(%from, "{}", refusal.advice());
        }
    }
}

impl Refusal {
    fn number(self) -> usize {
        match self {
            Self::Full(Full::All) => 0,
            Self::Full(Full::OfOne) => 1,
            Self::Full(Full::TooFast) => 2,
            Self::Head => 3,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Full(Full::All) => {
                "connections are refused, for there is room for no more: raise server.max_connections or \
                 server.spare_connections, and the limit of file descriptors"
            }
            Self::Full(Full::OfOne) => {
                "connections of one address are refused, for it has all that it may have: where a proxy brings \
                 others from it, name that in server.trusted_proxies and have it send X-Forwarded-For, and where \
                 many share it, raise server.max_connections_per_address"
            }
            Self::Full(Full::TooFast) => {
                "connections are refused, for too many come at once: if they are all yours, raise \
                 server.accepts_per_second, or where one address brings many, \
                 server.max_connections_per_address"
            }
            Self::Head => {
                "requests are refused, for their heads are too long or have too many headers: if they are yours, \
                 raise server.max_head_bytes or server.max_headers"
            }
        }
    }
}
