//! Who is let in, for as long as nobody revokes it: each session that is somebody's can be told that it is
//! over, by whom it is or by which token.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use super::revoked::Revocation;
use crate::identity::Identity;

/// All who are let in. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Grants(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    of_subject: HashMap<Arc<str>, HashMap<u64, Held>>,
    of_token: HashMap<Arc<str>, HashMap<u64, Held>>,
}

#[derive(Debug, Clone)]
struct Held {
    identity: Identity,
    over: CancellationToken,
}

/// What one session was granted; given back when it is dropped.
#[derive(Debug)]
pub struct Grant {
    grants: Grants,
    number: u64,
    held: Held,
}

impl Grants {
    /// Notes that somebody is let in; none for who has no name that could be revoked.
    pub fn give(&self, identity: &Identity) -> Option<Grant> {
        if identity.subject().is_none() && identity.token_id().is_none() {
            return None;
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let held = Held {
            identity: identity.clone(),
            over: CancellationToken::new(),
        };
        let mut present = self.lock();
        for (list, name) in present.lists(identity) {
            list.entry(name.into())
                .or_default()
                .insert(number, held.clone());
        }
        drop(present);
        Some(Grant {
            grants: self.clone(),
            number,
            held,
        })
    }

    /// Ends all that a revocation concerns and `is_over` says so of; returns how many.
    pub fn end(&self, revocation: &Revocation, is_over: impl Fn(&Identity) -> bool) -> usize {
        let present = self.lock();
        let of = match (revocation.subject(), revocation.token_id()) {
            (Some(subject), _) => present.of_subject.get(subject),
            (None, Some(id)) => present.of_token.get(id),
            (None, None) => None,
        };
        let all = of.into_iter().flat_map(HashMap::values);
        let over: Vec<Held> = all
            .filter(|held| is_over(&held.identity))
            .cloned()
            .collect();
        drop(present);
        over.iter().for_each(|held| held.over.cancel());
        over.len()
    }

    fn lock(&self) -> MutexGuard<'_, Present> {
        // Nothing in here panics half way through a change.
        self.0
            .present
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// The lists that somebody is in, and under which name.
    fn lists<'a>(
        &'a mut self,
        identity: &'a Identity,
    ) -> impl Iterator<Item = (&'a mut HashMap<Arc<str>, HashMap<u64, Held>>, &'a str)> {
        let subject = identity.subject().map(|name| (&mut self.of_subject, name));
        let token = identity.token_id().map(|name| (&mut self.of_token, name));
        subject.into_iter().chain(token)
    }
}

impl Grant {
    /// Told when it is over.
    pub fn over(&self) -> &CancellationToken {
        &self.held.over
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut present = self.grants.lock();
        for (list, name) in present.lists(&self.held.identity) {
            // Who has gone leaves nothing behind, or names would fill the memory.
            if let Some(of_name) = list.get_mut(name) {
                of_name.remove(&self.number);
                if of_name.is_empty() {
                    list.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_revoked_is_told_and_nobody_else_and_who_has_gone_leaves_nothing_behind() {
        let grants = Grants::default();
        let identity = |sub: &str, jti: &str| {
            let claims = json!({ "sub": sub, "jti": jti });
            Identity::new(claims.as_object().unwrap().clone(), None)
        };
        let give = |sub, jti| grants.give(&identity(sub, jti)).unwrap();
        let (one, two, bob) = (give("ann", "1"), give("ann", "2"), give("bob", "3"));
        let revoke = |body: serde_json::Value| {
            let revocation = Revocation::read(body.as_object().unwrap()).unwrap();
            grants.end(&revocation, |_| true)
        };
        assert_eq!(revoke(json!({ "jti": "2" })), 1);
        assert!(two.over().is_cancelled() && !one.over().is_cancelled());
        assert_eq!(revoke(json!({ "sub": "ann" })), 2);
        assert!(one.over().is_cancelled() && !bob.over().is_cancelled());
        drop((one, two, bob));
        let present = grants.lock();
        assert!(present.of_subject.is_empty() && present.of_token.is_empty());
        assert!(Grants::default().give(&Identity::anonymous()).is_none());
    }
}
