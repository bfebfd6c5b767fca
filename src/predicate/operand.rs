//! Columns and literals: what a comparison may compare, and what SQLite makes of it beforehand.

use sqlparser::tokenizer::{Location, Token, Word};

use super::{
    Condition, Op, Operand, PredicateError,
    number::number,
    parse::{Parser, Result},
    tokens::{outside, refuse, unquoted},
    typed,
};
use crate::{
    row::{Value, unhex},
    topic::{Affinity, Collation, Column, Kind, Table, nearest},
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
    Literal(Literal),
    /// Of a policy only: the claim of that name.
    Claim(Box<str>),
    Condition(Condition),
}

/// A literal as it is written, before a column says what it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Truth(bool),
    /// Digits, sign, point and exponent.
    Number(String),
    Text(String),
    Blob(Vec<u8>),
}

// === impl Parser ===

impl<'a> Parser<'a> {
    /// A number, a text or a blob.
    pub(super) fn constant(&mut self) -> Result<Part<'a>> {
        let at = self.tokens.place();
        let value = match self.tokens.token() {
            Token::Number(digits, false) => Some(Literal::Number(digits.clone())),
            Token::Minus => match self.tokens.after() {
                Token::Number(digits, false) => {
                    let number = Literal::Number(format!("-{digits}"));
                    self.tokens.advance();
                    Some(number)
                }
                _ => None,
            },
            Token::SingleQuotedString(text) if text.contains('\0') => {
                return Err(refuse(at, "a text literal cannot hold NUL: SQL ends there"));
            }
            Token::SingleQuotedString(text) => Some(Literal::Text(text.clone())),
            Token::HexStringLiteral(_) => match self.tokens.blob_digits().map(bytes) {
                Some(None) => return Err(refuse(at, "X'…' takes pairs of hexadecimal digits")),
                blob => blob.flatten().map(Literal::Blob),
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
        if let Some(name) = self.claim()? {
            let is = Is::Claim(name);
            return Ok(Part { at, is });
        }
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
        let column = table.columns.iter().find(|column| means(word, column));
        let is = match (&*bare, column) {
            ("NULL", _) => Is::Literal(Literal::Null),
            // In PostgreSQL these words are nothing else, unless quoted.
            ("TRUE" | "FALSE", Some(column)) if column.kind.is_none() => {
                let name = &column.name;
                let message = format!("\"{name}\" is a column too; quote it, or write 1 or 0");
                return Err(refuse(at, message));
            }
            ("TRUE" | "FALSE", _) => Is::Literal(Literal::Truth(bare == "TRUE")),
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

/// Whether a word names a column: in SQLite without regard to the case of ASCII letters; in
/// PostgreSQL letter by letter, where an unquoted name is in lower case.
fn means(word: &Word, column: &Column) -> bool {
    match (&column.kind, word.quote_style) {
        (None, _) => column.name.eq_ignore_ascii_case(&word.value),
        (Some(_), None) => *column.name == word.value.to_ascii_lowercase(),
        (Some(_), Some(_)) => *column.name == word.value,
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
            Is::Column(column) if column.kind == Some(Kind::Boolean) => {
                return Ok(Condition::Literal {
                    column: Operand::new(column),
                    op: Op::Eq,
                    value: Value::Boolean(true),
                });
            }
            Is::Column(_) => "a column alone is no condition; compare it, as in x = 1",
            Is::Literal(_) => "a literal alone is no condition; compare a column with it",
            Is::Claim(_) => "a claim alone is no condition; compare a column with it",
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
    pub(super) fn new(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            numeric: column.kind.is_none() && affinity(column) == Affinity::Numeric,
            collation: column.collation,
            kind: column.kind.clone(),
        }
    }
}

/// The column as a side of a comparison, which needs a collation that Rust can follow.
pub(super) fn compared(column: &Column, op: Op, at: Location) -> Result<Operand> {
    if let Some(kind) = &column.kind {
        typed::comparable(column, kind, op, at)?;
        return Ok(Operand::new(column));
    }
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

/// The literal as the database compares it with the column: under SQLite's affinity, or as a
/// value of PostgreSQL's type.
pub(super) fn under(column: &Column, literal: Literal, at: Location) -> Result<Value> {
    if let Some(kind) = &column.kind {
        return typed::literal(column, kind, literal, at);
    }
    let value = match literal {
        Literal::Null => Value::Null,
        // SQLite knows no truth values but 1 and 0.
        Literal::Truth(truth) => Value::Integer(truth.into()),
        Literal::Number(digits) => number(&digits).unwrap_or(Value::Text(digits)),
        Literal::Text(text) => Value::Text(text),
        Literal::Blob(bytes) => Value::Blob(bytes),
    };
    match (affinity(column), value) {
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

/// Refuses two columns whose comparison Rust could not follow.
pub(super) fn alike(left: &Column, right: &Column, at: Location) -> Result<()> {
    if let (Some(a), Some(b)) = (&left.kind, &right.kind) {
        return typed::alike((left, a), (right, b), at);
    }
    if affinity(left) == affinity(right) && left.collation == right.collation {
        return Ok(());
    }
    let message = format!(
        "\"{}\" and \"{}\" differ in type or collation; two columns are compared only where both \
         are numeric, text or blob and collate alike",
        left.name, right.name
    );
    Err(refuse(at, message))
}

/// No comparison tells -0.0 from 0.0, so they are one literal.
fn unsigned_zero(value: Value) -> Value {
    match value {
        Value::Real(real) => Value::Real(real + 0.0),
        other => other,
    }
}

/// The affinity as far as comparisons tell it: every affinity for numbers is NUMERIC.
fn affinity(column: &Column) -> Affinity {
    match column.affinity {
        Affinity::Integer | Affinity::Real | Affinity::Numeric => Affinity::Numeric,
        other => other,
    }
}
