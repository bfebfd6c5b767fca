use super::*;
use crate::topic::{Affinity, Column, Table};

fn patients() -> Table {
    let column = |name: &str, affinity, collation| Column {
        kind: None,
        name: name.into(),
        declared: String::new(),
        affinity,
        collation,
        not_null: false,
    };
    use {Affinity::*, Collation::*};
    Table {
        name: "patient".into(),
        columns: vec![
            column("id", Integer, Binary),
            column("Age", Numeric, Binary),
            column("weight", Real, Binary),
            column("name", Text, Binary),
            column("ward", Text, NoCase),
            column("photo", Blob, Binary),
            column("alias", Text, Other),
            column("say \"x\"", Text, Binary),
            column("order", Integer, Binary),
        ],
        primary_key: vec!["id".into()],
        unique: vec![],
        displaces: false,
    }
}

fn sql(text: &str) -> String {
    let canonical = parse(text, &patients()).unwrap().to_sql();
    let again = parse(&canonical, &patients()).unwrap();
    assert_eq!(again.to_sql(), canonical);
    assert_eq!(again, parse(text, &patients()).unwrap());
    canonical
}

fn refusal(text: &str) -> String {
    parse(text, &patients()).unwrap_err().to_string()
}

fn row(pairs: &[(&str, Value)]) -> Row {
    let names = pairs.iter().map(|(name, _)| Arc::from(*name)).collect();
    Row::new(
        names,
        pairs.iter().map(|(_, value)| value.clone()).collect(),
    )
}

#[test]
fn spellings_of_one_condition_have_one_text() {
    for text in [
        "id=1",
        "1 == ID",
        "((\"ID\") = (1))",
        "[id] = '1'",
        "`Id` = TRUE -- one",
        "id/**/= '+01 '",
    ] {
        assert_eq!(sql(text), "\"id\" = 1", "{text}");
    }
    assert_eq!(sql("5 > id"), "\"id\" < 5");
    assert_eq!(sql("5 <= id"), "\"id\" >= 5");
    assert_eq!(sql("id != age"), "\"id\" <> \"Age\"");
    assert_eq!(sql("name ISNULL"), "\"name\" IS NULL");
    assert_eq!(sql("name NOTNULL"), "\"name\" IS NOT NULL");
    assert_eq!(sql("name not null"), "\"name\" IS NOT NULL");
    assert_eq!(
        sql("id not in ((1), NULL, - 2)"),
        "\"id\" NOT IN (1, NULL, -2)"
    );
    assert_eq!(sql("id between '1' and 2.50"), "\"id\" BETWEEN 1 AND 2.5");
    assert_eq!(
        sql("\"say \"\"x\"\"\" = 'it''s'"),
        "\"say \"\"x\"\"\" = 'it''s'"
    );
    assert_eq!(sql("order = 1"), "\"order\" = 1");
}

#[test]
fn parentheses_stand_where_they_matter() {
    assert_eq!(
        sql("id = 1 or id = 2 and not age is null"),
        "(\"id\" = 1 OR \"id\" = 2 AND NOT \"Age\" IS NULL)"
    );
    assert_eq!(
        sql("((id = 1 or (id = 2 or id = 3)) and ((age = 4)))"),
        "((\"id\" = 1 OR \"id\" = 2 OR \"id\" = 3) AND \"Age\" = 4)"
    );
    assert_eq!(
        sql("not (id = 1 and age = 2)"),
        "NOT (\"id\" = 1 AND \"Age\" = 2)"
    );
    assert_eq!(sql("not not (id = 1)"), "NOT NOT \"id\" = 1");
    assert_eq!(
        sql("id between 1 and 2 and age not between 3 and 4"),
        "(\"id\" BETWEEN 1 AND 2 AND \"Age\" NOT BETWEEN 3 AND 4)"
    );
}

#[test]
fn literals_are_what_sqlite_reads() {
    let literal = |text: &str| sql(&format!("photo = {text}"))["\"photo\" = ".len()..].to_owned();
    assert_eq!(literal("9223372036854775807"), "9223372036854775807");
    assert_eq!(literal("-9223372036854775808"), "-9223372036854775808");
    assert_eq!(literal("9223372036854775808"), "9.223372036854776e18");
    assert_eq!(literal("-0.0"), "0.0");
    assert_eq!(literal("1.0"), "1.0");
    assert_eq!(literal(".5e1"), "5.0");
    assert_eq!(literal("1e999"), "9e999");
    assert_eq!(literal("-1e999"), "-9e999");
    assert_eq!(literal("x'00fF'"), "X'00ff'");
    assert_eq!(literal("X''"), "X''");
    assert_eq!(literal("' 3 '"), "' 3 '");
    assert_eq!(literal("false"), "0");
    assert_eq!(literal("null"), "NULL");
}

