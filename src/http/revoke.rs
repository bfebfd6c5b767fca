//! `POST /api/revoke`: an operator ends what was granted to somebody.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{Edge, answer};
use crate::{
    identity::Identity,
    protocol::{ErrorCode, Failure},
};

/// What is said where it is not kept.
const ALONE: &str = "it holds on this gateway alone: repeat it; if that does not help, \
    the gateway's log says what is in the way";

/// `POST /api/revoke`, with `{"sub":…}` or `{"jti":…}`. For operators alone: where nobody is one it is
/// as forbidden as anything.
pub async fn revoke(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    match edge.revoke(request).await {
        Ok(()) => answer::with_status(202, json!({ "code": 202 }).to_string()),
        Err(failure) => edge.refuse(failure).into_response(),
    }
}

impl Edge {
    async fn revoke(&self, request: Request) -> Result<(), Failure> {
        let auth = &self.gateway.auth;
        let who = request.extensions().get::<Identity>();
        if !who.is_some_and(|who| auth.is_operator(who)) {
            return Err(ErrorCode::Forbidden.into());
        }
        let body =
            answer::json_object(request, self.body_timeout, &self.gateway.config.json).await?;
        let revocation = auth.revocation(&body).map_err(Failure::param)?;
        match auth.revoke_for_good(revocation).await {
            true => Ok(()),
            false => Err(Failure {
                detail: Some(ALONE),
                ..ErrorCode::BusUnavailable.into()
            }),
        }
    }
}
