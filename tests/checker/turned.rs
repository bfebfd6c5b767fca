//! What a client's filters make of the events that everybody else is sent.

use std::collections::{BTreeMap, HashMap};

use super::{
    frame::{Event, Place},
    rows::{HELD, Rows},
    stream::Stream,
    taker::Taker,
    truth::Truth,
};

/// Of each event of a filtered topic what the client must be told. The first history begins with
/// empty tables; of another one it is not known what was there before.
#[derive(Debug, Default)]
pub struct Turned(HashMap<Place, Expected>);

#[derive(Debug)]
struct Expected {
    event: Event,
    /// Whether its row is shown.
    inside: bool,
    /// Keys of rows that were shown and are no more.
    left: Vec<i64>,
    /// Whether `left` says all.
    whole: bool,
}

impl Turned {
    /// Works it out for every event.
    pub fn of(taker: &Taker, stream: &Stream, truth: &Truth) -> Self {
        let mut turned = Self::default();
        if taker.filters.is_empty() {
            return turned;
        }
        for (index, (_, events)) in stream.epochs.iter().enumerate() {
            let mut folds: BTreeMap<&str, Rows> = HELD.map(|topic| (topic, Rows::new())).into();
            for event in events.values() {
                let Some(rows) = folds.get_mut(event.topic) else {
                    continue;
                };
                let shows = |key: &i64| {
                    rows.get(key)
                        .is_some_and(|row| taker.shows(event.topic, row))
                };
                let inside = event
                    .row
                    .is_some_and(|(_, row)| taker.shows(event.topic, &row));
                let mut left: Vec<i64> = event.keys().filter(shows).collect();
                left.retain(|key| !inside || event.row.is_none_or(|(now, _)| now != *key));
                let expected = Expected {
                    event: event.clone(),
                    inside,
                    left,
                    whole: index == 0,
                };
                turned.0.insert(event.at.clone(), expected);
                event.apply(rows);
                if event.reloads && index == 0 {
                    *rows = stream.left_by(event, truth).shown(event.topic);
                }
            }
        }
        turned
    }

    /// Whether the client must be told of this event of the stream.
    pub fn is_needed(&self, event: &Event) -> bool {
        let Some(expected) = self.0.get(&event.at) else {
            return true;
        };
        expected.inside || !expected.left.is_empty() || event.truncates || event.reloads
    }

    /// What is wrong with what the client was sent, if anything is.
    pub fn wrong(&self, sent: &Event) -> Option<String> {
        let expected = self.0.get(&sent.at)?;
        let event = &expected.event;
        // A row outside that took another's key: with SQLite both may have been inside.
        let moved = !event.gone.is_empty() && event.row.is_some() && !expected.inside;
        if moved && sent.reloads && (sent.topic, &sent.tx) == (event.topic, &event.tx) {
            return None;
        }
        let row = event.row.filter(|_| expected.inside);
        let known = |key: &i64| event.keys().any(|known| known == *key);
        let gone = |key: &i64| !expected.whole || sent.gone.contains(key);
        let right = sent.topic == event.topic
            && sent.row == row
            && (sent.truncates, sent.reloads, &sent.tx)
                == (event.truncates, event.reloads, &event.tx)
            && sent.gone.iter().all(known)
            && expected.left.iter().all(gone);
        let told = || {
            format!(
                "{sent:?} was sent of {event:?}, of which {:?} must go",
                expected.left
            )
        };
        (!right).then(told)
    }
}
