//! Whose turn it is among those whose reads may take long: each asker waits in a line of his own, and the line
//! that has had least of the database's time comes first. Nobody waits behind what somebody else has piled up, and
//! nobody has all places at once.
//!
//! The order is that of start-time fair queueing (Goyal, Vin, Cheng: "Start-Time Fair Queuing", SIGCOMM 1996),
//! with the time that a read took as its cost.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{Key, Read};
use crate::callers::Asker;

/// The lines, for who asks; there is one of these, and when it is dropped, no more turns come.
#[derive(Debug)]
pub struct Lines(Arc<Inner>);

/// The lines, for who reads.
#[derive(Debug)]
pub struct Turns(Arc<Inner>);

/// A read whose turn has come. Its place is taken until this is dropped, and its asker is charged with the time.
#[derive(Debug)]
pub struct Turn {
    /// What to read.
    pub read: Read,
    lines: Arc<Inner>,
    of: Who,
    begun: Instant,
}

/// Why a read gets no place in a line.
#[derive(Debug)]
pub enum NoPlace {
    /// So many wait, and nobody has more of them than he who asks: this read must be refused.
    Full(Read),
    /// Nobody reads any longer.
    Closed(Read),
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
}

/// What all lines together have room for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Reads that wait.
    waiting: usize,
    /// Reads that run at once.
    places: usize,
    /// Those of one asker, so that another one finds a place.
    of_one: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<Who, Line>,
    /// Where the newest read of a key waits.
    waiting: HashMap<Key, (Who, u64)>,
    /// The database's time that the line had had whose turn came last: who comes now has had no less.
    now: Duration,
    /// Reads that wait, and that run.
    queued: usize,
    running: usize,
    /// Tickets given out.
    tickets: u64,
    is_closed: bool,
}

/// Whose a line is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// The gateway, whose reads are for many: it has had no more than anybody.
    Gateway,
    /// Somebody.
    Asker(Asker),
    /// One of whom it cannot be said who he is: his line is for one read.
    Nobody(u64),
}

/// The reads of one asker.
#[derive(Debug, Default)]
struct Line {
    /// By their tickets.
    reads: VecDeque<(u64, Read)>,
    running: usize,
    /// How much of the database's time he has had, and at least as much as anybody who waited when he came.
    had: Duration,
}

/// Lines with room for so many reads that wait, of which so many run at once.
pub fn lines(waiting: usize, places: usize) -> (Lines, Turns) {
    let inner = Arc::new(Inner {
        limits: Limits {
            waiting,
            places,
            of_one: places.div_ceil(2),
        },
        state: Mutex::default(),
        changed: Notify::new(),
    });
    (Lines(inner.clone()), Turns(inner))
}

