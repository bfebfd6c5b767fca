//! Page topics: after a burst of changes the default page is read once for all sockets, and
//! placed in the ring. While it is read, further changes only note that it must be read again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::now_ms,
    horizon::Horizon,
    metrics::Metrics,
    position::Position,
    protocol::{self, Encoded, ErrorCode, Params, Select},
    query::Queries,
    ring::Ring,
    store::Snapshot,
    topic::{Push, Topic, Topics},
};

/// The least time between two pages of one topic: 25 pages a second are more than anybody reads.
/// The first page of a burst does not wait.
const INTERVAL: Duration = Duration::from_millis(40);

/// The pause before a page is read again that does not show yet what has touched it.
const INVISIBLE_PAUSE: Duration = Duration::from_millis(60);

/// The pause before a page that could not be read is tried again; it grows with every time, up to so many
/// of them.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const MAX_RETRY_PAUSES: u32 = 4;

/// After so many failures the log says so.
const FAILURES_TOLD: u32 = 3;

/// Transactions of one topic whose being visible is waited for; beyond them the page is as old as
/// the newest of these makes it.
const MAX_AWAITED: usize = 1024;

/// Which pages are out of date, and what those that are not say. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pages {
    topics: Topics,
    state: Arc<Mutex<State>>,
    /// For each page topic, to be told that its page is out of date.
    wakes: Arc<HashMap<Arc<str>, Arc<Notify>>>,
    /// Where other gateways are to be told, too, whoever tells them.
    announce: Arc<OnceLock<Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct State {
    stale: BTreeMap<Arc<str>, Stale>,
    /// Those that are read now, and whether what is read will be pushed, or read again.
    reading: HashMap<Arc<str>, bool>,
    /// Pages as they were read last, for as long as nothing has touched them since.
    fresh: HashMap<Arc<str>, Fresh>,
    /// Refreshes that all gateways are to be told of, and when each may be: however often one is asked for, they
    /// are told once, and not again before [`INTERVAL`] is over.
    asked: BTreeMap<Arc<str>, Instant>,
    /// When they were told of one last.
    told: HashMap<Arc<str>, Instant>,
}

/// The refreshes that all gateways are to be told of.
#[derive(Debug)]
pub struct Announced {
    pages: Pages,
    more: Arc<Notify>,
}

/// Why a page is to be read again.
#[derive(Debug, Clone, Default)]
struct Stale {
    /// Somebody has asked for it: then it is sent also to who has seen the same.
    asked: bool,
    /// Sessions are to get it, for it may be another than before.
    push: bool,
    /// Transactions that have touched it, which the read must see: one can be in the stream before
    /// it is visible.
    awaited: BTreeSet<u64>,
}

/// A page that is not out of date, and the frame that was made of it last.
#[derive(Debug)]
struct Fresh {
    read: Arc<Snapshot>,
    frame: Option<(Position, Encoded)>,
}

impl Pages {
    /// Every page is to be read once, so that who resumes can be given it.
    pub fn new(topics: Topics) -> Self {
        let paged = topics.iter().filter(|topic| topic.push == Push::Page);
        let wakes = paged.map(|topic| (topic.name.clone(), Arc::default()));
        let pages = Self {
            wakes: Arc::new(wakes.collect()),
            topics,
            state: Arc::default(),
            announce: Arc::default(),
        };
        for topic in pages.topics.clone().iter() {
            pages.note(&topic.name, Stale::default());
        }
        pages
    }

    /// Refreshes asked of this gateway from now on, for whoever tells all gateways of them, this
    /// one included. There is one such.
    pub fn announced(&self) -> Announced {
        Announced {
            pages: self.clone(),
            more: self.announce.get_or_init(Arc::default).clone(),
        }
    }

    /// Has the topic's page read and pushed soon by every gateway; returns whether it is a page
    /// topic. What is asked for several times at once is done once.
    pub fn refresh(&self, topic: &str) -> bool {
        let Some(topic) = self.page_topic(topic) else {
            return false;
        };
        let Some(more) = self.announce.get() else {
            return self.refresh_here(&topic.name);
        };
        let mut state = self.lock();
        let earliest = state.told.get(&topic.name).map(|told| *told + INTERVAL);
        let due = earliest.unwrap_or_else(Instant::now);
        state.asked.entry(topic.name.clone()).or_insert(due);
        more.notify_one();
        true
    }

