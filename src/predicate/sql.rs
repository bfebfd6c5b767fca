//! Condition → SQL. Values are written as literals of our own, or go wherever whoever binds them says.

use std::fmt;

use super::{Condition, Op, Operand};
use crate::{
    row::{Value, hex},
    topic::Kind,
};

/// Writes a value that is compared with a column, and may keep it.
pub(super) type Place<'a> = &'a mut dyn FnMut(&Operand, &Value) -> String;

// === impl Condition ===

impl Condition {
    /// What can stand beside AND, OR and NOT without further parentheses.
    pub(super) fn write_whole(&self, place: Place<'_>) -> String {
        match self {
            several @ (Self::All(_) | Self::Any(_)) => format!("({})", several.write(place)),
            one => one.write(place),
        }
    }

    fn write(&self, place: Place<'_>) -> String {
        match self {
            Self::Literal { column, op, value } => {
                format!("{column} {op} {}", place(column, value))
            }
            Self::Columns { left, op, right } => {
                // Two columns may have two collations, which PostgreSQL would not choose between.
                let bytewise = match left.kind {
                    Some(Kind::Text | Kind::Padded) => " COLLATE \"C\"",
                    _ => "",
                };
                format!("{left}{bytewise} {op} {right}")
            }
            // Of a list without members all is known.
            Self::In {
                negated, values, ..
            } if values.is_empty() => negated.to_string().to_ascii_uppercase(),
            Self::In {
                column,
                negated,
                values,
            } => {
                let values: Vec<String> = values.iter().map(|value| place(column, value)).collect();
                format!("{column} {}IN ({})", not(*negated), values.join(", "))
            }
            Self::Between {
                column,
                negated,
                low,
                high,
            } => {
                let not = not(*negated);
                let low = place(column, low);
                format!("{column} {not}BETWEEN {low} AND {}", place(column, high))
            }
            // A row of NULLs would be NULL to PostgreSQL, and is a value to the change stream.
            Self::Null { column, negated } if column.kind == Some(Kind::Other) => {
                format!("num_nulls({column}) = {}", u8::from(!*negated))
            }
            Self::Null { column, negated } => format!("{column} IS {}NULL", not(*negated)),
            // Nobody's claim is NULL.
            Self::Claim(claim) => claim.bound(None).write(place),
            Self::Like { column, pattern } => {
                format!("{column} LIKE '{}'", pattern.replace('\'', "''"))
            }
            Self::Not(inner) => match **inner {
                Self::All(_) | Self::Any(_) => format!("NOT ({})", inner.write(place)),
                _ => format!("NOT {}", inner.write(place)),
            },
            Self::All(parts) => join(" AND ", parts, place),
            Self::Any(parts) => join(" OR ", parts, place),
        }
    }
}

fn join(word: &str, parts: &[Condition], place: Place<'_>) -> String {
    // An OR never stands in an OR, so one within a list is within an AND, which binds tighter.
    let parts: Vec<String> = parts
        .iter()
        .map(|part| match part {
            Condition::Any(_) => format!("({})", part.write(place)),
            _ => part.write(place),
        })
        .collect();
    parts.join(word)
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
    pub(super) fn sql<'a>(&'a self, value: &'a Value) -> Sql<'a> {
        Sql(value, self.kind.is_some())
    }
}

/// A value as a literal that the database reads back as the same value: SQLite, or PostgreSQL,
/// which takes a text in quotes for a value of the column's type.
pub(super) struct Sql<'a>(&'a Value, bool);

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
