//! Direct queries. Loops take them from sockets and HTTP and run them on the store, a bounded number
//! at a time; each gets exactly one answer.
//!
//! What an index answers does not wait behind what may take seconds: of the store's connections the last one is kept
//! for rows by their key, and the one before it for these and for first pages that are known to be quick.
//! And nobody waits behind all that somebody else has asked for: what may take long is read in turns.

mod descriptions;
mod first_pages;
mod marks;
mod reader;
mod requests;
mod shared;
mod turns;

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, mpsc, oneshot};

use descriptions::Descriptions;
use first_pages::FirstPages;
use marks::SETTLE_SLOW;
pub use marks::{Marks, SETTLE};
use reader::Reader;
use requests::Requests;
use shared::{Key, Shared};
use turns::{Closed, Lines, Standing, Turns, Who};

use crate::{
    callers::Asker,
    metrics::{Health, Metrics},
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

/// How much may be asked.
#[derive(Debug, Clone, Copy)]
pub struct QueryLimits {
    /// The store's own timeout.
    pub timeout: Duration,
    /// Reads of all who ask that wait for their turn; the next is refused with 429.
    pub waiting: usize,
    /// Queries without a socket under way at once, and as many that are quick; the next is refused with 429.
    pub requests: usize,
    /// Reads that the store runs at once.
    pub connections: usize,
}

/// Asks direct queries. Cloning shares the loop.
#[derive(Debug, Clone)]
pub struct Queries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rows: mpsc::Sender<Ask>,
    pages: mpsc::Sender<Ask>,
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

/// By which way a read comes to the store.
enum Lane {
    Rows,
    Pages,
    Turns,
}

enum Ask {
    Read(Read),
    Describe(Arc<Topic>, oneshot::Sender<Result<Table, StoreError>>),
}

/// The receiving end, for [`run`].
#[derive(Debug)]
pub struct Inbox {
    rows: mpsc::Receiver<Ask>,
    pages: mpsc::Receiver<Ask>,
    long: Turns,
    /// Connections that are not kept for rows.
    common: Arc<Semaphore>,
    shared: Shared,
    first_pages: FirstPages,
    marks: Marks,
}

/// A handle to ask with, and the inbox for the loop.
pub fn channel(limits: QueryLimits, metrics: Metrics) -> (Queries, Inbox) {
    let (rows, row_asks) = mpsc::channel(limits.waiting);
    let (pages, page_asks) = mpsc::channel(limits.waiting);
    let common = limits.connections.saturating_sub(1).max(1);
    let places = common.saturating_sub(1).max(1);
    let (long, turns) = turns::lines(limits.waiting, places);
    let (shared, marks) = (Shared::default(), Marks::default());
    let first_pages = FirstPages::default();
    let queries = Queries(Arc::new(Inner {
        rows,
        pages,
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
            rows: row_asks,
            pages: page_asks,
            long: turns,
            common: Arc::new(Semaphore::new(common)),
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
    let running = Arc::new(Semaphore::new(RUNNING));
    tokio::join!(
        reader::serve(&reader, inbox.rows, running),
        reader::serve(&reader, inbox.pages, inbox.common.clone()),
        reader::serve_in_turns(&reader, inbox.long, inbox.common),
    );
    marking.abort();
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

/// Tells all who wait for a read.
fn answer(askers: Vec<shared::Reply>, found: Result<Snapshot, Failure>) {
    let found = found.map(Arc::new);
    for asker in askers {
        // One that has gone needs no answer.
        let _ = asker.send(found.clone());
    }
}

impl Queries {
    /// Runs one read, or shares one that has not begun yet, and waits for its rows and for how far
    /// the stream must come to hold what it saw. What may take long ([`Self::lane`]) is read when it is the asker's
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

    /// Whether a topic's first page is read without waiting for a turn.
    pub fn is_at_hand(&self, topic: &Topic) -> bool {
        let page = Key::of(topic, Select::Page(Params::default()), true);
        self.0.first_pages.is_quick(&page)
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
        let asks = match self.lane(&read) {
            Lane::Turns => {
                let standing = self.line_up(who, read, reply);
                return self.told(answer, standing, patience).await;
            }
            Lane::Rows => &self.0.rows,
            Lane::Pages => &self.0.pages,
        };
        let shared = &self.0.shared;
        if shared.join(&read.key, reply) {
            let key = read.key.clone();
            if let Err(failure) = self.send(asks, Ask::Read(read)) {
                shared.refuse(&key, &failure);
            }
        }
        self.answer(answer).await?
    }

    /// What may take long has its turns: nothing is known of what scans a table, or sorts it, or is the operator's own
    /// query, nor of a first page before one was read.
    fn lane(&self, read: &Read) -> Lane {
        let select = read.key.select();
        match is_row(&read.topic, select) {
            true => Lane::Rows,
            false if is_first_page(select) && self.0.first_pages.is_quick(&read.key) => Lane::Pages,
            false => Lane::Turns,
        }
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
        match turn.await {
            Some(answered) => answered.map_err(|_| ErrorCode::Internal)?,
            None if standing.as_ref().is_some_and(Standing::is_called) => {
                self.answer(answer).await?
            }
            None => Err(ErrorCode::QueryTimeout.into()),
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
        self.send(&self.0.rows, Ask::Describe(topic, reply))?;
        self.answer(answer).await?.map_err(Failure::from)
    }

    /// Where the answers to this gateway's marks are to be told.
    pub fn marks(&self) -> &Marks {
        &self.0.marks
    }

    fn send(&self, asks: &mpsc::Sender<Ask>, ask: Ask) -> Result<(), Failure> {
        asks.try_send(ask).map_err(|err| match err {
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
