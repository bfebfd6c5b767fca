//! A policy that is bound to somebody's claims, of whatever they are, is true for the same rows in Rust, as SQL,
//! and as a query with bound values.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use proptest::{collection::vec, prelude::*};
use rowcast::{
    identity::Identity,
    policy::seen_by,
    postgres::Address,
    predicate::{self, Unbound},
    protocol::Select,
    store::{
        Store,
        postgres::{PostgresStore, PostgresStoreConfig},
    },
    topic::{Claims, Topic},
};
use serde_json::{Map, Value as Json, json};

use crate::{
    predicate_postgres::{COLUMNS, bench, name},
    support::in_time,
};

/// Claims that may stand beside a column: its values and literals, and what is none of its type.
fn claim(column: usize, number: usize) -> Option<Json> {
    let (_, _, values, more) = COLUMNS[column / 2];
    let texts = values.split('|').chain(more.split('|'));
    let texts: Vec<Json> = texts
        .map(|text| json!(text.trim_matches('\'').replace("''", "'")))
        .collect();
    let strange = [
        None,
        Some(Json::Null),
        Some(json!({"a": 1})),
        Some(json!([])),
        Some(json!("a\0")),
        Some(json!(true)),
        Some(json!(7)),
        Some(json!(0.1)),
        Some(json!(texts)),
        Some(json!([texts[0], null, {"a": 1}, "no such value"])),
    ];
    match number.checked_sub(strange.len()) {
        None => strange[number].clone(),
        Some(number) => Some(texts[number % texts.len()].clone()),
    }
}

