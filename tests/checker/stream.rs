//! The stream as all clients together saw it, held against the truth: every transaction once, in
//! the order of commits, whole, and amounting to what was committed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    client::{Entry, Log},
    frame::{Event, Frame},
    judge::{Class, Verdict},
    rows::{HELD, Rows, Tables},
    taker::Way,
    truth::Truth,
};

/// Events of one history, by offset.
pub type Events = BTreeMap<u64, Event>;

/// Events that stand together: of one transaction, or with SQLite of transactions read together.
#[derive(Debug)]
pub struct Group {
    /// The offset of its last event.
    pub last: u64,
    /// Where its last transaction, or the last before it, stands in the truth.
    pub place: usize,
}

/// What all clients together saw.
#[derive(Debug, Default)]
pub struct Stream {
    /// The histories, in the order of their appearance.
    pub epochs: Vec<(Arc<str>, Events)>,
    /// The groups of the first history.
    pub groups: Vec<Group>,
    /// Up to where in the first history all events can have been seen. A history that was lost with
    /// the bus ends for each client where it was then, and what only those saw further that
    /// do not take everything has holes.
    pub end: u64,
    /// Rows that went without an event, until a `reload` told it.
    pub vanished: Vec<Vanished>,
}

/// A row that had gone without a trace in SQLite's changelog: another one displaced it while nobody
/// counted the table's rows. A `reload` tells it, a little later.
#[derive(Debug, Clone)]
pub struct Vanished {
    /// The topic that shows it.
    pub topic: &'static str,
    /// Its key.
    pub key: i64,
    /// The offsets before and behind: that of the `reload`.
    pub span: (u64, u64),
    /// What to say if no `reload` comes.
    what: String,
}

impl Stream {
    /// Puts the logs together. Two frames in one place are a violation.
    pub fn of(logs: &[Log], verdict: &mut Verdict) -> Self {
        let mut stream = Self {
            end: u64::MAX,
            ..Self::default()
        };
        for (client, log) in logs.iter().enumerate() {
            for (_, entry) in &log.entries {
                let Entry::Got(Frame::Event(event)) = entry else {
                    continue;
                };
                // A filter may turn an event into another.
                if log.taker.filters.contains_key(event.topic) {
                    continue;
                }
                let known = stream.events_mut(&event.at.epoch).entry(event.at.offset);
                let first = known.or_insert_with(|| event.clone());
                if first.hash != event.hash {
                    verdict.add(
                        Class::Divergence,
                        format!(
                            "client {client} was sent {event:?} where others were sent {first:?}"
                        ),
                    );
                }
            }
        }
        if stream.epochs.len() > 1 {
            stream.end = stream.seen_by_who_takes_all(logs);
            stream.epochs[0].1.split_off(&(stream.end + 1));
        }
        stream
    }

    /// The last offset of the first history that came to a client who takes every event.
    fn seen_by_who_takes_all(&self, logs: &[Log]) -> u64 {
        let takes_all = |log: &&Log| log.taker.filters.is_empty() && log.taker.way == Way::Socket;
        let entries = logs.iter().filter(takes_all).flat_map(|log| &log.entries);
        let offsets = entries.filter_map(|(_, entry)| match entry {
            Entry::Got(Frame::Event(event)) if event.at.epoch == self.epochs[0].0 => {
                Some(event.at.offset)
            }
            _ => None,
        });
        offsets.max().unwrap_or(0)
    }

    fn events_mut(&mut self, epoch: &Arc<str>) -> &mut Events {
        let known = self.epochs.iter().position(|(name, _)| name == epoch);
        let index = known.unwrap_or_else(|| {
            self.epochs.push((epoch.clone(), Events::new()));
            self.epochs.len() - 1
        });
        &mut self.epochs[index].1
    }

    /// The events of a history.
    pub fn events(&self, epoch: &str) -> Option<&Events> {
        let found = self.epochs.iter().find(|(name, _)| **name == *epoch);
        found.map(|(_, events)| events)
    }

