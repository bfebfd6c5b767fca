//! Whose turn it is among those whose reads may take long. Each asker waits in a line of his own, and the lines take
//! turns, a read each. Nobody waits behind what somebody else has piled up, and nobody has all places at once. A read
//! that several want stands in the lines of all of them, and is read once, when the first of them has his turn.
//!
//! Nothing stands here for who has gone: whoever asks holds a [`Standing`], and with it goes all that is his. So there
//! is no more here than is being waited for, which is bounded where it is asked for.

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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

/// Somebody who waits; when this is dropped he does not any more.
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

/// What fewer want may have to go where there is no room.
const FEW: usize = 8;

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
}

/// What all lines together have room for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Different reads that wait.
    waiting: usize,
    /// Reads that run at once.
    places: usize,
    /// Those of one asker, so that another one finds a place.
    of_one: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: HashMap<Who, Line>,
    /// Those in whose lines somebody waits, each once, in the order of their turns: by the number they had when they
    /// stood last.
    ring: BTreeMap<u64, Who>,
    wanted: HashMap<u64, Wanted>,
    ids: HashMap<Key, u64>,
    running: usize,
    /// Numbers given to reads and to those who ask for them.
    numbers: u64,
    is_closed: bool,
}

/// A read that waits for its turn, or has it and has not begun.
#[derive(Debug)]
struct Wanted {
    read: Read,
    askers: HashMap<u64, (Who, Reply)>,
    /// In whose lines it stands.
    by: HashMap<Who, Place>,
    /// Whether its turn has come: it stands nowhere any more.
    is_called: bool,
}

/// A read in a line.
#[derive(Debug)]
struct Place {
    /// In the order of the line.
    at: u64,
    /// How many wait for it there.
    askers: usize,
}

/// The reads of one asker, in his order.
#[derive(Debug, Default)]
struct Line {
    places: BTreeMap<u64, u64>,
    running: usize,
    /// Where it stands in the ring, if somebody waits.
    at: u64,
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
                if state.is_closed && state.ring.is_empty() {
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
        let state = self.lines.lock();
        let wanted = state.wanted.get(&self.id);
        wanted.is_none_or(|wanted| wanted.is_called)
    }
}

