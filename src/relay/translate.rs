//! Changes of tables become events of topics: a view's condition is judged on the row before
//! and after, as far as the database tells them (docs/protocol.md §1.2).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    event::{Body, Change, ChangeData, EMITTED, Event, MAX_EVENT_BYTES, Op, What},
    position::Checkpoint,
    predicate::{self, Predicate},
    row::{self, Row, Value},
    topic::{Push, Table, Topic, Topics, View},
};

/// Room for everything of an event but its row and keys.
const ENVELOPE_BYTES: usize = 16 * 1024;

/// A longer key is not repeated as the event's subject: escaped, it must fit the envelope.
const MAX_SUBJECT_BYTES: usize = 1024;

/// Bytes of a group's name: of the groups that a bus keeps no two will have the same.
const GROUP_BYTES: usize = 8;

/// Turns changes into events, and remembers each view's condition as compiled for its table.
pub struct Translator {
    topics: Topics,
    origin: String,
    /// Somebody may see less than others: every event says of which transaction it is. One that did so only
    /// where there are several would tell of those that he does not see.
    guards: bool,
    conditions: HashMap<Arc<str>, Compiled>,
}

/// A view's condition for one shape of its table.
struct Compiled {
    shape: Arc<Table>,
    /// None where the view has no condition; an error where it does not fit the table any more.
    condition: Result<Option<Predicate>, ()>,
}

/// What a view makes of a row change.
enum Seen<'a> {
    /// Nothing of the view is concerned.
    Nothing,
    /// The row is, or may have been, in the view before; it is not now.
    Left(Vec<Value>),
    /// The row is in the view now.
    Within {
        row: &'a Row,
        key: Vec<Value>,
        old_key: Option<Vec<Value>>,
        entered: bool,
    },
    /// The view cannot be judged.
    Unknown,
}

impl Translator {
    /// A translator for these topics; `origin` begins every event's `source`.
    pub fn new(topics: Topics, origin: String) -> Self {
        let guards = topics.iter().any(|topic| topic.is_guarded());
        Self {
            guards,
            topics,
            origin,
            conditions: HashMap::new(),
        }
    }

