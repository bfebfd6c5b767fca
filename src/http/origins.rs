//! Which pages a browser may connect from.

use axum::http::{HeaderValue, Uri};

/// The rule for the `Origin` header (docs/protocol.md §3).
#[derive(Debug, Clone)]
pub struct Origins {
    listed: Vec<String>,
    loopback: bool,
}

impl Origins {
    /// Admits the same host and the `listed` origins; with `loopback`, as on a listener that
    /// only this machine reaches, also every page served by this machine.
    pub fn new(listed: Vec<String>, loopback: bool) -> Self {
        Self { listed, loopback }
    }

    /// Whether every origin is admitted.
    pub fn any(&self) -> bool {
        self.listed.iter().any(|origin| origin == "*")
    }

    /// Whether a page of `origin` may talk to this server, called `host` in the request.
    pub fn allow(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        if self.any() {
            return true;
        }
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        if self
            .listed
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(origin))
        {
            return true;
        }
        let Some(authority) = authority(origin) else {
            return false;
        };
        let same = host.and_then(|host| host.to_str().ok());
        same.is_some_and(|host| host.eq_ignore_ascii_case(&authority))
            || (self.loopback && is_loopback(&authority))
    }
}

/// The host and port of an `http` or `https` origin, and of nothing else.
fn authority(origin: &str) -> Option<String> {
    let uri: Uri = origin.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let plain = matches!(scheme, "http" | "https") && !authority.as_str().contains('@');
    // An origin has no path; the parser adds "/".
    (plain && uri.path_and_query().is_none_or(|path| path == "/") && !origin.ends_with('/'))
        .then(|| authority.as_str().to_owned())
}

fn is_loopback(authority: &str) -> bool {
    let Ok(uri) = authority.parse::<axum::http::uri::Authority>() else {
        return false;
    };
    let host = uri.host().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(origins: &Origins, origin: &'static str) -> bool {
        let host = HeaderValue::from_static("care.example:8888");
        origins.allow(&HeaderValue::from_static(origin), Some(&host))
    }

    #[test]
    fn only_the_same_host_and_listed_origins_are_admitted() {
        let origins = Origins::new(vec!["https://app.example".into()], false);
        assert!(allows(&origins, "http://care.example:8888"));
        assert!(allows(&origins, "https://app.example"));
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
            assert!(!allows(&origins, foreign), "{foreign}");
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
            assert!(allows(&origins, local), "{local}");
        }
        assert!(!allows(&origins, "http://localhost.evil:3000"));
        assert!(!allows(&origins, "http://127.0.0.1.evil"));
    }
}
