//! What a request shows of who sends it, and who that is: for sockets before the handshake is answered, for
//! everything else before it is looked at any further.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{Extensions, HeaderName, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;

use super::{
    Edge, answer,
    headers::{Asked, Headers, text},
    owed::Warrant,
    sockets, stream,
};
use crate::auth::{Admission, Handshake, Presented, RETRY_AFTER_MS, Refused};

/// The tutorial's header.
pub(super) const TOKEN: HeaderName = HeaderName::from_static("token");

/// How a token is written where only the names of subprotocols can be sent: `bearer.<token>`.
const SUBPROTOCOL: &str = "bearer.";

/// Whether a browser sends a request of a page of the same host, which no page can forge (Fetch Metadata).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What anybody may have: the console and the client, which are the same for all.
const PUBLIC: [&str; 3] = ["/", "/rowcast.js", "/rowcast.d.ts"];

/// The console's own files.
const PUBLIC_FILES: &str = "/console/";

impl Edge {
    /// What a request shows; nothing is read where nothing is judged.
    pub(super) fn presented(&self, asked: &Asked<'_, impl Headers>) -> Presented {
        let (uri, headers) = (asked.uri, asked.headers);
        let auth = &self.gateway.auth;
        if !auth.judges() {
            return Presented::default();
        }
        let cookies = self.counts_cookies(headers, asked.extensions);
        let cookie = || {
            let name = self.tokens.cookie.as_deref().filter(|_| cookies)?;
            cookie(headers, name)
        };
        let in_url = || {
            let query = uri.query().filter(|_| self.tokens.in_url)?;
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let (_, token) = pairs.find(|(name, _)| name == "token")?;
            Some(token.into_owned())
        };
        let token = token_text(headers, TOKEN)
            .or_else(|| bearer(headers))
            .or_else(|| subprotocol(headers))
            .or_else(cookie)
            .or_else(in_url);
        let handshake = match auth.asks() {
            true => Handshake {
                path: Some(Bytes::copy_from_slice(uri.path().as_bytes())),
                cookie: raw(headers, header::COOKIE).filter(|_| cookies),
                authorization: raw(headers, header::AUTHORIZATION),
                token: raw(headers, TOKEN),
                origin: raw(headers, header::ORIGIN),
            },
            false => Handshake::default(),
        };
        Presented {
            token,
            handshake,
            from: asked.from.map(|Whence(from)| from),
        }
    }

    /// A browser sends cookies for whatever page asks it to. They count only for pages that may connect
    /// by name: not for all that may because all may.
    fn counts_cookies(&self, headers: &impl Headers, extensions: &Extensions) -> bool {
        if self.origins.any() {
            return false;
        }
        match headers.has(header::ORIGIN) {
            true => self.admits(headers, extensions),
            // Of a page of the same host a browser sends none, unless it is for a socket or a write.
            false => headers.first(FETCH_SITE) == Some(b"same-origin"),
        }
    }

    /// Refuses somebody, and counts it.
    pub(super) fn turn_away(&self, refused: Refused) -> Response {
        self.gateway.metrics.auth.refused(refused.reason());
        let mut response = self.refuse(refused.failure()).into_response();
        answer::challenge(&mut response);
        response
    }
}

/// Where a request comes from, or whoever a proxy says that it brings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whence(pub IpAddr);

/// How tokens may come beside the headers.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// The cookie in which one may stand.
    pub cookie: Option<String>,
    /// Whether one may stand in the URL.
    pub in_url: bool,
}

/// Finds out who sends a request, and refuses nobody in particular where a token is needed. What comes
/// behind finds the [`crate::identity::Identity`] among the request's extensions.
pub async fn identified(
    State(edge): State<Arc<Edge>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_public = PUBLIC.contains(&path) || path.starts_with(PUBLIC_FILES);
    // A handshake has been judged, or is none and learns nothing.
    if is_public || sockets::is_path(path) {
        return next.run(request).await;
    }
    let presented = edge.presented(&Asked::from(&request));
    let admission: Admission = edge.gateway.auth.judge(&presented).await;
    match admission {
        Ok(identity) => {
            let warrant = Warrant::of(&edge.gateway.auth, &identity);
            let reads = request.method().is_safe();
            request.extensions_mut().insert(identity);
            let mut response = next.run(request).await;
            if let Some(warrant) = warrant {
                // What was done is told; what was read is for who may still see it.
                if let Some(refused) = warrant.over().filter(|_| reads) {
                    return edge.turn_away(refused);
                }
                response.extensions_mut().insert(warrant);
            }
            response
        }
        Err(refused) => {
            let is_stream = stream::is_event_source(request.headers());
            let response = edge.turn_away(refused);
            match refused {
                // It would give up for good.
                Refused::Unavailable if is_stream => stream::come_back(RETRY_AFTER_MS),
                _ => response,
            }
        }
    }
}

/// A header as text. What is no text is no token, and is refused as one.
fn token_text(headers: &impl Headers, name: HeaderName) -> Option<String> {
    let value = headers.first(name).filter(|value| !value.is_empty())?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// `Authorization: Bearer <token>` (RFC 6750 §2.1)
fn bearer(headers: &impl Headers) -> Option<String> {
    let value = token_text(headers, header::AUTHORIZATION)?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

fn subprotocol(headers: &impl Headers) -> Option<String> {
    let lines = headers.lines(header::SEC_WEBSOCKET_PROTOCOL);
    let mut names = lines.filter_map(text).flat_map(|line| line.split(','));
    let token = names.find_map(|name| name.trim().strip_prefix(SUBPROTOCOL))?;
    (!token.is_empty()).then(|| token.to_owned())
}

/// The cookie of that name (RFC 6265 §5.4). A name that stands there twice is somebody's attempt: the first
/// is the one of the longer path, as servers read it.
fn cookie(headers: &impl Headers, name: &str) -> Option<String> {
    let lines = headers.lines(header::COOKIE).filter_map(text);
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then(|| value.to_owned())
}

fn raw(headers: &impl Headers, name: HeaderName) -> Option<Bytes> {
    let is_list = name == header::COOKIE;
    let mut lines = headers.lines(name);
    let mut value = lines.next()?.to_vec();
    // Several lines of cookies are one list.
    for line in lines.filter(|_| is_list) {
        value.extend_from_slice(b"; ");
        value.extend_from_slice(line);
    }
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn a_token_is_found_where_it_may_stand_and_nowhere_else() {
        let of = |lines: &[(&'static str, &'static str)]| bearer(&headers(lines));
        assert_eq!(
            of(&[("authorization", "Bearer abc")]).as_deref(),
            Some("abc")
        );
        assert_eq!(
            of(&[("authorization", "bEARER  abc ")]).as_deref(),
            Some("abc")
        );
        for other in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(of(&[("authorization", other)]), None, "{other}");
        }
        let of = |value| subprotocol(&headers(&[("sec-websocket-protocol", value)]));
        assert_eq!(of("rowcast, bearer.abc.def").as_deref(), Some("abc.def"));
        assert_eq!(
            of("rowcast,bearer.").or(of("Bearer.abc")).or(of("rowcast")),
            None
        );
        let of = |value| cookie(&headers(&[("cookie", value)]), "sid");
        assert_eq!(of("a=1; sid=abc; b=2").as_deref(), Some("abc"));
        assert_eq!(of("sid=\"abc\"").as_deref(), Some("abc"));
        assert_eq!(
            of("xsid=1; SID=2; sid=").or(of("sid")).or(of("a=sid=1")),
            None
        );
        assert_eq!(token_text(&headers(&[("token", "")]), TOKEN), None);
    }
}
