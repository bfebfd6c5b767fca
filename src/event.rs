//! Changes, as a database reports them, and the typed update Events that are published.
//! An Event is CloudEvents 1.0 JSON (docs/protocol.md §4).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    position::{Checkpoint, Position},
    row::Row,
    topic::Table,
};

/// The most bytes of an event's JSON: what a NATS server takes by default.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// What ends the CloudEvents `source` of an event that an application emitted in a transaction.
pub const EMITTED: &str = "/$emitted";

/// One committed change as the database reports it.
#[derive(Debug, Clone)]
pub struct Change {
    /// The table's name as declared.
    pub table: Arc<str>,
    /// What happened.
    pub what: What,
    /// Where it stands in the source; unique, and growing in commit order.
    pub checkpoint: Checkpoint,
    /// Marks the changes of one group of whole transactions, when it holds more than one change.
    pub tx: Option<Arc<str>>,
    /// The commit time, or where the database tells none, the time it was read. Unix milliseconds.
    pub at_ms: i64,
    /// The 64-bit transaction id (PostgreSQL's `xid8`); none where the database has no such thing.
    pub xid: Option<u64>,
}

/// What happened to a table.
#[derive(Debug, Clone)]
pub enum What {
    /// One row changed. `old` may hold the key columns only, and is absent for a new row.
    Row {
        /// The table as it was when the images were read.
        shape: Arc<Table>,
        /// Whether the database called it an insert; REPLACE of an existing row is one too.
        inserted: bool,
        /// The row before, as far as the database tells.
        old: Option<Row>,
        /// The row after; none when it is gone. A column that the database did not send, though
        /// it is there (an unchanged large value), is absent from it.
        new: Option<Row>,
    },
    /// An application's own event, emitted in a transaction (a transactional outbox): it takes
    /// its place among the changes of its transaction. [`Change::table`] is empty.
    Message {
        /// The topic that it names, not yet held against the configuration.
        topic: Arc<str>,
        /// Its data, valid JSON.
        data: Box<RawValue>,
    },
    /// All rows are gone.
    Truncate,
    /// The table cannot be followed row by row across this point.
    Reload,
}

/// The operation of an event, as it is spelled on the bus and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// A row came into the view.
    Insert,
    /// A row of the view changed.
    Update,
    /// A row left the view, or may have.
    Delete,
    /// All rows are gone.
    Truncate,
    /// Query again: this point cannot be crossed row by row.
    Reload,
    /// A page topic's table changed: read the page again. Never sent to a client.
    Touch,
}

/// The typed update event that is published.
#[derive(Debug, Clone)]
pub struct Event {
    /// Unique within its source: of a change `<checkpoint>/<topic>`, of an application its own.
    pub id: String,
    /// CloudEvents `source`.
    pub source: String,
    /// The topic's wire `type`.
    pub topic: Arc<str>,
    /// The row's key as text, for readers of the bus.
    pub subject: Option<String>,
    /// Commit time of a change, or the time an application's event was accepted, in Unix ms.
    pub at_ms: i64,
    /// The same on all events of one group of transactions, as [`Change::tx`], but nothing can be read from it.
    pub tx: Option<Arc<str>>,
    /// As [`Change::xid`].
    pub xid: Option<u64>,
    /// What it says.
    pub body: Body,
}

/// An event's data.
#[derive(Debug, Clone)]
pub enum Body {
    /// Published by a change producer.
    Change {
        /// Where the change stands in its source.
        checkpoint: Checkpoint,
        /// The change.
        data: ChangeData,
    },
    /// Published by an application: its data as given.
    Application(Box<RawValue>),
    /// Emitted by an application in a database transaction, and carried by the change producer.
    Emitted {
        /// Where it stands in its source.
        checkpoint: Checkpoint,
        /// Its data as given.
        data: Box<RawValue>,
    },
}

/// The `data` of a change event; rows and keys are JSON objects already encoded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeData {
    /// The operation.
    pub op: Op,
    /// The key, unless the event concerns the whole table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Box<RawValue>>,
    /// The key before, where an update changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_key: Option<Box<RawValue>>,
    /// The row after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<Box<RawValue>>,
    /// The whole row before, where the database tells it. Never sent to clients: conditions and
    /// permissions are judged on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Box<RawValue>>,
    /// Columns shown whose value the database did not send, for they have not changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<String>,
    /// The row exceeds [`MAX_EVENT_BYTES`] and was left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub too_large: bool,
}

