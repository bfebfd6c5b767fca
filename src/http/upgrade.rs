//! The WebSocket handshake (RFC 6455 §4.2): what a request must bring, and the answer to it.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, Version, header},
    response::Response,
};
use tungstenite::handshake::derive_accept_key;

use super::headers::{Headers, text};
use crate::session::deflate::Agreed;

/// Room for an answer, whatever was agreed on.
const ANSWER_BYTES: usize = 320;

/// The letters of a key: 16 bytes in base64.
const KEY_LETTERS: usize = 22;

/// Why a request is no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHandshake {
    /// It asks for no WebSocket, or for another version of them.
    NotAsked,
    /// It asks, and breaks a rule: this one.
    Malformed(&'static str),
}

/// A handshake that can be answered.
#[derive(Debug)]
pub struct Handshake {
    accept: String,
}

/// The answer that opens a socket.
#[derive(Debug)]
pub struct Answer {
    accept: String,
    subprotocol: Option<&'static str>,
    extension: Option<String>,
}

impl Handshake {
    /// Reads what a request asks for.
    ///
    /// # Errors
    /// What is missing, or wrong.
    pub fn read(
        method: &Method,
        version: Version,
        headers: &impl Headers,
    ) -> Result<Self, NoHandshake> {
        // Of HTTP/1.0 the header must be ignored (RFC 9110 §7.8).
        let asked = version == Version::HTTP_11
            && method == Method::GET
            && lists(headers, header::UPGRADE, |token| {
                token.eq_ignore_ascii_case(b"websocket")
            })
            && lists(headers, header::CONNECTION, |token| {
                token.eq_ignore_ascii_case(b"upgrade")
            });
        if !asked {
            return Err(NoHandshake::NotAsked);
        }
        let version = "Sec-WebSocket-Version: once";
        match once(headers, header::SEC_WEBSOCKET_VERSION, version)? {
            Some(b"13") => {}
            _ => return Err(NoHandshake::NotAsked),
        }
        if once(headers, header::HOST, "Host: once")?.is_none() {
            return Err(NoHandshake::Malformed("Host: once"));
        }
        once(headers, header::ORIGIN, "Origin: once")?;
        // The bytes of a body would be taken for frames.
        let length = once(headers, header::CONTENT_LENGTH, "Content-Length: once")?;
        if length.is_some_and(|length| length != b"0") || headers.has(header::TRANSFER_ENCODING) {
            return Err(NoHandshake::Malformed("a handshake has no body"));
        }
        let rule = "Sec-WebSocket-Key: 16 bytes in base64, once";
        let key = once(headers, header::SEC_WEBSOCKET_KEY, rule)?;
        let key = key.filter(|key| is_key(key));
        let key = key.ok_or(NoHandshake::Malformed(rule))?;
        let accept = derive_accept_key(key);
        Ok(Self { accept })
    }

    /// The answer that opens the socket, with the subprotocol and the extension that were chosen.
    pub fn answer(self, subprotocol: Option<&'static str>, agreed: Option<Agreed>) -> Answer {
        Answer {
            accept: self.accept,
            subprotocol,
            extension: agreed.map(Agreed::answer),
        }
    }
}

impl Answer {
    /// As it goes over the wire.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(ANSWER_BYTES);
        text.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        for (name, value) in self.headers() {
            let line = [name.as_str(), ": ", value, "\r\n"];
            line.iter()
                .for_each(|part| text.extend_from_slice(part.as_bytes()));
        }
        text.extend_from_slice(b"\r\n");
        text
    }

    /// As hyper takes it.
    pub fn response(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = self.headers().map(|(name, value)| {
            let value = HeaderValue::try_from(value);
            (name, value.expect("words and base64 are a header's values"))
        });
        response.headers_mut().extend(headers);
        response
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let chosen = [
            (header::SEC_WEBSOCKET_PROTOCOL, self.subprotocol),
            (header::SEC_WEBSOCKET_EXTENSIONS, self.extension.as_deref()),
        ];
        let always = [
            (header::CONNECTION, "upgrade"),
            (header::UPGRADE, "websocket"),
            (header::SEC_WEBSOCKET_ACCEPT, self.accept.as_str()),
        ];
        let chosen = chosen.into_iter();
        always
            .into_iter()
            .chain(chosen.filter_map(|(name, value)| Some((name, value?))))
    }
}

/// Whether the client offers a subprotocol, whose name's case counts.
pub fn offers(headers: &impl Headers, subprotocol: &str) -> bool {
    lists(headers, header::SEC_WEBSOCKET_PROTOCOL, |name| {
        name == subprotocol.as_bytes()
    })
}

/// The first offer of compression that can be kept.
pub fn compression(headers: &impl Headers) -> Option<Agreed> {
    let offers = headers.lines(header::SEC_WEBSOCKET_EXTENSIONS);
    Agreed::among(offers.filter_map(text))
}

/// Whether a header's list, on however many lines, has such a member.
fn lists(headers: &impl Headers, name: HeaderName, is: impl Fn(&[u8]) -> bool) -> bool {
    let lines = headers.lines(name);
    lines
        .flat_map(|line| line.split(|byte| *byte == b','))
        .any(|member| is(member.trim_ascii()))
}

