//! Events as messages: under which subject, and how one that is too large still fits.

use std::collections::VecDeque;

use async_nats::HeaderMap;

use super::{
    Names,
    batch::{MAX_BYTES, MAX_MESSAGES, Outgoing},
    record::ID,
};
use crate::{
    event::{Body, ChangeData, Event, Op},
    position::Checkpoint,
};

/// Room that a message's headers need beside its body.
pub const HEADER_BYTES: usize = 1024;

/// A message of the producer's, and where its change stands.
#[derive(Debug, Clone)]
pub struct Item {
    /// The message.
    pub message: Outgoing,
    /// The change's place; none for what is no change.
    pub checkpoint: Option<Checkpoint>,
    /// Whether it holds an event, not a record.
    pub event: bool,
}

/// A change event as a message of at most `max_bytes`; none if it cannot even say less.
pub fn change(names: &Names, event: &Event, max_bytes: usize) -> Option<Item> {
    let payload = fitting(event, max_bytes)?;
    Some(Item {
        message: Outgoing {
            subject: names.change(&event.topic),
            headers: HeaderMap::new(),
            payload: payload.into(),
        },
        checkpoint: event.checkpoint().cloned(),
        event: true,
    })
}

/// An application's event as a message, known by its id within the duplicate window.
pub fn application(names: &Names, event: &Event, payload: String) -> Outgoing {
    let mut headers = HeaderMap::new();
    headers.insert(ID, header_text(&event.id).as_str());
    Outgoing {
        subject: names.event(&event.topic),
        headers,
        payload: payload.into(),
    }
}

/// An id as a header can carry it: letters, digits and signs of ASCII, no two ids in the same.
pub fn header_text(id: &str) -> String {
    let plain = id
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'%');
    match plain {
        true => id.to_owned(),
        // Told apart from a plain one by its percent signs. A plus would be told from none.
        false => {
            let coded = form_urlencoded::byte_serialize(id.as_bytes());
            coded.collect::<String>().replace('+', "%20")
        }
    }
}

/// The event's JSON, with less in it if need be: without the old row, then without the row, and
/// at last only "query again".
fn fitting(event: &Event, max_bytes: usize) -> Option<String> {
    let text = event.to_json();
    if text.len() <= max_bytes {
        return Some(text);
    }
    let Body::Change { checkpoint, data } = &event.body else {
        tracing::warn!(topic = %event.topic, bytes = text.len(), "an event emitted in the database is too large for the bus");
        return None;
    };
    let without_old = ChangeData {
        old: None,
        ..data.clone()
    };
    let without_row = ChangeData {
        row: None,
        unchanged: Vec::new(),
        too_large: true,
        ..without_old.clone()
    };
    let reload = ChangeData::whole(Op::Reload);
    let smaller = [(without_old, true), (without_row, true), (reload, false)];
    let found = smaller.into_iter().find_map(|(data, subject)| {
        let event = Event {
            subject: event.subject.clone().filter(|_| subject),
            body: Body::Change {
                checkpoint: checkpoint.clone(),
                data,
            },
            ..event.clone()
        };
        Some(event.to_json()).filter(|text| text.len() <= max_bytes)
    });
    tracing::warn!(topic = %event.topic, bytes = text.len(), "a change is too large for the bus: its row was left out");
    found
}

/// Divides messages into parts that a server takes, never between two of one change.
pub fn parts(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut parts = Vec::new();
    let mut part: Vec<Item> = Vec::new();
    let mut part_bytes = 0;
    let mut left: VecDeque<Item> = items.into();
    while let Some(first) = left.pop_front() {
        let mut group = vec![first];
        while let Some(next) = left.front()
            && next.checkpoint == group[0].checkpoint
            && group.len() < MAX_MESSAGES
        {
            group.extend(left.pop_front());
        }
        let bytes: usize = group.iter().map(|item| item.message.payload.len()).sum();
        let full = part.len() + group.len() > MAX_MESSAGES || part_bytes + bytes > MAX_BYTES;
        // A record goes with what follows it: it says what that means.
        if full && part.iter().any(|item| item.event) {
            parts.push(std::mem::take(&mut part));
            part_bytes = 0;
        }
        part_bytes += bytes;
        part.extend(group);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(high: u64, bytes: usize) -> Item {
        Item {
            message: Outgoing {
                subject: String::new(),
                headers: HeaderMap::new(),
                payload: vec![b'x'; bytes].into(),
            },
            checkpoint: Some(Checkpoint {
                source: "s".into(),
                high,
                low: 0,
            }),
            event: true,
        }
    }

    #[test]
    fn no_two_ids_are_one_header() {
        let ids = [
            "a b", "a+b", "a%20b", "a%2Bb", "a\tb", "a\r\nb", "a", "%", "é", "%C3%A9", "+", " ",
        ];
        let headers: std::collections::HashSet<String> =
            ids.iter().map(|id| header_text(id)).collect();
        assert_eq!(headers.len(), ids.len());
        assert!(
            headers
                .iter()
                .all(|text| text.bytes().all(|b| b.is_ascii_graphic()))
        );
    }

    #[test]
    fn a_part_never_ends_within_one_change() {
        let items = (0..2500).map(|n| item(n / 3, 1)).collect();
        let parts = parts(items);
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(sizes, [999, 999, 502]);
        for pair in parts.windows(2) {
            assert_ne!(pair[0].last().unwrap().checkpoint, pair[1][0].checkpoint);
        }
    }

    #[test]
    fn a_part_is_bounded_in_bytes() {
        let parts = parts((0..10).map(|n| item(n, MAX_BYTES / 3)).collect());
        assert!(parts.iter().all(|part| part.len() <= 3));
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 10);
    }
}
