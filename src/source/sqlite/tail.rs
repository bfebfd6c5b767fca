//! The thread that follows one SQLite file: waits until any process has committed, reads what
//! is new, puts the triggers back after a migration, and trims the changelog.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;
use tracing::warn;

use super::{
    SqliteSourceConfig,
    batch::{self, Shape},
    changelog::{self, Watched},
    displaced::Shadow,
    evidence::Evidence,
    open::{Failure, Open, data_version},
    upkeep::MARK_INTERVAL,
    watch::{Rhythm, Wake},
};
use crate::{
    clock::now_ms,
    position::Checkpoint,
    source::{SourceError, Transactions},
    sqlite,
};

/// The pause after an error, before the file is opened again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The thread's state.
pub struct Tail {
    pub(super) config: SqliteSourceConfig,
    pub(super) watched: Vec<Watched>,
    pub(super) confirmed: Arc<AtomicU64>,
    /// How far the changelog has been read, and the fingerprint of that place.
    pub(super) last: Checkpoint,
    open: Option<Open>,
    /// Told when a file changes, for as long as one is open.
    wake: SyncSender<Wake>,
    /// Ids by the time they were read, oldest first: the changelog itself knows no time.
    pub(super) ages: VecDeque<(Instant, u64)>,
    pub(super) next_trim: Instant,
    /// Since when there has been something to trim, in vain.
    pub(super) untrimmed: Option<Instant>,
    /// The last entry that was noted together with a mark, or nothing written by others since.
    pub(super) marked: u64,
    pub(super) next_mark: Instant,
}

// === impl Tail ===

impl Tail {
    /// A thread's state that resumes just after `from`, or at the present.
    pub fn new(
        config: SqliteSourceConfig,
        confirmed: Arc<AtomicU64>,
        from: Option<Checkpoint>,
        wake: SyncSender<Wake>,
    ) -> Self {
        let nowhere = Checkpoint {
            source: "".into(),
            high: 0,
            low: 0,
        };
        Self {
            watched: config.watched.clone(),
            config,
            confirmed,
            last: from.unwrap_or(nowhere),
            open: None,
            wake,
            ages: VecDeque::new(),
            next_trim: Instant::now(),
            untrimmed: None,
            marked: 0,
            next_mark: Instant::now() + MARK_INTERVAL,
        }
    }

