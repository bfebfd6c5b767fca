//! Judges the logs of clients: against the stream that all of them saw, and against the truth.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt,
};

use super::{
    client::{Entry, Log},
    frame::{Event, Frame, Place, Reply},
    rows::{Answer, HELD, List, Rows, Select},
    stream::{Stream, differing},
    taker::{Taker, Way},
    truth::Truth,
    turned::Turned,
};

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A change that a client should have got.
    Loss,
    /// Something at or before a client's cursor, or twice in the stream.
    Duplicate,
    /// Not in the order of commits, or of offsets.
    Reorder,
    /// A transaction that is not whole, or not in one place.
    Torn,
    /// A reply that is not what its cursor says.
    Stale,
    /// What was meant for somebody else.
    Crosstalk,
    /// A reset although everything was there.
    FalseReset,
    /// Two frames under one cursor.
    Divergence,
    /// An answer, or the end, that never came; a view that is not the table.
    Silence,
    /// What was never committed.
    Phantom,
}

/// What is said of a run.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Every violation, with what it is.
    pub violations: Vec<(Class, String)>,
    /// Replies judged.
    pub replies: u64,
    /// Those that said that they are not exact, by the milliseconds since the run began.
    pub inexact: Vec<u64>,
    /// Answers that were errors.
    pub errors: BTreeMap<String, u64>,
    /// Sockets opened with a cursor.
    pub resumes: u64,
}

/// What is to be held against the truth at its place.
struct Claim<'a> {
    client: usize,
    topic: &'static str,
    at: &'a Place,
    what: What<'a>,
}

enum What<'a> {
    /// A reply to a query.
    Reply(&'a Select, &'a Reply),
    /// What a client holds that was told that nothing is missing.
    View(&'a Taker, Rows),
}

impl Verdict {
    /// Notes a violation.
    pub fn add(&mut self, class: Class, what: String) {
        self.violations.push((class, what));
    }

    /// How often each kind of violation was found.
    pub fn classes(&self) -> BTreeMap<Class, usize> {
        let mut found = BTreeMap::new();
        for (class, _) in &self.violations {
            *found.entry(*class).or_insert(0) += 1;
        }
        found
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = BTreeMap::new();
        for (class, what) in &self.violations {
            let told = told.entry(*class).or_insert(0);
            *told += 1;
            if *told <= 8 {
                writeln!(
                    f,
                    "{class:?}: {}",
                    what.chars().take(2500).collect::<String>()
                )?;
            }
        }
        writeln!(f, "{:?}", self.classes())
    }
}

/// An event that was left out.
#[derive(Debug)]
struct Owed {
    offset: u64,
    /// The socket that left it out is gone. What took its place may stand anywhere behind the
    /// cursor then, also behind a reply on the next socket.
    carried: bool,
}

/// In the place of a key: all rows.
const ALL: i64 = i64::MIN;

/// Judges a run.
///
/// `single`: a group of events is one transaction, as in PostgreSQL. `lost`: the bus was lost
/// meanwhile, so that clients had to be told to begin anew.
pub fn judge(logs: &[Log], truth: &Truth, single: bool, lost: bool) -> Verdict {
    let mut verdict = Verdict::default();
    let mut stream = Stream::of(logs, &mut verdict);
    stream.hold(truth, single, &mut verdict);
    let mut claims = Vec::new();
    let pages = Pages::of(truth);
    for (client, log) in logs.iter().enumerate() {
        let mut life = Life {
            client,
            taker: &log.taker,
            turned: Turned::of(&log.taker, &stream, truth),
            owed: HashMap::new(),
            unsure: HashSet::new(),
            stream: &stream,
            pages: &pages,
            verdict: &mut verdict,
            lost,
            single,
            at: None,
            furthest: 0,
            page: None,
            asked: BTreeMap::new(),
            views: HashMap::new(),
            offered: None,
            past: &[],
        };
        life.follow(log, &mut claims);
        life.end(truth);
    }
    replies(claims, &stream, truth, single, &mut verdict);
    verdict
}

