//! `rowcast::predicate` against the SQLite that it must agree with: the same rows, the same
//! conditions, in both spellings. More cases: `PROPTEST_CASES=20000 cargo test predicate`.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::{collection::vec, prelude::*, sample::select};
use rowcast::{
    predicate::{self, MAX_COMPARISONS, MAX_DEPTH, Predicate},
    row::{Row, Value},
    topic::{Affinity, Collation, Column, Table},
};
use rusqlite::{Connection, types::Value as Sql};

const NAMES: [&str; 5] = ["a", "B b", "say \"x\"", "select", "Ünï[c]"];

const TYPES: [(&str, Affinity); 10] = [
    ("INTEGER", Affinity::Integer),
    ("BIGINT", Affinity::Integer),
    ("TEXT", Affinity::Text),
    ("VARCHAR(9)", Affinity::Text),
    ("BLOB", Affinity::Blob),
    ("", Affinity::Blob),
    ("REAL", Affinity::Real),
    ("NUMERIC", Affinity::Numeric),
    ("DATE", Affinity::Numeric),
    ("BOOLEAN", Affinity::Numeric),
];

const COLLATIONS: [(&str, Collation); 4] = [
    ("", Collation::Binary),
    ("COLLATE BINARY", Collation::Binary),
    ("COLLATE NOCASE", Collation::NoCase),
    ("COLLATE RTRIM", Collation::RTrim),
];

/// Between bars.
const TEXTS: &str = concat!(
    "| |3| 3 |3abc|3.0|+3|03|3.|.5|0.5|5e-1|-0|-0.0|1e2|100|1e|e1|.|-|0x3|inf|nan|NULL|",
    "TRUE|2026-01-01|2026|1e308|1e999|9007199254740993|9223372036854775807|",
    "9223372036854775808|-9223372036854775808|3\u{a0}|\t3\r\n|王秀英|ä|Ä|it's \"q\"|🦀",
);

/// Between commas.
const NUMBERS: &str = concat!(
    "0,-0,0.0,-0.0,1,- 1,3,3.0,3.,2.5,.5,5e-1,1e2,1E+2,100,1e308,-1e308,1e309,-1e999,",
    "5e-324,9007199254740992,9007199254740993,9007199254740993.0,9223372036854775807,",
    "-9223372036854775807,9223372036854775808,-9223372036854775808,",
    "-9223372036854775809,9223372036854775807.0,9.3e18,3500000000000000.2500001,",
    "9007199254740993.00000000000000001",
);

#[derive(Debug, Clone)]
enum Literal {
    Null,
    Truth(bool),
    Number(String),
    Text(String),
    Blob(Vec<u8>),
}

/// A condition before it is written: columns are numbers, taken modulo those that fit.
#[derive(Debug, Clone)]
enum Tree {
    Compare(usize, &'static str, Literal, bool),
    Columns(usize, &'static str, usize),
    In(usize, bool, Vec<Literal>),
    Between(usize, bool, Literal, Literal),
    Null(usize, &'static str),
    Not(Box<Tree>),
    Join(&'static str, Vec<Tree>),
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(TEXTS.split('|').collect::<Vec<_>>()).prop_map(String::from),
        2 => "[aAbBäÄ_ ]{0,3} {0,2}",
        2 => "[ \t]?[-+]?[0-9]{0,2}\\.?[0-9]{0,2}([eE][-+]?[0-9]{0,3})?[ \n]?",
        1 => "-?[0-9]{14,24}(\\.[0-9]{0,12})?(e-?[0-9]{1,3})?",
    ]
}

fn numbers() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(NUMBERS.split(',').collect::<Vec<_>>()).prop_map(String::from),
        1 => any::<i64>().prop_map(|integer| integer.to_string()),
        1 => (-3..4_i64).prop_map(|integer| integer.to_string()),
        1 => any::<f64>().prop_map(|real| format!("{real:?}")),
        1 => "-?[0-9]{14,24}(\\.[0-9]{0,12})?(e-?[0-9]{1,3})?",
    ]
}

fn literals() -> impl Strategy<Value = Literal> {
    prop_oneof![
        1 => Just(Literal::Null),
        1 => any::<bool>().prop_map(Literal::Truth),
        5 => numbers().prop_map(Literal::Number),
        5 => texts().prop_map(Literal::Text),
        2 => vec(select(&[0_u8, 32, 51, 65, 97, 255][..]), 0..3).prop_map(Literal::Blob),
    ]
}

fn stored() -> impl Strategy<Value = Sql> {
    let reals = [
        0.0,
        -0.0,
        2.5,
        3.0,
        1e308,
        f64::INFINITY,
        9_223_372_036_854_775_808.0,
        f64::NAN,
    ];
    let integers = [0, 1, 3, 100, 9_007_199_254_740_993, i64::MIN, i64::MAX];
    prop_oneof![
        1 => Just(Sql::Null),
        2 => select(integers.to_vec()).prop_map(Sql::Integer),
        1 => any::<i64>().prop_map(Sql::Integer),
        2 => select(reals.to_vec()).prop_map(Sql::Real),
        1 => any::<f64>().prop_map(Sql::Real),
        4 => texts().prop_map(Sql::Text),
        1 => select(&["a\0b", "A\0c", "a\0", "3\0"][..]).prop_map(|text| Sql::Text(text.into())),
        1 => "[aAb3\\x00]{0,4}".prop_map(Sql::Text),
        2 => vec(select(&[0_u8, 32, 51, 65, 97, 255][..]), 0..3).prop_map(Sql::Blob),
    ]
}

fn trees() -> impl Strategy<Value = Tree> {
    let op = || select(&["=", "==", "<>", "!=", "<", "<=", ">", ">="][..]);
    let null = select(&["IS NULL", "ISNULL", "IS NOT NULL", "NOTNULL", "not null"][..]);
    let column = || 0..16_usize;
    let leaf = prop_oneof![
        4 => (column(), op(), literals(), any::<bool>())
            .prop_map(|(column, op, literal, first)| Tree::Compare(column, op, literal, first)),
        2 => (column(), op(), column()).prop_map(|(a, op, b)| Tree::Columns(a, op, b)),
        2 => (column(), any::<bool>(), vec(literals(), 1..5))
            .prop_map(|(column, negated, list)| Tree::In(column, negated, list)),
        2 => (column(), any::<bool>(), literals(), literals())
            .prop_map(|(column, negated, low, high)| Tree::Between(column, negated, low, high)),
        1 => (column(), null).prop_map(|(column, null)| Tree::Null(column, null)),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            3 => (select(&["AND", "or", "OR", "and"][..]), vec(inner, 2..4))
                .prop_map(|(word, trees)| Tree::Join(word, trees)),
        ]
    })
}

