//! The keys that an issuer publishes: read at the start, again every ten minutes, and when a token names
//! one that is not known, but then twice a minute at the most, whatever tokens say. Where they cannot
//! be read, those of the last time stay.
//!
//! They are one issuer's alone (`Rules::issuer`, without which there is no set), so that a key of another
//! one that has the same name is never taken for his, and whoever names another one is refused before they are looked
//! through (`jwt.rs`). What a token says of where its key is to be found
//! (`jku`, `x5u`, `jwk`, `x5c`) is not looked at.

use std::time::Duration;

use reqwest::Client;
use serde_json::Value as Json;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    BadAuth, HttpUrl,
    algorithm::Algorithm,
    fetch::{self, NoAnswer, PATIENCE},
    key::Key,
};
use crate::metrics::Metrics;

/// Between two looks while all is well.
const REFRESH: Duration = Duration::from_mins(10);

/// Between two looks at the least: also after one that failed, and for a key that is not known.
const PAUSE: Duration = Duration::from_secs(30);

/// Bytes of a set at the most; those of large issuers have some ten thousand, with certificates.
const MAX_BYTES: usize = 256 * 1024;

/// Keys of a set at the most; more are left out.
const MAX_KEYS: usize = 64;

/// Bytes of a key's name at the most.
const MAX_NAME_BYTES: usize = 256;

/// An issuer's keys.
#[derive(Debug)]
pub struct Jwks {
    url: HttpUrl,
    client: Client,
    metrics: Metrics,
    known: watch::Sender<Known>,
    /// A token names a key that is not known.
    wanted: Notify,
}

#[derive(Debug, Default)]
struct Known {
    keys: Vec<Named>,
    /// How often it was looked.
    looks: u64,
    /// When it was looked last, if that is not under way.
    looked: Option<Instant>,
    /// Whether there has ever been an answer.
    learned: bool,
}

#[derive(Debug)]
struct Named {
    name: Option<String>,
    key: Key,
}

/// What a token's key is.
pub enum Found {
    /// This one.
    Key(Key),
    /// None for what the token says.
    None,
    /// Not known, and it may be that the issuer has a new one.
    Unknown,
}

impl Jwks {
    /// The keys at an address; none until [`Self::follow`] runs.
    ///
    /// # Errors
    /// [`BadAuth`] where nothing can be asked.
    pub fn new(url: HttpUrl, metrics: Metrics) -> Result<Self, BadAuth> {
        Ok(Self {
            client: fetch::client(&url)?,
            url,
            metrics,
            known: watch::Sender::new(Known::default()),
            wanted: Notify::new(),
        })
    }

    /// Looks for the key that a token names, or for the only one where it names none.
    pub fn find(&self, name: Option<&str>, algorithm: Algorithm) -> Found {
        let known = self.known.borrow();
        let mut of_name = known.keys.iter().filter(|key| match name {
            Some(name) => key.name.as_deref() == Some(name),
            None => key.key.algorithm() == algorithm,
        });
        let found = match name {
            None => match (of_name.next(), of_name.next()) {
                (Some(only), None) => Some(Some(only)),
                // Whose it is cannot be told.
                (Some(_), Some(_)) => Some(None),
                (None, _) => None,
            },
            Some(_) => {
                let all: Vec<_> = of_name.collect();
                let fits = all.iter().find(|key| key.key.algorithm() == algorithm);
                (!all.is_empty()).then(|| fits.copied())
            }
        };
        match found {
            Some(Some(named)) => Found::Key(named.key.clone()),
            Some(None) => Found::None,
            None if name.is_none_or(|name| name.len() <= MAX_NAME_BYTES) && known.may_look() => {
                Found::Unknown
            }
            None => Found::None,
        }
    }

    /// Whether the issuer has answered once: before that nobody can say that a key is not his.
    pub fn has_learned(&self) -> bool {
        self.known.borrow().learned
    }

