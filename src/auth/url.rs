//! An address of the user's that is asked over HTTP. It is shown without what may be secret in it.

use std::fmt;

use reqwest::Url;

/// An `http` or `https` URL.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// Reads one.
    ///
    /// # Errors
    /// What is needed; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or("a URL is needed such as \"https://auth.example.org/path\"")?;
        Ok(Self(url))
    }

    /// Whether what is asked and answered can be read and changed on the way: not encrypted, and not to
    /// this machine.
    pub fn is_exposed(&self) -> bool {
        let host = self.0.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        let here = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        !self.is_secure() && !here
    }

    /// Whether it is `https`.
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub(super) fn inner(&self) -> Url {
        self.0.clone()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(
            f,
            "{}://{}",
            url.scheme(),
            url.host_str().unwrap_or_default()
        )?;
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        f.write_str(url.path())
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_password_and_parameters() {
        let url = HttpUrl::parse("https://me:secret@auth.example:8443/keys?code=secret").unwrap();
        assert_eq!(url.to_string(), "https://auth.example:8443/keys");
        assert!(!format!("{url:?}").contains("secret"));
        for bad in [
            "",
            "auth.example",
            "ftp://a/b",
            "file:///etc/passwd",
            "http://",
        ] {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
        for (text, exposed) in [
            ("http://auth.example/", true),
            ("https://auth.example/", false),
            ("http://127.0.0.1:1/", false),
            ("http://[::1]:1/", false),
            ("http://localhost/", false),
            ("http://localhost.example/", true),
        ] {
            assert_eq!(
                HttpUrl::parse(text).unwrap().is_exposed(),
                exposed,
                "{text}"
            );
        }
    }
}