    /// Follows the file until the receiver of batches, or the sender of wakes, is dropped.
    pub fn run(
        mut self,
        wakes: &Receiver<Wake>,
        batches: &Sender<Result<Transactions, SourceError>>,
    ) {
        let mut rhythm = Rhythm::new(self.config.poll_interval);
        while !batches.is_closed() {
            let pause = match self.step() {
                Ok(Some(batch)) => match batches.blocking_send(Ok(batch)) {
                    Ok(()) => {
                        rhythm.quicken();
                        continue;
                    }
                    Err(_) => return,
                },
                Ok(None) => rhythm.pause(),
                Err(err) => {
                    self.open = None;
                    if batches
                        .blocking_send(Err(SourceError::Unavailable(err)))
                        .is_err()
                    {
                        return;
                    }
                    RETRY_PAUSE
                }
            };
            match wakes.recv_timeout(pause) {
                Ok(Wake) => rhythm.quicken(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks once; returns what is new, if anything.
    fn step(&mut self) -> Result<Option<Transactions>, Failure> {
        let (mut open, first) = match self.open.take() {
            Some(open) => (open, None),
            None => {
                let (open, first) = self.open_file()?;
                (open, Some(first))
            }
        };
        let found = match first {
            Some(batch) => Some(batch),
            None => self.look(&mut open)?,
        };
        self.open = Some(open);
        Ok(found)
    }

    fn look(&mut self, open: &mut Open) -> Result<Option<Transactions>, Failure> {
        open.check_file(&self.config)?;
        let now = Instant::now();
        // `data_version` must be asked outside of a transaction; it tells commits of others.
        let version = data_version(&open.reader)?;
        let news = version != open.data_version;
        let quiet = match news {
            true => Duration::ZERO,
            false => now.duration_since(open.last_commit),
        };
        // Before reading: what was read must not be lost to a write that fails.
        match open.altered {
            Some(since) => self.repair(open, quiet, now - since)?,
            None => {
                self.mark(open, quiet)?;
                self.trim(open, quiet)?;
            }
        }
        if !news {
            return Ok(None);
        }
        open.data_version = version;
        let found = self.within(open, Self::read)?;
        if !std::mem::take(&mut open.wrote) || found.is_some() {
            open.last_commit = now;
        }
        Ok(found)
    }

    /// Opens the file and finds out whether its history goes on where reading stopped.
    fn open_file(&mut self) -> Result<(Open, Transactions), Failure> {
        let mut open = Open::new(&self.config, &self.wake)?;
        // Nothing is written where nothing is amiss.
        let found = changelog::inspect(&open.reader, &self.watched)?;
        if !found.is_whole() || sqlite::source_id(&open.reader)?.is_none() {
            changelog::install(&mut open.writer, &self.watched, &BTreeSet::new())?;
        }
        let source = sqlite::source_id(&open.reader)?.unwrap_or_default();
        let present = sqlite::present(&open.reader)?.unwrap_or(0);
        let goes_on = *self.last.source == *source
            && self.last.high <= present
            && self.recognises(&mut open)?;
        if goes_on {
            changelog::mark(&open.writer)?;
        } else {
            self.begin(&mut open, &source)?;
        }
        open.data_version = data_version(&open.reader)?;
        self.within(&mut open, |tail, open| tail.read_shapes(open))?;
        // Who resumes must know of another definition since.
        let redefined = self.redefined(&open)?;
        open.reload.extend(redefined);
        // The schema may have changed since it was inspected.
        open.altered.get_or_insert_with(Instant::now);
        // Last of all: what is read counts as read, and must not be lost to a step that fails.
        let first = self.within(&mut open, |tail, open| {
            tail.read_shapes(open)?;
            tail.read_entries(open)
        })?;
        self.marked = self.last.high;
        Ok((open, first))
    }

    /// The tables that are, or whose topics are, not as they were when last stored.
    fn redefined(&self, open: &Open) -> Result<Vec<String>, Failure> {
        let stored = changelog::definitions(&open.reader)?;
        let mut redefined = Vec::new();
        for (watched, shape) in self.watched.iter().zip(&open.shapes) {
            let now = definition(watched, shape.as_ref());
            match stored.get(&watched.table) {
                Some(before) if *before == now => {}
                Some(_) => redefined.push(watched.table.clone()),
                // Never served before, so nobody has a cursor.
                None => changelog::define(&open.writer, &watched.table, &now)?,
            }
        }
        Ok(redefined)
    }

    /// Stores what tables and topics look like now.
    pub(super) fn define(&self, open: &Open) -> Result<(), Failure> {
        for (watched, shape) in self.watched.iter().zip(&open.shapes) {
            let now = definition(watched, shape.as_ref());
            changelog::define(&open.writer, &watched.table, &now)?;
        }
        Ok(())
    }

    /// Whether the file holds at the last checkpoint what it held when that was read.
    fn recognises(&mut self, open: &mut Open) -> Result<bool, Failure> {
        let found = self.within(open, |tail, open| {
            tail.read_shapes(open)?;
            tail.evidence(open, tail.last.high)
        })?;
        // What comes after is described anew.
        open.schema_version = -1;
        let before = Evidence::unpack(self.last.low);
        Ok(found.is_some_and(|found| found.agrees_with(before)))
    }

    fn evidence(&self, open: &Open, id: u64) -> Result<Option<Evidence>, Failure> {
        Ok(Evidence::of(&open.reader, &self.watched, &open.shapes, id)?)
    }

    /// Begins at the present: under the file's own history if it has never been followed, else
    /// under a new one.
    fn begin(&mut self, open: &mut Open, source: &str) -> Result<(), Failure> {
        if *self.last.source == *source {
            warn!("the database has gone back to an earlier state: a new history begins");
            changelog::begin_history(&mut open.writer)?;
        } else {
            changelog::mark(&open.writer)?;
        }
        let high = sqlite::present(&open.reader)?.unwrap_or(0);
        let low = self.evidence(open, high)?.map_or(0, Evidence::pack);
        let source = sqlite::source_id(&open.reader)?.unwrap_or_default();
        self.last = Checkpoint {
            source: source.into(),
            high,
            low,
        };
        self.ages.clear();
        self.confirmed.store(0, Ordering::Release);
        Ok(())
    }

    /// Reads in one read transaction. What fails was not read: it is read again.
    fn within<T>(
        &mut self,
        open: &mut Open,
        read: impl FnOnce(&mut Self, &mut Open) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let before = self.last.clone();
        open.reader.execute_batch("BEGIN")?;
        let found = read(self, open);
        let ended = open.reader.execute_batch("COMMIT");
        let found = found.and_then(|found| ended.map(|()| found).map_err(Failure::from));
        if found.is_err() {
            self.last = before;
        }
        found
    }

    /// Reads what is new.
    fn read(&mut self, open: &mut Open) -> Result<Option<Transactions>, Failure> {
        let schema: i64 = open
            .reader
            .query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        if schema != open.schema_version {
            self.read_shapes(open)?;
        }
        let present = sqlite::present(&open.reader)?.ok_or("the changelog was removed")?;
        let entries = changelog::fingerprint(&open.reader, self.last.high)?;
        if present < self.last.high || entries != Some(Evidence::unpack(self.last.low).entries) {
            return Err("the database has gone back to an earlier state".into());
        }
        if present == self.last.high {
            let shadows = open.shadows.iter_mut().flatten();
            shadows.for_each(|shadow| shadow.fresh = false);
            return Ok(None);
        }
        self.read_entries(open).map(Some)
    }

    fn read_entries(&mut self, open: &mut Open) -> Result<Transactions, Failure> {
        let head = sqlite::present(&open.reader)?.unwrap_or(0);
        let span = (self.last.high, head);
        let source = self.last.source.clone();
        let mut changes = batch::read(
            &open.reader,
            &self.watched,
            &open.shapes,
            &source,
            span,
            now_ms(),
        )?;
        for shadow in open.shadows.iter_mut().flatten() {
            let touched = shadow.displaced(&open.reader, &mut changes)?;
            if std::mem::take(&mut shadow.fresh) && touched {
                // Rows displaced before the shadow was built left no trace: say so instead.
                open.altered.get_or_insert_with(Instant::now);
                open.reload.insert(shadow.table.clone());
            }
        }
        if changes.len() > 1 {
            let tx: Arc<str> = format!("{source}.{head:x}").into();
            changes
                .iter_mut()
                .for_each(|change| change.tx = Some(tx.clone()));
        }
        self.last.high = head;
        self.last.low = self.evidence(open, head)?.map_or(0, Evidence::pack);
        Ok(Transactions {
            marks: Vec::new(),
            more: false,
            changes,
            checkpoint: self.last.clone(),
        })
    }

    /// Describes the watched tables anew, inside the read transaction. Where a table is another
    /// one than before, its topics get a reload.
    fn read_shapes(&self, open: &mut Open) -> Result<(), Failure> {
        let first = open.schema_version < 0;
        open.schema_version = open
            .reader
            .query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        let before = std::mem::take(&mut open.shapes).into_iter();
        let shadows = std::mem::take(&mut open.shadows).into_iter();
        let mut before = before.map(|shape| shape.map(|shape| shape.table().clone()));
        let mut shadows =
            shadows.map(|shadow| shadow.filter(|shadow| !open.unfollowed.contains(&shadow.table)));
        for (number, watched) in self.watched.iter().enumerate() {
            let table = sqlite::introspect(&open.reader, &watched.table)?.filter(|table| {
                watched
                    .identity
                    .iter()
                    .all(|name| table.column(name).is_some())
            });
            let same = before.next().flatten().as_deref() == table.as_ref();
            let shadow = shadows.next().flatten();
            let shadow = match table.as_ref().is_some_and(|table| table.displaces) {
                // A shadow that goes on knows the rows that were displaced just now.
                true if same && shadow.is_some() => shadow,
                true => Some(Shadow::build(&open.reader, number, watched)?),
                false => None,
            };
            if !first && !same {
                open.reload.insert(watched.table.clone());
            }
            open.shapes
                .push(table.map(|table| Shape::new(table, watched)));
            open.shadows.push(shadow);
        }
        open.unfollowed.clear();
        if !first {
            open.altered.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

/// A short text that is another one when the table or its topics are.
fn definition(watched: &Watched, shape: Option<&Shape>) -> String {
    let table = shape.map(Shape::table);
    let text = format!("{} {table:?}", watched.definition);
    format!("{:08x}", changelog::hash(text.as_bytes()))
}
