//! Answers to marks, from the bus to the reads that wait for them.

use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::{bus::Bus, query::Marks};

/// Passes answers on until `stop` is cancelled.
pub async fn run(bus: impl Bus, marks: Marks, stop: CancellationToken) {
    let mut answers = bus.marks();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            answer = answers.next() => match answer {
                Some((mark, position)) => marks.answered(&mark, position),
                None => return,
            },
        }
    }
}