impl ChangeData {
    /// A change that concerns no single row.
    pub fn whole(op: Op) -> Self {
        Self {
            op,
            key: None,
            old_key: None,
            row: None,
            old: None,
            unchanged: Vec::new(),
            too_large: false,
        }
    }
}

/// An Event with the Position that the bus gave it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it sits.
    pub position: Position,
    /// The event; none where the offset holds something that is none: a declaration of the
    /// producer's, or what no reader could understand. Offsets have no holes.
    pub event: Option<Event>,
}

/// What is published in one piece: all of it is stored, or nothing.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// In order; possibly none, when a stretch of the source concerned no topic.
    pub events: Vec<Event>,
    /// How far the source has been read with these events; none for an application's.
    pub checkpoint: Option<Checkpoint>,
    /// Marks to answer once the batch is stored.
    pub marks: Vec<Arc<str>>,
    /// The batch ends within a transaction, whose next part the next batch holds. Readers get
    /// none of its parts before the last one.
    pub more: bool,
}

/// Why a text is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// Not JSON, or no object.
    #[error("not a JSON object")]
    NotAnObject,
    /// A member is missing, of the wrong kind or too long.
    #[error("`{0}` is missing or not as it must be")]
    Member(&'static str),
}

#[derive(Serialize, Deserialize)]
struct CloudEvent<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: String,
    datacontenttype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xid: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Event {
    /// The event as CloudEvents 1.0 JSON.
    pub fn to_json(&self) -> String {
        let data = match &self.body {
            Body::Change { data, .. } => &raw(data),
            Body::Application(data) | Body::Emitted { data, .. } => data,
        };
        let event = CloudEvent {
            specversion: "1.0",
            id: &self.id,
            source: &self.source,
            r#type: &self.topic,
            subject: self.subject.as_deref(),
            time: rfc3339(self.at_ms),
            datacontenttype: "application/json",
            tx: self.tx.as_deref(),
            xid: self.xid.map(|xid| xid.to_string()),
            data,
        };
        serde_json::to_string(&event).expect("an event always has a JSON form")
    }

    /// Reads what [`Event::to_json`] wrote for a change or an emitted event (`change`), or for an
    /// application.
    ///
    /// # Errors
    /// [`BadEvent`] where the text was written by somebody else, or damaged.
    pub fn from_json(text: &str, change: bool) -> Result<Self, BadEvent> {
        // `str` members cannot borrow from escaped text, so read them owned.
        #[derive(Deserialize)]
        struct Owned<'a> {
            id: String,
            source: String,
            r#type: String,
            subject: Option<String>,
            time: String,
            tx: Option<String>,
            xid: Option<String>,
            #[serde(borrow)]
            data: &'a RawValue,
        }
        let read: Owned<'_> = serde_json::from_str(text).map_err(|_| BadEvent::NotAnObject)?;
        let time: jiff::Timestamp = read.time.parse().map_err(|_| BadEvent::Member("time"))?;
        let body = if change {
            let (place, _) = read.id.rsplit_once('/').ok_or(BadEvent::Member("id"))?;
            let checkpoint = place.parse().map_err(|_| BadEvent::Member("id"))?;
            match read.source.ends_with(EMITTED) {
                true => Body::Emitted {
                    checkpoint,
                    data: read.data.to_owned(),
                },
                false => Body::Change {
                    checkpoint,
                    data: serde_json::from_str(read.data.get())
                        .map_err(|_| BadEvent::Member("data"))?,
                },
            }
        } else {
            Body::Application(read.data.to_owned())
        };
        Ok(Self {
            id: read.id,
            source: read.source,
            topic: read.r#type.into(),
            subject: read.subject,
            at_ms: time.as_millisecond(),
            tx: read.tx.map(Into::into),
            xid: read.xid.and_then(|xid| xid.parse().ok()),
            body,
        })
    }

    /// Reads an application's event: a CloudEvent, or the least, `{"type":…,"data":…}`.
    ///
    /// An event without an `id` gets `fresh_id`; its time is `now_ms` whatever it says itself, so
    /// that times grow with offsets. A missing `data` is null.
    ///
    /// # Errors
    /// [`BadEvent`] names the member that is wrong; nothing was published.
    pub fn from_application(text: &str, fresh_id: String, now_ms: i64) -> Result<Self, BadEvent> {
        #[derive(Deserialize)]
        struct Least<'a> {
            r#type: Option<serde_json::Value>,
            id: Option<serde_json::Value>,
            source: Option<String>,
            subject: Option<String>,
            specversion: Option<String>,
            #[serde(borrow)]
            data: Option<&'a RawValue>,
        }
        let read: Least<'_> = serde_json::from_str(text).map_err(|err| match err.classify() {
            serde_json::error::Category::Data if text.trim_start().starts_with('{') => {
                BadEvent::Member("id, source, subject or specversion")
            }
            _ => BadEvent::NotAnObject,
        })?;
        let Some(serde_json::Value::String(topic)) = read.r#type else {
            return Err(BadEvent::Member("type"));
        };
        if read.specversion.is_some_and(|version| version != "1.0") {
            return Err(BadEvent::Member("specversion"));
        }
        // What no reader could take must not reach every reader.
        let data = read.data.unwrap_or(RawValue::NULL);
        if serde_json::from_str::<serde_json::Value>(data.get()).is_err() {
            return Err(BadEvent::Member("data"));
        }
        let id = match read.id {
            None => fresh_id,
            Some(serde_json::Value::String(id)) if (1..=256).contains(&id.len()) => id,
            Some(serde_json::Value::Number(id)) => id.to_string(),
            Some(_) => return Err(BadEvent::Member("id")),
        };
        Ok(Self {
            id,
            source: read.source.unwrap_or_else(|| "/rowcast/api".into()),
            topic: topic.into(),
            subject: read.subject,
            at_ms: now_ms,
            tx: None,
            xid: None,
            body: Body::Application(data.to_owned()),
        })
    }

    /// Where a change stands in its source; none for an application's event.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.body {
            Body::Change { checkpoint, .. } | Body::Emitted { checkpoint, .. } => Some(checkpoint),
            Body::Application(_) => None,
        }
    }
}

