//! Who stands where: the lines, and the reads that are waited for in them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{Kept, Key, Read, Reply, Who};

/// What all lines together have room for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Different reads that wait.
    pub waiting: usize,
    /// Reads that run at once.
    pub places: usize,
    /// Those of one asker, so that another one finds a place.
    pub of_one: usize,
}

/// So many of the longest lines are looked through for a read that may go: it is found in the first one, but where others
/// have seen to it that they want all that is in there, too.
const CANDIDATES: usize = 32;

/// All lines.
#[derive(Debug)]
pub struct State {
    pub(super) lines: HashMap<Who, Line>,
    /// Those in whose lines somebody waits, each once, in the order of their turns: by the number they had when they
    /// stood last.
    pub(super) ring: BTreeMap<u64, Who>,
    /// The same, by how many reads wait in their lines.
    pub(super) lengths: BTreeMap<(usize, u64), Who>,
    kept: Kept,
    pub(super) wanted: HashMap<u64, Wanted>,
    pub(super) ids: HashMap<Key, u64>,
    pub(super) running: usize,
    /// Numbers given to reads, to those who ask for them, to lines and to turns.
    numbers: u64,
    pub(super) is_closed: bool,
}

/// A read that waits for its turn, or has it and has not begun.
#[derive(Debug)]
pub struct Wanted {
    read: Read,
    pub(super) askers: HashMap<u64, (Who, Reply)>,
    /// In whose lines it stands.
    pub(super) by: HashMap<Who, Place>,
    /// Whether its turn has come: it stands nowhere any more.
    pub is_called: bool,
}

/// A read in a line.
#[derive(Debug)]
pub struct Place {
    /// In the order of the line.
    pub(super) at: u64,
    /// How many wait for it there.
    pub(super) askers: usize,
}

/// The reads of one asker, in his order.
#[derive(Debug)]
pub struct Line {
    pub(super) id: u64,
    pub(super) places: BTreeMap<u64, u64>,
    pub(super) running: usize,
    /// Where it stands in the ring, if somebody waits.
    pub(super) at: u64,
}

