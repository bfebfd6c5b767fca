//! A client's filter → condition: the JSON form of queries (docs/protocol.md §1.1), judged in Rust
//! as the database judges it in a query. What Rust could not tell as the database does is refused,
//! and the value of a test is read as the query reads it (`store/sql.rs`).

use sqlparser::tokenizer::Location;

use super::{
    Condition, Op, Operand, Predicate,
    operand::{Literal, compared, under},
};
use crate::{
    protocol::{self, Test},
    row::{Value, unhex},
    topic::{Affinity, Collation, Column, Kind, Table, View},
};

/// Why a filter cannot be judged. Another filter is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// A column that the topic does not show.
    #[error("the topic's own columns are allowed")]
    Column,
    /// A value that is none of the column's type.
    #[error("a value of the column's type is needed")]
    Value,
    /// A test that only the database can judge.
    #[error("this test of this column is for queries only")]
    Test,
}

impl Predicate {
    /// Compiles a filter over the columns that a view shows of its table. An empty one holds for
    /// every row.
    ///
    /// # Errors
    /// [`BadFilter`]; a query may still take the same filter, for there the database judges.
    pub fn of_filter(
        filter: &[protocol::Condition],
        view: &View,
        table: &Table,
    ) -> Result<Self, BadFilter> {
        let mut columns = Vec::new();
        let mut parts = Vec::with_capacity(filter.len());
        for one in filter {
            let column = table.column(&one.column).ok_or(BadFilter::Column)?;
            if !view.shows(&column.name) {
                return Err(BadFilter::Column);
            }
            if !columns.contains(&column.name) {
                columns.push(column.name.clone());
            }
            parts.push(test(column, &one.test)?);
        }
        let condition = Condition::All(parts);
        Ok(Self { condition, columns })
    }
}

fn test(column: &Column, test: &Test) -> Result<Condition, BadFilter> {
    let (op, value) = match test {
        Test::Eq(Value::Null) => return null(column, false),
        Test::Ne(Value::Null) => return null(column, true),
        Test::Like(pattern) => return like(column, pattern),
        Test::In(values) => return list(column, values),
        Test::Eq(value) => return list(column, std::slice::from_ref(value)),
        Test::Ne(value) => {
            let equal = list(column, std::slice::from_ref(value))?;
            return Ok(Condition::Not(Box::new(equal)));
        }
        Test::Lt(value) => (Op::Lt, value),
        Test::Lte(value) => (Op::Le, value),
        Test::Gt(value) => (Op::Gt, value),
        Test::Gte(value) => (Op::Ge, value),
    };
    Ok(Condition::Literal {
        column: operand(column, op)?,
        op,
        value: read(column, value)?,
    })
}

/// JSON's null and SQL's are one in a row's image; and a row of NULLs, a value there, is NULL to a
/// query.
fn null(column: &Column, negated: bool) -> Result<Condition, BadFilter> {
    match column.kind {
        Some(Kind::Json | Kind::Other) => Err(BadFilter::Test),
        _ => Ok(Condition::Null {
            column: Operand::new(column),
            negated,
        }),
    }
}

fn list(column: &Column, values: &[Value]) -> Result<Condition, BadFilter> {
    let mut parts = Vec::new();
    if values.contains(&Value::Null) {
        parts.push(null(column, false)?);
    }
    let mut listed = Vec::new();
    for value in values.iter().filter(|value| **value != Value::Null) {
        listed.push(read(column, value)?);
        listed.extend(encoded(column, value));
    }
    if !listed.is_empty() {
        parts.push(Condition::In {
            column: operand(column, Op::Eq)?,
            negated: false,
            values: listed,
        });
    }
    // An empty list holds for no row.
    match (parts.pop(), parts.is_empty()) {
        (Some(one), true) => Ok(one),
        (last, _) => Ok(Condition::Any(parts.into_iter().chain(last).collect())),
    }
}

fn operand(column: &Column, op: Op) -> Result<Operand, BadFilter> {
    compared(column, op, Location::empty()).map_err(|_| BadFilter::Test)
}

