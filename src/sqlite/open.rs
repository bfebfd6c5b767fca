//! Opening a database that belongs to somebody else, and reading where its changelog stands.

use std::{os::unix::fs::MetadataExt, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

/// The table that the triggers write into.
pub const CHANGELOG: &str = "_rowcast_changelog";

/// The table of the source's own facts.
pub const META: &str = "_rowcast_meta";

/// How long our own writes wait for another writer; foreign ones never wait for us that long,
/// because every transaction of ours is a few milliseconds at the most.
const OWN_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads; TEMP tables are possible.
    Read,
    /// Reads and writes an existing file.
    Write,
    /// As `Write`, and creates the file.
    Create,
}

/// Which file stands under a name: its device and inode. A connection goes on with the file that
/// it opened, also when another one was moved into its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(u64, u64);

impl FileId {
    /// The file that is there now, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self(metadata.dev(), metadata.ino()))
    }
}

/// Opens a database file.
///
/// # Errors
/// What SQLite says, for example that there is no such file.
pub fn open(path: &Path, mode: Mode) -> rusqlite::Result<Connection> {
    // A read-only connection cannot use a WAL whose index no writer has made yet, so a reader
    // opens the file for writing and is kept from it by never being asked to.
    let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_READ_WRITE;
    if mode == Mode::Create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(OWN_BUSY_TIMEOUT)?;
    // An application's own triggers and views may call functions of its program. We run none.
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Puts a database into WAL mode, in which readers never keep a writer waiting; returns the
/// mode in force, which is another one where the file cannot have a WAL.
///
/// # Errors
/// What SQLite says, for example that the database is locked for too long.
pub fn journal(conn: &Connection) -> rusqlite::Result<String> {
    conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
}

/// The id of the last changelog entry ever committed, seen from the connection's transaction;
/// `None` where there is no changelog.
///
/// # Errors
/// What SQLite says; the caller treats it as any other failed read.
pub fn present(conn: &Connection) -> rusqlite::Result<Option<u64>> {
    let known: bool = conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)")?
        .query_row([CHANGELOG], |row| row.get(0))?;
    if !known {
        return Ok(None);
    }
    let last = conn
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
        .query_row([CHANGELOG], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(Some(last.unwrap_or(0).unsigned_abs()))
}

/// The name of the history that the changelog belongs to; `None` where there is none.
///
/// # Errors
/// What SQLite says, also where the table is missing: ask [`present`] first.
pub fn source_id(conn: &Connection) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT value FROM _rowcast_meta WHERE name = 'source'")?
        .query_row([], |row| row.get(0))
        .optional()
}
