//! One connection: HTTP/1.1, until a handshake makes it a socket, which a session then owns.

use std::{
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use axum::response::Response;
use bytes::Bytes;
use futures_util::future::{BoxFuture, Either};
use hyper::{
    body::Incoming,
    server::conn::http1::{Builder, Parts},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use super::{
    Edge,
    accept::Shared,
    begun::Begun,
    farewell,
    greeting::{self, Greeting},
    sockets::{self, Next, NotUpgraded},
};
use crate::{callers::Permit, session::Socket};

/// The longest head of a request, cookies of others on the same host included; a longer one is
/// answered with 431, and so is one of more than hyper's 100 headers.
const HEAD_BYTES: usize = 16 * 1024;

/// Serves one connection until it ends, and with it the socket that it may become. `serving` is kept while
/// it is HTTP's.
pub fn serve(
    stream: TcpStream,
    permit: Permit,
    shared: Arc<Shared>,
    serving: TaskTrackerToken,
) -> impl Future<Output = ()> {
    // Boxed, or a socket would keep the room for it.
    let beginning = Box::pin(begin(stream, permit, shared, serving));
    async move {
        // Not taken out of the option, or there would be room for it twice.
        let mut service = beginning.await;
        if let Some(service) = &mut service {
            service.serve().await;
        }
    }
}

/// Serves a connection until it ends or is a socket's, which holds its place.
async fn begin(
    stream: TcpStream,
    permit: Permit,
    shared: Arc<Shared>,
    _serving: TaskTrackerToken,
) -> Option<sockets::Service> {
    let mut stream = stream;
    let deadline = Instant::now() + shared.head_timeout;
    let greeting = tokio::select! {
        greeting = greeting::hear(&mut stream, &shared.door) => greeting,
        // Who has said nothing is simply cut off.
        () = sleep_until(deadline) => return None,
        () = shared.stop.cancelled() => return None,
    };
    match greeting {
        Greeting::Handshake(opened) => opened.answer(stream, permit).await,
        Greeting::Other(said) => {
            Box::pin(requests(Begun::new(said, stream), permit, shared, deadline)).await
        }
        Greeting::Nothing => None,
    }
}

/// Serves requests, of which the first one's head must be whole at `deadline`.
async fn requests(
    stream: Begun,
    permit: Permit,
    shared: Arc<Shared>,
    deadline: Instant,
) -> Option<sockets::Service> {
    let stop = shared.stop.clone();
    let (head_timeout, asked) = (shared.head_timeout, Arc::new(AtomicBool::new(false)));
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), Desk::new(shared, asked.clone()));
    let ended = {
        let (mut stop, mut late) = (pin!(stop.cancelled()), pin!(sleep_until(deadline)));
        let mut stopping = false;
        poll_fn(|cx| {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            // Unless it is a socket's now, hyper ends it: it writes all of an answer first.
            let ended = Pin::new(&mut connection).poll(cx);
            let asked = asked.load(Ordering::Relaxed);
            match ended {
                Poll::Ready(Ok(())) => Poll::Ready(Ended::Well),
                Poll::Ready(Err(err)) => Poll::Ready(Ended::Badly(err)),
                Poll::Pending if asked => Poll::Pending,
                // A process that stops waits for nobody's first request.
                Poll::Pending if stopping => Poll::Ready(Ended::Well),
                // hyper counts from where it began, and not from where the connection did.
                Poll::Pending => late.as_mut().poll(cx).map(|()| Ended::Late),
            }
        })
        .await
    };
    let Parts {
        io,
        read_buf,
        service,
        ..
    } = connection.into_parts();
    let (unread, mut stream) = io.into_inner().into_parts();
    match (ended, service.take_next()) {
        (Ended::Well, Some((edge, next))) => {
            // Copied, or a few bytes would keep the whole buffer.
            let leftover = Bytes::from([&read_buf[..], &unread].concat());
            let socket = Socket::tcp(stream, leftover).holding(permit);
            return Some(next.service(edge, socket));
        }
        // A process that stops waits for nobody who has got his answer.
        (Ended::Well, None) if stop.is_cancelled() => {}
        (Ended::Well, None) => farewell::close(&mut stream).await,
        (Ended::Late, _) => farewell::tell(stream, farewell::LATE).await,
        (Ended::Badly(err), _) => {
            tracing::trace!(error = %err, "a connection ends");
            // Who has sent nothing since the last answer is simply cut off.
            let late = err.is_timeout() && !read_buf.is_empty();
            if late {
                farewell::tell(stream, farewell::LATE).await;
            } else if err.is_parse() {
                farewell::close(&mut stream).await;
            }
        }
    }
    None
}

/// How requests come to an end.
enum Ended {
    /// After an answer.
    Well,
    /// The first head was not whole in time.
    Late,
    /// As hyper says.
    Badly(hyper::Error),
}

/// Answers the requests of one connection.
struct Desk {
    shared: Arc<Shared>,
    /// Set when the first request's head is there.
    asked: Arc<AtomicBool>,
    /// Set when the answer to a handshake is given to the connection, which then comes to its end.
    next: Slot,
}

/// What becomes of a connection, once that is known.
type Slot = Arc<Mutex<Option<(Arc<Edge>, Next)>>>;

type Answered = Result<Response, Infallible>;

impl Desk {
    fn new(shared: Arc<Shared>, asked: Arc<AtomicBool>) -> Self {
        Self {
            shared,
            asked,
            next: Arc::default(),
        }
    }

    fn take_next(&self) -> Option<(Arc<Edge>, Next)> {
        // Nothing in here panics half way through a change.
        self.next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Service<hyper::Request<Incoming>> for Desk {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, BoxFuture<'static, Answered>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        self.asked.store(true, Ordering::Relaxed);
        let routes = self.shared.routes.clone();
        // A handshake goes no way through layers that are for pages, unless it is refused.
        if matches!(request.uri().path(), sockets::ALL | sockets::ECHO)
            && let Some(edge) = self.shared.door.edge()
        {
            match edge.upgrade(&request) {
                Ok((response, next)) => {
                    will_be(&self.next, edge.clone(), next);
                    return Either::Left(ready(Ok(response)));
                }
                Err(NotUpgraded::Later(presented)) => {
                    let (edge, next) = (edge.clone(), self.next.clone());
                    return Either::Right(Box::pin(async move {
                        let mut request = request;
                        let admission = edge.gateway.auth.judge(&presented).await;
                        request.extensions_mut().insert(admission);
                        if let Ok((response, upgraded)) = edge.upgrade(&request) {
                            will_be(&next, edge, upgraded);
                            return Ok(response);
                        }
                        routes.oneshot(request).await
                    }));
                }
                Err(_) => {}
            }
        }
        Either::Right(Box::pin(routes.oneshot(request)))
    }
}

/// Notes what becomes of a connection.
fn will_be(slot: &Slot, edge: Arc<Edge>, next: Next) {
    // Nothing in here panics half way through a change.
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some((edge, next));
}