/// As `Builder::encoded` of the Store: what a text may stand for in SQLite, beside itself.
fn encoded(column: &Column, value: &Value) -> Option<Value> {
    let Value::Text(text) = value else {
        return None;
    };
    if column.kind.is_some() {
        return None;
    }
    if let Some(bytes) = unhex(text) {
        return Some(Value::Blob(bytes));
    }
    let integer = text.parse::<i64>().ok();
    let integer = integer.filter(|integer| integer.to_string() == *text);
    integer
        .filter(|_| column.affinity == Affinity::Blob)
        .map(Value::Integer)
}

/// The value as the database compares it with the column.
fn read(column: &Column, value: &Value) -> Result<Value, BadFilter> {
    if column.kind.is_none() && column.affinity == Affinity::Blob {
        return Ok(value.clone());
    }
    let literal = match &column.kind {
        Some(kind) => typed(kind, value),
        None => stored(column.affinity, value),
    };
    let literal = literal.ok_or(BadFilter::Value)?;
    under(column, literal, Location::empty()).map_err(|_| BadFilter::Value)
}

/// A value bound to a comparison in SQLite, under the affinity of the column. How SQLite writes a
/// real as text depends on its version, so that a text is not compared with one.
fn stored(affinity: Affinity, value: &Value) -> Option<Literal> {
    Some(match (affinity, value) {
        (Affinity::Text, Value::Integer(integer)) => Literal::Text(integer.to_string()),
        (Affinity::Text, Value::Real(_)) => return None,
        (_, Value::Integer(integer)) => Literal::Number(integer.to_string()),
        (_, Value::Real(real)) => Literal::Number(format!("{real:?}")),
        (_, Value::Text(text)) => Literal::Text(text.clone()),
        (_, Value::Blob(bytes)) => Literal::Blob(bytes.clone()),
        (_, Value::Null | Value::Boolean(_) | Value::Json(_)) => return None,
    })
}

/// A value bound as a text and cast to the column's type, as `store/sql/dialect.rs` does it.
fn typed(kind: &Kind, value: &Value) -> Option<Literal> {
    match (kind, value) {
        (Kind::Boolean, Value::Integer(bit @ (0 | 1))) => Some(Literal::Truth(*bit == 1)),
        (Kind::Integer | Kind::Oid, Value::Real(real)) => {
            let whole = real.fract() == 0.0 && real.abs() <= 9_007_199_254_740_991.0;
            whole.then(|| Literal::Number((*real as i64).to_string()))
        }
        (Kind::Text | Kind::Padded | Kind::Enum { .. }, Value::Integer(integer)) => {
            Some(Literal::Text(integer.to_string()))
        }
        (Kind::Text | Kind::Padded | Kind::Enum { .. }, Value::Real(real)) => {
            Some(Literal::Text(real.to_string()))
        }
        (Kind::Bytes, Value::Text(text)) => Some(Literal::Text(text.clone())),
        (Kind::Bytes | Kind::Boolean, Value::Integer(_) | Value::Real(_)) => None,
        (_, Value::Integer(integer)) => Some(Literal::Number(integer.to_string())),
        (_, Value::Real(real)) => Some(Literal::Number(real.to_string())),
        // PostgreSQL's texts hold no NUL.
        (_, Value::Text(text)) if text.contains('\0') => None,
        (_, Value::Text(text)) => Some(Literal::Text(text.clone())),
        (_, Value::Null | Value::Blob(_) | Value::Boolean(_) | Value::Json(_)) => None,
    }
}

/// LIKE of columns whose text is the same in the image and in the database.
fn like(column: &Column, pattern: &str) -> Result<Condition, BadFilter> {
    let judged = match &column.kind {
        // Reals, whose text is SQLite's own affair, can be in columns of every other affinity.
        None => column.affinity == Affinity::Text,
        Some(Kind::Text | Kind::Padded) => column.collation != Collation::Other,
        Some(Kind::Integer | Kind::Oid | Kind::Enum { .. } | Kind::Uuid) => true,
        Some(_) => false,
    };
    match judged {
        true if column.kind.is_some() && pattern.contains('\0') => Err(BadFilter::Value),
        true => Ok(Condition::Like {
            column: Operand::new(column),
            pattern: pattern.into(),
        }),
        false => Err(BadFilter::Test),
    }
}
