//! How HTTP answers: JSON bodies, and errors that say what to do next.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json, json};

use crate::protocol::{self, ErrorCode, Failure, JsonLimits, Language};

/// An error answer: `{"code":…,"error":…,"msg":…}`.
#[derive(Debug)]
pub struct Refused {
    /// What happened.
    pub failure: Failure,
    /// The language of `msg`.
    pub language: Language,
}

impl Refused {
    /// What is told.
    pub fn body(&self) -> Json {
        let code = self.failure.code;
        let mut body = json!({
            "code": code.status(), "error": code.slug(), "msg": code.message(self.language),
        });
        if let Some(detail) = self.failure.detail {
            body["detail"] = detail.into();
        }
        if let Some(wait) = self.failure.retry_after_ms {
            body["retry_after_ms"] = wait.into();
        }
        body
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = self.failure.code.status();
        let mut response = with_status(status, self.body().to_string());
        if let Some(wait) = self.failure.retry_after_ms {
            let seconds = HeaderValue::from(wait.div_ceil(1000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

/// Says with a 401 what is asked for (RFC 9110 §15.5.2).
pub fn challenge(response: &mut Response) {
    if response.status() == StatusCode::UNAUTHORIZED {
        let bearer = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, bearer);
    }
}

/// A JSON body with status 200.
pub fn ok(body: String) -> Response {
    with_status(200, body)
}

/// A JSON body.
pub fn with_status(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = [
        (header::CONTENT_TYPE, "application/json; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, kind, body).into_response()
}

/// Reads a JSON body as text; an empty one is `None`.
///
/// # Errors
/// 413 where it is too long, 415 where it says that it is something else or is compressed, 400 if it is
/// not UTF-8, 408 if it is not there within `timeout`.
pub async fn json_text(request: Request, timeout: Duration) -> Result<Option<String>, ErrorCode> {
    let is_json = says_json(request.headers());
    // What it inflates to could not be known before.
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(ErrorCode::UnsupportedMediaType);
    }
    let bytes = tokio::time::timeout(timeout, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ErrorCode::RequestTimeout)?
        .map_err(|rejection| match rejection.into_response().status() {
            StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::PayloadTooLarge,
            _ => ErrorCode::BadJson,
        })?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if !is_json {
        return Err(ErrorCode::UnsupportedMediaType);
    }
    let text = String::from_utf8(bytes.into()).map_err(|_| ErrorCode::BadJson)?;
    Ok(Some(text))
}

/// Reads an optional JSON object.
///
/// # Errors
/// As [`json_text`], and of [`protocol::object`].
pub async fn json_object(
    request: Request,
    timeout: Duration,
    limits: &JsonLimits,
) -> Result<Map<String, Json>, Failure> {
    match json_text(request, timeout).await? {
        None => Ok(Map::new()),
        Some(text) => protocol::object(&text, limits),
    }
}

/// `application/json` or `application/…+json`, whatever parameters follow.
fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or("")
        .trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}
