//! Single settings: each is parsed into a type that holds only what is allowed.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error};
use tracing_subscriber::EnvFilter;

use super::masked::choice;
use crate::{
    postgres::{Address, BadAddress},
    topic::nearest,
};

/// Where to listen: an IP address or a host name, and a port. Displays as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Listen {
    /// The address or name, an IPv6 address without its brackets.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

/// The database that rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DatabaseUrl {
    /// A SQLite file; a relative path starts at the working directory.
    Sqlite(PathBuf),
    /// A PostgreSQL database.
    Postgres(Address),
}

/// The bus that carries events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum BusUrl {
    /// In process, durable in a file beside the database.
    Embedded,
    /// NATS servers with JetStream, one or more, with commas between.
    Nats(Servers),
}

/// The URLs of NATS servers. Shown without user names and passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Servers(String);

// === impl Listen ===

impl Listen {
    /// Whether only this machine reaches the address. A host name other than `localhost` counts
    /// as reachable, for what it resolves to can change.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether both are one listener. Two free ports are two.
    pub fn is_also(&self, other: &Self) -> bool {
        self == other && self.port != 0
    }
}

impl FromStr for Listen {
    type Err = String;

    /// Reads `host:port` or `[v6]:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "an address and a port are needed, such as \"127.0.0.1:8888\"".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
        let valid = match host.parse::<IpAddr>() {
            Ok(address) => address.is_ipv6() == bracketed.is_some(),
            Err(_) => bracketed.is_none() && !host.is_empty() && host.bytes().all(allowed),
        };
        let host = host.to_owned();
        valid.then_some(Self { host, port }).ok_or_else(bad)
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

// === impl DatabaseUrl ===

impl DatabaseUrl {
    /// The database's file; none where it is no file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

/// Refusals name the scheme at most: the rest of a URL may hold a password.
impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (scheme, rest) = text
            .split_once(':')
            .ok_or("a URL is needed: \"sqlite:PATH\" or \"postgres://user@host/database\"")?;
        match scheme {
            "sqlite" => sqlite_path(rest).map(Self::Sqlite),
            "postgres" | "postgresql" => Address::parse(&text)
                .map(|address| address.or_password(std::env::var("PGPASSWORD").ok()))
                .map(Self::Postgres)
                .map_err(|err: BadAddress| err.to_string()),
            _ => Err(bad_scheme(scheme, &["sqlite", "postgres"])),
        }
    }
}

/// SQLite takes `file:` for a URI with options of its own, and a name such as `:memory:` for a
/// database that no other process can see.
fn sqlite_path(rest: &str) -> Result<PathBuf, String> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let refuse = |why: &str| Err(format!("{why}; write \"sqlite:PATH\""));
    if path.is_empty() {
        refuse("the path is missing")
    } else if path.starts_with(':') {
        refuse("a database in memory cannot be watched, for no other process can write it")
    } else if path.starts_with("file:") || path.contains(['?', '\0']) {
        refuse("options of SQLite's own URLs are not taken")
    } else {
        Ok(PathBuf::from(path))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::Sqlite(path) => path,
            Self::Postgres(address) => return address.fmt(f),
        };
        let slashes = if path.is_absolute() { "//" } else { "" };
        write!(f, "sqlite:{slashes}{}", path.display())
    }
}

// === impl BusUrl ===

impl TryFrom<String> for BusUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("embedded", "")) => Ok(Self::Embedded),
            Some(("embedded", _)) => Err("nothing follows \"embedded:\"".into()),
            Some(("nats" | "tls", _)) => Servers::parse(text).map(Self::Nats),
            Some((scheme, _)) => Err(bad_scheme(scheme, &["embedded", "nats", "tls"])),
            None => Err("a URL is needed: \"embedded:\" or \"nats://host:4222\"".into()),
        }
    }
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded:"),
            Self::Nats(servers) => servers.fmt(f),
        }
    }
}

// === impl Servers ===

impl Servers {
    fn parse(text: String) -> Result<Self, String> {
        let whole = |url: &str| {
            let rest = url
                .strip_prefix("nats://")
                .or_else(|| url.strip_prefix("tls://"));
            rest.is_some_and(|rest| {
                let host = rest.rsplit('@').next().unwrap_or(rest);
                !host.is_empty() && !host.contains(['/', ' ', '?', '#'])
            })
        };
        match text.split(',').all(|url| whole(url.trim())) {
            true => Ok(Self(text)),
            false => Err(
                "servers are needed such as \"nats://user:password@host:4222\", \
                          with commas between"
                    .into(),
            ),
        }
    }