/// The life of one client, as its log tells it.
struct Life<'a, 'l> {
    client: usize,
    taker: &'l Taker,
    /// What its filters make of events.
    turned: Turned,
    /// Rows of which it was not sent an event, because it takes the newest only: one must follow.
    owed: HashMap<(&'static str, i64), Owed>,
    /// Topics that it holds by a reply that was not exact.
    unsure: HashSet<&'static str>,
    stream: &'a Stream,
    pages: &'a Pages,
    verdict: &'a mut Verdict,
    lost: bool,
    single: bool,
    /// All up to here it has got.
    at: Option<Place>,
    /// The furthest that it has come. Who resumes from an older cursor holds a mixture until it is
    /// there again: a gateway that has not come that far itself says on the way that nothing is missing.
    furthest: u64,
    /// The first transaction after which the last page of this socket could have been read.
    page: Option<usize>,
    asked: BTreeMap<u64, (&'static str, &'l Select)>,
    /// What a naive client holds.
    views: HashMap<&'static str, Rows>,
    /// What it was answered over HTTP, and may begin anew with.
    offered: Option<(&'static str, &'l Reply)>,
    /// Its log up to where it is judged.
    past: &'l [(u64, Entry)],
}

impl<'l> Life<'_, 'l> {
    fn add(&mut self, class: Class, what: String) {
        let client = self.client;
        self.verdict.add(class, format!("client {client}: {what}"));
    }

    /// What its log says of the moments before.
    fn before(&self) -> String {
        let last = self.past.iter().rev().take(12).rev();
        let last: Vec<_> = last.map(|(ms, entry)| (ms, entry.short())).collect();
        format!("its log up to there: {last:?}")
    }

    fn follow(&mut self, log: &'l Log, claims: &mut Vec<Claim<'l>>) {
        for (index, (ms, entry)) in log.entries.iter().enumerate() {
            self.past = &log.entries[..=index];
            match entry {
                Entry::Connect(since) => {
                    self.verdict.resumes += u64::from(since.is_some());
                    self.at.clone_from(since);
                    self.asked.clear();
                    self.page = None;
                    self.owed.values_mut().for_each(|owed| owed.carried = true);
                }
                Entry::Asked(rid, topic, select) => drop(self.asked.insert(*rid, (topic, select))),
                Entry::Got(frame) => self.take(*ms, frame, claims),
                Entry::Http(topic, select, frame) => {
                    self.over_http(*ms, topic, select, frame, claims)
                }
                Entry::Begins => {
                    self.furthest = 0;
                    self.views.clear();
                    self.owed.clear();
                    if let Some((topic, reply)) = self.offered.take() {
                        let rows = reply.answer.rows.iter().copied().collect();
                        self.views.insert(topic, rows);
                        self.trusts(topic, reply);
                    }
                }
                Entry::Cut => self.asked.clear(),
                // A socket that breaks is the kill's; a code of the server's own has a reason.
                Entry::Closed(code) if (4000..5000).contains(code) => {
                    self.add(Class::Silence, format!("the socket was closed with {code}"));
                }
                Entry::Closed(_) => self.asked.clear(),
                Entry::GaveUp(what) => {
                    let what = format!("{what}; {}", self.before());
                    self.add(Class::Silence, what);
                }
            }
        }
    }

    fn take(&mut self, ms: u64, frame: &'l Frame, claims: &mut Vec<Claim<'l>>) {
        self.judge_frame(ms, frame, claims);
        if let Some(at) = frame.place() {
            self.furthest = match frame {
                Frame::Reset { .. } => 0,
                _ => self.furthest.max(at.offset),
            };
        }
    }

    fn judge_frame(&mut self, ms: u64, frame: &'l Frame, claims: &mut Vec<Claim<'l>>) {
        match frame {
            Frame::Event(event) => self.event(event),
            Frame::Reply(reply) if reply.rid.is_none() => {
                self.moves(&reply.at, "a page");
                let unasked = reply.topic != "page" || !reply.pushed;
                if unasked {
                    self.add(Class::Crosstalk, format!("nobody asked for {reply:?}"));
                }
                self.page(reply);
            }
            Frame::Reply(reply) => self.reply(ms, reply, claims),
            Frame::Error { rid, slug } => {
                *self.verdict.errors.entry(slug.clone()).or_insert(0) += 1;
                if rid.is_none_or(|rid| self.asked.remove(&rid).is_none()) {
                    self.add(
                        Class::Crosstalk,
                        format!("nobody asked for the error {rid:?} {slug}"),
                    );
                }
            }
            Frame::Reset { reason, at } => {
                if !self.lost {
                    self.add(
                        Class::FalseReset,
                        format!("a reset ({reason}) at {:?}", self.at),
                    );
                }
                self.at = Some(at.clone());
                self.views.clear();
                self.owed.clear();
                self.page = None;
            }
            Frame::Current(at) => {
                self.moves(at, "a tick");
                self.settled(at, "a tick");
                self.holds(at, claims);
            }
            Frame::Welcome => {}
            Frame::Other(text) => self.add(Class::Crosstalk, format!("nobody knows {text}")),
        }
    }