    /// Has the topic's page read and pushed soon by this gateway, also to sockets that have seen
    /// the same page; returns whether it is a page topic.
    pub fn refresh_here(&self, topic: &str) -> bool {
        let asked = Stale {
            asked: true,
            push: true,
            ..Stale::default()
        };
        self.note(topic, asked)
    }

    /// Has the topic's page read and pushed soon, as soon as the transaction that has touched it is
    /// visible; returns whether it is a page topic.
    pub fn touch(&self, topic: &str, xid: Option<u64>) -> bool {
        let touched = Stale {
            asked: false,
            push: true,
            awaited: xid.into_iter().collect(),
        };
        self.note(topic, touched)
    }

    /// The topic's page as a frame at `cursor`, and what it saw, where nothing before the ring's
    /// head has touched it since it was read.
    pub fn fresh(&self, topic: &str, cursor: &Position) -> Option<(Encoded, Option<Horizon>)> {
        let mut state = self.lock();
        let fresh = state.fresh.get_mut(topic)?;
        let made = fresh.frame.take().filter(|(place, _)| place == cursor);
        let frame = match made {
            Some((_, frame)) => frame,
            // Once for all who return to the same place.
            None => {
                let page = fresh.read.page.as_ref()?;
                protocol::page_push(topic, &fresh.read.rows, page, cursor, now_ms()).into()
            }
        };
        fresh.frame = Some((cursor.clone(), frame.clone()));
        Some((frame, fresh.read.horizon.clone()))
    }

    /// Has the topic's page pushed as soon as it was read, for somebody who has none. It is read no more often for that:
    /// false where it was read by now and nothing has touched it since, so that he can be given it
    /// ([`Self::fresh`]).
    pub fn owe(&self, topic: &str) -> bool {
        let Some(topic) = self.page_topic(topic) else {
            return true;
        };
        let mut state = self.lock();
        if state.fresh.contains_key(&topic.name) {
            return false;
        }
        let is_read = state.reading.get(&topic.name) == Some(&true);
        if !is_read || state.stale.contains_key(&topic.name) {
            state.stale.entry(topic.name.clone()).or_default().push = true;
            self.wakes[&topic.name].notify_one();
        }
        true
    }

    fn note(&self, topic: &str, why: Stale) -> bool {
        let topic = self.page_topic(topic);
        if let Some(topic) = topic {
            let mut state = self.lock();
            state.fresh.remove(&topic.name);
            state.stale.entry(topic.name.clone()).or_default().add(why);
            self.wakes[&topic.name].notify_one();
        }
        topic.is_some()
    }

    /// Has every page read and pushed soon, for another history begins: transactions of the one
    /// before may never be visible.
    pub fn touch_all(&self) {
        for stale in self.lock().stale.values_mut() {
            stale.awaited.clear();
        }
        let topics = self.topics.clone();
        for topic in topics.iter() {
            self.touch(&topic.name, None);
        }
    }

    fn page_topic(&self, name: &str) -> Option<&Arc<Topic>> {
        let topic = self.topics.get(name);
        topic.filter(|topic| topic.push == Push::Page)
    }

    fn take(&self, topic: &str) -> Option<Stale> {
        let mut state = self.lock();
        let (name, stale) = state.stale.remove_entry(topic)?;
        state.reading.insert(name, stale.push);
        Some(stale)
    }

    /// What is read has been pushed: who comes now does not get it so.
    fn pushed(&self, topic: &str) {
        if let Some(reading) = self.lock().reading.get_mut(topic) {
            *reading = false;
        }
    }