#[test]
fn what_sql_has_and_the_subset_has_not_is_refused_in_its_place() {
    for (text, place, what) in [
        ("id = 1 AND lower(name) = 'x'", "1:12", "function calls are"),
        ("id = 1 AND\n  name LIKE 'x%'", "2:8", "pattern matches are"),
        ("name NOT GLOB 'x'", "1:10", "pattern matches are"),
        ("id = (SELECT 1)", "1:7", "subqueries are"),
        ("id IN (SELECT 1)", "1:8", "subqueries are"),
        ("EXISTS (SELECT 1)", "1:1", "subqueries are"),
        ("CAST(id AS TEXT) = '1'", "1:1", "casts are"),
        ("CASE WHEN id THEN 1 END = 1", "1:1", "CASE is"),
        ("name > CURRENT_DATE", "1:8", "function calls are"),
        ("name = 'a' COLLATE NOCASE", "1:12", "COLLATE is"),
        ("id + 1 = 2", "1:4", "arithmetic is"),
        ("id = 1 + 1", "1:8", "arithmetic is"),
        ("id = -age", "1:6", "arithmetic is"),
        ("id = - -1", "1:6", "arithmetic is"),
        ("id = +1", "1:6", "arithmetic is"),
        ("name || 'x' = 'y'", "1:6", "arithmetic is"),
        ("id = ?", "1:6", "parameters are"),
        ("id = ?1", "1:6", "parameters are"),
        ("id = :id", "1:6", "parameters are"),
        ("id = @id", "1:6", "parameters are"),
        ("id = $id", "1:6", "parameters are"),
        ("id = 1; DROP TABLE patient", "1:7", "a second statement is"),
        ("(id, age) = (1, 2)", "1:4", "a tuple or list outside IN is"),
        ("patient.id = 1", "1:1", "a name in parts is"),
        ("id = 0x10", "1:6", "a hexadecimal integer is"),
        ("id IS 1", "1:7", "IS with anything but [NOT] NULL is"),
        (
            "id IS NOT TRUE",
            "1:11",
            "IS with anything but [NOT] NULL is",
        ),
        ("id = age = 1", "1:10", "`=` here is"),
        ("id = 1 age = 2", "1:8", "`age` here is"),
        ("id = 1)", "1:7", "`)` here is"),
        ("name = N'x'", "1:8", "`N'x'` here is"),
        ("id = NOT (age = 1)", "1:6", "`NOT` here is"),
        ("id BETWEEN 1 OR 2", "1:14", "`OR` here is"),
        ("id IN (1 2)", "1:10", "`2` here is"),
        ("(id = 1) = 1", "1:2", "comparing a condition is"),
        ("id = (age = 1)", "1:7", "comparing a condition is"),
    ] {
        let rest = "not in the subset; allowed are comparisons, IN, BETWEEN, IS [NOT] NULL, AND, \
                    OR, NOT over the table's columns";
        assert_eq!(
            refusal(text),
            format!("at {place}: {what} {rest}"),
            "{text}"
        );
    }
}

