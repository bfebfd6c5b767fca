//! What a signed token must claim: until when it holds, for whom it is, and by whom. A claim of another
//! kind than the RFC says is a wrong one, never an absent one (RFC 7519 §4.1).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value as Json};

use super::{Refused, revoked};
use crate::identity::Identity;

/// The end of the year 9999, in Unix seconds: beyond it a time is a mistake.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// What is asked of a token's claims.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `iss` must be this.
    pub issuer: Option<String>,
    /// `aud` must name one of these; where there are none, nobody.
    pub audience: Vec<String>,
    /// How far the clocks of issuer and gateway may be apart.
    pub leeway: Duration,
}

impl Rules {
    /// Whom the claims of a token describe whose signature is right.
    ///
    /// # Errors
    /// [`Refused`] with what is wrong with them.
    pub fn judge(&self, claims: Map<String, Json>, now: SystemTime) -> Result<Identity, Refused> {
        let wrong = Refused::Invalid("claims");
        are_names(&claims).map_err(|()| wrong)?;
        let exp = time(&claims, "exp").map_err(|()| wrong)?.ok_or(wrong)?;
        let nbf = time(&claims, "nbf").map_err(|()| wrong)?;
        let iat = time(&claims, "iat").map_err(|()| wrong)?;
        let until = exp + self.leeway;
        if until <= now {
            return Err(Refused::Expired);
        }
        // What was issued in time to come would outlive every revocation of its subject.
        let latest = now + self.leeway;
        if [nbf, iat].into_iter().flatten().any(|time| time > latest) {
            return Err(Refused::Invalid("early"));
        }
        if !self.is_of_issuer(&claims) {
            return Err(Refused::Invalid("issuer"));
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(Refused::Invalid("audience"));
        }
        let identity = Identity::new(claims, Some(until));
        Ok(match iat {
            // The issuer's clock may be fast: earlier than this it was not.
            Some(iat) => identity.issued_at(iat - self.leeway.min(since_epoch(iat))),
            None => identity,
        })
    }

    /// Whether claims say that they are the issuer's; all are where none is configured.
    pub fn is_of_issuer(&self, claims: &Map<String, Json>) -> bool {
        let iss = claims.get("iss").and_then(Json::as_str);
        self.issuer.is_none() || iss == self.issuer.as_deref()
    }

    /// A token that names an audience is for nobody else.
    fn is_for_us(&self, aud: Option<&Json>) -> bool {
        let named = |name: &Json| {
            let name = name.as_str();
            name.is_some_and(|name| self.audience.iter().any(|ours| ours == name))
        };
        match aud {
            None => self.audience.is_empty(),
            Some(Json::Array(names)) => names.iter().any(named),
            Some(name) => named(name),
        }
    }
}

/// Whom claims describe that somebody stands for who is trusted: `exp` may be missing.
///
/// # Errors
/// [`Refused::Expired`], or `claims` where the `exp` is no time, or `sub` or `jti` no name.
pub fn trusted(
    claims: Map<String, Json>,
    leeway: Duration,
    now: SystemTime,
) -> Result<Identity, Refused> {
    let wrong = Refused::Invalid("claims");
    are_names(&claims).map_err(|()| wrong)?;
    let exp = time(&claims, "exp").map_err(|()| wrong)?;
    let until = exp.map(|exp| exp + leeway);
    match until {
        Some(until) if until <= now => Err(Refused::Expired),
        until => Ok(Identity::new(claims, until)),
    }
}

