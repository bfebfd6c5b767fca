//! What stands in the stream: events, and the change producer's own records between them
//! (nats/README.md).

use std::collections::BTreeMap;

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::position::{Check, Checkpoint, Epoch, Position};

/// The epoch that a change belongs to.
pub const EPOCH: &str = "Rowcast-Epoch";
/// The claim under which a change was stored.
pub const PRODUCER: &str = "Rowcast-Producer";
/// How far the source has been read: on the last message of a batch.
pub const CHECKPOINT: &str = "Rowcast-Checkpoint";
/// On every message of a part that is not the last of its transaction: the sequence of the last
/// message of the producer before the transaction.
pub const MORE: &str = "Rowcast-More";

/// The id by which a repeated message of an application is known.
pub const ID: &str = "Nats-Msg-Id";

/// The check of a message that has an id: its publisher knows no more of it. Every other one is
/// told by the time at which it was stored.
pub fn id_check(id: &str) -> Check {
    Check::of(id.as_bytes())
}

/// Why a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A new epoch begins after it.
    Epoch,
    /// A producer took over.
    Claim,
    /// The source was read further, and nothing concerned a topic.
    Progress,
    /// The definitions of topics changed with what follows.
    Topics,
}

/// A record of the producer's, on `<prefix>.change.sys.state`. Each tells all there is to know,
/// so that the last one is enough for who comes later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Why it was written.
    pub kind: Kind,
    /// The epoch it begins, or belongs to.
    pub epoch: String,
    /// The sequence of the epoch's declaration; none in the declaration itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begins: Option<u64>,
    /// Why a new epoch began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How far the source has been read, for people; the header is what counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// The topics' fingerprints.
    #[serde(default)]
    pub topics: BTreeMap<String, String>,
}

impl Record {
    /// Its JSON.
    pub fn to_json(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("a record always has a JSON form")
            .into()
    }
}

/// A message of the stream.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its sequence in the stream.
    pub seq: u64,
    /// When the server stored it: Unix nanoseconds. With the sequence, its identity.
    pub at_ns: i128,
    /// Its subject.
    pub subject: String,
    /// Its headers, and some of the server's.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
}

impl From<StreamMessage> for Stored {
    fn from(message: StreamMessage) -> Self {
        Self {
            seq: message.sequence,
            at_ns: message.time.unix_timestamp_nanos(),
            subject: subject(&message.subject),
            headers: message.headers,
            payload: message.payload,
        }
    }
}

impl Stored {
    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    /// Whether a header by which an event is known may have its end in a line of two bytes at the end of all headers.
    /// Those a direct read is without, for the server writes its own over them.
    pub fn is_doubtful(&self) -> bool {
        let known = |name: &str| {
            name == ID
                || name
                    .get(..3)
                    .is_some_and(|ce| ce.eq_ignore_ascii_case("ce-"))
        };
        let ends = |value: &str| matches!(value.as_bytes(), [.., space, _] if space.is_ascii_whitespace() || *space == 0x0b);
        self.headers.iter().any(|(name, values)| {
            known(name.as_ref()) && values.iter().any(|value| ends(value.as_str()))
        })
    }

    /// Where it sits in an epoch, and the check of what identifies it.
    pub fn position(&self, epoch: &Epoch) -> Position {
        let check = match self.header(ID) {
            Some(id) => id_check(id),
            None => Check::of(self.at_ns.to_string().as_bytes()),
        };
        Position::new(epoch.clone(), self.seq).checked(Some(check))
    }

    /// The epoch it names.
    pub fn epoch(&self) -> Option<Epoch> {
        Epoch::parse(self.header(EPOCH)?).ok()
    }

    /// The checkpoint it names.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.header(CHECKPOINT)?.parse().ok()
    }

    /// Where the producer stood before the transaction of which this is a part and not the last.
    pub fn more(&self) -> Option<u64> {
        self.header(MORE)?.parse().ok()
    }

    /// When it was stored, in Unix milliseconds.
    pub fn at_ms(&self) -> i64 {
        i64::try_from(self.at_ns / 1_000_000).unwrap_or(i64::MAX)
    }

    /// The record it holds, if it holds one.
    pub fn record(&self) -> Option<Record> {
        serde_json::from_slice(&self.payload).ok()
    }
}

/// A subject without white space at its end, which NATS permits there and the client hands on or not, as it comes.
pub fn subject(told: &str) -> String {
    told.trim_end().to_owned()
}

/// A random name.
pub fn random_name(begin: &str) -> String {
    let mut bytes = [0_u8; 7];
    // Without randomness the time serves: two producers do not begin in one nanosecond.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos().to_be_bytes();
        bytes.copy_from_slice(&nanos[9..]);
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{begin}{hex}")
}
