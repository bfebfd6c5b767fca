//! A stretch of the stream, without a consumer: many sockets may ask at once.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{
    Failure, JetStreamBus,
    connect::REQUEST_TIMEOUT,
    denied::NO_ANSWER,
    record::{Stored, subject},
};

/// Messages asked for at once: 500, and the one before them, by which a cursor is verified.
pub const STEP: usize = 501;

/// Where a direct read says of which subject a message is.
const SUBJECT: &str = "Nats-Subject";

/// Of which stream: the first of the server's lines.
const STREAM: &str = "Nats-Stream";

const NO_PLACE: &str = "a message without its place";

/// Bytes asked for at once.
const STEP_BYTES: usize = 8 * 1024 * 1024;

impl JetStreamBus {
    /// Messages from `from` on, at most `limit` and [`STEP`], in their order; holes stay holes.
    /// None where there is nothing at or after `from`. Fewer than there are, and at least one, where a message stands
    /// in the way that the client cannot read, or the connection was lost.
    pub(super) async fn range(&self, from: u64, limit: usize) -> Result<Vec<Stored>, Failure> {
        let limit = limit.min(STEP);
        let (illegible, expected) = {
            let illegible = self.illegible();
            (illegible.next(from), illegible.are_expected())
        };
        if illegible == Some(from) || expected {
            return self.alone(from, limit, expected).await;
        }
        let before = illegible.and_then(|there| usize::try_from(there - from).ok());
        let limit = before.map_or(limit, |before| limit.min(before));
        let generation = self.connection.generation();
        let mut found = Vec::new();
        tokio::select! {
            // What has come before the end of the connection counts.
            biased;
            read = self.read_range(from, limit, &mut found) => {
                read?;
                return self.certain(found).await;
            }
            () = self.connection.lost(generation) => {}
        }
        let found = self.certain(found).await?;
        self.past(from, limit, found).await
    }

    /// These, which had come when the connection was lost, and what follows them: perhaps it was lost for that, and
    /// whoever asks for it anew must not have it sent again.
    async fn past(
        &self,
        from: u64,
        limit: usize,
        mut found: Vec<Stored>,
    ) -> Result<Vec<Stored>, Failure> {
        let room = limit.saturating_sub(found.len());
        let Some(last) = found.last() else {
            let read = self.alone(from, room, true).await?;
            self.suspect(read.first());
            return Ok(read);
        };
        // The last of them is read again: the server may be back with another stream.
        let Ok(read) = self.alone(last.seq, room.saturating_add(1), true).await else {
            return Ok(found);
        };
        let mut more = read.into_iter();
        let again = more.next();
        if again.is_none_or(|again| (again.seq, again.at_ns) != (last.seq, last.at_ns)) {
            return Err("the stream has changed while it was read".into());
        }
        self.suspect(more.as_slice().first());
        found.extend(more);
        Ok(found)
    }

    /// Remembers what did not come any more before the connection was lost, however legible it may seem.
    fn suspect(&self, first: Option<&Stored>) {
        if let Some(first) = first {
            self.illegible().note(first.seq);
        }
    }

    /// As [`Self::range`], read one by one. Where more that have to be are expected, and one is found, they are for
    /// some time longer.
    async fn alone(
        &self,
        from: u64,
        limit: usize,
        expecting: bool,
    ) -> Result<Vec<Stored>, Failure> {
        let read = self.singly(&self.names.stream, from, limit).await?;
        if expecting && read.illegible {
            self.illegible().expect_more();
        }
        Ok(read.messages)
    }

    /// Reads those again, of the leader, above which the server has written their places where they cannot be told
    /// from what was there: every reader is to see the same headers.
    async fn certain(&self, found: Vec<Stored>) -> Result<Vec<Stored>, Failure> {
        let mut certain = Vec::with_capacity(found.len());
        for message in found {
            match is_certain(&message.headers, &self.names.stream) {
                true => certain.push(message),
                false => certain.extend(self.at(message.seq).await?),
            }
        }
        Ok(certain)
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
            .publish_with_reply(subject, inbox.clone(), ask.to_string().into())
            .await?;
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, async {
                loop {
                    match answers.next().await {
                        // Somebody may have had it sent here: it is no answer.
                        Some(other) if *other.subject != *inbox => {}
                        Some(answer) => return answer,
                        // The client has ended, and the connection is lost.
                        None => std::future::pending().await,
                    }
                }
            });
            let answer = answer.await.map_err(|_| NO_ANSWER)?;
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
fn is_stored(answer: &Message) -> bool {
    let headers = answer.headers.as_ref();
    headers.is_some_and(|headers| headers.get(SUBJECT).is_some())
}

/// Whether the server's lines stand by themselves in the answer to a direct read. It writes them over the last two
/// bytes of the headers, which need not be the end of a line: then they belong to a header of the publisher's.
fn is_certain(headers: &HeaderMap, stream: &str) -> bool {
    let glued = format!("{STREAM}: {stream}");
    let mut told = 0;
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        told += if name == STREAM { values.len() } else { 0 };
        let within = name != STREAM && name.ends_with(STREAM);
        if within || values.iter().any(|value| value.as_str().ends_with(&glued)) {
            return false;
        }
    }
    told == 1
        && headers
            .get(STREAM)
            .is_some_and(|told| told.as_str() == stream)
}

/// A message as a direct read answers with it. The server writes its place below the headers that it was published
/// with, whose publisher may have written another one there.
fn stored(headers: Option<HeaderMap>, payload: Bytes) -> Result<Stored, Failure> {
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
        subject: subject(&text(SUBJECT)?),
        headers,
        payload,
    })
}

/// The pause before a range is asked again that a replica did not have yet.
pub const REPLICA_PAUSE: Duration = Duration::from_millis(20);
