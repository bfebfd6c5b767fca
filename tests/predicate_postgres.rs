//! `rowcast::predicate` against the PostgreSQL that it must agree with: rows with values at the
//! edges of every kind, and random conditions. More: `PROPTEST_CASES=2000 cargo test predicate`.

use std::sync::{Arc, Mutex, OnceLock};

use proptest::{collection::vec, prelude::*};
use rowcast::{
    postgres::value,
    predicate::{self, Predicate},
    row::{Row, Value},
    topic::Table,
};

use crate::support::postgres::{Database, database};

/// Pairs of columns `x`, `x2` with a type, between bars their values, and more literals.
pub const COLUMNS: &[(&str, &str, &str, &str)] = &[
    ("b", "boolean", "t|f", "TRUE|FALSE|'true'"),
    (
        "i",
        "integer",
        "0|1|-1|2147483647|-2147483648|7",
        "-5|7|9223372036854775807|'7'",
    ),
    (
        "g",
        "bigint",
        "0|7|9007199254740993|9223372036854775807|-9223372036854775808",
        "9007199254740992|-9223372036854775808",
    ),
    ("o", "oid", "0|1|4294967295", "4294967295|2"),
    (
        "f",
        "real",
        "0|-0|0.1|0.3|16777216|1e-45|3.4028235e38|NaN|Infinity|-Infinity",
        "0.1|0.3|.1e0|16777217|1e-45|'nan'|'Infinity'|-0.0",
    ),
    (
        "d",
        "double precision",
        "0|-0|0.1|1e300|5e-324|NaN|Infinity|-Infinity|9007199254740993",
        "0.1|1e300|'NaN'|'-Infinity'|9007199254740993.0|-0",
    ),
    (
        "n",
        "numeric",
        "0|-0|1.5|1.50|-1.5|100|99.999999999999999999999|123456789012345678901234567890|NaN|Infinity|-Infinity",
        "1.5|1.500|-1.5|1e2|123456789012345678901234567890.0|'NaN'|'Infinity'|0.00|1e-3",
    ),
    (
        "n3",
        "numeric(9,3)",
        "0|1.5|-1.5|100|NaN",
        "1.5|-1.5001|1e2",
    ),
    (
        "t",
        "text",
        "|a|A|ä|z|ab|a b|a |it''s|\\|NULL|王",
        "'a'|'A '|''|'ä'|'\\'|'it''s'",
    ),
    (
        "tc",
        "text COLLATE \"C\"",
        "|a|A|ä|z|ab|a b|a |it''s|\\|王|🦀|ｗ",
        "'a'|'A '|''|'ä'|'z'|'a!'|'王'",
    ),
    (
        "v",
        "varchar(5) COLLATE \"POSIX\"",
        "|a|A|ab|a |abcde",
        "'a'|'abcdefgh'|'a '",
    ),
    (
        "c",
        "char(5)",
        "|a|A|ab|a b|abcde",
        "'a'|'a  '|''|'abcdefgh'",
    ),
    (
        "cc",
        "char(5) COLLATE \"C\"",
        "|a|A|ab|a b|a!|abcde|ä",
        "'a'|'a  '|''|'a!'|'abcdefgh'",
    ),
    (
        "z",
        "timestamptz",
        "2026-11-23 02:36:00+00|2026-11-23 02:36:00.5+00|2026-11-23 02:36:00.000001+00|infinity|-infinity|0044-03-15 12:00:00+00 BC|10000-01-01 00:00:00+00|1969-12-31 23:59:59.999999+00|294276-12-31 23:59:59+00|4713-01-01 00:00:00+00 BC",
        "'2026-11-23T02:36Z'|'2026-11-23 08:06:00+05:30'|'2026-11-23'|'infinity'|'2026-11-23 02:36:00.500'|'2026-11-22 22:36:00-04'",
    ),
    (
        "s",
        "timestamp",
        "2026-11-23 02:36:00|2026-11-23 02:36:00.5|infinity|-infinity|0044-03-15 12:00:00 BC|10000-01-01 00:00:00|2024-02-29 00:00:00",
        "'2026-11-23T02:36'|'2024-02-29'|'infinity'|'2026-11-23 02:36:00.5'",
    ),
    (
        "y",
        "date",
        "2026-11-23|2024-02-29|infinity|-infinity|0044-03-15 BC|5874897-12-31|1970-01-01|4713-01-01 BC|0001-01-01",
        "'2026-11-23'|'1970-01-01'|'infinity'|'0001-01-01'",
    ),
    (
        "m",
        "time",
        "00:00:00|24:00:00|02:36:00.5|23:59:59.999999",
        "'02:36'|'02:36:00.500'|'23:59:59.999999'",
    ),
    (
        "u",
        "uuid",
        "01234567-89ab-cdef-0123-456789abcdef|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff",
        "'01234567-89AB-CDEF-0123-456789abcdef'|'a0000000-0000-0000-0000-000000000000'",
    ),
    (
        "x",
        "bytea",
        "\\x|\\x00|\\x00ff|\\xff|\\x0001",
        "X'00ff'|X''|'\\x00'",
    ),
    ("e", "mood", "sad|glad", "'sad'|'glad'"),
    ("k", "email", "a@b|A@b|c@d", "'a@b'|'nobody'"),
    ("j", "jsonb", "{}|1|null", ""),
    ("p", "place", "(a,1)|(,)", ""),
    ("l", "int[]", "{}|{1}", ""),
];

