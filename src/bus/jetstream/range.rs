//! A stretch of the stream, without a consumer: many sockets may ask at once.

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{Failure, JetStreamBus, connect::REQUEST_TIMEOUT, denied::NO_ANSWER, record::Stored};

/// Messages asked for at once: 500, and the one before them, by which a cursor is verified.
pub const STEP: usize = 501;

/// Bytes asked for at once.
const STEP_BYTES: usize = 8 * 1024 * 1024;

impl JetStreamBus {
    /// Messages from `from` on, at most `limit` and [`STEP`], in their order; holes stay holes.
    /// None where there is nothing at or after `from`.
    pub(super) async fn range(&self, from: u64, limit: usize) -> Result<Vec<Stored>, Failure> {
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
        let mut found = Vec::new();
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()).await;
            let Ok(Some(answer)) = answer else {
                return Err(NO_ANSWER.into());
            };
            match answer.status.map(|status| status.as_u16()) {
                None => found.push(stored(answer.headers, answer.payload)?),
                // The end of the batch, or nothing to begin with.
                Some(204 | 404) => return Ok(found),
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

/// A message as a direct read answers with it.
pub fn stored(headers: Option<HeaderMap>, payload: Bytes) -> Result<Stored, Failure> {
    let headers = headers.ok_or("a message without headers")?;
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| value.as_str().to_owned())
            .ok_or("a message without its place")
    };
    let at: jiff::Timestamp = text("Nats-Time-Stamp")?.parse()?;
    Ok(Stored {
        seq: text("Nats-Sequence")?.parse()?,
        at_ns: at.as_nanosecond(),
        subject: text("Nats-Subject")?,
        headers,
        payload,
    })
}

/// The pause before a range is asked again that a replica did not have yet.
pub const REPLICA_PAUSE: Duration = Duration::from_millis(20);
