//! What the server will not have from this user. Whoever asked is never told: he waits for an answer in
//! vain. So what was refused is kept for a while, and told in place of the silence.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{PublishError, ReadError},
    Failure, JetStreamBus,
    connect::REQUEST_TIMEOUT,
};

/// For how long a refusal counts as the reason of a silence: everything is asked anew meanwhile.
const FRESH: Duration = REQUEST_TIMEOUT.saturating_mul(3);

/// Refusals that are told apart; a user who may do nothing at all is refused a dozen things.
const KEPT: usize = 32;

/// What the server does not say to whom it concerns.
pub const NO_ANSWER: &str = "the NATS server does not answer";

/// This user lacks permissions that he needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "the NATS user may not {0}: nats/server.conf has the permissions that each user of Rowcast needs"
)]
pub struct Denied(String);

impl Denied {
    /// That this user may not publish there.
    pub fn publish(subject: &str) -> Self {
        Self(format!("publish to \"{subject}\""))
    }
}

/// The refusals over one connection, in the order in which they came first.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Vec<(String, Instant)>);

/// What a text of the server's says of permissions.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Something was refused that was not refused before.
    New(String),
    /// Something was refused again.
    Known,
    /// Nothing.
    None,
}

impl Refusals {
    /// Takes what the server says.
    pub fn take(&mut self, text: &str) -> Refusal {
        let Some(what) = refused(text) else {
            return Refusal::None;
        };
        let now = Instant::now();
        if let Some(known) = self.0.iter_mut().find(|(known, _)| *known == what) {
            known.1 = now;
            return Refusal::Known;
        }
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push((what.clone(), now));
        Refusal::New(what)
    }

    /// Whether something was refused lately with this word in its subject.
    pub fn name(&self, word: &str) -> bool {
        let mut fresh = self.0.iter().filter(|(_, at)| at.elapsed() < FRESH);
        fresh.any(|(what, _)| what.split(['.', '"']).any(|other| other == word))
    }

    /// What was refused lately to who asked for something, as an error that stays the same while that
    /// does. That this user may not listen somewhere keeps nobody waiting.
    pub fn lately(&self) -> Option<Denied> {
        let fresh = self.0.iter().filter(|(_, at)| at.elapsed() < FRESH);
        let fresh = fresh.map(|(what, _)| what.as_str());
        let asks = |what: &&str| what.starts_with("publish") || what.contains("\"_INBOX");
        let fresh: Vec<&str> = fresh.filter(asks).collect();
        (!fresh.is_empty()).then(|| Denied(fresh.join(", ")))
    }
}

impl JetStreamBus {
    /// Whether an error says that a permission is missing.
    pub fn is_denied(err: &ReadError) -> bool {
        match err {
            ReadError::Unavailable(err) => err.is::<Denied>(),
            _ => false,
        }
    }

    /// The permissions that are missing, where that is known to be the reason for `err`.
    pub(super) fn reason(&self, err: Failure) -> Failure {
        let text = err.to_string();
        let silent = text.contains(NO_ANSWER) || text.contains("timed out");
        match self.connection.denied().filter(|_| silent) {
            Some(denied) => denied.into(),
            None => err,
        }
    }

    pub(super) fn unread(&self, err: ReadError) -> ReadError {
        match err {
            ReadError::Unavailable(err) => ReadError::Unavailable(self.reason(err)),
            lost => lost,
        }
    }

    pub(super) fn unpublished(&self, err: PublishError) -> PublishError {
        match err {
            PublishError::Unavailable(err) => PublishError::Unavailable(self.reason(err)),
            refused => refused,
        }
    }
}

/// `publish to "rowcast.change.t"`, of a text such as
/// `Permissions Violation for Publish to "rowcast.change.t"`.
fn refused(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let begin = lower.find("permissions violation for ")?;
    let verb = match &lower[begin..] {
        rest if rest.contains(" publish to ") => "publish to",
        _ => "subscribe to",
    };
    let subject = text[begin..].split('"').nth(1)?;
    Some(format!("{verb} \"{}\"", alike(subject)))
}

/// What is said of one inbox, or one consumer, is said of all: everybody who asks has one of his own.
fn alike(subject: &str) -> String {
    let words: Vec<&str> = subject.split('.').collect();
    let consumer = words
        .last()
        .is_some_and(|word| word.starts_with("gateway-"));
    match words.as_slice() {
        [inbox, ..] if inbox.starts_with("_INBOX") => format!("{inbox}.>"),
        [before @ .., _] if consumer => format!("{}.*", before.join(".")),
        _ => subject.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_and_known_for_a_while() {
        let mut refusals = Refusals::default();
        assert!(refusals.lately().is_none());
        let text = |subject: &str| format!("Permissions Violation for Publish to \"{subject}\"");
        let new = |what: &str| Refusal::New(what.to_owned());
        let info = text("$JS.API.STREAM.INFO.ROWCAST");
        let told = refusals.take(&info);
        assert_eq!(told, new("publish to \"$JS.API.STREAM.INFO.ROWCAST\""));
        assert_eq!(refusals.take(&info), Refusal::Known);
        let inbox = "Permissions Violation for Subscription to \"_INBOX_GATEWAY.a1.*\"";
        assert_eq!(
            refusals.take(inbox),
            new("subscribe to \"_INBOX_GATEWAY.>\"")
        );
        assert_eq!(refusals.take(&inbox.replace("a1", "b2")), Refusal::Known);
        let consumer = text("$JS.API.CONSUMER.MSG.NEXT.ROWCAST.gateway-7f");
        let all = "publish to \"$JS.API.CONSUMER.MSG.NEXT.ROWCAST.*\"";
        assert_eq!(refusals.take(&consumer), new(all));
        let said = refusals.lately().unwrap().to_string();
        for part in [
            "INFO.ROWCAST",
            "_INBOX_GATEWAY.>",
            "NEXT.ROWCAST.*",
            "nats/server.conf",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(refusals.take("Maximum Connections Exceeded"), Refusal::None);
        assert!(refusals.name("ROWCAST") && !refusals.name("ROWCAST_REVOKED"));
    }

    #[test]
    fn no_more_refusals_are_kept_than_there_is_room_for() {
        let mut refusals = Refusals::default();
        for n in 0..100 {
            let text = format!("Permissions Violation for Publish to \"a.{n}\"");
            assert!(matches!(refusals.take(&text), Refusal::New(_)));
        }
        assert_eq!(refusals.0.len(), KEPT);
    }
}
