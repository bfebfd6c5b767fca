//! One read of the changelog: its entries and the rows' present state, in one read transaction.
//!
//! Entries of one row collapse into the last one. No entry of a row follows its last, so the
//! state read now *is* the state at that entry: every change carries exactly the state at its
//! own changelog id, and a query that saw the changelog up to any id joins the stream there.
//! A row that is gone although its last entry says that it was there was displaced later without
//! an entry: its deletion stands at the table's last entry of the read, by which it had gone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rusqlite::{Connection, params};

use super::changelog::{self, MAX_KEY_COLUMNS, Watched};
use crate::{
    event::{Change, What},
    position::Checkpoint,
    row::{Names, Row, Value},
    sqlite::{self, quote},
    topic::Table,
};

/// A watched table as it stands, and how its rows are read.
pub struct Shape {
    table: Arc<Table>,
    names: Names,
    identity_names: Names,
    select: String,
}

/// One entry of the changelog.
struct Entry {
    id: u64,
    table: String,
    op: char,
    new: Vec<Value>,
    old: Vec<Value>,
}

/// What the entries of one read say about one row.
struct Touch {
    /// Whether the first of them is an insert.
    inserted: bool,
    /// The index of the last of them.
    last: usize,
}

/// Identifies a row among the entries of one read.
type RowKey = (usize, Vec<u8>);

// === impl Shape ===

impl Shape {
    /// Prepares to read the rows of a table.
    pub fn new(table: Table, watched: &Watched) -> Self {
        let columns: Vec<String> = table.columns.iter().map(|c| quote(&c.name)).collect();
        let identity = watched.identity.iter().enumerate();
        let identity = identity.map(|(n, column)| format!("{} IS ?{}", quote(column), n + 1));
        Self {
            names: table
                .columns
                .iter()
                .map(|column| column.name.clone())
                .collect(),
            identity_names: watched
                .identity
                .iter()
                .map(|name| Arc::from(name.as_str()))
                .collect(),
            select: format!(
                "SELECT {} FROM main.{} WHERE {}",
                columns.join(", "),
                quote(&table.name),
                identity.collect::<Vec<_>>().join(" AND "),
            ),
            table: Arc::new(table),
        }
    }