const ROWS: usize = 80;

/// The table `t` of [`fill`], as PostgreSQL and as Rowcast have it.
pub struct Bench {
    /// Where it is.
    pub database: Mutex<Database>,
    /// Its description.
    pub table: Table,
    /// Its rows, by `id` from 0.
    pub rows: Vec<Row>,
}

/// One table for all cases: conditions vary, rows need not.
pub fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let database = database();
        fill(&database);
        let table = database.table("t");
        let rows = read(&database, &table);
        Bench {
            database: Mutex::new(database),
            table,
            rows,
        }
    })
}

/// A table `t` of all these columns, and its rows.
pub fn fill(database: &Database) {
    let columns = COLUMNS
        .iter()
        .map(|(name, kind, ..)| format!("{name} {kind}, {name}2 {kind}"));
    let columns: Vec<String> = columns.collect();
    database.sql(&format!(
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN email AS text;
         CREATE TYPE place AS (street text, number int);
         CREATE TABLE t (id int PRIMARY KEY, {})",
        columns.join(", ")
    ));
    for id in 0..ROWS {
        let values = COLUMNS
            .iter()
            .enumerate()
            .flat_map(|(column, (_, _, values, _))| {
                let values: Vec<&str> = values.split('|').collect();
                let pick = move |turn: usize| match (id * 7 + column + turn * (id + 3))
                    % (values.len() + 1)
                {
                    0 => "NULL".to_owned(),
                    n => format!("'{}'", values[n - 1]),
                };
                [pick(0), pick(1)]
            });
        let values: Vec<String> = values.collect();
        database.sql(&format!(
            "INSERT INTO t VALUES ({id}, {})",
            values.join(", ")
        ));
    }
}

/// The rows as the change stream tells them.
fn read(database: &Database, table: &Table) -> Vec<Row> {
    let names: Arc<[Arc<str>]> = table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let settings = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 3;";
    let answer = database.sql(&format!("{settings} SELECT * FROM t ORDER BY id"));
    let rows = answer.into_iter().map(|texts| {
        let values = texts
            .iter()
            .zip(&table.columns)
            .map(|(text, column)| match text {
                None => Value::Null,
                Some(text) => value(column.kind.as_ref().unwrap(), text),
            });
        Row::new(names.clone(), values.collect())
    });
    rows.collect()
}

impl Bench {
    fn ask(&self, sql: &str) -> Vec<Option<bool>> {
        let database = self.database.lock().unwrap();
        let answer = database.sql(&format!("SELECT ({sql}\n) FROM t ORDER BY id"));
        let truths = answer
            .into_iter()
            .map(|row| row[0].as_deref().map(|text| text == "t"));
        truths.collect()
    }

    /// Holds a predicate against what PostgreSQL makes of its SQL on every row.
    pub fn check(&self, text: &str, predicate: &Predicate) {
        let sql = predicate.to_sql();
        let ours: Vec<_> = self.rows.iter().map(|row| predicate.test(row)).collect();
        let theirs = self.ask(&sql);
        let differ = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        if let Some(at) = differ {
            panic!(
                "{sql} for {text}: {:?} <> {:?} of {:?}",
                ours[at], theirs[at], self.rows[at]
            );
        }
    }
}