impl Turn {
    /// Those who wait for this read, which begins now. Who asks later waits for another.
    pub fn begin(&mut self) -> Vec<Reply> {
        self.lines.lock().forget(self.id)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// One more read, that nobody waits for yet.
    fn want(&mut self, read: Read) -> u64 {
        let id = self.number();
        self.ids.insert(read.key.clone(), id);
        let wanted = Wanted {
            read,
            askers: HashMap::new(),
            by: HashMap::new(),
            is_called: false,
        };
        self.wanted.insert(id, wanted);
        id
    }

    /// Somebody waits for a read, in his own line.
    fn join(&mut self, id: u64, who: Who, reply: Reply) -> u64 {
        let ask = self.number();
        let Some(wanted) = self.wanted.get_mut(&id) else {
            return ask;
        };
        wanted.askers.insert(ask, (who.clone(), reply));
        let at_end = Place { at: ask, askers: 0 };
        let place = wanted.by.entry(who.clone()).or_insert(at_end);
        place.askers += 1;
        if place.askers == 1 && !wanted.is_called {
            let line = self.lines.entry(who.clone()).or_default();
            if line.places.is_empty() {
                line.at = ask;
                self.ring.insert(ask, who);
            }
            line.places.insert(ask, id);
        }
        ask
    }

    /// The read whose turn it is, and whose it is.
    fn next(&mut self, limits: Limits) -> Option<(Who, u64, Read)> {
        if self.running >= limits.places {
            return None;
        }
        let lines = &self.lines;
        let may = |who: &Who| {
            lines
                .get(who)
                .is_some_and(|line| line.running < limits.of_one)
        };
        let at = *self.ring.iter().find(|(_, who)| may(who))?.0;
        let (who, last) = (self.ring.remove(&at)?, self.number());
        let line = self.lines.get_mut(&who)?;
        let id = *line.places.first_key_value()?.1;
        let wanted = self.wanted.get_mut(&id)?;
        wanted.is_called = true;
        let read = wanted.read.clone();
        line.running += 1;
        self.running += 1;
        // He stands last now, if he wants more.
        line.at = last;
        self.ring.insert(last, who.clone());
        self.vacate(id);
        Some((who, id, read))
    }

    /// Takes a read out of all lines.
    fn vacate(&mut self, id: u64) {
        let wanted = self.wanted.get_mut(&id);
        let by = wanted.map(|wanted| std::mem::take(&mut wanted.by));
        for (who, place) in by.into_iter().flatten() {
            self.step_out(&who, &place);
        }
    }

    /// Takes a read out of a line.
    fn step_out(&mut self, who: &Who, place: &Place) {
        let Some(line) = self.lines.get_mut(who) else {
            return;
        };
        line.places.remove(&place.at);
        if line.places.is_empty() {
            self.ring.remove(&line.at);
        }
        if line.is_over() {
            self.lines.remove(who);
        }
    }

    /// Takes away all that is known of a read; returns those who wait for it.
    fn forget(&mut self, id: u64) -> Vec<Reply> {
        let Some(wanted) = self.wanted.remove(&id) else {
            return Vec::new();
        };
        self.ids.remove(&wanted.read.key);
        let replies = wanted.askers.into_values();
        replies.map(|(_, reply)| reply).collect()
    }

    /// Somebody waits no longer.
    fn leave(&mut self, id: u64, ask: u64) {
        let Some(wanted) = self.wanted.get_mut(&id) else {
            return;
        };
        let Some((who, _reply)) = wanted.askers.remove(&ask) else {
            return;
        };
        if wanted.is_called {
            return;
        }
        if let Some(place) = wanted.by.get_mut(&who) {
            place.askers -= 1;
            if place.askers > 0 {
                return;
            }
        }
        let place = wanted.by.remove(&who);
        if wanted.askers.is_empty() {
            self.forget(id);
        }
        if let Some(place) = place {
            self.step_out(&who, &place);
        }
    }

    /// Takes away a read of which all who want it have most that wait, and in the longest such line the one that fewest
    /// want, and of these the newest; none where one of them has no more than `who` would have.
    fn push_out(&mut self, who: &Who) -> Option<Vec<Reply>> {
        let length = |who: &Who| self.lines.get(who).map_or(0, |line| line.places.len());
        let spared = length(who) + 1;
        let lines = self.lines.values().map(|line| &line.places);
        let long = lines.filter(|places| places.len() > spared);
        let mut long: BinaryHeap<_> = long
            .map(|places| (places.len(), places.last_key_value(), places))
            .collect();
        // What many want stays, and is not looked at more closely.
        let goes = |id: &u64, least: usize, wanted_by: usize| {
            let by = self.wanted.get(id).map(|wanted| &wanted.by);
            by.is_some_and(|by| {
                by.len() == wanted_by && by.keys().all(|other| length(other) >= least)
            })
        };
        let of = |places: &BTreeMap<u64, u64>| {
            let newest = || places.values().rev();
            (1..=FEW).find_map(|many| newest().find(|id| goes(id, places.len(), many)).copied())
        };
        let id = std::iter::from_fn(|| long.pop()).find_map(|(.., places)| of(places))?;
        self.vacate(id);
        Some(self.forget(id))
    }

    fn done(&mut self, who: &Who) {
        self.running -= 1;
        if let Some(line) = self.lines.get_mut(who) {
            line.running -= 1;
            if line.is_over() {
                self.lines.remove(who);
            }
        }
    }
}

impl Line {
    fn is_over(&self) -> bool {
        self.places.is_empty() && self.running == 0
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
