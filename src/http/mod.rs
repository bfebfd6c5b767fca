//! HTTP: the routes, and what holds for all of them.

mod accept;
mod answer;
mod api;
mod authority;
mod begun;
mod client;
mod connection;
mod console;
mod crumbs;
mod demo;
mod desk;
mod door;
mod farewell;
mod files;
mod framing;
mod greeting;
mod headers;
mod hosts;
mod origins;
mod owed;
mod pace;
mod peer;
mod pipeline;
mod proxies;
mod refusals;
mod revoke;
mod sockets;
mod stream;
mod tls;
mod types;
mod upgrade;
mod who;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowCredentials, AllowOrigin, Any, CorsLayer},
    set_header::SetResponseHeaderLayer,
};

pub use accept::{Terms, serve};
pub use demo::{Demo, hint};
pub use door::{Door, Face};
pub use hosts::{AllowedHosts, Hosts, Usual};
pub use origins::Origins;
pub use proxies::Proxies;
pub use tls::{Tls, TlsError};
pub use who::Tokens;

use crate::{
    fanout::{Pages, Publisher},
    groups::Group,
    pipeline::Pipeline,
    protocol::{ErrorCode, Failure},
    session::Gateway,
};
use answer::Refused;

/// The methods of the tutorial's `CORS_ALLOW_METHODS`.
pub const CORS_METHODS: [&str; 7] = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "VIEW"];

/// The headers of the tutorial's `CORS_ALLOW_HEADERS`.
pub const CORS_HEADERS: [&str; 12] = [
    "xmlhttprequest",
    "x_filename",
    "accept-encoding",
    "authorization",
    "content-type",
    "dnt",
    "origin",
    "user-agent",
    "x-csrftoken",
    "x-requested-with",
    "pragma",
    "token",
];

/// The console's own files and sockets, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the routes need.
#[derive(Debug)]
pub struct Edge {
    /// What sessions share.
    pub gateway: Arc<Gateway>,
    /// Applications' events.
    pub publisher: Publisher,
    /// Page topics, for a refresh.
    pub pages: Pages,
    /// How all that leads to the sockets stands.
    pub pipeline: Pipeline,
    /// The demo's trigger views; none on a database of the user's own.
    pub demo: Option<Demo>,
    /// Who may connect from a browser.
    pub origins: Origins,
    /// How long a body may take to come.
    pub body_timeout: Duration,
    /// How tokens may come beside the headers.
    pub tokens: Tokens,
    /// The sockets of the tutorial's echo.
    pub echoes: Group,
}

/// The routes behind the door.
fn router(edge: Arc<Edge>) -> Router {
    let cors = cors(&edge.origins);
    let body_bytes = edge.gateway.config.max_message_bytes;
    let of_operators = Router::new()
        .route(door::PIPELINE, get(pipeline::report))
        .route(door::DEAD_LETTERS, get(pipeline::dead_letters))
        .route_layer(from_fn_with_state(edge.clone(), pipeline::operators));
    let paced = Router::new()
        .route("/api/topics", get(api::topics))
        .route("/api/topics/{type}/refresh", post(api::refresh))
        .route("/api/query/{type}", get(api::query))
        .route("/api/types", get(types::types))
        .route("/api/events", post(api::publish))
        .route("/api/stream", get(stream::events))
        .route("/api/revoke", post(revoke::revoke))
        .route("/chat/update/info/", post(demo::update_info))
        .route("/chat/update/record/", post(demo::update_record))
        .merge(of_operators)
        .route_layer(from_fn_with_state(edge.clone(), pace::kept));
    Router::new()
        .route("/", get(console::page))
        .route("/console/{file}", get(console::file))
        .route("/rowcast.js", get(client::module))
        .route("/rowcast.d.ts", get(client::types))
        .merge(paced)
        .route(sockets::ALL, get(sockets::refused))
        .route(sockets::ECHO, get(sockets::refused))
        .fallback(|State(edge): State<Arc<Edge>>| async move { edge.refuse(ErrorCode::NotFound) })
        .method_not_allowed_fallback(|State(edge): State<Arc<Edge>>| async move {
            edge.refuse(ErrorCode::MethodNotAllowed)
        })
        .layer(from_fn_with_state(edge.clone(), who::identified))
        .layer(from_fn_with_state(edge.clone(), same_origin_writes))
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(cors)
        .layer(set(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(set(header::REFERRER_POLICY, "no-referrer"))
        .layer(set(
            header::CONTENT_SECURITY_POLICY,
            CONTENT_SECURITY_POLICY,
        ))
        .layer(CatchPanicLayer::new())
        .with_state(edge)
}

fn set(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value))
}

fn cors(origins: &Origins) -> CorsLayer {
    let methods = CORS_METHODS
        .iter()
        .map(|name| Method::from_bytes(name.as_bytes()).expect("the names above are methods"));
    let layer = CorsLayer::new()
        .allow_methods(methods.collect::<Vec<_>>())
        .allow_headers(CORS_HEADERS.map(HeaderName::from_static));
    if origins.any() {
        // A wildcard never goes with credentials.
        return layer.allow_origin(Any);
    }
    let origins = origins.clone();
    let allow = move |_: &HeaderValue, request: &Parts| {
        origins.admit(&request.headers, request.extensions.get().copied())
    };
    // What everybody may have goes to others with a wildcard, hence without credentials.
    layer
        .allow_origin(AllowOrigin::predicate(allow.clone()))
        .allow_credentials(AllowCredentials::predicate(allow))
}

/// Refuses a write that a browser sends for a page of somebody else. CORS alone would not: it
/// only keeps that page from reading the answer.
async fn same_origin_writes(
    State(edge): State<Arc<Edge>>,
    request: Request,
    next: Next,
) -> Response {
    let scheme = request.extensions().get().copied();
    let foreign = !edge.origins.admit(request.headers(), scheme);
    if foreign && request.method() == Method::POST {
        return edge.refuse(ErrorCode::Forbidden).into_response();
    }
    next.run(request).await
}

impl Edge {
    /// Counts a body that is beyond a limit.
    fn limited(&self, failure: &Failure) {
        if failure.code.is_limit() {
            self.gateway.metrics.limited("json");
        }
    }

    /// An error answer of that kind.
    fn refuse(&self, failure: impl Into<Failure>) -> Refused {
        let failure = failure.into();
        self.gateway.metrics.error(failure.code.slug());
        Refused {
            failure,
            language: self.gateway.config.language,
        }
    }
}
