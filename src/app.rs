//! Assembly: from a configuration to running loops, and back down in order.

mod gateway;
mod loops;
mod nats;
mod process;
mod producer;
mod revocations;
mod topics;

use std::{io, net::SocketAddr, time::Duration};

use anyhow::{Context, anyhow, bail};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::{info, warn};

use crate::{
    callers::{Rate, Room},
    config::{self, Config, Listen},
    http::{self, Door, Face, Hosts, Proxies, Tls, Usual},
};
use gateway::{Running, drain, passed_on};
use loops::Loops;

pub use loops::{postgres_store, sqlite_store};
pub use nats::bus_of_command;
pub use producer::Producer;
pub use topics::topics;

/// How long database, bus and the first reading of the source may take before the listener is
/// announced anyway.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Linux says what the machine is called.
const OWN_NAME: &str = "/proc/sys/kernel/hostname";

/// How long responses under way, such as streams of events, may take to end when all else has.
const RESPONSES_GRACE: Duration = Duration::from_secs(1);

/// How long fanout may take to see what was published last.
const FANOUT_GRACE: Duration = Duration::from_secs(1);

/// A gateway.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    operator_address: Option<SocketAddr>,
    scheme: &'static str,
    server: JoinHandle<()>,
    gateway: Assembly,
    loops: Loops,
    grace: Duration,
    drain: Duration,
}

/// A gateway that is put together, or still waits for what it needs.
#[derive(Debug)]
enum Assembly {
    Done(Running),
    Going(JoinHandle<anyhow::Result<Running>>),
}

impl App {
    /// Binds the listener, opens everything and starts the loops. On the first run with the
    /// default topics a SQLite database is created with the demo.
    ///
    /// A PostgreSQL or NATS that is away is waited for: after 10 s this returns all the same, and
    /// `/readyz` says what is missing.
    ///
    /// # Errors
    /// What is in the way, and what to do about it; nothing runs then.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let tls = tls(config)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = bind(&config.server.listen, "--listen").await?;
        let address = listener.local_addr()?;
        let operator = operator(config).await?;
        let operator_address = operator.as_ref().map(TcpListener::local_addr).transpose()?;
        let loops = Loops::default();
        let (health, metrics) = (loops.health.clone(), loops.metrics.clone());
        let door = Door::of_gateway(health, metrics, config.server.language);
        let terms = http::Terms {
            proxies: config.server.trusted_proxies.clone(),
            tls,
            face: face(&config.server),
            hosts: Hosts::new(config.server.allowed_hosts.clone(), usual(config)),
            ..terms(&config.server, &config.server.listen)
        };
        let stop = loops.stops.accept.clone();
        let public = http::serve(listener, door.clone(), terms, stop);
        let server = match (operator, &config.server.operator_listen) {
            (Some(operator), Some(listen)) => {
                let terms = http::Terms {
                    face: Face::Operator,
                    ..self::terms(&config.server, listen)
                };
                let stop = loops.stops.accept.clone();
                let operator = http::serve(operator, door.clone(), terms, stop);
                tokio::spawn(async move {
                    tokio::join!(public, operator);
                })
            }
            _ => tokio::spawn(public),
        };
        let (task_config, task_loops) = (config.clone(), loops.clone());
        let mut going = tokio::spawn(async move {
            let running = gateway::assemble(task_config, task_loops, address).await?;
            door.open(running.edge.clone());
            Ok(running)
        });
        let gateway = match tokio::time::timeout(START_TIMEOUT, &mut going).await {
            Ok(done) => Assembly::Done(done.context("the start has failed")??),
            Err(_) => {
                warn!(missing = ?loops.health.missing(), "still starting: /readyz says when all is there");
                Assembly::Going(going)
            }
        };
        Ok(Self {
            address,
            operator_address,
            scheme,
            server,
            gateway,
            loops,
            grace: config.server.shutdown_grace,
            drain: drain(&config.server),
        })
    }

    /// The address that is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http`, or `https` where it speaks TLS.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The address that is bound for operators, where it is another one.
    pub fn operator_address(&self) -> Option<SocketAddr> {
        self.operator_address
    }

    /// On the demo, a command for another terminal that changes a row.
    pub fn hint(&self) -> Option<&str> {
        let Assembly::Done(running) = &self.gateway else {
            return None;
        };
        running.edge.demo.as_ref().map(|demo| demo.hint.as_str())
    }

    /// Serves until `shutdown` resolves, then stops upstream first: accept no more, finish
    /// publishing what was read, hand it to the sockets, close them with 1012, end the loops.
    ///
    /// # Errors
    /// What the listener says, should it fail; and what kept the gateway from starting for good.
    pub async fn serve(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut shutdown = std::pin::pin!(shutdown);
        let running = loop {
            match self.gateway {
                Assembly::Done(running) => {
                    tokio::select! {
                        () = &mut shutdown => {}
                        () = self.loops.failed.cancelled() => bail!("a part of the gateway has failed; the log says which"),
                        ended = &mut self.server => ended.context("the listener has failed")?,
                    }
                    break Some(running);
                }
                Assembly::Going(mut going) => {
                    let done = tokio::select! {
                        () = &mut shutdown => { going.abort(); break None; }
                        ended = &mut self.server => {
                            ended.context("the listener has failed")?;
                            break None;
                        }
                        done = &mut going => done,
                    };
                    self.gateway = Assembly::Done(done.context("the start has failed")??);
                }
            }
        };
        stop(&self.loops, running, self.grace, self.drain).await;
        if !self.server.is_finished() {
            // What was handed to responses is still on its way.
            let _ = tokio::time::timeout(RESPONSES_GRACE, &mut self.server).await;
        }
        self.server.abort();
        info!("stopped");
        Ok(())
    }
}