    /// Has the issuer be asked, and waits for what becomes of it. All who wait share one look.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn learn(&self) {
        let mut known = self.known.subscribe();
        let before = known.borrow().looks;
        self.wanted.notify_one();
        // Nobody waits for longer than a look may take.
        let _ = timeout(PATIENCE, known.wait_for(|known| known.looks != before)).await;
    }

    /// Looks now, and then again and again, for ever.
    ///
    /// # Cancel safety
    /// Cancel safe: a look that is cut off has not been.
    pub async fn follow(&self) {
        let mut was_well = None;
        loop {
            self.known.send_modify(|known| known.looked = None);
            let looked = self.look().await;
            let is_well = looked.is_ok();
            self.metrics.auth.looked_for_keys(is_well);
            match &looked {
                Ok(keys) if was_well != Some(true) => {
                    tracing::info!(url = %self.url, keys = keys.len(), "the issuer's keys are known");
                }
                Err(err) if was_well != Some(false) => {
                    tracing::warn!(url = %self.url, error = %err, "the issuer's keys cannot be read; those that are known stay");
                }
                _ => {}
            }
            was_well = Some(is_well);
            let now = Instant::now();
            self.known.send_modify(|known| {
                known.looks += 1;
                known.looked = Some(now);
                if let Ok(keys) = looked {
                    (known.keys, known.learned) = (keys, true);
                }
            });
            let pause = if is_well { REFRESH } else { PAUSE };
            tokio::select! {
                () = sleep_until(now + pause) => {}
                () = self.wanted_after(now + PAUSE) => {}
            }
        }
    }

    /// Waits until a key is wanted, which before that time counts for nothing: whoever asked was told.
    async fn wanted_after(&self, time: Instant) {
        loop {
            self.wanted.notified().await;
            if Instant::now() >= time {
                return;
            }
        }
    }

    async fn look(&self) -> Result<Vec<Named>, NoAnswer> {
        let asked = async {
            let request = self.client.get(self.url.inner());
            let response = request.send().await.map_err(fetch::failed)?;
            match response.status().as_u16() {
                200 => fetch::body(response, MAX_BYTES).await,
                other => Err(NoAnswer::Status(other)),
            }
        };
        let answer = timeout(PATIENCE, asked).await;
        let body = answer.unwrap_or_else(|_| Err(NoAnswer::Failed("no answer in time".into())))?;
        read(&body)
    }
}

impl Known {
    /// Whether a look is under way, or may be.
    fn may_look(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= PAUSE)
    }
}

/// The keys of a set that are for signatures of ours; others are left out.
fn read(body: &[u8]) -> Result<Vec<Named>, NoAnswer> {
    let set: Json = serde_json::from_slice(body).map_err(|_| NoAnswer::Content("it is no JSON"))?;
    let keys = set.get("keys").and_then(Json::as_array);
    let keys = keys.ok_or(NoAnswer::Content("it is no JWK set"))?;
    let named = keys.iter().filter_map(|jwk| {
        let name = jwk.get("kid").and_then(Json::as_str).map(str::to_owned);
        Some(Named {
            key: Key::from_jwk(jwk)?,
            name,
        })
    });
    let keys: Vec<_> = named.take(MAX_KEYS).collect();
    match keys.is_empty() {
        true => Err(NoAnswer::Content(
            "there is no key for RS256, ES256 or EdDSA in it",
        )),
        false => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn ed(name: &str) -> Json {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": X, "kid": name })
    }

    #[test]
    fn secrets_and_what_is_for_other_ends_are_no_keys() {
        let with = |name: &str, value: Json| {
            let mut key = ed("a");
            key[name] = value;
            key
        };
        let set = json!({ "keys": [
            { "kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "a", "alg": "HS256" },
            with("use", json!("enc")),
            with("alg", json!("HS256")),
            with("key_ops", json!(["encrypt"])),
            with("key_ops", json!("verify")),
            with("crv", json!("X25519")),
            with("x", json!(7)),
            7, null, [],
            { "kty": "OKP", "crv": "Ed25519", "x": X, "kid": "b", "use": "sig", "key_ops": ["sign", "verify"] },
        ]});
        let keys = read(set.to_string().as_bytes()).unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(keys[0].name.as_deref(), Some("b"));
        for set in ["", "{}", "[]", "{\"keys\":{}}", "{\"keys\":[]}"] {
            assert!(read(set.as_bytes()).is_err(), "{set}");
        }
        let many: Vec<_> = (0..1000).map(|n| ed(&n.to_string())).collect();
        let many = json!({ "keys": many }).to_string();
        assert_eq!(read(many.as_bytes()).unwrap().len(), MAX_KEYS);
    }
}
