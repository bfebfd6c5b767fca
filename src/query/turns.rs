//! Whose turn it is among those whose reads may take long: each asker waits in a line of his own, and the line
//! that has had least of the database's time comes first. Nobody waits behind what somebody else has piled up, and
//! nobody has all places at once. A read that several want stands in the lines of all of them, and is read once, when
//! the first of them has his turn.
//!
//! The order is that of fair queueing by virtual time (Demers, Keshav, Shenker: "Analysis and Simulation of a Fair
//! Queueing Algorithm", SIGCOMM 1989), with what a read took as its cost, which is known when it is over.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

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

/// A read whose turn has come. Its place is taken until this is dropped, and its asker is charged with the time.
#[derive(Debug)]
pub struct Turn {
    /// What to read.
    pub read: Read,
    lines: Arc<Inner>,
    of: Who,
    since: Instant,
    has_begun: bool,
}

/// Whose a line is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// The gateway itself, which reads for many.
    Gateway,
    /// Somebody.
    Asker(Asker),
    /// One of whom it cannot be said who he is: his line is for one read.
    Nobody(u64),
}

/// Why a read gets no place in a line.
#[derive(Debug)]
pub enum NoPlace {
    /// So many wait, and nobody has many more of them than he who asks: he must be refused.
    Full(Reply),
    /// Nobody reads any longer.
    Closed(Reply),
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
    /// Reads that wait, and as many places of theirs in further lines.
    waiting: usize,
    /// Reads that run at once.
    places: usize,
    /// Those of one asker, so that another one finds a place.
    of_one: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<Who, Line>,
    wanted: HashMap<Key, Wanted>,
    /// How much of the database's time each has had who wants as much as he can get; who comes now begins with it.
    now: Duration,
    /// Places in all lines.
    standing: usize,
    running: usize,
    /// Tickets given out.
    tickets: u64,
    is_closed: bool,
}

/// A read that waits, or whose turn has come and that has not begun.
#[derive(Debug)]
struct Wanted {
    replies: Vec<Reply>,
    /// In whose lines it stands; all of whom nothing is known are one.
    by: HashSet<Who>,
    /// Whether it waits for its turn no longer: its places are void.
    is_called: Arc<AtomicBool>,
}

/// The reads of one asker.
#[derive(Debug, Default)]
struct Line {
    places: VecDeque<Place>,
    running: usize,
    /// How much of the database's time he has had, and at least as much as others had who came when he did.
    had: Duration,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    read: Read,
    is_called: Arc<AtomicBool>,
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
    /// Has a read wait for its turn, or somebody wait for one that does; he is told by `reply`. Returns those who must
    /// be refused for it, where all room is taken and one of them has piled up more than who asks now.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub fn ask(&self, who: Option<Who>, read: Read, reply: Reply) -> Result<Vec<Reply>, NoPlace> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(NoPlace::Closed(reply));
        }
        let asked = state.ask(who, read, reply, self.0.limits);
        drop(state);
        self.0.changed.notify_one();
        asked
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
                        since: Instant::now(),
                        has_begun: false,
                    });
                }
                if state.is_closed && state.standing == 0 {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Turn {
    /// Those who wait for this read, which begins now. Who asks later waits for another.
    pub fn begin(&mut self) -> Vec<Reply> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Vec::new();
        }
        let wanted = self.lines.lock().wanted.remove(&self.read.key);
        let mut replies = wanted.map_or_else(Vec::new, |wanted| wanted.replies);
        replies.retain(|reply| !reply.is_closed());
        replies
    }
}

impl State {
    fn ask(
        &mut self,
        who: Option<Who>,
        read: Read,
        reply: Reply,
        limits: Limits,
    ) -> Result<Vec<Reply>, NoPlace> {
        // All who are nobody wait where the first of them stands: none of them would come before him.
        let by = who.clone().unwrap_or(Who::Nobody(0));
        let further = self.standing.saturating_sub(self.wanted.len());
        if let Some(wanted) = self.wanted.get_mut(&read.key) {
            wanted.add(reply);
            let waits = !wanted.is_called.load(Ordering::Relaxed);
            if waits && further < limits.waiting && wanted.by.insert(by) {
                let is_called = wanted.is_called.clone();
                self.stand(who, read, is_called, limits);
            }
            return Ok(Vec::new());
        }
        let mut refused = Vec::new();
        if self.wanted.len() >= limits.waiting {
            self.forget_the_gone();
        }
        if self.wanted.len() >= limits.waiting {
            match self.push_out(&by) {
                Some(replies) => refused = replies,
                None => return Err(NoPlace::Full(reply)),
            }
        }
        let is_called = Arc::<AtomicBool>::default();
        let wanted = Wanted {
            replies: vec![reply],
            by: HashSet::from([by]),
            is_called: is_called.clone(),
        };
        self.wanted.insert(read.key.clone(), wanted);
        self.stand(who, read, is_called, limits);
        Ok(refused)
    }

