//! Where the NATS server is monitored.

use serde::{Deserialize, Deserializer, de::Error};

/// `http://host:port`, or nothing. Nobody logs in there, so nothing in it is a secret.
pub fn maybe_monitor<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    let place = text.strip_prefix("http://").unwrap_or(&text);
    let place = place.trim_end_matches('/');
    let plain = !place.is_empty() && !place.contains(['/', '@', '?', '#', ' ']);
    match plain {
        true => Ok(Some(text)),
        false => Err(D::Error::custom(
            "a URL such as \"http://nats:8222\" is needed, without user, password and path",
        )),
    }
}