#[test]
fn what_could_not_be_followed_or_makes_no_sense_is_refused_in_its_place() {
    for (text, start) in [
        ("", "at 1:1: the condition is empty"),
        (" -- nothing", "at 1:12: the condition is empty"),
        ("id =", "at 1:5: the condition is incomplete"),
        ("(id = 1", "at 1:8: the condition is incomplete"),
        ("id = 1 AND", "at 1:11: the condition is incomplete"),
        ("name = 'x", "at 1:8: this is not SQL"),
        (
            "nmae = 'x'",
            "at 1:1: table \"patient\" has no column \"nmae\"; did you mean \"name\"?",
        ),
        (
            "name = \"Bob\"",
            "at 1:8: table \"patient\" has no column \"Bob\"; its columns are id, Age,",
        ),
        (
            "rowid = 1",
            "at 1:1: table \"patient\" has no column \"rowid\"",
        ),
        ("[a]]b] = 1", "at 1:1: a name with a bracket in it"),
        ("id", "at 1:1: a column alone is no condition"),
        ("NOT id", "at 1:5: a column alone is no condition"),
        ("age = 1 OR (id)", "at 1:13: a column alone is no condition"),
        ("1", "at 1:1: a literal alone is no condition"),
        (
            "id = 1 AND NULL",
            "at 1:12: a literal alone is no condition",
        ),
        ("1 = 1", "at 1:1: a comparison needs a column"),
        ("1 IS NULL", "at 1:1: IS NULL needs a column"),
        ("(id = 1) IS NULL", "at 1:2: IS NULL needs a column"),
        ("1 IN (1)", "at 1:1: IN needs a column"),
        ("id IN ()", "at 1:8: IN needs at least one literal"),
        ("id IN age", "at 1:7: IN takes literals in parentheses"),
        ("id IN (1, age)", "at 1:11: IN takes literals only"),
        ("2 BETWEEN 1 AND 3", "at 1:1: BETWEEN needs a column"),
        (
            "id BETWEEN age AND 3",
            "at 1:12: BETWEEN takes literals only",
        ),
        (
            "name = 5",
            "at 1:8: column \"name\" holds text and this is a number; quote it",
        ),
        ("name IN ('a', -5)", "at 1:15: column \"name\" holds text"),
        ("name < TRUE", "at 1:8: column \"name\" holds text"),
        (
            "name = id",
            "at 1:8: \"name\" and \"id\" differ in type or collation",
        ),
        (
            "name = ward",
            "at 1:8: \"name\" and \"ward\" differ in type or collation",
        ),
        (
            "alias = 'x'",
            "at 1:1: column \"alias\" has a collation defined by some program",
        ),
        (
            "id = 1 AND alias IN ('x')",
            "at 1:12: column \"alias\" has a collation",
        ),
        (
            "photo = X'0'",
            "at 1:9: X'…' takes pairs of hexadecimal digits",
        ),
        (
            "photo = X'+f'",
            "at 1:9: X'…' takes pairs of hexadecimal digits",
        ),
        ("name = 'a\0b'", "at 1:8: a text literal cannot hold NUL"),
    ] {
        assert!(
            refusal(text).starts_with(start),
            "{text}: {}",
            refusal(text)
        );
    }
    assert!(parse("alias IS NOT NULL", &patients()).is_ok());
}

#[test]
fn true_is_a_literal_unless_it_could_be_a_column() {
    let mut table = patients();
    table.columns[0].name = "True".into();
    let err = parse("age = true", &table).unwrap_err().to_string();
    assert!(err.starts_with("at 1:7: \"True\" is a column too"), "{err}");
    assert_eq!(
        parse("\"TRUE\" = false", &table).unwrap().to_sql(),
        "\"True\" = 0"
    );
}

#[test]
fn size_is_bounded() {
    let nested = |n| format!("{}id = 1{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(sql(&nested(MAX_DEPTH)), "\"id\" = 1");
    assert_eq!(
        refusal(&nested(MAX_DEPTH + 1)),
        "at 1:33: at most 32 levels of nesting are allowed"
    );
    assert_eq!(
        refusal(&nested(100_000)),
        "at 1:33: at most 32 levels of nesting are allowed"
    );
    let not = format!("{}id = 1", "NOT ".repeat(MAX_DEPTH + 1));
    assert_eq!(
        refusal(&not),
        "at 1:129: at most 32 levels of nesting are allowed"
    );

    let chain = |n| vec!["id = 1"; n].join("\nOR ");
    assert!(parse(&chain(MAX_COMPARISONS), &patients()).is_ok());
    assert_eq!(
        refusal(&chain(MAX_COMPARISONS + 1)),
        "at 501:4: at most 500 comparisons are allowed"
    );
}

#[test]
fn columns_are_told_once_and_as_declared() {
    let predicate = parse(
        "AGE > 1 and (ID = 2 or age is null) and NULL = \"ORDER\"",
        &patients(),
    );
    assert_eq!(
        predicate.unwrap().columns().collect::<Vec<_>>(),
        ["Age", "id", "order"]
    );
}

#[test]
fn an_absent_column_is_unknown_and_unknown_does_not_hold() {
    let test = |text, row| {
        let predicate = parse(text, &patients()).unwrap();
        assert_eq!(predicate.holds(&row), predicate.test(&row) == Some(true));
        predicate.test(&row)
    };
    let partial = || row(&[("id", Value::Integer(1)), ("Age", Value::Null)]);
    assert_eq!(test("age IS NULL", partial()), Some(true));
    assert_eq!(test("name IS NULL", partial()), None);
    assert_eq!(test("name IS NOT NULL OR id = 1", partial()), Some(true));
    assert_eq!(test("name IS NULL AND id = 2", partial()), Some(false));
    assert_eq!(test("NOT age = 1", partial()), None);
    assert_eq!(test("id NOT IN (2, NULL)", partial()), None);
    assert_eq!(test("id BETWEEN NULL AND 0", partial()), Some(false));
    let nan = row(&[("weight", Value::Real(f64::NAN))]);
    assert_eq!(test("weight IS NULL", nan), Some(true));
}
