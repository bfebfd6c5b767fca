//! The thread that follows one SQLite file: waits until any process has committed, reads what
//! is new, puts the triggers back after a migration, and trims the changelog.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use rusqlite::Connection;
use tokio::sync::mpsc::Sender;
use tracing::warn;

use super::{
    SqliteSourceConfig,
    batch::{self, Shape},
    changelog::{self, Watched},
    displaced::Shadow,
    evidence::Evidence,
    upkeep::MARK_INTERVAL,
};
use crate::{
    position::Checkpoint,
    source::{SourceError, Transactions},
    sqlite::{self, FileId, Mode},
};

/// How often the file itself is looked at: whether it is still the same one.
const FILE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The pause after an error, before the file is opened again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What the thread is told. It ends when the sender is dropped.
pub enum Wake {
    /// Somebody in this process has committed.
    Committed,
}

/// The thread's state.
pub struct Tail {
    pub(super) config: SqliteSourceConfig,
    pub(super) watched: Vec<Watched>,
    pub(super) confirmed: Arc<AtomicU64>,
    /// How far the changelog has been read, and the fingerprint of that place.
    pub(super) last: Checkpoint,
    open: Option<Open>,
    /// Ids by the time they were read, oldest first: the changelog itself knows no time.
    pub(super) ages: VecDeque<(Instant, u64)>,
    pub(super) next_trim: Instant,
    /// Since when there has been something to trim, in vain.
    pub(super) untrimmed: Option<Instant>,
    /// The last entry that was noted together with a mark, or nothing written by others since.
    pub(super) marked: u64,
    pub(super) next_mark: Instant,
}

/// What holds as long as the file is the same one.
pub struct Open {
    pub(super) reader: Connection,
    pub(super) writer: Connection,
    file: Option<FileId>,
    next_file_check: Instant,
    data_version: i64,
    schema_version: i64,
    shapes: Vec<Option<Shape>>,
    shadows: Vec<Option<Shadow>>,
    /// Since when triggers are to be inspected, because the schema changed.
    pub(super) altered: Option<Instant>,
    /// Tables that get a reload then.
    pub(super) reload: BTreeSet<String>,
    /// Tables whose shadow is to be built anew, because they were not followed for a while.
    pub(super) unfollowed: BTreeSet<String>,
    /// When another program was last seen to have committed.
    last_commit: Instant,
    /// Whether the next new `data_version` may be our own doing.
    pub(super) wrote: bool,
}

/// Why the file cannot be followed now: it is opened anew.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

// === impl Tail ===

impl Tail {
    /// A thread's state that resumes just after `from`, or at the present.
    pub fn new(
        config: SqliteSourceConfig,
        confirmed: Arc<AtomicU64>,
        from: Option<Checkpoint>,
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
        while !batches.is_closed() {
            let pause = match self.step() {
                Ok(Some(batch)) => match batches.blocking_send(Ok(batch)) {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                Ok(None) => self.config.poll_interval,
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
                Ok(Wake::Committed) | Err(RecvTimeoutError::Timeout) => {}
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
        if version != open.data_version {
            open.data_version = version;
            let found = self.read(open)?;
            if !std::mem::take(&mut open.wrote) || found.is_some() {
                open.last_commit = now;
            }
            return Ok(found);
        }
        let quiet = now.duration_since(open.last_commit);
        match open.altered {
            Some(since) => self.repair(open, quiet, now - since)?,
            None => {
                self.mark(open, quiet)?;
                self.trim(open, quiet)?;
            }
        }
        Ok(None)
    }

    /// Opens the file and finds out whether its history goes on where reading stopped.
    fn open_file(&mut self) -> Result<(Open, Transactions), Failure> {
        let mut open = Open::new(&self.config)?;
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
        open.reader.execute_batch("BEGIN")?;
        let first = self
            .read_shapes(&mut open)
            .and_then(|()| self.read_entries(&mut open));
        open.reader.execute_batch("COMMIT")?;
        self.marked = self.last.high;
        Ok((open, first?))
    }

    /// Whether the file holds at the last checkpoint what it held when that was read.
    fn recognises(&self, open: &mut Open) -> Result<bool, Failure> {
        open.reader.execute_batch("BEGIN")?;
        let found = self
            .read_shapes(open)
            .and_then(|()| self.evidence(open, self.last.high));
        open.reader.execute_batch("COMMIT")?;
        // What comes after is described anew.
        open.schema_version = -1;
        Ok(found?.is_some_and(|found| found.agrees_with(Evidence::unpack(self.last.low))))
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

// === impl Open ===

impl Open {
    fn new(config: &SqliteSourceConfig) -> Result<Self, Failure> {
        let reader = sqlite::open(&config.path, Mode::Read)?;
        let writer = sqlite::open(&config.path, Mode::Write)?;
        // In a WAL this gives up no consistency, and no program waits for our fsync.
        writer.pragma_update(None, "synchronous", "normal")?;
        let mode = sqlite::journal(&writer)?;
        if mode != "wal" {
            return Err(format!("journal mode is {mode}, and WAL cannot be had").into());
        }
        Ok(Self {
            data_version: data_version(&reader)?,
            reader,
            writer,
            file: FileId::of(&config.path),
            next_file_check: Instant::now(),
            schema_version: -1,
            shapes: Vec::new(),
            shadows: Vec::new(),
            altered: None,
            reload: BTreeSet::new(),
            unfollowed: BTreeSet::new(),
            last_commit: Instant::now(),
            wrote: false,
        })
    }

    /// Notices that the file was replaced by another one of the same name.
    fn check_file(&mut self, config: &SqliteSourceConfig) -> Result<(), Failure> {
        let now = Instant::now();
        if now < self.next_file_check {
            return Ok(());
        }
        self.next_file_check = now + FILE_CHECK_INTERVAL;
        match FileId::of(&config.path) == self.file {
            true => Ok(()),
            false => Err("the database file was replaced by another one".into()),
        }
    }
}

fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}

/// Unix milliseconds.
fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