    /// Keeps a page that was read, unless it was touched meanwhile.
    fn keep(&self, topic: &Arc<str>, read: Arc<Snapshot>) {
        let mut state = self.lock();
        if !state.stale.contains_key(topic) {
            let fresh = Fresh { read, frame: None };
            state.fresh.insert(topic.clone(), fresh);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    /// Waits for the next.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&self) -> Arc<str> {
        loop {
            let due = match self.take() {
                Ok(topic) => return topic,
                Err(due) => due,
            };
            tokio::select! {
                () = self.more.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// One that is due; otherwise when the next one is, if any.
    fn take(&self) -> Result<Arc<str>, Option<Instant>> {
        let mut state = self.pages.lock();
        let first = state.asked.iter().min_by_key(|(_, due)| **due);
        let (topic, due) = first
            .map(|(topic, due)| (topic.clone(), *due))
            .ok_or(None)?;
        let now = Instant::now();
        if due > now {
            return Err(Some(due));
        }
        state.asked.remove(&topic);
        state.told.insert(topic.clone(), now);
        Ok(topic)
    }
}

impl Stale {
    fn add(&mut self, more: Stale) {
        self.asked |= more.asked;
        self.push |= more.push;
        self.awaited.extend(more.awaited);
        while self.awaited.len() > MAX_AWAITED {
            self.awaited.pop_first();
        }
    }

    /// What a read has not seen of what it should have; none where it has seen all.
    fn unseen(&self, horizon: Option<&Horizon>) -> Option<Stale> {
        let Some(Horizon::Visible(visible)) = horizon else {
            return None;
        };
        let awaited = self.awaited.iter().filter(|xid| !visible.sees(**xid));
        let awaited: BTreeSet<u64> = awaited.copied().collect();
        (!awaited.is_empty()).then_some(Stale {
            asked: false,
            push: true,
            awaited,
        })
    }
}

/// Reads pages that are out of date and appends them to the ring, until `stop` is cancelled. Each topic has
/// a read of its own: one whose query takes long, or fails, holds up no other.
pub async fn run(
    pages: Pages,
    queries: Queries,
    ring: Ring,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut readers: JoinSet<()> = pages
        .topics
        .iter()
        .filter(|topic| topic.push == Push::Page)
        .map(|topic| {
            let reader = Reader {
                topic: topic.clone(),
                wake: pages.wakes[&topic.name].clone(),
                pages: pages.clone(),
                queries: queries.clone(),
                ring: ring.clone(),
                metrics: metrics.clone(),
                failures: 0,
            };
            reader.run()
        })
        .collect();
    tokio::select! {
        () = stop.cancelled() => {}
        // None ends by itself; one that panics must not be missed in silence.
        Some(ended) = readers.join_next() => {
            if let Some(panic) = ended.err().and_then(|err| err.try_into_panic().ok()) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Who reads the page of one topic.
struct Reader {
    topic: Arc<Topic>,
    wake: Arc<Notify>,
    pages: Pages,
    queries: Queries,
    ring: Ring,
    metrics: Metrics,
    /// How often it could not be read since it could the last time.
    failures: u32,
}

impl Reader {
    async fn run(mut self) {
        loop {
            self.wake.notified().await;
            let Some(stale) = self.pages.take(&self.topic.name) else {
                continue;
            };
            let read = self.push(&stale).await;
            let pause = self.done(stale, read);
            self.pages.lock().reading.remove(&self.topic.name);
            tokio::time::sleep(pause).await;
        }
    }

    /// What follows from a read, and how long the next one waits.
    fn done(&mut self, stale: Stale, read: Result<Arc<Snapshot>, ErrorCode>) -> Duration {
        let name = &self.topic.name;
        match read {
            Ok(read) => {
                self.failures = 0;
                self.metrics.pages_read.inc();
                match stale.unseen(read.horizon.as_ref()) {
                    Some(unseen) => {
                        self.pages.note(name, unseen);
                        INVISIBLE_PAUSE
                    }
                    None => {
                        self.pages.keep(name, read);
                        INTERVAL
                    }
                }
            }
            Err(code) => {
                self.failures += 1;
                // Whatever is away is told as a part that is down.
                if self.failures == FAILURES_TOLD && code == ErrorCode::QueryTimeout {
                    tracing::warn!(topic = %name, error = code.slug(), "a page could not be read in time, several times: its sockets have an old one until it is; make its query faster, or raise database.query_timeout_ms");
                }
                self.pages.note(name, stale);
                RETRY_PAUSE * self.failures.min(MAX_RETRY_PAUSES)
            }
        }
    }

    /// Reads the page once, and appends it if that is news to anybody.
    async fn push(&self, stale: &Stale) -> Result<Arc<Snapshot>, ErrorCode> {
        let topic = &self.topic;
        let select = Select::Page(Params::default());
        let read = self.queries.unplaced(topic.clone(), select).await;
        let read = read.map_err(|failure| failure.code)?;
        // Of several transactions the page may show some, and is worth sending; of none, it is not.
        let unseen = stale.unseen(read.horizon.as_ref());
        let nothing_new = unseen.is_some_and(|unseen| unseen.awaited.len() == stale.awaited.len());
        if let Some(page) = &read.page
            && stale.push
            && (stale.asked || !nothing_new)
        {
            self.pages.pushed(&topic.name);
            let horizon = read.horizon.clone().filter(|_| !stale.asked);
            self.ring
                .append_page(topic.name.clone(), horizon, |cursor| {
                    protocol::page_push(&topic.name, &read.rows, page, cursor, now_ms())
                });
        }
        Ok(read)
    }
}
