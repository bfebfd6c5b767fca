//! What a client asks for becomes one SELECT with as many parameters as there are values, whatever its
//! filters, orders and continuations hold; and a filter that is followed becomes one expression.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rowcast::{
    predicate::Predicate,
    protocol::{JsonLimits, Request, Select},
    store::sql::{Dialect, plan},
    topic::{Affinity, Collation, Column, Kind, Table, Topic},
};
use sqlparser::{
    dialect::{PostgreSqlDialect, SQLiteDialect},
    parser::Parser,
    tokenizer::{Token, Tokenizer},
};

/// A table with columns of that name, and the topic `t` on it.
fn served(columns: &[(&str, Affinity, Option<Kind>)]) -> (Table, Topic) {
    let columns = columns.iter().map(|(name, affinity, kind)| Column {
        name: (*name).into(),
        declared: "text".into(),
        affinity: *affinity,
        kind: kind.clone(),
        collation: Collation::Binary,
        not_null: *name == "id",
    });
    let table = Table {
        name: "main.t".split('.').nth(1).unwrap_or_default().into(),
        columns: columns.collect(),
        primary_key: vec!["id".into()],
        unique: Vec::new(),
        displaces: false,
    };
    let spec = serde_json::json!({ "type": "t", "table": "t" });
    let spec = serde_json::from_value(spec).expect("a topic");
    let topic = Topic::resolve(&spec, Some(&table)).expect("a topic of the table");
    (table, topic)
}

static SQLITE: LazyLock<(Table, Topic)> = LazyLock::new(|| {
    served(&[
        ("id", Affinity::Integer, None),
        ("a", Affinity::Text, None),
        ("b", Affinity::Blob, None),
        ("c\"d", Affinity::Real, None),
    ])
});

static POSTGRES: LazyLock<(Table, Topic)> = LazyLock::new(|| {
    served(&[
        ("id", Affinity::Blob, Some(Kind::Integer)),
        ("a", Affinity::Blob, Some(Kind::Text)),
        ("b", Affinity::Blob, Some(Kind::Bytes)),
        ("c\"d", Affinity::Blob, Some(Kind::Numeric)),
        ("z", Affinity::Blob, Some(Kind::Timestamptz)),
        ("j", Affinity::Blob, Some(Kind::Json)),
    ])
});

/// The greatest number of a parameter; the text must be one statement.
fn parameters(dialect: Dialect, sql: &str) -> usize {
    let tokens = match dialect {
        Dialect::Sqlite => Tokenizer::new(&SQLiteDialect {}, sql).tokenize(),
        Dialect::Postgres => Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize(),
    };
    let tokens = tokens.unwrap_or_else(|err| panic!("{sql}: {err}"));
    assert!(!tokens.contains(&Token::SemiColon), "{sql}");
    let parser = match dialect {
        Dialect::Sqlite => Parser::new(&SQLiteDialect {}),
        Dialect::Postgres => Parser::new(&PostgreSqlDialect {}),
    };
    let parser = parser.with_recursion_limit(2_000);
    let statements = parser.with_tokens(tokens.clone()).parse_statements();
    let statements = statements.unwrap_or_else(|err| panic!("{sql}: {err}"));
    assert_eq!(statements.len(), 1, "{sql}");
    let numbers = tokens.iter().filter_map(|token| match token {
        Token::Placeholder(name) => Some(name[1..].parse().expect("a number")),
        _ => None,
    });
    let mut numbers: Vec<usize> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected, "{sql}");
    numbers.len()
}

fn planned(select: &Select) {
    for (dialect, served) in [(Dialect::Sqlite, &*SQLITE), (Dialect::Postgres, &*POSTGRES)] {
        let (table, topic) = served;
        let view = topic.view.as_ref().expect("it has a table");
        if let Ok(plan) = plan(dialect, "t", view, table, select) {
            assert_eq!(parameters(dialect, &plan.rows), plan.values.len(), "{}", plan.rows);
            if let Some(total) = &plan.total {
                assert_eq!(parameters(dialect, total), plan.shared, "{total}");
            }
        }
    }
}

fuzz_target!(|text: &str| {
    match Request::parse(text, &JsonLimits::default()) {
        Ok(Request::Query { select, .. }) => planned(&select),
        Ok(Request::Subscribe(_, interests)) => {
            for interest in interests {
                for (table, topic) in [&*SQLITE, &*POSTGRES] {
                    let view = topic.view.as_ref().expect("it has a table");
                    if let Ok(filter) = Predicate::of_filter(&interest.filter, view, table) {
                        let sql = filter.to_sql();
                        assert!(interest.filter.is_empty() || !sql.is_empty());
                    }
                }
            }
        }
        _ => {}
    }
});
