//! What a client takes of the stream, and how: most take everything over a socket; some have
//! filters, some take the newest only, some read Server-Sent Events.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::{
    random::Random,
    rows::{HELD, Row, Rows, Select},
};

/// How a client gets the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A socket that is sent every event.
    Socket,
    /// A socket with `mode: "latest"`.
    Latest,
    /// Server-Sent Events.
    Events,
}

/// What a client takes. Its number and the seed say all.
#[derive(Debug, Clone, PartialEq)]
pub struct Taker {
    /// How.
    pub way: Way,
    /// Cuts and resumes; else it only does so when it must.
    pub restless: bool,
    /// The topics that it holds, row by row.
    pub holds: Vec<&'static str>,
    /// Of some topics, only the rows of these groups.
    pub filters: BTreeMap<&'static str, Vec<i64>>,
}

impl Taker {
    /// Of twelve clients three have filters, two each take the newest only and events; half of each
    /// kind are restless.
    pub fn of(number: u64, seed: u64) -> Self {
        let mut random = Random::of(seed, 200 + number);
        let mut taker = Self {
            way: Way::Socket,
            restless: number % 2 == 1,
            holds: HELD.to_vec(),
            filters: BTreeMap::new(),
        };
        match number % 12 {
            2 | 5 | 11 => {
                let mut groups = |of: &[[i64; 2]]| random.one(of).to_vec();
                taker.filters = BTreeMap::from([
                    ("t", groups(&[[0, 4], [1, 3], [2, 3]])),
                    ("low", groups(&[[0, 2], [1, 4]])),
                    ("u", groups(&[[0, 1], [2, 4]])),
                ]);
            }
            7 | 10 => taker.way = Way::Latest,
            // An answer over HTTP has a cursor of its own, and there is one stream: one view.
            4 | 9 => {
                taker.way = Way::Events;
                taker.holds = vec![random.one(&HELD)];
            }
            _ => {}
        }
        taker
    }

    /// All topics that are sent to it.
    pub fn types(&self) -> Vec<&'static str> {
        let both = self.holds.iter().copied();
        both.chain(["log", "page"]).collect()
    }

    /// The same with filters, as a hello says it.
    pub fn interests(&self) -> Json {
        let interest = |topic| match self.filters.get(topic) {
            Some(groups) => json!({ "filter": { "grp": groups } }),
            None => json!({}),
        };
        let types = self.types().into_iter();
        types
            .map(|topic| (topic.to_owned(), interest(topic)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// Whether events of a topic are sent to it.
    pub fn takes(&self, topic: &str) -> bool {
        topic == "log" || self.holds.contains(&topic)
    }

    /// Whether a row of a topic is sent to it.
    pub fn shows(&self, topic: &str, row: &Row) -> bool {
        let groups = self.filters.get(topic);
        groups.is_none_or(|groups| row.grp.is_some_and(|grp| groups.contains(&grp)))
    }

    /// What it holds of a topic that shows `rows`.
    pub fn view(&self, topic: &str, mut rows: Rows) -> Rows {
        rows.retain(|_, row| self.shows(topic, row));
        rows
    }

    /// The query whose answer is all that it holds of a topic.
    pub fn whole(&self, topic: &str) -> Select {
        let groups = self.filters.get(topic);
        groups.map_or(Select::All, |groups| Select::Groups(groups.clone()))
    }

    /// Whether an answer is all that it holds of a topic.
    pub fn is_view(&self, topic: &str, select: &Select) -> bool {
        *select == self.whole(topic)
    }

    /// Whether it begins anew with an answer over HTTP now and then, whose query string has no
    /// lists.
    pub fn begins(&self) -> bool {
        self.restless && self.filters.is_empty()
    }
}