/// A JSON text of our own making, kept as it is.
pub fn raw(value: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("our own types always have a JSON form")
}

/// A Unix time in milliseconds as RFC 3339 UTC.
pub fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_event_survives_the_bus() {
        let event = Event {
            id: "ab:1f.0/patient".into(),
            source: "/sqlite/care/patient".into(),
            topic: "patient".into(),
            subject: Some("王\"1\"".into()),
            at_ms: 1_790_000_000_123,
            tx: Some("t1".into()),
            xid: Some(1 << 33),
            body: Body::Change {
                checkpoint: "ab:1f.0".parse().unwrap(),
                data: ChangeData {
                    key: Some(RawValue::from_string("{\"id\":1}".into()).unwrap()),
                    ..ChangeData::whole(Op::Delete)
                },
            },
        };
        let text = event.to_json();
        let read = Event::from_json(&text, true).unwrap();
        assert_eq!(read.to_json(), text);
        assert_eq!(read.checkpoint().unwrap().high, 0x1f);
        assert_eq!(read.at_ms, event.at_ms);
    }

    #[test]
    fn the_tutorials_own_shape_is_an_event() {
        let text = r#"{"type":"all_patient_page_data","data":"更新数据了,个人信息"}"#;
        let event = Event::from_application(text, "fresh".into(), 5).unwrap();
        assert_eq!(
            (&*event.topic, &*event.id, event.at_ms),
            ("all_patient_page_data", "fresh", 5)
        );
        let Body::Application(data) = event.body else {
            panic!("an application's event")
        };
        assert_eq!(data.get(), "\"更新数据了,个人信息\"");
    }

    #[test]
    fn what_is_no_event_says_why() {
        let bad = |text| Event::from_application(text, String::new(), 0).unwrap_err();
        assert_eq!(bad("[]"), BadEvent::NotAnObject);
        assert_eq!(bad("nonsense"), BadEvent::NotAnObject);
        assert_eq!(bad("{}"), BadEvent::Member("type"));
        assert_eq!(bad(r#"{"type":5}"#), BadEvent::Member("type"));
        assert_eq!(bad(r#"{"type":"a","id":[]}"#), BadEvent::Member("id"));
        assert_eq!(
            bad(r#"{"type":"a","specversion":"0.3"}"#),
            BadEvent::Member("specversion")
        );
    }
}
