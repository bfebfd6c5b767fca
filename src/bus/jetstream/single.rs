//! One message by itself. The server stores whatever a publisher writes above his message, headers or not, and the
//! client ends the connection over which it comes upon what it cannot read, however often that is asked for. So what
//! stands in the way of a follower or of a range is read here, from JSON, and as far as it can be.

use std::collections::BTreeSet;

use async_nats::{HeaderMap, HeaderName, HeaderValue, RequestErrorKind, StatusCode};
use serde::Deserialize;

use super::{
    Failure, JetStreamBus,
    batch::ServerError,
    connect::{PRODUCER_INBOX, REQUEST_TIMEOUT, inbox_of},
    denied::{Denied, NO_ANSWER},
    record::{Stored, subject},
    stream::silent,
};
use crate::row::unbase64;

/// Messages read one by one where a range or a consumer cannot be: each is a request of its own.
pub const ALONE: usize = 64;

/// Messages that are remembered as ones that the client cannot read.
const KNOWN: usize = 4096;

/// The server's code for a sequence at which there is nothing.
const NO_MESSAGE: u64 = 10037;

#[derive(Deserialize)]
struct Answer {
    error: Option<ServerError>,
    message: Option<There>,
}

/// A message as the stream's leader tells it.
#[derive(Deserialize)]
struct There {
    subject: String,
    seq: u64,
    time: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

/// Sequences of the stream of events at which the client ends its connection, or itself: whoever reads on passes them
/// by. To know too few of them, or wrong ones, costs time only.
#[derive(Debug, Default)]
pub struct Illegible(BTreeSet<u64>);

impl Illegible {
    /// Remembers one, and forgets the first where there are too many.
    pub fn note(&mut self, seq: u64) {
        self.0.insert(seq);
        if self.0.len() > KNOWN {
            self.0.pop_first();
        }
    }

    /// The first one from there on.
    pub fn next(&self, from: u64) -> Option<u64> {
        self.0.range(from..).next().copied()
    }
}

impl JetStreamBus {
    /// The message of a sequence, if it is still there, with those of its headers that can be read.
    pub(super) async fn at(&self, seq: u64) -> Result<Option<Stored>, Failure> {
        self.at_in(&self.names.stream, seq).await
    }

    /// The same of another stream.
    pub(super) async fn at_in(&self, stream: &str, seq: u64) -> Result<Option<Stored>, Failure> {
        let ask = serde_json::json!({ "seq": seq });
        let found = self.get(stream, &ask).await?;
        found.map(There::read).transpose()
    }

