//! Rows that vanish without a trigger: `INSERT OR REPLACE` removes a row that stands in the way
//! of another unique key, and SQLite fires no DELETE trigger for it.
//!
//! A shadow of the table's keys is kept in the reader's TEMP database. After the logged entries
//! are applied to it, it holds every key of the table; it holds *more* exactly when rows were
//! displaced. So one `count(*)` tells whether any were, and only then are the keys compared.

use rusqlite::Connection;

use super::changelog::Watched;
use crate::{
    event::{Change, What},
    row::{Names, Row, Value},
    sqlite::{self, quote},
};

/// The shadow of one table that has a unique index beside its primary key.
pub struct Shadow {
    /// The table that it belongs to.
    pub table: String,
    /// Built in the read that is under way: rows displaced before it are not known.
    pub fresh: bool,
    shadow: String,
    identity: Vec<String>,
    names: Names,
}

impl Shadow {
    /// Copies the table's keys. Call it inside the read transaction of a batch, after which the
    /// changelog is followed.
    pub fn build(conn: &Connection, number: usize, watched: &Watched) -> rusqlite::Result<Self> {
        let shadow = format!("temp.shadow_{number}");
        let columns: Vec<String> = (1..=watched.identity.len())
            .map(|n| format!("k{n}"))
            .collect();
        let columns = columns.join(", ");
        let keys: Vec<String> = watched.identity.iter().map(|name| quote(name)).collect();
        conn.execute_batch(&format!(
            "DROP TABLE IF EXISTS {shadow};
             CREATE TABLE {shadow} ({columns}, PRIMARY KEY ({columns}));
             INSERT OR IGNORE INTO {shadow} SELECT {} FROM main.{}",
            keys.join(", "),
            quote(&watched.table),
        ))?;
        Ok(Self {
            shadow,
            fresh: true,
            table: watched.table.clone(),
            names: watched
                .identity
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            identity: watched.identity.clone(),
        })
    }

    /// Applies a batch's changes, and appends a deletion for every row that was displaced.
    ///
    /// Which entry displaced a row is not known. The deletion stands at the last one of the table
    /// in this batch: a query placed before it may have seen the row gone already, and to delete
    /// it again changes nothing; placed earlier it could be outlived by an older reply.
    ///
    /// Returns whether there was any change of a row after the table's last reload.
    pub fn displaced(
        &self,
        conn: &Connection,
        changes: &mut Vec<Change>,
    ) -> rusqlite::Result<bool> {
        let mut last = None;
        for (index, change) in changes.iter().enumerate() {
            if *change.table == *self.table {
                self.apply(conn, change)?;
                // A reload covers what was displaced before it.
                last = matches!(change.what, What::Row { .. }).then_some(index);
            }
        }
        let Some(last) = last else { return Ok(false) };
        let (shadow, table) = (&self.shadow, quote(&self.table));
        let counts =
            format!("SELECT (SELECT count(*) FROM {shadow}) = (SELECT count(*) FROM main.{table})");
        if conn
            .prepare_cached(&counts)?
            .query_row([], |row| row.get(0))?
        {
            return Ok(true);
        }
        let template = changes[last].clone();
        let What::Row { shape, .. } = &template.what else {
            return Ok(true);
        };
        let first = template.checkpoint.low.max(1) + 1;
        let vanished = self.take_vanished(conn)?;
        let deletions = (first..).zip(vanished).map(|(ordinal, identity)| {
            let mut deletion = template.clone();
            deletion.checkpoint.low = ordinal;
            deletion.what = What::Row {
                shape: shape.clone(),
                inserted: false,
                old: Some(Row::new(self.names.clone(), identity)),
                new: None,
            };
            deletion
        });
        changes.splice(last + 1..last + 1, deletions);
        Ok(true)
    }

    fn apply(&self, conn: &Connection, change: &Change) -> rusqlite::Result<()> {
        let What::Row { old, new, .. } = &change.what else {
            return Ok(());
        };
        let marks: Vec<String> = (1..=self.identity.len()).map(|n| format!("?{n}")).collect();
        if let Some(keys) = old.as_ref().and_then(|row| row.pick(&self.identity)) {
            let tests: Vec<String> = (1..=keys.len()).map(|n| format!("k{n} IS ?{n}")).collect();
            let sql = format!("DELETE FROM {} WHERE {}", self.shadow, tests.join(" AND "));
            conn.prepare_cached(&sql)?
                .execute(rusqlite::params_from_iter(&keys))?;
        }
        if let Some(keys) = new.as_ref().and_then(|row| row.pick(&self.identity)) {
            let sql = format!(
                "INSERT OR IGNORE INTO {} VALUES ({})",
                self.shadow,
                marks.join(", ")
            );
            conn.prepare_cached(&sql)?
                .execute(rusqlite::params_from_iter(&keys))?;
        }
        Ok(())
    }

    /// The keys that the table no longer has, taken out of the shadow.
    fn take_vanished(&self, conn: &Connection) -> rusqlite::Result<Vec<Vec<Value>>> {
        let same = self.identity.iter().enumerate();
        // The first comparison finds an index, the second tells 'a' from 'A' where both are equal.
        let same: Vec<String> = same
            .map(|(n, name)| (quote(name), n + 1))
            .map(|(name, n)| format!("t.{name} IS s.k{n} AND t.{name} COLLATE BINARY IS s.k{n}"))
            .collect();
        let sql = format!(
            "DELETE FROM {} AS s WHERE NOT EXISTS (SELECT 1 FROM main.{} AS t WHERE {}) RETURNING *",
            self.shadow,
            quote(&self.table),
            same.join(" AND "),
        );
        let mut statement = conn.prepare(&sql)?;
        let width = self.identity.len();
        let rows = statement.query_map([], |row| {
            (0..width)
                .map(|n| Ok(sqlite::value(row.get_ref(n)?)))
                .collect()
        })?;
        rows.collect()
    }
}