impl Lines {
    /// Has a read wait for its turn; returns one that must be refused in its place, where all room is taken and
    /// somebody has piled up more than who asks now.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub fn wait(&self, who: Option<Who>, read: Read) -> Result<Option<Read>, NoPlace> {
        let limits = self.0.limits;
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(NoPlace::Closed(read));
        }
        let who = state.known(who);
        let pushed_out = match state.queued < limits.waiting {
            true => None,
            false => match state.push_out(&who) {
                Some(other) => Some(other),
                None => return Err(NoPlace::Full(read)),
            },
        };
        if state.lines.len() >= limits.waiting + limits.places {
            // What they had is forgotten of those who want nothing now.
            state.lines.retain(|_, line| !line.is_idle());
        }
        state.put(who, read);
        drop(state);
        self.0.changed.notify_one();
        Ok(pushed_out)
    }

    /// Somebody else wants what waits: it moves to his line, if its turn comes earlier there.
    pub fn join(&self, who: Option<Who>, key: &Key) {
        let mut state = self.0.lock();
        if state.is_earlier(who.as_ref(), key) {
            let who = state.known(who);
            if let Some(read) = state.take(key) {
                state.put(who, read);
            }
            drop(state);
            self.0.changed.notify_one();
        }
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
                if let Some((of, read)) = state.next(self.0.limits) {
                    return Some(Turn {
                        read,
                        lines: self.0.clone(),
                        of,
                        begun: Instant::now(),
                    });
                }
                if state.is_closed && state.queued == 0 {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl State {
    fn known(&mut self, who: Option<Who>) -> Who {
        self.tickets += 1;
        who.unwrap_or(Who::Nobody(self.tickets))
    }

    fn put(&mut self, who: Who, read: Read) {
        self.tickets += 1;
        let ticket = self.tickets;
        self.waiting.insert(read.key.clone(), (who.clone(), ticket));
        self.queued += 1;
        let line = self.lines.entry(who).or_default();
        line.had = line.had.max(self.now);
        line.reads.push_back((ticket, read));
    }

    /// The read whose turn it is, and whose it is.
    fn next(&mut self, limits: Limits) -> Option<(Who, Read)> {
        if self.running >= limits.places {
            return None;
        }
        let ready = self.lines.iter().filter_map(|(who, line)| {
            let (ticket, _) = line.reads.front()?;
            (line.running < limits.of_one).then_some((line.had, *ticket, who))
        });
        let (.., who) = ready.min_by_key(|(had, ticket, _)| (*had, *ticket))?;
        let who = who.clone();
        let line = self.lines.get_mut(&who)?;
        let (ticket, read) = line.reads.pop_front()?;
        line.running += 1;
        self.now = self.now.max(line.had);
        self.running += 1;
        self.left(ticket, &read.key);
        Some((who, read))
    }

    /// Notes that a read waits no longer.
    fn left(&mut self, ticket: u64, key: &Key) {
        self.queued -= 1;
        if self
            .waiting
            .get(key)
            .is_some_and(|(_, newest)| *newest == ticket)
        {
            self.waiting.remove(key);
        }
    }

    /// Takes the newest read of whoever has most that wait, if that is more than `who` would have.
    fn push_out(&mut self, who: &Who) -> Option<Read> {
        let own = self.lines.get(who).map_or(0, |line| line.reads.len());
        let longest = self
            .lines
            .values_mut()
            .max_by_key(|line| line.reads.len())?;
        if longest.reads.len() <= own + 1 {
            return None;
        }
        let (ticket, read) = longest.reads.pop_back()?;
        self.left(ticket, &read.key);
        Some(read)
    }

    /// Whether a read that waits would have its turn earlier as somebody's who wants nothing else, and at no time
    /// later: for those who wait for it already it must not get worse.
    fn is_earlier(&self, who: Option<&Who>, key: &Key) -> bool {
        let Some((other, ticket)) = self.waiting.get(key) else {
            return false;
        };
        let own = who.and_then(|who| self.lines.get(who));
        let (Some(line), true) = (self.lines.get(other), own.is_none_or(Line::is_idle)) else {
            return false;
        };
        let had = own.map_or(self.now, |own| own.had.max(self.now));
        let is_first = line.reads.front().is_some_and(|(first, _)| first == ticket);
        had <= line.had && (!is_first || line.running > 0 || had < line.had)
    }

    /// Takes the newest read of a key out of its line.
    fn take(&mut self, key: &Key) -> Option<Read> {
        let (who, ticket) = self.waiting.get(key)?.clone();
        let line = self.lines.get_mut(&who)?;
        let at = line.reads.iter().position(|(at, _)| *at == ticket)?;
        let (_, read) = line.reads.remove(at)?;
        if line.is_idle() && line.had <= self.now {
            self.lines.remove(&who);
        }
        self.left(ticket, key);
        Some(read)
    }

    /// A read is over that took so long.
    fn done(&mut self, who: &Who, took: Duration) {
        self.running -= 1;
        if let Some(line) = self.lines.get_mut(who) {
            line.running -= 1;
            let counts = matches!(who, Who::Asker(_));
            if counts {
                line.had += took;
            }
            if line.is_idle() && !(counts && line.had > self.now) {
                self.lines.remove(who);
            }
        }
        if self.running == 0 && self.queued == 0 {
            // Nobody is compared with anybody.
            self.lines.clear();
            self.now = Duration::ZERO;
        }
    }
}

impl Line {
    fn is_idle(&self) -> bool {
        self.reads.is_empty() && self.running == 0
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

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.lines.lock().done(&self.of, took);
        self.lines.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
