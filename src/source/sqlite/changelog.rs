//! What Rowcast puts into a watched SQLite file, and takes off again: the changelog, and three
//! triggers a table that note the operation and the key columns, nothing else. A trigger that
//! named another column would make SQLite refuse to drop that column.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{
    sqlite::{self, META, OWN_PREFIX, quote, text_literal},
    topic::{Base, Table, Topics},
};

/// The most key columns that a changelog entry has room for.
pub const MAX_KEY_COLUMNS: usize = 8;

const TABLES: &str = include_str!("../../../migrations/sqlite_changelog.sql");

/// A table to watch, and the columns whose values identify its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The name, as the topics give it.
    pub table: String,
    /// The key columns of all topics of the table together, at most [`MAX_KEY_COLUMNS`].
    pub identity: Vec<String>,
    /// What the topics make of the table. Another text means other views: a reload.
    pub definition: String,
}

/// What a look at the watched tables found, or what was put right.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Tables whose triggers are missing or not as they must be.
    pub lacking: Vec<String>,
    /// Tables that do not exist, or lack a key column, as the operator should be told.
    pub absent: Vec<String>,
    /// Triggers of ours that belong to no watched table (left by a rename, or an older topic).
    pub stray: Vec<String>,
    /// Whether the changelog itself is missing.
    pub no_changelog: bool,
}

impl Capture {
    /// Whether there is nothing to put right.
    pub fn is_whole(&self) -> bool {
        !self.no_changelog && self.lacking.is_empty() && self.stray.is_empty()
    }
}

/// The tables of the topics, each once.
pub fn watched(topics: &Topics) -> Vec<Watched> {
    let mut tables: BTreeMap<&str, Watched> = BTreeMap::new();
    for topic in topics.iter() {
        let Some(view) = &topic.view else { continue };
        let mut watch = |table, key: &[String]| {
            let watched = tables.entry(table).or_insert_with(|| Watched {
                table: table.to_owned(),
                identity: Vec::new(),
                definition: String::new(),
            });
            for column in key {
                if !watched.identity.contains(column) {
                    watched.identity.push(column.clone());
                }
            }
            watched.definition += &format!("{} {}\n", topic.name, topic.fingerprint());
        };
        match &view.base {
            Base::Table(table) => watch(table, &view.key),
            Base::Query { watch: tables, .. } => {
                tables.iter().for_each(|t| watch(&t.table, &t.key));
            }
        }
    }
    tables.into_values().collect()
}

/// Compares what is installed with what must be. Reads only.
pub fn inspect(conn: &Connection, watched: &[Watched]) -> rusqlite::Result<Capture> {
    let mut capture = Capture {
        no_changelog: sqlite::present(conn)?.is_none(),
        ..Capture::default()
    };
    let mut installed = installed(conn)?;
    for table in watched {
        if !is_there(conn, table)? {
            capture.absent.push(table.table.clone());
            continue;
        }
        let wanted = triggers(table);
        let whole = wanted
            .iter()
            .filter(|(name, sql)| installed.remove(name).as_ref() == Some(sql));
        if whole.count() < wanted.len() {
            capture.lacking.push(table.table.clone());
        }
    }
    // Triggers under a wanted name that differ are replaced, the rest belong to nobody: also those
    // that went along when a table was renamed, and would stand in the way of its alterations.
    let names: Vec<String> = watched
        .iter()
        .filter(|table| !capture.absent.contains(&table.table))
        .flat_map(triggers)
        .map(|(name, _)| name)
        .collect();
    capture.stray = installed
        .into_keys()
        .filter(|name| !names.contains(name))
        .collect();
    Ok(capture)
}

