//! Direct queries. Loops take them from sockets and HTTP and run them on the store, a bounded number
//! at a time; each gets exactly one answer.
//!
//! What an index answers does not wait behind what may take seconds: all but one of the store's
//! connections are for everybody, and the last one is kept for rows by their key and for quick first pages.
//! And nobody waits behind all that somebody else has asked for: what may take long is read in turns.

mod descriptions;
mod first_pages;
mod marks;
mod requests;
mod shared;
mod turns;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};

use descriptions::Descriptions;
use first_pages::FirstPages;
use marks::SETTLE_SLOW;
pub use marks::{Marks, SETTLE};
use requests::Requests;
use shared::{Key, Shared};
use turns::{Closed, Lines, Standing, Turn, Turns, Who};

use crate::{
    callers::Asker,
    horizon::Horizon,
    metrics::{Health, Metrics, Part},
    protocol::{ErrorCode, Failure, Params, Select},
    store::{Snapshot, Store, StoreError},
    topic::{Base, Table, Topic},
};

/// Queries that run at once. The store bounds its own connections; this bounds the tasks.
const RUNNING: usize = 64;

/// What a refused client is told to wait.
const RETRY_AFTER_MS: u32 = 250;

/// How much longer than the store's own timeout an answer is waited for.
const SLACK: Duration = Duration::from_millis(500);

/// How long who has not asked for a page waits for the gateway's turn to read it.
const PATIENCE: Duration = Duration::from_millis(500);

/// How much may be asked.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    /// The store's own timeout.
    pub timeout: Duration,
    /// Reads of all who ask that wait for their turn; the next is refused with 429.
    pub waiting: usize,
    /// Queries without a socket under way at once, and as many for rows by their key; the next is refused with 429.
    pub requests: usize,
    /// Reads that the store runs at once.
    pub connections: usize,
}

/// Asks direct queries. Cloning shares the loop.
#[derive(Debug, Clone)]
pub struct Queries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    short: mpsc::Sender<Ask>,
    long: Lines,
    shared: Shared,
    descriptions: Descriptions,
    first_pages: FirstPages,
    marks: Marks,
    timeout: Duration,
    requests: Requests,
    metrics: Metrics,
}

/// One read; whoever waits for it is told by way of [`Shared`], or of the [`Lines`].
#[derive(Debug, Clone)]
struct Read {
    key: Key,
    topic: Arc<Topic>,
}

enum Ask {
    Read(Read),
    Describe(Arc<Topic>, oneshot::Sender<Result<Table, StoreError>>),
}

/// The receiving end, for [`run`].
#[derive(Debug)]
pub struct Inbox {
    short: mpsc::Receiver<Ask>,
    long: Turns,
    shared: Shared,
    first_pages: FirstPages,
    marks: Marks,
}

/// A handle to ask with, and the inbox for the loop.
pub fn channel(limits: QueryLimits, metrics: Metrics) -> (Queries, Inbox) {
    let (short, short_asks) = mpsc::channel(limits.waiting);
    let places = limits.connections.saturating_sub(1).max(1);
    let (long, turns) = turns::lines(limits.waiting, places);
    let (shared, marks) = (Shared::default(), Marks::default());
    let first_pages = FirstPages::default();
    let queries = Queries(Arc::new(Inner {
        short,
        long,
        shared: shared.clone(),
        descriptions: Descriptions::default(),
        first_pages: first_pages.clone(),
        marks: marks.clone(),
        timeout: limits.timeout + SETTLE_SLOW + SLACK,
        requests: Requests::new(limits.requests),
        metrics,
    }));
    (
        queries,
        Inbox {
            short: short_asks,
            long: turns,
            shared,
            first_pages,
            marks,
        },
    )
}

/// Answers queries until every [`Queries`] is dropped.
pub async fn run(store: impl Store, inbox: Inbox, health: Health, metrics: Metrics) {
    let marking = (inbox.marks.clone(), store.clone());
    let marking = tokio::spawn(async move { marking.0.serve(marking.1).await });
    let reader = Arc::new(Reader {
        shared: inbox.shared,
        first_pages: inbox.first_pages,
        marks: inbox.marks,
        store,
        health,
        metrics,
    });
    tokio::join!(
        serve(&reader, inbox.short),
        serve_in_turns(&reader, inbox.long),
    );
    marking.abort();
}

/// Reads what is asked for as it comes.
async fn serve(reader: &Arc<Reader<impl Store>>, mut asks: mpsc::Receiver<Ask>) {
    let running = Arc::new(Semaphore::new(RUNNING));
    while let Some(ask) = asks.recv().await {
        let Ok(permit) = running.clone().acquire_owned().await else {
            break;
        };
        let reader = reader.clone();
        tokio::spawn(async move {
            let _permit = permit;
            match ask {
                Ask::Read(read) => reader.read_on(&read).await,
                Ask::Describe(topic, reply) => {
                    let found = reader.store.describe(topic).await;
                    tell(&reader.health, found.as_ref().err());
                    // An asker that has gone needs no answer.
                    let _ = reply.send(found);
                }
            }
        });
    }
}