    /// Something says that all up to there was sent.
    fn moves(&mut self, to: &Place, what: &str) {
        let Some(at) = self.at.clone().filter(|at| self.same_history(at, to)) else {
            self.at = Some(to.clone());
            return;
        };
        if to.offset < at.offset {
            let text = format!("{what} at {} goes back behind {}", to.offset, at.offset);
            return self.add(Class::Stale, text);
        }
        self.missed(&at, to.offset + 1, what);
        self.at = Some(to.clone());
    }

    /// Whether two places are of one history; a client is told where another one begins.
    fn same_history(&mut self, at: &Place, to: &Place) -> bool {
        if at.epoch != to.epoch {
            let what = format!("from {at:?} to {to:?} without a word");
            self.add(Class::Loss, what);
        }
        at.epoch == to.epoch
    }

    /// Tells the events after `at` and before `end` that were never sent.
    fn missed(&mut self, at: &Place, end: u64, before: &str) {
        let Some(events) = self.stream.events(&at.epoch) else {
            return;
        };
        if end <= at.offset + 1 {
            return;
        }
        let mut missed = Vec::new();
        for (offset, event) in events.range(at.offset + 1..end) {
            let owed = || Owed {
                offset: *offset,
                carried: false,
            };
            let needed = self.taker.takes(event.topic) && self.turned.is_needed(event);
            match self.taker.way {
                _ if !needed => {}
                // Nothing ever follows a row of `log`: each of them must be sent.
                Way::Latest if event.keys().next().is_some() => {
                    let keys = event.keys().map(|key| ((event.topic, key), owed()));
                    self.owed.extend(keys);
                }
                Way::Latest if event.truncates || event.reloads => {
                    self.owed.insert((event.topic, ALL), owed());
                }
                _ => missed.push(*offset),
            }
        }
        if !missed.is_empty() {
            missed.truncate(5);
            let what = format!(
                "the events {missed:?} … were not sent before {before} at {end}; {}",
                self.before()
            );
            self.add(Class::Loss, what);
        }
    }

    /// Where something says that all up to there is told, nothing is owed that stands before it.
    fn settled(&mut self, at: &Place, what: &str) {
        let settled = |owed: &Owed| !owed.carried && owed.offset <= at.offset;
        let owed = self.owed.extract_if(|_, owed| settled(owed));
        let owed: Vec<_> = owed.collect();
        if !owed.is_empty() {
            let what = format!(
                "{owed:?} were left out, and nothing of them followed until {what} at {at:?}"
            );
            self.add(Class::Loss, what);
        }
    }

    /// What it holds now is what the stream amounts to there.
    fn holds(&mut self, at: &'l Place, claims: &mut Vec<Claim<'l>>) {
        if at.offset < self.furthest {
            return;
        }
        for (topic, rows) in &self.views {
            let mut owed = self.owed.keys();
            if !self.unsure.contains(topic) && owed.all(|(other, _)| other != topic) {
                claims.push(Claim {
                    client: self.client,
                    topic,
                    at,
                    what: What::View(self.taker, rows.clone()),
                });
            }
        }
    }

    fn event(&mut self, event: &Event) {
        if let Some(at) = self.at.clone()
            && self.same_history(&at, &event.at)
        {
            if event.at.offset <= at.offset {
                let what = format!("{event:?} came when the client was at {}", at.offset);
                return self.add(Class::Duplicate, what);
            }
            self.missed(&at, event.at.offset, "the event");
        }
        self.at = Some(event.at.clone());
        let taken = self.taker.takes(event.topic);
        if !taken
            || event
                .row
                .is_some_and(|(_, row)| !self.taker.shows(event.topic, &row))
        {
            let what = format!("it did not subscribe to {event:?}");
            self.add(Class::Crosstalk, what);
        }
        if let Some(what) = self.turned.wrong(event) {
            self.add(Class::Divergence, what);
        }
        if event.truncates || event.reloads {
            self.owed.retain(|(topic, _), _| *topic != event.topic);
        }
        for key in event.keys() {
            self.owed.remove(&(event.topic, key));
        }
        if event.reloads {
            self.views.remove(event.topic);
        }
        if let Some(rows) = self.views.get_mut(event.topic) {
            event.apply(rows);
        }
    }