/// Puts changelog and triggers in order, and notes a reload for every table of `reload` and for
/// every one whose triggers were lacking, in one short transaction.
///
/// Writes of other programs between a remake of the table and this call were not captured: the
/// reload, noted in the same transaction that puts the triggers back, covers them.
pub fn install(
    conn: &mut Connection,
    watched: &[Watched],
    reload: &BTreeSet<String>,
) -> rusqlite::Result<Capture> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = inspect(&tx, watched)?;
    let fresh = found.no_changelog;
    if fresh {
        tx.execute_batch(TABLES)?;
    }
    if sqlite::source_id(&tx)?.is_none() {
        new_source(&tx)?;
    }
    for name in &found.stray {
        tx.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quote(name)))?;
    }
    for table in watched
        .iter()
        .filter(|table| found.lacking.contains(&table.table))
    {
        for (name, sql) in triggers(table) {
            tx.execute_batch(&format!("DROP TRIGGER IF EXISTS {}; {sql}", quote(&name)))?;
        }
    }
    let noted = watched.iter().map(|table| &table.table);
    for table in noted.filter(|table| reload.contains(*table) || found.lacking.contains(table)) {
        tx.execute(
            "INSERT INTO _rowcast_changelog (tbl, op) VALUES (?1, 'r')",
            [table],
        )?;
    }
    tx.commit()?;
    Ok(found)
}

/// What was last stored by [`define`], by table.
pub fn definitions(conn: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = conn.prepare_cached(
        "SELECT substr(name, 12), value FROM _rowcast_meta
         WHERE name >= 'definition:' AND name < 'definition;'",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Stores what a table and its topics look like now, to be compared at the next start.
pub fn define(conn: &Connection, table: &str, definition: &str) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT OR REPLACE INTO _rowcast_meta (name, value) VALUES ('definition:' || ?1, ?2)",
        [table, definition],
    )?;
    Ok(())
}

/// Begins another history: nothing from before can be continued.
pub fn begin_history(conn: &mut Connection) -> rusqlite::Result<()> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    new_source(&tx)?;
    tx.commit()
}

fn new_source(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let set = format!("INSERT OR REPLACE INTO {META} (name, value) VALUES ('source', ?1)");
    tx.execute(&set, [random_name()])?;
    note_mark(tx)
}

/// Notes a random mark, by which a copy of the file that went another way is told apart.
///
/// The last [`MARKS_KEPT`] are also kept in the meta table, for the changelog is trimmed.
pub fn mark(conn: &Connection) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    note_mark(&tx)?;
    tx.commit()
}

fn note_mark(conn: &Connection) -> rusqlite::Result<()> {
    let text = random_name();
    conn.execute(
        "INSERT INTO _rowcast_changelog (tbl, op) VALUES (?1, 'm')",
        [&text],
    )?;
    conn.execute(
        "INSERT OR REPLACE INTO _rowcast_meta (name, value) VALUES (?1, ?2)",
        [mark_name(conn.last_insert_rowid().unsigned_abs()), text],
    )?;
    conn.execute(
        "DELETE FROM _rowcast_meta WHERE name < (SELECT name FROM _rowcast_meta
         WHERE name >= 'mark:' AND name < 'mark;' ORDER BY name DESC LIMIT 1 OFFSET ?1) AND name >= 'mark:' AND name < 'mark;'",
        [MARKS_KEPT - 1],
    )?;
    Ok(())
}

/// Entries before a checkpoint that are kept beside it, to recognise the file by.
pub const EVIDENCE: u64 = 16;

/// Enough for every mark that a bus may have seen last, be it a few restarts ago.
const MARKS_KEPT: u32 = 16;

fn mark_name(id: u64) -> String {
    format!("mark:{id:020}")
}

/// Takes triggers and changelog off; returns the names of the triggers that were there.
pub fn remove(conn: &mut Connection) -> rusqlite::Result<Vec<String>> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let names: Vec<String> = installed(&tx)?.into_keys().collect();
    for name in &names {
        tx.execute_batch(&format!("DROP TRIGGER IF EXISTS {}", quote(name)))?;
    }
    tx.execute_batch(
        "DROP TABLE IF EXISTS _rowcast_changelog; DROP TABLE IF EXISTS _rowcast_meta",
    )?;
    tx.commit()?;
    Ok(names)
}

