//! A query without a socket: over HTTP or NATS.

use std::{net::IpAddr, sync::Arc};

use super::{Gateway, MAX_TRIES, SETTLE, inexact::Inexact, reads::pause, requests::later};
use crate::{
    callers::{Asker, Crowded, Share},
    identity::Identity,
    protocol::{self, ErrorCode, Failure, Select},
    ring::Cut,
    topic::Topic,
};

impl Gateway {
    /// Takes note of a request without a socket, which reaches the database or the bus.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`](crate::protocol::ErrorCode::TooManyRequests) where whoever asks has done so
    /// too often, with when he may again.
    pub fn keep_pace(&self, identity: &Identity, from: Option<IpAddr>) -> Result<(), Failure> {
        self.pace.take(identity, from).map_err(|wait| {
            self.metrics.limited("pace");
            later(wait)
        })
    }

    /// One more query without a socket of somebody, while what is returned is kept.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`](crate::protocol::ErrorCode::TooManyRequests) where that many of his
    /// are under way.
    pub fn share(&self, asker: Option<&Asker>) -> Result<Share, Failure> {
        let share = self.askers.admit_asker(asker);
        share.map_err(|Crowded| self.queries.refuse("asker"))
    }

    /// One reply frame for an asker without a socket, with its place in the stream as the cursor. The
    /// asker has a place among those ([`crate::query::Queries::admit`]), and what takes long is read when it is his
    /// turn.
    ///
    /// # Errors
    /// What the asker is to be told.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn frame(
        &self,
        asker: Option<Asker>,
        topic: &Arc<Topic>,
        select: &Select,
    ) -> Result<String, Failure> {
        let ring = &self.ring;
        for tries in 0.. {
            if tries > 0 {
                tokio::time::sleep(pause(tries)).await;
            }
            // Where nothing is known of what the read saw, it has seen at least what was before it.
            let (before, restarts) = (ring.head().position, ring.restarts());
            let read = self
                .queries
                .snapshot(asker.clone(), topic.clone(), select.clone());
            let snapshot = read.await?;
            let cut = match &snapshot.horizon {
                Some(horizon) => {
                    let read = (horizon, snapshot.settled.as_ref());
                    ring.settled(&topic.name, read, SETTLE).await
                }
                None => Cut::Unknown,
            };
            let cut = match cut {
                Cut::At(_) if ring.restarts() != restarts => Cut::Fallen,
                cut => cut,
            };
            let (cursor, exact) = match cut {
                Cut::At(place) => (place.position, Ok(())),
                Cut::Fallen if tries < MAX_TRIES => continue,
                Cut::Fallen => (before, Err(Inexact::Unseen)),
                Cut::Wait => (before, Err(Inexact::Late)),
                Cut::Unknown => (before, Err(Inexact::Unknown)),
            };
            if let Err(why) = exact {
                self.metrics.inexact(why.as_str());
            }
            let exact = exact.is_ok();
            let (rows, page) = (&snapshot.rows, snapshot.page.as_ref());
            let frames =
                protocol::reply(&topic.name, None, rows, page, Some(&cursor), (exact, None));
            return Ok(frames.into_iter().next().unwrap_or_default());
        }
        Err(ErrorCode::Internal.into())
    }
}
