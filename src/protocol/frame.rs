//! What the server sends. Every function returns one complete text frame.

use std::fmt::{self, Write};

use serde::Serialize;
use serde_json::json;

use super::{Failure, Language, Rid};
use crate::{
    event::{Body, Delivery, Op},
    position::Position,
    row::Rows,
    topic::{Topic, Topics},
};

/// Why a client cannot be brought up to date event by event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// Its cursor is older than what is retained.
    Trimmed,
    /// Its cursor belongs to another history.
    Epoch,
    /// Its cursor is beyond the head: it was given out by something that has gone back.
    Ahead,
    /// At its place sits another message than it was given for: the bus was restored.
    Mismatch,
    /// It fell behind while it was connected, and what it missed is not retained.
    Lagged,
    /// Who it is may see other things than before.
    Scope,
}

/// The `page` member of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Page {
    /// From 1; null after a keyset continuation.
    pub number: Option<u32>,
    /// Rows that a page holds.
    pub size: u32,
    /// Rows of the whole list.
    pub total: u64,
    /// The `after` of the next page; null at the end.
    pub next: Option<String>,
}

impl ResetReason {
    /// The word on the wire, and the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Epoch => "epoch",
            Self::Ahead => "ahead",
            Self::Mismatch => "mismatch",
            Self::Lagged => "lagged",
            Self::Scope => "scope",
        }
    }
}

/// An event as clients see it; `None` for one that only gateways need ([`Op::Touch`]), and for
/// an offset without one.
pub fn event(delivery: &Delivery) -> Option<String> {
    let event = delivery.event.as_ref()?;
    let mut out = open_object(&event.topic);
    match &event.body {
        Body::Change { data, .. } if data.op == Op::Touch => return None,
        Body::Change { data, .. } => {
            member(&mut out, "op", &data.op);
            if let Some(key) = &data.key {
                member(&mut out, "key", key);
            }
            if let Some(key) = &data.old_key {
                member(&mut out, "old_key", key);
            }
            member(&mut out, "data", &data.row);
            if !data.unchanged.is_empty() {
                member(&mut out, "unchanged", &data.unchanged);
            }
            if data.too_large {
                member(&mut out, "too_large", &true);
            }
        }
        Body::Application(data) | Body::Emitted { data, .. } => {
            member(&mut out, "op", "event");
            member(&mut out, "data", data);
        }
    }
    if let Some(tx) = &event.tx {
        member(&mut out, "tx", &**tx);
    }
    cursor_member(&mut out, &delivery.position);
    member(&mut out, "ts", &event.at_ms);
    Some(close_object(out))
}

/// The reply to a direct query: one frame, or several parts of at most `part_bytes` of rows.
///
/// All parts carry the same `cursor`. `page` is none for one row and for the whole view;
/// `parted` replies say which part they are even when there is one only.
pub fn reply(
    topic: &str,
    rid: Option<&Rid>,
    rows: &Rows,
    page: Option<&Page>,
    cursor: Option<&Position>,
    (exact, part_bytes): (bool, Option<usize>),
) -> Vec<String> {
    let parts = match part_bytes {
        Some(bytes) => rows.parts(bytes),
        None => std::iter::once(0..rows.len()).collect(),
    };
    let count = parts.len();
    let mut frames = Vec::with_capacity(count);
    for (index, range) in parts.into_iter().enumerate() {
        let mut out = open_reply(topic, rid);
        rows.write_array(&mut out, range);
        if let Some(cursor) = cursor {
            cursor_member(&mut out, cursor);
        }
        if let Some(page) = page {
            member(&mut out, "page", page);
        }
        if part_bytes.is_some() {
            member(&mut out, "part", &(index + 1));
            member(&mut out, "last", &(index + 1 == count));
        }
        if !exact {
            member(&mut out, "exact", &false);
        }
        frames.push(close_object(out));
    }
    frames
}

/// The page of a page topic, pushed after a burst of changes.
pub fn page_push(topic: &str, rows: &Rows, page: &Page, cursor: &Position, ts: i64) -> String {
    let mut out = open_reply(topic, None);
    rows.write_array(&mut out, 0..rows.len());
    cursor_member(&mut out, cursor);
    member(&mut out, "ts", &ts);
    member(&mut out, "page", page);
    close_object(out)
}

