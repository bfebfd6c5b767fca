//! Columns and literals: what a comparison may compare, and what SQLite makes of it beforehand.

use sqlparser::tokenizer::{Location, Token};

use super::{
    Condition, Operand, PredicateError,
    number::number,
    parse::{Parser, Result},
    tokens::{outside, refuse, unquoted},
};
use crate::{
    row::{Value, unhex},
    topic::{Affinity, Collation, Column, Table, nearest},
};

/// Words that are never a column's name unless quoted: they begin something else.
const RESERVED: &[&str] = &[
    "AND",
    "BETWEEN",
    "CASE",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "EXISTS",
    "IN",
    "IS",
    "ISNULL",
    "NOT",
    "NOTNULL",
    "OR",
    "SELECT",
    "VALUES",
];

/// What was read, and where it starts.
pub(super) struct Part<'a> {
    pub(super) at: Location,
    pub(super) is: Is<'a>,
}

pub(super) enum Is<'a> {
    Column(&'a Column),
    Literal(Value),
    Condition(Condition),
}

// === impl Parser ===

impl<'a> Parser<'a> {
    /// A number, a text or a blob.
    pub(super) fn constant(&mut self) -> Result<Part<'a>> {
        let at = self.tokens.place();
        let value = match self.tokens.token() {
            Token::Number(digits, false) => number(digits),
            Token::Minus => match self.tokens.after() {
                Token::Number(digits, false) => {
                    let value = number(&format!("-{digits}"));
                    self.tokens.advance();
                    value
                }
                _ => None,
            },
            Token::SingleQuotedString(text) if text.contains('\0') => {
                return Err(refuse(at, "a text literal cannot hold NUL: SQL ends there"));
            }
            Token::SingleQuotedString(text) => Some(Value::Text(text.clone())),
            Token::HexStringLiteral(_) => match self.tokens.blob_digits().map(bytes) {
                Some(None) => return Err(refuse(at, "X'…' takes pairs of hexadecimal digits")),
                blob => blob.flatten().map(Value::Blob),
            },
            _ => None,
        };
        let value = value.ok_or_else(|| self.tokens.stranger())?;
        self.tokens.advance();
        Ok(Part {
            at,
            is: Is::Literal(value),
        })
    }

    /// A column, NULL, TRUE or FALSE.
    pub(super) fn word(&mut self) -> Result<Part<'a>> {
        let (at, table) = (self.tokens.place(), self.table);
        let Token::Word(word) = self.tokens.token() else {
            return Err(self.tokens.stranger());
        };
        let bare = unquoted(self.tokens.token()).map_or(String::new(), str::to_ascii_uppercase);
        if *self.tokens.after() == Token::LParen || RESERVED.contains(&&*bare) {
            return Err(self.tokens.stranger());
        }
        if *self.tokens.after() == Token::Period {
            return Err(outside(at, "a name in parts is"));
        }
        // Brackets hold no bracket in SQLite, but the tokenizer takes two for one.
        if word.quote_style == Some('[') && word.value.contains(']') {
            return Err(refuse(
                at,
                "a name with a bracket in it is written in double quotes",
            ));
        }
        let mut columns = table.columns.iter();
        let column = columns.find(|column| column.name.eq_ignore_ascii_case(&word.value));
        let is = match (&*bare, column) {
            ("NULL", _) => Is::Literal(Value::Null),
            ("TRUE" | "FALSE", Some(column)) => {
                let name = &column.name;
                let message = format!("\"{name}\" is a column too; quote it, or write 1 or 0");
                return Err(refuse(at, message));
            }
            // SQLite knows no truth values but 1 and 0.
            ("TRUE", None) => Is::Literal(Value::Integer(1)),
            ("FALSE", None) => Is::Literal(Value::Integer(0)),
            (_, Some(column)) => Is::Column(column),
            (_, None) => return Err(unknown(table, &word.value, at)),
        };
        self.tokens.advance();
        if let Is::Column(column) = is
            && !self.columns.contains(&column.name)
        {
            self.columns.push(column.name.clone());
        }
        Ok(Part { at, is })
    }
}

/// The blob of `X'digits'`.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let valid = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    valid.then(|| unhex(&format!("\\x{digits}"))).flatten()
}

fn unknown(table: &Table, name: &str, at: Location) -> PredicateError {
    let names = || table.columns.iter().map(|column| &*column.name);
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("its columns are {}", names().collect::<Vec<_>>().join(", ")),
    };
    refuse(
        at,
        format!("table \"{}\" has no column \"{name}\"; {hint}", table.name),
    )
}

// === impl Part ===

impl<'a> Part<'a> {
    pub(super) fn new(at: Location, condition: Condition) -> Self {
        Self {
            at,
            is: Is::Condition(condition),
        }
    }

    /// The condition, where one is needed.
    pub(super) fn condition(self) -> Result<Condition> {
        let message = match self.is {
            Is::Condition(condition) => return Ok(condition),
            Is::Column(_) => "a column alone is no condition; compare it, as in x = 1",
            Is::Literal(_) => "a literal alone is no condition; compare a column with it",
        };
        Err(refuse(self.at, message))
    }

    /// The column, where one is needed to the left of `of`.
    pub(super) fn column(self, of: &str) -> Result<(&'a Column, Location)> {
        match self.is {
            Is::Column(column) => Ok((column, self.at)),
            _ => Err(refuse(self.at, format!("{of} needs a column on its left"))),
        }
    }
}

pub(super) fn null(left: Part<'_>, negated: bool) -> Result<Condition> {
    let (column, _) = left.column("IS NULL")?;
    Ok(Condition::Null {
        column: Operand::new(column),
        negated,
    })
}

// === impl Operand ===

impl Operand {
    fn new(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            numeric: kind(column) == Affinity::Numeric,
            collation: column.collation,
        }
    }
}

/// The column as a side of a comparison, which needs a collation that Rust can follow.
pub(super) fn compared(column: &Column, at: Location) -> Result<Operand> {
    if column.collation == Collation::Other {
        let message = format!(
            "column \"{}\" has a collation defined by some program; only BINARY, NOCASE and RTRIM \
             can be followed; IS [NOT] NULL is allowed",
            column.name
        );
        return Err(refuse(at, message));
    }
    Ok(Operand::new(column))
}

/// The literal as SQLite compares it with the column: under the column's affinity.
pub(super) fn under(column: &Column, value: Value, at: Location) -> Result<Value> {
    match (kind(column), value) {
        (Affinity::Text, Value::Integer(_) | Value::Real(_)) => {
            let message = format!(
                "column \"{}\" holds text and this is a number; quote it: '…'",
                column.name
            );
            Err(refuse(at, message))
        }
        (Affinity::Numeric, Value::Text(text)) => {
            Ok(number(&text).map_or(Value::Text(text), unsigned_zero))
        }
        (_, value) => Ok(unsigned_zero(value)),
    }
}

/// No comparison tells -0.0 from 0.0, so they are one literal.
fn unsigned_zero(value: Value) -> Value {
    match value {
        Value::Real(real) => Value::Real(real + 0.0),
        other => other,
    }
}

/// The affinity as far as comparisons tell it: every affinity for numbers is NUMERIC.
pub(super) fn kind(column: &Column) -> Affinity {
    match column.affinity {
        Affinity::Integer | Affinity::Real | Affinity::Numeric => Affinity::Numeric,
        other => other,
    }
}
