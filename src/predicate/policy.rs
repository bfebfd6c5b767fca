//! A topic's `policy`: a condition in which `token.NAME` stands for somebody's claim. Bound to his claims it
//! is a condition like any other, of values of the columns' types.
//!
//! A claim that is missing, null, or no value of the column's type is NULL, and so is an element of a
//! list: what is compared with it is unknown, which nothing makes true. What is wrong with somebody's claims is
//! nobody's to learn.

use serde_json::Value as Json;
use sqlparser::{tokenizer::Location, tokenizer::Token};

use super::{
    Condition, Op, Operand, Predicate, PredicateError,
    operand::{Literal, under},
    parse::{self, Parser, Result},
    tokens::{Tokens, refuse, unquoted},
};
use crate::{
    row::Value,
    topic::{Claims, Column, Table},
};

/// What stands before the name of a claim.
const TOKEN: &str = "token";

/// The most elements of a claim that is a list; a longer one counts as NULL.
///
/// Each is a value of every query. Who has more wards than that is better told apart by a role.
const MAX_ELEMENTS: usize = 1000;

/// A policy, not yet bound to anybody's claims.
#[derive(Debug, Clone, PartialEq)]
pub struct Unbound(Predicate);

/// A comparison of a column with a claim.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claim {
    column: Column,
    test: Test,
    name: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Test {
    Compare(Op),
    In { negated: bool },
}

/// The names of the claims that a policy asks for, each once; none where it is no policy.
pub fn claims(text: &str) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    let Ok(mut tokens) = Tokens::read(text) else {
        return names;
    };
    while *tokens.token() != Token::EOF {
        if let Ok(Some(name)) = claim(&mut tokens)
            && !names.contains(&name)
        {
            names.push(name);
        } else {
            tokens.advance();
        }
    }
    names
}

/// Moves past `token.NAME`, if that is next. The name may stand in quotes.
fn claim(tokens: &mut Tokens) -> Result<Option<Box<str>>> {
    let is_token = unquoted(tokens.token()).is_some_and(|word| word.eq_ignore_ascii_case(TOKEN));
    if !is_token || *tokens.after() != Token::Period {
        return Ok(None);
    }
    tokens.advance();
    tokens.advance();
    let name = match tokens.token() {
        Token::Word(word) => word.value.as_str().into(),
        _ => {
            let message = "a claim is written token.NAME, or token.\"NAME\"";
            return Err(refuse(tokens.place(), message));
        }
    };
    tokens.advance();
    Ok(Some(name))
}

// === impl Parser ===

impl Parser<'_> {
    /// Moves past a claim, if one is next and may be.
    pub(super) fn claim(&mut self) -> Result<Option<Box<str>>> {
        match self.claims {
            true => claim(&mut self.tokens),
            false => Ok(None),
        }
    }
}

// === impl Unbound ===

impl Unbound {
    /// Compiles a policy over the columns of `table`: the subset of [`super::parse`], with `token.NAME`
    /// where a literal may stand beside a comparison, and `column [NOT] IN token.NAME`.
    ///
    /// # Errors
    /// As [`super::parse`]; also where no claim is named: then everybody would see the same rows.
    pub fn parse(text: &str, table: &Table) -> std::result::Result<Self, PredicateError> {
        let predicate = parse::read(text, table, true)?;
        match claims(text).is_empty() {
            true => Err(refuse(
                Location::new(1, 1),
                "a policy names a claim, as in ward = token.ward; what is the same for all is a `where`",
            )),
            false => Ok(Self(predicate)),
        }
    }

    /// The columns that it reads.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.columns()
    }

    /// The condition for somebody with these claims.
    pub fn bind(&self, claims: &Claims) -> Predicate {
        Predicate {
            condition: bound(&self.0.condition, claims),
            columns: self.0.columns.clone(),
        }
    }
}

fn bound(condition: &Condition, claims: &Claims) -> Condition {
    let all = |parts: &[Condition]| parts.iter().map(|part| bound(part, claims)).collect();
    match condition {
        Condition::Claim(claim) => claim.bound(claims.get(&claim.name)),
        Condition::Not(inner) => Condition::Not(Box::new(bound(inner, claims))),
        Condition::All(parts) => Condition::All(all(parts)),
        Condition::Any(parts) => Condition::Any(all(parts)),
        other => other.clone(),
    }
}

// === impl Claim ===

impl Claim {
    pub(super) fn compared(column: &Column, op: Op, name: Box<str>) -> Condition {
        Self::condition(column, Test::Compare(op), name)
    }

    pub(super) fn listed(column: &Column, negated: bool, name: Box<str>) -> Condition {
        Self::condition(column, Test::In { negated }, name)
    }

    fn condition(column: &Column, test: Test, name: Box<str>) -> Condition {
        let column = column.clone();
        Condition::Claim(Box::new(Self { column, test, name }))
    }

    /// The comparison with this claim's value.
    pub(super) fn bound(&self, claim: Option<&Json>) -> Condition {
        let column = Operand::new(&self.column);
        match self.test {
            Test::Compare(op) => Condition::Literal {
                column,
                op,
                value: self.value(claim),
            },
            Test::In { negated } => Condition::In {
                column,
                negated,
                values: match claim {
                    Some(Json::Array(list)) if list.len() <= MAX_ELEMENTS => {
                        list.iter().map(|one| self.value(Some(one))).collect()
                    }
                    one => vec![self.value(one)],
                },
            },
        }
    }

    /// The claim as a value of the column's type.
    fn value(&self, claim: Option<&Json>) -> Value {
        let literal = match claim {
            // PostgreSQL's texts hold no NUL.
            Some(Json::String(text)) if !text.contains('\0') => Literal::Text(text.clone()),
            Some(Json::Number(number)) => Literal::Number(number.to_string()),
            Some(Json::Bool(truth)) => Literal::Truth(*truth),
            _ => return Value::Null,
        };
        under(&self.column, literal, Location::empty()).unwrap_or(Value::Null)
    }
}
