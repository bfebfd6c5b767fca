//! What an endpoint has said of somebody, for a moment: whoever comes with the very same is not asked about
//! again. Nothing but an admission is kept, and what somebody brings only as its hash.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Admission, Presented, fetch::PATIENCE};

/// Answers kept at the most, of some KB each at the worst. Beyond them everybody is asked about.
const MAX_KEPT: usize = 4096;

/// What is asked, as a hash of all that somebody brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question([u8; 32]);

/// The answers that still hold.
#[derive(Debug)]
pub struct Answers {
    keep: Duration,
    kept: Mutex<HashMap<Question, Kept>>,
}

#[derive(Debug)]
struct Kept {
    answer: Shared<BoxFuture<'static, Admission>>,
    asked: Instant,
}

impl Question {
    /// Of what somebody brings. Each part is hashed with its length, so that no two are taken for one.
    pub fn of(presented: &Presented) -> Self {
        let headers = &presented.handshake;
        let parts = [
            presented.token.as_ref().map(String::as_bytes),
            headers.path.as_deref(),
            headers.cookie.as_deref(),
            headers.authorization.as_deref(),
            headers.token.as_deref(),
            headers.origin.as_deref(),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            // One that is missing is not an empty one.
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        Self(hash.finalize().into())
    }
}

impl Answers {
    /// Each is kept for so long from when it was asked for.
    pub fn new(keep: Duration) -> Self {
        Self {
            keep,
            kept: Mutex::default(),
        }
    }

    /// The answer to a question: one that holds, the one that is on its way, or else that of `ask`.
    ///
    /// # Errors
    /// [`Refused`](super::Refused), for all who have waited for it; the next one is asked about again.
    ///
    /// # Cancel safety
    /// Cancel safe: who else waits for the answer gets it.
    pub async fn to(
        &self,
        question: Question,
        ask: impl FnOnce() -> BoxFuture<'static, Admission>,
    ) -> Admission {
        let answer = self.find(question, ask);
        answer.await
    }

    fn find(
        &self,
        question: Question,
        ask: impl FnOnce() -> BoxFuture<'static, Admission>,
    ) -> Shared<BoxFuture<'static, Admission>> {
        // Nothing in here panics half way through a change.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(one) = kept.get(&question)
            && one.holds(now, self.keep)
        {
            return one.answer.clone();
        }
        let answer = ask().shared();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, one| one.holds(now, self.keep));
        }
        if kept.len() < MAX_KEPT || kept.contains_key(&question) {
            let answer = answer.clone();
            kept.insert(question, Kept { answer, asked: now });
        }
        answer
    }
}

impl Kept {
    fn holds(&self, now: Instant, keep: Duration) -> bool {
        let age = now.saturating_duration_since(self.asked);
        match self.answer.peek() {
            // All who waited may have gone: then nobody has heard it, and it may be long over.
            None => age < PATIENCE,
            Some(Ok(identity)) => {
                let ended = identity.until().is_some_and(|end| end <= SystemTime::now());
                age < keep && !ended
            }
            // Who is refused may have signed in since.
            Some(Err(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::auth::Handshake;

    #[test]
    fn no_two_who_bring_something_else_are_one_question() {
        let of = |token: Option<&str>, parts: [Option<&'static str>; 5]| {
            let [path, cookie, authorization, header, origin] =
                parts.map(|part| part.map(|text| Bytes::from_static(text.as_bytes())));
            Question::of(&Presented {
                token: token.map(str::to_owned),
                handshake: Handshake {
                    path,
                    cookie,
                    authorization,
                    token: header,
                    origin,
                },
                from: None,
            })
        };
        let all = [
            of(None, [None; 5]),
            of(Some(""), [None; 5]),
            of(Some("ab"), [None; 5]),
            of(None, [Some("ab"), None, None, None, None]),
            of(None, [None, Some("ab"), None, None, None]),
            of(None, [None, None, Some("ab"), None, None]),
            of(None, [None, None, None, Some("ab"), None]),
            of(None, [None, None, None, None, Some("ab")]),
            of(Some("a"), [Some("b"), None, None, None, None]),
            of(Some("a"), [Some(""), Some("b"), None, None, None]),
            of(Some("a"), [None, Some("b"), None, None, None]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        let again = of(Some("a"), [None, Some("b"), None, None, None]);
        assert_eq!(all[10], again);
    }
}