    /// The table's description.
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The row with exactly these key values, byte by byte, if there is one now.
    fn fetch(&self, conn: &Connection, identity: &[Value]) -> rusqlite::Result<Option<Row>> {
        let mut statement = conn.prepare_cached(&self.select)?;
        let mut rows = statement.query(rusqlite::params_from_iter(identity))?;
        while let Some(found) = rows.next()? {
            let values = (0..self.names.len()).map(|n| Ok(sqlite::value(found.get_ref(n)?)));
            let row = Row::new(self.names.clone(), values.collect::<rusqlite::Result<_>>()?);
            // A collation may take 'a' for 'A': that is another row's key.
            let exact = self
                .identity_names
                .iter()
                .zip(identity)
                .all(|(name, value)| {
                    row.get(name)
                        .is_some_and(|found| encode(found) == encode(value))
                });
            if exact {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    fn identity(&self, values: &[Value]) -> Row {
        Row::new(self.identity_names.clone(), values.to_vec())
    }
}

// === reading ===

/// Reads the entries after `last` up to `head` and turns them into changes.
///
/// `shapes` are the watched tables in the order of `watched`; a missing one yields a reload.
/// Call it inside a read transaction that also read `head`.
pub fn read(
    conn: &Connection,
    watched: &[Watched],
    shapes: &[Option<Shape>],
    source: &Arc<str>,
    (last, head): (u64, u64),
    at_ms: i64,
) -> rusqlite::Result<Vec<Change>> {
    let entries = entries(conn, last, head)?;
    let index: HashMap<&str, usize> = watched
        .iter()
        .enumerate()
        .map(|(n, table)| (table.table.as_str(), n))
        .collect();
    let touches = touches(&entries, &index);
    let mut out = Collapse {
        conn,
        watched,
        shapes,
        source,
        at_ms,
        touches,
        changes: Vec::new(),
        lost: HashSet::new(),
        vanished: Vec::new(),
    };
    let mut ends = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        if let Some(&table) = index.get(entry.table.as_str()) {
            out.entry(at, entry, table)?;
            ends.insert(table, entry.id);
        }
    }
    Ok(out.finish(&ends))
}

fn entries(conn: &Connection, last: u64, head: u64) -> rusqlite::Result<Vec<Entry>> {
    let columns = |prefix| (1..=MAX_KEY_COLUMNS).map(move |n| format!(", {prefix}{n}"));
    let sql = format!(
        "SELECT id, tbl, op{}{} FROM _rowcast_changelog WHERE id > ?1 AND id <= ?2 ORDER BY id",
        columns('k').collect::<String>(),
        columns('o').collect::<String>(),
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rows = statement.query_map(params![last as i64, head as i64], |row| {
        let values = |from: usize| {
            let values = (from..from + MAX_KEY_COLUMNS).map(|n| Ok(sqlite::value(row.get_ref(n)?)));
            values.collect::<rusqlite::Result<Vec<_>>>()
        };
        Ok(Entry {
            id: row.get::<_, i64>(0)?.unsigned_abs(),
            table: row.get(1)?,
            op: row.get::<_, String>(2)?.chars().next().unwrap_or('?'),
            new: values(3)?,
            old: values(3 + MAX_KEY_COLUMNS)?,
        })
    })?;
    rows.collect()
}

fn touches(entries: &[Entry], index: &HashMap<&str, usize>) -> HashMap<RowKey, Touch> {
    let mut touches = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(&table) = index.get(entry.table.as_str()) else {
            continue;
        };
        let mut touch = |values: &[Value], inserted| {
            let key = (table, encode_all(values));
            touches
                .entry(key)
                .or_insert(Touch { inserted, last: at })
                .last = at;
        };
        match entry.op {
            'i' => touch(&entry.new, true),
            'd' => touch(&entry.old, false),
            'u' => {
                touch(&entry.old, false);
                touch(&entry.new, false);
            }
            _ => {}
        }
    }
    touches
}

/// Hashes of the row that the entry at `id` concerns, as it is now, and of its columns' names; 0
/// where there is none. Two files with the same entries up to there need not hold the same row.
///
/// `None` where later entries may have changed it since.
pub fn image(
    conn: &Connection,
    watched: &[Watched],
    shapes: &[Option<Shape>],
    id: u64,
) -> rusqlite::Result<Option<(u32, u32)>> {
    let found = entries(conn, id.saturating_sub(1), id)?;
    let Some(entry) = found.first() else {
        return Ok(Some((0, 0)));
    };
    let later = "SELECT EXISTS (SELECT 1 FROM _rowcast_changelog WHERE id > ?1 AND tbl IS ?2)";
    let later = conn
        .prepare_cached(later)?
        .query_row(params![id as i64, entry.table], |row| row.get(0))?;
    let number = watched.iter().position(|table| table.table == entry.table);
    let shape = number.and_then(|number| Some((&watched[number], shapes[number].as_ref()?)));
    let row = match (later, shape, entry.op) {
        (true, ..) => return Ok(None),
        (false, Some((table, shape)), 'i' | 'u') => {
            shape.fetch(conn, &entry.new[..table.identity.len()])?
        }
        _ => None,
    };
    Ok(Some(row.map_or((0, 0), |row| {
        let values: Vec<u8> = row.iter().flat_map(|(_, value)| encode(value)).collect();
        let names: Vec<&str> = row.iter().map(|(name, _)| name).collect();
        let names = changelog::hash(names.join(",").as_bytes());
        (changelog::hash(&values), names)
    })))
}

/// The state of collapsing one read's entries into changes.
struct Collapse<'a> {
    conn: &'a Connection,
    watched: &'a [Watched],
    shapes: &'a [Option<Shape>],
    source: &'a Arc<str>,
    at_ms: i64,
    touches: HashMap<RowKey, Touch>,
    changes: Vec<Change>,
    /// Tables that could not be read, already told by a reload.
    lost: HashSet<usize>,
    /// Rows that were displaced some time after their last entry.
    vanished: Vec<(usize, What)>,
}

impl Collapse<'_> {
    fn entry(&mut self, at: usize, entry: &Entry, table: usize) -> rusqlite::Result<()> {
        let shapes = self.shapes;
        let Some(shape) = &shapes[table] else {
            // The table is gone or lacks its key: what its rows were cannot be told.
            if self.lost.insert(table) {
                self.push(entry.id, 0, table, What::Reload);
            }
            return Ok(());
        };
        let width = self.watched[table].identity.len();
        let (new, old) = (&entry.new[..width], &entry.old[..width]);
        match entry.op {
            'r' => self.push(entry.id, 0, table, What::Reload),
            'i' => self.state(at, (entry.id, 0), table, shape, new, true)?,
            'd' => self.state(at, (entry.id, 0), table, shape, old, false)?,
            'u' if encode_all(new) == encode_all(old) => {
                self.state(at, (entry.id, 0), table, shape, new, true)?;
            }
            'u' => self.moved(at, entry.id, table, shape, (old, new))?,
            _ => {}
        }
        Ok(())
    }

