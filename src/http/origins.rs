//! Which pages a browser may connect from.

use axum::http::header;

use super::{
    authority::Authority,
    headers::{Headers, text},
};

/// The rule for the `Origin` header (docs/protocol.md §3).
#[derive(Debug, Clone)]
pub struct Origins {
    listed: Vec<String>,
    loopback: bool,
}

/// How a request came, where that is known: in the extensions of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As everybody on the way could read it.
    Http,
    /// Through TLS, ours or a trusted proxy's.
    Https,
}

impl Origins {
    /// Admits the same host and the `listed` origins; with `loopback`, as on a listener to
    /// which only this machine comes, also every page served by this machine.
    pub fn new(listed: Vec<String>, loopback: bool) -> Self {
        Self { listed, loopback }
    }

    /// Whether every origin is admitted.
    pub fn any(&self) -> bool {
        self.listed.iter().any(|origin| origin == "*")
    }

    /// Whether who sent these headers may talk to this server: a program, which sends no `Origin`, or a
    /// page of an admitted one.
    pub fn admit(&self, headers: &impl Headers, scheme: Option<Scheme>) -> bool {
        let mut origins = headers.lines(header::ORIGIN);
        match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(_), Some(_)) => false,
            (Some(origin), None) if !self.any() => {
                text(origin).is_some_and(|origin| self.allow(origin, headers, scheme))
            }
            (Some(_), None) => true,
        }
    }

    fn allow(&self, origin: &str, headers: &impl Headers, scheme: Option<Scheme>) -> bool {
        if self.listed.iter().any(|listed| listed == origin) {
            return true;
        }
        let Some((of, page)) = read(origin) else {
            return false;
        };
        let host = headers.first(header::HOST).and_then(text);
        let same = host.and_then(Authority::parse).is_some_and(|host| {
            // A page that came unprotected may have been written by anybody on the way.
            scheme.is_none_or(|scheme| scheme == of)
                && host.host.eq_ignore_ascii_case(page.host)
                && of.port(&host) == of.port(&page)
        });
        same || (self.loopback && page.is_loopback())
    }
}

impl Scheme {
    fn port(self, authority: &Authority<'_>) -> u16 {
        authority.port.unwrap_or(match self {
            Self::Http => 80,
            Self::Https => 443,
        })
    }
}

/// An `http` or `https` origin, spelled as browsers do: in lower case, and without its usual port.
fn read(origin: &str) -> Option<(Scheme, Authority<'_>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let page = Authority::parse(rest)?;
    let usual = Authority { port: None, ..page };
    let spelled = !page.host.bytes().any(|b| b.is_ascii_uppercase())
        && page.port.is_none_or(|port| port != scheme.port(&usual));
    spelled.then_some((scheme, page))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn allows(origins: &Origins, host: &'static str, origin: &'static str) -> bool {
        admits(origins, host, &[origin], None)
    }

    fn admits(
        origins: &Origins,
        host: &'static str,
        lines: &[&'static str],
        scheme: Option<Scheme>,
    ) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        for line in lines {
            headers.append(header::ORIGIN, line.parse().unwrap());
        }
        origins.admit(&headers, scheme)
    }

    #[test]
    fn only_the_same_host_and_listed_origins_are_admitted() {
        let origins = Origins::new(vec!["https://app.example".into()], false);
        let host = "care.example:8888";
        for own in ["http://care.example:8888", "https://app.example"] {
            assert!(allows(&origins, host, own), "{own}");
        }
        assert!(admits(&origins, host, &[], None));
        for foreign in [
            "null",
            "https://app.example.evil",
            "https://evilapp.example",
            "http://app.example",
            "https://app.example:444",
            "http://care.example",
            "http://care.example:8888@evil",
            "http://care.example:8888/",
            "http://localhost:3000",
            "",
        ] {
            assert!(!allows(&origins, host, foreign), "{foreign}");
        }
        let own = "http://care.example:8888";
        assert!(!admits(&origins, host, &[own, own], None));
        let any = Origins::new(vec!["*".into()], false);
        assert!(!admits(&any, host, &[own, own], None));
    }

    #[test]
    fn the_usual_port_of_the_origins_scheme_is_the_same_as_none() {
        let origins = Origins::new(Vec::new(), false);
        for (host, origin, allowed) in [
            ("care.example", "http://care.example", true),
            ("care.example", "https://care.example", true),
            ("care.example:80", "http://care.example", true),
            ("care.example:443", "https://care.example", true),
            ("care.example:80", "https://care.example", false),
            ("care.example:443", "http://care.example", false),
            ("Care.Example", "https://care.example", true),
            ("care.example", "https://care.example:443", false),
            ("care.example", "https://Care.example", false),
            ("care.example.", "https://care.example", false),
        ] {
            assert_eq!(allows(&origins, host, origin), allowed, "{host} {origin}");
        }
    }

    #[test]
    fn where_the_scheme_is_known_only_a_page_of_it_is_of_the_same_host() {
        let listed = vec!["http://old.example".into()];
        let origins = Origins::new(listed, false);
        for (scheme, origin, allowed) in [
            (Scheme::Https, "https://care.example", true),
            (Scheme::Https, "http://care.example", false),
            (Scheme::Http, "http://care.example", true),
            (Scheme::Http, "https://care.example", false),
            (Scheme::Https, "http://old.example", true),
        ] {
            let told = admits(&origins, "care.example", &[origin], Some(scheme));
            assert_eq!(told, allowed, "{scheme:?} {origin}");
        }
    }

    #[test]
    fn a_loopback_listener_admits_pages_of_this_machine() {
        let origins = Origins::new(Vec::new(), true);
        for local in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:5173",
        ] {
            assert!(allows(&origins, "127.0.0.1:8888", local), "{local}");
        }
        for foreign in ["http://localhost.evil:3000", "http://127.0.0.1.evil"] {
            assert!(!allows(&origins, "127.0.0.1:8888", foreign), "{foreign}");
        }
    }
}
