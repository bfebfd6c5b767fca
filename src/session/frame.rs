//! A query without a socket: over HTTP or NATS.

use std::sync::Arc;

use super::{Gateway, MAX_TRIES, SETTLE};
use crate::{
    protocol::{self, ErrorCode, Failure, Select},
    ring::Cut,
    topic::Topic,
};

impl Gateway {
    /// One reply frame for an asker without a socket, with its place in the stream as the cursor.
    ///
    /// # Errors
    /// What the asker is to be told.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn frame(&self, topic: &Arc<Topic>, select: &Select) -> Result<String, Failure> {
        let ring = &self.ring;
        for attempt in 1.. {
            // Where nothing is known of what the read saw, it has seen at least what was before it.
            let before = ring.head().position;
            let snapshot = self.queries.snapshot(topic.clone(), select.clone()).await?;
            let cut = match &snapshot.horizon {
                Some(horizon) => ring.settled(horizon, SETTLE).await,
                None => Cut::Wait,
            };
            let (cursor, exact) = match cut {
                Cut::At(place) => (place.position, true),
                Cut::Fallen if attempt < MAX_TRIES => continue,
                Cut::Fallen | Cut::Wait => (before, false),
            };
            let (rows, page) = (&snapshot.rows, snapshot.page.as_ref());
            let frames =
                protocol::reply(&topic.name, None, rows, page, Some(&cursor), (exact, None));
            return Ok(frames.into_iter().next().unwrap_or_default());
        }
        Err(ErrorCode::Internal.into())
    }
}
