//! Queries without a socket, which no socket's own limits hold: so many may be under way. What is quick has
//! places of its own, for what waits for its turn keeps its place meanwhile.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Queries, is_first_page, is_row};
use crate::{
    protocol::{Failure, Select},
    topic::Topic,
};

/// The places of such queries.
#[derive(Debug)]
pub struct Requests {
    unread: Arc<Semaphore>,
    quick: Arc<Semaphore>,
    others: Arc<Semaphore>,
}

impl Requests {
    /// So many places of each kind.
    pub fn new(places: usize) -> Self {
        let places = || Arc::new(Semaphore::new(places));
        Self {
            unread: places(),
            quick: places(),
            others: places(),
        }
    }
}

impl Queries {
    /// Takes a place for a query without a socket, to be kept until its answer was taken.
    ///
    /// # Errors
    /// [`TooManyRequests`](crate::protocol::ErrorCode::TooManyRequests) where all such places are taken.
    pub fn admit(&self, topic: &Topic, select: &Select) -> Result<OwnedSemaphorePermit, Failure> {
        let is_quick = is_row(topic, select) || (is_first_page(select) && self.is_at_hand(topic));
        let requests = &self.0.requests;
        self.place(match is_quick {
            true => &requests.quick,
            false => &requests.others,
        })
    }

    /// Takes a place for a query of which it is not known yet who asks for what, to be kept until it is.
    ///
    /// # Errors
    /// [`TooManyRequests`](crate::protocol::ErrorCode::TooManyRequests) where all such places are taken.
    pub fn admit_unread(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.place(&self.0.requests.unread)
    }

    fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
        let place = places.clone().try_acquire_owned();
        place.map_err(|_| self.refuse("requests"))
    }
}
