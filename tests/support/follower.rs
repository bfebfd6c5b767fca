//! A client as naive as the promise allows (docs/protocol.md §1.1): it replaces on an `all`
//! reply, applies on an event, and so holds the view.

use std::{collections::BTreeMap, path::Path};

use rusqlite::types::ValueRef;
use serde_json::{Value as Json, json};

use super::{Python, Server, Socket};

/// Rows by the text of their key.
pub type Rows = BTreeMap<String, Json>;

/// The table that [`Follower::sync`] beats in.
pub const BEAT: &str =
    "CREATE TABLE beat (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO beat VALUES (1, 0);";

/// The topic of the beat, to append to a configuration.
pub const BEAT_TOPIC: &str = "\n[[topics]]\ntype = \"beat\"\ntable = \"beat\"\npush = \"row\"\n";

/// What a client holds of one topic.
#[derive(Debug, Default, Clone)]
pub struct View {
    /// The rows, by key.
    pub rows: Rows,
    key: Vec<String>,
}

/// A socket that follows one topic, with a foreign writer beside it.
pub struct Follower {
    /// The socket.
    pub socket: Socket,
    /// What the client holds.
    pub view: View,
    /// A program that knows nothing of Rowcast.
    pub writer: Python,
    topic: String,
    beats: u64,
}

/// A configuration of row topics, one for each table with all that it needs, and of the beat.
pub fn topics(tables: &[(&str, &str)]) -> String {
    let one = |(table, more): &(&str, &str)| {
        format!("[[topics]]\ntype = \"{table}\"\ntable = \"{table}\"\npush = \"row\"\n{more}\n")
    };
    tables.iter().map(one).collect::<String>() + BEAT_TOPIC
}

/// A gateway with one row topic `t` on the table `t` that `sql` makes.
pub fn serve(sql: &str, more: &str) -> Server {
    Server::configured(&topics(&[("t", more)]), &format!("{BEAT}{sql}"))
}

impl View {
    /// An empty view of rows with this key.
    pub fn of(key: &[&str]) -> Self {
        Self {
            rows: Rows::new(),
            key: key.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// Takes one frame of the topic in, be it a reply's part or an event.
    pub fn apply(&mut self, frame: &Json) {
        let replaced = |key: &Json| key.to_string();
        match frame["op"].as_str() {
            Some("replace") => {
                if frame["part"].as_u64().is_none_or(|part| part == 1) {
                    self.rows.clear();
                }
                for row in frame["data"].as_array().unwrap() {
                    let key: serde_json::Map<String, Json> = self
                        .key
                        .iter()
                        .map(|name| (name.clone(), row[name].clone()))
                        .collect();
                    self.rows.insert(Json::from(key).to_string(), row.clone());
                }
            }
            Some("insert" | "update") => {
                if !frame["old_key"].is_null() {
                    self.rows.remove(&replaced(&frame["old_key"]));
                }
                self.rows
                    .insert(replaced(&frame["key"]), frame["data"].clone());
            }
            Some("delete") => drop(self.rows.remove(&replaced(&frame["key"]))),
            Some("truncate") => self.rows.clear(),
            _ => {}
        }
    }
}

impl Follower {
    /// Connects and takes the whole view of `topic`.
    pub async fn of(server: &Server, topic: &str, key: &[&str]) -> Self {
        let mut follower = Self {
            socket: server.socket("").await,
            view: View::of(key),
            writer: Python::on(&server.database()),
            topic: topic.to_owned(),
            beats: 0,
        };
        follower.ask_all().await;
        follower
    }

    /// Replaces what is held by the whole view as it is now.
    pub async fn ask_all(&mut self) {
        let question = json!({"type": self.topic, "rid": "all", "params": {"all": true}});
        self.socket.send(question).await;
        loop {
            let part = self
                .socket
                .next_where("the whole view", |frame| frame["rid"] == "all")
                .await;
            assert_eq!(part["op"], "replace", "{part}");
            self.view.apply(&part);
            if part["last"] == true {
                return;
            }
        }
    }

    /// Executes statements in the foreign process and returns the events that came of them.
    pub async fn after(&mut self, statements: &[&str]) -> Vec<Json> {
        self.writer.run(statements);
        self.sync().await
    }

    /// Writes a beat and applies every event before it; returns them.
    pub async fn sync(&mut self) -> Vec<Json> {
        self.beats += 1;
        let n = self.writer.run(&["UPDATE beat SET n = n + 1 RETURNING n"])[0][0].clone();
        let mut events = Vec::new();
        loop {
            let frame = self.socket.next().await;
            if frame["type"] == "beat" && frame["data"]["n"].as_i64() >= n.as_i64() {
                return events;
            }
            if frame["type"] == *self.topic {
                self.view.apply(&frame);
                events.push(frame);
            }
        }
    }

    /// Holds what the client has against what the database has.
    #[track_caller]
    pub fn agrees_with(&self, database: &Path) {
        let sql = format!("SELECT * FROM \"{}\"", self.topic);
        let mut truth = self.view.clone();
        truth.apply(&json!({"op": "replace", "data": read(database, &sql)}));
        assert_eq!(self.view.rows, truth.rows, "the view is not the table");
    }
}

/// `op` and key of events, in short: `update 1`.
pub fn brief(events: &[Json]) -> Vec<String> {
    let text = |key: &Json| {
        let values = key.as_object().into_iter().flat_map(|key| key.values());
        let values: Vec<String> = values.map(Json::to_string).collect();
        values.join(",")
    };
    let one = |event: &Json| {
        let old = match &event["old_key"] {
            Json::Null => String::new(),
            old => format!("{} -> ", text(old)),
        };
        format!(
            "{} {old}{}",
            event["op"].as_str().unwrap(),
            text(&event["key"])
        )
    };
    events.iter().map(one).collect()
}

/// Reads rows as JSON objects, written by docs/protocol.md §6 and not by the product's encoder.
pub fn read(database: &Path, sql: &str) -> Vec<Json> {
    let conn = rusqlite::Connection::open(database).unwrap();
    conn.busy_timeout(super::DEADLINE).unwrap();
    let mut statement = conn.prepare(sql).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let pairs = names.iter().enumerate();
        let pairs = pairs.map(|(n, name)| (name.clone(), value(row.get_ref(n).unwrap())));
        found.push(Json::Object(pairs.collect()));
    }
    found
}

fn value(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(i) if i.unsigned_abs() < 1 << 53 => json!(i),
        ValueRef::Integer(i) => json!(i.to_string()),
        ValueRef::Real(r) if r.is_finite() => json!(r),
        ValueRef::Real(r) if r.is_nan() => json!("NaN"),
        ValueRef::Real(r) if r > 0.0 => json!("Infinity"),
        ValueRef::Real(_) => json!("-Infinity"),
        ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!(format!("\\x{hex}"))
        }
    }
}