    /// What the group of an event of the first history left.
    pub fn left_by(&self, event: &Event, truth: &Truth) -> Tables {
        let index = self
            .groups
            .partition_point(|group| group.last < event.at.offset);
        truth.state(self.groups.get(index).map(|group| group.place))
    }

    /// Holds the first history against the truth, as far as it goes: to the end, where it is the
    /// only one.
    ///
    /// `single`: a group is one transaction, as in PostgreSQL.
    pub fn hold(&mut self, truth: &Truth, single: bool, verdict: &mut Verdict) {
        let Some((_, events)) = self.epochs.first() else {
            return verdict.add(Class::Loss, "nobody saw anything".to_owned());
        };
        let mut walk = Walk {
            truth,
            single,
            verdict,
            place: None,
            folds: HELD.map(|topic| (topic, Rows::new())),
            numbers: Vec::new(),
            closed: HashSet::new(),
            begin: 0,
            missing: Vec::new(),
            vanished: Vec::new(),
        };
        let mut open: Vec<&Event> = Vec::new();
        let mut groups = Vec::new();
        for event in events.values() {
            let goes_on = open
                .first()
                .is_some_and(|first| first.tx.is_some() && first.tx == event.tx);
            if !goes_on {
                groups.extend(walk.close(&open));
                open.clear();
            }
            open.push(event);
        }
        // A history that was lost may end within a group: the rest of it nobody can have seen.
        match self.epochs.len() {
            1 => groups.extend(walk.close(&open)),
            _ => {
                self.end = groups.last().map_or(0, |group: &Group| group.last);
                groups.extend(walk.cut(&open));
            }
        }
        let Walk {
            numbers,
            missing,
            vanished,
            ..
        } = walk;
        for gone in missing {
            verdict.add(Class::Loss, gone.what);
        }
        self.vanished = vanished;
        count(truth, &numbers, self.epochs.len() == 1, verdict);
        self.groups = groups;
    }
}

/// Holds the numbers that were seen in `log` against those that were committed.
fn count(truth: &Truth, numbers: &[u64], whole: bool, verdict: &mut Verdict) {
    let mut seen = HashMap::new();
    for number in numbers {
        *seen.entry(*number).or_insert(0) += 1;
    }
    for (number, times) in &seen {
        match truth.place(*number) {
            None => verdict.add(Class::Phantom, format!("{number} was never committed")),
            Some(_) if *times > 1 => {
                verdict.add(
                    Class::Duplicate,
                    format!("{number} stands in the stream {times} times"),
                );
            }
            Some(_) => {}
        }
    }
    let furthest = seen.keys().filter_map(|number| truth.place(*number)).max();
    for (place, number) in truth.order.iter().enumerate() {
        let expected = whole || furthest.is_some_and(|furthest| place < furthest);
        if expected && !seen.contains_key(number) {
            verdict.add(
                Class::Loss,
                format!("{number} was committed and stands nowhere in the stream"),
            );
        }
    }
    let mut before = None;
    for number in numbers {
        let place = truth.place(*number);
        if place < before {
            verdict.add(
                Class::Reorder,
                format!("{number} stands after what was committed later"),
            );
        }
        before = before.max(place);
    }
}

