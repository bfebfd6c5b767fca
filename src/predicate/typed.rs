//! Comparisons of PostgreSQL's kinds: which literals fit a column, and what comes before what. What
//! Rust could not tell exactly as PostgreSQL does is refused, where it stands.

use std::cmp::Ordering;

use sqlparser::tokenizer::Location;

use super::{
    Op, PredicateError, decimal::Decimal, moment, operand::Literal, parse::Result, tokens::refuse,
};
use crate::{
    row::{Value, unhex},
    topic::{Collation, Column, Kind},
};

/// Refuses to compare what cannot be compared, or cannot be put in order.
pub(super) fn comparable(column: &Column, kind: &Kind, op: Op, at: Location) -> Result<()> {
    let (name, declared) = (&column.name, &column.declared);
    let ordering = !matches!(op, Op::Eq | Op::Ne);
    let message = match (kind, column.collation) {
        (Kind::Json | Kind::Array { .. } | Kind::Other, _) => format!(
            "column \"{name}\" is of type {declared}, which conditions do not compare; \
             IS [NOT] NULL is allowed"
        ),
        (Kind::Text | Kind::Padded, Collation::Other) => format!(
            "column \"{name}\" has a collation under which different texts are equal; declare it \
             with COLLATE \"C\"; IS [NOT] NULL is allowed"
        ),
        (Kind::Text | Kind::Padded, Collation::Locale) if ordering => format!(
            "the texts of column \"{name}\" are ordered by the rules of a language, which cannot \
             be followed; declare it with COLLATE \"C\", or compare with =, <> and IN"
        ),
        (Kind::Enum { .. }, _) if ordering => {
            format!("column \"{name}\" is an enum; compare it with =, <> and IN")
        }
        _ => return Ok(()),
    };
    Err(refuse(at, message))
}

/// Refuses to compare two columns of kinds that differ.
pub(super) fn alike(left: (&Column, &Kind), right: (&Column, &Kind), at: Location) -> Result<()> {
    let exact = |kind: &Kind| matches!(kind, Kind::Integer | Kind::Numeric);
    let same = left.1 == right.1 && !matches!(left.1, Kind::Enum { .. });
    if same || exact(left.1) && exact(right.1) {
        return Ok(());
    }
    let message = format!(
        "\"{}\" ({}) and \"{}\" ({}) cannot be compared; both must be of one type, and enums are \
         compared with literals only",
        left.0.name, left.0.declared, right.0.name, right.0.declared
    );
    Err(refuse(at, message))
}

/// A literal as a value of the column's type, in the one form in which that type has it.
pub(super) fn literal(
    column: &Column,
    kind: &Kind,
    literal: Literal,
    at: Location,
) -> Result<Value> {
    if literal == Literal::Null {
        return Ok(Value::Null);
    }
    let needed = match kind {
        Kind::Enum { labels } if matches!(literal, Literal::Text(_)) => {
            format!("one of its labels: {}", labels.join(", "))
        }
        kind => needed(kind).to_owned(),
    };
    read(kind, literal).ok_or_else(|| wrong(column, &needed, at))
}

fn wrong(column: &Column, needed: &str, at: Location) -> PredicateError {
    let message = format!(
        "column \"{}\" is of type {} and is compared with {needed}",
        column.name, column.declared
    );
    refuse(at, message)
}

fn needed(kind: &Kind) -> &'static str {
    match kind {
        Kind::Boolean => "TRUE or FALSE",
        Kind::Integer => "an integer of 64 bits",
        Kind::Oid => "an integer of 32 bits, without sign",
        Kind::Float4 | Kind::Float8 => "a number within its range",
        Kind::Numeric => "a number",
        Kind::Timestamptz => "a time such as '2026-11-23 02:36:00+00'",
        Kind::Timestamp => "a time without zone, such as '2026-11-23 02:36:00'",
        Kind::Date => "a date such as '2026-11-23'",
        Kind::Time => "a time such as '02:36:00'",
        Kind::Uuid => "a UUID such as '01234567-89ab-cdef-0123-456789abcdef'",
        Kind::Bytes => "bytes such as X'00ff'",
        _ => "a text in quotes: '…'",
    }
}

