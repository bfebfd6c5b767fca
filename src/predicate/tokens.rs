//! The tokens of a condition, read with sqlparser's tokenizer, each with its place; and what to
//! say of a token that has no business there.

use sqlparser::{
    dialect::SQLiteDialect,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word},
};

use super::{Op, PredicateError};

const ALLOWED: &str = "allowed are comparisons, IN, BETWEEN, IS [NOT] NULL, AND, OR, NOT \
                       over the table's columns";

/// A cursor over the tokens of one text, without white space and comments.
pub(super) struct Tokens {
    /// Never empty: the last one is [`Token::EOF`].
    list: Vec<TokenWithSpan>,
    at: usize,
}

impl Tokens {
    pub(super) fn read(text: &str) -> Result<Self, PredicateError> {
        let mut list = Tokenizer::new(&SQLiteDialect {}, text)
            .tokenize_with_location()
            .map_err(|err| refuse(err.location, format!("this is not SQL: {}", err.message)))?;
        let end = list
            .last()
            .map_or(Location::new(1, 1), |last| last.span.end);
        list.retain(|token| !matches!(token.token, Token::Whitespace(_)));
        list.push(TokenWithSpan::at(Token::EOF, end, end));
        Ok(Self { list, at: 0 })
    }

    pub(super) fn token(&self) -> &Token {
        &self.list[self.at].token
    }

    /// Where the next token starts.
    pub(super) fn place(&self) -> Location {
        self.list[self.at].span.start
    }

    pub(super) fn after(&self) -> &Token {
        &self.list[(self.at + 1).min(self.list.len() - 1)].token
    }

    /// Moves past the next token; the end stays where it is.
    pub(super) fn advance(&mut self) {
        self.at = (self.at + 1).min(self.list.len() - 1);
    }

    /// Whether the next token is this word, unquoted and in any case.
    pub(super) fn is_word(&self, word: &str) -> bool {
        unquoted(self.token()).is_some_and(|next| next.eq_ignore_ascii_case(word))
    }

    /// Moves past the next token if it is this word.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        if found {
            self.advance();
        }
        found
    }

    /// Moves past the next token if it is this one.
    pub(super) fn eat(&mut self, token: &Token) -> bool {
        let found = self.token() == token;
        if found {
            self.advance();
        }
        found
    }

    /// Moves past the next token if it is a comparison operator.
    pub(super) fn eat_operator(&mut self) -> Option<Op> {
        let op = match self.token() {
            Token::Eq | Token::DoubleEq => Op::Eq,
            Token::Neq => Op::Ne,
            Token::Lt => Op::Lt,
            Token::LtEq => Op::Le,
            Token::Gt => Op::Gt,
            Token::GtEq => Op::Ge,
            _ => return None,
        };
        self.advance();
        Some(op)
    }

    /// The digits of `X'…'`, if that is the next token.
    ///
    /// To the tokenizer `0x1F`, which is an integer, is the same token; only its length tells.
    pub(super) fn blob_digits(&self) -> Option<&str> {
        let TokenWithSpan { token, span } = &self.list[self.at];
        let length = span.end.column.checked_sub(span.start.column)?;
        match token {
            Token::HexStringLiteral(digits) if length == digits.chars().count() as u64 + 3 => {
                Some(digits)
            }
            _ => None,
        }
    }

    /// The refusal of the next token, which the grammar has no place for.
    pub(super) fn stranger(&self) -> PredicateError {
        let token = self.token();
        if let Token::EOF = token {
            let what = if self.at == 0 { "empty" } else { "incomplete" };
            return refuse(self.place(), format!("the condition is {what}; {ALLOWED}"));
        }
        let calls = matches!(self.after(), Token::LParen);
        outside(self.place(), &self.name(token, calls))
    }

    /// What a token would begin, and its verb.
    fn name(&self, token: &Token, calls: bool) -> String {
        let what = match token {
            Token::Word(_) => match unquoted(token).unwrap_or("").to_ascii_uppercase().as_str() {
                "SELECT" | "EXISTS" | "VALUES" | "WITH" => "subqueries are",
                "LIKE" | "ILIKE" | "GLOB" | "REGEXP" | "MATCH" => "pattern matches are",
                "CAST" => "casts are",
                "CASE" => "CASE is",
                "COLLATE" => "COLLATE is",
                "CURRENT_DATE" | "CURRENT_TIME" | "CURRENT_TIMESTAMP" => "function calls are",
                "AND" | "OR" | "NOT" | "IN" | "IS" | "BETWEEN" => {
                    return format!("`{token}` here is");
                }
                _ if calls => "function calls are",
                _ => return format!("`{token}` here is"),
            },
            Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::Pipe
            | Token::Ampersand
            | Token::Tilde
            | Token::ShiftLeft
            | Token::ShiftRight => "arithmetic is",
            Token::Placeholder(_) | Token::Colon | Token::AtSign => "parameters are",
            Token::SemiColon => "a second statement is",
            Token::Comma => "a tuple or list outside IN is",
            Token::HexStringLiteral(_) if self.blob_digits().is_none() => {
                "a hexadecimal integer is"
            }
            _ => return format!("`{token}` here is"),
        };
        what.to_owned()
    }
}

/// The word of an unquoted word.
pub(super) fn unquoted(token: &Token) -> Option<&str> {
    match token {
        Token::Word(Word {
            value,
            quote_style: None,
            ..
        }) => Some(value),
        _ => None,
    }
}

pub(super) fn refuse(at: Location, message: impl Into<String>) -> PredicateError {
    PredicateError {
        line: at.line,
        column: at.column,
        message: message.into(),
    }
}

/// The refusal of something that SQL has and the subset has not; `what` ends with its verb.
pub(super) fn outside(at: Location, what: &str) -> PredicateError {
    refuse(at, format!("{what} not in the subset; {ALLOWED}"))
}
