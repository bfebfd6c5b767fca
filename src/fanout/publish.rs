//! Events that applications hand to this gateway, on their way to the bus.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    bus::{Bus, PublishError},
    event::{Batch, Event},
    metrics::Metrics,
    position::Position,
    protocol::{ErrorCode, Failure},
};

/// What a refused publisher is told to wait: a commit of the bus takes milliseconds.
const RETRY_AFTER_MS: u32 = 1000;

/// Publishes applications' events, so many at once. Cloning shares the places.
#[derive(Debug, Clone)]
pub struct Publisher {
    sender: mpsc::Sender<Ask>,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

/// A place among those who write, until dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

struct Ask {
    event: Event,
    reply: oneshot::Sender<Result<Position, ErrorCode>>,
    place: Place,
}

/// Starts publishing to `bus`, at most so many events at once, until every handle is dropped.
pub fn serve(bus: impl Bus, most: usize, metrics: Metrics) -> Publisher {
    // Who asks has a place, so that there is room for everybody.
    let (sender, mut asks) = mpsc::channel::<Ask>(most);
    let publisher = Publisher {
        sender,
        places: Arc::new(Semaphore::new(most)),
        metrics: metrics.clone(),
    };
    tokio::spawn(async move {
        while let Some(ask) = asks.recv().await {
            let (bus, metrics) = (bus.clone(), metrics.clone());
            // Each on its own, so that one slow commit takes all that wait behind it along.
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
                drop(ask.place);
            });
        }
    });
    publisher
}

impl Publisher {
    /// Takes a place among all who write.
    ///
    /// # Errors
    /// [`ErrorCode::TooManyRequests`] where all places are taken: nothing was stored.
    pub fn admit(&self) -> Result<Place, Failure> {
        let place = self.places.clone().try_acquire_owned();
        place.map(|_permit| Place { _permit }).map_err(|_| {
            self.metrics.limited("writes");
            Failure {
                retry_after_ms: Some(RETRY_AFTER_MS),
                ..ErrorCode::TooManyRequests.into()
            }
        })
    }

    /// Stores one event and returns its position, or that of its first copy. The place is free again
    /// when it is stored, whether somebody still waits for it or not.
    ///
    /// # Errors
    /// [`ErrorCode::PayloadTooLarge`]: nothing was stored. [`ErrorCode::BusUnavailable`]: the
    /// outcome is unknown; publish again with the same id.
    ///
    /// # Cancel safety
    /// Not cancel safe: after a drop the outcome is unknown.
    pub async fn publish(&self, event: Event, place: Place) -> Result<Position, ErrorCode> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            event,
            reply,
            place,
        };
        let sent = self.sender.send(ask).await;
        sent.map_err(|_| ErrorCode::BusUnavailable)?;
        answer.await.unwrap_or(Err(ErrorCode::BusUnavailable))
    }
}
