//! Page topics: after a burst of changes the default page is read once for all sockets, and
//! placed in the ring. While it is read, further changes only note that it must be read again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::now_ms,
    metrics::Metrics,
    protocol::{self, Params, Select},
    query::Queries,
    ring::Ring,
    topic::{Push, Topic, Topics},
};

/// The least time between two pages of one topic: 25 pages a second are more than anybody reads.
/// The first page of a burst does not wait.
const INTERVAL: Duration = Duration::from_millis(40);

/// The pause before a page that could not be read is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Refreshes that wait to be told to other gateways; beyond them only this one does it.
const ANNOUNCED: usize = 64;

/// Notes which pages are out of date. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pages {
    topics: Topics,
    /// Whether somebody has asked for it: then it is sent also to who has seen the same.
    stale: Arc<Mutex<BTreeMap<Arc<str>, bool>>>,
    wake: Arc<Notify>,
    /// Where other gateways are to be told, too.
    announce: Arc<OnceLock<mpsc::Sender<Arc<str>>>>,
}

impl Pages {
    /// No page is out of date yet.
    pub fn new(topics: Topics) -> Self {
        Self {
            topics,
            stale: Arc::default(),
            wake: Arc::default(),
            announce: Arc::default(),
        }
    }

    /// Refreshes asked of this gateway from now on, for whoever tells all gateways of them, this
    /// one included. The first caller gets them.
    pub fn announced(&self) -> mpsc::Receiver<Arc<str>> {
        let (sender, receiver) = mpsc::channel(ANNOUNCED);
        self.announce.get_or_init(|| sender);
        receiver
    }

    /// Has the topic's page read and pushed soon by every gateway; returns whether it is a page
    /// topic.
    pub fn refresh(&self, topic: &str) -> bool {
        let Some(topic) = self.page_topic(topic) else {
            return false;
        };
        let announced = self.announce.get();
        let told = announced.is_some_and(|to| to.try_send(topic.name.clone()).is_ok());
        told || self.refresh_here(&topic.name)
    }

    /// Has the topic's page read and pushed soon by this gateway, also to sockets that have seen
    /// the same page; returns whether it is a page topic.
    pub fn refresh_here(&self, topic: &str) -> bool {
        self.note(topic, true)
    }

    /// Has the topic's page read and pushed soon; returns whether it is a page topic.
    pub fn touch(&self, topic: &str) -> bool {
        self.note(topic, false)
    }

    fn note(&self, topic: &str, asked: bool) -> bool {
        let topic = self.page_topic(topic);
        if let Some(topic) = topic {
            *self.lock().entry(topic.name.clone()).or_default() |= asked;
            self.wake.notify_one();
        }
        topic.is_some()
    }

    /// Has every page read and pushed soon.
    pub fn touch_all(&self) {
        let topics = self.topics.clone();
        for topic in topics.iter() {
            self.touch(&topic.name);
        }
    }

    fn page_topic(&self, name: &str) -> Option<&Arc<Topic>> {
        let topic = self.topics.get(name);
        topic.filter(|topic| topic.push == Push::Page)
    }

    fn take(&self) -> BTreeMap<Arc<str>, bool> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, bool>> {
        self.stale.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads pages that are out of date and appends them to the ring, until `stop` is cancelled.
pub async fn run(
    pages: Pages,
    queries: Queries,
    ring: Ring,
    metrics: Metrics,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = pages.wake.notified() => {}
        }
        let mut pause = INTERVAL;
        for (name, asked) in pages.take() {
            let Some(topic) = pages.topics.get(&name) else {
                continue;
            };
            if push(topic, asked, &queries, &ring).await {
                metrics.pages_read.inc();
            } else {
                pages.note(&name, asked);
                pause = RETRY_PAUSE;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reads one page and appends it; returns whether it could be read.
async fn push(topic: &Arc<Topic>, asked: bool, queries: &Queries, ring: &Ring) -> bool {
    let select = Select::Page(Params::default());
    match queries.snapshot(topic.clone(), select).await {
        Ok(snapshot) => {
            let Some(page) = snapshot.page else {
                return true;
            };
            let (rows, now) = (snapshot.rows, now_ms());
            let horizon = snapshot.horizon.filter(|_| !asked);
            ring.append_page(topic.name.clone(), horizon, |cursor| {
                protocol::page_push(&topic.name, &rows, &page, cursor, now)
            });
            true
        }
        Err(failure) => {
            // Whatever is away is told once, as a part that is down.
            tracing::debug!(topic = %topic.name, error = failure.code.slug(), "a page cannot be read");
            false
        }
    }
}
