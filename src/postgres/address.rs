//! Where a PostgreSQL database is, and how to get in. The password is in here and comes out in
//! one place only: neither `Display` nor `Debug` nor an error shows it.

use std::{fmt, path::PathBuf, str::FromStr};

/// The port of a server that names none.
pub const DEFAULT_PORT: u16 = 5432;

/// A database: `postgres://user:password@host:port/db?sslmode=verify-full&sslrootcert=ca.pem`.
///
/// `postgresql://` is the same. Parts are percent-decoded. In the query are allowed: `sslmode`,
/// `sslrootcert`, `sslcert`, `sslkey`, `application_name`, `host` (a folder, `/run/postgresql`,
/// for a Unix socket), and `user`, `password`, `port`, `dbname` for what is hard to spell before it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    user: String,
    password: Option<String>,
    dbname: String,
    application_name: Option<String>,
    tls: TlsMode,
    root_cert: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

/// How far the connection is secured, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server can; whose certificate it shows does not matter.
    Prefer,
    /// Always; whose certificate does not matter, unless `sslrootcert` is given.
    Require,
    /// Always, with a certificate of a trusted authority.
    VerifyCa,
    /// Always, with a certificate of a trusted authority for this very host.
    VerifyFull,
}

/// Why a text is no [`Address`]. Never holds the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadAddress(String);

// === impl Address ===

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong and what is allowed, without the text.
    pub fn parse(text: &str) -> Result<Self, BadAddress> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or_else(|| bad("it does not begin with postgres://"))?;
        if text.contains('\0') || text.contains('#') {
            return Err(bad("a # within it is written %23, and NUL cannot be in it"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, dbname) = place.split_once('/').unwrap_or((place, ""));
        let (who, server) = server.rsplit_once('@').unwrap_or(("", server));
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (who, None),
        };
        let (host, port) = host_and_port(server)?;
        let mut address = Self {
            host: decode(host, "host")?,
            port,
            user: decode(user, "user")?,
            password: password
                .map(|password| decode(password, "password"))
                .transpose()?,
            dbname: decode(dbname, "database")?,
            application_name: None,
            tls: TlsMode::Prefer,
            root_cert: None,
            client_cert: None,
            client_key: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(name, decode(value, "query")?)?;
        }
        address.complete()
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), BadAddress> {
        match name {
            "sslmode" => self.tls = value.parse()?,
            "sslrootcert" => self.root_cert = Some(value.into()),
            "sslcert" => self.client_cert = Some(value.into()),
            "sslkey" => self.client_key = Some(value.into()),
            "application_name" => self.application_name = Some(value),
            "host" => self.host = value,
            "port" => self.port = port(&value)?,
            "user" => self.user = value,
            "password" => self.password = Some(value),
            "dbname" => self.dbname = value,
            _ => {
                return Err(bad(
                    "its query has a parameter that is not known; allowed are sslmode, \
                     sslrootcert, sslcert, sslkey, application_name, host, port, user, password, \
                     dbname",
                ));
            }
        }
        Ok(())
    }

    /// Fills in what libpq would, and refuses what cannot be meant.
    fn complete(mut self) -> Result<Self, BadAddress> {
        if self.user.is_empty() {
            return Err(bad("it names no user: postgres://USER@HOST/DATABASE"));
        }
        if self.host.is_empty() {
            "localhost".clone_into(&mut self.host);
        }
        if self.dbname.is_empty() {
            self.dbname.clone_from(&self.user);
        }
        if self.client_cert.is_some() != self.client_key.is_some() {
            return Err(bad("sslcert and sslkey are given together"));
        }
        if self.root_cert.is_some() && self.tls == TlsMode::Require {
            // As libpq: with a root certificate at hand it is checked.
            self.tls = TlsMode::VerifyCa;
        }
        Ok(self)
    }

    /// The same with this password, where the text held none.
    pub fn or_password(mut self, password: Option<String>) -> Self {
        self.password = self.password.or(password);
        self
    }

    /// The whole address but for the password, as [`Address::parse`] reads it.
    pub fn url_without_password(&self) -> String {
        let mut url = format!("postgres://{}@", encode(&self.user));
        match self.host.contains(':') {
            true => url += &format!("[{}]", self.host),
            false if self.is_socket() => {}
            false => url += &encode(&self.host),
        }
        let mode = self.tls.name();
        url += &format!(":{}/{}?sslmode={mode}", self.port, encode(&self.dbname));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let rest = [
            ("host", self.is_socket().then(|| self.host.clone())),
            ("sslrootcert", path(&self.root_cert)),
            ("sslcert", path(&self.client_cert)),
            ("sslkey", path(&self.client_key)),
            ("application_name", self.application_name.clone()),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                url += &format!("&{name}={}", encode(&value));
            }
        }
        url
    }

    /// A host's name or address, or the folder of a Unix socket, which begins with `/`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether [`Address::host`] is the folder of a Unix socket.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password, for the server and nobody else.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The database.
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// What the sessions are called in `pg_stat_activity`.
    pub fn application_name(&self) -> &str {
        self.application_name.as_deref().unwrap_or("rowcast")
    }

    /// How far the connection is secured.
    pub fn tls(&self) -> TlsMode {
        self.tls
    }

    /// A PEM file of trusted authorities, instead of the system's.
    pub fn root_cert(&self) -> Option<&PathBuf> {
        self.root_cert.as_ref()
    }

    /// PEM files of the client's own certificate and its key.
    pub fn client_cert(&self) -> Option<(&PathBuf, &PathBuf)> {
        self.client_cert.as_ref().zip(self.client_key.as_ref())
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        Self::parse(text)
    }
}

