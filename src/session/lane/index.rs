//! Which seats a change of a row concerns: those whose policy pins a column to one of the row's values are
//! looked up by it, so that the others are not even looked at.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    event::Op,
    ring::Frame,
    row::{Row, Value, write_value},
    session::scopes::Stake,
    topic::{Table, Topics},
};

/// The seats of one lane, by what concerns them.
#[derive(Debug)]
pub struct Index {
    /// Every guarded topic.
    topics: HashMap<Arc<str>, Stakes>,
    /// Where each seat stands in them.
    listed: HashMap<usize, Vec<(Arc<str>, Stake)>>,
}

/// Who has a stake in one topic.
#[derive(Debug, Default)]
struct Stakes {
    /// By column and value.
    pinned: HashMap<Box<str>, Pinned>,
    /// Who must be asked.
    any: HashSet<usize>,
}

/// Who is looked up by the values of one column.
#[derive(Debug)]
struct Pinned {
    /// A description of the table; all are alike in what matters here.
    table: Arc<Table>,
    seats: HashMap<Box<[u8]>, HashSet<usize>>,
}

impl Index {
    /// An empty index; `None` where no topic is guarded, and every seat is looked at.
    pub fn of(topics: &Topics) -> Option<Self> {
        let guarded = topics.iter().filter(|topic| topic.is_guarded());
        let topics: HashMap<_, _> = guarded
            .map(|topic| (topic.name.clone(), Stakes::default()))
            .collect();
        (!topics.is_empty()).then(|| Self {
            topics,
            listed: HashMap::new(),
        })
    }

    /// Lists a seat, instead of as it was listed before.
    pub fn list(&mut self, seat: usize, stakes: Vec<(Arc<str>, Stake)>) {
        self.forget(seat);
        for (topic, stake) in &stakes {
            let Some(of) = self.topics.get_mut(topic) else {
                continue;
            };
            match stake {
                Stake::None => {}
                Stake::Any => drop(of.any.insert(seat)),
                Stake::Pinned(table, column, values) => {
                    let pinned = of.pinned.entry(column.clone()).or_insert_with(|| Pinned {
                        table: table.clone(),
                        seats: HashMap::new(),
                    });
                    pinned.table = table.clone();
                    for value in values {
                        pinned.seats.entry(key(value)).or_default().insert(seat);
                    }
                }
            }
        }
        self.listed.insert(seat, stakes);
    }

    /// Forgets a seat.
    pub fn forget(&mut self, seat: usize) {
        for (topic, stake) in self.listed.remove(&seat).unwrap_or_default() {
            let Some(of) = self.topics.get_mut(&topic) else {
                continue;
            };
            match stake {
                Stake::None => {}
                Stake::Any => drop(of.any.remove(&seat)),
                Stake::Pinned(_, column, values) => {
                    let Some(pinned) = of.pinned.get_mut(&column) else {
                        continue;
                    };
                    for value in &values {
                        let key = key(value);
                        if let Some(seats) = pinned.seats.get_mut(&key) {
                            seats.remove(&seat);
                            if seats.is_empty() {
                                pinned.seats.remove(&key);
                            }
                        }
                    }
                    if pinned.seats.is_empty() {
                        of.pinned.remove(&column);
                    }
                }
            }
        }
    }

    /// The seats that these frames concern, and perhaps a few more, in order; `None` where it may be any of
    /// them.
    pub fn concerned(&self, frames: &[Arc<Frame>]) -> Option<Vec<usize>> {
        let mut seats = HashSet::new();
        for frame in frames.iter().filter(|frame| frame.text.is_some()) {
            let stakes = self.topics.get(&frame.topic)?;
            let Some(change) = &frame.change else {
                // It is no change of a row, and nobody who is judged by rows gets it.
                continue;
            };
            change.key.as_ref()?;
            seats.extend(&stakes.any);
            for (column, pinned) in &stakes.pinned {
                // Where transactions have ids an insert replaces no row.
                let before = !(change.op == Op::Insert && frame.xid().is_some());
                let after = change.op != Op::Delete;
                let found = frame.images(&pinned.table, |old, new| {
                    let old = before.then(|| pinned.of(old, column));
                    let new = after.then(|| pinned.of(new, column));
                    for found in [old, new].into_iter().flatten() {
                        seats.extend(found?);
                    }
                    Some(())
                });
                if found.flatten().is_none() {
                    // The row is not known well enough.
                    seats.extend(pinned.seats.values().flatten());
                }
            }
        }
        let mut seats: Vec<usize> = seats.into_iter().collect();
        seats.sort_unstable();
        Some(seats)
    }
}

impl Pinned {
    /// Whom a row concerns; `None` where it does not tell.
    fn of(&self, row: &Row, column: &str) -> Option<Vec<usize>> {
        let value = row.get(column)?;
        let seats = self.seats.get(&key(value));
        Some(seats.into_iter().flatten().copied().collect())
    }
}

