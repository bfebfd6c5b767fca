//! Assembly: from a configuration to running loops, and back down in order.

mod topics;

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    bus::{
        Bus, Head,
        embedded::{EmbeddedBus, EmbeddedBusConfig},
    },
    config::{Config, Server},
    fanout::{self, Pages},
    groups::Group,
    http::{self, Demo, Edge, Origins},
    metrics::{Health, Metrics, Part},
    position::Position,
    protocol::GROUP,
    query::{self, Queries},
    relay,
    ring::Ring,
    session::{Gateway, SessionConfig},
    source::sqlite::{self as capture, SqliteSource, SqliteSourceConfig},
    store::{
        demo::{self as demo_tables, DemoWriter},
        sqlite::{SqliteStore, SqliteStoreConfig},
    },
    topic::Topics,
};

pub use topics::topics;

/// Events read from the bus at start, so that a client that returns at once is served from
/// memory.
const WARM_EVENTS: u64 = 5_000;

/// How long the first reading of the source may take before the listener is announced anyway.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is looked for meanwhile: the source may be up without a frame to show for it.
const START_POLL: Duration = Duration::from_millis(10);

/// How long fanout may take to see what was published last.
const FANOUT_GRACE: Duration = Duration::from_secs(1);

/// A gateway whose loops run.
pub struct App {
    listener: TcpListener,
    edge: Arc<Edge>,
    bus: EmbeddedBus,
    relay: JoinHandle<()>,
    stops: Stops,
    grace: Duration,
    drain: Duration,
}

/// What is told to stop, in the order in which it is.
#[derive(Default)]
struct Stops {
    accept: CancellationToken,
    relay: CancellationToken,
    sessions: CancellationToken,
    fanout: CancellationToken,
}

impl App {
    /// Binds the listener, opens everything and starts the loops. On the first run with the
    /// default topics the database is created with the demo.
    ///
    /// # Errors
    /// What is in the way, and what to do about it; nothing runs then.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let listener = bind(config).await?;
        let created = create(config)?;
        let topics = topics(config)?;
        let bus = EmbeddedBus::open(&EmbeddedBusConfig {
            path: config.bus_path(),
            keep: config.bus.keep,
            max_bytes: config.bus.max_bytes,
        })?;
        if created {
            info!(database = %config.database_path().display(), "created the database with the demo");
        }
        let source = source(config, &topics);
        let demo = demo(config, &source)?;
        let from = warm(&bus.head().await?);
        let ring = Ring::new(from.clone(), config.server.ring_max_bytes);
        let loops = Loops {
            stops: Stops::default(),
            health: Health::default(),
            metrics: Metrics::default(),
        };
        loops.health.expect(Part::Source);
        let pages = Pages::new(topics.clone());
        let queries = loops.queries(config);
        loops.fanout(&bus, from, &ring, &pages, &queries);
        let relay = loops.relay(config, source, &bus, &topics);
        let gateway = Arc::new(Gateway {
            topics,
            ring,
            backlog: fanout::serve_backlog(bus.clone()),
            queries,
            group: Group::new(GROUP, config.server.max_connections),
            metrics: loops.metrics.clone(),
            config: sessions(&config.server),
            stop: loops.stops.sessions.clone(),
        });
        let edge = Arc::new(Edge {
            publisher: fanout::serve_publisher(bus.clone(), loops.metrics),
            pages,
            demo,
            health: loops.health,
            origins: Origins::new(
                config.server.allowed_origins.clone(),
                config.server.listen.is_loopback(),
            ),
            echoes: Group::new("echo", config.server.max_connections),
            gateway,
        });
        let app = Self {
            listener,
            edge,
            bus,
            relay,
            stops: loops.stops,
            grace: config.server.shutdown_grace,
            drain: drain(&config.server),
        };
        app.ready().await;
        Ok(app)
    }

    /// The address that is bound.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// On the demo, a command for another terminal that changes a row.
    pub fn hint(&self) -> Option<&str> {
        self.edge.demo.as_ref().map(|demo| demo.hint.as_str())
    }

    /// Waits a while until changes are captured, so that whoever reads "listening" can rely on it.
    async fn ready(&self) {
        let mut grown = self.edge.gateway.ring.watch();
        let is_up = || {
            let missing = self.edge.health.missing();
            missing.iter().all(|(part, _)| *part != Part::Source)
        };
        let progressed = async {
            // The source's first batch, which says which history it follows, must have passed.
            while !is_up() || self.edge.gateway.ring.progress().is_none() {
                let _ = tokio::time::timeout(START_POLL, grown.changed()).await;
            }
            passed_on(&self.bus, &self.edge.gateway.ring).await;
        };
        if tokio::time::timeout(START_TIMEOUT, progressed)
            .await
            .is_err()
        {
            warn!(missing = ?self.edge.health.missing(), "starting without a source: /readyz says when it is there");
        }
    }

    /// Serves until `shutdown` resolves, then stops upstream first: accept no more, finish
    /// publishing what was read, hand it to the sockets, close them with 1012, end the loops.
    ///
    /// # Errors
    /// What the listener says, should it fail.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self {
            listener,
            edge,
            bus,
            relay,
            stops,
            grace,
            drain,
        } = self;
        let server = http::serve(listener, edge.clone(), stops.accept.clone());
        let mut server = tokio::spawn(server);
        tokio::select! {
            () = shutdown => {}
            ended = &mut server => ended.context("the listener has failed")??,
        }
        let deadline = tokio::time::Instant::now() + grace;
        let (gateway, grace_ms) = (&edge.gateway, grace.as_millis());
        info!(grace_ms, sockets = gateway.group.len(), "stopping");
        stops.accept.cancel();
        stops.relay.cancel();
        let orderly = async {
            if relay.await.is_err() {
                warn!("the relay had failed before");
            }
            // What the sockets would miss now they get when they resume.
            let passed = passed_on(&bus, &gateway.ring);
            let _ = tokio::time::timeout(FANOUT_GRACE.min(drain), passed).await;
            stops.sessions.cancel();
            gateway.group.emptied().await;
            edge.echoes.emptied().await;
        };
        if tokio::time::timeout_at(deadline, orderly).await.is_err() {
            let sockets = gateway.group.len();
            warn!(sockets, "the grace period is over: cutting what is left");
        }
        stops.sessions.cancel();
        stops.fanout.cancel();
        server.abort();
        info!("stopped");
        Ok(())
    }
}

