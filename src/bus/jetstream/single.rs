//! One message by itself. The server stores whatever a publisher writes above his message, headers or not, and the
//! client ends the connection over which it comes upon what it cannot read, however often that is asked for. So what
//! stands in the way of a follower or of a range is read here, from JSON, and as far as it can be.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{Failure, JetStreamBus, batch::ServerError, record::Stored, stream::silent};
use crate::row::unbase64;

/// Messages read one by one where a range or a consumer cannot be: each is a request of its own.
pub const ALONE: usize = 64;

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

impl JetStreamBus {
    /// The message of a sequence, if it is still there, with those of its headers that can be read.
    pub(super) async fn at(&self, seq: u64) -> Result<Option<Stored>, Failure> {
        let client = self.connection.client()?;
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.names.stream);
        let ask = serde_json::json!({ "seq": seq }).to_string();
        let answer = client.request(subject, ask.into()).await.map_err(silent)?;
        let answer: Answer = serde_json::from_slice(&answer.payload)?;
        match (answer.error, answer.message) {
            (None, Some(there)) => there.read().map(Some),
            (Some(error), _) if error.err_code == NO_MESSAGE => Ok(None),
            (Some(error), _) => Err(error.description.into()),
            (None, None) => Err("an answer that is none".into()),
        }
    }

    /// What there is of the sequences from `from` on, of `limit` and [`ALONE`] at the most.
    pub(super) async fn one_by_one(&self, from: u64, limit: usize) -> Result<Vec<Stored>, Failure> {
        let mut found = Vec::new();
        for seq in (from..).take(limit.min(ALONE)) {
            found.extend(self.at(seq).await?);
        }
        Ok(found)
    }
}

impl There {
    fn read(self) -> Result<Stored, Failure> {
        let at: jiff::Timestamp = self.time.parse()?;
        let bytes = |text: &str| unbase64(text).ok_or("a message that is not base64");
        Ok(Stored {
            seq: self.seq,
            at_ns: at.as_nanosecond(),
            subject: self.subject,
            headers: readable(&bytes(&self.hdrs)?),
            payload: bytes(&self.data)?.into(),
        })
    }
}

/// The headers of a message as the client reads them, without the lines that are none.
fn readable(block: &[u8]) -> HeaderMap {
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