    fn reply(&mut self, ms: u64, reply: &'l Reply, claims: &mut Vec<Claim<'l>>) {
        let rid = reply.rid.unwrap_or_default();
        let asked = match reply.more {
            true => self.asked.get(&rid).copied(),
            false => self.asked.remove(&rid),
        };
        let Some((topic, select)) = asked.filter(|(topic, _)| *topic == reply.topic) else {
            return self.add(Class::Crosstalk, format!("nobody asked for {reply:?}"));
        };
        self.moves(&reply.at, "a reply");
        self.settled(&reply.at, "a reply");
        if self.taker.is_view(topic, select) {
            let rows = reply.answer.rows.iter().copied().collect();
            self.views.insert(topic, rows);
            self.trusts(topic, reply);
        }
        if (topic, select) == ("page", &Select::Bare) && reply.exact {
            self.page(reply);
        }
        self.claim(ms, topic, select, reply, claims);
    }

    fn trusts(&mut self, topic: &'static str, reply: &Reply) {
        match reply.exact {
            true => self.unsure.remove(topic),
            false => self.unsure.insert(topic),
        };
    }

    fn over_http(
        &mut self,
        ms: u64,
        topic: &'static str,
        select: &'l Select,
        frame: &'l Frame,
        claims: &mut Vec<Claim<'l>>,
    ) {
        match frame {
            Frame::Reply(reply) if reply.topic == topic => {
                self.claim(ms, topic, select, reply, claims);
                self.offered = Some((topic, reply));
            }
            // A gateway that is only just up says so.
            _ => *self.verdict.errors.entry("http".to_owned()).or_insert(0) += 1,
        }
    }

    fn claim(
        &mut self,
        ms: u64,
        topic: &'static str,
        select: &'l Select,
        reply: &'l Reply,
        claims: &mut Vec<Claim<'l>>,
    ) {
        self.verdict.replies += 1;
        if !reply.exact {
            return self.verdict.inexact.push(ms);
        }
        let client = self.client;
        claims.push(Claim {
            client,
            topic,
            at: &reply.at,
            what: What::Reply(select, reply),
        });
    }

    /// A page was read in one piece, and is not older than the page before on this socket.
    fn page(&mut self, reply: &Reply) {
        let rows = &reply.answer.rows;
        match self.pages.find(rows) {
            Some((_, last)) if self.page.is_some_and(|before| before > last) => {
                let what = format!("the page at {:?} is older than the one before it", reply.at);
                self.add(Class::Stale, what);
            }
            Some((first, _)) => self.page = Some(first),
            // What a snapshot of PostgreSQL sees need not be the beginning of the commits' order.
            None if !self.single => {
                let what = format!("the page at {:?} was never so: {rows:?}", reply.at);
                self.add(Class::Stale, what);
            }
            None => {}
        }
    }

    /// In the end the client holds the tables.
    fn end(&mut self, truth: &Truth) {
        let last = truth.state(truth.order.len().checked_sub(1));
        for topic in &self.taker.holds {
            let shown = self.taker.view(topic, last.shown(topic));
            match self.views.get(topic) {
                Some(rows) if *rows == shown => {}
                Some(rows) => {
                    let differ = differing(rows, &shown);
                    self.add(
                        Class::Silence,
                        format!("in the end its rows {differ:?} of {topic} are not the table's"),
                    );
                }
                None => self.add(
                    Class::Silence,
                    format!("in the end it holds nothing of {topic}"),
                ),
            }
        }
        let left: Vec<u64> = self.asked.keys().copied().collect();
        if !left.is_empty() {
            self.add(Class::Silence, format!("{left:?} were never answered"));
        }
        if !self.owed.is_empty() {
            let what = format!("nothing ever followed what was left out: {:?}", self.owed);
            self.add(Class::Loss, what);
        }
    }
}

/// After which transactions the first page of `page` had which rows.
struct Pages(HashMap<List, (usize, usize)>);

impl Pages {
    fn of(truth: &Truth) -> Self {
        let mut pages = HashMap::new();
        for (place, tables) in truth.after.iter().enumerate() {
            let Answer { rows, .. } = Select::Bare.answer("page", &tables.t);
            pages.entry(rows).or_insert((place, place)).1 = place;
        }
        Self(pages)
    }

