//! Reads a stretch of one epoch.

use super::{
    super::ReadError,
    JetStreamBus,
    range::{REPLICA_PAUSE, STEP},
};
use crate::{
    event::Delivery,
    position::{Epoch, Position},
};

/// How often a replica that is behind is asked before it is told as unavailable.
const TRIES: usize = 50;

impl JetStreamBus {
    /// At most `limit` deliveries just after `after`; fewer where not all can be read now.
    pub(super) async fn stretch(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Delivery>, ReadError> {
        let known = self
            .known()
            .filter(|known| known.epoch == after.epoch && after.offset < known.visible);
        let (begins, visible) = match known {
            Some(known) => (known.begins, known.visible),
            None => {
                let look = self.look().await?;
                if look.epoch != after.epoch {
                    return Err(ReadError::Epoch);
                }
                if after.offset > look.visible.max(look.begins) {
                    return Err(ReadError::Ahead);
                }
                if after.offset.max(look.begins) + 1 < look.first() {
                    return Err(ReadError::Trimmed);
                }
                (look.begins, look.visible)
            }
        };
        let from = after.offset.max(begins) + 1;
        let upto = visible.min(from.saturating_add(u64::try_from(limit).unwrap_or(u64::MAX)) - 1);
        let mut deliveries = match after.check.is_some() && from == after.offset + 1 {
            true => self.verified(&after, upto).await?,
            false => Vec::new(),
        };
        let mut next = from + deliveries.len() as u64;
        while next <= upto {
            let step = match self.whole(&after.epoch, next, upto).await {
                // What there is already need not be read again.
                Err(ReadError::Unavailable(_)) if !deliveries.is_empty() => break,
                step => step?,
            };
            next += step.len() as u64;
            deliveries.extend(step);
        }
        Ok(deliveries)
    }

    /// The first deliveries just after `after`, read together with the message there, against
    /// which its check is held; none where that does not tell what follows.
    async fn verified(&self, after: &Position, upto: u64) -> Result<Vec<Delivery>, ReadError> {
        if after.offset == 0 {
            return Ok(Vec::new());
        }
        let limit = usize::try_from(upto - after.offset + 1).unwrap_or(STEP);
        let found = self.range(after.offset, limit).await;
        let found = found.map_err(ReadError::Unavailable)?;
        let mut messages = found.iter().zip(after.offset..=upto).peekable();
        // Trimmed exactly up to there: nobody can tell any more what it was.
        let there = messages.next_if(|(message, seq)| message.seq == *seq);
        if there.is_some_and(|(there, _)| there.position(&after.epoch).contradicts(after)) {
            return Err(ReadError::Mismatch);
        }
        if there.is_none() {
            return Ok(Vec::new());
        }
        let contiguous = messages.take_while(|(message, seq)| message.seq == *seq);
        let deliveries = contiguous.map(|(message, _)| self.delivery(&after.epoch, message).0);
        Ok(deliveries.collect())
    }

    /// Deliveries from `from` on, at least one and at most a [`STEP`], none beyond `upto`.
    pub(super) async fn whole(
        &self,
        epoch: &Epoch,
        from: u64,
        upto: u64,
    ) -> Result<Vec<Delivery>, ReadError> {
        let limit = usize::try_from(upto - from + 1).unwrap_or(STEP);
        for _ in 0..TRIES {
            let found = self
                .range(from, limit)
                .await
                .map_err(ReadError::Unavailable)?;
            let Some(first) = found.first() else {
                // The answer may come from a replica that has not got it yet.
                let extent = self.extent().await.map_err(ReadError::Unavailable)?;
                if extent.first > from {
                    return Err(ReadError::Trimmed);
                }
                tokio::time::sleep(REPLICA_PAUSE).await;
                continue;
            };
            if first.seq != from {
                return Err(ReadError::Trimmed);
            }
            let contiguous = found
                .iter()
                .zip(from..=upto)
                .take_while(|(message, seq)| message.seq == *seq);
            let deliveries = contiguous.map(|(message, _)| self.delivery(epoch, message).0);
            return Ok(deliveries.collect());
        }
        let text = "the bus does not have yet what it has told of";
        Err(ReadError::Unavailable(text.into()))
    }
}