/// The way along one history.
struct Walk<'a> {
    truth: &'a Truth,
    single: bool,
    verdict: &'a mut Verdict,
    /// The last transaction walked past.
    place: Option<usize>,
    folds: [(&'static str, Rows); 3],
    numbers: Vec<u64>,
    /// Marks of groups that are over.
    closed: HashSet<Arc<str>>,
    /// The last offset of the group before.
    begin: u64,
    /// Rows that must yet be told by a `reload`, and those that were.
    missing: Vec<Vanished>,
    vanished: Vec<Vanished>,
}

impl Walk<'_> {
    /// The place of a group of which only the beginning was seen; it amounts to nothing.
    fn cut(&mut self, group: &[&Event]) -> Option<Group> {
        let last = group.last()?.at.offset;
        let logged = group.iter().filter(|event| event.topic == "log");
        let numbers = logged.filter_map(|event| Some(event.row?.1.v as u64));
        let places = numbers.filter_map(|number| self.truth.place(number));
        let place = places.max().max(self.place)?;
        Some(Group { last, place })
    }

    fn close(&mut self, group: &[&Event]) -> Option<Group> {
        let last = group.last()?;
        let span = format!(
            "the events from {} to {}",
            group[0].at.offset, last.at.offset
        );
        if let Some(tx) = &last.tx
            && !self.closed.insert(tx.clone())
        {
            let what = format!("{span} belong to a group that stands apart from them, too: {tx}");
            self.verdict.add(Class::Torn, what);
        }
        let logged = group.iter().filter(|event| event.topic == "log");
        let numbers: Vec<u64> = logged
            .filter_map(|event| Some(event.row?.1.v as u64))
            .collect();
        self.numbers.extend(&numbers);
        let places: Vec<usize> = numbers
            .iter()
            .filter_map(|number| self.truth.place(*number))
            .collect();
        let reload = group.iter().all(|event| event.reloads);
        if numbers.is_empty() && !reload || self.single && numbers.len() > 1 {
            let what = format!("{span} are the group of the transactions {numbers:?}");
            self.verdict.add(Class::Torn, what);
        }
        self.images(group, &numbers, &span);
        for (topic, rows) in &mut self.folds {
            for event in group.iter().filter(|event| event.topic == *topic) {
                event.apply(rows);
            }
        }
        let place = places.iter().max().copied().max(self.place)?;
        self.reloads(group, place);
        self.amounts(place, &span);
        self.place = Some(place);
        self.begin = last.at.offset;
        Some(Group {
            last: last.at.offset,
            place,
        })
    }

    /// Clients query again what is reloaded.
    fn reloads(&mut self, group: &[&Event], place: usize) {
        for event in group.iter().filter(|event| event.reloads) {
            for (topic, rows) in &mut self.folds {
                if *topic == event.topic {
                    *rows = self.truth.state(Some(place)).shown(topic);
                }
            }
            let told = self
                .missing
                .extract_if(.., |gone| gone.topic == event.topic);
            self.vanished.extend(told.map(|mut gone| {
                gone.span.1 = event.at.offset;
                gone
            }));
        }
    }

    /// Every image was written by a transaction of its group, in this order.
    fn images(&mut self, group: &[&Event], numbers: &[u64], span: &str) {
        let mut before = 0;
        for event in group {
            let Some((_, row)) = event.row else { continue };
            if !numbers.contains(&(row.v as u64)) {
                let what = format!("{span} are of {numbers:?}, and hold {event:?}");
                self.verdict.add(Class::Torn, what);
            }
            if row.v < before {
                let what = format!("{event:?} stands after an image of {before}");
                self.verdict.add(Class::Reorder, what);
            }
            before = before.max(row.v);
        }
    }

    /// The events up to here amount to what was committed up to here.
    fn amounts(&mut self, place: usize, span: &str) {
        let state = self.truth.state(Some(place));
        for (topic, rows) in &mut self.folds {
            let shown = state.shown(topic);
            if *rows == shown {
                continue;
            }
            for key in differing(rows, &shown) {
                let what = format!(
                    "after {span} the row {key} of {topic} is {:?}; transaction {} left {:?}",
                    rows.get(&key),
                    self.truth.order[place],
                    shown.get(&key)
                );
                // What `t` was told of, `low` must be told of.
                let mut missing = self.missing.iter();
                let traceless =
                    *topic != "low" || missing.any(|gone| (gone.topic, gone.key) == ("t", key));
                match traceless && !shown.contains_key(&key) && !self.single {
                    false => self.verdict.add(Class::Loss, what),
                    true => self.missing.push(Vanished {
                        topic,
                        key,
                        span: (self.begin, u64::MAX),
                        what,
                    }),
                }
            }
            // Said once; what follows is judged for itself.
            *rows = shown;
        }
    }
}

/// The keys of rows that are not alike.
pub fn differing(a: &Rows, b: &Rows) -> Vec<i64> {
    let one = a.iter().filter(|(id, row)| b.get(id) != Some(row));
    let other = b.keys().filter(|id| !a.contains_key(id));
    one.map(|(id, _)| id).chain(other).copied().collect()
}
