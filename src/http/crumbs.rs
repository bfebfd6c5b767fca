//! Who sends a request byte by byte: each piece costs a call of the system and a turn of the runtime, whatever
//! is in it, so that those of one head could take a core for longer than thousands of heads.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// Pieces that are fewer bytes than that count: of larger ones a head has few.
const SMALL: usize = 256;

/// So many small pieces of a request are read as they come: more than the network makes of one.
const AS_THEY_COME: u32 = 32;

/// The pause behind each of the others. The kernel puts together what comes meanwhile: somebody who sends
/// slowly on purpose is read 500 times until `server.head_timeout_ms` is over, and not for each byte.
pub const PAUSE: Duration = Duration::from_millis(20);

/// The small pieces since the last answer.
#[derive(Debug, Default)]
pub struct Crumbs {
    count: u32,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Crumbs {
    /// Waits until it is time to read on.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// So many bytes were read.
    pub fn came(&mut self, bytes: usize) {
        if bytes >= SMALL {
            return;
        }
        self.count = self.count.saturating_add(1);
        if self.count > AS_THEY_COME {
            self.pause = Some(Box::pin(sleep(PAUSE)));
        }
    }

    /// Something was answered: what comes next is another request, or the rest of one that is being dealt with.
    pub fn answered(&mut self) {
        self.count = 0;
    }
}
