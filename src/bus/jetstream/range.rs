//! A stretch of the stream, without a consumer: many sockets may ask at once.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{Failure, JetStreamBus, connect::REQUEST_TIMEOUT, denied::NO_ANSWER, record::Stored};

/// Messages asked for at once: 500, and the one before them, by which a cursor is verified.
pub const STEP: usize = 501;

/// Where a direct read says of which subject a message is.
const SUBJECT: &str = "Nats-Subject";

const NO_PLACE: &str = "a message without its place";

/// Bytes asked for at once.
const STEP_BYTES: usize = 8 * 1024 * 1024;

impl JetStreamBus {
    /// Messages from `from` on, at most `limit` and [`STEP`], in their order; holes stay holes.
    /// None where there is nothing at or after `from`. Fewer than there are where one stands in the way that ends
    /// the connection.
    pub(super) async fn range(&self, from: u64, limit: usize) -> Result<Vec<Stored>, Failure> {
        let generation = self.connection.generation();
        let mut found = Vec::new();
        tokio::select! {
            // What has come before the end of the connection counts.
            biased;
            read = self.read_range(from, limit, &mut found) => read?,
            () = self.connection.lost(generation) => {
                if found.is_empty() {
                    // Perhaps for what stands at `from`.
                    let renewed = self.connection.renewed(generation);
                    let renewed = tokio::time::timeout(REQUEST_TIMEOUT, renewed).await;
                    renewed.map_err(|_| NO_ANSWER)?;
                    return self.one_by_one(from, limit).await;
                }
            }
        }
        Ok(found)
    }

    async fn read_range(
        &self,
        from: u64,
        limit: usize,
        found: &mut Vec<Stored>,
    ) -> Result<(), Failure> {
        let client = self.connection.client()?;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let ask = serde_json::json!({
            "seq": from, "batch": limit.min(STEP), "max_bytes": STEP_BYTES,
        });
        let subject = format!("$JS.API.DIRECT.GET.{}", self.names.stream);
        client
            .publish_with_reply(subject, inbox, ask.to_string().into())
            .await?;
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()).await;
            let Ok(Some(answer)) = answer else {
                return Err(NO_ANSWER.into());
            };
            if is_stored(&answer) {
                found.push(stored(answer.headers, answer.payload)?);
                continue;
            }
            match answer.status.map(|status| status.as_u16()) {
                None => return Err(NO_PLACE.into()),
                // The end of the batch, or nothing to begin with.
                Some(204 | 404) => return Ok(()),
                Some(_) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                    return Err(format!("the stream {} cannot be read", self.names.stream).into());
                }
                Some(status) => {
                    let text = answer.description.unwrap_or_default();
                    return Err(format!("the NATS server answers {status} {text}").into());
                }
            }
        }
    }
}

/// Whether a direct read answers with a message: one has a subject, whatever status its publisher may have written
/// above it, and what the server itself says has none.
pub fn is_stored(answer: &Message) -> bool {
    let headers = answer.headers.as_ref();
    headers.is_some_and(|headers| headers.get(SUBJECT).is_some())
}

/// A message as a direct read answers with it. The server writes its place below the headers that it was published
/// with, whose publisher may have written another one there.
pub fn stored(headers: Option<HeaderMap>, payload: Bytes) -> Result<Stored, Failure> {
    let headers = headers.ok_or("a message without headers")?;
    let text = |name: &str| {
        headers
            .get_last(name)
            .map(|value| value.as_str().to_owned())
            .ok_or(NO_PLACE)
    };
    let at: jiff::Timestamp = text("Nats-Time-Stamp")?.parse()?;
    Ok(Stored {
        seq: text("Nats-Sequence")?.parse()?,
        at_ns: at.as_nanosecond(),
        subject: text(SUBJECT)?,
        headers,
        payload,
    })
}

/// The pause before a range is asked again that a replica did not have yet.
pub const REPLICA_PAUSE: Duration = Duration::from_millis(20);
