//! Tokens that stand in the configuration, for who has no issuer: kept as their hashes only.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Refused, claims};
use crate::identity::Identity;

/// A token's hash, and what it stands for.
#[derive(Clone, PartialEq)]
pub struct FixedToken {
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// The claims.
    pub claims: Map<String, Json>,
}

impl FixedToken {
    /// Whether a token can stand for these claims: else nobody would be let in with it.
    pub fn can_stand_for(claims: &Map<String, Json>) -> bool {
        let judged = claims::trusted(claims.clone(), Duration::ZERO, SystemTime::now());
        !matches!(judged, Err(Refused::Invalid(_)))
    }
}

/// All of them.
#[derive(Debug)]
pub struct Fixed(Vec<FixedToken>);

impl Fixed {
    /// These tokens.
    pub fn new(tokens: Vec<FixedToken>) -> Self {
        Self(tokens)
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom a token stands for; `None` where it is none of them. How long that takes tells nothing of
    /// which ones there are.
    pub fn judge(&self, token: &str, leeway: Duration) -> Option<Result<Identity, Refused>> {
        if self.0.is_empty() {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        // All of them, whichever it is.
        for one in &self.0 {
            if bool::from(one.sha256.ct_eq(&hash)) {
                found = Some(one);
            }
        }
        let now = SystemTime::now();
        found.map(|one| claims::trusted(one.claims.clone(), leeway, now))
    }
}

impl fmt::Debug for FixedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FixedToken")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let token = |text: &str, sub: &str| FixedToken {
            sha256: Sha256::digest(text).into(),
            claims: Map::from_iter([("sub".to_owned(), json!(sub))]),
        };
        let fixed = Fixed::new(vec![token("one", "ann"), token("two", "bob")]);
        let judged = |text: &str| {
            let identity = fixed.judge(text, Duration::ZERO)?.unwrap();
            Some(identity.subject().unwrap().to_owned())
        };
        assert_eq!(judged("one").as_deref(), Some("ann"));
        assert_eq!(judged("two").as_deref(), Some("bob"));
        assert_eq!(judged("three"), None);
        assert_eq!(judged(""), None);
        assert!(Fixed::new(Vec::new()).is_empty());
    }
}
