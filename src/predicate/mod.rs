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
mod tokens;
mod typed;
mod verdict;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use crate::{
    row::{Row, Value, hex},
    topic::{Collation, Kind},
};

pub use filter::BadFilter;
pub use image::image;
pub use parse::parse;
pub use verdict::Verdict;

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
        match &self.condition {
            several @ (Condition::All(_) | Condition::Any(_)) => format!("({several})"),
            one => one.to_string(),
        }
    }
}

// === impl Condition ===

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal { column, op, value } => write!(f, "{column} {op} {}", column.sql(value)),
            Self::Columns { left, op, right } => {
                // Two columns may have two collations, which PostgreSQL would not choose between.
                let bytewise = match left.kind {
                    Some(Kind::Text | Kind::Padded) => " COLLATE \"C\"",
                    _ => "",
                };
                write!(f, "{left}{bytewise} {op} {right}")
            }
            Self::In {
                column,
                negated,
                values,
            } => {
                write!(f, "{column} {}IN (", not(*negated))?;
                for (index, value) in values.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{}", column.sql(value))?;
                }
                f.write_str(")")
            }
            Self::Between {
                column,
                negated,
                low,
                high,
            } => {
                let not = not(*negated);
                let (low, high) = (column.sql(low), column.sql(high));
                write!(f, "{column} {not}BETWEEN {low} AND {high}")
            }
            // A row of NULLs would be NULL to PostgreSQL, and is a value to the change stream.
            Self::Null { column, negated } if column.kind == Some(Kind::Other) => {
                write!(f, "num_nulls({column}) = {}", u8::from(!*negated))
            }
            Self::Null { column, negated } => write!(f, "{column} IS {}NULL", not(*negated)),
            Self::Like { column, pattern } => {
                write!(f, "{column} LIKE '{}'", pattern.replace('\'', "''"))
            }
            Self::Not(inner) => match **inner {
                Self::All(_) | Self::Any(_) => write!(f, "NOT ({inner})"),
                _ => write!(f, "NOT {inner}"),
            },
            Self::All(parts) => join(f, " AND ", parts),
            Self::Any(parts) => join(f, " OR ", parts),
        }
    }
}

fn join(f: &mut fmt::Formatter<'_>, word: &str, parts: &[Condition]) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        // An OR never stands in an OR, so one within a list is within an AND, which binds tighter.
        match part {
            Condition::Any(_) => write!(f, "({part})")?,
            _ => write!(f, "{part}")?,
        }
    }
    Ok(())
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.name.replace('"', "\"\""))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        })
    }
}

impl Operand {
    fn sql<'a>(&'a self, value: &'a Value) -> Sql<'a> {
        Sql(value, self.kind.is_some())
    }
}

/// A value as a literal that the database reads back as the same value: SQLite, or PostgreSQL,
/// which takes a text in quotes for a value of the column's type.
struct Sql<'a>(&'a Value, bool);

impl fmt::Display for Sql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (Value::Null, _) => f.write_str("NULL"),
            (Value::Integer(integer), _) => write!(f, "{integer}"),
            (Value::Real(real), true) if real.is_nan() => f.write_str("'NaN'"),
            (Value::Real(real), true) => write!(f, "'{real:?}'"),
            // SQL has no word for infinity; a number past the largest double reads as one.
            (Value::Real(real), false) if real.is_infinite() && *real > 0.0 => f.write_str("9e999"),
            (Value::Real(real), false) if real.is_infinite() => f.write_str("-9e999"),
            // The shortest digits that give the same double, always with a point or an exponent.
            (Value::Real(real), false) => write!(f, "{real:?}"),
            (Value::Text(text), _) => write!(f, "'{}'", text.replace('\'', "''")),
            (Value::Blob(bytes), true) => write!(f, "'{}'", hex(bytes)),
            (Value::Blob(bytes), false) => write!(f, "X'{}'", &hex(bytes)[2..]),
            (Value::Boolean(truth), _) => write!(f, "{truth}"),
            (Value::Json(text), _) => write!(f, "'{}'", text.replace('\'', "''")),
        }
    }
}