/// The value of a header that may be there once.
fn once<'a>(
    headers: &'a impl Headers,
    name: HeaderName,
    rule: &'static str,
) -> Result<Option<&'a [u8]>, NoHandshake> {
    let mut lines = headers.lines(name);
    match (lines.next(), lines.next()) {
        (only, None) => Ok(only),
        _ => Err(NoHandshake::Malformed(rule)),
    }
}

fn is_key(key: &[u8]) -> bool {
    let Some(letters) = key.strip_suffix(b"==") else {
        return false;
    };
    let base64 = |letter: &u8| letter.is_ascii_alphanumeric() || matches!(letter, b'+' | b'/');
    letters.len() == KEY_LETTERS && letters.iter().all(base64)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    /// A browser's handshake, changed: a value of `-` takes the header away, a leading `+` adds
    /// a line to what is there.
    fn read(changes: &[(&'static str, &'static str)]) -> Result<(), NoHandshake> {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "care.example"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        .iter()
        .chain(changes)
        {
            let name = HeaderName::from_static(name);
            match value.strip_prefix('+') {
                _ if *value == "-" => drop(headers.remove(name)),
                Some(more) => drop(headers.append(name, HeaderValue::from_static(more))),
                None => drop(headers.insert(name, HeaderValue::from_static(value))),
            }
        }
        Handshake::read(&Method::GET, Version::HTTP_11, &headers).map(drop)
    }

    #[test]
    fn what_clients_send_in_good_faith_is_a_handshake() {
        for changes in [
            &[][..],
            &[("connection", "keep-alive, Upgrade")],
            &[("connection", "keep-alive"), ("connection", "+upgrade")],
            &[("upgrade", "WebSocket")],
            &[("upgrade", "h2c, websocket")],
            &[("content-length", "0")],
            &[("sec-websocket-extensions", "permessage-deflate")],
            &[("sec-websocket-key", "//////////////////////==")],
        ] {
            assert_eq!(read(changes), Ok(()), "{changes:?}");
        }
    }

    #[test]
    fn who_asks_for_no_websocket_is_told_what_is_needed() {
        for changes in [
            [("connection", "-")],
            [("connection", "close")],
            [("connection", "upgraded")],
            [("upgrade", "-")],
            [("upgrade", "websockets")],
            [("upgrade", "h2c")],
            [("sec-websocket-version", "-")],
            [("sec-websocket-version", "8")],
            [("sec-websocket-version", "13, 8")],
        ] {
            assert_eq!(read(&changes), Err(NoHandshake::NotAsked), "{changes:?}");
        }
        let nothing = HeaderMap::new();
        for (method, version) in [
            (Method::HEAD, Version::HTTP_11),
            (Method::GET, Version::HTTP_10),
            (Method::CONNECT, Version::HTTP_2),
        ] {
            let read = Handshake::read(&method, version, &nothing);
            assert_eq!(read.map(drop), Err(NoHandshake::NotAsked));
        }
    }

    #[test]
    fn a_handshake_that_breaks_a_rule_is_told_which() {
        for (change, rule) in [
            (("sec-websocket-key", "-"), "Sec-WebSocket-Key"),
            (("sec-websocket-key", "c2hvcnQ="), "Sec-WebSocket-Key"),
            (
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ="),
                "Sec-WebSocket-Key",
            ),
            (
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQAA"),
                "Sec-WebSocket-Key",
            ),
            (
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZ-=="),
                "Sec-WebSocket-Key",
            ),
            (
                ("sec-websocket-key", "+dGhlIHNhbXBsZSBub25jZQ=="),
                "Sec-WebSocket-Key",
            ),
            (("sec-websocket-version", "+13"), "Sec-WebSocket-Version"),
            (("host", "-"), "Host"),
            (("host", "+evil.example"), "Host"),
            (("content-length", "4"), "a handshake has no body"),
            (("transfer-encoding", "chunked"), "a handshake has no body"),
        ] {
            match read(&[change]) {
                Err(NoHandshake::Malformed(told)) => assert!(told.starts_with(rule), "{told}"),
                other => panic!("{change:?}: {other:?}"),
            }
        }
        let twice = read(&[
            ("origin", "http://care.example"),
            ("origin", "+http://evil.example"),
        ]);
        assert_eq!(twice, Err(NoHandshake::Malformed("Origin: once")));
    }

    #[test]
    fn the_answer_is_the_one_of_the_rfc() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "server.example.com"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, superchat"),
            ("sec-websocket-version", "13"),
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let handshake = Handshake::read(&Method::GET, Version::HTTP_11, &headers).unwrap();
        assert!(offers(&headers, "chat") && !offers(&headers, "Chat"));
        let answer = handshake.answer(Some("chat"), None);
        assert_eq!(
            String::from_utf8(answer.text()).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\n\
             connection: upgrade\r\n\
             upgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             sec-websocket-protocol: chat\r\n\r\n"
        );
        let response = answer.response();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        let accept = &response.headers()[header::SEC_WEBSOCKET_ACCEPT];
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(response.headers()[header::SEC_WEBSOCKET_PROTOCOL], "chat");
        assert_eq!(response.headers().len(), 4);
    }
}
