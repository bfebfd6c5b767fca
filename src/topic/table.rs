//! Tables, and the results of queries, as a database describes them.

use std::sync::Arc;

use super::{BadTopic, Kind, nearest};

/// What SQLite does to a value before it compares it with the column (sqlite.org/datatype3 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Declared INT…
    Integer,
    /// Declared CHAR, CLOB, TEXT.
    Text,
    /// Declared BLOB, or without a type: nothing is converted.
    Blob,
    /// Declared REAL, FLOA, DOUB.
    Real,
    /// Anything else: DATE, BOOLEAN, DECIMAL…
    Numeric,
}

/// How two texts of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    /// Byte by byte.
    Binary,
    /// As `Binary`, ASCII letters without regard to case.
    NoCase,
    /// As `Binary`, trailing spaces ignored.
    RTrim,
    /// Equal only byte by byte, but ordered by the rules of a language. PostgreSQL only.
    Locale,
    /// Defined by some program: Rust cannot follow it.
    Other,
}

/// One column of a table, as the database describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The name as declared.
    pub name: Arc<str>,
    /// The declared type, possibly empty.
    pub declared: String,
    /// What that type means for comparisons in SQLite; [`Affinity::Blob`] elsewhere.
    pub affinity: Affinity,
    /// What a PostgreSQL column holds; `None` in SQLite, where any column holds anything.
    pub kind: Option<Kind>,
    /// How texts compare.
    pub collation: Collation,
    /// Declared NOT NULL.
    pub not_null: bool,
}

/// A table, or the result of a query, as the database describes it at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The name as declared; empty for the result of a query.
    pub name: String,
    /// In declaration order, without hidden ones.
    pub columns: Vec<Column>,
    /// The primary key's columns in key order; empty where the table declares none.
    pub primary_key: Vec<String>,
    /// Column sets under a UNIQUE constraint of the table itself.
    pub unique: Vec<Vec<String>>,
    /// Whether REPLACE may displace a row of another key: there is a unique index beside the
    /// primary key, or two spellings of one primary key.
    pub displaces: bool,
}

impl Column {
    /// Whether nothing says what it holds: no type is declared, or any is. Also what a query computes
    /// in SQLite.
    pub fn holds_anything(&self) -> bool {
        self.kind.is_none()
            && (self.declared.is_empty() || self.declared.eq_ignore_ascii_case("any"))
    }

    /// Whether an integer of it may be beyond ±(2^53 − 1), where JSON's readers round numbers. Of a
    /// domain this is not known, and so it may.
    pub fn holds_large_integers(&self) -> bool {
        let element = self.declared.trim_end_matches("[]");
        !(self.kind.is_some() && matches!(element, "smallint" | "integer"))
    }
}

impl Table {
    /// The column of that name, letter by letter.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| &*column.name == name)
    }

    /// What it is called in a message.
    pub fn called(&self) -> String {
        match self.name.as_str() {
            "" => "the query's result".to_owned(),
            name => format!("table \"{name}\""),
        }
    }

    /// An error for a column that does not exist, with the nearest one that does.
    pub(super) fn unknown(&self, field: &'static str, name: &str) -> BadTopic {
        let nearest = nearest(name, self.columns.iter().map(|c| &*c.name));
        let hint = nearest.map_or_else(
            || format!("its columns are {}", self.names().join(", ")),
            |near| format!("did you mean \"{near}\"?"),
        );
        BadTopic {
            field,
            reason: format!("{} has no column \"{name}\"; {hint}", self.called()),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| &*column.name).collect()
    }
}
