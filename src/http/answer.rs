//! How HTTP answers: JSON bodies, and errors that say what to do next.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value as Json, json};

use crate::protocol::{ErrorCode, Failure, Language};

/// How long the at most 64 KiB of a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

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
/// 413 over 64 KiB, 415 where the body says that it is something else, 400 if it is not UTF-8, 408 if
/// it takes too long to come.
pub async fn json_text(request: Request) -> Result<Option<String>, ErrorCode> {
    let is_json = says_json(request.headers());
    let bytes = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
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
/// As [`json_text`], and 400 where the body is no object.
pub async fn json_object(request: Request) -> Result<Map<String, Json>, ErrorCode> {
    match json_text(request).await? {
        None => Ok(Map::new()),
        Some(text) => serde_json::from_str(&text).map_err(|_| ErrorCode::BadJson),
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