    /// The first and the last such transaction.
    fn find(&self, rows: &List) -> Option<(usize, usize)> {
        match rows.is_empty() {
            // Also before all of them.
            true => Some((0, usize::MAX)),
            false => self.0.get(rows).copied(),
        }
    }
}

/// Holds exact replies against the truth at their cursors.
fn replies(
    mut claims: Vec<Claim<'_>>,
    stream: &Stream,
    truth: &Truth,
    single: bool,
    verdict: &mut Verdict,
) {
    let Some((epoch, events)) = stream.epochs.first() else {
        return;
    };
    // PostgreSQL's place of a page is one among pages, not among the events of its rows. With
    // SQLite an answer may be ahead of its place, and what a client holds with it.
    claims.retain(|claim| {
        let told = match claim.what {
            What::Reply(..) => !(single && claim.topic == "page"),
            What::View(..) => single,
        };
        claim.at.epoch == *epoch && claim.at.offset <= stream.end && told
    });
    claims.sort_by_key(|claim| claim.at.offset);
    let mut folds: HashMap<&str, Rows> = HELD.map(|topic| (topic, Rows::new())).into();
    let mut next = events.iter().peekable();
    for claim in claims {
        let at = claim.at.offset;
        while let Some((_, event)) = next.next_if(|(offset, _)| **offset <= at) {
            if let Some(rows) = folds.get_mut(event.topic) {
                event.apply(rows);
                if event.reloads {
                    *rows = stream.left_by(event, truth).shown(event.topic);
                }
            }
        }
        let table = if claim.topic == "page" {
            "t"
        } else {
            claim.topic
        };
        let fold = &folds[table];
        let right = match single {
            true => claim.is_right(fold),
            false => within(stream, truth, table, at, fold).any(|rows| claim.is_right(&rows)),
        };
        if !right {
            verdict.add(Class::Stale, claim.told(fold));
        }
    }
}

impl Claim<'_> {
    fn is_right(&self, rows: &Rows) -> bool {
        match &self.what {
            What::Reply(select, reply) => select.answer(self.topic, rows) == reply.answer,
            What::View(taker, held) => taker.view(self.topic, rows.clone()) == *held,
        }
    }

    /// What is wrong where the stream amounts to `fold`.
    fn told(&self, fold: &Rows) -> String {
        let Self { client, topic, .. } = self;
        let at = self.at.offset;
        match &self.what {
            What::Reply(select, reply) => format!(
                "client {client}: the answer to {select:?} of {topic} at {at} (rid {:?}) is {:?} where the stream amounts to {:?}",
                reply.rid,
                reply.answer,
                select.answer(topic, fold)
            ),
            What::View(taker, held) => {
                let differ = differing(held, &taker.view(topic, fold.clone()));
                format!(
                    "client {client}: at {at} its rows {differ:?} of {topic} are not what the stream amounts to"
                )
            }
        }
    }
}

/// What a read may have seen that stands there in a SQLite stream: the end of the group before, or
/// anything within the group after it, as long as that group still tells every difference.
fn within<'a>(
    stream: &'a Stream,
    truth: &'a Truth,
    table: &'static str,
    at: u64,
    fold: &'a Rows,
) -> impl Iterator<Item = Rows> + 'a {
    let index = stream.groups.partition_point(|group| group.last <= at);
    let before = index.checked_sub(1).map(|index| stream.groups[index].place);
    let group = stream.groups.get(index);
    let events = group.map(|group| stream.epochs[0].1.range(at + 1..=group.last));
    let later = events.into_iter().flatten().map(|(_, event)| event);
    let later: Vec<&Event> = later.filter(|event| event.topic == table).collect();
    let all = later.iter().any(|event| event.reloads || event.truncates);
    let mut told: BTreeSet<i64> = later.into_iter().flat_map(Event::keys).collect();
    let vanished = stream.vanished.iter().filter(|gone| gone.topic == table);
    let vanished = vanished.filter(|gone| (gone.span.0..gone.span.1).contains(&at));
    told.extend(vanished.map(|gone| gone.key));
    let first = std::iter::once(truth.state(before).shown(table));
    let begin = before.map_or(0, |before| before + 1);
    let end = group.map_or(begin, |group| group.place + 1);
    let inside = (begin..end).map(move |place| truth.state(Some(place)).shown(table));
    let is_told =
        move |rows: &Rows| all || differing(rows, fold).iter().all(|key| told.contains(key));
    first.chain(inside).filter(is_told)
}
