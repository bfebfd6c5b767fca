//! What was revoked: by subject, which ends everything that was said of somebody until then, or by token
//! id. In memory, for as long as a token may live, and never more than so many. To take the same one in
//! again changes nothing.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value as Json, json};

use super::claims;
use crate::{identity::Identity, metrics::Metrics};

/// Revocations kept at the most: some 20 MB. Who revokes more has those forgotten that end first.
const MAX_KEPT: usize = 100_000;

/// Bytes of a subject, or of a token's id.
const MAX_NAME_BYTES: usize = 512;

/// One revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    whom: Whom,
    /// Until when it is kept, where whoever revokes knows how long the tokens live.
    until: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    Subject(String),
    TokenId(String),
}

/// What is revoked now.
#[derive(Debug)]
pub struct Revoked {
    lists: RwLock<Lists>,
    keep: Duration,
    leeway: Duration,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Lists {
    subjects: HashMap<String, Entry>,
    token_ids: HashMap<String, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: SystemTime,
    until: SystemTime,
}

impl Revocation {
    /// Reads `{"sub":…}` or `{"jti":…}`, with or without an `until` in Unix seconds.
    ///
    /// # Errors
    /// What is needed instead.
    pub fn read(body: &Map<String, Json>) -> Result<Self, &'static str> {
        let named = |claim: &str| name(body.get(claim)?);
        let whom = match (named("sub"), named("jti")) {
            (Some(subject), None) if !body.contains_key("jti") => Whom::Subject(subject),
            (None, Some(id)) if !body.contains_key("sub") => Whom::TokenId(id),
            _ => return Err("sub, jti: one of them, at most 512 bytes"),
        };
        let until = claims::time(body, "until").map_err(|()| "until: Unix seconds")?;
        Ok(Self { whom, until })
    }

    /// What [`Self::read`] reads.
    pub fn to_json(&self) -> Json {
        let mut body = match &self.whom {
            Whom::Subject(subject) => json!({ "sub": subject }),
            Whom::TokenId(id) => json!({ "jti": id }),
        };
        let since = |until: SystemTime| until.duration_since(SystemTime::UNIX_EPOCH).ok();
        if let Some(until) = self.until.and_then(since) {
            // Rather a second longer than one shorter.
            let whole = until.as_secs() + u64::from(until.subsec_nanos() > 0);
            body["until"] = whole.into();
        }
        body
    }

    /// The subject, or none where it is a token's.
    pub(super) fn subject(&self) -> Option<&str> {
        match &self.whom {
            Whom::Subject(subject) => Some(subject),
            Whom::TokenId(_) => None,
        }
    }

    /// The token's id, or none where it is a subject's.
    pub(super) fn token_id(&self) -> Option<&str> {
        match &self.whom {
            Whom::TokenId(id) => Some(id),
            Whom::Subject(_) => None,
        }
    }
}

