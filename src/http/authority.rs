//! A host and a port, as `Host` and `Origin` write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands in a `Host` header, or behind the scheme of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name or an IPv4 address; an IPv6 address in its brackets.
    pub host: &'a str,
    /// None where the scheme says which.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host` or `host:port`. None for everything else that RFC 3986 knows, such as user names and
    /// escapes, and for letters beyond ASCII: a browser sends such a name in its `xn--` form.
    pub fn parse(text: &'a str) -> Option<Self> {
        let end = match text.starts_with('[') {
            true => text.find(']')? + 1,
            false => text.find(':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at(end);
        let port = match rest {
            "" => None,
            rest => Some(port(rest.strip_prefix(':')?)?),
        };
        is_host(host).then_some(Self { host, port })
    }

    /// Whether it is a name of this machine alone, which no name server can give to another one.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.address().is_some_and(|address| address.is_loopback())
    }

    /// Whether no name server of the Internet can give it to another machine: an address, a name without a
    /// dot, or one of a network of one's own (RFC 6762, RFC 8375, and `internal`, which ICANN has set aside).
    pub fn is_local(&self) -> bool {
        let host = self.host.to_ascii_lowercase();
        let kept = [".localhost", ".local", ".internal", ".home.arpa"];
        self.address().is_some()
            || !host.contains('.')
            || kept.iter().any(|suffix| host.ends_with(suffix))
    }

    fn address(&self) -> Option<IpAddr> {
        let v4 = || self.host.parse().map(Ipv4Addr::into).ok();
        bracketed(self.host).map(IpAddr::V6).or_else(v4)
    }
}

fn bracketed(host: &str) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix('[')?.strip_suffix(']')?;
    inner.parse().ok()
}

fn is_host(host: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    bracketed(host).is_some() || (!host.is_empty() && host.bytes().all(letter))
}

/// A port as browsers write it: no sign, no leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_are_read_and_nothing_else() {
        for (text, host, port) in [
            ("care.example", "care.example", None),
            ("Care.Example:8888", "Care.Example", Some(8888)),
            ("my_host:1", "my_host", Some(1)),
            ("[::1]", "[::1]", None),
            ("[2001:db8::1]:65535", "[2001:db8::1]", Some(65_535)),
        ] {
            assert_eq!(Authority::parse(text), Some(Authority { host, port }));
        }
        for text in [
            "",
            ":80",
            "a:",
            "a:0",
            "a:080",
            "a:+80",
            "a:65536",
            "a:80:80",
            "user@a",
            "a/",
            "a?",
            "a b",
            "a%2e",
            "吉.example",
            "::1",
            "[::1",
            "[::1]a",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
        ] {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_what_no_name_server_of_the_internet_answers_is_local() {
        let is = |text| Authority::parse(text).unwrap().is_local();
        for text in [
            "192.0.2.1:8888",
            "[2001:db8::1]",
            "gateway:8888",
            "localhost",
            "Care.Local",
            "care.home.arpa",
            "care.internal:1",
        ] {
            assert!(is(text), "{text}");
        }
        for text in [
            "evil.example",
            "192.0.2.1.evil.example",
            "care.local.evil.example",
            "local.example",
            "care.",
            "127.1",
        ] {
            assert!(!is(text), "{text}");
        }
    }

    #[test]
    fn only_what_no_name_server_answers_is_this_machine() {
        let is = |text| Authority::parse(text).unwrap().is_loopback();
        for text in [
            "localhost",
            "LocalHost:1",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]:1",
        ] {
            assert!(is(text), "{text}");
        }
        for text in [
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "0.0.0.0",
            "[::]",
            "192.0.2.1",
            "localhos",
        ] {
            assert!(!is(text), "{text}");
        }
    }
}
