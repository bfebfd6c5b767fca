//! The headers of a request: as hyper has read them, or as they stand in a head that nothing was copied of.

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use super::who::Whence;

/// Headers by their names, whose case does not count.
pub trait Headers {
    /// The values of one, in the order of its lines; none of them holds a control character but tabs.
    fn lines(&self, name: HeaderName) -> impl DoubleEndedIterator<Item = &[u8]>;

    /// The first value of one.
    fn first(&self, name: HeaderName) -> Option<&[u8]> {
        self.lines(name).next()
    }

    /// Whether there is one.
    fn has(&self, name: HeaderName) -> bool {
        self.first(name).is_some()
    }
}

/// What a request asks for, beside its body.
#[derive(Debug)]
pub struct Asked<'a, H> {
    /// Its method.
    pub method: &'a Method,
    /// The version of HTTP.
    pub version: Version,
    /// Its target.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a H,
    /// What was found out about it.
    pub extensions: &'a Extensions,
    /// Where it comes from.
    pub from: Option<Whence>,
}

/// Headers as they stand in a head.
#[derive(Debug)]
pub struct Said<'a>(pub &'a [httparse::Header<'a>]);

/// A value as text, where all of it is visible ASCII, spaces and tabs.
pub fn text(value: &[u8]) -> Option<&str> {
    let visible = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    value
        .iter()
        .all(visible)
        .then(|| std::str::from_utf8(value).ok())?
}

impl Headers for HeaderMap {
    fn lines(&self, name: HeaderName) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.get_all(name).iter().map(HeaderValue::as_bytes)
    }
}

impl Headers for Said<'_> {
    fn lines(&self, name: HeaderName) -> impl DoubleEndedIterator<Item = &[u8]> {
        let lines = self.0.iter();
        let of_name = lines.filter(move |line| line.name.eq_ignore_ascii_case(name.as_str()));
        of_name.map(|line| line.value)
    }
}

impl<'a, B> From<&'a Request<B>> for Asked<'a, HeaderMap> {
    fn from(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            version: request.version(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
            from: request.extensions().get().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    #[test]
    fn headers_are_found_in_a_head_as_hyper_finds_them() {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nupgrade: x\r\nCookie: a=1\r\nUPGRADE:  y \r\n\
                    token:\r\nx-name: J\u{fc}rgen\tB\r\n\r\n";
        let mut lines = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut lines);
        assert!(request.parse(head.as_bytes()).unwrap().is_complete());
        let said = Said(request.headers);
        let mut map = HeaderMap::new();
        for line in &*request.headers {
            let name = HeaderName::from_bytes(line.name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(line.value).unwrap());
        }
        for name in ["host", "upgrade", "cookie", "token", "x-name", "origin"] {
            let name = HeaderName::from_static(name);
            let (these, those): (Vec<_>, Vec<_>) = (
                said.lines(name.clone()).collect(),
                map.lines(name.clone()).collect(),
            );
            assert_eq!(these, those, "{name}");
            assert_eq!(said.has(name.clone()), map.has(name.clone()), "{name}");
            let last = said.lines(name.clone()).next_back();
            assert_eq!(last, those.last().copied(), "{name}");
            for value in map.get_all(name) {
                assert_eq!(text(value.as_bytes()), value.to_str().ok());
            }
        }
        assert_eq!(said.first(header::UPGRADE), Some(&b"x"[..]));
    }
}
