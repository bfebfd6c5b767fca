//! One message by itself. What the client cannot read stands in the way of a follower or of a range, however often it
//! is asked for: it is read here, from JSON, and as far as it can be.

use async_nats::{HeaderMap, HeaderName, HeaderValue, RequestErrorKind};
use futures_util::future::join_all;
use serde::Deserialize;

use super::{
    Failure, JetStreamBus,
    batch::ServerError,
    connect::{PRODUCER_INBOX, REQUEST_TIMEOUT, inbox_of},
    denied::{Denied, NO_ANSWER},
    illegible::{is_legible, is_legible_subject},
    record::{Stored, subject},
    stream::silent,
};
use crate::row::unbase64;

/// Messages read one by one after the last one that has to be: each is a request of its own.
pub const ALONE: usize = 64;

/// Messages asked for at once.
const ABREAST: usize = 16;

/// Bytes after which no more are read.
const BYTES: usize = 4 * 1024 * 1024;

/// The server's code for a sequence at which there is nothing.
const NO_MESSAGE: u64 = 10037;

/// Messages that were read one by one.
#[derive(Debug, Default)]
pub struct Singly {
    /// In their order; holes stay holes.
    pub messages: Vec<Stored>,
    /// Whether the client could not have read one of them.
    pub illegible: bool,
    /// Whether the stream had nothing after them.
    pub whole: bool,
    bytes: usize,
    /// Those after the last one that could not be read.
    plain: usize,
}

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

    /// Messages of a stream from `from` on, over holes and past whatever else stands in the way; none where there is
    /// nothing at or after `from`. At most `limit`; fewer where [`ALONE`] in a row could have been read otherwise.
    pub(super) async fn one_by_one(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, Failure> {
        let read = self.singly(stream, from, limit).await;
        read.map(|read| read.messages)
    }

    /// As [`Self::one_by_one`], with what was found out. At least one message where there is any, or an error.
    pub(super) async fn singly(
        &self,
        stream: &str,
        from: u64,
        limit: usize,
    ) -> Result<Singly, Failure> {
        let mut read = Singly::default();
        let mut next = from;
        while read.room(limit) > 0 {
            let ask = serde_json::json!({ "seq": next, "next_by_subj": ">" });
            match self.get(stream, &ask).await {
                Ok(None) => {
                    read.whole = true;
                    break;
                }
                Ok(Some(there)) => {
                    read.put(there)?;
                    if !self.abreast(stream, limit, &mut read).await? {
                        break;
                    }
                    next = read.messages.last().map_or(next, |last| last.seq + 1);
                }
                Err(_) if !read.messages.is_empty() => break,
                Err(err) => return Err(err),
            }
        }
        Ok(read)
    }

    /// Reads on until there is a hole, some at once; false where it failed.
    async fn abreast(
        &self,
        stream: &str,
        limit: usize,
        read: &mut Singly,
    ) -> Result<bool, Failure> {
        let mut abreast = 1;
        while let Some(last) = read.messages.last().map(|last| last.seq)
            && let room @ 1.. = read.room(limit)
        {
            // Never many more than there are: mostly these are the newest, and few.
            let asked = (last + 1..).take(room.min(abreast)).map(|seq| async move {
                let ask = serde_json::json!({ "seq": seq });
                self.get(stream, &ask).await
            });
            for there in join_all(asked).await {
                match there {
                    Ok(Some(there)) => read.put(there)?,
                    Ok(None) => return Ok(true),
                    Err(_) => return Ok(false),
                }
            }
            abreast = (abreast * 2).min(ABREAST);
        }
        Ok(true)
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

impl Singly {
    /// How many more are to be read.
    fn room(&self, limit: usize) -> usize {
        let room = limit.saturating_sub(self.messages.len());
        let room = room.min(ALONE.saturating_sub(self.plain));
        if self.bytes < BYTES { room } else { 0 }
    }

    fn put(&mut self, there: There) -> Result<(), Failure> {
        match there.is_legible() {
            true => self.plain += 1,
            false => (self.illegible, self.plain) = (true, 0),
        }
        let message = there.read()?;
        self.bytes += message.payload.len();
        self.messages.push(message);
        Ok(())
    }
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
        is_legible_subject(&self.subject) && block.is_some_and(|block| is_legible(&block))
    }
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
}
