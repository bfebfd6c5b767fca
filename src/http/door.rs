//! The door of a process: its listener is open from the first moment, and says how the process is,
//! while the rest behind it may still be waiting for a database or a bus.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::{RawQuery, Request, State},
    http::header,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::{Map, Value as Json, json};
use tower::ServiceExt;

use super::{Edge, answer, answer::Refused, pipeline, router, stream};
use crate::{
    metrics::{Health, Metrics},
    protocol::{ErrorCode, Failure, Language},
};

/// The paths that are not the same on every listener.
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";
const METRICS: &str = "/metrics";
pub(super) const PIPELINE: &str = "/api/pipeline";
pub(super) const DEAD_LETTERS: &str = "/api/dead_letters";

/// What a refused client is told to wait while the process starts.
const RETRY_AFTER_MS: u32 = 1000;

/// What of a process a listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Everything.
    Whole,
    /// What is for clients, and for supervisors whether all is well.
    Public,
    /// What is for operators: how the process is, and why.
    Operator,
}

/// A process's HTTP, on as many listeners as there are. Cloning shares it.
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

    pub(super) fn routes(&self, face: Face) -> Router {
        let routes = Router::new().route(HEALTHZ, get(healthz));
        let routes = match face {
            Face::Whole => routes
                .route(READYZ, get(readyz))
                .route(METRICS, get(metrics))
                .fallback(pass),
            Face::Public => routes
                .route(READYZ, get(ready))
                .route(METRICS, any(absent))
                .route(PIPELINE, any(absent))
                .route(DEAD_LETTERS, any(absent))
                .fallback(pass),
            Face::Operator => routes
                .route(READYZ, get(readyz))
                .route(METRICS, get(metrics))
                .route(PIPELINE, get(report))
                .route(DEAD_LETTERS, get(dead_letters))
                .fallback(absent),
        };
        routes
            .method_not_allowed_fallback(wrong_method)
            .with_state(self.clone())
    }

    /// An error answer, counted.
    pub(super) fn refuse(&self, failure: impl Into<Failure>) -> Refused {
        let failure = failure.into();
        self.0.metrics.error(failure.code.slug());
        Refused {
            failure,
            language: self.0.language,
        }
    }

    /// What is said while there is nothing behind the door.
    fn closed(&self) -> Failure {
        let mut failure: Failure = self.0.closed.into();
        failure.retry_after_ms = (self.0.closed == ErrorCode::Starting).then_some(RETRY_AFTER_MS);
        failure
    }

    /// What keeps the process from being ready; none where it is.
    fn missing(&self) -> Option<Map<String, Json>> {
        let missing = self.0.health.missing();
        let opened = self.0.behind.get().is_some() || self.0.closed != ErrorCode::Starting;
        let parts = missing
            .into_iter()
            .map(|(part, reason)| (part.to_string(), reason.into()));
        let missing: Map<String, Json> = parts.collect();
        (!missing.is_empty() || !opened).then_some(missing)
    }
}

/// Whether it is one of the paths by which supervisors look after a process. They come under whatever
/// name, and learn nothing that is worth hiding.
pub(super) fn is_health(path: &str) -> bool {
    matches!(path, HEALTHZ | READYZ)
}

/// What is not on this listener.
async fn absent(State(door): State<Door>) -> Response {
    door.refuse(ErrorCode::NotFound).into_response()
}

/// `GET /api/pipeline`, for an operator.
async fn report(State(door): State<Door>) -> Response {
    match door.edge() {
        Some(edge) => pipeline::report(State(edge.clone())).await,
        None => door.refuse(door.closed()).into_response(),
    }
}

/// `GET /api/dead_letters?limit=`, for an operator.
async fn dead_letters(State(door): State<Door>, query: RawQuery) -> Response {
    match door.edge() {
        Some(edge) => pipeline::dead_letters(State(edge.clone()), query).await,
        None => door.refuse(door.closed()).into_response(),
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
            let refused = door.refuse(door.closed());
            if refused.failure.retry_after_ms.is_some()
                && stream::is_event_source(request.headers())
            {
                return stream::come_back(RETRY_AFTER_MS);
            }
            refused.into_response()
        }
    }
}

/// Another method than GET on a path that is answered here.
async fn wrong_method(State(door): State<Door>) -> Response {
    door.refuse(ErrorCode::MethodNotAllowed).into_response()
}

/// `GET /healthz`: the process answers.
async fn healthz() -> Response {
    answer::ok(json!({ "status": "alive" }).to_string())
}

/// `GET /readyz`: everything that is needed is there, or what is missing.
async fn readyz(State(door): State<Door>) -> Response {
    match door.missing() {
        None => answer::ok(json!({ "status": "ready" }).to_string()),
        Some(missing) => {
            let body = json!({ "status": "not_ready", "missing": missing });
            answer::with_status(503, body.to_string())
        }
    }
}

/// `GET /readyz` for everybody: whether, and not why.
async fn ready(State(door): State<Door>) -> Response {
    match door.missing() {
        None => answer::ok(json!({ "status": "ready" }).to_string()),
        Some(_) => answer::with_status(503, json!({ "status": "not_ready" }).to_string()),
    }
}

/// `GET /metrics`
async fn metrics(State(door): State<Door>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], door.0.metrics.to_text()).into_response()
}