/// Writes trees as some author might, choosing by the bits of `style`.
struct Author<'a> {
    table: &'a Table,
    style: u64,
}

impl Author<'_> {
    fn choose(&mut self, from: u64) -> u64 {
        // Knuth's MMIX generator: the text follows from the case alone, so that it shrinks.
        self.style = self
            .style
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.style >> 33) % from
    }

    fn column(&mut self, column: usize) -> String {
        let name = &self.table.columns[column % self.table.columns.len()].name;
        let name = match self.choose(3) {
            0 => name.to_ascii_uppercase(),
            1 => name.to_ascii_lowercase(),
            _ => name.to_string(),
        };
        let plain = name.eq_ignore_ascii_case("a");
        match self.choose(4) {
            0 if plain => name,
            1 if !name.contains(']') => format!("[{name}]"),
            2 => format!("`{name}`"),
            _ => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    fn kind(&self, column: usize) -> Affinity {
        match self.table.columns[column % self.table.columns.len()].affinity {
            kind @ (Affinity::Text | Affinity::Blob) => kind,
            _ => Affinity::Numeric,
        }
    }

    /// A literal; numbers in quotes where the column is text, for the subset wants that.
    fn literal(&mut self, column: usize, literal: &Literal) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let text = self.kind(column) == Affinity::Text;
        let literal = match literal {
            Literal::Null => "null".to_owned(),
            Literal::Truth(truth) if text => quote(&truth.to_string()),
            Literal::Truth(truth) => truth.to_string(),
            Literal::Number(number) if text => quote(number),
            Literal::Number(number) => number.clone(),
            Literal::Text(text) => quote(text),
            Literal::Blob(bytes) => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
                format!("x'{hex}'")
            }
        };
        match self.choose(8) {
            0 => format!("({literal})"),
            _ => literal,
        }
    }

    fn write(&mut self, tree: &Tree) -> String {
        let not = |negated: bool| if negated { " not" } else { "" };
        match tree {
            Tree::Compare(column, op, literal, first) => {
                let (name, literal) = (self.column(*column), self.literal(*column, literal));
                let gap = if self.choose(4) == 0 && !literal.starts_with('-') {
                    ""
                } else {
                    " "
                };
                match first {
                    true => format!("{literal}{gap}{op} {name}"),
                    false => format!("{name}{gap}{op}{gap}{literal}"),
                }
            }
            Tree::Columns(a, op, b) => {
                let collation = self.table.columns[a % self.table.columns.len()].collation;
                let fits = |other: &usize| {
                    self.kind(*other) == self.kind(*a)
                        && self.table.columns[*other].collation == collation
                };
                let fitting: Vec<_> = (0..self.table.columns.len()).filter(fits).collect();
                let b = fitting[b % fitting.len()];
                format!("{} {op} {}", self.column(*a), self.column(b))
            }
            Tree::In(column, negated, list) => {
                let name = self.column(*column);
                let list: Vec<_> = list
                    .iter()
                    .map(|item| self.literal(*column, item))
                    .collect();
                format!("{name}{} IN ({})", not(*negated), list.join(","))
            }
            Tree::Between(column, negated, low, high) => {
                let name = self.column(*column);
                let (low, high) = (self.literal(*column, low), self.literal(*column, high));
                format!(
                    "{name}{} between {low}\n and /* high */ {high}",
                    not(*negated)
                )
            }
            Tree::Null(column, null) => format!("{} {null}", self.column(*column)),
            Tree::Not(inner) => match self.choose(2) {
                0 => format!("NOT ({})", self.write(inner)),
                // Without parentheses it may take less with it: another condition, but a valid one.
                _ => format!("not {}", self.write(inner)),
            },
            Tree::Join(word, trees) => {
                let parts: Vec<_> = trees
                    .iter()
                    .map(|tree| match self.choose(2) {
                        0 => format!("({})", self.write(tree)),
                        _ => self.write(tree),
                    })
                    .collect();
                parts.join(&format!(" {word} "))
            }
        }
    }
}

