//! Messages become deliveries. What nobody can understand becomes a dead letter, and an offset
//! without an event.

use async_nats::HeaderMap;

use super::{
    JetStreamBus,
    dead::DeadLetter,
    record::{ID, Stored},
};
use crate::{
    event::{BadEvent, Delivery, Event},
    position::{Epoch, Position},
};

impl JetStreamBus {
    /// A message as a delivery; with why it is a dead letter, if it is one.
    pub(super) fn delivery(
        &self,
        epoch: &Epoch,
        message: &Stored,
    ) -> (Delivery, Option<DeadLetter>) {
        let position = message.position(epoch);
        let events = format!("{}.event.", self.names.prefix);
        let Some(topic) = message.subject.strip_prefix(&events) else {
            let event = self.change(&position, message);
            return (Delivery { position, event }, None);
        };
        match self.application(topic, &position, message) {
            Ok(event) => {
                let event = Some(event);
                (Delivery { position, event }, None)
            }
            Err(reason) => {
                let letter = DeadLetter {
                    position: position.clone(),
                    reason,
                    subject: message.subject.clone(),
                    payload: message.payload.clone(),
                };
                let event = None;
                (Delivery { position, event }, Some(letter))
            }
        }
    }

    fn change(&self, position: &Position, message: &Stored) -> Option<Event> {
        if message.subject == self.names.state {
            return None;
        }
        let text = std::str::from_utf8(&message.payload).ok();
        let event = text.and_then(|text| Event::from_json(text, true).ok());
        if event.is_none() {
            tracing::warn!(%position, subject = message.subject, "a change that cannot be read was left out");
        }
        event
    }

    fn application(
        &self,
        topic: &str,
        position: &Position,
        message: &Stored,
    ) -> Result<Event, String> {
        if !self.types.is_empty() && !self.types.contains(topic) {
            return Err("the type is not configured".to_owned());
        }
        let text = std::str::from_utf8(&message.payload).map_err(|_| "not UTF-8".to_owned())?;
        let binary = in_headers(&message.headers, text);
        let text = match &binary {
            Some(whole) => whole.as_ref().map_err(ToString::to_string)?,
            None => text,
        };
        let id = message.header(ID).map(str::to_owned);
        let id = id.unwrap_or_else(|| position.to_string());
        let event = Event::from_application(text, id, message.at_ms());
        let event = event.map_err(|err| err.to_string())?;
        match *event.topic == *topic {
            true => Ok(event),
            false => Err("`type` differs from the subject".to_owned()),
        }
    }
}

/// A CloudEvent in binary mode, its attributes in headers `ce-…`, as one JSON text; none where
/// it is not in that mode. Of several that differ in case it is the one in lower case, or else the first in the
/// alphabet: the client keeps them in no order, and every reader is to have the same event.
fn in_headers(headers: &HeaderMap, data: &str) -> Option<Result<String, BadEvent>> {
    let attribute = |name: &str| {
        let names = headers
            .iter()
            .map(|(header, values)| (header.as_ref(), values));
        let same = names.filter(|(header, _): &(&str, _)| header.eq_ignore_ascii_case(name));
        let found = same.min_by_key(|(header, _)| (*header != name, *header));
        found
            .and_then(|(_, values)| values.first())
            .map(|value| value.as_str())
    };
    attribute("ce-specversion").or_else(|| attribute("ce-type"))?;
    let data: Result<&serde_json::value::RawValue, _> = match data.is_empty() {
        true => Ok(serde_json::value::RawValue::NULL),
        false => serde_json::from_str(data),
    };
    let Ok(data) = data else {
        return Some(Err(BadEvent::Member("data")));
    };
    let mut whole = serde_json::Map::new();
    for name in ["specversion", "type", "id", "source", "subject"] {
        if let Some(text) = attribute(&format!("ce-{name}")) {
            whole.insert(name.to_owned(), text.into());
        }
    }
    let mut text = serde_json::Value::Object(whole).to_string();
    text.pop();
    let comma = if text.len() > 1 { "," } else { "" };
    Some(Ok(format!("{text}{comma}\"data\":{}}}", data.get())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_event_in_binary_mode_is_one_text() {
        let mut headers = HeaderMap::new();
        assert!(in_headers(&headers, "{}").is_none());
        headers.insert("ce-specversion", "1.0");
        headers.insert("CE-Type", "note");
        headers.insert("ce-id", "7");
        let text = in_headers(&headers, "[1]").unwrap().unwrap();
        let event = Event::from_application(&text, String::new(), 5).unwrap();
        assert_eq!((&*event.topic, &*event.id), ("note", "7"));
        assert!(in_headers(&headers, "nonsense").unwrap().is_err());
    }

    #[test]
    fn of_attributes_that_differ_in_case_it_is_always_the_same() {
        // Each has an order of its own.
        for _ in 0..50 {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("cE-id", "3"),
                ("ce-type", "note"),
                ("Ce-id", "2"),
                ("CE-TYPE", "other"),
            ] {
                headers.insert(name, value);
            }
            let text = in_headers(&headers, "1").unwrap().unwrap();
            let event = Event::from_application(&text, String::new(), 5).unwrap();
            assert_eq!((&*event.topic, &*event.id), ("note", "2"));
        }
    }
}
