//! The door of a process: its listener is open from the first moment, and says how the process is,
//! while the rest behind it may still be waiting for a database or a bus.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::{Request, State},
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Map, Value as Json, json};
use tower::ServiceExt;

use super::{Edge, answer, answer::Refused, router, stream};
use crate::{
    metrics::{Health, Metrics},
    protocol::{ErrorCode, Language},
};

/// What a refused client is told to wait while the process starts.
const RETRY_AFTER_MS: u32 = 1000;

/// A process's HTTP. Cloning shares it.
///
/// `/healthz`, `/readyz` and `/metrics` are answered from the first moment; everything else with
/// 503 until [`Door::open`], or with 404 where nothing ever will be behind it.
#[derive(Debug, Clone)]
pub struct Door(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    behind: OnceLock<(Router, Arc<Edge>)>,
    closed: ErrorCode,
    health: Health,
    metrics: Metrics,
    language: Language,
}

impl Door {
    /// The door of a gateway that starts.
    pub fn of_gateway(health: Health, metrics: Metrics, language: Language) -> Self {
        Self::new(ErrorCode::Starting, health, metrics, language)
    }

    /// The door of a change producer: it says how it is, and serves nothing else.
    pub fn of_producer(health: Health, metrics: Metrics, language: Language) -> Self {
        Self::new(ErrorCode::NotFound, health, metrics, language)
    }

    fn new(closed: ErrorCode, health: Health, metrics: Metrics, language: Language) -> Self {
        Self(Arc::new(Inner {
            behind: OnceLock::new(),
            closed,
            health,
            metrics,
            language,
        }))
    }

    /// Lets requests in, from now on; the first call counts.
    pub fn open(&self, edge: Arc<Edge>) {
        self.0.behind.get_or_init(|| (router(edge.clone()), edge));
    }

    /// What the routes need, once the door is open.
    pub(super) fn edge(&self) -> Option<&Arc<Edge>> {
        self.0.behind.get().map(|(_, edge)| edge)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(super) fn language(&self) -> Language {
        self.0.language
    }

    pub(super) fn routes(&self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(pass)
            .method_not_allowed_fallback(wrong_method)
            .with_state(self.clone())
    }
}

/// Hands a request to what is behind the door.
async fn pass(State(door): State<Door>, request: Request) -> Response {
    match door.0.behind.get() {
        Some((router, _)) => match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        None => {
            door.0.metrics.error(door.0.closed.slug());
            let mut failure: crate::protocol::Failure = door.0.closed.into();
            failure.retry_after_ms =
                (door.0.closed == ErrorCode::Starting).then_some(RETRY_AFTER_MS);
            if failure.retry_after_ms.is_some() && stream::is_event_source(request.headers()) {
                return stream::come_back(RETRY_AFTER_MS);
            }
            Refused {
                failure,
                language: door.0.language,
            }
            .into_response()
        }
    }
}

/// Another method than GET on a path that is answered here.
async fn wrong_method(State(door): State<Door>) -> Response {
    let code = ErrorCode::MethodNotAllowed;
    door.0.metrics.error(code.slug());
    let refused = Refused {
        failure: code.into(),
        language: door.0.language,
    };
    refused.into_response()
}

/// `GET /healthz`: the process answers.
async fn healthz() -> Response {
    answer::ok(json!({ "status": "alive" }).to_string())
}

/// `GET /readyz`: everything that is needed is there, or what is missing.
async fn readyz(State(door): State<Door>) -> Response {
    let missing = door.0.health.missing();
    let opened = door.0.behind.get().is_some() || door.0.closed != ErrorCode::Starting;
    if missing.is_empty() && opened {
        return answer::ok(json!({ "status": "ready" }).to_string());
    }
    let parts = missing
        .into_iter()
        .map(|(part, reason)| (part.to_string(), reason.into()));
    let missing: Map<String, Json> = parts.collect();
    answer::with_status(
        503,
        json!({ "status": "not_ready", "missing": missing }).to_string(),
    )
}

/// `GET /metrics`
async fn metrics(State(door): State<Door>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], door.0.metrics.to_text()).into_response()
}
