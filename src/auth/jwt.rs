//! Signed tokens (RFC 7519). The header is read to choose a key, and is not believed: the key says which
//! algorithm is right.

use std::time::SystemTime;

use serde_json::{Map, Value as Json};

use super::{
    Refused,
    algorithm::Algorithm,
    claims::Rules,
    jwks::{Found, Jwks},
    key::{Key, Tried},
};
use crate::{identity::Identity, row::unbase64};

/// What tokens are judged by.
#[derive(Debug)]
pub struct Jwt {
    /// Keys of the configuration.
    pub keys: Vec<Key>,
    /// The issuer's.
    pub jwks: Option<Jwks>,
    /// The algorithms that are allowed.
    pub algorithms: Vec<Algorithm>,
    /// What tokens must claim.
    pub rules: Rules,
}

/// What a token comes to.
pub enum Judged {
    /// An identity, or a refusal.
    Done(Result<Identity, Refused>),
    /// The issuer may have a new key, by which it would have to be judged.
    KeyUnknown,
}

impl Jwt {
    /// Whether there is any key, or will be.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || self.jwks.is_some()
    }

    /// Judges a token with the keys that are known.
    pub fn judge(&self, token: &str) -> Judged {
        let refuse = |why| Judged::Done(Err(Refused::Invalid(why)));
        // Also what names no algorithm that the library knows, such as `none`.
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return refuse("malformed");
        };
        // What must be understood, and is not (RFC 7515 §4.1.11); also a payload in another form (RFC 7797).
        if header.crit.is_some() || header.extras.inner().contains_key("b64") {
            return refuse("critical");
        }
        let algorithm = Algorithm::of(header.alg);
        let Some(algorithm) = algorithm.filter(|one| self.algorithms.contains(one)) else {
            return refuse("algorithm");
        };
        let own = self.keys.iter().filter(|key| key.algorithm() == algorithm);
        let mut keys: Vec<Key> = own.cloned().collect();
        let mut may_be_new = false;
        if let Some(jwks) = self.jwks.as_ref().filter(|_| algorithm.is_public()) {
            let Some(claims) = unverified(token) else {
                return refuse("malformed");
            };
            // Who names another issuer needs no proof of it to be refused: his keys are not tried on that, and he is
            // not asked for one.
            if !self.rules.is_of_issuer(&claims) {
                return refuse("issuer");
            }
            match jwks.find(header.kid.as_deref(), algorithm) {
                Found::Key(key) => keys.push(key),
                Found::Unknown => may_be_new = true,
                Found::None => {}
            }
        }
        for key in &keys {
            match key.try_on(token) {
                Tried::Signed(claims) => {
                    return Judged::Done(self.rules.judge(claims, SystemTime::now()));
                }
                Tried::Malformed => return refuse("malformed"),
                Tried::Other => {}
            }
        }
        let unlearned = |jwks: &Jwks| algorithm.is_public() && !jwks.has_learned();
        match may_be_new {
            true => Judged::KeyUnknown,
            // It may well be one of the issuer's.
            false if self.jwks.as_ref().is_some_and(unlearned) => {
                Judged::Done(Err(Refused::Unavailable))
            }
            false if keys.is_empty() => refuse("key"),
            false => refuse("signature"),
        }
    }
}

/// What a token says before anybody knows who says it: to be refused by, and for nothing else.
fn unverified(token: &str) -> Option<Map<String, Json>> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&unbase64(payload)?).ok()
}

/// Whether a text has the form of a signed token, so that it is nothing else.
pub fn is_jwt(token: &str) -> bool {
    let mut parts = token.split('.');
    let first = parts.next().unwrap_or_default();
    // A header is a JSON object: `{"` in base64.
    first.starts_with("ey") && parts.count() == 2
}
