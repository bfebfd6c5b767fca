//! What a process knows of itself, as `GET /api/pipeline` shows it and processes tell one another:
//! how its stages stand, how far they have come, and what went wrong with them last.

mod incidents;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};

pub use incidents::{Incident, IncidentKind, Incidents, KEPT, MERGED_MS};

/// The most bytes of a text of an error or an incident: enough for what a database says.
const MAX_TEXT_BYTES: usize = 500;

/// How a stage stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does what it is for.
    Up,
    /// It cannot, and tries again; its [`Trouble`] says why.
    Down,
    /// It has not been there yet.
    Starting,
    /// It waits until another process makes room.
    Standby,
    /// Its process was heard of within the last minute, and does not answer any more.
    Silent,
}

/// What went wrong with a stage last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What was wrong, for a person.
    pub text: String,
    /// When it began, Unix milliseconds.
    pub at: i64,
    /// Whether the stage has been up since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over: bool,
}

/// One stage of one process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Which stage, and what only this one has.
    #[serde(flatten)]
    pub own: Own,
    /// The name of its process.
    pub process: String,
    /// How it stands.
    pub state: State,
    /// What went wrong last; kept when it is over.
    pub error: Option<Trouble>,
}

/// What the stages differ in. `position` is where a stage stands, none before it has stood anywhere;
/// `lag_ms` from its commit to there, for what passed last; `total` what has passed since the process
/// began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum Own {
    /// Reading changes from the database.
    Source {
        /// Kind and name of the database, without user and password.
        what: String,
        /// The checkpoint.
        position: Option<String>,
        /// As above.
        lag_ms: Option<i64>,
        /// Row changes.
        total: u64,
        /// Bytes of log that the database keeps for this reader.
        retained_bytes: u64,
    },
    /// Storing changes on the bus.
    Relay {
        /// A cursor.
        position: Option<String>,
        /// As above.
        lag_ms: Option<i64>,
        /// Events.
        total: u64,
    },
    /// The bus, as the process sees it that was asked.
    Bus {
        /// Kind and place, without users and passwords.
        what: String,
        /// The last event's cursor.
        position: Option<String>,
        /// The first event's that is still kept.
        first: Option<String>,
        /// `fsynced`, `replicated` or `buffered`; none while it is not known.
        durability: Option<String>,
    },
    /// Serving sockets.
    Gateway {
        /// The cursor of the newest frame in memory.
        position: Option<String>,
        /// As above.
        lag_ms: Option<i64>,
        /// Events.
        total: u64,
        /// Sockets and streams open now.
        sockets: u64,
        /// Those of them that have come back, or fallen behind, and are being caught up.
        behind: u64,
        /// Frames written to sockets.
        pushed: u64,
        /// Direct queries.
        queries: u64,
        /// The program's version.
        version: String,
        /// When the process began, Unix milliseconds.
        started: i64,
    },
}

/// What a process tells of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Random: two processes may have one name, as a process that was started again has.
    pub id: String,
    /// Its name.
    pub process: String,
    /// Its stages.
    #[serde(deserialize_with = "those_known")]
    pub stages: Vec<Stage>,
}

/// A process of another version may have stages that this one does not know.
fn those_known<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Stage>, D::Error> {
    let stages = Vec::<serde_json::Value>::deserialize(from)?.into_iter();
    Ok(stages
        .filter_map(|stage| serde_json::from_value(stage).ok())
        .collect())
}

impl Trouble {
    /// The same, from when the stage is up again.
    pub fn over(self) -> Self {
        Self { over: true, ..self }
    }
}

impl Stage {
    /// Where the stage stands in a list: as the changes pass, then by the name of the process.
    pub fn order(&self) -> (u8, String) {
        let place = match self.own {
            Own::Source { .. } => 0,
            Own::Relay { .. } => 1,
            Own::Bus { .. } => 2,
            Own::Gateway { .. } => 3,
        };
        (place, self.process.clone())
    }
}

/// How far one of the loops has come. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Passed>>);

/// What has passed a loop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passed {
    /// Where it stands, as text.
    pub position: Option<String>,
    /// From its commit to its passing, for the last that passed: milliseconds.
    pub lag_ms: Option<i64>,
    /// How many have passed.
    pub total: u64,
}

impl Progress {
    /// Notes where the loop stands now.
    pub fn stand(&self, position: &dyn std::fmt::Display) {
        let position = position.to_string();
        self.guard().position = Some(position);
    }

    /// Counts what has passed, and notes the lag of the last of it where that is known.
    pub fn pass(&self, count: u64, lag_ms: Option<i64>) {
        let mut passed = self.guard();
        passed.total += count;
        passed.lag_ms = lag_ms.or(passed.lag_ms);
    }

    /// What has passed so far.
    pub fn passed(&self) -> Passed {
        self.guard().clone()
    }

    fn guard(&self) -> MutexGuard<'_, Passed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most `bytes` of a text, cut before a character.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// A text of an error or an incident, not longer than any may be.
pub fn brief(text: &str) -> String {
    cut(text, MAX_TEXT_BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stage_of_a_later_version_does_not_hide_the_others() {
        let relay = json!({
            "stage": "relay", "position": null, "lag_ms": 4, "total": 7, "process": "p",
            "state": "up", "error": { "text": "away", "at": 5, "over": true },
        });
        let report = json!({
            "id": "1", "process": "p", "later": [1],
            "stages": [{ "stage": "mill", "process": "p", "state": "up", "error": null }, relay],
        });
        let read: Report = serde_json::from_value(report).unwrap();
        assert_eq!(read.stages.len(), 1);
        assert_eq!(serde_json::to_value(&read.stages[0]).unwrap(), relay);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("王秀英", 4), "王");
        assert_eq!(cut("王秀英", 99), "王秀英");
        assert_eq!(brief(&"é".repeat(400)).len(), MAX_TEXT_BYTES);
    }
}