    /// Messages of a stream from `from` on, of which there are at most `limit` and [`ALONE`], over holes and past
    /// whatever else stands in the way; none where there is nothing at or after `from`.
    pub(super) async fn one_by_one(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, Failure> {
        let mut found = Vec::new();
        let mut next = from;
        while found.len() < limit.min(ALONE) {
            let ask = serde_json::json!({ "seq": next, "next_by_subj": ">" });
            match self.get(stream, &ask).await {
                Ok(None) => break,
                Ok(Some(there)) => {
                    next = there.seq + 1;
                    found.push(there.read()?);
                }
                Err(_) if !found.is_empty() => break,
                Err(err) => return Err(err),
            }
        }
        Ok(found)
    }

    /// Whether this process has, or its URL names, a producer's user, who lacks what a gateway needs.
    pub(super) fn is_producer(&self) -> bool {
        inbox_of(&self.config.servers, self.role) == PRODUCER_INBOX
    }

    /// Whether this user may ask for single messages of a stream, there or not; why he may not.
    pub(super) async fn may_get(&self, stream: &str) -> Result<(), Failure> {
        let ask = serde_json::json!({ "seq": 1 });
        tokio::select! {
            answer = self.ask(stream, &ask) => answer.map(drop).map_err(|(_, err)| err),
            () = self.connection.refused(stream) => Err(Denied::publish(&subject_of(stream)).into()),
        }
    }

    /// Asks a stream's leader for one message, and remembers one of events that the client cannot read. Once more
    /// where the connection is lost meanwhile: it is for something that somebody else has come upon.
    async fn get(&self, stream: &str, ask: &serde_json::Value) -> Result<Option<There>, Failure> {
        let generation = self.connection.generation();
        let answer = match self.ask(stream, ask).await {
            Err((Lost::Connection, err)) => {
                let renewed = self.connection.renewed(generation);
                let renewed = tokio::time::timeout(REQUEST_TIMEOUT, renewed).await;
                renewed.map_err(|_| err)?;
                self.ask(stream, ask).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|(_, err)| err)?;
        match (answer.error, answer.message) {
            (None, Some(there)) => {
                if stream == self.names.stream && !there.is_legible() {
                    self.illegible().note(there.seq);
                }
                Ok(Some(there))
            }
            (Some(error), _) if error.err_code == NO_MESSAGE => Ok(None),
            (Some(error), _) => Err(error.description.into()),
            (None, None) => Err("an answer that is none".into()),
        }
    }

    /// What a stream's leader answers.
    async fn ask(&self, stream: &str, ask: &serde_json::Value) -> Result<Answer, (Lost, Failure)> {
        let generation = self.connection.generation();
        let client = self.connection.client();
        let client = client.map_err(|err| (Lost::Connection, err))?;
        let asked = client.request(subject_of(stream), ask.to_string().into());
        let answer = tokio::select! {
            answer = asked => answer,
            () = self.connection.lost(generation) => {
                return Err((Lost::Connection, NO_ANSWER.into()));
            }
        };
        let answer = answer.map_err(|err| match err.kind() {
            RequestErrorKind::TimedOut | RequestErrorKind::NoResponders => {
                (Lost::Answer, silent(err))
            }
            // As where the client has ended, and nobody has been told yet.
            _ => (Lost::Connection, silent(err)),
        })?;
        serde_json::from_slice(&answer.payload).map_err(|err| (Lost::Answer, err.into()))
    }
}

/// Where a stream's leader is asked for one message.
fn subject_of(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.GET.{stream}")
}

/// What is missing where a question was not answered.
enum Lost {
    /// What it was asked over: there may be another one soon.
    Connection,
    /// The answer alone.
    Answer,
}

impl There {
    fn read(self) -> Result<Stored, Failure> {
        let at: jiff::Timestamp = self.time.parse()?;
        let bytes = |text: &str| unbase64(text).ok_or("a message that is not base64");
        Ok(Stored {
            seq: self.seq,
            at_ns: at.as_nanosecond(),
            subject: subject(&self.subject),
            headers: readable(&bytes(&self.hdrs)?),
            payload: bytes(&self.data)?.into(),
        })
    }

    /// Whether the client can read it wherever it comes from.
    fn is_legible(&self) -> bool {
        let block = unbase64(&self.hdrs);
        // JSON has U+FFFD for what is no UTF-8.
        let breaks = |char: char| char.is_whitespace() || char == char::REPLACEMENT_CHARACTER;
        !self.subject.contains(breaks)
            && block.is_some_and(|block| block.is_empty() || is_legible(&block))
    }
}

/// Whether the client can read a block of headers.
fn is_legible(block: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(block) else {
        return false;
    };
    let mut lines = text.lines();
    let first = lines.next().and_then(|line| line.strip_prefix("NATS/1.0"));
    let status = first.and_then(|first| first.trim().split(' ').next());
    let status = status.is_some_and(|text| text.is_empty() || text.parse::<StatusCode>().is_ok());
    status
        && lines.filter(|line| !line.is_empty()).all(|line| {
            // What follows a line that is none begins with a space, and belongs to the one before.
            let header = line.split_once(':');
            let named = header.is_some_and(|(name, _)| name.parse::<HeaderName>().is_ok());
            !line.contains('\r') && (named || line.starts_with(char::is_whitespace))
        })
}

/// The headers of a message as the client reads them, without the lines that are none; and without a last one of two
/// bytes, as in a direct read.
fn readable(block: &[u8]) -> HeaderMap {
    let block = match block.split_last_chunk::<2>() {
        Some((before, _)) if before.ends_with(b"\n") => before,
        _ => block,
    };
    let text = String::from_utf8_lossy(block);
    let mut lines = text.lines().skip(1).peekable();
    let mut headers = HeaderMap::new();
    while let Some(line) = lines.next() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        let name = name.parse::<HeaderName>();
        if let (Ok(name), Ok(value)) = (name, value.trim_end().parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_headers_is_read_what_can_be() {
        let read = |block: &[u8]| {
            let headers = readable(block);
            let mut all: Vec<String> = headers
                .iter()
                .flat_map(|(name, values)| {
                    values.iter().map(move |value| format!("{name}={value}"))
                })
                .collect();
            all.sort();
            all.join(" ")
        };
        for (block, expected) in [
            (&b""[..], ""),
            (b"NATS/1.0\r\n\r\n", ""),
            (b"NATS/1.0 404 No\r\na: b\r\nA:  c \r\n\r\n", "A=c a=b"),
            (
                b"NATS/1.0\r\na: 1\r\na: 2\r\n\r\nb: 3\r\n\r\n",
                "a=1 a=2 b=3",
            ),
            (b"NATS/1.0\r\na: b\r\n c\r\n\r\n", "a=b c"),
            (b"NATS/1.0\r\nnothing\r\na b: c\r\nd: e\r\n\r\n", "d=e"),
            (b"HTTP/1.1\r\na: \xff\r\n\r\n", "a=\u{fffd}"),
            (b"NATS/1.0\r\n: x\r\na: b", "=x a=b"),
            (b"NATS/1.0\r\na: b\r\n c", "a=b"),
            (b"NATS/1.0\r\na: b\r\n cd", "a=b cd"),
        ] {
            assert_eq!(
                read(block),
                expected,
                "{:?}",
                String::from_utf8_lossy(block)
            );
        }
    }

    #[test]
    fn what_the_client_cannot_read_is_known() {
        for block in [
            &b"NATS/1.0\r\n\r\n"[..],
            b"NATS/1.0 404 No\r\na: b\r\n c\r\n\r\n",
            b"NATS/1.0\r\na:b",
        ] {
            assert!(is_legible(block), "{:?}", String::from_utf8_lossy(block));
        }
        for block in [
            &b"\r\n\r\n"[..],
            b"HTTP/1.1\r\na: b\r\n\r\n",
            b"NATS/1.0 many\r\n\r\n",
            b"NATS/1.0\r\nno headers\r\n\r\n",
            b"NATS/1.0\r\na b: c\r\n\r\n",
            b"NATS/1.0\r\na: \xfc\r\n\r\n",
            b"NATS/1.0\r\nX: a\rb\r\n\r\n",
        ] {
            assert!(!is_legible(block), "{:?}", String::from_utf8_lossy(block));
        }
        let mut illegible = Illegible::default();
        for seq in 1..=5000 {
            illegible.note(seq);
        }
        assert_eq!(illegible.0.len(), KNOWN);
        assert_eq!(illegible.next(4000), Some(4000));
        assert_eq!(illegible.next(5001), None);
    }
}