/// A table in memory and what the predicate sees of it.
struct Bench {
    db: Connection,
    table: Table,
    rows: Vec<Row>,
}

impl Bench {
    fn new(columns: &[(usize, usize)], rows: &[Vec<Sql>], indexed: bool) -> Self {
        let columns: Vec<_> = NAMES.iter().zip(columns).collect();
        let table = Table {
            name: "t".into(),
            columns: columns
                .iter()
                .map(|(name, (declared, collation))| Column {
                    kind: None,
                    name: Arc::from(**name),
                    declared: TYPES[*declared].0.into(),
                    affinity: TYPES[*declared].1,
                    collation: COLLATIONS[*collation].1,
                    not_null: false,
                })
                .collect(),
            primary_key: vec![],
            unique: vec![],
            displaces: false,
        };
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let declarations: Vec<_> = columns
            .iter()
            .map(|(name, (declared, collation))| {
                format!(
                    "{} {} {}",
                    quoted(name),
                    TYPES[*declared].0,
                    COLLATIONS[*collation].0
                )
            })
            .collect();
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(&format!("CREATE TABLE t ({})", declarations.join(", ")))
            .unwrap();
        if indexed {
            for (index, (name, _)) in columns.iter().enumerate() {
                let sql = format!("CREATE INDEX i{index} ON t ({})", quoted(name));
                db.execute_batch(&sql).unwrap();
            }
        }
        let marks = vec!["?"; columns.len()].join(", ");
        let mut insert = db
            .prepare(&format!("INSERT INTO t VALUES ({marks})"))
            .unwrap();
        for row in rows {
            insert
                .execute(rusqlite::params_from_iter(&row[..columns.len()]))
                .unwrap();
        }
        drop(insert);
        let rows = read(&db, &table);
        Self { db, table, rows }
    }

    /// What SQLite says of an expression for every row.
    fn ask(&self, sql: &str) -> Vec<Option<bool>> {
        let sql = format!("SELECT ({sql}\n) FROM t ORDER BY rowid");
        let mut query = self
            .db
            .prepare(&sql)
            .unwrap_or_else(|err| panic!("{err}: {sql}"));
        let answers = query.query_map([], |row| row.get(0)).unwrap();
        answers.map(Result::unwrap).collect()
    }

    /// Which rows a query keeps.
    fn keep(&self, sql: &str) -> Vec<usize> {
        let sql = format!("SELECT rowid - 1 FROM t WHERE {sql} ORDER BY rowid");
        let mut query = self
            .db
            .prepare(&sql)
            .unwrap_or_else(|err| panic!("{err}: {sql}"));
        let rows = query.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        rows.map(|row| usize::try_from(row.unwrap()).unwrap())
            .collect()
    }

    fn check(&self, text: &str, predicate: &Predicate) -> Result<(), TestCaseError> {
        let sql = predicate.to_sql();
        let ours: Vec<_> = self.rows.iter().map(|row| predicate.test(row)).collect();
        prop_assert_eq!(&self.ask(text), &ours, "{} of {:?}", text, self.rows);
        prop_assert_eq!(
            &self.ask(&sql),
            &ours,
            "{} for {} of {:?}",
            sql,
            text,
            self.rows
        );
        let kept: Vec<_> = (0..ours.len())
            .filter(|&index| predicate.holds(&self.rows[index]))
            .collect();
        prop_assert_eq!(
            self.keep(&sql),
            kept,
            "WHERE {} for {} of {:?}",
            sql,
            text,
            self.rows
        );
        Ok(())
    }
}

