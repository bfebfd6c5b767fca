//! The names under which a listener is reached. A page of another site can have its own name resolve to
//! this machine, and would then be of the same host as what it reads (DNS rebinding): only its `Host`
//! gives it away.

use axum::http::{Uri, header};

use super::{
    authority::Authority,
    headers::{Headers, text},
};

/// `server.allowed_hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts {
    any: bool,
    /// In lower case.
    listed: Vec<(String, Option<u16>)>,
}

/// What a listener is called beside what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usual {
    /// The names of this machine alone: nobody else comes there.
    Loopback,
    /// As long as it was told nothing, what no page can have resolve to it: whoever comes there need not say
    /// who he is, so that its name alone gives such a page away. And the machine's own name, if it has one.
    Local(Option<String>),
    /// As long as it was told nothing, anything: such a page brings nobody's token.
    Any,
}

/// What one listener is called.
#[derive(Debug, Clone)]
pub struct Hosts {
    allowed: AllowedHosts,
    usual: Usual,
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
    /// The names allowed, and the usual ones.
    pub fn new(allowed: AllowedHosts, usual: Usual) -> Self {
        Self { allowed, usual }
    }

    /// Whether a request is for this listener. Its target may name a host, too.
    pub fn admit(&self, headers: &impl Headers, target: &Uri) -> bool {
        let untold = self.allowed.is_empty();
        if self.allowed.any || (self.usual == Usual::Any && untold) {
            return true;
        }
        let host = headers.first(header::HOST).and_then(text);
        let named = target.authority().map(|authority| authority.as_str());
        host.is_some_and(|host| self.is_own(host)) && named.is_none_or(|name| self.is_own(name))
    }

    fn is_own(&self, host: &str) -> bool {
        let Some(host) = Authority::parse(host) else {
            return false;
        };
        let usual = match &self.usual {
            Usual::Loopback => host.is_loopback(),
            Usual::Local(own) => {
                let is_own = |own: &String| own.eq_ignore_ascii_case(host.host);
                self.allowed.is_empty() && (host.is_local() || own.as_ref().is_some_and(is_own))
            }
            Usual::Any => false,
        };
        usual || self.allowed.lists(&host)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn hosts(listed: &[&str], usual: Usual) -> Hosts {
        let listed: Vec<_> = listed.iter().map(|host| (*host).to_owned()).collect();
        Hosts::new(AllowedHosts::parse(&listed).unwrap(), usual)
    }

    fn admits(hosts: &Hosts, host: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        hosts.admit(&headers, &Uri::from_static("/"))
    }

    #[test]
    fn a_listener_has_the_names_that_it_was_given() {
        let own = hosts(&[], Usual::Loopback);
        let named = hosts(&["Care.Example", "b.example:8443"], Usual::Loopback);
        let open = hosts(&["care.example"], Usual::Any);
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
        let local = || Usual::Local(Some("pc.care.example".into()));
        for (host, admitted) in [
            ("PC.care.example:8888", true),
            ("pc", true),
            ("192.0.2.1", true),
            ("evil.example", false),
            ("pc.evil.example", false),
        ] {
            assert_eq!(admits(&hosts(&[], local()), host), admitted, "{host}");
            // Who has named some has named all.
            assert!(!admits(&hosts(&["care.example"], local()), host), "{host}");
        }
        for open in [
            hosts(&[], Usual::Any),
            hosts(&["*"], Usual::Loopback),
            hosts(&["*"], local()),
        ] {
            assert!(admits(&open, "anybody.example"));
        }
    }

    #[test]
    fn a_target_with_a_host_is_held_against_the_names_as_well() {
        let own = hosts(&[], Usual::Loopback);
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