/// Of the kinds that are pinned equal values are written alike.
fn key(value: &Value) -> Box<[u8]> {
    let mut text = Vec::new();
    write_value(&mut text, value);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Body, ChangeData, Delivery, Event, raw},
        position::{Epoch, Position},
        topic::{Affinity, Collation, Column, Kind, Topic},
    };
    use serde_json::{Value as Json, json};

    fn table() -> Arc<Table> {
        let column = |(name, kind): (&str, Kind)| Column {
            name: name.into(),
            declared: "text".into(),
            affinity: Affinity::Blob,
            kind: Some(kind),
            collation: Collation::Binary,
            not_null: false,
        };
        Arc::new(Table {
            name: "t".into(),
            columns: [("id", Kind::Integer), ("ward", Kind::Text)]
                .map(column)
                .into(),
            primary_key: vec!["id".into()],
            unique: Vec::new(),
            displaces: false,
        })
    }

    fn index() -> Index {
        let spec = json!({"type": "t", "table": "t", "policy": "ward = token.ward"});
        let topic = Topic::resolve(&serde_json::from_value(spec).unwrap(), Some(&table()));
        let open = Topic::resolve(
            &serde_json::from_value(json!({"type": "open"})).unwrap(),
            None,
        );
        Index::of(&Topics::new(vec![topic.unwrap(), open.unwrap()]).unwrap()).unwrap()
    }

    fn pinned(values: &[&str]) -> Vec<(Arc<str>, Stake)> {
        let values = values
            .iter()
            .map(|value| Value::Text((*value).into()))
            .collect();
        vec![("t".into(), Stake::Pinned(table(), "ward".into(), values))]
    }

    fn frame(topic: &str, op: Op, old: Json, row: Json) -> Arc<Frame> {
        let some = |json: &Json| (!json.is_null()).then(|| raw(json));
        let data = ChangeData {
            key: (op != Op::Truncate).then(|| raw(&json!({"id": 1}))),
            old: some(&old),
            row: some(&row),
            ..ChangeData::whole(op)
        };
        let event = Event {
            id: String::new(),
            source: String::new(),
            topic: topic.into(),
            subject: None,
            at_ms: 0,
            tx: None,
            xid: Some(7),
            body: Body::Change {
                checkpoint: "s:1.0".parse().unwrap(),
                data,
            },
        };
        let position = Position::new(Epoch::parse("e").unwrap(), 1);
        let event = Some(event);
        Arc::new(Frame::of(&Delivery { position, event }))
    }

    fn in_ward(ward: &str) -> Json {
        json!({"id": 1, "ward": ward})
    }

    #[test]
    fn a_change_of_a_row_concerns_those_who_may_see_it_before_or_after() {
        let mut index = index();
        index.list(1, pinned(&["a"]));
        index.list(2, pinned(&["b"]));
        index.list(3, pinned(&["b", "c"]));
        index.list(4, vec![("t".into(), Stake::Any)]);
        index.list(5, vec![("t".into(), Stake::None)]);
        index.list(6, pinned(&[]));
        let none = || Json::Null;
        for (frame, expected) in [
            (frame("t", Op::Insert, none(), in_ward("a")), vec![1, 4]),
            (
                frame("t", Op::Update, in_ward("a"), in_ward("c")),
                vec![1, 3, 4],
            ),
            (frame("t", Op::Delete, in_ward("b"), none()), vec![2, 3, 4]),
            (frame("t", Op::Update, in_ward("x"), in_ward("y")), vec![4]),
            (
                frame(
                    "t",
                    Op::Update,
                    json!({"id": 1, "ward": null}),
                    in_ward("y"),
                ),
                vec![4],
            ),
            // The row before is not told, or the row after is too large.
            (
                frame("t", Op::Update, none(), in_ward("x")),
                vec![1, 2, 3, 4],
            ),
            (
                frame("t", Op::Update, in_ward("a"), none()),
                vec![1, 2, 3, 4],
            ),
        ] {
            assert_eq!(
                index.concerned(std::slice::from_ref(&frame)),
                Some(expected),
                "{frame:?}"
            );
        }
        let all = [
            frame("t", Op::Insert, none(), in_ward("a")),
            frame("t", Op::Truncate, none(), none()),
        ];
        assert_eq!(index.concerned(&all), None, "everybody is told");
        let other = frame("open", Op::Insert, none(), in_ward("a"));
        assert_eq!(index.concerned(&[other]), None, "nobody is asked who he is");
    }

    #[test]
    fn a_seat_is_found_by_what_it_was_listed_with_last() {
        let mut index = index();
        index.list(1, pinned(&["a"]));
        index.list(1, pinned(&["b"]));
        let insert = |ward| [frame("t", Op::Insert, Json::Null, in_ward(ward))];
        assert_eq!(index.concerned(&insert("a")), Some(vec![]));
        assert_eq!(index.concerned(&insert("b")), Some(vec![1]));
        index.forget(1);
        assert_eq!(index.concerned(&insert("b")), Some(vec![]));
        assert!(index.topics["t"].pinned.is_empty() && index.listed.is_empty());
    }
}
