//! The loop that accepts connections: as many as there is room for, and for ever.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
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

use super::{
    Door, Edge, Face, Hosts, Proxies,
    connection::{Caller, Life},
    farewell,
    headers::Headers,
    origins::Scheme,
    peer::Peer,
    refusals::{Refusal, Refusals},
    tls::Tls,
    who::Whence,
};
use crate::callers::{Callers, Full, Portion, Room};

/// The pause after the system had no descriptor or no memory for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How long the system must have had enough before it is news that it has not.
const EXHAUSTED_NEWS: Duration = Duration::from_mins(1);

/// Connections that are told at once that there is no room; more are just closed.
const FAREWELLS: usize = 64;

/// Connections that the kernel keeps until they are accepted: as many as its own bound allows, which is
/// net.core.somaxconn, 4096 as a rule. tokio asks for 1024.
const WAITING: i32 = 65_535;

/// Bytes that the kernel holds for a client beyond what is under way to it. Without a bound it is megabytes
/// for each one that reads slowly: memory that counts as nobody's, rows that go on arriving when what they
/// were granted by is revoked, and no sign for seconds that the client takes anything.
const UNSENT_BYTES: u32 = 128 * 1024;

/// What a listener admits, and what it shows.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How many connections, and how fast they may come.
    pub room: Room,
    /// How long a connection may take until a request's head is complete, from being accepted or from
    /// the answer before it. With TLS the agreement on that is within it.
    pub head_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_timeout: Duration,
    /// The longest head of a request, cookies of others on the same host included; a longer one is
    /// answered with 431. 8 KiB at the least, for hyper takes no less.
    pub head_bytes: usize,
    /// The most headers of a request; one with more is answered with 431.
    pub headers: usize,
    /// What it is called.
    pub hosts: Hosts,
    /// Who is believed about whom he asks for.
    pub proxies: Proxies,
    /// Its certificate, where it speaks TLS, and nothing else then.
    pub tls: Option<Tls>,
    /// What of the process it shows.
    pub face: Face,
}

/// What all connections share.
pub(super) struct Shared {
    pub(super) door: Door,
    pub(super) routes: Router,
    pub(super) stop: CancellationToken,
    pub(super) head_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) head_bytes: usize,
    pub(super) headers: usize,
    pub(super) hosts: Hosts,
    pub(super) proxies: Proxies,
    tls: Option<Tls>,
    face: Face,
    callers: Callers,
    pub(super) refusals: Refusals,
    connections: TaskTracker,
    farewells: Arc<Semaphore>,
    /// What is told where there is no room, a whole response.
    full: Bytes,
}