impl State {
    /// Nobody yet, and so many turns that are kept for who has waited in vain.
    pub fn new(kept: usize) -> Self {
        Self {
            lines: HashMap::new(),
            ring: BTreeMap::new(),
            lengths: BTreeMap::new(),
            kept: Kept::new(kept),
            wanted: HashMap::new(),
            ids: HashMap::new(),
            running: 0,
            numbers: 0,
            is_closed: false,
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Whether nobody waits for a turn.
    pub fn is_idle(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether the turn of a read has come; it is read then, or was.
    pub fn is_called(&self, id: u64) -> bool {
        self.wanted.get(&id).is_none_or(|wanted| wanted.is_called)
    }

    /// One more read, that nobody waits for yet.
    pub fn want(&mut self, read: Read) -> u64 {
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

    /// Somebody waits for a read, in his own line; by which number he does.
    pub fn join(&mut self, id: u64, who: Who, reply: Reply) -> u64 {
        let ask = self.number();
        let Some(wanted) = self.wanted.get_mut(&id) else {
            return ask;
        };
        wanted.askers.insert(ask, (who.clone(), reply));
        let at_end = Place { at: ask, askers: 0 };
        let place = wanted.by.entry(who.clone()).or_insert(at_end);
        place.askers += 1;
        if place.askers > 1 || wanted.is_called {
            return ask;
        }
        let turn = self.kept.take(&who).unwrap_or_else(|| self.number());
        self.change(&who, |line| {
            if line.places.is_empty() {
                line.at = turn;
            }
            line.places.insert(ask, id);
        });
        ask
    }

    /// The read whose turn it is, and whose it is.
    pub fn next(&mut self, limits: Limits) -> Option<(Who, u64, Read)> {
        if self.running >= limits.places {
            return None;
        }
        let lines = &self.lines;
        let may = |who: &Who| {
            let line = lines.get(who);
            line.is_some_and(|line| line.running < limits.of_one)
        };
        let who = self.ring.values().find(|who| may(who))?.clone();
        let id = *self.lines.get(&who)?.places.first_key_value()?.1;
        let wanted = self.wanted.get_mut(&id)?;
        wanted.is_called = true;
        let read = wanted.read.clone();
        self.running += 1;
        let last = self.number();
        self.change(&who, |line| {
            line.running += 1;
            line.at = last;
        });
        self.vacate(id);
        Some((who, id, read))
    }

    /// A read of somebody has ended. He stands last now, if he wants more: who has come while it ran goes first.
    pub fn done(&mut self, who: &Who) {
        self.running -= 1;
        self.kept.take(who);
        let last = self.number();
        self.change(who, |line| {
            line.running -= 1;
            line.at = last;
        });
    }

    /// Takes away all that is known of a read; returns those who wait for it.
    pub fn forget(&mut self, id: u64) -> Vec<Reply> {
        let Some(wanted) = self.wanted.remove(&id) else {
            return Vec::new();
        };
        self.ids.remove(&wanted.read.key);
        let replies = wanted.askers.into_values();
        replies.map(|(_, reply)| reply).collect()
    }

    /// Somebody waits no longer; if it was in vain, his turn is kept for him.
    pub fn leave(&mut self, id: u64, ask: u64) {
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
        if let Some(line) = self.lines.get(&who)
            && line.places.len() == 1
        {
            self.kept.keep(who.clone(), line.at);
        }
        if let Some(place) = place {
            self.step_out(&who, &place);
        }
    }

    /// Takes away a read of which all who want it have most that wait, and in the longest such line one that nobody else
    /// wants, or as few as possible, and of these the newest; none where somebody who wants it has no more than `who`
    /// would have.
    pub fn push_out(&mut self, who: &Who) -> Option<Vec<Reply>> {
        let length = |who: &Who| self.lines.get(who).map_or(0, |line| line.places.len());
        let spared = length(who) + 1;
        let longest = self
            .lengths
            .iter()
            .rev()
            .map(|((length, _), who)| (*length, who));
        let mut long = longest.take_while(|(length, _)| *length > spared);
        let id = long.by_ref().take(CANDIDATES).find_map(|(least, who)| {
            let places = &self.lines.get(who)?.places;
            let wanters = |id: &u64| self.wanted.get(id).map_or(0, |wanted| wanted.by.len());
            let goes = |id: &u64| {
                let wanted = self.wanted.get(id);
                wanted.is_some_and(|wanted| wanted.by.keys().all(|other| length(other) >= least))
            };
            let alone = places.values().rev().find(|id| wanters(id) == 1);
            let few = || {
                let goes = places.iter().filter(|(_, id)| goes(id));
                let few = goes.min_by_key(|(at, id)| (wanters(id), Reverse(*at)));
                few.map(|(_, id)| id)
            };
            alone.or_else(few).copied()
        })?;
        self.vacate(id);
        Some(self.forget(id))
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
        self.change(who, |line| {
            line.places.remove(&place.at);
        });
    }

    /// Changes a line, and where it stands with it.
    fn change(&mut self, who: &Who, change: impl FnOnce(&mut Line)) {
        self.numbers += 1;
        let id = self.numbers;
        let line = self.lines.entry(who.clone()).or_insert_with(|| Line {
            id,
            places: BTreeMap::new(),
            running: 0,
            at: id,
        });
        if !line.places.is_empty() {
            self.ring.remove(&line.at);
            self.lengths.remove(&(line.places.len(), line.id));
        }
        change(line);
        if !line.places.is_empty() {
            self.ring.insert(line.at, who.clone());
            let length = (line.places.len(), line.id);
            self.lengths.insert(length, who.clone());
        }
        if line.is_over() {
            self.lines.remove(who);
        }
    }
}

impl Line {
    pub(super) fn is_over(&self) -> bool {
        self.places.is_empty() && self.running == 0
    }
}