#[derive(Debug, Clone)]
enum Tree {
    Compare(usize, &'static str, usize, bool),
    In(usize, bool, usize),
    Null(usize, bool),
    Join(&'static str, Vec<Tree>),
    Not(Box<Tree>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let op = || prop::sample::select(&["=", "=", "<>", "<", "<=", ">", ">="][..]);
    let column = || 0..COLUMNS.len() * 2;
    let number = || 0..40_usize;
    let leaf = prop_oneof![
        5 => (column(), op(), number(), any::<bool>()).prop_map(|(c, op, n, first)| Tree::Compare(c, op, n, first)),
        4 => (column(), any::<bool>(), number()).prop_map(|(c, not, n)| Tree::In(c, not, n)),
        1 => (column(), any::<bool>()).prop_map(|(c, not)| Tree::Null(c, not)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(|parts| Tree::Join("AND", parts)),
            vec(inner.clone(), 2..4).prop_map(|parts| Tree::Join("OR", parts)),
            inner.prop_map(|part| Tree::Not(Box::new(part))),
        ]
    })
}

/// The text, with claims named by column and number.
fn write(tree: &Tree, claims: &mut Map<String, Json>) -> String {
    let mut named = |column: usize, number: usize| {
        let called = format!("{}_{number}", name(column));
        if let Some(value) = claim(column, number) {
            claims.insert(called.clone(), value);
        }
        format!("token.{called}")
    };
    match tree {
        Tree::Compare(c, op, n, true) => format!("{} {op} {}", named(*c, *n), name(*c)),
        Tree::Compare(c, op, n, false) => format!("{} {op} {}", name(*c), named(*c, *n)),
        Tree::In(c, true, n) => format!("{} NOT IN {}", name(*c), named(*c, *n)),
        Tree::In(c, false, n) => format!("{} IN {}", name(*c), named(*c, *n)),
        Tree::Null(c, negated) => {
            let not = if *negated { "NOT " } else { "" };
            format!("{} IS {not}NULL", name(*c))
        }
        Tree::Join(word, parts) => {
            let parts: Vec<_> = parts.iter().map(|part| write(part, claims)).collect();
            format!("({})", parts.join(&format!(" {word} ")))
        }
        Tree::Not(part) => format!("NOT ({})", write(part, claims)),
    }
}

fn claims(members: Map<String, Json>) -> Claims {
    let members = members.into_iter();
    Claims::new(members.map(|(name, value)| (name.into(), value)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rust_and_postgres_agree_on_every_row_for_whatever_claims(tree in trees()) {
        let (bench, mut members) = (bench(), Map::new());
        let text = write(&tree, &mut members);
        // What is refused is refused at the start.
        if let Ok(policy) = Unbound::parse(&text, &bench.table) {
            let told = format!("{text} for {}", Json::from(members.clone()));
            bench.check(&told, &policy.bind(&claims(members)));
        }
    }
}

#[test]
fn what_does_not_fit_is_never_true_and_nor_is_its_negation() {
    let bench = bench();
    for column in (0..COLUMNS.len()).map(|column| column * 2) {
        for number in 0..5 {
            for test in ["=", "<>"] {
                for not in ["", "NOT "] {
                    let mut members = Map::new();
                    let text = format!("{not}({} {test} token.x)", name(column));
                    if let Some(value) = claim(column, number) {
                        members.insert("x".into(), value);
                    }
                    let Ok(policy) = Unbound::parse(&text, &bench.table) else {
                        continue;
                    };
                    let bound = policy.bind(&claims(members));
                    let seen = bench.rows.iter().filter(|row| bound.holds(row)).count();
                    assert_eq!(seen, 0, "{text} with claim {number}");
                }
            }
        }
    }
}

#[test]
fn a_policy_is_refused_with_its_place_where_it_could_not_be_judged() {
    let table = &bench().table;
    for (text, start) in [
        ("i = 7", "at 1:1: a policy names a claim"),
        ("token.a = token.b", "at 1:1: a comparison needs a column"),
        ("token.a = 7", "at 1:1: a comparison needs a column"),
        ("token.a", "at 1:1: a claim alone is no condition"),
        ("i = token.", "at 1:11: a claim is written token.NAME"),
        ("i = token.a.b", "at 1:12: "),
        (
            "i BETWEEN token.a AND 7",
            "at 1:11: BETWEEN takes literals only",
        ),
        ("i IN (token.a)", "at 1:7: IN takes literals only"),
        (
            "t < token.a",
            "at 1:1: the texts of column \"t\" are ordered",
        ),
        ("j = token.a", "at 1:1: column \"j\" is of type jsonb"),
        (
            "nothing = token.a",
            "at 1:1: table \"public.t\" has no column",
        ),
        ("other.a = 7", "at 1:1: a name in parts is"),
    ] {
        let refused = Unbound::parse(text, table).unwrap_err().to_string();
        assert!(refused.starts_with(start), "{text}: {refused}");
    }
    // What is a claim in a policy is none in a condition of everybody's.
    assert!(predicate::parse("i = token.a", table).is_err());
    let names = predicate::claims("i = Token.a OR t IN token.\"a b\" AND token.a <> i");
    assert_eq!(names, ["a".into(), "a b".into()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_returns_the_rows_for_which_the_policy_is_true() {
    let bench = bench();
    let url = bench.database.lock().unwrap().url();
    let store = PostgresStore::new(PostgresStoreConfig {
        address: Address::parse(&url).unwrap(),
        connections: 2,
        timeout: Duration::from_secs(20),
    });
    let mut found = 0;
    for column in (0..COLUMNS.len()).map(|column| column * 2) {
        for (test, numbers) in [("=", 0..40), ("IN", 0..10), ("NOT IN", 0..10)] {
            let policy = format!("{} {test} token.x", name(column));
            let Ok(unbound) = Unbound::parse(&policy, &bench.table) else {
                continue;
            };
            let spec = json!({"type": "t", "table": "t", "policy": policy});
            let spec = serde_json::from_value(spec).unwrap();
            let topic = Topic::resolve(&spec, Some(&bench.table)).unwrap();
            for number in numbers {
                let members: Map<_, _> = claim(column, number)
                    .map(|value| ("x".to_owned(), value))
                    .into_iter()
                    .collect();
                let identity = Identity::new(members.clone(), None);
                let seen = Arc::new(seen_by(&topic, &identity).unwrap());
                let all = Select::read(json!({"all": true}).as_object().unwrap()).unwrap();
                let read = in_time("a query", store.snapshot(seen, all)).await;
                let read = read.unwrap_or_else(|err| panic!("{policy} {members:?}: {err}"));
                let mut rows = Vec::new();
                read.rows.write_array(&mut rows, 0..read.rows.len());
                let rows: Vec<Json> = serde_json::from_slice(&rows).unwrap();
                let theirs: BTreeSet<u64> =
                    rows.iter().map(|row| row["id"].as_u64().unwrap()).collect();
                let bound = unbound.bind(&claims(members.clone()));
                let ours = bench
                    .rows
                    .iter()
                    .zip(0..)
                    .filter(|(row, _)| bound.holds(row));
                let ours: BTreeSet<u64> = ours.map(|(_, id)| id).collect();
                assert_eq!(theirs, ours, "{policy} with {members:?}");
                found += ours.len();
            }
        }
    }
    assert!(found > 1000, "{found} rows in all");
}
