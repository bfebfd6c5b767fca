//! One connection: HTTP/1.1, until a handshake makes it a socket, which a session then owns.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::server::conn::http1::{Builder, Parts};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until},
};
use tokio_rustls::server::TlsStream;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    accept::Shared,
    begun::Begun,
    desk::Desk,
    farewell,
    greeting::{self, Greeting},
    owed::Owed,
    peer::Peer,
    refusals::Refusal,
    tls::Tls,
};
use crate::{callers::Permit, session::Socket};

/// What requests come over.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The socket that it becomes behind a handshake, with what was read behind that.
    fn socket(self, leftover: Bytes) -> Socket;

    /// What is beneath.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(self, leftover: Bytes) -> Socket {
        Socket::tcp(self, leftover)
    }

    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn socket(self, leftover: Bytes) -> Socket {
        Socket::other(self, leftover)
    }

    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A connection that was just accepted.
pub struct Caller {
    /// Who it is.
    pub peer: Peer,
    /// Its place.
    pub permit: Permit,
    /// Kept while it is HTTP's.
    pub serving: TaskTrackerToken,
}

/// What serves the socket that a connection has become, if it has.
pub type Served = Option<BoxFuture<'static, ()>>;

/// Serves a connection until it ends, and with it the socket that it may become. Each of the two has memory
/// of its own: a socket that lives for a day keeps nothing of its handshake, and what is moved into a task
/// is small.
pub enum Life {
    /// HTTP.
    Begins(BoxFuture<'static, Served>),
    /// A socket.
    Goes(BoxFuture<'static, ()>),
}

impl Life {
    /// That of a connection that was just accepted.
    pub fn new(stream: TcpStream, caller: Caller, shared: Arc<Shared>) -> Self {
        Self::Begins(Box::pin(async move {
            let deadline = Instant::now() + shared.head_timeout;
            begin(stream, caller, shared, deadline).await
        }))
    }

    /// The same through TLS.
    pub fn with_tls(stream: TcpStream, caller: Caller, shared: Arc<Shared>, tls: Tls) -> Self {
        Self::Begins(Box::pin(async move {
            let deadline = Instant::now() + shared.head_timeout;
            let accepted = tokio::select! {
                accepted = tls.acceptor().accept(stream) => accepted,
                () = sleep_until(deadline) => return None,
                () = shared.stop.cancelled() => return None,
            };
            match accepted {
                Ok(stream) => begin(stream, caller, shared, deadline).await,
                Err(err) => {
                    shared.door.metrics().refused_connection("tls");
                    tracing::debug!(error = %err, "no TLS is agreed on");
                    None
                }
            }
        }))
    }
}

impl Future for Life {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Begins(beginning) => match ready!(beginning.as_mut().poll(context)) {
                    Some(served) => *self = Self::Goes(served),
                    None => return Poll::Ready(()),
                },
                Self::Goes(served) => return served.as_mut().poll(context),
            }
        }
    }
}

/// Serves a connection until it ends or is a socket's, which holds its place.
async fn begin(
    mut stream: impl Wire,
    caller: Caller,
    shared: Arc<Shared>,
    deadline: Instant,
) -> Served {
    let greeting = tokio::select! {
        // Looked at first: who has said something needs no clock.
        biased;
        greeting = greeting::hear(&mut stream, &shared, caller.peer) => greeting,
        // Who has said nothing is simply cut off.
        () = sleep_until(deadline) => return None,
        () = shared.stop.cancelled() => return None,
    };
    match greeting {
        Greeting::Handshake(opened) => opened.answer(stream, caller.permit).await,
        Greeting::Other(said) => Box::pin(requests((said, stream), caller, shared, deadline)).await,
        Greeting::Nothing => None,
    }
}

/// Serves requests, of which the first one's head must be whole at `deadline`.
async fn requests<S: Wire>(
    (said, stream): (Bytes, S),
    caller: Caller,
    shared: Arc<Shared>,
    deadline: Instant,
) -> Served {
    let Caller {
        peer,
        permit,
        serving: _serving,
    } = caller;
    let stop = shared.stop.clone();
    let owed = Arc::new(Owed::default());
    let stream = Begun::new(said, stream, owed.clone(), shared.write_timeout);
    let mut connection = builder(&shared).serve_connection(
        TokioIo::new(stream),
        Desk::new(shared.clone(), peer, owed.clone()),
    );
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
            match ended {
                Poll::Ready(Ok(())) => Poll::Ready(Ended::Well),
                Poll::Ready(Err(err)) => Poll::Ready(Ended::Badly(err)),
                Poll::Pending if owed.is_asked() => owed.poll_over(cx).map(|()| Ended::Forbidden),
                // A process that stops waits for nobody's first request.
                Poll::Pending if stopping => Poll::Ready(Ended::Well),
                // hyper counts from where it began, and not from where the connection did.
                Poll::Pending => late.as_mut().poll(cx).map(|()| Ended::Late),
            }
        })
        .await
    };
    owed.forget();
    let Parts {
        io,
        read_buf,
        service,
        ..
    } = connection.into_parts();
    let begun = io.into_inner();
    let (ambiguous, gave_up) = (begun.is_ambiguous(), begun.gave_up());
    let (unread, mut stream) = begun.into_parts();
    match (ended, service.next()) {
        // hyper takes it for an end where nothing of a head was there before.
        (_, None) if ambiguous => {
            tracing::debug!("a request could be read in two ways");
            farewell::tell(stream, farewell::AMBIGUOUS).await;
        }
        (Ended::Badly(_), _) if gave_up => {
            shared.door.metrics().limited("answers");
            tracing::debug!("a client takes nothing of its answer");
            cut(&stream);
        }
        (Ended::Forbidden, _) => {
            tracing::debug!("a client may not have the rest of its answer any longer");
            cut(&stream);
        }
        (Ended::Well, Some(next)) => {
            // Copied, or a few bytes would keep the whole buffer.
            let leftover = Bytes::from([&read_buf[..], &unread].concat());
            let socket = stream.socket(leftover).holding(permit.of(next.portion));
            return Some(next.next.service(next.edge, socket));
        }
        // A process that stops waits for nobody who has got his answer.
        (Ended::Well, None) if stop.is_cancelled() => {}
        (Ended::Well, None) => farewell::close(&mut stream).await,
        (Ended::Late, _) => farewell::tell(stream, farewell::LATE).await,
        (Ended::Badly(err), _) => {
            tracing::trace!(error = %err, "a connection ends");
            if err.is_parse_too_large() {
                shared.door.metrics().limited("head");
                shared.refusals.tell(Refusal::Head, peer.address());
            }
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

/// Has the kernel throw away what it holds for a client, now that the stream is dropped: it would keep that
/// for whoever never reads it.
fn cut(stream: &impl Wire) {
    if let Err(err) = SockRef::from(stream.tcp()).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(error = %err, "what was written to a client stays with the kernel for a while");
    }
}

fn builder(shared: &Shared) -> Builder {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.head_timeout)
        .max_buf_size(shared.head_bytes)
        .max_headers(shared.headers);
    builder
}

/// How requests come to an end.
enum Ended {
    /// After an answer.
    Well,
    /// The first head was not whole in time.
    Late,
    /// The rights of who asked are over, and he has not taken all of the answer.
    Forbidden,
    /// As hyper says.
    Badly(hyper::Error),
}