    /// The events of whole transactions, in their order. A page topic gets one for each
    /// transaction, where its last change that concerns the topic stands; where transactions have
    /// no ids, one for all of them.
    pub fn events(&mut self, changes: &[Change]) -> Vec<Event> {
        let topics = self.topics.clone();
        let mut events = Vec::with_capacity(changes.len());
        let mut touched: BTreeMap<(usize, Option<u64>), usize> = BTreeMap::new();
        for (index, change) in changes.iter().enumerate() {
            if let What::Message { topic, data } = &change.what {
                events.extend(self.emitted(topic, data, change).map(|e| (index, e)));
                continue;
            }
            for (number, topic) in topics.iter().enumerate() {
                let view = topic.view.as_ref();
                let concerned = |view: &&View| view.tables().any(|table| *table == *change.table);
                let Some(view) = view.filter(concerned) else {
                    continue;
                };
                match topic.push {
                    Push::Row => {
                        events.extend(self.row_event(topic, view, change).map(|e| (index, e)));
                        events.extend(self.displaced(topic, view, change).map(|e| (index, e)));
                    }
                    // A reply stands before or behind a transaction by its id, so the events of
                    // two transactions can never be one.
                    Push::Page => {
                        touched.insert((number, change.xid), index);
                    }
                }
            }
        }
        for ((number, _), index) in touched {
            let touch = ChangeData::whole(Op::Touch);
            let topic = topics.iter().nth(number);
            events.extend(topic.map(|topic| {
                let event = self.event(topic, &changes[index], touch, None);
                (index, event)
            }));
        }
        // Checkpoints grow along the stream: a touch goes where its last change stands.
        events.sort_by_key(|(index, _)| *index);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Tells that topics were defined otherwise before `checkpoint`.
    pub fn reloads(&self, topics: &[String], checkpoint: &Checkpoint, at_ms: i64) -> Vec<Event> {
        let known = topics.iter().filter_map(|name| self.topics.get(name));
        let reload = |topic: &Arc<Topic>| {
            let table = topic.view.as_ref().and_then(|view| view.tables().next());
            let change = Change {
                table: table.unwrap_or_default().into(),
                what: What::Reload,
                checkpoint: checkpoint.clone(),
                tx: None,
                at_ms,
                xid: None,
            };
            let op = match topic.push {
                Push::Row => Op::Reload,
                Push::Page => Op::Touch,
            };
            self.event(topic, &change, ChangeData::whole(op), None)
        };
        known.map(reload).collect()
    }

    fn row_event(&mut self, topic: &Topic, view: &View, change: &Change) -> Option<Event> {
        let (shape, inserted, old, new) = match &change.what {
            What::Reload => {
                return Some(self.event(topic, change, ChangeData::whole(Op::Reload), None));
            }
            // Not of a table: told in `emitted`.
            What::Message { .. } => return None,
            What::Truncate => {
                return Some(self.event(topic, change, ChangeData::whole(Op::Truncate), None));
            }
            What::Row {
                shape,
                inserted,
                old,
                new,
            } => (shape, *inserted, old, new),
        };
        // Where transactions have ids, as in PostgreSQL, an insert never replaces a row.
        let certain = change.xid.is_some();
        let images = (old.as_ref(), new.as_ref());
        let seen = self.seen(topic, view, shape, (inserted, certain), images);
        let data = match seen {
            Seen::Nothing => return None,
            Seen::Unknown => ChangeData::whole(Op::Reload),
            Seen::Left(key) => ChangeData {
                key: Some(object(&view.key, &key)),
                ..ChangeData::whole(Op::Delete)
            },
            Seen::Within {
                row,
                key,
                old_key,
                entered,
            } => {
                let (json, too_large) = shown(view, row);
                ChangeData {
                    op: if entered { Op::Insert } else { Op::Update },
                    key: Some(object(&view.key, &key)),
                    old_key: old_key.map(|old| object(&view.key, &old)),
                    row: json,
                    unchanged: unchanged(view, shape, row),
                    too_large,
                    ..ChangeData::whole(Op::Update)
                }
            }
        };
        let data = ChangeData {
            old: old.as_ref().and_then(|old| whole(shape, old)),
            ..data
        };
        let data = within_limits(data);
        let subject = data.key.as_ref().map(|key| key.get().to_owned());
        let subject = subject.filter(|key| key.len() <= MAX_SUBJECT_BYTES);
        Some(self.event(topic, change, data, subject))
    }

    /// The row of the view whose key another row has taken, itself outside of the view. SQLite's
    /// `UPDATE OR REPLACE` tells of no such row, and no event of the other's key says that it went.
    fn displaced(&mut self, topic: &Topic, view: &View, change: &Change) -> Option<Event> {
        let What::Row {
            shape,
            old: Some(old),
            new: Some(new),
            ..
        } = &change.what
        else {
            return None;
        };
        let (before, key) = (old.pick(&view.key)?, new.pick(&view.key)?);
        let condition = self.condition(topic, view, shape).ok()??;
        if change.xid.is_some() || before == key || condition.holds(new) {
            return None;
        }
        // Just behind the event of the row itself.
        let mut behind = change.clone();
        behind.checkpoint.low += 1;
        let data = ChangeData {
            key: Some(object(&view.key, &key)),
            ..ChangeData::whole(Op::Delete)
        };
        Some(self.event(topic, &behind, within_limits(data), None))
    }

    fn seen<'a>(
        &mut self,
        topic: &Topic,
        view: &View,
        shape: &Arc<Table>,
        (inserted, certain): (bool, bool),
        (old, new): (Option<&Row>, Option<&'a Row>),
    ) -> Seen<'a> {
        let Ok(condition) = self.condition(topic, view, shape) else {
            return Seen::Unknown;
        };
        let holds = |row: &Row| condition.is_none_or(|condition| condition.holds(row));
        // A partial image, as a key alone is, can only be judged by a condition on what it holds.
        let tells = |row: &&Row| {
            condition.is_none_or(|c| c.columns().all(|column| row.get(column).is_some()))
        };
        let was_within = old.filter(tells).map(holds);
        let old_key = old.and_then(|row| row.pick(&view.key));
        match new.map(|row| (row, row.pick(&view.key))) {
            Some((_, None)) => Seen::Unknown,
            // The condition is on a value that the database did not send.
            Some((row, _)) if !tells(&row) => Seen::Unknown,
            Some((row, Some(key))) if holds(row) => Seen::Within {
                row,
                entered: was_within.map_or(inserted, |within| !within),
                old_key: old_key.filter(|old| *old != key),
                key,
            },
            _ if was_within == Some(false) => Seen::Nothing,
            Some(_) if inserted && certain => Seen::Nothing,
            // Outside now; before, it may have been inside, be it by REPLACE of another row.
            Some((_, Some(key))) => Seen::Left(old_key.unwrap_or(key)),
            None => old_key.map_or(Seen::Unknown, Seen::Left),
        }
    }

    fn condition(
        &mut self,
        topic: &Topic,
        view: &View,
        shape: &Arc<Table>,
    ) -> Result<Option<&Predicate>, ()> {
        let stale = self
            .conditions
            .get(&topic.name)
            .is_none_or(|known| !Arc::ptr_eq(&known.shape, shape));
        if stale {
            let parsed = view
                .condition
                .as_ref()
                .map(|text| predicate::parse(text, shape))
                .transpose();
            let condition = parsed.map_err(|err| {
                tracing::error!(topic = %topic.name, error = %err, "the topic's condition does not fit its table any more");
            });
            self.conditions.insert(
                topic.name.clone(),
                Compiled {
                    shape: shape.clone(),
                    condition,
                },
            );
        }
        match self
            .conditions
            .get(&topic.name)
            .map(|known| &known.condition)
        {
            Some(Ok(condition)) => Ok(condition.as_ref()),
            _ => Err(()),
        }
    }