    /// As it was written, credentials included: for the client, never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, url) in self.0.split(',').map(str::trim).enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
            let host = rest.rsplit('@').next().unwrap_or(rest);
            let secret = if host.len() < rest.len() { "***@" } else { "" };
            write!(f, "{comma}{scheme}://{secret}{host}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bad_scheme(scheme: &str, known: &[&str]) -> String {
    let hint = match nearest(scheme, known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}:\"?"),
        None => format!("\"{}:\" is supported", known.join(":\", \"")),
    };
    format!("this kind of URL is not known; {hint}")
}

// === fields ===

/// A whole number from `MIN` to `MAX`.
pub fn within<'de, const MIN: i64, const MAX: i64, T, D>(from: D) -> Result<T, D::Error>
where
    T: TryFrom<i64>,
    D: Deserializer<'de>,
{
    let number = i64::deserialize(from)?;
    let held = (MIN..=MAX).contains(&number).then_some(number);
    held.and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| D::Error::custom(format!("{number} is not allowed; {MIN} to {MAX} are")))
}

/// Milliseconds from `MIN` to `MAX`.
pub fn millis<'de, const MIN: i64, const MAX: i64, D: Deserializer<'de>>(
    from: D,
) -> Result<Duration, D::Error> {
    within::<MIN, MAX, _, D>(from).map(Duration::from_millis)
}

/// An address, or nothing.
pub fn maybe_listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Listen>, D::Error> {
    let text = String::deserialize(from)?;
    match text.is_empty() {
        true => Ok(None),
        false => text.parse().map(Some).map_err(D::Error::custom),
    }
}

/// A text, or nothing.
pub fn maybe_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then_some(text))
}

/// A path, or nothing.
pub fn maybe_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// The name of a slot or publication: it stands in commands where nothing can be quoted.
pub fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    match (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text),
        false => Err(D::Error::custom("1 to 63 of a-z 0-9 _ are allowed")),
    }
}

/// The first word of every subject.
pub fn prefix<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        true => Ok(text),
        false => Err(D::Error::custom(
            "1 to 64 of A-Z a-z 0-9 _ - are allowed: it is one word of a subject",
        )),
    }
}

/// What `EnvFilter` reads.
pub fn filter<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    // A lone unknown word would be taken for the name of a module, and silence everything else.
    let word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let known = levels.iter().any(|level| text.eq_ignore_ascii_case(level));
    if EnvFilter::builder().parse(&text).is_ok() && (known || !word) {
        return Ok(text);
    }
    let hint = nearest(&text, levels.into_iter()).map(|near| format!("; did you mean \"{near}\"?"));
    Err(D::Error::custom(format!(
        "{} is no filter: error, warn, info, debug or trace is, or \"info,rowcast=debug\"{}",
        choice(&text),
        hint.unwrap_or_default()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_shown_without_their_secrets() {
        let parse = |url: &str| BusUrl::try_from(url.to_owned());
        let url = "nats://anna:s3cret@a.example:4222, tls://b.example";
        let parsed = parse(url).unwrap();
        let shown = "nats://***@a.example:4222,tls://b.example";
        assert_eq!(parsed.to_string(), shown);
        assert!(!format!("{parsed:?}").contains("s3cret"));
        assert!(matches!(&parsed, BusUrl::Nats(servers) if servers.expose() == url));
        for bad in [
            "nats:",
            "nats://",
            "nats://a,",
            "nats://a/b",
            "kafka://a",
            "a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_that_only_this_machine_reaches_is_known_as_such() {
        for (text, loopback) in [
            ("127.0.0.1:0", true),
            ("127.1.2.3:1", true),
            ("[::1]:8888", true),
            ("LocalHost:8888", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("localhost.example:1", false),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.is_loopback(), loopback, "{text}");
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn a_listener_is_an_address_and_a_port() {
        for text in [
            "",
            ":8888",
            "::1:8888",
            "[127.0.0.1]:1",
            "localhost",
            "127.0.0.1:70000",
            "a b:1",
            "[x]:1",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn database_urls_have_three_forms() {
        let parse = |url: &str| DatabaseUrl::try_from(url.to_owned());
        for (url, file, shown) in [
            ("sqlite:care.db", "care.db", "sqlite:care.db"),
            (
                "sqlite://data/care.db",
                "data/care.db",
                "sqlite:data/care.db",
            ),
            (
                "sqlite:///srv/care.db",
                "/srv/care.db",
                "sqlite:///srv/care.db",
            ),
            (
                "sqlite:/srv/care.db",
                "/srv/care.db",
                "sqlite:///srv/care.db",
            ),
        ] {
            let parsed = parse(url).unwrap();
            assert_eq!(parsed.path(), Some(Path::new(file)));
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(parse(shown), Ok(parsed));
        }
        for url in [
            "care.db",
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:a?mode=ro",
            "sqlite:file:a",
            "mysql://x",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
    }
}