fn open_reply(topic: &str, rid: Option<&Rid>) -> Vec<u8> {
    let mut out = open_object(topic);
    if let Some(rid) = rid {
        member(&mut out, "rid", rid);
    }
    out.extend_from_slice(b",\"op\":\"replace\",\"data\":");
    out
}

pub(super) fn open_object(topic: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"type\":");
    json_text(&mut out, topic);
    out
}

/// A member whose name needs no escape, as none of ours does.
pub(super) fn member(out: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    named(out, name);
    json_text(out, value);
}

/// The member `cursor`, whose letters need no escape either.
fn cursor_member(out: &mut Vec<u8>, cursor: &Position) {
    named(out, "cursor");
    write!(Text(out), "\"{cursor}\"").expect("writing to memory cannot fail");
}

/// Bytes to which text is added.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn named(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn json_text(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("writing to memory cannot fail");
}

pub(super) fn close_object(mut out: Vec<u8>) -> String {
    out.push(b'}');
    String::from_utf8(out).expect("made of JSON texts only")
}

/// A session frame of `type`, with the request's id where it had one.
fn session(name: &str, rid: Option<&Rid>, members: serde_json::Value) -> String {
    let mut frame = serde_json::Map::new();
    frame.insert("type".into(), name.into());
    if let Some(rid) = rid {
        frame.insert("rid".into(), rid.to_json());
    }
    if let serde_json::Value::Object(members) = members {
        frame.extend(members);
    }
    serde_json::Value::Object(frame).to_string()
}

/// `sys:error`
pub fn error(failure: &Failure, language: Language) -> String {
    let mut members = json!({
        "code": failure.code.status(),
        "error": failure.code.slug(),
        "msg": failure.code.message(language),
    });
    if let Some(detail) = failure.detail {
        members["detail"] = detail.into();
    }
    if let Some(wait) = failure.retry_after_ms {
        members["retry_after_ms"] = wait.into();
    }
    session("sys:error", failure.rid.as_ref(), members)
}

/// `sys:welcome`; `cursor` is where the socket stands, `replay` how many events lay between it and the
/// head; `topics` where the hello asked for them.
pub fn welcome(
    rid: Option<&Rid>,
    cursor: &Position,
    recovered: bool,
    replay: u64,
    (ping_ms, tick_ms): (u64, u64),
    topics: Option<&Topics>,
) -> String {
    let mut members = json!({
        "cursor": cursor.to_string(), "recovered": recovered, "replay": replay,
        "ping_ms": ping_ms, "tick_ms": tick_ms,
    });
    if let Some(topics) = topics {
        let told = topics
            .iter()
            .map(|topic| (topic.name.to_string(), told(topic)));
        members["topics"] = told.collect::<serde_json::Map<_, _>>().into();
    }
    session("sys:welcome", rid, members)
}

/// What a client must know of a topic to hold its view.
fn told(topic: &Topic) -> serde_json::Value {
    let mut told = json!({ "push": topic.push.as_str() });
    if let Some(view) = &topic.view {
        told["key"] = json!(view.key);
        told["order"] = json!(view.spelled_order());
    }
    told
}

/// `sys:ok`
pub fn ok(rid: Option<&Rid>, cursor: &Position) -> String {
    session("sys:ok", rid, json!({ "cursor": cursor.to_string() }))
}

/// `sys:caught_up`: the replay is over.
pub fn caught_up(cursor: &Position) -> String {
    session(
        "sys:caught_up",
        None,
        json!({ "cursor": cursor.to_string() }),
    )
}

/// `sys:tick`: nothing is missing up to here.
pub fn tick(cursor: &Position) -> String {
    session("sys:tick", None, json!({ "cursor": cursor.to_string() }))
}

/// `sys:reset`: query again, after a random wait within `after_ms`, and go on from `cursor`.
pub fn reset(reason: ResetReason, cursor: &Position, after_ms: [u32; 2]) -> String {
    let members = json!({
        "reason": reason.as_str(), "cursor": cursor.to_string(), "after_ms": after_ms,
    });
    session("sys:reset", None, members)
}

/// `sys:drain`: this gateway stops soon; reconnect after a random wait within `after_ms`.
pub fn drain(after_ms: [u32; 2]) -> String {
    session("sys:drain", None, json!({ "after_ms": after_ms }))
}

/// `sys:pong`
pub fn pong(rid: Option<&Rid>) -> String {
    session("sys:pong", rid, json!({}))
}
