//! Where the requests of one connection are answered: what holds for all of them comes before any route.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    service::Service,
};
use tower::ServiceExt;

use super::{
    Edge,
    accept::Shared,
    door, farewell,
    headers::Asked,
    owed::{self, Owed},
    peer::Peer,
    refusals::Refusal,
    sockets::{self, NotUpgraded},
    stream,
};
use crate::{
    callers::{Crowded, Portion},
    protocol::{ErrorCode, Failure},
};

/// Answers the requests of one connection.
pub struct Desk {
    shared: Arc<Shared>,
    peer: Peer,
    owed: Arc<Owed>,
    /// Set when the answer to a handshake is given to the connection, which then comes to its end.
    next: Slot,
}

/// What becomes of a connection, once that is known.
type Slot = Arc<Mutex<Option<Next>>>;

/// What becomes of a connection whose handshake was answered.
pub struct Next {
    pub edge: Arc<Edge>,
    pub next: sockets::Next,
    /// The place of who came through a proxy.
    pub portion: Option<Portion>,
}

type Answered = Result<Response, Infallible>;

impl Desk {
    pub fn new(shared: Arc<Shared>, peer: Peer, owed: Arc<Owed>) -> Self {
        Self {
            shared,
            peer,
            owed,
            next: Arc::default(),
        }
    }

    /// What the connection is to become, if its last request was a handshake that was answered.
    pub fn next(&self) -> Option<Next> {
        will_be(&self.next).take()
    }

    /// What is refused whatever the path, but for those by which a supervisor looks after the process.
    fn introduce(
        &self,
        request: &mut hyper::Request<Incoming>,
    ) -> Result<Option<Portion>, Box<Response>> {
        let refuse = |failure: Failure| Box::new(self.shared.door.refuse(failure).into_response());
        if let Some(rule) = broken_rule(request) {
            return Err(Box::new(last(*refuse(Failure::param(rule)))));
        }
        if door::is_health(request.uri().path()) {
            return Ok(None);
        }
        if !self.shared.hosts.admit(request.headers(), request.uri()) {
            return Err(refuse(Failure {
                detail: Some("Host: one of server.allowed_hosts"),
                ..ErrorCode::Misdirected.into()
            }));
        }
        let introduced = self.shared.introduce(self.peer, request.headers());
        let introduced = introduced.map_err(|full| {
            self.shared.door.metrics().refused_connection(full.kind());
            let from = self.peer.client(&self.shared.proxies, request.headers());
            self.shared.refusals.tell(Refusal::Full(full), from);
            match stream::is_event_source(request.headers()) {
                true => Box::new(stream::come_back(farewell::RETRY_MS)),
                false => refuse(farewell::no_room()),
            }
        })?;
        let extensions = request.extensions_mut();
        if let Some(scheme) = introduced.scheme {
            extensions.insert(scheme);
        }
        extensions.insert(introduced.whence);
        Ok(introduced.portion)
    }
}

impl Service<hyper::Request<Incoming>> for Desk {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, BoxFuture<'static, Answered>>;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        self.owed.ask();
        let is_last = is_last(request.headers());
        let portion = match self.introduce(&mut request) {
            Ok(portion) => portion,
            Err(refused) if is_last => return Either::Left(ready(Ok(last(*refused)))),
            Err(refused) => return Either::Left(ready(Ok(*refused))),
        };
        // A handshake goes no way through layers that are for pages, unless it is refused.
        if sockets::is_path(request.uri().path())
            && let Some(edge) = self.shared.edge()
        {
            match edge.upgrade(&Asked::from(&request)) {
                Ok((answer, next)) => {
                    let edge = edge.clone();
                    *will_be(&self.next) = Some(Next {
                        edge,
                        next,
                        portion,
                    });
                    return Either::Left(ready(Ok(answer.response())));
                }
                Err(NotUpgraded::Later(presented)) => {
                    let (edge, slot) = (edge.clone(), self.next.clone());
                    let routes = self.shared.routes.clone();
                    return Either::Right(Box::pin(async move {
                        let admission = edge.gateway.auth.judge(&presented).await;
                        request.extensions_mut().insert(admission);
                        match edge.upgrade(&Asked::from(&request)) {
                            Ok((answer, next)) => {
                                *will_be(&slot) = Some(Next {
                                    edge,
                                    next,
                                    portion,
                                });
                                return Ok(answer.response());
                            }
                            Err(NotUpgraded::Crowded) => note_crowded(&mut request),
                            Err(_) => {}
                        }
                        routes.oneshot(request).await.map(last)
                    }));
                }
                Err(NotUpgraded::Crowded) => note_crowded(&mut request),
                Err(_) => {}
            }
        }
        let answer = self.shared.routes.clone().oneshot(request);
        let owed = self.owed.clone();
        Either::Right(Box::pin(async move {
            let response = answer.await?;
            let mut response = if is_last { last(response) } else { response };
            Ok(match owed.keep(&mut response, portion) {
                Some(kept) => response.map(|body| Body::new(Held { body, _kept: kept })),
                None => response,
            })
        }))
    }
}

/// What becomes of a connection.
fn will_be(slot: &Slot) -> MutexGuard<'_, Option<Next>> {
    // Nothing in here panics half way through a change.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place that becomes free meanwhile comes too late for this request: the routes open no socket.
fn note_crowded<B>(request: &mut hyper::Request<B>) {
    request.extensions_mut().insert(Crowded);
}

/// The rule of HTTP that a request breaks, where a server between might have read it otherwise.
fn broken_rule<B>(request: &hyper::Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    let several = |name: HeaderName| headers.get_all(name).iter().nth(1).is_some();
    let hosts = headers.contains_key(header::HOST) || request.version() < Version::HTTP_11;
    if !hosts || several(header::HOST) {
        return Some("Host: once");
    }
    if several(header::ORIGIN) {
        return Some("Origin: once");
    }
    let length = headers.get(header::CONTENT_LENGTH);
    let body = length.is_some_and(|length| length != "0")
        || headers.contains_key(header::TRANSFER_ENCODING);
    let bodiless = matches!(*request.method(), Method::GET | Method::HEAD);
    (bodiless && body).then_some("a GET has no body")
}

/// Whether what comes behind a request cannot be told apart from it (`framing.rs`).
fn is_last(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING) || headers.contains_key(header::UPGRADE)
}

/// The last answer on its connection.
fn last(mut response: Response) -> Response {
    let close = HeaderValue::from_static("close");
    response.headers_mut().append(header::CONNECTION, close);
    response
}

/// A body for which something is kept until it is sent.
struct Held {
    body: Body,
    _kept: owed::Body,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
