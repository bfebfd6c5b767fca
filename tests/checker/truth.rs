//! What was committed, in the order of commits, told by others than Rowcast: the writers
//! themselves on SQLite, a logical slot of its own on PostgreSQL.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use serde_json::Value as Json;

use super::rows::{Row, Rows, Tables};
use crate::support::postgres::Database;

/// The slot beside Rowcast's own.
pub const SLOT: &str = "truth";

/// Every transaction, by its number.
#[derive(Debug, Default)]
pub struct Truth {
    /// The numbers in the order of commits.
    pub order: Vec<u64>,
    /// What both tables held after each.
    pub after: Vec<Tables>,
    places: HashMap<u64, usize>,
}

impl Truth {
    fn push(&mut self, number: u64, tables: Tables) {
        self.places.insert(number, self.order.len());
        self.order.push(number);
        self.after.push(tables);
    }

    /// Where a number stands in the order of commits; none where it was never committed.
    pub fn place(&self, number: u64) -> Option<usize> {
        self.places.get(&number).copied()
    }

    /// What the tables held before all of that, or after a transaction.
    pub fn state(&self, place: Option<usize>) -> Tables {
        place.map_or_else(Tables::default, |place| self.after[place].clone())
    }

    /// Reads what the writers of a SQLite file noted within their transactions. Only one writes at
    /// a time there, and takes the next number: the numbers are the order.
    pub fn of_writers(logs: &[impl AsRef<Path>]) -> Self {
        let mut told: Vec<(u64, Tables)> = Vec::new();
        for log in logs {
            let text = fs::read_to_string(log).unwrap();
            told.extend(text.lines().map(|line| {
                let json: Json = serde_json::from_str(line).unwrap();
                let tables = Tables {
                    t: Arc::new(noted(&json["t"])),
                    u: Arc::new(noted(&json["u"])),
                };
                (json["n"].as_u64().unwrap(), tables)
            }));
        }
        told.sort_by_key(|(number, _)| *number);
        let mut truth = Self::default();
        for (number, tables) in told {
            truth.push(number, tables);
        }
        truth
    }

    /// Reads the slot to its end, in the form of `test_decoding`.
    pub fn of_slot(database: &Database) -> Self {
        let sql = format!(
            "SELECT data FROM pg_logical_slot_get_changes('{SLOT}', NULL, NULL, 'skip-empty-xacts', '1')"
        );
        let mut truth = Self::default();
        let (mut tables, mut number) = (Tables::default(), None);
        for line in database.sql(&sql) {
            let line = line.into_iter().next().flatten().unwrap_or_default();
            let change = line.strip_prefix("table public.");
            if line.starts_with("COMMIT") {
                if let Some(number) = number.take() {
                    truth.push(number, tables.clone());
                }
            } else if let Some((table, change)) = change.and_then(|change| change.split_once(": "))
            {
                match table {
                    "t" => decoded(change, Arc::make_mut(&mut tables.t)),
                    "u" => decoded(change, Arc::make_mut(&mut tables.u)),
                    "log" => {
                        number = fields(change)
                            .get("id")
                            .copied()
                            .flatten()
                            .map(|id| id as u64)
                    }
                    _ => {}
                }
            }
        }
        truth
    }
}

fn noted(rows: &Json) -> Rows {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| {
        let (slot, grp, v) = (row[1].as_i64(), row[2].as_i64(), row[3].as_i64().unwrap());
        (row[0].as_i64().unwrap(), Row { slot, grp, v })
    })
    .collect()
}

/// Applies `UPDATE: old-key: id[integer]:1 new-tuple: id[integer]:2 slot[integer]:null …`.
fn decoded(change: &str, rows: &mut Rows) {
    let (op, rest) = change.split_once(": ").unwrap();
    let (old, new) = match rest.split_once("new-tuple: ") {
        Some((old, new)) => (Some(old), new),
        None => (None, rest),
    };
    if op == "TRUNCATE" {
        return rows.clear();
    }
    let new = fields(new);
    let key = new["id"].unwrap();
    if let Some(old) = old {
        rows.remove(&fields(old)["id"].unwrap());
    }
    if op == "DELETE" {
        rows.remove(&key);
        return;
    }
    let row = Row {
        slot: new["slot"],
        grp: new["grp"],
        v: new["v"].unwrap(),
    };
    rows.insert(key, row);
}

/// `name[type]:value`, of whole numbers and nulls only.
fn fields(text: &str) -> HashMap<&str, Option<i64>> {
    let words = text.split_whitespace().filter_map(|word| {
        let (name, value) = word.split_once("]:")?;
        Some((name.split_once('[')?.0, value.parse().ok()))
    });
    words.collect()
}
