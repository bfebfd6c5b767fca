//! How many connections each identity has: one person with many windows is welcome, one account that
//! takes the room of all is not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Full;
use crate::metrics::Metrics;

/// The connections of all identities, by subject. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Identities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    metrics: Metrics,
    present: Mutex<HashMap<Arc<str>, usize>>,
}

/// One connection of an identity, until dropped.
#[derive(Debug)]
pub struct Share {
    identities: Arc<Inner>,
    subject: Arc<str>,
}

impl Identities {
    /// Nobody yet; each may have so many connections.
    pub fn new(most: usize, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            most,
            metrics,
            present: Mutex::default(),
        }))
    }

    /// Counts a connection of that subject, which was verified before.
    ///
    /// # Errors
    /// [`Full::OfOne`], which is counted: close the connection with 1013.
    pub fn admit(&self, subject: &str) -> Result<Share, Full> {
        let inner = &self.0;
        let mut present = inner.guard();
        let known = present.get_key_value(subject);
        let (subject, there) = known.map_or_else(
            || (subject.into(), 0),
            |(known, there)| (known.clone(), *there),
        );
        if there >= inner.most {
            inner.metrics.limited("identity");
            return Err(Full::OfOne);
        }
        present.insert(subject.clone(), there + 1);
        Ok(Share {
            identities: inner.clone(),
            subject,
        })
    }
}

impl Inner {
    fn guard(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut present = self.identities.guard();
        if let Some(there) = present.get_mut(&self.subject) {
            *there -= 1;
            // Who has gone leaves nothing behind, or subjects would fill the memory.
            if *there == 0 {
                present.remove(&self.subject);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_its_share_and_gives_it_back() {
        let identities = Identities::new(2, Metrics::default());
        let first = identities.admit("anna").unwrap();
        let _second = identities.admit("anna").unwrap();
        assert_eq!(identities.admit("anna").err(), Some(Full::OfOne));
        let _other = identities.admit("bert").unwrap();
        drop(first);
        let _third = identities.admit("anna").unwrap();
        assert_eq!(identities.admit("anna").err(), Some(Full::OfOne));
        let text = identities.0.metrics.to_text();
        assert!(text.contains("rowcast_limited_total{kind=\"identity\"} 2"));
    }

    #[test]
    fn who_has_gone_leaves_nothing_behind() {
        let identities = Identities::new(1, Metrics::default());
        for person in 0..100 {
            drop(identities.admit(&person.to_string()).unwrap());
        }
        assert!(identities.0.guard().is_empty());
    }
}
