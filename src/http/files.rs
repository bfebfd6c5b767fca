//! Files that are built into the binary. A browser keeps them, and asks each time whether they are
//! still the same: another version of the binary serves others under the same names.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// What a file is, as its `Content-Type` says.
pub mod kind {
    pub const CSS: &str = "text/css; charset=utf-8";
    pub const HTML: &str = "text/html; charset=utf-8";
    pub const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
    pub const SVG: &str = "image/svg+xml";
    /// Also TypeScript, which browsers would not show under its own name.
    pub const TEXT: &str = "text/plain; charset=utf-8";
}

/// A file in the binary.
#[derive(Debug)]
pub struct File {
    /// Its name, without a folder.
    pub name: &'static str,
    kind: &'static str,
    text: &'static str,
    tag: u64,
}

impl File {
    /// A file with its text, and the `kind` that it is.
    pub const fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        let tag = fingerprint(text.as_bytes());
        Self {
            name,
            kind,
            text,
            tag,
        }
    }

    /// The answer to a request with these headers: the file, or 304 where the asker has it.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let tag = format!("\"{:016x}\"", self.tag);
        let known = asked.get_all(header::IF_NONE_MATCH).iter();
        let known = known
            .filter_map(|tags| tags.to_str().ok())
            .flat_map(|tags| tags.split(','))
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|known| known == tag || known == "*");
        let mut response = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::CONTENT_TYPE, self.kind)], self.text).into_response(),
        };
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.extend(HeaderValue::from_str(&tag).map(|tag| (header::ETAG, tag)));
        response
    }

    /// The same, for pages of any origin.
    pub fn answer_anybody(&self, asked: &HeaderMap) -> Response {
        let mut response = self.answer(asked);
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        headers.insert(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("cross-origin"),
        );
        response
    }
}

/// FNV-1a, worked out by the compiler.
const fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}