/// Reads what may take long, whoever's turn it is.
async fn serve_in_turns(reader: &Arc<Reader<impl Store>>, mut turns: Turns) {
    while let Some(turn) = turns.next().await {
        let reader = reader.clone();
        tokio::spawn(async move { reader.read_once(turn).await });
    }
}

/// Whether a read is the first page of a topic as it is when nothing more is asked for.
fn is_first_page(select: &Select) -> bool {
    matches!(select, Select::Page(params) if *params == Params::default())
}

/// Whether a read is a row of a table by its key, which an index leads to.
fn is_row(topic: &Topic, select: &Select) -> bool {
    let base = topic.view.as_ref().map(|view| &view.base);
    matches!((base, select), (Some(Base::Table(_)), Select::Id(_)))
}

/// What a read is done with.
struct Reader<S> {
    store: S,
    shared: Shared,
    first_pages: FirstPages,
    marks: Marks,
    health: Health,
    metrics: Metrics,
}

impl<S: Store> Reader<S> {
    /// Reads as long as somebody waits for this read.
    async fn read_on(&self, read: &Read) {
        loop {
            // All who are about to ask for the same join first: on a busy machine that is one read for
            // many, and on an idle one it takes no time.
            tokio::task::yield_now().await;
            let Some(askers) = self.shared.begin(&read.key) else {
                return;
            };
            self.read(read, askers).await;
        }
    }

    /// Reads for those who wait now, if anybody still does.
    async fn read_once(&self, mut turn: Turn) {
        tokio::task::yield_now().await;
        let askers = turn.begin();
        if !askers.is_empty() {
            self.read(&turn.read, askers).await;
        }
    }

    async fn read(&self, Read { key, topic }: &Read, askers: Vec<shared::Reply>) {
        let found = self
            .store
            .snapshot(topic.clone(), key.select().clone())
            .await;
        self.metrics.query(outcome(&found));
        if is_first_page(key.select()) {
            match &found {
                Ok(snapshot) => self.first_pages.took(&topic.name, Some(snapshot.took)),
                Err(StoreError::Timeout) => self.first_pages.took(&topic.name, None),
                Err(_) => {}
            }
        }
        tell(&self.health, found.as_ref().err());
        match found {
            Ok(mut snapshot)
                if key.placed() && matches!(snapshot.horizon, Some(Horizon::Visible(_))) =>
            {
                let marks = self.marks.clone();
                // The next read need not wait for this one's mark.
                tokio::spawn(async move {
                    snapshot.settled = marks.settled().await;
                    answer(askers, Ok(snapshot));
                });
            }
            found => answer(askers, found.map_err(Failure::from)),
        }
    }
}

/// Tells all who wait for a read.
fn answer(askers: Vec<shared::Reply>, found: Result<Snapshot, Failure>) {
    let found = found.map(Arc::new);
    for asker in askers {
        // One that has gone needs no answer.
        let _ = asker.send(found.clone());
    }
}

fn outcome<T>(found: &Result<T, StoreError>) -> &'static str {
    match found {
        Ok(_) => "ok",
        Err(StoreError::BadParam(_)) => ErrorCode::BadParam.slug(),
        Err(StoreError::Timeout) => ErrorCode::QueryTimeout.slug(),
        Err(StoreError::Gone(_) | StoreError::Unavailable(_)) => ErrorCode::DbUnavailable.slug(),
    }
}

fn tell(health: &Health, failure: Option<&StoreError>) {
    match failure {
        Some(StoreError::Unavailable(err)) => health.down(Part::Store, err),
        Some(StoreError::Timeout) => {}
        // Told by the source already; other topics are served.
        Some(StoreError::Gone(reason)) => tracing::debug!(reason, "a topic cannot be served"),
        Some(StoreError::BadParam(_)) | None => health.up(Part::Store),
    }
}

impl Queries {
    /// Runs one read, or shares one that has not begun yet, and waits for its rows and for how far
    /// the stream must come to hold what it saw. What may take long ([`Self::is_long`]) is read when it is the asker's
    /// turn; all of whom it is not known who they are have one together.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe: the answer is thrown away.
    pub async fn snapshot(
        &self,
        asker: Option<Asker>,
        topic: Arc<Topic>,
        select: Select,
    ) -> Result<Arc<Snapshot>, Failure> {
        let key = Key::of(&topic, select, true);
        let who = asker.map_or(Who::Nobody, Who::Asker);
        self.ask(who, Read { key, topic }, Some(self.0.timeout))
            .await
    }

