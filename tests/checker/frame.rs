//! Frames as a client's log keeps them: small, for a minute of twelve clients is half a million.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde_json::Value as Json;

use super::rows::{Answer, Row};

/// What a cursor says. Clients may not look into it; who judges them must.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The history.
    pub epoch: Arc<str>,
    /// The place in it.
    pub offset: u64,
}

/// An event of a row topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its topic.
    pub topic: &'static str,
    /// The row that is there after it.
    pub row: Option<(i64, Row)>,
    /// Keys that are not there after it.
    pub gone: Vec<i64>,
    /// Whether all rows are gone.
    pub truncates: bool,
    /// Whether the topic cannot be followed across this point, so that clients query it again.
    pub reloads: bool,
    /// The transaction's mark.
    pub tx: Option<Arc<str>>,
    /// Where it stands.
    pub at: Place,
    /// Of its text: the same on every socket.
    pub hash: u64,
}

/// A reply, or a page that was pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its topic.
    pub topic: &'static str,
    /// The question's.
    pub rid: Option<u64>,
    /// What it says.
    pub answer: Answer,
    /// Whether further parts follow.
    pub more: bool,
    /// Where it stands.
    pub at: Place,
    /// Whether it says so of itself.
    pub exact: bool,
    /// Whether it has a commit time, as pushed pages have.
    pub pushed: bool,
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// An event.
    Event(Event),
    /// `op` = `replace`
    Reply(Reply),
    /// `sys:error`
    Error {
        /// The question's.
        rid: Option<u64>,
        /// `error`
        slug: String,
    },
    /// `sys:reset`
    Reset {
        /// `reason`
        reason: String,
        /// Where the client goes on.
        at: Place,
    },
    /// `sys:tick` or `sys:caught_up`: nothing is missing up to here.
    Current(Place),
    /// `sys:welcome`
    Welcome,
    /// What nobody expects.
    Other(String),
}

impl Place {
    /// Reads a cursor: an epoch, a colon, an offset, and whatever may follow.
    pub fn read(cursor: &Json) -> Option<Self> {
        let (epoch, rest) = cursor.as_str()?.split_once(':')?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self {
            epoch: epoch.into(),
            offset: digits.parse().ok()?,
        })
    }
}

/// The one spelling of a topic's name.
fn topic(name: &str) -> Option<&'static str> {
    let known = ["t", "low", "u", "log", "page"];
    known.into_iter().find(|known| *known == name)
}

impl Frame {
    /// Reads a frame, of which `json` is what `text` says.
    pub fn read(json: &Json, text: &str) -> Self {
        Self::parse(json, text).unwrap_or_else(|| Self::Other(text.to_owned()))
    }

    fn parse(json: &Json, text: &str) -> Option<Self> {
        let at = Place::read(&json["cursor"]);
        let rid = json["rid"].as_u64();
        let word = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        Some(match json["type"].as_str()? {
            "sys:error" => Self::Error {
                rid,
                slug: word("error"),
            },
            "sys:reset" => Self::Reset {
                reason: word("reason"),
                at: at?,
            },
            "sys:tick" | "sys:caught_up" => Self::Current(at?),
            "sys:welcome" => Self::Welcome,
            name => {
                let topic = topic(name)?;
                match json["op"].as_str()? {
                    "replace" => Self::Reply(reply(json, topic, rid, at?)?),
                    _ => Self::Event(event(json, topic, at?, text)?),
                }
            }
        })
    }

    /// What it is and where it stands.
    pub fn short(&self) -> String {
        match self {
            Self::Event(event) => format!("{} {:?} {}", event.topic, event.row, event.at.offset),
            Self::Reply(reply) => format!(
                "{} {:?} {} {}",
                reply.topic, reply.rid, reply.at.offset, reply.exact
            ),
            other => format!("{other:?}").chars().take(100).collect(),
        }
    }

    /// Where the client may resume from after this frame.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Event(event) => Some(&event.at),
            Self::Reply(reply) => Some(&reply.at),
            Self::Reset { at, .. } | Self::Current(at) => Some(at),
            Self::Error { .. } | Self::Welcome | Self::Other(_) => None,
        }
    }
}

fn reply(json: &Json, topic: &'static str, rid: Option<u64>, at: Place) -> Option<Reply> {
    let rows = json["data"].as_array()?.iter().map(Row::read);
    Some(Reply {
        topic,
        rid,
        answer: Answer {
            rows: rows.collect::<Option<_>>()?,
            total: json["page"]["total"].as_u64(),
        },
        more: json["last"] == false,
        at,
        exact: json["exact"] != false,
        pushed: !json["ts"].is_null(),
    })
}

fn event(json: &Json, topic: &'static str, at: Place, text: &str) -> Option<Event> {
    let key = json["key"]["id"].as_i64();
    let mut gone: Vec<i64> = json["old_key"]["id"].as_i64().into_iter().collect();
    let (mut row, mut truncates, mut reloads) = (None, false, false);
    match json["op"].as_str()? {
        "insert" | "update" => {
            row = Some(Row::read(&json["data"]).filter(|(id, _)| Some(*id) == key)?)
        }
        "delete" => gone.push(key?),
        "truncate" => truncates = true,
        "reload" => reloads = true,
        _ => return None,
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Some(Event {
        topic,
        row,
        gone,
        truncates,
        reloads,
        tx: json["tx"].as_str().map(Into::into),
        at,
        hash: hasher.finish(),
    })
}

impl Event {
    /// Does what a naive client does with it.
    pub fn apply(&self, rows: &mut super::rows::Rows) {
        if self.truncates {
            rows.clear();
        }
        for key in &self.gone {
            rows.remove(key);
        }
        if let Some((key, row)) = self.row {
            rows.insert(key, row);
        }
    }

    /// The keys that it concerns.
    pub fn keys(&self) -> impl Iterator<Item = i64> {
        self.gone
            .iter()
            .copied()
            .chain(self.row.map(|(key, _)| key))
    }
}
