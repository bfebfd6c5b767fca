//! `[auth]`: who may connect, and by what that is judged.

use std::{fmt, fs, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value as Json};

use super::{
    Config, ConfigError, Origin,
    values::{maybe_path, maybe_text, millis},
};
use crate::auth::{Algorithm, FixedToken, HttpUrl, Key, Rules, Settings};

/// The most bytes of a file with a key.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// `[auth]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Admit who brings no token. Default false: who opens a database to the network must have written
    /// that down.
    pub anonymous: bool,
    /// A secret for HS256, or a public key in the PEM form. Default none.
    #[serde(deserialize_with = "maybe_secret")]
    pub key: Option<Secret>,
    /// The file in which that stands. Default none.
    #[serde(deserialize_with = "maybe_path")]
    pub key_file: Option<PathBuf>,
    /// Where the issuer publishes his keys. Default none.
    #[serde(deserialize_with = "maybe_url")]
    pub jwks_url: Option<HttpUrl>,
    /// The algorithms that are allowed. Default those that there are keys for.
    pub algorithms: Vec<Algorithm>,
    /// Who must have issued a token. Default anybody who has the key.
    #[serde(deserialize_with = "maybe_text")]
    pub issuer: Option<String>,
    /// For whom tokens may be. Default only those that do not say.
    pub audience: Vec<String>,
    /// How far the clocks of issuer and gateway may be apart, in ms. Default 30,000: machines without a
    /// time server are further apart than that only when they are broken.
    #[serde(rename = "leeway_ms", deserialize_with = "millis::<0, 600_000, _>")]
    pub leeway: Duration,
    /// Tokens by their hashes, and what each stands for. Default none.
    pub tokens: Vec<StaticToken>,
    /// The endpoint that is asked who somebody is. Default none.
    #[serde(deserialize_with = "maybe_url")]
    pub forward_url: Option<HttpUrl>,
    /// How long its answer is kept for whoever brings the very same, in ms. Default 0, not at all: who signs
    /// out is out at once.
    #[serde(
        rename = "forward_cache_ms",
        deserialize_with = "millis::<0, 60_000, _>"
    )]
    pub forward_cache: Duration,
    /// A cookie in which a token stands. Default none.
    #[serde(deserialize_with = "maybe_cookie")]
    pub cookie: Option<String>,
    /// Whether a token may stand in the URL. Default false: URLs are kept in logs and histories of others.
    pub token_in_url: bool,
    /// Claims that make somebody an operator. Default nobody is.
    pub operator: Map<String, Json>,
    /// Claims with which somebody may publish events, beside operators. Default nobody's, unless who brings no
    /// token is admitted: what somebody may see is not his to tell the others.
    pub publish: Map<String, Json>,
    /// How long a revocation is kept, in ms; on NATS as long as the producer is told. Default 2,592,000,000,
    /// thirty days: longer than tokens for browsers should live.
    #[serde(
        rename = "keep_revoked_ms",
        deserialize_with = "millis::<60_000, 31_536_000_000, _>"
    )]
    pub keep_revoked: Duration,
}

/// A token of the configuration.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticToken {
    /// SHA-256 of the token.
    #[serde(deserialize_with = "sha256")]
    pub sha256: [u8; 32],
    /// What it stands for.
    #[serde(deserialize_with = "claims")]
    pub claims: Map<String, Json>,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Auth {
    /// Whether there is anything to judge tokens by.
    pub fn judges(&self) -> bool {
        let keys = self.key.is_some() || self.key_file.is_some() || self.jwks_url.is_some();
        keys || !self.tokens.is_empty() || self.forward_url.is_some()
    }

    fn has_keys(&self) -> bool {
        self.key.is_some() || self.key_file.is_some() || self.jwks_url.is_some()
    }

    /// What makes no sense together: the setting, and why.
    fn conflict(&self) -> Option<(&'static str, &'static str)> {
        let needs_key =
            "says how tokens are judged, and there is no key; set key, key_file or jwks_url";
        let needs_way = "is for tokens, and there is nothing to judge them by; set key, key_file, \
                         jwks_url, tokens or forward_url";
        let twice = |index: usize, one: &StaticToken| {
            self.tokens[..index]
                .iter()
                .any(|other| other.sha256 == one.sha256)
        };
        let mut tokens = self.tokens.iter().enumerate();
        [
            (
                self.key.is_some() && self.key_file.is_some(),
                "key_file",
                "key is set as well; there is one key of the configuration",
            ),
            (
                self.jwks_url.is_some() && self.issuer.is_none(),
                "jwks_url",
                "needs an issuer: only his tokens are signed with these keys",
            ),
            (
                !self.has_keys() && !self.algorithms.is_empty(),
                "algorithms",
                needs_key,
            ),
            (
                !self.has_keys() && self.issuer.is_some(),
                "issuer",
                needs_key,
            ),
            (
                !self.has_keys() && !self.audience.is_empty(),
                "audience",
                needs_key,
            ),
            (!self.judges() && self.cookie.is_some(), "cookie", needs_way),
            (
                !self.judges() && self.token_in_url,
                "token_in_url",
                needs_way,
            ),
            (
                !self.judges() && !self.operator.is_empty(),
                "operator",
                needs_way,
            ),
            (
                self.forward_url.is_none() && !self.forward_cache.is_zero(),
                "forward_cache_ms",
                "says how long answers are kept, and nobody is asked; set forward_url",
            ),
            (
                !self.judges() && !self.publish.is_empty(),
                "publish",
                needs_way,
            ),
            (
                tokens.any(|(index, one)| twice(index, one)),
                "tokens",
                "one token stands there twice",
            ),
        ]
        .into_iter()
        .find_map(|(wrong, key, why)| wrong.then_some((key, why)))
    }
}