/// What the loops are started with, beside what they connect.
struct Loops {
    stops: Stops,
    health: Health,
    metrics: Metrics,
}

impl Loops {
    fn both(&self) -> (Health, Metrics) {
        (self.health.clone(), self.metrics.clone())
    }

    /// Direct queries: the third loop, with the store that answers them.
    fn queries(&self, config: &Config) -> Queries {
        let timeout = config.database.query_timeout;
        let (queries, inbox) = query::channel(timeout);
        let store = SqliteStore::new(SqliteStoreConfig {
            path: config.database_path().to_owned(),
            connections: config.database.read_connections,
            timeout,
        });
        let (health, metrics) = self.both();
        tokio::spawn(query::run(store, inbox, health, metrics));
        queries
    }

    /// Bus → Ring, and beside it the pages of page topics.
    fn fanout(
        &self,
        bus: &EmbeddedBus,
        from: Position,
        ring: &Ring,
        pages: &Pages,
        queries: &Queries,
    ) {
        tokio::spawn(fanout::run(
            bus.clone(),
            from,
            ring.clone(),
            pages.clone(),
            self.both(),
            self.stops.fanout.clone(),
        ));
        tokio::spawn(fanout::run_pages(
            pages.clone(),
            queries.clone(),
            ring.clone(),
            self.metrics.clone(),
            self.stops.fanout.clone(),
        ));
    }

    /// Source → Bus.
    fn relay(
        &self,
        config: &Config,
        source: SqliteSource,
        bus: &EmbeddedBus,
        topics: &Topics,
    ) -> JoinHandle<()> {
        tokio::spawn(relay::run(
            source,
            bus.clone(),
            topics.clone(),
            origin(config.database_path()),
            self.both(),
            self.stops.relay.clone(),
        ))
    }
}

fn source(config: &Config, topics: &Topics) -> SqliteSource {
    SqliteSource::new(SqliteSourceConfig {
        path: config.database_path().to_owned(),
        watched: capture::watched(topics),
        poll_interval: config.database.poll_interval,
        changelog_keep: config.database.changelog_keep,
        changelog_max_rows: config.database.changelog_max_rows,
    })
}

/// The trigger views' writer, where the topics are the demo's.
fn demo(config: &Config, source: &SqliteSource) -> anyhow::Result<Option<Demo>> {
    if !config.topics_are_demo {
        return Ok(None);
    }
    Ok(Some(Demo {
        writer: DemoWriter::open(config.database_path())?,
        waker: source.waker(),
        hint: http::hint(config.database_path()),
    }))
}

/// Where the ring begins: some events back.
fn warm(head: &Head) -> Position {
    let back = head.position.offset.saturating_sub(WARM_EVENTS);
    head.position.at(head.first.max(back) - 1)
}

/// Waits until the ring has come to where the bus is now.
async fn passed_on(bus: &EmbeddedBus, ring: &Ring) {
    let Ok(head) = bus.head().await else { return };
    let mut grown = ring.watch();
    let behind = || {
        let (at, to) = (ring.head().position, &head.position);
        at.epoch != to.epoch || at.offset < to.offset
    };
    while behind() && grown.changed().await.is_ok() {}
}

/// The share of the grace period in which sockets are closed in waves.
fn drain(server: &Server) -> Duration {
    server.shutdown_grace / 2
}

async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let listen = &config.server.listen;
    let bound = TcpListener::bind((listen.host.as_str(), listen.port)).await;
    bound.map_err(|err| match err.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{listen} is taken by another program; choose another port with --listen, \
             for example --listen 127.0.0.1:0 for any that is free"
        ),
        _ => anyhow!("cannot listen on {listen}: {err}; choose another address with --listen"),
    })
}

/// Creates the demo's database where nothing else was asked for.
fn create(config: &Config) -> anyhow::Result<bool> {
    let path = config.database_path();
    if config.topics_are_demo {
        return demo_tables::create(path)
            .map_err(|err| anyhow!("the database {} cannot be created: {err}", path.display()));
    }
    if !path.exists() {
        return Err(anyhow!(
            "there is no database {}; a configuration with topics needs one that has their tables",
            path.display()
        ));
    }
    Ok(false)
}

/// What begins the CloudEvents `source` of this database's events.
fn origin(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    format!("/sqlite/{stem}")
}

fn sessions(server: &Server) -> SessionConfig {
    SessionConfig {
        ping_interval: server.ping_interval,
        pong_timeout: server.pong_timeout,
        hello_timeout: server.hello_timeout,
        tick_interval: server.tick_interval,
        write_timeout: server.write_timeout,
        drain: drain(server),
        max_message_bytes: server.max_message_bytes,
        queries_running: server.queries_running,
        queries_queued: server.queries_queued,
        language: server.language,
    }
}