/// By what somebody, or a token, can be revoked: a text of 1 to 512 bytes, or an integer, which counts as its text.
pub fn name(claim: &Json) -> Option<String> {
    match claim {
        Json::String(text) if (1..=MAX_NAME_BYTES).contains(&text.len()) => Some(text.clone()),
        Json::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

impl Revoked {
    /// Nothing yet; each revocation is kept for so long, or where it says until when, until then and as much
    /// longer as tokens hold.
    pub fn new(keep: Duration, leeway: Duration, metrics: Metrics) -> Self {
        Self {
            lists: RwLock::default(),
            keep,
            leeway,
            metrics,
        }
    }

    /// Until when one is kept that was said `at` that time.
    pub fn until(&self, revocation: &Revocation, at: SystemTime) -> SystemTime {
        match revocation.until {
            Some(until) => until + self.leeway,
            None => at + self.keep,
        }
    }

    /// Whether no token holds any more that one could concern which was said `at` that time.
    pub fn is_over(&self, revocation: &Revocation, at: SystemTime) -> bool {
        self.until(revocation, at) <= SystemTime::now()
    }

    /// Takes one in that was said `at` that time.
    pub fn add(&self, revocation: &Revocation, at: SystemTime) {
        let entry = Entry {
            at,
            until: self.until(revocation, at),
        };
        let mut lists = self.lists.write().unwrap_or_else(PoisonError::into_inner);
        // Who is there needs no room: all of them come again when what is kept is read again.
        if lists.len() >= MAX_KEPT && !lists.has(&revocation.whom) {
            let now = SystemTime::now();
            lists.retain(|entry| entry.until > now);
            if lists.len() >= MAX_KEPT {
                lists.forget_first();
                self.metrics.auth.forgot_revocation();
            }
        }
        let (list, name) = match &revocation.whom {
            Whom::Subject(subject) => (&mut lists.subjects, subject),
            Whom::TokenId(id) => (&mut lists.token_ids, id),
        };
        // Earlier ones may come later, when what is kept is read again.
        let before = list.get(name).copied().unwrap_or(entry);
        let entry = Entry {
            at: entry.at.max(before.at),
            until: entry.until.max(before.until),
        };
        list.insert(name.clone(), entry);
    }

    /// Whether what is known of somebody was revoked.
    pub fn covers(&self, identity: &Identity) -> bool {
        if identity.is_anonymous() {
            return false;
        }
        let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let of = |list: &HashMap<String, Entry>, name: Option<&str>| {
            let entry = list.get(name?).copied()?;
            (entry.until > now).then_some(entry)
        };
        if of(&lists.token_ids, identity.token_id()).is_some() {
            return true;
        }
        let subject = of(&lists.subjects, identity.subject());
        // Who was given a new token since has come back.
        subject.is_some_and(|entry| identity.issued().is_none_or(|at| at <= entry.at))
    }
}

impl Lists {
    fn len(&self) -> usize {
        self.subjects.len() + self.token_ids.len()
    }

    fn has(&self, whom: &Whom) -> bool {
        match whom {
            Whom::Subject(subject) => self.subjects.contains_key(subject),
            Whom::TokenId(id) => self.token_ids.contains_key(id),
        }
    }

    fn retain(&mut self, stays: impl Fn(&Entry) -> bool) {
        self.subjects.retain(|_, entry| stays(entry));
        self.token_ids.retain(|_, entry| stays(entry));
    }

    /// Forgets those that end first.
    fn forget_first(&mut self) {
        let all = self.subjects.values().chain(self.token_ids.values());
        let first = all.map(|entry| entry.until).min();
        self.retain(|entry| Some(entry.until) != first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(body: Json) -> Result<Revocation, &'static str> {
        Revocation::read(body.as_object().unwrap())
    }

    fn identity(claims: Json) -> Identity {
        Identity::new(claims.as_object().unwrap().clone(), None)
    }

    /// Takes one in now.
    fn add(revoked: &Revoked, body: Json) {
        revoked.add(&revocation(body).unwrap(), SystemTime::now());
    }

    fn revoked() -> Revoked {
        Revoked::new(Duration::from_secs(60), Duration::ZERO, Metrics::default())
    }

    #[test]
    fn one_is_of_a_subject_or_of_a_token() {
        for body in [
            json!({ "sub": "ann" }),
            json!({ "jti": "t1", "until": 1_790_000_000 }),
            json!({ "sub": "17" }),
        ] {
            assert_eq!(revocation(body.clone()).unwrap().to_json(), body);
        }
        assert_eq!(
            revocation(json!({ "sub": 17 })).unwrap().to_json(),
            json!({ "sub": "17" })
        );
        for body in [
            json!({}),
            json!({ "sub": "" }),
            json!({ "sub": null }),
            json!({ "sub": ["ann"] }),
            json!({ "sub": "ann", "jti": "t1" }),
            json!({ "sub": "ann", "jti": null }),
            json!({ "sub": "a".repeat(513) }),
            json!({ "sub": "ann", "until": "tomorrow" }),
        ] {
            assert!(revocation(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_subject_is_over_until_he_is_given_something_new() {
        let revoked = revoked();
        let ann = identity(json!({ "sub": "ann", "jti": "t1" }));
        assert!(!revoked.covers(&ann));
        add(&revoked, json!({ "sub": "ann" }));
        assert!(revoked.covers(&ann));
        assert!(revoked.covers(&ann.clone().issued_at(SystemTime::UNIX_EPOCH)));
        let later = SystemTime::now() + Duration::from_secs(1);
        assert!(!revoked.covers(&ann.issued_at(later)));
        assert!(!revoked.covers(&identity(json!({ "sub": "bob" }))));
        assert!(!revoked.covers(&Identity::anonymous()));
    }

    #[test]
    fn to_read_one_again_ends_nothing_that_was_said_since() {
        let revoked = revoked();
        let now = SystemTime::now();
        let before = |seconds| now - Duration::from_secs(seconds);
        let ann = |issued| identity(json!({ "sub": "ann" })).issued_at(issued);
        let one = revocation(json!({ "sub": "ann" })).unwrap();
        for _ in 0..2 {
            revoked.add(&one, before(20));
            assert!(revoked.covers(&ann(before(20))) && !revoked.covers(&ann(before(19))));
        }
        // A second one, and then both again from the beginning.
        for at in [10, 20, 10] {
            revoked.add(&one, before(at));
            assert!(revoked.covers(&ann(before(10))) && !revoked.covers(&ann(before(9))));
        }
        // What was said so long ago that no token is left of then.
        let other = revocation(json!({ "sub": "bob" })).unwrap();
        revoked.add(&other, before(61));
        assert!(!revoked.covers(&identity(json!({ "sub": "bob" }))));
    }

    #[test]
    fn it_is_kept_as_long_as_a_token_holds_that_ends_then() {
        let leeway = Duration::from_secs(30);
        let revoked = Revoked::new(Duration::from_secs(60), leeway, Metrics::default());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let until = |until: u64| revocation(json!({ "jti": "t1", "until": until })).unwrap();
        let at = SystemTime::now();
        assert!(revoked.is_over(&until(now - 31), at) && !revoked.is_over(&until(now - 20), at));
        let open = revocation(json!({ "jti": "t1" })).unwrap();
        assert!(!revoked.is_over(&open, at));
        assert!(revoked.is_over(&open, at - Duration::from_secs(60)));
        revoked.add(&until(now - 20), SystemTime::now());
        assert!(revoked.covers(&identity(json!({ "sub": "ann", "jti": "t1" }))));
        let half = revocation(json!({ "jti": "t1", "until": 7.25 })).unwrap();
        assert_eq!(half.to_json()["until"], 8);
    }

    #[test]
    fn a_token_is_over_and_its_subject_is_not() {
        let revoked = revoked();
        add(&revoked, json!({ "jti": "t1" }));
        let later = SystemTime::now() + Duration::from_secs(1);
        let of = |id: &str| identity(json!({ "sub": "ann", "jti": id })).issued_at(later);
        assert!(revoked.covers(&of("t1")) && !revoked.covers(&of("t2")));
    }

    #[test]
    fn memory_has_a_bound_and_what_is_forgotten_is_counted() {
        let metrics = Metrics::default();
        let revoked = Revoked::new(Duration::from_secs(3600), Duration::ZERO, metrics.clone());
        // Over as soon as it is there, so that it makes room by itself.
        for id in 0..MAX_KEPT {
            add(&revoked, json!({ "jti": id, "until": 1 }));
        }
        add(&revoked, json!({ "sub": "ann" }));
        assert_eq!(revoked.lists.read().unwrap().len(), 1);
        for id in 1..MAX_KEPT {
            let until = 4_000_000_000_u64 + id as u64;
            add(&revoked, json!({ "jti": id, "until": until }));
        }
        add(&revoked, json!({ "sub": "bob" }));
        // When all of them are read again nobody must go for one that is there.
        for id in 1..MAX_KEPT {
            add(&revoked, json!({ "jti": id }));
        }
        assert_eq!(revoked.lists.read().unwrap().len(), MAX_KEPT);
        let text = metrics.to_text();
        assert!(text.contains("rowcast_revocations_forgotten_total 1"));
    }
}