/// Stops upstream first, within the grace period.
async fn stop(loops: &Loops, running: Option<Running>, grace: Duration, drain: Duration) {
    let deadline = tokio::time::Instant::now() + grace;
    let stops = &loops.stops;
    let edge = running.as_ref().map(|running| running.edge.clone());
    let sockets = || edge.as_ref().map_or(0, |edge| edge.gateway.group.len());
    info!(
        grace_ms = grace.as_millis(),
        sockets = sockets(),
        "stopping"
    );
    stops.accept.cancel();
    stops.relay.cancel();
    let orderly = async {
        let Some(Running { edge, relay }) = running else {
            return;
        };
        if let Some((relay, bus)) = relay {
            if relay.await.is_err() {
                warn!("the relay had failed before");
            }
            // What the sockets would miss now they get when they resume.
            let passed = passed_on(&bus, &edge.gateway.ring);
            let _ = tokio::time::timeout(FANOUT_GRACE.min(drain), passed).await;
        }
        stops.sessions.cancel();
        edge.gateway.group.emptied().await;
        edge.echoes.emptied().await;
    };
    if tokio::time::timeout_at(deadline, orderly).await.is_err() {
        warn!(
            sockets = sockets(),
            "the grace period is over: cutting what is left"
        );
    }
    stops.sessions.cancel();
    stops.fanout.cancel();
}

/// The certificate and its key, where there are any.
///
/// # Errors
/// A [`config::ConfigError`] that names the file.
pub fn tls(config: &Config) -> anyhow::Result<Option<Tls>> {
    let (Some(cert), Some(key)) = (&config.server.tls_cert, &config.server.tls_key) else {
        return Ok(None);
    };
    let tls = Tls::read(cert, key).map_err(|err| {
        let key = if err.is_key { "tls_key" } else { "tls_cert" };
        config.wrong_server(key, err.to_string())
    })?;
    Ok(Some(tls))
}

/// The listener for operators, where it is one of its own.
async fn operator(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let server = &config.server;
    match &server.operator_listen {
        Some(listen) if !listen.is_also(&server.listen) => {
            bind(listen, "server.operator_listen").await.map(Some)
        }
        Some(_) => Ok(None),
        None => {
            if server.is_exposed() {
                info!(
                    "metrics, pipeline and dead letters are served nowhere: name an address in server.operator_listen"
                );
            }
            Ok(None)
        }
    }
}

/// What of the process the listener for clients shows.
fn face(server: &config::Server) -> Face {
    match &server.operator_listen {
        Some(operator) if operator.is_also(&server.listen) => Face::Whole,
        None if !server.is_exposed() => Face::Whole,
        _ => Face::Public,
    }
}

/// What the listener for clients is called beside what it was told.
fn usual(config: &Config) -> Usual {
    let server = &config.server;
    if server.listen.is_loopback() {
        return Usual::Loopback;
    }
    if !config.auth.anonymous {
        return Usual::Any;
    }
    if server.allowed_hosts.is_empty() {
        warn!(
            "anybody may connect, and of the names that browsers know this listener answers to addresses and \
             to names of local networks alone, so that no page can have its own name resolve to it: write \
             the others in server.allowed_hosts"
        );
    }
    let own = std::fs::read_to_string(OWN_NAME).unwrap_or_default();
    let own = own.trim();
    Usual::Local((!own.is_empty()).then(|| own.to_owned()))
}

/// What a listener of this configuration admits: everybody who asks for it by its name, for all that
/// there is.
fn terms(server: &config::Server, listen: &Listen) -> http::Terms {
    http::Terms {
        room: Room {
            all: server
                .max_connections
                .saturating_add(server.spare_connections),
            of_one: server.max_connections_per_address,
            arrivals: Rate {
                per_second: server.accepts_per_second,
                burst: u32::try_from(server.max_connections).unwrap_or(u32::MAX),
            },
        },
        head_timeout: server.head_timeout,
        write_timeout: server.write_timeout,
        head_bytes: server.max_head_bytes,
        headers: server.max_headers,
        hosts: Hosts::new(
            server.allowed_hosts.clone(),
            match listen.is_loopback() {
                true => Usual::Loopback,
                false => Usual::Any,
            },
        ),
        proxies: Proxies::default(),
        tls: None,
        face: Face::Whole,
    }
}

/// Takes a port; `flag` is the flag or the setting where another one is asked for.
async fn bind(listen: &Listen, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind((listen.host.as_str(), listen.port)).await;
    bound.map_err(|err| match err.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{listen} is taken by another program; choose another port with {flag}, \
             for example {flag} 127.0.0.1:0 for any that is free"
        ),
        _ => anyhow!("cannot listen on {listen}: {err}; choose another address with {flag}"),
    })
}
