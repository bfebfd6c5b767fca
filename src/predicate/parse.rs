//! Tokens → condition. The grammar is our own, for it is small, nests no deeper than it is told,
//! and knows the place of everything that it refuses:
//!
//! ```text
//! any        = all { OR all }
//! all        = negation { AND negation }
//! negation   = NOT negation | comparison
//! comparison = operand [ op operand | [NOT] IN ( literal, … ) | [NOT] BETWEEN literal AND literal
//!                      | IS [NOT] NULL | ISNULL | NOTNULL | NOT NULL ]
//! operand    = column | literal | - number | ( any )
//! ```
//!
//! Precedence is SQLite's (sqlite.org/lang_expr §2); no other operator competes in the subset.

use std::sync::Arc;

use sqlparser::tokenizer::{Location, Token};

use super::{
    Condition, MAX_COMPARISONS, MAX_DEPTH, Op, Predicate, PredicateError,
    operand::{Is, Part, alike, compared, null, under},
    policy::Claim,
    tokens::{Tokens, outside, refuse},
};
use crate::{
    row::Value,
    topic::{Column, Table},
};

pub(super) type Result<T> = std::result::Result<T, PredicateError>;

/// Compiles a condition over the columns of `table`.
///
/// The subset: `=` `==` `<>` `!=` `<` `<=` `>` `>=` between a column and a literal, or between two
/// columns of one kind and collation; `[NOT] IN` and `[NOT] BETWEEN` with literals;
/// `IS [NOT] NULL`; AND, OR, NOT, parentheses. Literals are numbers, `'text'`, `X'blob'`, NULL,
/// TRUE and FALSE. `"x"`, `[x]` and `` `x` `` are always names. In SQLite names are found without
/// regard to ASCII case, quoted or not. In PostgreSQL they are found as there, a boolean column is
/// a condition by itself, and a literal is one of its column's type. The bounds are [`MAX_DEPTH`] and [`MAX_COMPARISONS`].
///
/// # Errors
/// [`PredicateError`] for everything else, with its place; only another text can help. Refused
/// is also what Rust could not tell as SQLite does, such as a collation defined by some program.
pub fn parse(text: &str, table: &Table) -> Result<Predicate> {
    read(text, table, false)
}

/// As [`parse`]; `claims` says whether it may name them.
pub(super) fn read(text: &str, table: &Table, claims: bool) -> Result<Predicate> {
    let mut parser = Parser {
        tokens: Tokens::read(text)?,
        table,
        claims,
        columns: Vec::new(),
        depth: 0,
        comparisons: 0,
    };
    let condition = parser.any()?.condition()?;
    match parser.tokens.token() {
        Token::EOF => Ok(Predicate {
            condition,
            columns: parser.columns,
        }),
        _ => Err(parser.tokens.stranger()),
    }
}

pub(super) struct Parser<'a> {
    pub(super) tokens: Tokens,
    pub(super) table: &'a Table,
    /// Whether somebody's claims may be named.
    pub(super) claims: bool,
    /// The columns met so far.
    pub(super) columns: Vec<Arc<str>>,
    depth: usize,
    comparisons: usize,
}

