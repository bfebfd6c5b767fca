//! Random changes of a small table, seen by a client through a filter: whatever the database tells
//! of the row before, the client holds exactly the rows that the filter holds for, after each one.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::select};
use rowcast::{
    event::{Change, Delivery, What},
    position::{Epoch, Position},
    predicate::{self, Judges, Predicate, Unbound},
    protocol::{Params, Select},
    relay::Translator,
    ring::Frame,
    row::{Row, Value, write_object},
    topic::{Affinity, Claims, Collation, Column, Kind, Table, Topic, Topics},
};
use serde_json::{Map, Value as Json, json};

/// What the database tells of the row before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tells {
    /// PostgreSQL with REPLICA IDENTITY FULL.
    Whole,
    /// PostgreSQL's default; large values that have not changed are left out.
    Key,
    /// SQLite, where an insert may replace a row.
    Sqlite,
}

#[derive(Debug, Clone)]
enum Step {
    Insert(i64, Values),
    Update(i64, Values),
    /// To another key.
    Move(i64, i64, Values),
    Delete(i64),
    Truncate,
}

type Values = (Option<i64>, &'static str);

fn values() -> impl Strategy<Value = Values> {
    let number = prop_oneof![1 => Just(None), 6 => (0..4_i64).prop_map(Some)];
    (number, select(&["", "a", "b", "B"][..]))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 1..6_i64;
    let step = prop_oneof![
        4 => (key(), values()).prop_map(|(key, values)| Step::Insert(key, values)),
        6 => (key(), values()).prop_map(|(key, values)| Step::Update(key, values)),
        2 => (key(), key(), values()).prop_map(|(key, to, values)| Step::Move(key, to, values)),
        2 => key().prop_map(Step::Delete),
        1 => Just(Step::Truncate),
    ];
    vec(step, 1..40)
}

fn filters() -> impl Strategy<Value = Json> {
    select(vec![
        json!({ "a": 1 }),
        json!({ "a": null }),
        json!({ "a": { "ne": 1 } }),
        json!({ "a": { "gte": 1, "lt": 3 } }),
        json!({ "a": [0, 2, null] }),
        json!({ "b": { "like": "b%" } }),
        json!({ "a": { "gt": 0 }, "b": ["a", "b"] }),
        json!({ "id": [1, 2, 3] }),
        json!({ "id": { "gt": 2 }, "a": { "lte": 2 } }),
    ])
}

/// PostgreSQL's columns `id`, `a` and `b`: two integers and a text.
pub fn table_of_three() -> Arc<Table> {
    table(Tells::Whole)
}

fn table(tells: Tells) -> Arc<Table> {
    let typed = tells != Tells::Sqlite;
    let column = |name: &str, affinity, kind| Column {
        name: name.into(),
        declared: String::new(),
        affinity,
        kind: Some(kind).filter(|_| typed),
        collation: Collation::Binary,
        not_null: name == "id",
    };
    Arc::new(Table {
        name: "t".into(),
        columns: vec![
            column("id", Affinity::Integer, Kind::Integer),
            column("a", Affinity::Integer, Kind::Integer),
            column("b", Affinity::Text, Kind::Text),
        ],
        primary_key: vec!["id".into()],
        unique: Vec::new(),
        displaces: false,
    })
}

fn row(key: i64, (a, b): Values) -> Row {
    let names = ["id", "a", "b"].map(Arc::from);
    let a = a.map_or(Value::Null, Value::Integer);
    Row::new(
        names.into(),
        vec![Value::Integer(key), a, Value::Text(b.into())],
    )
}

/// The columns of a row up to a number.
fn first(row: &Row, columns: usize) -> Row {
    let (names, values): (Vec<Arc<str>>, Vec<_>) = row
        .iter()
        .take(columns)
        .map(|(name, value)| (name.into(), value.clone()))
        .unzip();
    Row::new(names.into(), values)
}

fn json_of(row: &Row) -> Map<String, Json> {
    let mut out = Vec::new();
    write_object(&mut out, row.iter());
    serde_json::from_slice(&out).unwrap()
}

/// The table, and a client that sees it through a topic and a filter.
struct World {
    tells: Tells,
    table: Arc<Table>,
    rows: BTreeMap<i64, Row>,
    view: Option<Predicate>,
    filter: Predicate,
    /// What the client may see.
    policy: Option<Predicate>,
    translator: Translator,
    client: BTreeMap<i64, Map<String, Json>>,
    offset: u64,
    reloads: usize,
}

impl World {
    fn new(tells: Tells, condition: Option<&str>, filter: &Json) -> Self {
        let table = table(tells);
        let spec = json!({ "type": "t", "table": "t", "where": condition });
        let topic = Topic::resolve(&serde_json::from_value(spec).unwrap(), Some(&table)).unwrap();
        let params = json!({ "filter": filter });
        let Ok(Select::Page(Params { filter, .. })) = Select::read(params.as_object().unwrap())
        else {
            panic!("a filter: {params}")
        };
        Self {
            tells,
            view: condition.map(|text| predicate::parse(text, &table).unwrap()),
            filter: Predicate::of_filter(&filter, topic.view.as_ref().unwrap(), &table).unwrap(),
            policy: None,
            translator: Translator::new(Topics::new(vec![topic]).unwrap(), "/s".into()),
            table,
            rows: BTreeMap::new(),
            client: BTreeMap::new(),
            offset: 0,
            reloads: 0,
        }
    }

    /// The rows that the client may see, as far as it wants to.
    fn queried(&self) -> BTreeMap<i64, Map<String, Json>> {
        let all = [&self.view, &self.policy];
        let shown = |row: &&Row| {
            all.iter()
                .all(|of| of.as_ref().is_none_or(|of| of.holds(row)))
        };
        let rows = self
            .rows
            .iter()
            .filter(|(_, row)| shown(row) && self.filter.holds(row));
        rows.map(|(key, row)| (*key, json_of(row))).collect()
    }

    /// Makes one change, if it can be made, and returns what the source says of it.
    fn change(&mut self, step: &Step) -> Option<What> {
        let (mut old, mut inserted) = (None, false);
        let new = match step {
            Step::Truncate => {
                self.rows.clear();
                return Some(What::Truncate);
            }
            Step::Insert(key, values) => {
                let replaced = self.rows.contains_key(key);
                if replaced && self.tells != Tells::Sqlite {
                    return None;
                }
                inserted = true;
                Some(row(*key, *values))
            }
            Step::Update(key, values) => {
                old = Some(self.rows.get(key)?.clone());
                Some(row(*key, *values))
            }
            Step::Move(key, to, values) => {
                // SQLite's UPDATE OR REPLACE; nothing tells of the row that it replaces.
                if self.rows.contains_key(to) && self.tells != Tells::Sqlite {
                    return None;
                }
                old = self.rows.remove(key);
                old.as_ref()?;
                Some(row(*to, *values))
            }
            Step::Delete(key) => {
                old = Some(self.rows.remove(key)?);
                None
            }
        };
        if let Some(new) = &new
            && let Some(Value::Integer(key)) = new.get("id")
        {
            self.rows.insert(*key, new.clone());
        }
        let kept = match (&old, &new) {
            (Some(old), Some(new)) => old.get("b") == new.get("b") && self.tells == Tells::Key,
            _ => false,
        };
        let same_key = |new: &Row| {
            old.as_ref()
                .is_some_and(|old| old.get("id") == new.get("id"))
        };
        let unmoved = new.as_ref().is_some_and(same_key);
        Some(What::Row {
            shape: self.table.clone(),
            inserted,
            old: match self.tells {
                Tells::Whole => old,
                Tells::Key if unmoved => None,
                Tells::Key | Tells::Sqlite => old.map(|old| first(&old, 1)),
            },
            new: new.map(|new| first(&new, if kept { 2 } else { 3 })),
        })
    }

    /// Makes one change and sends its frames to the client.
    fn step(&mut self, step: &Step) {
        let before = self.own();
        let Some(what) = self.change(step) else {
            return;
        };
        self.offset += 1;
        let change = Change {
            table: "t".into(),
            what,
            checkpoint: format!("s:{:x}.0", self.offset).parse().unwrap(),
            tx: None,
            at_ms: 0,
            xid: (self.tells != Tells::Sqlite).then_some(self.offset),
        };
        for event in self.translator.events(&[change]) {
            let position = Position::new(Epoch::parse("e").unwrap(), self.offset);
            let event = Some(event);
            let frame = Frame::of(&Delivery { position, event });
            let judges = Judges {
                policy: self.policy.as_ref(),
                filter: Some(&self.filter),
            };
            let verdict = frame.judged(judges, &self.table);
            if let Some(text) = frame.form(verdict, None) {
                let frame = serde_json::from_slice(&text).unwrap();
                self.tells_nothing_of_others(&frame, &before);
                self.apply(&frame);
            }
        }
    }

    /// The keys of the rows that the client may see.
    fn own(&self) -> Vec<i64> {
        let policy = self.policy.as_ref();
        let own = self.rows.iter();
        own.filter(|(_, row)| policy.is_none_or(|policy| policy.holds(row)))
            .map(|(key, _)| *key)
            .collect()
    }

    fn tells_nothing_of_others(&self, frame: &Json, before: &[i64]) {
        if self.policy.is_none() {
            return;
        }
        let now = self.own();
        let key = |member: &str| frame[member]["id"].as_i64();
        assert!(
            key("old_key").is_none_or(|key| before.contains(&key)),
            "{frame}"
        );
        let known = |key: i64| match frame["data"].is_null() {
            true => before.contains(&key),
            false => now.contains(&key),
        };
        assert!(key("key").is_none_or(known), "{frame}");
    }

    fn apply(&mut self, frame: &Json) {
        let key = |member: &str| frame[member]["id"].as_i64();
        match frame["op"].as_str().unwrap() {
            "truncate" => self.client.clear(),
            "reload" => {
                self.reloads += 1;
                self.client = self.queried();
            }
            "delete" => drop(self.client.remove(&key("key").unwrap())),
            _ => {
                let known = self.client.remove(&key("old_key").or(key("key")).unwrap());
                let key = key("key").unwrap();
                let mut data = frame["data"].as_object().unwrap().clone();
                if frame.get("unchanged").is_some() {
                    // The value that is known, or the row asked for by its id.
                    let whole = known.unwrap_or_else(|| json_of(&self.rows[&key]));
                    data.insert("b".into(), whole["b"].clone());
                }
                self.client.insert(key, data);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filtered_client_holds_what_its_query_would_return(
        tells in select(&[Tells::Whole, Tells::Key, Tells::Sqlite][..]),
        condition in select(&[None, Some("a <> 2 OR a IS NULL"), Some("id > 1")][..]),
        filter in filters(),
        steps in steps(),
        start in 0..20_usize,
    ) {
        let mut world = World::new(tells, condition, &filter);
        for (number, step) in steps.iter().enumerate() {
            world.step(step);
            if number <= start {
                world.client = world.queried();
            }
            prop_assert_eq!(&world.client, &world.queried(), "after {:?}", step);
        }
        // What is always told is never given up.
        prop_assert!(tells != Tells::Whole || world.reloads == 0);
    }

    /// Also where the database tells less of old rows than it must: then by more reloads.
    #[test]
    fn who_may_see_some_rows_holds_those_and_learns_of_no_other(
        tells in select(&[Tells::Whole, Tells::Key][..]),
        condition in select(&[None, Some("a <> 2 OR a IS NULL")][..]),
        policy in select(&["a = token.a", "b IN token.b", "a <> token.a AND NOT b = token.x", "a = token.a OR b = token.x"][..]),
        filter in select(vec![json!({}), json!({ "a": { "gte": 1 } }), json!({ "id": { "gt": 2 } })]),
        steps in steps(),
    ) {
        let mut world = World::new(tells, condition, &filter);
        let claims = [("a", json!(1)), ("b", json!(["a", "B"]))];
        let claims = claims.map(|(name, value)| (name.into(), value)).into();
        let policy = Unbound::parse(policy, &world.table).unwrap();
        world.policy = Some(policy.bind(&Claims::new(claims)));
        for step in &steps {
            world.step(step);
            prop_assert_eq!(&world.client, &world.queried(), "after {:?}", step);
        }
        prop_assert!(tells != Tells::Whole || world.reloads == 0);
    }
}
