//! Whose turn it is among those whose reads may take long. Each asker waits in a line of his own, and the lines take
//! turns, a read each. Nobody waits behind what somebody else has piled up, and nobody has all places at once. A read
//! that several want stands in the lines of all of them, and is read once, when the first of them has his turn.
//!
//! Nobody stands here who has gone: whoever asks holds a [`Standing`], and with it goes all that is his but the number of
//! his turn, which a bounded number of those who have gone keep for some seconds. So there is no more here than is
//! being waited for, which is bounded where it is asked for.

mod kept;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kept::Kept;
use state::{Limits, State};
use tokio::sync::Notify;

use super::{
    Read,
    shared::{Key, Reply},
};
use crate::callers::Asker;

/// The lines, for who asks; there is one of these, and when it is dropped, no more turns come.
#[derive(Debug)]
pub struct Lines(Arc<Inner>);

/// The lines, for who reads.
#[derive(Debug)]
pub struct Turns(Arc<Inner>);

/// Whose a line is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// The gateway itself, which reads for many.
    Gateway,
    /// Somebody.
    Asker(Asker),
    /// All of whom it cannot be said who they are.
    Nobody,
}

/// A read whose turn has come. Its place is taken until this is dropped.
#[derive(Debug)]
pub struct Turn {
    /// What to read.
    pub read: Read,
    lines: Arc<Inner>,
    id: u64,
    of: Who,
}

/// Somebody who waits; when this is dropped he does not any more, and has the same turn if he asks again soon.
#[derive(Debug)]
pub struct Standing {
    lines: Arc<Inner>,
    id: u64,
    ask: u64,
}

/// What comes of asking.
#[derive(Debug)]
pub struct Asked {
    /// That he waits; none where he is refused.
    pub standing: Option<Standing>,
    /// Those who must be refused, as there is no room for all.
    pub refused: Vec<Reply>,
}

/// Nobody reads any longer, and this is who asked.
#[derive(Debug)]
pub struct Closed(pub Reply);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
}

/// Lines with room for so many reads that wait, of which so many run at once.
pub fn lines(waiting: usize, places: usize) -> (Lines, Turns) {
    let inner = Arc::new(Inner {
        limits: Limits {
            waiting,
            places,
            of_one: places.div_ceil(2),
        },
        state: Mutex::new(State::new(waiting)),
        changed: Notify::new(),
    });
    (Lines(inner.clone()), Turns(inner))
}

impl Lines {
    /// Has somebody wait for a read, whether it waits for its turn already or not; he is told by `reply`. Where there
    /// is no room for another read, it is made by those who have most that wait, if that is more than he has.
    ///
    /// # Errors
    /// [`Closed`]
    pub fn ask(&self, who: Who, read: Read, reply: Reply) -> Result<Asked, Closed> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(Closed(reply));
        }
        let mut refused = Vec::new();
        let known = state.ids.get(&read.key).copied();
        if known.is_none() && state.ids.len() >= self.0.limits.waiting {
            match state.push_out(&who) {
                Some(replies) => refused = replies,
                None => {
                    return Ok(Asked {
                        standing: None,
                        refused: vec![reply],
                    });
                }
            }
        }
        let id = known.unwrap_or_else(|| state.want(read));
        let ask = state.join(id, who, reply);
        drop(state);
        self.0.changed.notify_one();
        let lines = self.0.clone();
        Ok(Asked {
            standing: Some(Standing { lines, id, ask }),
            refused,
        })
    }
}

impl Turns {
    /// Waits for the next turn; none once nobody can ask any more and nobody waits.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Turn> {
        loop {
            {
                let mut state = self.0.lock();
                if let Some((of, id, read)) = state.next(self.0.limits) {
                    let lines = self.0.clone();
                    return Some(Turn {
                        read,
                        lines,
                        id,
                        of,
                    });
                }
                if state.is_closed && state.is_idle() {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Standing {
    /// Whether his turn has come; it is read then, or was.
    pub fn is_called(&self) -> bool {
        self.lines.lock().is_called(self.id)
    }
}

impl Turn {
    /// Those who wait for this read, which begins now. Who asks later waits for another.
    pub fn begin(&mut self) -> Vec<Reply> {
        self.lines.lock().forget(self.id)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.lines.lock().leave(self.id, self.ask);
        self.lines.changed.notify_one();
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.close();
        // Whoever waits is told that nothing comes.
        let unanswered = std::mem::take(&mut self.0.lock().wanted);
        drop(unanswered);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.lines.lock();
        // Nobody is answered by a read that did not begin.
        let unanswered = state.forget(self.id);
        state.done(&self.of);
        drop(state);
        drop(unanswered);
        self.lines.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
