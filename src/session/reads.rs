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

/// Reads under way. Nothing on the heap while there are none, and for one alone, which is the rule, no more than
/// that one.
#[derive(Default)]
pub struct Reads {
    first: Option<Read>,
    others: Option<FuturesUnordered<Read>>,
}

type Read = BoxFuture<'static, Answer>;

impl Reads {
    /// How many there are.
    pub fn len(&self) -> usize {
        let others = self.others.as_ref().map_or(0, FuturesUnordered::len);
        usize::from(self.first.is_some()) + others
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_none()
    }

    /// One more, which is begun when the next answer is waited for.
    pub fn push(&mut self, read: Read) {
        match self.first {
            None => self.first = Some(read),
            Some(_) => self.others.get_or_insert_default().push(read),
        }
    }

    /// The answer that comes first; for ever in coming where nothing is under way.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        if let Some(first) = &mut self.first
            && let Poll::Ready(answer) = first.as_mut().poll(context)
        {
            self.first = None;
            return Poll::Ready(answer);
        }
        let Some(others) = &mut self.others else {
            return Poll::Pending;
        };
        let answer = ready!(others.poll_next_unpin(context));
        if others.is_empty() {
            self.others = None;
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
