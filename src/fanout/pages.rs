//! Page topics: after a burst of changes the default page is read once for all sockets, and
//! placed in the ring. While it is read, further changes only note that it must be read again.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
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

/// Notes which pages are out of date. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pages {
    topics: Topics,
    stale: Arc<Mutex<BTreeSet<Arc<str>>>>,
    wake: Arc<Notify>,
}

impl Pages {
    /// No page is out of date yet.
    pub fn new(topics: Topics) -> Self {
        Self {
            topics,
            stale: Arc::default(),
            wake: Arc::default(),
        }
    }

    /// Has the topic's page read and pushed soon; returns whether it is a page topic.
    pub fn touch(&self, topic: &str) -> bool {
        let topic = self
            .topics
            .get(topic)
            .filter(|topic| topic.push == Push::Page);
        if let Some(topic) = topic {
            self.lock().insert(topic.name.clone());
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

    fn take(&self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
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
        for name in pages.take() {
            let Some(topic) = pages.topics.get(&name) else {
                continue;
            };
            if push(topic, &queries, &ring).await {
                metrics.pages_read.inc();
            } else {
                pages.touch(&name);
                pause = RETRY_PAUSE;
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reads one page and appends it; returns whether it could be read.
async fn push(topic: &Arc<Topic>, queries: &Queries, ring: &Ring) -> bool {
    let select = Select::Page(Params::default());
    match queries.snapshot(topic.clone(), select).await {
        Ok(snapshot) => {
            let Some(page) = snapshot.page else {
                return true;
            };
            let (rows, now) = (snapshot.rows, now_ms());
            ring.append_page(topic.name.clone(), snapshot.horizon, |cursor| {
                protocol::page_push(&topic.name, &rows, &page, cursor, now)
            });
            true
        }
        Err(failure) => {
            tracing::warn!(topic = %topic.name, error = failure.code.slug(), "a page cannot be read");
            false
        }
    }
}
