//! Events that applications hand to this gateway, on their way to the bus.

use tokio::sync::{mpsc, oneshot};

use crate::{
    bus::{Bus, PublishError},
    event::{Batch, Event},
    metrics::Metrics,
    position::Position,
    protocol::ErrorCode,
};

/// Events that wait to be stored; the next publisher waits for room.
const QUEUE: usize = 256;

/// Publishes applications' events. Cloning shares the loop behind it.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<Ask>);

struct Ask {
    event: Event,
    reply: oneshot::Sender<Result<Position, ErrorCode>>,
}

/// Starts publishing to `bus` until every handle is dropped.
pub fn serve(bus: impl Bus, metrics: Metrics) -> Publisher {
    let (sender, mut asks) = mpsc::channel::<Ask>(QUEUE);
    tokio::spawn(async move {
        while let Some(ask) = asks.recv().await {
            let (bus, metrics) = (bus.clone(), metrics.clone());
            // Each on its own, so that one slow commit takes all that wait behind it along. The
            // bus's queue bounds how many there are.
            tokio::spawn(async move {
                let batch = Batch {
                    events: vec![ask.event],
                    ..Batch::default()
                };
                let stored = match bus.publish(batch).await {
                    Ok(published) => {
                        metrics.events_published.inc_by(published.stored as u64);
                        Ok(published.position)
                    }
                    Err(PublishError::TooLarge { .. }) => Err(ErrorCode::PayloadTooLarge),
                    Err(PublishError::Unavailable(_) | PublishError::Fenced) => {
                        Err(ErrorCode::BusUnavailable)
                    }
                };
                // The publisher may have gone; what it sent is stored all the same.
                let _ = ask.reply.send(stored);
            });
        }
    });
    Publisher(sender)
}

impl Publisher {
    /// Stores one event and returns its position, or that of its first copy.
    ///
    /// # Errors
    /// [`ErrorCode::PayloadTooLarge`]: nothing was stored. [`ErrorCode::BusUnavailable`]: the
    /// outcome is unknown; publish again with the same id.
    ///
    /// # Cancel safety
    /// Not cancel safe: after a drop the outcome is unknown.
    pub async fn publish(&self, event: Event) -> Result<Position, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send(Ask { event, reply }).await;
        sent.map_err(|_| ErrorCode::BusUnavailable)?;
        answer.await.unwrap_or(Err(ErrorCode::BusUnavailable))
    }
}
