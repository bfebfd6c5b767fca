//! The names under which a listener is reached. A page of another site can have its own name resolve to
//! this machine, and would then be of the same host as what it reads (DNS rebinding): only its `Host`
//! gives it away.

use axum::http::{HeaderMap, Uri, header};

use super::authority::Authority;

/// `server.allowed_hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    any: bool,
    /// In lower case.
    listed: Vec<(String, Option<u16>)>,
}

/// What one listener is called.
#[derive(Debug, Clone)]
pub struct Hosts {
    allowed: AllowedHosts,
    loopback: bool,
}

impl AllowedHosts {
    /// Reads a list of `host` or `host:port`; `*` alone stands for every name.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse(list: &[String]) -> Result<Self, String> {
        if list == ["*"] {
            return Ok(Self {
                any: true,
                listed: Vec::new(),
            });
        }
        let read = |text: &String| match Authority::parse(text) {
            Some(Authority { host, port }) => Ok((host.to_ascii_lowercase(), port)),
            None => Err(format!(
                "\"{text}\" is no host: \"name\" or \"name:port\" is, with an IPv6 address in brackets; \
                 [\"*\"] alone stands for all"
            )),
        };
        let listed = list.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { any: false, listed })
    }

    /// Whether nothing was said about it.
    pub fn is_empty(&self) -> bool {
        !self.any && self.listed.is_empty()
    }

    /// Whether there is one among them that is not this machine's alone.
    pub fn name_others(&self) -> bool {
        let is_own = |host: &str| Authority::parse(host).is_some_and(|host| host.is_loopback());
        self.any || self.listed.iter().any(|(host, _)| !is_own(host))
    }

    fn lists(&self, asked: &Authority<'_>) -> bool {
        self.listed.iter().any(|(host, port)| {
            host.eq_ignore_ascii_case(asked.host)
                && port.is_none_or(|port| asked.port == Some(port))
        })
    }
}

impl Hosts {
    /// On a `loopback` listener the names of this machine alone, and those allowed. On any other one those
    /// allowed, or every one where none are: what it is called is not known here.
    pub fn new(allowed: AllowedHosts, loopback: bool) -> Self {
        Self { allowed, loopback }
    }

    /// Whether a request is for this listener. Its target may name a host, too.
    pub fn admit(&self, headers: &HeaderMap, target: &Uri) -> bool {
        if self.allowed.any || (!self.loopback && self.allowed.listed.is_empty()) {
            return true;
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let named = target.authority().map(|authority| authority.as_str());
        host.is_some_and(|host| self.is_own(host)) && named.is_none_or(|name| self.is_own(name))
    }

    fn is_own(&self, host: &str) -> bool {
        Authority::parse(host)
            .is_some_and(|host| (self.loopback && host.is_loopback()) || self.allowed.lists(&host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listed: &[&str], loopback: bool) -> Hosts {
        let listed: Vec<_> = listed.iter().map(|host| (*host).to_owned()).collect();
        Hosts::new(AllowedHosts::parse(&listed).unwrap(), loopback)
    }

    fn admits(hosts: &Hosts, host: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        hosts.admit(&headers, &Uri::from_static("/"))
    }

    #[test]
    fn a_listener_has_the_names_that_it_was_given() {
        let own = hosts(&[], true);
        let named = hosts(&["Care.Example", "b.example:8443"], true);
        let open = hosts(&["care.example"], false);
        for (host, of_own, of_named, of_open) in [
            ("localhost:8888", true, true, false),
            ("[::1]", true, true, false),
            ("care.example", false, true, true),
            ("CARE.example:1", false, true, true),
            ("b.example:8443", false, true, false),
            ("b.example", false, false, false),
            ("evil.example", false, false, false),
            ("care.example.evil", false, false, false),
            ("x@care.example", false, false, false),
            ("", false, false, false),
        ] {
            let told = [&own, &named, &open].map(|hosts| admits(hosts, host));
            assert_eq!(told, [of_own, of_named, of_open], "{host}");
        }
        for open in [hosts(&[], false), hosts(&["*"], true)] {
            assert!(admits(&open, "anybody.example"));
        }
    }

    #[test]
    fn a_target_with_a_host_is_held_against_the_names_as_well() {
        let own = hosts(&[], true);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        assert!(own.admit(&headers, &Uri::from_static("http://127.0.0.1/")));
        assert!(!own.admit(&headers, &Uri::from_static("http://evil.example/")));
        assert!(!own.admit(&HeaderMap::new(), &Uri::from_static("http://127.0.0.1/")));
    }

    #[test]
    fn names_of_this_machine_alone_bring_nobody_else() {
        for (listed, others) in [
            (&[][..], false),
            (&["localhost", "127.0.0.1:8888", "[::1]"], false),
            (&["localhost", "care.example"], true),
            (&["localhost.example"], true),
            (&["*"], true),
        ] {
            let listed: Vec<_> = listed.iter().map(|host| (*host).to_owned()).collect();
            let hosts = AllowedHosts::parse(&listed).unwrap();
            assert_eq!(hosts.name_others(), others, "{listed:?}");
        }
    }

    #[test]
    fn what_is_no_host_is_not_taken() {
        for bad in ["", "*.example", "https://a", "a/b", "::1", "a:0"] {
            assert!(AllowedHosts::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert!(AllowedHosts::parse(&["*".into(), "a".into()]).is_err());
    }
}
