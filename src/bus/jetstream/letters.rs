//! The dead letters that are kept, read for people: newest first, and cut.

use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
use futures_util::{StreamExt, stream};

use super::{
    super::{DeadLetter, DeadLetters, LETTER_CHARS},
    Failure, JetStreamBus,
    record::Stored,
    stream::silent,
};
use crate::status::brief;

/// Letters read at once. Each may be as large as a message, and is cut as soon as it is there.
const READING: usize = 2;

/// For each letter asked for so many numbers are looked at: somebody may have deleted some.
const LOOKS: u64 = 4;

/// The most bytes of a UTF-8 character.
const CHAR_BYTES: usize = 4;

impl JetStreamBus {
    /// As [`super::super::Bus::dead_letters`].
    pub(super) async fn newest_letters(&self, limit: usize) -> Result<DeadLetters, Failure> {
        let jetstream = self.connection.jetstream()?;
        let state = match jetstream.get_stream(&self.names.dead_stream).await {
            Ok(stream) => stream.cached_info().state.clone(),
            Err(err) => match err.kind() {
                // Nobody has made it, for there was none yet.
                GetStreamErrorKind::JetStream(inner)
                    if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    return Ok(DeadLetters {
                        kept: true,
                        ..DeadLetters::default()
                    });
                }
                _ => return Err(silent(err)),
            },
        };
        let (first, last) = (state.first_sequence.max(1), state.last_sequence);
        let looks = u64::try_from(limit).unwrap_or(u64::MAX) * LOOKS;
        let from = first.max((last + 1).saturating_sub(looks));
        let mut found = stream::iter((from..=last).rev())
            .map(|seq| self.letter(seq))
            .buffered(READING);
        let mut letters = Vec::new();
        while letters.len() < limit
            && let Some(letter) = found.next().await
        {
            letters.extend(letter?);
        }
        Ok(DeadLetters {
            letters,
            total: state.messages,
            kept: true,
        })
    }

    /// The letter of a number, if it is still there. From JSON: what somebody has written above it may be nothing
    /// that the client can read, and must not end the connection over which the events come.
    async fn letter(&self, seq: u64) -> Result<Option<DeadLetter>, Failure> {
        let found = self.at_in(&self.names.dead_stream, seq).await?;
        Ok(found.map(|there| self.read_out(&there)))
    }

    /// Whether this user may read dead letters, as a gateway must; why he may not. Of a producer's user nothing is asked.
    ///
    /// # Errors
    /// Which permission is missing, or that the server does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn may_read_dead_letters(&self) -> Result<(), Failure> {
        match self.is_producer() {
            true => Ok(()),
            false => self.may_get(&self.names.dead_stream).await,
        }
    }

    fn read_out(&self, letter: &Stored) -> DeadLetter {
        let header = |name: &str| brief(letter.header(name).unwrap_or_default());
        let topic = letter.subject.strip_prefix(&*self.names.prefix);
        let topic = topic.and_then(|rest| rest.strip_prefix(".dlq."));
        DeadLetter {
            seq: letter.seq,
            at_ms: letter.at_ms(),
            subject: header("Rowcast-Subject"),
            topic: brief(topic.unwrap_or_default()),
            reason: header("Rowcast-Reason"),
            of: header("Rowcast-Sequence").parse().ok(),
            size: letter.payload.len(),
            text: first_chars(&letter.payload),
        }
    }
}

/// The first characters of a body; a byte that is none is one that says so.
fn first_chars(body: &[u8]) -> String {
    // So many bytes hold as many whole characters at least.
    let begin = &body[..body.len().min(LETTER_CHARS * CHAR_BYTES)];
    let text = String::from_utf8_lossy(begin);
    text.chars().take(LETTER_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cut_between_characters_and_what_is_no_text_is_replaced() {
        assert_eq!(first_chars("王秀英".as_bytes()), "王秀英");
        assert_eq!(first_chars(b"a\xffb"), "a\u{fffd}b");
        for (begin, char) in [("", "x"), ("", "é"), ("a", "王"), ("abc", "🙂")] {
            let body = begin.to_owned() + &char.repeat(5000);
            let text = first_chars(body.as_bytes());
            assert_eq!(text.chars().count(), LETTER_CHARS);
            assert!(body.starts_with(&text), "{char}");
        }
    }
}