/// Whether there is an entry below `below`. Reads only.
pub fn reaches_below(conn: &Connection, below: u64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM _rowcast_changelog WHERE id < ?1)")?
        .query_row([below as i64], |row| row.get(0))
}

/// Deletes at most `limit` entries below `below`.
pub fn trim(conn: &Connection, below: u64, limit: u32) -> rusqlite::Result<()> {
    conn.execute(
        "DELETE FROM _rowcast_changelog WHERE id IN
         (SELECT id FROM _rowcast_changelog WHERE id < ?1 ORDER BY id LIMIT ?2)",
        params![below as i64, limit],
    )?;
    Ok(())
}

/// A number that two files which went different ways hardly share: of the last [`EVIDENCE`]
/// entries up to `id`, and of the last mark up to it. `None` where the entry is gone.
pub fn fingerprint(conn: &Connection, id: u64) -> rusqlite::Result<Option<u16>> {
    if id == 0 {
        return Ok(Some(0));
    }
    let mut statement = conn.prepare_cached(
        "SELECT id, tbl || '/' || op || '/' || quote(k1) || quote(o1) || quote(k2) || quote(o2)
         FROM _rowcast_changelog WHERE id <= ?1 AND id > ?1 - ?2 ORDER BY id DESC",
    )?;
    let mut rows = statement.query(params![id as i64, EVIDENCE as i64])?;
    let mut text = String::new();
    while let Some(row) = rows.next()? {
        if text.is_empty() && row.get::<_, i64>(0)?.unsigned_abs() != id {
            break;
        }
        text.push_str(&row.get::<_, Option<String>>(1)?.unwrap_or_default());
        text.push('\n');
    }
    if text.is_empty() {
        return Ok(None);
    }
    let mark: Option<String> = conn
        .prepare_cached(
            "SELECT value FROM _rowcast_meta WHERE name >= 'mark:' AND name <= ?1 ORDER BY name DESC LIMIT 1",
        )?
        .query_row([mark_name(id)], |row| row.get(0))
        .optional()?;
    text.push_str(&mark.unwrap_or_default());
    let hash = hash(text.as_bytes());
    Ok(Some((hash ^ (hash >> 16)) as u16))
}

/// FNV-1a: a stable hash, for the bus keeps it across versions of this program.
pub fn hash(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn random_name() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = [0_u8; 10];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect()
}

fn is_there(conn: &Connection, table: &Watched) -> rusqlite::Result<bool> {
    let has = |shape: Table| {
        table
            .identity
            .iter()
            .all(|column| shape.column(column).is_some())
    };
    Ok(sqlite::introspect(conn, &table.table)?.is_some_and(has))
}

/// The triggers under our names, with their texts.
fn installed(conn: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut statement = conn.prepare(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND substr(name, 1, ?1) = ?2",
    )?;
    let rows = statement.query_map(params![OWN_PREFIX.len() as i64, OWN_PREFIX], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

/// Names and texts of a table's triggers.
fn triggers(watched: &Watched) -> [(String, String); 3] {
    let columns = |prefix: char| {
        (1..=watched.identity.len())
            .map(move |n| format!(", {prefix}{n}"))
            .collect::<String>()
    };
    let values = |row: &str| {
        let values = watched
            .identity
            .iter()
            .map(|column| format!(", {row}.{}", quote(column)));
        values.collect::<String>()
    };
    let make = |letter: char, event: &str, columns: String, values: String| {
        let name = format!("{OWN_PREFIX}_{}_{letter}", watched.table);
        let sql = format!(
            "CREATE TRIGGER {} AFTER {event} ON {} BEGIN \
             INSERT INTO _rowcast_changelog (tbl, op{columns}) VALUES ({}, '{letter}'{values}); END",
            quote(&name),
            quote(&watched.table),
            text_literal(&watched.table),
        );
        (name, sql)
    };
    [
        make('i', "INSERT", columns('k'), values("NEW")),
        make(
            'u',
            "UPDATE",
            columns('k') + &columns('o'),
            values("NEW") + &values("OLD"),
        ),
        make('d', "DELETE", columns('o'), values("OLD")),
    ]
}
