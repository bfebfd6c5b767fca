//! The loop that accepts connections: as many as there is room for, and for ever.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Door, connection, farewell};
use crate::callers::{Callers, Room};

/// The pause after the system had no descriptor or no memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How long the system must have had enough before it is news that it has not.
const EXHAUSTED_NEWS: Duration = Duration::from_mins(1);

/// Connections that are told at once that there is no room; more are just closed.
const FAREWELLS: usize = 64;

/// Connections that the kernel keeps until they are accepted: as many as its own bound allows, which is
/// net.core.somaxconn, 4096 as a rule. tokio asks for 1024.
const WAITING: i32 = 65_535;

/// What a listener admits.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How many connections.
    pub room: Room,
    /// How long a connection may take until a request's head is complete, from being accepted or from
    /// the answer before it.
    pub head_timeout: Duration,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) door: Door,
    pub(super) routes: Router,
    pub(super) stop: CancellationToken,
    pub(super) head_timeout: Duration,
    callers: Callers,
    connections: TaskTracker,
    farewells: Arc<Semaphore>,
    /// What is told where there is no room, a whole response.
    full: Bytes,
}

/// Serves what is behind `door` on `listener` until `stop` is cancelled and the requests of by then are
/// answered. Sockets live on: they are sessions, and told to stop as such.
pub async fn serve(listener: TcpListener, door: Door, terms: Terms, stop: CancellationToken) {
    let shared = Arc::new(Shared {
        routes: door.routes(),
        head_timeout: terms.head_timeout,
        callers: Callers::new(terms.room, door.metrics().clone()),
        connections: TaskTracker::new(),
        farewells: Arc::new(Semaphore::new(FAREWELLS)),
        full: farewell::full(door.language()),
        door,
        stop,
    });
    send_at_once(&listener);
    let_wait(&listener);
    let mut exhausted = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => shared.admit(stream, from),
            Err(err) if is_of_one_connection(&err) => {}
            Err(err) => {
                shared.door.metrics().refused_connection("exhausted");
                if exhausted.is_none_or(|last: Instant| last.elapsed() > EXHAUSTED_NEWS) {
                    tracing::warn!(error = %err, "no connection can be accepted: raise the limit of file descriptors, or lower server.max_connections");
                }
                exhausted = Some(Instant::now());
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
    drop(listener);
    shared.connections.close();
    shared.connections.wait().await;
}

/// A push is one small write: it must not wait for another. Connections have this from their listener,
/// which spares a system call for each.
fn send_at_once(listener: &TcpListener) {
    if let Err(err) = SockRef::from(listener).set_tcp_nodelay(true) {
        tracing::warn!(error = %err, "TCP_NODELAY cannot be set: pushes may wait for each other");
    }
}

/// When everybody comes back at once, the kernel keeps those who are not accepted yet; whom it cannot
/// keep it resets.
fn let_wait(listener: &TcpListener) {
    if let Err(err) = SockRef::from(listener).listen(WAITING) {
        tracing::warn!(error = %err, "fewer clients than wanted can come back at the same moment");
    }
}

/// Whether an error concerns one client that has gone before it was accepted.
fn is_of_one_connection(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

impl Shared {
    fn admit(self: &Arc<Self>, stream: TcpStream, from: SocketAddr) {
        match self.callers.admit(from.ip()) {
            Ok(permit) => {
                let serving = self.connections.token();
                tokio::spawn(connection::serve(stream, permit, self.clone(), serving));
            }
            Err(_full) => {
                // To tell everybody would cost what there is no room for.
                if let Ok(one) = self.farewells.clone().try_acquire_owned() {
                    let full = self.full.clone();
                    self.connections.spawn(async move {
                        farewell::tell(stream, &full).await;
                        drop(one);
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_accepted_has_the_option_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        send_at_once(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
    }
}