/// Serves what is behind `door` on `listener` until `stop` is cancelled and the requests of by then are
/// answered. Sockets live on: they are sessions, and told to stop as such.
pub async fn serve(listener: TcpListener, door: Door, terms: Terms, stop: CancellationToken) {
    let shared = Arc::new(Shared {
        routes: door.routes(terms.face),
        head_timeout: terms.head_timeout,
        write_timeout: terms.write_timeout,
        head_bytes: terms.head_bytes,
        headers: terms.headers,
        hosts: terms.hosts,
        proxies: terms.proxies,
        tls: terms.tls,
        face: terms.face,
        callers: Callers::new(terms.room, door.metrics().clone()),
        refusals: Refusals::default(),
        connections: TaskTracker::new(),
        farewells: Arc::new(Semaphore::new(FAREWELLS)),
        full: farewell::full(door.language()),
        door,
        stop,
    });
    send_at_once(&listener);
    hold_little(&listener);
    let_wait(&listener);
    let mut exhausted = None;
    let stop = shared.stop.clone();
    let mut stopped = pin!(stop.cancelled());
    // A crowd never lets the select look at more than its first branch.
    while !shared.stop.is_cancelled() {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
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

/// What a client does not take stays with its session, which knows what to do with it.
fn hold_little(listener: &TcpListener) {
    if let Err(err) = SockRef::from(listener).set_tcp_notsent_lowat(UNSENT_BYTES) {
        tracing::warn!(error = %err, "TCP_NOTSENT_LOWAT cannot be set: slow clients cost the kernel more memory");
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
        let peer = Peer::new(from.ip(), &self.proxies, self.tls.is_some());
        let admitted = match peer.is_proxy() {
            true => self.callers.admit_proxy(from.ip()),
            false => self.callers.admit(from.ip()),
        };
        match admitted {
            Ok(permit) => {
                let caller = Caller {
                    peer,
                    permit,
                    serving: self.connections.token(),
                };
                let shared = self.clone();
                tokio::spawn(match &self.tls {
                    None => Life::new(stream, caller, shared),
                    Some(tls) => Life::with_tls(stream, caller, shared, tls.clone()),
                });
            }
            Err(full) => {
                self.refusals.tell(Refusal::Full(full), from.ip());
                // What is no TLS could not be read.
                if self.tls.is_some() {
                    return;
                }
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

    /// What sockets need, once the door is open, where this listener has any.
    pub(super) fn edge(&self) -> Option<&Arc<Edge>> {
        match self.face {
            Face::Operator => None,
            Face::Public | Face::Whole => self.door.edge(),
        }
    }

    /// Finds out how a request came and from where, and takes a place for whom a proxy brings: to be kept for as
    /// long as he is served.
    ///
    /// # Errors
    /// His address has all of its places.
    pub(super) fn introduce(&self, peer: Peer, headers: &impl Headers) -> Result<Introduced, Full> {
        let client = peer.client(&self.proxies, headers);
        let portion = match peer.is_proxy() {
            true => {
                tracing::debug!(%client, "a proxy brings a request");
                Some(self.callers.portion(client)?)
            }
            false => None,
        };
        Ok(Introduced {
            scheme: peer.scheme(&self.proxies, headers),
            whence: Whence(client),
            portion,
        })
    }
}

/// How a request came.
pub(super) struct Introduced {
    pub(super) scheme: Option<Scheme>,
    pub(super) whence: Whence,
    /// The place of whom a proxy brings.
    pub(super) portion: Option<Portion>,
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{super::Usual, *};
    use crate::{
        callers::Rate,
        http::AllowedHosts,
        metrics::{Health, Metrics},
        protocol::Language,
    };

    /// More than this machine's own places, of whom the others are told that there is no room, and fewer than tokio
    /// lets a task accept before it has to pause.
    const CROWD: usize = 48;

    #[tokio::test]
    async fn a_crowd_at_the_door_does_not_hide_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let mut one = TcpStream::connect(address).await.unwrap();
            one.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            crowd.push(one);
        }
        let door = Door::of_gateway(Health::default(), Metrics::default(), Language::default());
        let terms = Terms {
            room: Room {
                all: 0,
                of_one: 1,
                arrivals: Rate {
                    per_second: 1,
                    burst: 1,
                },
            },
            head_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            head_bytes: 8192,
            headers: 64,
            hosts: Hosts::new(AllowedHosts::default(), Usual::Any),
            proxies: Proxies::default(),
            tls: None,
            face: Face::Whole,
        };
        let stop = CancellationToken::new();
        stop.cancel();
        serve(listener, door, terms, stop).await;
        for mut one in crowd {
            let mut told = Vec::new();
            // A reset, mostly: what was not accepted goes with its listener.
            let _ = one.read_to_end(&mut told).await;
            assert_eq!(String::from_utf8_lossy(&told), "");
        }
    }

    #[tokio::test]
    async fn what_is_accepted_has_the_options_of_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        send_at_once(&listener);
        hold_little(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(accepted.nodelay().unwrap());
        let unsent = SockRef::from(&accepted).tcp_notsent_lowat().unwrap();
        assert_eq!(unsent, UNSENT_BYTES);
    }
}