// === impl Parser ===

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Part<'a>> {
        let first = self.all()?;
        if !self.tokens.is_word("OR") {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first.condition()?];
        while self.tokens.eat_word("OR") {
            parts.push(self.all()?.condition()?);
        }
        Ok(Part::new(at, Condition::any(parts)))
    }

    fn all(&mut self) -> Result<Part<'a>> {
        let first = self.negation()?;
        if !self.tokens.is_word("AND") {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first.condition()?];
        while self.tokens.eat_word("AND") {
            parts.push(self.negation()?.condition()?);
        }
        Ok(Part::new(at, Condition::all(parts)))
    }

    fn negation(&mut self) -> Result<Part<'a>> {
        let at = self.tokens.place();
        if !self.tokens.eat_word("NOT") {
            return self.comparison();
        }
        self.deepen(at)?;
        let inner = self.negation()?.condition()?;
        self.depth -= 1;
        Ok(Part::new(at, Condition::Not(Box::new(inner))))
    }

    fn comparison(&mut self) -> Result<Part<'a>> {
        let left = self.operand()?;
        let at = left.at;
        let condition = if let Some(op) = self.tokens.eat_operator() {
            let right = self.operand()?;
            compare(left, op, right)?
        } else if self.tokens.eat_word("ISNULL") {
            null(left, false)?
        } else if self.tokens.eat_word("NOTNULL") {
            null(left, true)?
        } else if self.tokens.eat_word("IS") {
            let negated = self.tokens.eat_word("NOT");
            if !self.tokens.eat_word("NULL") {
                return Err(outside(
                    self.tokens.place(),
                    "IS with anything but [NOT] NULL is",
                ));
            }
            null(left, negated)?
        } else {
            let negated = self.tokens.eat_word("NOT");
            if self.tokens.eat_word("IN") {
                self.list(left, negated)?
            } else if self.tokens.eat_word("BETWEEN") {
                self.between(left, negated)?
            } else if negated && self.tokens.eat_word("NULL") {
                null(left, true)?
            } else if !negated && self.ends() {
                return Ok(left);
            } else {
                return Err(self.tokens.stranger());
            }
        };
        self.comparisons += 1;
        if self.comparisons > MAX_COMPARISONS {
            return Err(refuse(
                at,
                format!("at most {MAX_COMPARISONS} comparisons are allowed"),
            ));
        }
        Ok(Part::new(at, condition))
    }

    /// What follows `column [NOT] IN`.
    fn list(&mut self, left: Part<'a>, negated: bool) -> Result<Condition> {
        let (column, at) = left.column("IN")?;
        let operand = compared(column, Op::Eq, at)?;
        if let Some(name) = self.claim()? {
            return Ok(Claim::listed(column, negated, name));
        }
        if !self.tokens.eat(&Token::LParen) {
            let message = "IN takes literals in parentheses, as in IN (1, 2)";
            return Err(refuse(self.tokens.place(), message));
        }
        if let Token::RParen = self.tokens.token() {
            return Err(refuse(self.tokens.place(), "IN needs at least one literal"));
        }
        let mut values = vec![self.literal(column, "IN")?];
        while self.tokens.eat(&Token::Comma) {
            values.push(self.literal(column, "IN")?);
        }
        self.close()?;
        Ok(Condition::In {
            column: operand,
            negated,
            values,
        })
    }

    /// What follows `column [NOT] BETWEEN`.
    fn between(&mut self, left: Part<'a>, negated: bool) -> Result<Condition> {
        let (column, at) = left.column("BETWEEN")?;
        let operand = compared(column, Op::Le, at)?;
        let low = self.literal(column, "BETWEEN")?;
        if !self.tokens.eat_word("AND") {
            return Err(self.tokens.stranger());
        }
        let high = self.literal(column, "BETWEEN")?;
        Ok(Condition::Between {
            column: operand,
            negated,
            low,
            high,
        })
    }

    /// A literal under the affinity of `column`.
    fn literal(&mut self, column: &Column, of: &str) -> Result<Value> {
        let part = self.operand()?;
        match part.is {
            Is::Literal(value) => under(column, value, part.at),
            _ => Err(refuse(part.at, format!("{of} takes literals only"))),
        }
    }

    fn operand(&mut self) -> Result<Part<'a>> {
        match self.tokens.token() {
            Token::LParen => {
                self.deepen(self.tokens.place())?;
                self.tokens.advance();
                let inner = self.any()?;
                self.close()?;
                self.depth -= 1;
                Ok(inner)
            }
            Token::Word(_) => self.word(),
            _ => self.constant(),
        }
    }

    /// Whether an operand may end here without having been compared.
    fn ends(&self) -> bool {
        matches!(self.tokens.token(), Token::EOF | Token::RParen)
            || self.tokens.is_word("AND")
            || self.tokens.is_word("OR")
    }

    fn close(&mut self) -> Result<()> {
        match self.tokens.eat(&Token::RParen) {
            true => Ok(()),
            false => Err(self.tokens.stranger()),
        }
    }

    /// Enters one more level; whoever returns from it without an error takes it back.
    fn deepen(&mut self, at: Location) -> Result<()> {
        self.depth += 1;
        match self.depth > MAX_DEPTH {
            true => Err(refuse(
                at,
                format!("at most {MAX_DEPTH} levels of nesting are allowed"),
            )),
            false => Ok(()),
        }
    }
}

fn compare(left: Part<'_>, op: Op, right: Part<'_>) -> Result<Condition> {
    let (left_at, right_at) = (left.at, right.at);
    match (left.is, right.is) {
        (Is::Column(column), Is::Literal(value)) => Ok(Condition::Literal {
            column: compared(column, op, left_at)?,
            op,
            value: under(column, value, right_at)?,
        }),
        // SQLite takes affinity and collation from the column, whichever side it stands on.
        (Is::Literal(value), Is::Column(column)) => Ok(Condition::Literal {
            column: compared(column, op, right_at)?,
            op: op.mirrored(),
            value: under(column, value, left_at)?,
        }),
        (Is::Column(a), Is::Column(b)) => {
            let (left, right) = (compared(a, op, left_at)?, compared(b, op, right_at)?);
            alike(a, b, right_at)?;
            Ok(Condition::Columns { left, op, right })
        }
        (Is::Column(column), Is::Claim(name)) => {
            compared(column, op, left_at)?;
            Ok(Claim::compared(column, op, name))
        }
        (Is::Claim(name), Is::Column(column)) => {
            compared(column, op, right_at)?;
            Ok(Claim::compared(column, op.mirrored(), name))
        }
        (Is::Literal(_) | Is::Claim(_), Is::Literal(_) | Is::Claim(_)) => {
            Err(refuse(left_at, "a comparison needs a column on one side"))
        }
        (Is::Condition(_), _) => Err(outside(left_at, "comparing a condition is")),
        (_, Is::Condition(_)) => Err(outside(right_at, "comparing a condition is")),
    }
}

// === impl Condition ===

impl Condition {
    /// Flat, so that redundant parentheses leave no trace.
    fn all(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::All(inner) => inner,
            other => vec![other],
        });
        Self::All(flat.collect())
    }

    /// Flat, too.
    fn any(parts: Vec<Self>) -> Self {
        let flat = parts.into_iter().flat_map(|part| match part {
            Self::Any(inner) => inner,
            other => vec![other],
        });
        Self::Any(flat.collect())
    }
}

// === impl Op ===

impl Op {
    /// The operator after its sides changed places.
    fn mirrored(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            same => same,
        }
    }
}
