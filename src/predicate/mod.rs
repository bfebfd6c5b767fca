//! A topic's `where`: one condition that the database evaluates in queries and Rust on the
//! rows of the change stream. Both run the same tree: the user's text is parsed once and never
//! reaches the database, which gets [`Predicate::to_sql`] instead (docs/protocol.md §1.2).
//!
//! The reference is the table's database. SQLite: storage classes, affinities, collations and NULL
//! act as in sqlite.org/datatype3 §3–§4, to the last bit of a number. PostgreSQL: the column's type
//! says what may be compared and how.

mod decimal;
mod eval;
mod filter;
mod image;
mod like;
mod moment;
mod number;
mod operand;
mod parse;
mod pin;
mod policy;
mod sql;
mod tokens;
mod typed;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::{
    row::{Row, Value},
    topic::{Collation, Kind},
};

pub use filter::BadFilter;
pub use image::image;
pub use parse::parse;
use policy::Claim;
pub use policy::{Unbound, claims};
pub use verdict::{Judges, Verdict};

/// The deepest nesting of parentheses and NOT.
///
/// The parser and the evaluation recurse once per level; nobody reads a deeper one.
pub const MAX_DEPTH: usize = 32;

/// The most comparisons of one condition.
///
/// SQLite refuses expressions of a height over 1000, and every AND adds one; half of that leaves
/// room for what a query adds to the view's condition.
pub const MAX_COMPARISONS: usize = 500;

/// A condition over the columns of one table, compiled by [`parse`], or of a client's filter by
/// [`Predicate::of_filter`].
///
/// Two predicates of one table are equal exactly when their [`Predicate::to_sql`] is.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    condition: Condition,
    columns: Vec<Arc<str>>,
}

/// Why a text is no condition, and where.
///
/// The text comes from a configuration or a client; the message tells its author what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {line}:{column}: {message}")]
pub struct PredicateError {
    /// The line in the text, from 1.
    pub line: u64,
    /// The character in that line, from 1.
    pub column: u64,
    /// What is wrong and what is allowed.
    pub message: String,
}

/// The tree that Rust and the database both run.
///
/// Literals already carry the affinity of their column: what is printed is what is compared.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Literal {
        column: Operand,
        op: Op,
        value: Value,
    },
    Columns {
        left: Operand,
        op: Op,
        right: Operand,
    },
    In {
        column: Operand,
        negated: bool,
        values: Vec<Value>,
    },
    Between {
        column: Operand,
        negated: bool,
        low: Value,
        high: Value,
    },
    Null {
        column: Operand,
        negated: bool,
    },
    /// Of a policy only, until it is bound to somebody's claims.
    Claim(Box<Claim>),
    /// Of a filter only.
    Like {
        column: Operand,
        pattern: Box<str>,
    },
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// A column, as a comparison reads it.
#[derive(Debug, Clone, PartialEq)]
struct Operand {
    name: Arc<str>,
    /// Texts that look like numbers are compared as numbers.
    numeric: bool,
    collation: Collation,
    /// What PostgreSQL's column holds; none in SQLite.
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

// === impl Predicate ===

impl Predicate {
    /// Evaluates the condition as SQLite does: true, false, or `None` for SQL's unknown.
    ///
    /// `row` holds values as the database stores them, under the table's own column names. A
    /// column that the image does not hold makes its comparisons unknown, IS NULL included: who
    /// needs to tell that from NULL looks for [`Predicate::columns`] in the row first.
    pub fn test(&self, row: &Row) -> Option<bool> {
        self.condition.test(row)
    }

    /// Whether the row is inside the view: unknown is outside, as in a WHERE clause.
    pub fn holds(&self, row: &Row) -> bool {
        self.test(row) == Some(true)
    }

    /// The columns that the condition reads, each once, by first mention, named as declared.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|name| &**name)
    }

    /// The condition as SQL for SQLite, which yields 1, 0 or NULL where [`Predicate::test`]
    /// yields true, false or `None`.
    ///
    /// It can stand beside AND, OR and NOT without further parentheses, and holds quoted names
    /// and our own literals only. The text is canonical: spellings of one condition that differ
    /// in case, spacing, quoting, redundant parentheses or the side of a literal give the same,
    /// and [`parse`] reads it back to an equal predicate.
    pub fn to_sql(&self) -> String {
        let literal = &mut |column: &Operand, value: &Value| column.sql(value).to_string();
        self.condition.write_whole(literal)
    }

    /// The same with every value that is not NULL wherever `bind` puts it, which is told the column's
    /// name and the value, in the order of the text, and answers with what stands there.
    pub fn to_bound_sql(&self, mut bind: impl FnMut(&str, &Value) -> String) -> String {
        self.condition
            .write_whole(&mut |column, value| match value {
                Value::Null => "NULL".to_owned(),
                value => bind(&column.name, value),
            })
    }
}