/// The rows as stored: affinity was applied when they were inserted, NaN became NULL.
fn read(db: &Connection, table: &Table) -> Vec<Row> {
    let names: Arc<[Arc<str>]> = table
        .columns
        .iter()
        .map(|column| column.name.clone())
        .collect();
    let mut query = db.prepare("SELECT * FROM t ORDER BY rowid").unwrap();
    let rows = query.query_map([], |row| {
        let value = |index| {
            Ok(match row.get(index)? {
                Sql::Null => Value::Null,
                Sql::Integer(integer) => Value::Integer(integer),
                Sql::Real(real) => Value::Real(real),
                Sql::Text(text) => Value::Text(text),
                Sql::Blob(bytes) => Value::Blob(bytes),
            })
        };
        let values = (0..names.len())
            .map(value)
            .collect::<rusqlite::Result<_>>()?;
        Ok(Row::new(names.clone(), values))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

proptest! {
    // A failure prints its smallest case; it belongs into a unit test rather than into a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rust_and_sqlite_agree_on_every_row(
        columns in vec((0..TYPES.len(), 0..COLLATIONS.len()), 1..=NAMES.len()),
        rows in vec(vec(stored(), NAMES.len()), 1..10),
        trees in vec((trees(), any::<u64>()), 1..6),
        indexed in any::<bool>(),
    ) {
        let bench = Bench::new(&columns, &rows, indexed);
        for (tree, style) in &trees {
            let text = Author { table: &bench.table, style: *style }.write(tree);
            let predicate = predicate::parse(&text, &bench.table)
                .map_err(|err| TestCaseError::fail(format!("{err}: {text}")))?;
            bench.check(&text, &predicate)?;
            let again = predicate::parse(&predicate.to_sql(), &bench.table).unwrap();
            prop_assert_eq!(again.to_sql(), predicate.to_sql());
            prop_assert_eq!(again, predicate);
        }
    }

    #[test]
    fn a_number_is_the_same_to_the_bit(number in numbers(), declared in select(vec![0, 4, 7])) {
        let text = if number.starts_with("- ") { number.replace(' ', "") } else { number };
        let bench = Bench::new(&[(declared, 0)], &[vec![Sql::Null]], false);
        bench.db.execute_batch(&format!("INSERT INTO t VALUES ({text}), ('{text}')")).unwrap();
        let bench = Bench { rows: read(&bench.db, &bench.table), ..bench };
        for literal in [text.clone(), format!("'{text}'")] {
            let condition = format!("a = {literal}");
            let predicate = predicate::parse(&condition, &bench.table).unwrap();
            bench.check(&condition, &predicate)?;
            let row = if literal == text { 1 } else { 2 };
            prop_assert!(predicate.holds(&bench.rows[row]));
        }
    }

    #[test]
    fn any_text_is_read_or_refused_within_it(text in "[ -~\n]{0,24}|([a-z(),='\"0-9;]|AND|OR|NOT|IN| ){0,24}") {
        let bench = Bench::new(&[(0, 0)], &[vec![Sql::Integer(1)]], false);
        match predicate::parse(&text, &bench.table) {
            Ok(predicate) => prop_assert_eq!(bench.ask(&predicate.to_sql()).len(), 1),
            Err(err) => {
                let lines = text.split('\n').map(|line| line.chars().count() as u64 + 1);
                let line = usize::try_from(err.line).unwrap();
                let length = lines.collect::<Vec<_>>()[line - 1];
                prop_assert!((1..=length).contains(&err.column), "{}: {:?}", err, text);
            }
        }
    }
}

#[test]
fn sqlite_takes_the_largest_condition() {
    let bench = Bench::new(&[(0, 0)], &[vec![Sql::Integer(1)]], false);
    let nots = "NOT (".repeat(MAX_DEPTH / 2);
    let chain = vec!["a = 1"; MAX_COMPARISONS].join(" AND ");
    let text = format!("{nots}{chain}{}", ")".repeat(MAX_DEPTH / 2));
    let predicate = predicate::parse(&text, &bench.table).unwrap();
    bench.check(&text, &predicate).unwrap();
}

#[test]
fn texts_with_nul_compare_as_in_sqlite() {
    let texts = [
        "", "\0", "a", "a\0", "A\0", "a\0b", "A\0c", "a\0bc", "ab", "a \0", "a \0 ",
    ];
    let pairs = texts.iter().flat_map(|a| texts.iter().map(move |b| [a, b]));
    let rows: Vec<Vec<_>> = pairs
        .map(|pair| pair.map(|text| Sql::Text((*text).into())).to_vec())
        .collect();
    for collation in 0..COLLATIONS.len() {
        let bench = Bench::new(&[(2, collation), (2, collation)], &rows, false);
        for text in ["a = [b b]", "a < [b b]", "a >= [b b]"] {
            bench
                .check(text, &predicate::parse(text, &bench.table).unwrap())
                .unwrap();
        }
    }
}
