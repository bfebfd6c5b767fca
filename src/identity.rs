//! Who somebody is: what a verified token, or the endpoint that was asked, says of him. Judging tokens is
//! somebody else's; here nothing is unverified.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Map, Value as Json};

/// Somebody, as verified claims describe him. Cloning shares them; who is anonymous costs nothing.
#[derive(Clone, PartialEq)]
pub struct Identity(Option<Arc<Who>>);

#[derive(Clone, PartialEq)]
struct Who {
    claims: Map<String, Json>,
    subject: Option<String>,
    token_id: Option<String>,
    until: Option<SystemTime>,
    issued: Option<SystemTime>,
}

impl Identity {
    /// Nobody in particular: no claims, for as long as he likes.
    pub fn anonymous() -> Self {
        Self(None)
    }

    /// Whom these claims describe; they hold until that time.
    pub fn new(claims: Map<String, Json>, until: Option<SystemTime>) -> Self {
        Self(Some(Arc::new(Who {
            subject: claims.get("sub").and_then(text),
            token_id: claims.get("jti").and_then(text),
            claims,
            until,
            issued: None,
        })))
    }

    /// The same, said of him at that time at the earliest.
    pub fn issued_at(self, issued: SystemTime) -> Self {
        Self(self.0.map(|who| {
            Arc::new(Who {
                issued: Some(issued),
                ..Arc::unwrap_or_clone(who)
            })
        }))
    }

    /// Whether nothing is known of him.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_none()
    }

    /// The verified claim of that name.
    pub fn claim(&self, name: &str) -> Option<&Json> {
        self.0.as_ref()?.claims.get(name)
    }

    /// `sub`: who it is. An integer counts as its text.
    pub fn subject(&self) -> Option<&str> {
        self.0.as_ref()?.subject.as_deref()
    }

    /// `jti`: which token said so. An integer counts as its text.
    pub fn token_id(&self) -> Option<&str> {
        self.0.as_ref()?.token_id.as_deref()
    }

    /// When this is over; never for who has no such time.
    pub fn until(&self) -> Option<SystemTime> {
        self.0.as_ref()?.until
    }

    /// The earliest time at which it can have been said, where that is known.
    pub fn issued(&self) -> Option<SystemTime> {
        self.0.as_ref()?.issued
    }
}

fn text(claim: &Json) -> Option<String> {
    match claim {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
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
        let claims = serde_json::json!({ "sub": "ann", "jti": 17, "ward": "secret-7" });
        let Json::Object(claims) = claims else {
            unreachable!()
        };
        let identity = Identity::new(claims, None);
        assert_eq!(identity.subject(), Some("ann"));
        assert_eq!(identity.token_id(), Some("17"));
        assert_eq!(identity.claim("ward"), Some(&Json::from("secret-7")));
        assert!(!format!("{identity:?}").contains("secret-7"));
        assert_eq!(Identity::anonymous().subject(), None);
        assert!(Identity::anonymous().is_anonymous() && !identity.is_anonymous());
        let later = identity.clone().issued_at(SystemTime::UNIX_EPOCH);
        assert_eq!(later.issued(), Some(SystemTime::UNIX_EPOCH));
        assert!(later.subject() == Some("ann") && identity.issued().is_none());
    }
}