#[derive(Debug, Clone)]
enum Tree {
    Compare(usize, &'static str, usize, bool),
    Columns(usize, &'static str),
    In(usize, bool, Vec<usize>),
    Between(usize, bool, usize, usize),
    Null(usize, bool),
    Bare(bool),
    Join(&'static str, Vec<Tree>),
    Not(Box<Tree>),
}

fn trees() -> impl Strategy<Value = Tree> {
    let op = || prop::sample::select(&["=", "<>", "<", "<=", ">", ">="][..]);
    let column = || 0..COLUMNS.len() * 2;
    let literal = || 0..64_usize;
    let leaf = prop_oneof![
        5 => (column(), op(), literal(), any::<bool>()).prop_map(|(c, op, l, first)| Tree::Compare(c, op, l, first)),
        3 => (column(), op()).prop_map(|(c, op)| Tree::Columns(c, op)),
        2 => (column(), any::<bool>(), vec(literal(), 1..4)).prop_map(|(c, not, list)| Tree::In(c, not, list)),
        2 => (column(), any::<bool>(), literal(), literal()).prop_map(|(c, not, a, b)| Tree::Between(c, not, a, b)),
        1 => (column(), any::<bool>()).prop_map(|(c, not)| Tree::Null(c, not)),
        1 => any::<bool>().prop_map(Tree::Bare),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(|parts| Tree::Join("AND", parts)),
            vec(inner.clone(), 2..4).prop_map(|parts| Tree::Join("OR", parts)),
            inner.prop_map(|part| Tree::Not(Box::new(part))),
        ]
    })
}

/// A column's name by its number.
pub fn name(column: usize) -> String {
    let suffix = if column % 2 == 1 { "2" } else { "" };
    format!("{}{suffix}", COLUMNS[column / 2].0)
}

/// One of the column's values or literals; of every tenth number NULL.
fn literal(column: usize, number: usize) -> String {
    let (_, _, values, more) = COLUMNS[column / 2];
    let values = values.split('|').map(|value| format!("'{value}'"));
    let more = more
        .split('|')
        .filter(|text| !text.is_empty())
        .map(String::from);
    let all: Vec<String> = values.chain(more).collect();
    match number % 10 {
        9 => "NULL".into(),
        _ => all[number % all.len()].clone(),
    }
}

fn write(tree: &Tree) -> String {
    let not = |negated: &bool| if *negated { "NOT " } else { "" };
    match tree {
        Tree::Compare(c, op, l, true) => format!("{} {op} {}", literal(*c, *l), name(*c)),
        Tree::Compare(c, op, l, false) => format!("{} {op} {}", name(*c), literal(*c, *l)),
        Tree::Columns(c, op) => format!("{} {op} {}", name(*c), name(*c ^ 1)),
        Tree::In(c, negated, list) => {
            let list: Vec<_> = list.iter().map(|l| literal(*c, *l)).collect();
            format!("{} {}IN ({})", name(*c), not(negated), list.join(", "))
        }
        Tree::Between(c, negated, a, b) => {
            let (a, b) = (literal(*c, *a), literal(*c, *b));
            format!("{} {}BETWEEN {a} AND {b}", name(*c), not(negated))
        }
        Tree::Null(c, negated) => format!("{} IS {}NULL", name(*c), not(negated)),
        Tree::Bare(negated) => format!("{}b", not(negated)),
        Tree::Join(word, parts) => {
            let parts: Vec<_> = parts.iter().map(write).collect();
            format!("({})", parts.join(&format!(" {word} ")))
        }
        Tree::Not(part) => format!("NOT ({})", write(part)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rust_and_postgres_agree_on_every_row(tree in trees()) {
        let (bench, text) = (bench(), write(&tree));
        // What is refused is refused before anything runs; the next test says what is not.
        if let Ok(predicate) = predicate::parse(&text, &bench.table) {
            bench.check(&text, &predicate);
            let sql = predicate.to_sql();
            if !sql.contains("num_nulls") && !sql.contains("COLLATE") {
                let again = predicate::parse(&sql, &bench.table);
                prop_assert_eq!(again.unwrap().to_sql(), sql);
            }
        }
    }
}

#[test]
fn every_literal_of_the_document_is_read_and_agrees() {
    let bench = bench();
    for (column, (name, .., more)) in COLUMNS.iter().enumerate() {
        let ordered = !matches!(*name, "t" | "c" | "e" | "k");
        let ops: &[&str] = if ordered {
            &["=", "<>", "<", "<=", ">", ">="]
        } else {
            &["=", "<>"]
        };
        for literal in more.split('|').filter(|text| !text.is_empty()) {
            for op in ops {
                let text = format!("{name} {op} {literal}");
                match predicate::parse(&text, &bench.table) {
                    Ok(predicate) => bench.check(&text, &predicate),
                    Err(err) => panic!("{text}: {err}"),
                }
            }
        }
        for op in ops.iter().filter(|_| column < 19) {
            let text = format!("{name} {op} {name}2");
            bench.check(&text, &predicate::parse(&text, &bench.table).unwrap());
        }
        for text in [format!("{name} IS NULL"), format!("{name} IS NOT NULL")] {
            bench.check(&text, &predicate::parse(&text, &bench.table).unwrap());
        }
    }
    let mixed = "i < g AND n >= i OR n = g2";
    bench.check(mixed, &predicate::parse(mixed, &bench.table).unwrap());
}

#[test]
fn what_rust_could_not_tell_is_refused_with_the_remedy() {
    let table = &bench().table;
    for (text, start) in [
        (
            "t < 'a'",
            "at 1:1: the texts of column \"t\" are ordered by the rules of a language, which cannot be followed; declare it with COLLATE \"C\"",
        ),
        ("t BETWEEN 'a' AND 'b'", "at 1:1: the texts of column"),
        ("c >= c2", "at 1:1: the texts of column"),
        ("e < 'glad'", "at 1:1: column \"e\" is an enum"),
        (
            "e = 'angry'",
            "at 1:5: column \"e\" is of type mood and is compared with one of its labels: sad, glad",
        ),
        (
            "e = e2",
            "at 1:5: \"e\" (mood) and \"e2\" (mood) cannot be compared",
        ),
        (
            "j = '{}'",
            "at 1:1: column \"j\" is of type jsonb, which conditions do not compare; IS [NOT] NULL is allowed",
        ),
        ("l = '{1}'", "at 1:1: column \"l\" is of type integer[]"),
        ("p = '(a,1)'", "at 1:1: column \"p\" is of type place"),
        (
            "i = 1.5",
            "at 1:5: column \"i\" is of type integer and is compared with an integer",
        ),
        ("i = 'x'", "at 1:5: column \"i\" is of type integer"),
        ("i = TRUE", "at 1:5: column \"i\" is of type integer"),
        ("o = -1", "at 1:5: column \"o\" is of type oid"),
        ("f = 1e40", "at 1:5: column \"f\" is of type real"),
        ("f = 1e-50", "at 1:5: column \"f\" is of type real"),
        (
            "d = 1e999",
            "at 1:5: column \"d\" is of type double precision",
        ),
        ("n = 'one'", "at 1:5: column \"n\" is of type numeric"),
        (
            "b = 1",
            "at 1:5: column \"b\" is of type boolean and is compared with TRUE or FALSE",
        ),
        (
            "t = 5",
            "at 1:5: column \"t\" is of type text and is compared with a text in quotes",
        ),
        (
            "z > 'now'",
            "at 1:5: column \"z\" is of type timestamp with time zone and is compared with a time such as",
        ),
        ("s > '2026-11-23 02:36Z'", "at 1:5: column \"s\""),
        ("y = '2026-02-29'", "at 1:5: column \"y\""),
        ("y = '2026-11-23 02:36'", "at 1:5: column \"y\""),
        ("u = '0123'", "at 1:5: column \"u\""),
        ("x = '00'", "at 1:5: column \"x\""),
        (
            "i = n AND i = f",
            "at 1:15: \"i\" (integer) and \"f\" (real) cannot be compared",
        ),
        ("f < d", "at 1:5: \"f\" (real) and \"d\""),
        ("i", "at 1:1: a column alone is no condition"),
        (
            "\"I\" = 1",
            "at 1:1: table \"public.t\" has no column \"I\"",
        ),
    ] {
        let refused = predicate::parse(text, table).unwrap_err().to_string();
        assert!(refused.starts_with(start), "{text}: {refused}");
    }
    assert!(predicate::parse("I = 1 AND B AND NOT b2", table).is_ok());
}