    /// As [`Self::snapshot`], the first page of a topic of which everybody sees the same, for somebody who has
    /// not asked for it: in the gateway's line, and it is given up early where that does not come.
    ///
    /// # Errors
    /// The [`Failure`] why it is not read.
    ///
    /// # Cancel safety
    /// Cancel safe: the answer is thrown away.
    pub async fn fresh_page(&self, topic: Arc<Topic>) -> Result<Arc<Snapshot>, Failure> {
        let key = Key::of(&topic, Select::Page(Params::default()), true);
        self.ask(Who::Gateway, Read { key, topic }, Some(PATIENCE))
            .await
    }

    /// As [`Self::snapshot`], of the gateway's own accord, which need not know the place in the stream, and waits for
    /// its turn however long that takes.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe: the answer is thrown away.
    pub async fn unplaced(
        &self,
        topic: Arc<Topic>,
        select: Select,
    ) -> Result<Arc<Snapshot>, Failure> {
        let key = Key::of(&topic, select, false);
        self.ask(Who::Gateway, Read { key, topic }, None).await
    }

    /// Has it read; where it waits for a turn, for so long.
    async fn ask(
        &self,
        who: Who,
        read: Read,
        patience: Option<Duration>,
    ) -> Result<Arc<Snapshot>, Failure> {
        let (reply, answer) = oneshot::channel();
        let shared = &self.0.shared;
        if self.is_long(&read.topic, read.key.select()) {
            let standing = self.line_up(who, read, reply);
            return self.told(answer, standing, patience).await;
        }
        if shared.join(&read.key, reply) {
            let key = read.key.clone();
            if let Err(failure) = self.send(Ask::Read(read)) {
                shared.refuse(&key, &failure);
            }
        }
        self.answer(answer).await?
    }

    /// Whether a read may take long: nothing is known of what scans a table, or sorts it, or is the operator's own
    /// query, nor of a first page before one was read.
    fn is_long(&self, topic: &Topic, select: &Select) -> bool {
        let is_quick = || self.0.first_pages.are_quick(&topic.name);
        !(is_row(topic, select) || is_first_page(select) && is_quick())
    }

    /// Waits for a read: for its turn, and from then on as for every other. So what is read is also answered, however
    /// long the lines are.
    async fn told(
        &self,
        mut answer: oneshot::Receiver<Result<Arc<Snapshot>, Failure>>,
        standing: Option<Standing>,
        patience: Option<Duration>,
    ) -> Result<Arc<Snapshot>, Failure> {
        let turn = async {
            match patience {
                Some(patience) => tokio::time::timeout(patience, &mut answer).await.ok(),
                None => Some((&mut answer).await),
            }
        };
        match (turn.await, standing) {
            (Some(answered), _) => answered.map_err(|_| ErrorCode::Internal)?,
            (None, Some(standing)) if !standing.is_called() => {
                standing.give_up();
                Err(ErrorCode::QueryTimeout.into())
            }
            (None, _standing) => self.answer(answer).await?,
        }
    }

    fn line_up(&self, who: Who, read: Read, reply: shared::Reply) -> Option<Standing> {
        let asked = match self.0.long.ask(who, read, reply) {
            Ok(asked) => asked,
            Err(Closed(reply)) => {
                answer(vec![reply], Err(ErrorCode::DbUnavailable.into()));
                return None;
            }
        };
        for reply in asked.refused {
            answer(vec![reply], Err(self.refuse("reads")));
        }
        asked.standing
    }

    /// The topic's table as it is now.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn describe(&self, topic: Arc<Topic>) -> Result<Table, Failure> {
        let (reply, answer) = oneshot::channel();
        self.send(Ask::Describe(topic, reply))?;
        self.answer(answer).await?.map_err(Failure::from)
    }

    /// Where the answers to this gateway's marks are to be told.
    pub fn marks(&self) -> &Marks {
        &self.0.marks
    }

    fn send(&self, ask: Ask) -> Result<(), Failure> {
        self.0.short.try_send(ask).map_err(|err| match err {
            mpsc::error::TrySendError::Full(_) => self.refuse("reads"),
            mpsc::error::TrySendError::Closed(_) => ErrorCode::DbUnavailable.into(),
        })
    }

    /// What is told to who asks for more than there is room for, by the limit that is counted.
    pub fn refuse(&self, limit: &str) -> Failure {
        self.0.metrics.limited(limit);
        Failure {
            retry_after_ms: Some(RETRY_AFTER_MS),
            ..ErrorCode::TooManyRequests.into()
        }
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Failure> {
        match tokio::time::timeout(self.0.timeout, answer).await {
            Ok(answered) => answered.map_err(|_| ErrorCode::Internal.into()),
            Err(_) => Err(ErrorCode::QueryTimeout.into()),
        }
    }
}

#[cfg(test)]
mod tests;
