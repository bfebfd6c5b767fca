//! What has left the ring, read again from the bus for the sessions that still need it.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    bus::{Bus, ReadError},
    position::Position,
    protocol::ResetReason,
    ring::Frame,
};

/// Events in one stretch: some 100 KiB, which a session sends before it asks for more.
const STRETCH: usize = 500;

/// Requests that wait. A session has one at a time, and waits for its turn.
const QUEUE: usize = 256;

/// Stretches read at once.
const READING: usize = 4;

/// Why a stretch cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It never can: the client must query again.
    Reset(ResetReason),
    /// The bus cannot be reached now. Ask again.
    Later,
}

/// Asks for stretches of the bus. Cloning shares the loop behind it.
#[derive(Debug, Clone)]
pub struct Backlog(mpsc::Sender<Ask>);

struct Ask {
    after: Position,
    reply: oneshot::Sender<Result<Vec<Frame>, Missing>>,
}

/// Starts answering from `bus` until every handle is dropped.
pub fn serve(bus: impl Bus) -> Backlog {
    let (sender, mut asks) = mpsc::channel::<Ask>(QUEUE);
    tokio::spawn(async move {
        let reading = Arc::new(Semaphore::new(READING));
        while let Some(ask) = asks.recv().await {
            let Ok(permit) = reading.clone().acquire_owned().await else {
                return;
            };
            let bus = bus.clone();
            tokio::spawn(async move {
                let _permit = permit;
                let found = bus.read(ask.after, STRETCH).await;
                let found = found.map(|found| found.iter().map(super::frame).collect());
                // A session that has gone needs no answer.
                let _ = ask.reply.send(found.map_err(missing));
            });
        }
    });
    Backlog(sender)
}

fn missing(err: ReadError) -> Missing {
    match err {
        ReadError::Epoch => Missing::Reset(ResetReason::Epoch),
        ReadError::Trimmed => Missing::Reset(ResetReason::Trimmed),
        ReadError::Ahead => Missing::Reset(ResetReason::Ahead),
        ReadError::Unavailable(_) => Missing::Later,
    }
}

impl Backlog {
    /// The frames just after a position, some hundreds at the most; none at the head.
    ///
    /// # Errors
    /// [`Missing`] says whether they can be had later.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn after(&self, after: Position) -> Result<Vec<Frame>, Missing> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Ask { after, reply })
            .await
            .map_err(|_| Missing::Later)?;
        answer.await.unwrap_or(Err(Missing::Later))
    }
}
