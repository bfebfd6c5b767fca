//! One connection: HTTP/1.1, until a handshake makes it a socket, which a session then owns.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Ready, poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
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
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::{
    Edge,
    accept::Shared,
    farewell,
    sockets::{self, Next},
};
use crate::{callers::Permit, session::Socket};

/// The longest head of a request, cookies of others on the same host included; a longer one is
/// answered with 431, and so is one of more than hyper's 100 headers.
const HEAD_BYTES: usize = 16 * 1024;

/// Serves one connection until it ends, or until a session takes it over, and the place with it.
pub async fn serve(stream: TcpStream, permit: Permit, shared: Arc<Shared>) {
    let stop = shared.stop.clone();
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.head_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), Desk::new(shared));
    let ended = {
        let mut stop = pin!(stop.cancelled());
        let mut stopping = false;
        poll_fn(|cx| {
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            connection.poll_without_shutdown(cx)
        })
        .await
    };
    let Parts {
        io,
        read_buf,
        service,
        ..
    } = connection.into_parts();
    let mut stream = io.into_inner();
    match (ended, service.next.take()) {
        (Ok(()), Some((edge, next))) => {
            // Copied, or a few bytes would keep the whole buffer.
            let leftover = Bytes::copy_from_slice(&read_buf);
            let socket = Socket::tcp(stream, leftover).holding(permit);
            next.begin(edge, socket);
        }
        // A process that stops waits for nobody who has got his answer.
        (Ok(()), None) if stop.is_cancelled() => {}
        (Ok(()), None) => farewell::close(&mut stream).await,
        (Err(err), _) => {
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
}

/// Answers the requests of one connection.
struct Desk {
    shared: Arc<Shared>,
    /// Set when the answer to a handshake is given to the connection, which then comes to its end.
    next: Cell<Option<(Arc<Edge>, Next)>>,
}

type Answered = Result<Response, Infallible>;

impl Desk {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            next: Cell::new(None),
        }
    }
}

impl Service<hyper::Request<Incoming>> for Desk {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, BoxFuture<'static, Answered>>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        // A handshake goes no way through layers that are for pages, unless it is refused.
        if matches!(request.uri().path(), sockets::ALL | sockets::ECHO)
            && let Some(edge) = self.shared.door.edge()
            && let Ok((response, next)) = edge.upgrade(&request)
        {
            self.next.set(Some((edge.clone(), next)));
            return Either::Left(ready(Ok(response)));
        }
        Either::Right(Box::pin(self.shared.routes.clone().oneshot(request)))
    }
}