    /// By what events of one transaction are told: the same again after a restart, and nothing that says where in
    /// the log the transaction stands, which would tell how much others write.
    fn group(&self, change: &Change) -> Option<Arc<str>> {
        let checkpoint = &change.checkpoint;
        let alone = || self.guards.then(|| format!("{:x}", checkpoint.high).into());
        let named = change.tx.clone().or_else(alone)?;
        let hash = Sha256::new()
            .chain_update(checkpoint.source.as_bytes())
            .chain_update([0])
            .chain_update(named.as_bytes())
            .finalize();
        Some(row::hex(&hash[..GROUP_BYTES])[2..].into())
    }

    fn event(
        &self,
        topic: &Topic,
        change: &Change,
        data: ChangeData,
        subject: Option<String>,
    ) -> Event {
        let checkpoint: Checkpoint = change.checkpoint.clone();
        Event {
            id: format!("{checkpoint}/{}", topic.name),
            source: format!("{}/{}", self.origin, change.table.replace('.', "/")),
            topic: topic.name.clone(),
            subject,
            at_ms: change.at_ms,
            tx: self.group(change),
            xid: change.xid,
            body: Body::Change { checkpoint, data },
        }
    }

    /// An event that an application emitted in its transaction. One that names no topic of ours,
    /// or is too large for the bus, is told in the log: its transaction has long been committed.
    fn emitted(&self, topic: &str, data: &RawValue, change: &Change) -> Option<Event> {
        let Some(topic) = self.topics.get(topic) else {
            tracing::warn!(topic, "an event emitted in the database names no topic");
            return None;
        };
        if data.get().len() > MAX_EVENT_BYTES - ENVELOPE_BYTES {
            tracing::warn!(topic = %topic.name, bytes = data.get().len(), "an event emitted in the database is too large");
            return None;
        }
        let checkpoint = change.checkpoint.clone();
        Some(Event {
            id: format!("{checkpoint}/{}", topic.name),
            source: format!("{}{EMITTED}", self.origin),
            topic: topic.name.clone(),
            subject: None,
            at_ms: change.at_ms,
            tx: self.group(change),
            xid: change.xid,
            body: Body::Emitted {
                checkpoint,
                data: data.to_owned(),
            },
        })
    }
}

/// The same change, so that its event fits the bus: without the old row, then without the row
/// where they do not, and as a reload where not even the keys do.
fn within_limits(mut data: ChangeData) -> ChangeData {
    let length = |json: &Option<Box<RawValue>>| json.as_ref().map_or(0, |json| json.get().len());
    let keys = length(&data.key) + length(&data.old_key);
    if keys > MAX_EVENT_BYTES - ENVELOPE_BYTES {
        return ChangeData::whole(Op::Reload);
    }
    if keys + length(&data.row) + length(&data.old) > MAX_EVENT_BYTES - ENVELOPE_BYTES {
        data.old = None;
    }
    if keys + length(&data.row) > MAX_EVENT_BYTES - ENVELOPE_BYTES {
        data.row = None;
        data.too_large = true;
    }
    data
}

/// The columns that clients see, or none and `true` where they are too large for the bus.
fn shown(view: &View, row: &Row) -> (Option<Box<RawValue>>, bool) {
    let mut out = Vec::new();
    if view.columns.is_empty() {
        row::write_object(&mut out, row.iter());
    } else {
        let pairs = view
            .columns
            .iter()
            .filter_map(|name| Some((name.as_str(), row.get(name)?)));
        row::write_object(&mut out, pairs);
    }
    match out.len() <= MAX_EVENT_BYTES - ENVELOPE_BYTES {
        true => (Some(json(out)), false),
        false => (None, true),
    }
}

/// The whole row, where the image holds every column of the table.
fn whole(shape: &Table, row: &Row) -> Option<Box<RawValue>> {
    let known = shape
        .columns
        .iter()
        .all(|column| row.get(&column.name).is_some());
    // SQLite's old images are keys, and a table that is all key needs no second copy of it.
    (known && shape.columns.len() > shape.primary_key.len()).then(|| {
        let mut out = Vec::new();
        row::write_object(&mut out, row.iter());
        json(out)
    })
}

/// The columns shown whose value the database did not send.
fn unchanged(view: &View, shape: &Table, row: &Row) -> Vec<String> {
    let names = shape.columns.iter().map(|column| &*column.name);
    names
        .filter(|name| view.shows(name) && row.get(name).is_none())
        .map(str::to_owned)
        .collect()
}

fn object(names: &[String], values: &[Value]) -> Box<RawValue> {
    let mut out = Vec::new();
    row::write_object(&mut out, names.iter().map(String::as_str).zip(values));
    json(out)
}

fn json(out: Vec<u8>) -> Box<RawValue> {
    let text = String::from_utf8(out).expect("made of JSON texts only");
    RawValue::from_string(text).expect("the encoder writes JSON")
}

#[cfg(test)]
mod tests;