impl Config {
    /// Holds the settings of `[auth]` against each other.
    pub(super) fn fits(&self) -> Result<(), ConfigError> {
        match self.auth.conflict() {
            Some((key, why)) => Err(self.bad_auth(key, why)),
            None => Ok(()),
        }
    }

    /// By what tokens are judged; a file with a key is read now.
    ///
    /// # Errors
    /// [`ConfigError`] where the key is none, or an algorithm is allowed for which there is no key.
    pub fn auth_settings(&self) -> Result<Settings, ConfigError> {
        let auth = &self.auth;
        let keys: Vec<Key> = self.auth_key()?.into_iter().collect();
        let of_issuer = |one: &Algorithm| auth.jwks_url.is_some() && one.is_public();
        let has =
            |one: &Algorithm| of_issuer(one) || keys.iter().any(|key| key.algorithm() == *one);
        if let Some(without) = auth.algorithms.iter().find(|one| !has(one)) {
            let problem = format!("there is no key for {}", without.as_str());
            return Err(self.bad_auth("algorithms", problem));
        }
        let unused = keys.iter().map(Key::algorithm);
        let mut unused =
            unused.filter(|one| !auth.algorithms.is_empty() && !auth.algorithms.contains(one));
        if let Some(unused) = unused.next() {
            let problem = format!("the key is for {}, which is not allowed", unused.as_str());
            return Err(self.bad_auth("algorithms", problem));
        }
        let algorithms = match auth.algorithms.is_empty() {
            true => Algorithm::ALL.into_iter().filter(has).collect(),
            false => auth.algorithms.clone(),
        };
        let tokens = auth.tokens.iter().map(|token| FixedToken {
            sha256: token.sha256,
            claims: token.claims.clone(),
        });
        Ok(Settings {
            anonymous: auth.anonymous,
            algorithms,
            jwks_url: auth.jwks_url.clone(),
            rules: Rules {
                issuer: auth.issuer.clone(),
                audience: auth.audience.clone(),
                leeway: auth.leeway,
            },
            tokens: tokens.collect(),
            forward_url: auth.forward_url.clone(),
            forward_cache: auth.forward_cache,
            operator: auth.operator.clone(),
            publish: auth.publish.clone(),
            token_bytes: self.limits.token_bytes,
            keep_revoked: auth.keep_revoked,
            keys,
        })
    }

    /// The key that stands in the configuration, or in a file of its own.
    ///
    /// # Errors
    /// [`ConfigError`] where it is none.
    pub fn auth_key(&self) -> Result<Option<Key>, ConfigError> {
        let auth = &self.auth;
        if let Some(key) = &auth.key {
            let key = Key::from_text(&key.0);
            return key
                .map(Some)
                .map_err(|err| self.bad_auth("key", err.to_string()));
        }
        let Some(file) = &auth.key_file else {
            return Ok(None);
        };
        let bad =
            |problem: String| self.bad_auth("key_file", format!("{}: {problem}", file.display()));
        let length = fs::metadata(file).map_err(|err| bad(format!("cannot be read: {err}")))?;
        if length.len() > MAX_KEY_BYTES {
            return Err(bad("is too long for a key".into()));
        }
        let text = fs::read_to_string(file);
        let text = text.map_err(|err| bad(format!("cannot be read: {err}")))?;
        let key = Key::from_text(&text).map_err(|err| bad(err.to_string()))?;
        Ok(Some(key))
    }

    fn bad_auth(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let origin = match &self.file {
            Some(file) => Origin::File(file.clone()),
            None => Origin::Defaults,
        };
        ConfigError::new(origin, format!("auth.{key}"), problem)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret, or nothing.
fn maybe_secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    Ok(maybe_text(from)?.map(Secret))
}

/// An http or https URL, or nothing.
fn maybe_url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<HttpUrl>, D::Error> {
    let text = maybe_text(from)?;
    let url = text.map(|text| HttpUrl::parse(&text)).transpose();
    url.map_err(D::Error::custom)
}

/// A cookie's name (RFC 6265 §4.1.1), or nothing.
fn maybe_cookie<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let name = maybe_text(from)?;
    match name.as_ref().is_none_or(|name| name.bytes().all(allowed)) {
        true => Ok(name),
        false => Err(D::Error::custom("this is no name of a cookie")),
    }
}

/// Claims that a token can stand for; what is wrong is not repeated, for it is somebody's.
fn claims<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Json>, D::Error> {
    let claims = Map::deserialize(from)?;
    match FixedToken::can_stand_for(&claims) {
        true => Ok(claims),
        false => Err(D::Error::custom(
            "an exp is a number of seconds, and a sub or a jti a text of 1 to 512 bytes or an integer",
        )),
    }
}

/// 64 hexadecimal digits. They are not repeated: somebody may have written the token itself.
fn sha256<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || {
        D::Error::custom(
            "the 64 hexadecimal digits of a SHA-256 are needed; `printf %s \"$TOKEN\" | sha256sum` \
             prints them",
        )
    };
    let mut hash = [0; 32];
    if text.len() != 2 * hash.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}
