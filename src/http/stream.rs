//! `GET /api/stream`: the group over Server-Sent Events.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{Extensions, HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};

use super::{Edge, who::Whence};
use crate::{
    callers::Crowded,
    identity::Identity,
    protocol::{ErrorCode, Failure},
    session,
};

/// What a browser sends when it connects again: the cursor of the last event it got.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /api/stream?types=&since=`
pub async fn events(
    State(edge): State<Arc<Edge>>,
    Extension(identity): Extension<Identity>,
    RawQuery(query): RawQuery,
    extensions: Extensions,
    headers: HeaderMap,
) -> Response {
    if !edge.admits(&headers, &extensions) {
        return edge.refuse(ErrorCode::Forbidden).into_response();
    }
    match edge.stream(
        query.as_deref().unwrap_or(""),
        identity,
        (&headers, &extensions),
    ) {
        Ok(response) => response,
        Err(failure) => {
            let wait = failure.retry_after_ms.filter(|_| is_event_source(&headers));
            let refused = edge.refuse(failure);
            wait.map_or_else(|| refused.into_response(), come_back)
        }
    }
}

/// Whether it is a browser's `EventSource` that asks. It gives up for good on an answer that is not
/// 200 (HTML standard, "reestablish the connection").
pub(super) fn is_event_source(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    accept.is_some_and(|accept| accept.as_bytes() == b"text/event-stream")
}

/// A stream that ends at once, and has an `EventSource` come back after a while, or up to half as long again: those who
/// are refused at once do not all come at once again.
pub(super) fn come_back(after_ms: u32) -> Response {
    let mut byte = [0_u8; 1];
    // Without randomness they are only less well spread.
    let _ = getrandom::fill(&mut byte);
    let after_ms = after_ms + after_ms / 2 * u32::from(byte[0]) / u32::from(u8::MAX);
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, format!("retry: {after_ms}\n\n")).into_response()
}

impl Edge {
    fn stream(
        &self,
        query: &str,
        identity: Identity,
        (headers, extensions): (&HeaderMap, &Extensions),
    ) -> Result<Response, Failure> {
        let mut opening = self.opening(query, Some(identity))?;
        opening.from = extensions.get().map(|Whence(from)| *from);
        if opening.hello_first {
            return Err(Failure::param("hello: on a WebSocket"));
        }
        // It is newer than what stands in the URL, which a browser does not change.
        if let Some(last) = headers.get(LAST_EVENT_ID).filter(|last| !last.is_empty()) {
            let since = last.to_str().ok().and_then(|text| text.parse().ok());
            let since = since.ok_or(Failure::param("Last-Event-ID: a cursor"))?;
            opening.since = Some(since);
        }
        let share = self.gateway.identities.admit(&opening.identity);
        opening.share = share.map_err(|Crowded| self.crowded())?;
        let body = session::stream(self.gateway.clone(), opening)?;
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            // nginx would gather events before it passes them on.
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        Ok((headers, Body::from_stream(body)).into_response())
    }
}
