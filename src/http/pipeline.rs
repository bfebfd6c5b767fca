//! What an operator looks at: how the pipeline stands, and the dead letters.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::{Value as Json, json};

use super::{Edge, answer};
use crate::{
    bus::DeadLetter,
    identity::Identity,
    protocol::{ErrorCode, Failure},
};

/// Dead letters of an answer where nobody says how many.
const DEFAULT_LIMIT: usize = 50;

/// The most dead letters of an answer.
const MAX_LIMIT: usize = 200;

/// Lets operators alone through on a listener for clients. Where nobody is judged, whoever reaches one that
/// shows the pipeline is one.
pub async fn operators(State(edge): State<Arc<Edge>>, request: Request, next: Next) -> Response {
    let auth = &edge.gateway.auth;
    let who = request.extensions().get::<Identity>();
    if auth.judges() && !who.is_some_and(|who| auth.is_operator(who)) {
        return edge.refuse(ErrorCode::Forbidden).into_response();
    }
    next.run(request).await
}

/// `GET /api/pipeline`
pub async fn report(State(edge): State<Arc<Edge>>) -> Response {
    match edge.pipeline.report().await {
        Ok(body) => answer::ok(body.to_string()),
        Err(_) => edge.refuse(ErrorCode::BusUnavailable).into_response(),
    }
}

/// `GET /api/dead_letters?limit=`
pub async fn dead_letters(State(edge): State<Arc<Edge>>, RawQuery(query): RawQuery) -> Response {
    let limit = match limit(query.as_deref().unwrap_or("")) {
        Ok(limit) => limit,
        Err(failure) => return edge.refuse(failure).into_response(),
    };
    let Ok(found) = edge.pipeline.dead_letters(limit).await else {
        return edge.refuse(ErrorCode::BusUnavailable).into_response();
    };
    let letters: Vec<Json> = found.letters.iter().take(limit).map(shown).collect();
    let body = json!({ "dead_letters": letters, "total": found.total, "kept": found.kept });
    answer::ok(body.to_string())
}

fn shown(letter: &DeadLetter) -> Json {
    json!({
        "seq": letter.seq, "at": letter.at_ms, "subject": letter.subject, "type": letter.topic,
        "reason": letter.reason, "of": letter.of, "size": letter.size, "text": letter.text,
    })
}

fn limit(query: &str) -> Result<usize, Failure> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, text)) = pairs.find(|(name, _)| name == "limit") else {
        return Ok(DEFAULT_LIMIT);
    };
    let limit = text.parse().ok();
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| Failure::param("limit: 1 to 200"))
}
