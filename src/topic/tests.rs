use super::*;

fn spec(json: &str) -> TopicSpec {
    serde_json::from_str(json).unwrap()
}

fn column(name: &str, not_null: bool) -> Column {
    Column {
        name: name.into(),
        declared: String::new(),
        affinity: Affinity::Blob,
        kind: None,
        collation: Collation::Binary,
        not_null,
    }
}

fn table(name: &str, primary: &[&str], unique: &[&str]) -> Table {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Table {
        name: name.to_owned(),
        columns: ["id", "code", "note"]
            .map(|c| column(c, c != "note"))
            .into(),
        primary_key: names(primary),
        unique: unique.iter().map(|name| names(&[name])).collect(),
        displaces: false,
    }
}

const JOIN: &str = r#"{"type":"t","query":"WITH x AS (SELECT 1) SELECT 1; ;\n","watch":["a","b","A"],"key":["note"]}"#;

fn join(spec: &TopicSpec) -> Result<Topic, BadTopic> {
    let a = || table("a", &["id"], &["code"]);
    let watched = [a(), table("b", &[], &["note", "code"]), a()];
    Topic::resolve_query(spec, &table("", &[], &[]), &watched)
}

#[test]
fn a_query_is_a_page_topic_that_watches_each_table_once_by_what_identifies_its_rows() {
    let topic = join(&spec(JOIN)).unwrap();
    let view = topic.view.unwrap();
    assert_eq!(
        (topic.push, &view.key[..]),
        (Push::Page, &["note".to_owned()][..])
    );
    assert_eq!(view.tables().collect::<Vec<_>>(), ["a", "b"]);
    let Base::Query { sql, watch } = &view.base else {
        panic!("{view:?}")
    };
    assert_eq!(sql, "WITH x AS (SELECT 1) SELECT 1");
    assert_eq!(
        (&watch[0].key, &watch[1].key),
        (&vec!["id".to_owned()], &vec!["code".to_owned()])
    );
}

#[test]
fn what_a_query_cannot_have_beside_it_is_named() {
    for (from, to, field) in [
        (r#""type":"t""#, r#""type":"t","table":"a""#, "query"),
        (r#""watch":["a","b","A"],"#, "", "watch"),
        (r#""type":"t""#, r#""type":"t","where":"id = 1""#, "where"),
        (r#""type":"t""#, r#""type":"t","push":"row""#, "push"),
        (r#","key":["note"]"#, "", "key"),
        ("WITH x", "WITHIN x", "query"),
        ("WITH x", "-- WITH x", "query"),
        (
            "WITH x AS (SELECT 1) SELECT 1",
            "INSERT INTO a VALUES (1)",
            "query",
        ),
    ] {
        let text = JOIN.replace(from, to);
        let refused = spec(&text).shown().map(drop).unwrap_err();
        assert_eq!(refused.field, field, "{text}: {refused}");
        assert_eq!(join(&spec(&text)).unwrap_err(), refused);
    }
    let fine = JOIN.replace("WITH x", "/* a */\\n-- b\\n with x");
    assert!(join(&spec(&fine)).is_ok());
    let bare = spec(r#"{"type":"t","table":"a","watch":["b"]}"#);
    assert_eq!(bare.shown().unwrap_err().field, "watch");
}

#[test]
fn another_query_and_other_tables_to_watch_are_another_definition() {
    let of = |text: &str| join(&spec(text)).unwrap().fingerprint();
    let (first, rewritten) = (of(JOIN), of(&JOIN.replace("SELECT 1;", "SELECT 2;")));
    assert_ne!(first, rewritten);
    assert_eq!(first, of(&JOIN.replace("; ;", "")));
    let fewer = Topic::resolve_query(
        &spec(JOIN),
        &table("", &[], &[]),
        &[table("a", &["id"], &[])],
    );
    assert_ne!(first, fewer.unwrap().fingerprint());
}
