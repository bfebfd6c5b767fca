//! A condition that is compiled is printed as one expression without parameters, which any reader of SQL
//! reads, and in SQLite's form compiles to the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rowcast::{
    predicate,
    topic::{Affinity, Collation, Column, Kind, Table},
};
use sqlparser::{
    dialect::{Dialect, PostgreSqlDialect, SQLiteDialect},
    parser::Parser,
    tokenizer::{Token, Tokenizer},
};

fn table(columns: &[(&str, Affinity, Option<Kind>)]) -> Table {
    let columns = columns.iter().map(|(name, affinity, kind)| Column {
        name: (*name).into(),
        declared: String::new(),
        affinity: *affinity,
        kind: kind.clone(),
        collation: Collation::Binary,
        not_null: false,
    });
    Table {
        name: "t".into(),
        columns: columns.collect(),
        primary_key: vec!["a".into()],
        unique: Vec::new(),
        displaces: false,
    }
}

/// Panics unless that is one expression and no more.
fn expression(sql: &str, dialect: &dyn Dialect) {
    let tokens = Tokenizer::new(dialect, sql).tokenize();
    let tokens = tokens.unwrap_or_else(|err| panic!("{sql}: {err}"));
    assert!(
        !tokens
            .iter()
            .any(|token| matches!(token, Token::Placeholder(_) | Token::SemiColon)),
        "{sql}"
    );
    // Its lists are long, and nest no deeper than the condition.
    let parser = Parser::new(dialect).with_recursion_limit(2_000);
    let mut parser = parser.with_tokens(tokens);
    parser
        .parse_expr()
        .unwrap_or_else(|err| panic!("{sql}: {err}"));
    assert_eq!(parser.peek_token().token, Token::EOF, "{sql}");
}

fuzz_target!(|text: &str| {
    let sqlite = table(&[
        ("a", Affinity::Integer, None),
        ("b", Affinity::Text, None),
        ("c", Affinity::Blob, None),
        ("d", Affinity::Real, None),
        ("in", Affinity::Numeric, None),
        ("e\"f", Affinity::Text, None),
    ]);
    if let Ok(condition) = predicate::parse(text, &sqlite) {
        let sql = condition.to_sql();
        expression(&sql, &SQLiteDialect {});
        let again = predicate::parse(&sql, &sqlite);
        assert_eq!(again.as_ref(), Ok(&condition), "{sql}");
        assert_eq!(again.map(|again| again.to_sql()), Ok(sql));
    }
    let postgres = table(&[
        ("a", Affinity::Blob, Some(Kind::Integer)),
        ("b", Affinity::Blob, Some(Kind::Text)),
        ("c", Affinity::Blob, Some(Kind::Bytes)),
        ("d", Affinity::Blob, Some(Kind::Float8)),
        ("n", Affinity::Blob, Some(Kind::Numeric)),
        ("t", Affinity::Blob, Some(Kind::Boolean)),
        ("z", Affinity::Blob, Some(Kind::Timestamptz)),
        ("u", Affinity::Blob, Some(Kind::Uuid)),
        ("o", Affinity::Blob, Some(Kind::Other)),
    ]);
    if let Ok(condition) = predicate::parse(text, &postgres) {
        expression(&condition.to_sql(), &PostgreSqlDialect {});
    }
});
