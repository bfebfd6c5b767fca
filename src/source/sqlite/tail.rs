//! The thread that follows one SQLite file: waits until any process has committed, reads what
//! is new, puts the triggers back after a migration, and trims the changelog.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;
use tracing::{error, info, warn};

use super::{
    SqliteSourceConfig,
    batch::{self, Shape},
    changelog::{self, Watched},
    displaced::Shadow,
    open::{Failure, Open, data_version},
    watch::{Rhythm, Wake},
};
use crate::{
    clock::now_ms,
    position::Checkpoint,
    source::{SourceError, Transactions},
    sqlite,
};

/// Entries deleted in one transaction. A thousand take about a millisecond, during which no
/// other program can write.
const TRIM_STEP: u32 = 1000;

/// The pause between two such transactions: 25 times as long as they are.
const TRIM_PAUSE: Duration = Duration::from_millis(25);

/// The pause after an error, before the file is opened again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The thread's state.
pub struct Tail {
    config: SqliteSourceConfig,
    watched: Vec<Watched>,
    confirmed: Arc<AtomicU64>,
    /// How far the changelog has been read, and the fingerprint of that place.
    last: Checkpoint,
    open: Option<Open>,
    /// Told when a file changes, for as long as one is open.
    wake: SyncSender<Wake>,
    /// Ids by the time they were read, oldest first: the changelog itself knows no time.
    ages: VecDeque<(Instant, u64)>,
    next_trim: Instant,
    /// When even a few entries are deleted.
    next_full_trim: Instant,
}

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
            next_full_trim: Instant::now(),
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
        if let Some(reload) = open.altered.take() {
            self.repair(open, &reload)?;
        }
        // `data_version` must be asked outside of a transaction; it tells commits of others.
        let version = data_version(&open.reader)?;
        if version == open.data_version && open.altered.is_none() {
            self.trim(open)?;
            return Ok(None);
        }
        open.data_version = version;
        self.read(open)
    }

    /// Opens the file and finds out whether its history goes on where reading stopped.
    fn open_file(&mut self) -> Result<(Open, Transactions), Failure> {
        let mut open = Open::new(&self.config, &self.wake)?;
        changelog::install(&mut open.writer, &self.watched, &[])?;
        let source = sqlite::source_id(&open.reader)?.unwrap_or_default();
        let present = sqlite::present(&open.reader)?.unwrap_or(0);
        let goes_on = *self.last.source == *source
            && self.last.high <= present
            && changelog::fingerprint(&open.reader, self.last.high)? == Some(self.last.low);
        if goes_on {
            changelog::mark(&open.writer)?;
        } else {
            self.begin(&mut open, &source)?;
        }
        open.data_version = data_version(&open.reader)?;
        open.reader.execute_batch("BEGIN")?;
        let pending = self.last.high < present;
        let first = self
            .read_shapes(&mut open)
            .and_then(|()| self.read_entries(&mut open));
        open.reader.execute_batch("COMMIT")?;
        let first = first?;
        // Who resumes must know of another definition since; and rows displaced while nobody
        // watched left no trace, which is said instead.
        let mut reload = self.redefined(&open)?;
        if pending {
            reload.extend(self.displacing(&open));
        }
        open.altered = Some(reload);
        Ok((open, first))
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
        let low = changelog::fingerprint(&open.reader, high)?.unwrap_or(0);
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

    /// The tables that are, or whose topics are, not as they were when last stored.
    fn redefined(&self, open: &Open) -> Result<Vec<String>, Failure> {
        let stored = changelog::definitions(&open.reader)?;
        let mut redefined = Vec::new();
        for (watched, shape) in self.watched.iter().zip(&open.shapes) {
            match stored.get(&watched.table) {
                Some(before) if *before == definition(watched, shape.as_ref()) => {}
                Some(_) => redefined.push(watched.table.clone()),
                // Never served before, so nobody has a cursor.
                None => {
                    let text = definition(watched, shape.as_ref());
                    changelog::define(&open.writer, &watched.table, &text)?;
                }
            }
        }
        Ok(redefined)
    }

    fn define(&self, open: &Open) -> Result<(), Failure> {
        for (watched, shape) in self.watched.iter().zip(&open.shapes) {
            let text = definition(watched, shape.as_ref());
            changelog::define(&open.writer, &watched.table, &text)?;
        }
        Ok(())
    }

    fn displacing(&self, open: &Open) -> Vec<String> {
        let tables = self.watched.iter().zip(&open.shadows);
        tables
            .filter(|(_, shadow)| shadow.is_some())
            .map(|(table, _)| table.table.clone())
            .collect()
    }

    /// Puts triggers back after the schema changed, unless nothing of ours is concerned.
    fn repair(&mut self, open: &mut Open, reload: &[String]) -> Result<(), Failure> {
        let found = changelog::inspect(&open.reader, &self.watched)?;
        for table in &found.absent {
            error!(
                table,
                "a watched table, or a key column of it, is missing: its topics cannot be served"
            );
        }
        if found.no_changelog {
            return Err("the changelog was removed".into());
        }
        if !found.is_whole() || !reload.is_empty() {
            changelog::install(&mut open.writer, &self.watched, reload)?;
            self.define(open)?;
            info!(tables = ?found.lacking, "put capture back after a change of the schema");
        }
        Ok(())
    }

    /// Reads what is new, in one read transaction.
    fn read(&mut self, open: &mut Open) -> Result<Option<Transactions>, Failure> {
        open.reader.execute_batch("BEGIN")?;
        let read = self.read_within(open);
        open.reader.execute_batch("COMMIT")?;
        read
    }

    fn read_within(&mut self, open: &mut Open) -> Result<Option<Transactions>, Failure> {
        let schema: i64 = open
            .reader
            .query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        if schema != open.schema_version {
            let before = std::mem::take(&mut open.shapes);
            self.read_shapes(open)?;
            open.altered = Some(self.reshaped(&before, &open.shapes));
        }
        let present = sqlite::present(&open.reader)?.ok_or("the changelog was removed")?;
        let same = changelog::fingerprint(&open.reader, self.last.high)? == Some(self.last.low);
        if present < self.last.high || !same {
            return Err("the database has gone back to an earlier state".into());
        }
        if present == self.last.high {
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
        for shadow in open.shadows.iter().flatten() {
            shadow.displaced(&open.reader, &mut changes)?;
        }
        if changes.len() > 1 {
            let tx: Arc<str> = format!("{source}.{head:x}").into();
            changes
                .iter_mut()
                .for_each(|change| change.tx = Some(tx.clone()));
        }
        let low = changelog::fingerprint(&open.reader, head)?.unwrap_or(0);
        (self.last.high, self.last.low) = (head, low);
        Ok(Transactions {
            changes,
            checkpoint: self.last.clone(),
        })
    }

    /// Describes the watched tables anew, inside the read transaction.
    fn read_shapes(&self, open: &mut Open) -> Result<(), Failure> {
        open.schema_version = open
            .reader
            .query_row("PRAGMA schema_version", [], |row| row.get(0))?;
        open.shapes.clear();
        open.shadows.clear();
        for (number, watched) in self.watched.iter().enumerate() {
            let table = sqlite::introspect(&open.reader, &watched.table)?.filter(|table| {
                watched
                    .identity
                    .iter()
                    .all(|name| table.column(name).is_some())
            });
            let shadow = match table.as_ref().is_some_and(|table| table.displaces) {
                true => Some(Shadow::build(&open.reader, number, watched)?),
                false => None,
            };
            open.shapes
                .push(table.map(|table| Shape::new(table, watched)));
            open.shadows.push(shadow);
        }
        Ok(())
    }

    /// The tables whose description is another one than before.
    fn reshaped(&self, before: &[Option<Shape>], now: &[Option<Shape>]) -> Vec<String> {
        let table = |shape: &Option<Shape>| shape.as_ref().map(|shape| shape.table().clone());
        let pairs = self.watched.iter().zip(before.iter().zip(now));
        pairs
            .filter(|(_, (before, now))| table(before) != table(now))
            .map(|(watched, _)| watched.table.clone())
            .collect()
    }

    /// Deletes a step of what is confirmed and either old or too much. The entry at the
    /// confirmed checkpoint stays: by it a restored file is recognised.
    fn trim(&mut self, open: &Open) -> Result<(), Failure> {
        let now = Instant::now();
        if now < self.next_trim {
            return Ok(());
        }
        self.next_trim = now
            + (self.config.changelog_keep / 10)
                .min(Duration::from_secs(1))
                .max(TRIM_PAUSE);
        if self.ages.back().is_none_or(|(_, id)| *id != self.last.high) {
            self.ages.push_back((now, self.last.high));
        }
        let mut below = self
            .last
            .high
            .saturating_sub(self.config.changelog_max_rows);
        while let Some((_, id)) = self
            .ages
            .front()
            .filter(|(at, _)| now - *at >= self.config.changelog_keep)
            .copied()
        {
            below = below.max(id);
            if self.ages.len() == 1 {
                break;
            }
            self.ages.pop_front();
        }
        let below = below.min(self.confirmed.load(Ordering::Acquire));
        let waiting = changelog::below(&open.reader, below, TRIM_STEP)?;
        // Every write of ours may meet one of another program, so a few entries wait for company.
        let due = waiting == TRIM_STEP || now >= self.next_full_trim;
        if waiting == 0 || !due {
            return Ok(());
        }
        // Who writes just now goes first: to wait here would keep changes waiting.
        open.writer.busy_timeout(Duration::ZERO)?;
        let trimmed = changelog::trim(&open.writer, below, TRIM_STEP);
        open.writer.busy_timeout(sqlite::OWN_BUSY_TIMEOUT)?;
        match trimmed {
            Ok(()) if waiting == TRIM_STEP => self.next_trim = now + TRIM_PAUSE,
            Ok(()) => self.next_full_trim = now + self.config.changelog_keep,
            Err(err) if is_busy(&err) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }
}

/// A short text that is another one when the table or its topics are.
fn definition(watched: &Watched, shape: Option<&Shape>) -> String {
    let table = shape.map(Shape::table);
    let hash = changelog::hash(&format!("{} {table:?}", watched.definition));
    format!("{hash:08x}")
}

fn is_busy(err: &rusqlite::Error) -> bool {
    err.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
