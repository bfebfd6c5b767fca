//! Atomic batches (NATS ADR-50), written by hand: the client has none. All messages of one are
//! stored or none is, next to one another.

use async_nats::{HeaderMap, StatusCode, client::Request};
use bytes::Bytes;
use serde::Deserialize;

use super::{Failure, JetStreamBus, record::random_name, stream::silent};

/// The most messages that a server takes in one batch.
pub const MAX_MESSAGES: usize = 1000;

/// The most bytes in one batch: the server holds them in memory until the last one is there.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Its subject.
    pub subject: String,
    /// Its headers, but those that make it part of a batch.
    pub headers: HeaderMap,
    /// Its body.
    pub payload: Bytes,
}

/// What the server says to a message or a batch that it stored.
#[derive(Debug, Clone, Deserialize)]
pub struct Ack {
    /// The sequence of the last message; of a duplicate, that of the first copy.
    #[serde(default)]
    pub seq: u64,
    /// Whether nothing was stored, for the id was known.
    #[serde(default)]
    pub duplicate: bool,
}

/// Why a batch was not stored.
#[derive(Debug)]
pub enum Refused {
    /// The subject's last sequence is another one than expected. Nothing was stored.
    Mismatch,
    /// One of the ids is known already. Nothing was stored.
    Known,
    /// The outcome is unknown.
    Unknown(Failure),
}

#[derive(Deserialize)]
struct Answer {
    error: Option<ServerError>,
    #[serde(flatten)]
    ack: Option<Ack>,
}

/// Why the server did not do what it was asked.
#[derive(Deserialize)]
pub struct ServerError {
    /// Which error it is.
    #[serde(default)]
    pub err_code: u64,
    /// The same for people.
    #[serde(default)]
    pub description: String,
}

impl JetStreamBus {
    /// Stores messages, all or none. With `expected`, only if that is the sequence of the last
    /// message under a subject.
    ///
    /// At most [`MAX_MESSAGES`], and at least one.
    pub(super) async fn store(
        &self,
        mut messages: Vec<Outgoing>,
        expected: Option<(&str, u64)>,
    ) -> Result<Ack, Refused> {
        let client = self.connection.client().map_err(Refused::Unknown)?;
        let generation = self.connection.generation();
        if let (Some((subject, sequence)), Some(first)) = (expected, messages.first_mut()) {
            let headers = &mut first.headers;
            headers.insert("Nats-Expected-Last-Subject-Sequence", sequence.to_string());
            headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", subject);
        }
        if messages.len() > 1 {
            let id = random_name("b");
            for (index, message) in messages.iter_mut().enumerate() {
                message.headers.insert("Nats-Batch-Id", id.as_str());
                message
                    .headers
                    .insert("Nats-Batch-Sequence", (index + 1).to_string());
            }
        }
        let Some(mut last) = messages.pop() else {
            return Err(Refused::Unknown("an empty batch".into()));
        };
        if !messages.is_empty() {
            last.headers.insert("Nats-Batch-Commit", "1");
        }
        for message in messages {
            client
                .publish_with_headers(message.subject, message.headers, message.payload)
                .await
                .map_err(|err| Refused::Unknown(silent(err)))?;
        }
        let request = Request::new().headers(last.headers).payload(last.payload);
        let answer = tokio::select! {
            answer = client.send_request(last.subject, request) => answer,
            () = self.connection.lost(generation) => {
                return Err(Refused::Unknown("the connection to NATS was lost".into()));
            }
        };
        let answer = answer.map_err(|err| Refused::Unknown(silent(err)))?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            let text = format!("the stream {} does not answer", self.names.stream);
            return Err(Refused::Unknown(text.into()));
        }
        understood(&answer.payload)
    }
}

fn understood(payload: &[u8]) -> Result<Ack, Refused> {
    let answer: Answer =
        serde_json::from_slice(payload).map_err(|err| Refused::Unknown(err.into()))?;
    match (answer.error, answer.ack) {
        (None, Some(ack)) if ack.seq > 0 => Ok(ack),
        (Some(err), _) => Err(match err.err_code {
            10071 | 10164 => Refused::Mismatch,
            10201 => Refused::Known,
            _ => Refused::Unknown(err.description.into()),
        }),
        _ => Err(Refused::Unknown("an answer that is none".into())),
    }
}