    fn stand(&mut self, who: Option<Who>, read: Read, is_called: Arc<AtomicBool>, limits: Limits) {
        if self.lines.len() >= 2 * limits.waiting + limits.places {
            // What they had is forgotten of those who want nothing now.
            self.lines.retain(|_, line| !line.is_idle());
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let line = self.lines.entry(who.unwrap_or(Who::Nobody(ticket)));
        let line = line.or_default();
        if line.is_idle() {
            // Time in which he wanted nothing is not saved up.
            line.had = line.had.max(self.now);
        }
        self.standing += 1;
        line.places.push_back(Place {
            ticket,
            read,
            is_called,
        });
    }

    /// The read whose turn it is, and whose it is.
    fn next(&mut self, limits: Limits) -> Option<(Who, Read)> {
        if self.running >= limits.places {
            return None;
        }
        let mut first: Option<((Duration, u64), &Who)> = None;
        let now = self.now;
        self.lines.retain(|who, line| {
            while line.places.pop_front_if(|place| place.is_void()).is_some() {
                self.standing -= 1;
            }
            !line.is_over(who, now)
        });
        for (who, line) in &self.lines {
            let Some(place) = line.places.front() else {
                continue;
            };
            let order = (line.had, place.ticket);
            if line.running < limits.of_one && first.is_none_or(|(least, _)| order < least) {
                first = Some((order, who));
            }
        }
        let who = first?.1.clone();
        let line = self.lines.get_mut(&who)?;
        let place = line.places.pop_front()?;
        place.is_called.store(true, Ordering::Relaxed);
        line.running += 1;
        self.standing -= 1;
        self.running += 1;
        self.now = self.now.max(line.had);
        Some((who, place.read))
    }

    /// A read is over that took so long.
    fn done(&mut self, who: &Who, took: Duration) {
        let busy = self.lines.values().filter(|line| !line.is_idle()).count();
        // Each of those who want something has had that much of it more, or is owed it.
        self.now += took / u32::try_from(busy.max(1)).unwrap_or(u32::MAX);
        self.running -= 1;
        if let Some(line) = self.lines.get_mut(who) {
            line.running -= 1;
            line.had += took;
            if line.is_over(who, self.now) {
                self.lines.remove(who);
            }
        }
        if self.running == 0 && self.standing == 0 {
            // Nobody is compared with anybody.
            self.lines.clear();
            self.now = Duration::ZERO;
        }
    }

    /// Makes room where nobody waits for an answer any more.
    fn forget_the_gone(&mut self) {
        self.wanted.retain(|_, wanted| {
            wanted.replies.retain(|reply| !reply.is_closed());
            let stays = !wanted.replies.is_empty() || wanted.is_called.load(Ordering::Relaxed);
            if !stays {
                wanted.is_called.store(true, Ordering::Relaxed);
            }
            stays
        });
    }

    /// Takes away the newest read that nobody else wants of whoever has most that wait, if that is more than `who`
    /// would have.
    fn push_out(&mut self, who: &Who) -> Option<Vec<Reply>> {
        let own = self.lines.get(who).map_or(0, |line| line.places.len());
        let longest = self.lines.values().max_by_key(|line| line.places.len())?;
        if longest.places.len() <= own + 1 {
            return None;
        }
        let his_alone = |place: &&Place| {
            let wanted = self.wanted.get(&place.read.key);
            !place.is_void() && wanted.is_some_and(|wanted| wanted.by.len() == 1)
        };
        let newest = longest.places.iter().rev().find(his_alone)?;
        newest.is_called.store(true, Ordering::Relaxed);
        let key = newest.read.key.clone();
        self.wanted.remove(&key).map(|wanted| wanted.replies)
    }
}

impl Wanted {
    fn add(&mut self, reply: Reply) {
        if self.replies.len() == self.replies.capacity() {
            // Or who asks and goes, again and again, would fill the memory.
            self.replies.retain(|reply| !reply.is_closed());
        }
        self.replies.push(reply);
    }
}

impl Line {
    fn is_idle(&self) -> bool {
        self.places.is_empty() && self.running == 0
    }

    /// Whether nothing needs to be known of it any more.
    fn is_over(&self, who: &Who, now: Duration) -> bool {
        self.is_idle() && (matches!(who, Who::Nobody(_)) || self.had <= now)
    }
}

impl Place {
    fn is_void(&self) -> bool {
        self.is_called.load(Ordering::Relaxed)
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
        // Nobody waits for a read that will not be.
        drop(self.begin());
        let took = self.since.elapsed();
        self.lines.lock().done(&self.of, took);
        self.lines.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
