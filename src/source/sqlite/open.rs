//! The open file: two connections, what was read of the schema, and whether it is still the same
//! file.

use std::{
    collections::BTreeSet,
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    SqliteSourceConfig,
    batch::Shape,
    displaced::Shadow,
    watch::{Wake, Watch},
};
use crate::sqlite::{self, FileId, Mode};

/// How often the file itself is looked at: whether it is still the same one.
const FILE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// What went wrong, for the operator to read.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What holds as long as the file is the same one.
pub struct Open {
    /// Reads, mostly inside one transaction a batch.
    pub reader: Connection,
    /// Puts triggers in place, marks and trims.
    pub writer: Connection,
    file: FileId,
    next_file_check: Instant,
    /// As `PRAGMA data_version` last said: another number means a commit of another connection.
    pub data_version: i64,
    /// The schema that `shapes` describe.
    pub schema_version: i64,
    /// The watched tables in their order; none where one is missing.
    pub shapes: Vec<Option<Shape>>,
    /// The keys of tables that REPLACE may displace rows of.
    pub shadows: Vec<Option<Shadow>>,
    /// Since when triggers are to be inspected, because the schema changed.
    pub altered: Option<Instant>,
    /// Tables that get a reload then.
    pub reload: BTreeSet<String>,
    /// Tables whose shadow is to be built anew, because they were not followed for a while.
    pub unfollowed: BTreeSet<String>,
    /// When another program was last seen to have committed.
    pub last_commit: Instant,
    /// Whether the next new `data_version` may be our own doing.
    pub wrote: bool,
    _watch: Option<Watch>,
}

impl Open {
    /// Opens the file twice, puts it into WAL mode, and has `wake` told when it is written.
    pub fn new(config: &SqliteSourceConfig, wake: &SyncSender<Wake>) -> Result<Self, Failure> {
        let reader = sqlite::open(&config.path, Mode::Read)?;
        let writer = sqlite::open(&config.path, Mode::Write)?;
        let mode = sqlite::journal(&writer)?;
        if mode != "wal" {
            return Err(format!("journal mode is {mode}, and WAL cannot be had").into());
        }
        Ok(Self {
            data_version: data_version(&reader)?,
            reader,
            writer,
            file: sqlite::file_id(&config.path)?,
            next_file_check: Instant::now(),
            schema_version: -1,
            shapes: Vec::new(),
            shadows: Vec::new(),
            altered: None,
            reload: BTreeSet::new(),
            unfollowed: BTreeSet::new(),
            last_commit: Instant::now(),
            wrote: false,
            _watch: Watch::on(&config.path, wake),
        })
    }

    /// Notices that the file was replaced by another one of the same name.
    pub fn check_file(&mut self, config: &SqliteSourceConfig) -> Result<(), Failure> {
        let now = Instant::now();
        if now < self.next_file_check {
            return Ok(());
        }
        self.next_file_check = now + FILE_CHECK_INTERVAL;
        match sqlite::file_id(&config.path)? == self.file {
            true => Ok(()),
            false => Err("the database file was replaced by another one".into()),
        }
    }
}

/// Asks outside of a transaction, within which the answer does not change.
pub fn data_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))
}
