//! Settings of the network: who is asked for, from where, and through whom.

use serde::{Deserialize, Deserializer, de::Error};

use super::Server;
use crate::http::{AllowedHosts, Proxies};

impl Server {
    /// Whether others than this machine may come in: where `listen` is no loopback address, and where it is
    /// one to which a proxy brings them. For that stand a proxy that is believed, and names that are not
    /// this machine's alone.
    pub fn is_exposed(&self) -> bool {
        self.exposing().is_some()
    }

    /// The setting that says so.
    pub(super) fn exposing(&self) -> Option<&'static str> {
        [
            (!self.listen.is_loopback(), "listen"),
            (!self.trusted_proxies.is_empty(), "trusted_proxies"),
            (self.allowed_hosts.name_others(), "allowed_hosts"),
        ]
        .into_iter()
        .find_map(|(says, key)| says.then_some(key))
    }
}

/// Browsers send an origin in lower case, without a path, and without the usual port of its scheme.
pub fn origins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(from)?;
    if list == ["*"] {
        return Ok(list);
    }
    list.into_iter()
        .map(|text| origin(&text).ok_or_else(|| D::Error::custom(bad_origin(&text))))
        .collect()
}

fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://")?;
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']);
    let usual = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    let kept = host.strip_suffix(usual).unwrap_or(host);
    (named && plain && text.is_ascii()).then(|| format!("{scheme}://{kept}"))
}

fn bad_origin(text: &str) -> String {
    let hint = match text.is_ascii() {
        true => "[\"*\"] alone stands for all",
        false => "browsers send a name in other letters as \"xn--…\"",
    };
    // What stands before an @ is a password.
    let shown = match text.contains(['@', '?']) {
        true => "this".to_owned(),
        false => format!("\"{text}\""),
    };
    format!(
        "{shown} is no origin: \"scheme://host\" or \"scheme://host:port\" is, without a path; {hint}"
    )
}

/// Names under which a server is reached.
pub fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<AllowedHosts, D::Error> {
    AllowedHosts::parse(&Vec::<String>::deserialize(from)?).map_err(D::Error::custom)
}

/// Addresses and networks of proxies.
pub fn proxies<'de, D: Deserializer<'de>>(from: D) -> Result<Proxies, D::Error> {
    Proxies::parse(&Vec::<String>::deserialize(from)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        for (text, kept) in [
            ("https://Care.Example", Some("https://care.example")),
            ("https://care.example:443", Some("https://care.example")),
            ("http://care.example:80", Some("http://care.example")),
            ("http://care.example:443", Some("http://care.example:443")),
            ("capacitor://localhost", Some("capacitor://localhost")),
            ("https://吉.example", None),
            ("https://care.example/", None),
            ("https://*.example", None),
            ("care.example", None),
            ("null", None),
        ] {
            assert_eq!(origin(text).as_deref(), kept, "{text}");
        }
    }
}