fn read(kind: &Kind, literal: Literal) -> Option<Value> {
    match (kind, literal) {
        (Kind::Boolean, Literal::Truth(truth)) => Some(Value::Boolean(truth)),
        (Kind::Boolean, Literal::Text(text)) => match text.as_str() {
            "t" | "true" => Some(Value::Boolean(true)),
            "f" | "false" => Some(Value::Boolean(false)),
            _ => None,
        },
        (Kind::Integer, Literal::Number(text) | Literal::Text(text)) => {
            text.parse().ok().map(Value::Integer)
        }
        (Kind::Oid, Literal::Number(text) | Literal::Text(text)) => {
            let oid: u32 = text.parse().ok()?;
            Some(Value::Integer(oid.into()))
        }
        (Kind::Float4, Literal::Number(text) | Literal::Text(text)) => {
            let real: f32 = text.parse().ok()?;
            // In the digits that a row of the column has it in.
            within(&text, real == 0.0, real.is_infinite())?;
            format!("{real:?}").parse().ok().map(unsigned_zero)
        }
        (Kind::Float8, Literal::Number(text) | Literal::Text(text)) => {
            let real: f64 = text.parse().ok()?;
            within(&text, real == 0.0, real.is_infinite())?;
            Some(unsigned_zero(real))
        }
        (Kind::Numeric, Literal::Number(text) | Literal::Text(text)) => {
            Decimal::parse(&text).map(|decimal| Value::Text(decimal.to_string()))
        }
        (Kind::Text, Literal::Text(text)) => Some(Value::Text(text)),
        (Kind::Padded, Literal::Text(text)) => Some(Value::Text(trimmed(&text).to_owned())),
        (Kind::Enum { labels }, Literal::Text(text)) => {
            let known = labels.iter().any(|label| **label == *text);
            known.then_some(Value::Text(text))
        }
        (Kind::Timestamptz | Kind::Timestamp | Kind::Date | Kind::Time, Literal::Text(text)) => {
            moment::literal(kind, &text).map(Value::Text)
        }
        (Kind::Uuid, Literal::Text(text)) => uuid(&text).map(Value::Text),
        (Kind::Bytes, Literal::Blob(bytes)) => Some(Value::Blob(bytes)),
        (Kind::Bytes, Literal::Text(text)) => unhex(&text).map(Value::Blob),
        _ => None,
    }
}

/// PostgreSQL refuses a number that rounds to zero or to infinity.
fn within(text: &str, zero: bool, infinite: bool) -> Option<()> {
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let digit = mantissa.contains(|c: char| matches!(c, '1'..='9'));
    let number = text.contains(|c: char| c.is_ascii_digit());
    (!(zero && digit || infinite && number)).then_some(())
}

fn unsigned_zero(real: f64) -> Value {
    Value::Real(real + 0.0)
}

fn uuid(text: &str) -> Option<String> {
    let dashes = [8, 13, 18, 23];
    let valid = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| match dashes.contains(&at) {
                true => byte == b'-',
                false => byte.is_ascii_hexdigit(),
            });
    valid.then(|| text.to_ascii_lowercase())
}

/// The order of two values of a kind; `None` if one is NULL, or not what the kind's values are.
pub(super) fn compare(kind: &Kind, a: &Value, b: &Value) -> Option<Ordering> {
    use Value::{Blob, Boolean, Integer, Real, Text};
    match (kind, a, b) {
        (_, Boolean(a), Boolean(b)) => Some(a.cmp(b)),
        (_, Integer(a), Integer(b)) => Some(a.cmp(b)),
        // NaN is equal to itself and above everything.
        (_, Real(a), Real(b)) => a
            .partial_cmp(b)
            .or_else(|| Some(a.is_nan().cmp(&b.is_nan()))),
        (_, Blob(a), Blob(b)) => Some(a.cmp(b)),
        (Kind::Numeric | Kind::Integer, a, b) => Some(decimal(a)?.cmp(&decimal(b)?)),
        (Kind::Padded, Text(a), Text(b)) => Some(trimmed(a).as_bytes().cmp(trimmed(b).as_bytes())),
        (Kind::Timestamptz | Kind::Timestamp | Kind::Date | Kind::Time, Text(a), Text(b)) => {
            Some(moment::key(kind, a)?.cmp(&moment::key(kind, b)?))
        }
        (Kind::Text | Kind::Enum { .. } | Kind::Uuid, Text(a), Text(b)) => {
            Some(a.as_bytes().cmp(b.as_bytes()))
        }
        _ => None,
    }
}

fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Integer(integer) => Decimal::parse(&integer.to_string()),
        Value::Text(text) => Decimal::parse(text),
        _ => None,
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches(' ')
}
