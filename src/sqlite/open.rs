//! Opening a database that belongs to somebody else, and reading where its changelog stands.

use std::{io, os::unix::fs::MetadataExt, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

/// The table that the triggers write into.
pub const CHANGELOG: &str = "_rowcast_changelog";

/// The table of the source's own facts.
pub const META: &str = "_rowcast_meta";

/// How long our own writes wait for another writer; foreign ones never wait for us that long,
/// because every transaction of ours is a few milliseconds at the most.
pub const OWN_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells a file from another one that has taken its name: device and inode.
///
/// An open connection goes on with the old file, which nobody else sees any more.
pub type FileId = (u64, u64);

/// Which file bears that name now.
///
/// # Errors
/// What the file system says, for example that there is none.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

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
    // Our own writes (triggers, marks, trimming) may be lost with the machine, for they are made
    // again; without an fsync they keep other writers out for a fraction of a millisecond.
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// The journal mode in force, in lower case.
///
/// # Errors
/// What SQLite says; the caller treats it as any other failed read.
pub fn journal_mode(conn: &Connection) -> rusqlite::Result<String> {
    conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))
}

/// Whether this user may write the database: takes the lock that every write needs, and gives it
/// back. Changes nothing.
///
/// # Errors
/// What SQLite says, for example that another program writes for too long.
pub fn can_write(conn: &Connection) -> rusqlite::Result<bool> {
    // SQLite opens a file that may only be read without a word, and even lets a write begin.
    if conn.is_readonly("main")? {
        return Ok(false);
    }
    conn.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
    Ok(true)
}

/// Puts a database into WAL mode, in which readers never keep a writer waiting; returns the
/// mode in force, which is another one where the file cannot have a WAL.
///
/// # Errors
/// What SQLite says, for example that somebody reads or writes just now: try again a little later.
pub fn journal(conn: &Connection) -> rusqlite::Result<String> {
    let mode = journal_mode(conn)?;
    if mode == "wal" {
        return Ok(mode);
    }
    // While SQLite waits for readers to go it lets no new ones in, so it must not wait.
    conn.busy_timeout(Duration::ZERO)?;
    let mode = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
    conn.busy_timeout(OWN_BUSY_TIMEOUT)?;
    mode
}

/// Whether texts are kept, and therefore compared, as UTF-8.
///
/// # Errors
/// What SQLite says; the caller treats it as any other failed read.
pub fn is_utf8(conn: &Connection) -> rusqlite::Result<bool> {
    let encoding: String = conn.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    Ok(encoding == "UTF-8")
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
