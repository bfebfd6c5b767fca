//! The direct queries of one socket that are being read.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{Answer, MAX_TRIES};

/// The pause before a query is read again the first time; it doubles with every time. A commit is in
/// the stream microseconds before it is visible, or, where it waits for a standby, for long.
const AGAIN_PAUSE: Duration = Duration::from_millis(4);

/// Reads under way. Nothing on the heap while there are none.
#[derive(Default)]
pub struct Reads(Option<FuturesUnordered<BoxFuture<'static, Answer>>>);

impl Reads {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, FuturesUnordered::len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// One more, which is begun when the next answer is waited for.
    pub fn push(&mut self, read: BoxFuture<'static, Answer>) {
        self.0.get_or_insert_default().push(read);
    }

    /// The answer that comes first; for ever in coming where nothing is under way.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        let Some(reads) = &mut self.0 else {
            return Poll::Pending;
        };
        let answer = ready!(reads.poll_next_unpin(context));
        if reads.is_empty() {
            self.0 = None;
        }
        answer.map_or(Poll::Pending, Poll::Ready)
    }
}

/// The pause before a read that was tried that often.
pub fn pause(tries: u8) -> Duration {
    match tries {
        0 => Duration::ZERO,
        tries => AGAIN_PAUSE * (1 << (tries - 1).min(MAX_TRIES)),
    }
}
