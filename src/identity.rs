//! Who somebody is: what a verified token, or the endpoint that was asked, says of him. Judging tokens is
//! somebody else's; here nothing is unverified.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Map, Value as Json};

/// Somebody, as verified claims describe him. Cloning shares them.
#[derive(Clone, PartialEq)]
pub struct Identity(Arc<Who>);

#[derive(PartialEq)]
struct Who {
    claims: Map<String, Json>,
    until: Option<SystemTime>,
}

impl Identity {
    /// Nobody in particular: no claims, for as long as he likes.
    pub fn anonymous() -> Self {
        Self::new(Map::new(), None)
    }

    /// Whom these claims describe; they hold until that time.
    pub fn new(claims: Map<String, Json>, until: Option<SystemTime>) -> Self {
        Self(Arc::new(Who { claims, until }))
    }

    /// The verified claim of that name.
    pub fn claim(&self, name: &str) -> Option<&Json> {
        self.0.claims.get(name)
    }

    /// `sub`: who it is.
    pub fn subject(&self) -> Option<&str> {
        self.claim("sub")?.as_str()
    }

    /// `jti`: which token said so.
    pub fn token_id(&self) -> Option<&str> {
        self.claim("jti")?.as_str()
    }

    /// When this is over; never for who has no such time.
    pub fn until(&self) -> Option<SystemTime> {
        self.0.until
    }
}

/// Claims are personal: only who it is, and until when, is shown.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("subject", &self.subject())
            .field("until", &self.until())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_by_name_and_never_by_debug() {
        let claims = serde_json::json!({ "sub": "ann", "jti": "t1", "ward": "secret-7" });
        let Json::Object(claims) = claims else {
            unreachable!()
        };
        let identity = Identity::new(claims, None);
        assert_eq!(identity.subject(), Some("ann"));
        assert_eq!(identity.token_id(), Some("t1"));
        assert_eq!(identity.claim("ward"), Some(&Json::from("secret-7")));
        assert!(!format!("{identity:?}").contains("secret-7"));
        assert_eq!(Identity::anonymous().subject(), None);
    }
}