    /// A row's state, if this entry is its last; `existed` says whether it was there after it.
    fn state(
        &mut self,
        at: usize,
        (id, ordinal): (u64, u32),
        table: usize,
        shape: &Shape,
        identity: &[Value],
        existed: bool,
    ) -> rusqlite::Result<()> {
        let Some(touch) = self.last_touch(at, table, identity) else {
            return Ok(());
        };
        let inserted = touch.inserted;
        let new = shape.fetch(self.conn, identity)?;
        let vanished = existed && new.is_none();
        let inserted = inserted && new.is_some();
        let what = What::Row {
            shape: shape.table.clone(),
            inserted,
            old: (!inserted).then(|| shape.identity(identity)),
            new,
        };
        match vanished {
            true => self.vanished.push((table, what)),
            false => self.push(id, ordinal, table, what),
        }
        Ok(())
    }

    /// An update that changed the key: one change, unless other entries came between.
    fn moved(
        &mut self,
        at: usize,
        id: u64,
        table: usize,
        shape: &Shape,
        (old, new): (&[Value], &[Value]),
    ) -> rusqlite::Result<()> {
        let both =
            self.last_touch(at, table, old).is_some() && self.last_touch(at, table, new).is_some();
        if both
            && shape.fetch(self.conn, old)?.is_none()
            && let Some(row) = shape.fetch(self.conn, new)?
        {
            let what = What::Row {
                shape: shape.table.clone(),
                inserted: false,
                old: Some(shape.identity(old)),
                new: Some(row),
            };
            self.push(id, 0, table, what);
            return Ok(());
        }
        self.state(at, (id, 0), table, shape, old, false)?;
        self.state(at, (id, 1), table, shape, new, true)
    }

    /// All changes by their place; `ends` are the last entries of the tables.
    fn finish(mut self, ends: &HashMap<usize, u64>) -> Vec<Change> {
        for (ordinal, (table, what)) in (2..).zip(std::mem::take(&mut self.vanished)) {
            self.push(ends[&table], ordinal, table, what);
        }
        self.changes
            .sort_by_key(|change| (change.checkpoint.high, change.checkpoint.low));
        self.changes
    }

    fn last_touch(&self, at: usize, table: usize, identity: &[Value]) -> Option<&Touch> {
        let mut padded = identity.to_vec();
        padded.resize(MAX_KEY_COLUMNS, Value::Null);
        let touch = self.touches.get(&(table, encode_all(&padded)))?;
        (touch.last == at).then_some(touch)
    }

    fn push(&mut self, id: u64, ordinal: u32, table: usize, what: What) {
        self.changes.push(Change {
            table: self.watched[table].table.as_str().into(),
            what,
            checkpoint: Checkpoint {
                source: self.source.clone(),
                high: id,
                low: ordinal,
            },
            tx: None,
            at_ms: self.at_ms,
            xid: None,
        });
    }
}

/// A text that two values share only if they are the same, storage class included.
fn encode(value: &Value) -> Vec<u8> {
    let (tag, bytes): (u8, &[u8]) = match value {
        Value::Null => (0, &[]),
        Value::Integer(integer) => (1, &integer.to_be_bytes()),
        Value::Real(real) => (2, &real.to_bits().to_be_bytes()),
        Value::Text(text) => (3, text.as_bytes()),
        Value::Blob(bytes) => (4, bytes),
        Value::Boolean(truth) => (5, if *truth { &[1] } else { &[0] }),
        Value::Json(text) => (6, text.as_bytes()),
    };
    let mut out = vec![tag];
    out.extend_from_slice(&bytes.len().to_be_bytes());
    out.extend_from_slice(bytes);
    out
}

fn encode_all(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(encode).collect()
}
