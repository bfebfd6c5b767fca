use super::*;
use crate::topic::{Affinity, Collation, Column, TopicSpec};

fn table(name: &str) -> Table {
    Table {
        name: name.to_owned(),
        columns: vec![Column {
            name: "id".into(),
            declared: "INTEGER".to_owned(),
            affinity: Affinity::Integer,
            kind: None,
            collation: Collation::Binary,
            not_null: true,
        }],
        primary_key: vec!["id".to_owned()],
        unique: Vec::new(),
        displaces: false,
    }
}

/// A page topic over a query on `a` and `b`.
fn translator() -> Translator {
    let spec = r#"{"type":"both","query":"SELECT 1 AS id","watch":["a","b"],"key":["id"]}"#;
    let spec: TopicSpec = serde_json::from_str(spec).unwrap();
    let watched = [table("a"), table("b")];
    let topic = Topic::resolve_query(&spec, &table(""), &watched).unwrap();
    Translator::new(Topics::new(vec![topic]).unwrap(), "/here".to_owned())
}

fn changes(of: &[(&str, Option<u64>)]) -> Vec<Change> {
    let change = |(number, (table, xid)): (u64, &(&str, Option<u64>))| Change {
        table: (*table).into(),
        what: What::Truncate,
        checkpoint: Checkpoint {
            source: "s".into(),
            high: number,
            low: 0,
        },
        tx: None,
        at_ms: 0,
        xid: *xid,
    };
    (1..).zip(of).map(change).collect()
}

/// Where the touches stand, and of which transactions they are.
fn touches(of: &[(&str, Option<u64>)]) -> Vec<(u64, Option<u64>)> {
    let events = translator().events(&changes(of));
    let told = events.iter().map(|event| {
        let at = event.checkpoint().unwrap().high;
        assert!(matches!(&event.body, Body::Change { data, .. } if data.op == Op::Touch));
        (at, event.xid)
    });
    told.collect()
}

#[test]
fn a_page_topic_is_touched_once_by_each_transaction_where_that_ends() {
    let three = [
        ("a", Some(7)),
        ("b", Some(7)),
        ("c", Some(7)),
        ("b", Some(5)),
        ("c", Some(8)),
        ("a", Some(9)),
        ("a", Some(9)),
    ];
    assert_eq!(touches(&three), [(2, Some(7)), (4, Some(5)), (7, Some(9))]);
}

#[test]
fn where_transactions_have_no_ids_it_is_touched_once_by_all_of_them() {
    assert_eq!(
        touches(&[("a", None), ("b", None), ("c", None)]),
        [(2, None)]
    );
    assert_eq!(touches(&[("c", None)]), []);
}

/// A row topic with columns by role, or without.
fn of_rows(more: &str) -> Translator {
    let spec = format!(r#"{{"type":"a","table":"a"{more}}}"#);
    let spec: TopicSpec = serde_json::from_str(&spec).unwrap();
    let topic = Topic::resolve(&spec, Some(&table("a"))).unwrap();
    Translator::new(Topics::new(vec![topic]).unwrap(), "/here".to_owned())
}

fn groups(translator: &mut Translator, tx: [Option<&str>; 4]) -> Vec<Option<Arc<str>>> {
    let mut changes = changes(&[("a", Some(7)); 4]);
    for (change, tx) in changes.iter_mut().zip(tx) {
        change.tx = tx.map(Into::into);
    }
    let events = translator.events(&changes);
    events.into_iter().map(|event| event.tx).collect()
}

#[test]
fn a_group_says_what_belongs_together_and_not_where_it_stands() {
    let tx = [Some("3002d08"), Some("3002d08"), None, Some("3002d10")];
    let found = groups(&mut of_rows(""), tx);
    assert_eq!(found[0], found[1]);
    assert!(found[0].is_some() && found[3].is_some() && found[0] != found[3]);
    assert_eq!(found[2], None);
    let text = format!("{found:?}");
    assert!(!text.contains("3002d"), "{text}");
    assert_eq!(
        groups(&mut of_rows(""), tx),
        found,
        "the same after a restart"
    );
}

#[test]
fn where_somebody_sees_less_than_others_every_event_is_of_a_group() {
    let mut guarded = of_rows(r#","columns_by_role":{"nurse":["id"]}"#);
    let found = groups(&mut guarded, [None, Some("x"), Some("x"), None]);
    assert!(found.iter().all(Option::is_some), "{found:?}");
    assert!(found[1] == found[2] && found[0] != found[1] && found[3] != found[0]);
}