/// `postgres://user@host:port/db`: nothing that would let somebody in.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.password.is_some() { ":***" } else { "" };
        write!(f, "postgres://{}{secret}@", self.user)?;
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(if self.is_socket() { "" } else { &self.host })?,
        }
        write!(f, ":{}/{}", self.port, self.dbname)?;
        match self.is_socket() {
            true => write!(f, "?host={}", self.host),
            false => Ok(()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self}, {:?})", self.tls)
    }
}

impl TlsMode {
    /// As libpq spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for TlsMode {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err(bad(
                    "sslmode is one of disable, prefer, require, verify-ca, verify-full",
                ));
            }
        })
    }
}

fn bad(message: impl Into<String>) -> BadAddress {
    BadAddress(message.into())
}

fn host_and_port(server: &str) -> Result<(&str, u16), BadAddress> {
    let (host, rest) = match server.strip_prefix('[') {
        Some(inner) => inner
            .split_once(']')
            .ok_or_else(|| bad("the host has a [ without its ]"))?,
        None => match server.find(':') {
            Some(at) => server.split_at(at),
            None => (server, ""),
        },
    };
    if host.contains(',') {
        return Err(bad("one host is named, not several"));
    }
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok((host, DEFAULT_PORT)),
        Some("") => Ok((host, DEFAULT_PORT)),
        Some(text) => Ok((host, port(text)?)),
        None => Err(bad("between host and port stands one colon")),
    }
}

fn port(text: &str) -> Result<u16, BadAddress> {
    let number = text.parse().ok().filter(|port| *port > 0);
    // Where an @ of a password was not escaped, the "port" is a part of it: it is not told.
    number.ok_or_else(|| {
        bad(
            "the port is no number from 1 to 65535 (an @, :, / or ? in a password is written \
             %40, %3A, %2F, %3F)",
        )
    })
}

fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let encoded = text.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    encoded.collect()
}

fn decode(text: &str, part: &str) -> Result<String, BadAddress> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high * 16 + low) as u8),
            _ => return Err(bad(format!("a % in the {part} is written %25"))),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(bad(format!("the {part} is not UTF-8 text"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read() {
        let address = Address::parse(
            "postgresql://care%40ward:s%3Acret%2F%23@[::1]:6432/care%20db?sslmode=verify-full\
             &sslrootcert=/etc/ca.pem&sslcert=c.pem&sslkey=k.pem&application_name=ward%201",
        )
        .unwrap();
        assert_eq!(address.user(), "care@ward");
        assert_eq!(address.password(), Some("s:cret/#"));
        assert_eq!((address.host(), address.port()), ("::1", 6432));
        assert_eq!(address.dbname(), "care db");
        assert_eq!(address.tls(), TlsMode::VerifyFull);
        assert_eq!(address.root_cert(), Some(&PathBuf::from("/etc/ca.pem")));
        assert!(address.client_cert().is_some());
        assert_eq!(address.application_name(), "ward 1");
        let again = Address::parse(&address.url_without_password()).unwrap();
        assert_eq!(again.password(), None);
        assert_eq!(again.or_password(Some("s:cret/#".into())), address);
    }

    #[test]
    fn what_is_left_out_is_as_in_libpq() {
        let address = Address::parse("postgres://care@").unwrap();
        assert_eq!((address.host(), address.port()), ("localhost", 5432));
        assert_eq!((address.dbname(), address.tls()), ("care", TlsMode::Prefer));
        let socket = Address::parse("postgres://care@/db?host=/run/postgresql").unwrap();
        assert!(socket.is_socket());
        assert_eq!(
            socket.to_string(),
            "postgres://care@:5432/db?host=/run/postgresql"
        );
        let checked = Address::parse("postgres://c@h/d?sslmode=require&sslrootcert=a").unwrap();
        assert_eq!(checked.tls(), TlsMode::VerifyCa);
    }

    #[test]
    fn nothing_that_is_shown_holds_the_password() {
        let address = Address::parse("postgres://care:canary@h/d?password=canary2").unwrap();
        assert_eq!(address.to_string(), "postgres://care:***@h:5432/d");
        assert!(!format!("{address:?}").contains("canary"));
        for text in [
            "canary",
            "postgres://u:can@ary@h:canary/d",
            "postgres://u:canary/x@h/d",
            "postgres://u:canary%@h/d",
            "postgres://u:canary%ff@h/d",
            "postgres://:canary@h/d",
            "postgres://u:p@h/d?canary=1",
            "postgres://u:p@h/d?sslmode=canary",
            "postgres://u:p@h/d?sslcert=canary",
            "postgres://u:p#canary@h/d",
            "postgres://u:p@[canary/d",
        ] {
            let Err(err) = Address::parse(text) else {
                panic!("{text} is no address");
            };
            assert!(!err.to_string().contains("canary"), "{err}");
        }
    }
}