/// Whether `sub` and `jti`, where they are there, can be counted by and revoked: who had one of another kind would be
/// somebody whom nothing can end.
fn are_names(claims: &Map<String, Json>) -> Result<(), ()> {
    let mut names = ["sub", "jti"]
        .into_iter()
        .filter_map(|name| claims.get(name));
    match names.all(|claim| revoked::name(claim).is_some()) {
        true => Ok(()),
        false => Err(()),
    }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A claim that is a time, if it is there: a number of seconds.
pub(super) fn time(claims: &Map<String, Json>, name: &str) -> Result<Option<SystemTime>, ()> {
    let Some(claim) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = claim.as_f64().filter(|at| (0.0..=LAST_SECOND).contains(at));
    let seconds = seconds.ok_or(())?;
    Ok(Some(UNIX_EPOCH + Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::revoked::{Revocation, Revoked},
        *,
    };
    use crate::metrics::Metrics;

    const NOW: u64 = 1_790_000_000;

    fn rules() -> Rules {
        Rules {
            issuer: Some("https://issuer.example".into()),
            audience: vec!["rowcast".into(), "care".into()],
            leeway: Duration::from_secs(30),
        }
    }

    /// Good claims with these changed; null takes one away.
    fn judged(rules: &Rules, changes: Json) -> Result<Identity, Refused> {
        let mut claims = json!({
            "sub": "ann", "exp": NOW + 60, "iss": "https://issuer.example", "aud": "rowcast",
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Json::String(absent) if absent == "-" => {
                    drop(claims.as_object_mut().unwrap().remove(name))
                }
                value => claims[name] = value.clone(),
            }
        }
        let Json::Object(claims) = claims else {
            unreachable!()
        };
        rules.judge(claims, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn good_claims_are_an_identity_until_their_end() {
        for changes in [
            json!({}),
            json!({ "exp": NOW - 29 }),
            json!({ "exp": (NOW as f64) + 0.5 }),
            json!({ "nbf": NOW + 29 }),
            json!({ "aud": ["other", "care"] }),
            json!({ "iat": 0 }),
            json!({ "sub": "-" }),
            json!({ "sub": 17, "jti": "a".repeat(512) }),
            json!({ "iat": NOW + 29 }),
        ] {
            assert!(judged(&rules(), changes.clone()).is_ok(), "{changes}");
        }
        let identity = judged(&rules(), json!({ "iat": NOW })).unwrap();
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(identity.until(), at(NOW + 90));
        assert_eq!(identity.issued(), at(NOW - 30));
    }

    #[test]
    fn what_was_issued_within_the_leeway_after_a_revocation_stays_refused() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let keep = Duration::from_secs(1 << 30);
        let revoked = Revoked::new(keep, rules().leeway, Metrics::default());
        let body = json!({ "sub": "ann" });
        let ann = Revocation::read(body.as_object().unwrap()).unwrap();
        revoked.add(&ann, at(NOW));
        for (iat, refused) in [
            (NOW - 60, true),
            (NOW + 1, true),
            (NOW + 30, true),
            (NOW + 31, false),
        ] {
            let claims = json!({ "sub": "ann", "iat": iat, "exp": NOW + 3600 });
            for later in [60, 3000] {
                let claims = claims.as_object().unwrap().clone();
                let rules = Rules {
                    leeway: rules().leeway,
                    ..Rules::default()
                };
                let identity = rules.judge(claims, at(NOW + later)).unwrap();
                assert_eq!(revoked.covers(&identity), refused, "{iat}");
            }
        }
    }

    #[test]
    fn claims_of_the_wrong_kind_are_wrong_and_not_absent() {
        let wrong = Refused::Invalid("claims");
        for (changes, refused) in [
            (json!({ "exp": "-" }), wrong),
            (json!({ "exp": null }), wrong),
            (json!({ "exp": (NOW + 60).to_string() }), wrong),
            (json!({ "exp": [NOW + 60] }), wrong),
            (json!({ "exp": true }), wrong),
            (json!({ "exp": -1 }), wrong),
            (json!({ "exp": 1e300 }), wrong),
            (json!({ "exp": u64::MAX }), wrong),
            (json!({ "exp": NOW - 30 }), Refused::Expired),
            (json!({ "exp": 0 }), Refused::Expired),
            (json!({ "nbf": NOW + 31 }), Refused::Invalid("early")),
            (json!({ "iat": NOW + 31 }), Refused::Invalid("early")),
            (json!({ "nbf": "soon" }), wrong),
            (json!({ "nbf": null }), wrong),
            (json!({ "iat": "now" }), wrong),
            // Nobody could revoke them.
            (json!({ "sub": null }), wrong),
            (json!({ "sub": "" }), wrong),
            (json!({ "sub": ["ann"] }), wrong),
            (json!({ "sub": 1.5 }), wrong),
            (json!({ "sub": "a".repeat(513) }), wrong),
            (json!({ "jti": true }), wrong),
            (json!({ "jti": { "id": 1 } }), wrong),
            (json!({ "iss": "-" }), Refused::Invalid("issuer")),
            (
                json!({ "iss": "https://evil.example" }),
                Refused::Invalid("issuer"),
            ),
            (
                json!({ "iss": ["https://issuer.example"] }),
                Refused::Invalid("issuer"),
            ),
            (json!({ "aud": "-" }), Refused::Invalid("audience")),
            (json!({ "aud": "other" }), Refused::Invalid("audience")),
            (json!({ "aud": [] }), Refused::Invalid("audience")),
            (
                json!({ "aud": [["rowcast"]] }),
                Refused::Invalid("audience"),
            ),
            (
                json!({ "aud": { "rowcast": 1 } }),
                Refused::Invalid("audience"),
            ),
        ] {
            assert_eq!(judged(&rules(), changes.clone()), Err(refused), "{changes}");
        }
    }

    #[test]
    fn a_token_for_somebody_is_not_for_who_has_no_name() {
        let nameless = Rules::default();
        assert_eq!(
            judged(&nameless, json!({})),
            Err(Refused::Invalid("audience"))
        );
        assert!(judged(&nameless, json!({ "aud": "-", "iss": "anybody" })).is_ok());
    }
}
