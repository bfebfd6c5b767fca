//! Assembly: from a configuration to running loops, and back down in order.

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use axum::serve::ListenerExt;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    bus::{
        Bus,
        embedded::{EmbeddedBus, EmbeddedBusConfig},
    },
    config::{Config, Server},
    fanout::{self, Pages},
    groups::Group,
    http::{self, Demo, Edge, Origins},
    metrics::{Health, Metrics, Part},
    predicate,
    protocol::GROUP,
    query, relay,
    ring::Ring,
    session::{Gateway, SessionConfig},
    source::sqlite::{self as capture, SqliteSource, SqliteSourceConfig},
    sqlite::{self, Mode},
    store::{
        demo::{self, DemoWriter},
        sqlite::{SqliteStore, SqliteStoreConfig},
    },
    topic::{BadTopic, Topic, Topics},
};

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

/// Holds every topic of the configuration against the database.
///
/// # Errors
/// A [`crate::config::ConfigError`] that names file and key, where a topic is not what it says;
/// else why the database cannot be read.
pub fn topics(config: &Config) -> anyhow::Result<Topics> {
    let path = config.database_path();
    let conn = sqlite::open(path, Mode::Read).with_context(|| cannot_open(path))?;
    let mut topics = Vec::with_capacity(config.topics.len());
    for (index, spec) in config.topics.iter().enumerate() {
        let bad = |bad: BadTopic| config.bad_topic(index, &bad);
        let table = match &spec.table {
            None => None,
            Some(name) => {
                let found = sqlite::introspect(&conn, name).with_context(|| cannot_open(path))?;
                Some(found.ok_or_else(|| bad(no_table(&conn, name)))?)
            }
        };
        let topic = Topic::resolve(spec, table.as_ref()).map_err(bad)?;
        if let (Some(text), Some(table)) = (&spec.r#where, &table) {
            let parsed = predicate::parse(text, table);
            parsed.map_err(|err| {
                bad(BadTopic {
                    field: "where",
                    reason: err.to_string(),
                })
            })?;
        }
        topics.push(topic);
    }
    let topics = Topics::new(topics).map_err(|bad| config.bad_topic(0, &bad))?;
    for table in capture::watched(&topics) {
        let most = capture::MAX_KEY_COLUMNS;
        if table.identity.len() > most {
            let reason = format!(
                "the topics of \"{}\" have more than {most} key columns together",
                table.table
            );
            return Err(config
                .bad_topic(
                    0,
                    &BadTopic {
                        field: "key",
                        reason,
                    },
                )
                .into());
        }
    }
    Ok(topics)
}

fn no_table(conn: &rusqlite::Connection, name: &str) -> BadTopic {
    let tables = sqlite::tables(conn).unwrap_or_default();
    let hint = match crate::topic::nearest(name, tables.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("its tables are {}", tables.join(", ")),
    };
    BadTopic {
        field: "table",
        reason: format!("the database has no table \"{name}\"; {hint}"),
    }
}

fn cannot_open(path: &Path) -> String {
    format!("the database {} cannot be read", path.display())
}

impl App {
    /// Binds the listener, opens everything and starts the loops. On the first run with the
    /// default topics the database is created with the demo.
    ///
    /// # Errors
    /// What is in the way, and what to do about it; nothing runs then.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let listener = bind(config).await?;
        let path = config.database_path();
        let created = create(config)?;
        let topics = topics(config)?;
        let bus = EmbeddedBus::open(&EmbeddedBusConfig {
            path: config.bus_path(),
            keep: config.bus.keep,
            max_bytes: config.bus.max_bytes,
        })?;
        if created {
            info!(database = %path.display(), "created the database with the demo");
        }
        let source = SqliteSource::new(SqliteSourceConfig {
            path: path.to_owned(),
            watched: capture::watched(&topics),
            poll_interval: config.database.poll_interval,
            changelog_keep: config.database.changelog_keep,
            changelog_max_rows: config.database.changelog_max_rows,
        });
        let demo = match config.topics_are_demo {
            true => Some(Demo {
                writer: DemoWriter::open(path)?,
                waker: source.waker(),
            }),
            false => None,
        };
        let (stops, health, metrics) = (Stops::default(), Health::default(), Metrics::default());
        health.expect(Part::Source);

        let head = bus.head().await?;
        let warm = head.position.at(head
            .first
            .max(head.position.offset.saturating_sub(WARM_EVENTS))
            - 1);
        let ring = Ring::new(warm.clone(), config.server.ring_max_bytes);
        let pages = Pages::new(topics.clone());
        let (queries, inbox) = query::channel(config.database.query_timeout);
        let store = SqliteStore::new(SqliteStoreConfig {
            path: path.to_owned(),
            connections: config.database.read_connections,
            timeout: config.database.query_timeout,
        });
        let both = || (health.clone(), metrics.clone());
        tokio::spawn(query::run(store, inbox, health.clone(), metrics.clone()));
        let following = fanout::run(
            bus.clone(),
            warm,
            ring.clone(),
            pages.clone(),
            both(),
            stops.fanout.clone(),
        );
        tokio::spawn(following);
        let reading = (
            pages.clone(),
            queries.clone(),
            ring.clone(),
            metrics.clone(),
        );
        tokio::spawn(fanout::run_pages(
            reading.0,
            reading.1,
            reading.2,
            reading.3,
            stops.fanout.clone(),
        ));
        let relay = relay::run(
            source,
            bus.clone(),
            topics.clone(),
            origin(path),
            both(),
            stops.relay.clone(),
        );
        let relay = tokio::spawn(relay);

        let gateway = Arc::new(Gateway {
            topics,
            ring,
            backlog: fanout::serve_backlog(bus.clone()),
            queries,
            group: Group::new(GROUP, config.server.max_connections),
            metrics: metrics.clone(),
            config: sessions(&config.server),
            stop: stops.sessions.clone(),
        });
        let edge = Arc::new(Edge {
            publisher: fanout::serve_publisher(bus.clone(), metrics),
            pages,
            demo,
            health,
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
            stops,
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
        let router = http::router(edge.clone());
        let listener = listener.tap_io(|stream| {
            // A push is one small write: it must not wait for another.
            if let Err(err) = stream.set_nodelay(true) {
                tracing::debug!(error = %err, "TCP_NODELAY cannot be set");
            }
        });
        let accept = stops.accept.clone();
        let server = axum::serve(listener, router).with_graceful_shutdown(accept.cancelled_owned());
        let mut server = tokio::spawn(server.into_future());
        tokio::select! {
            () = shutdown => {}
            ended = &mut server => ended.context("the listener has failed")??,
        }
        let deadline = tokio::time::Instant::now() + grace;
        info!(
            grace_ms = grace.as_millis(),
            sockets = edge.gateway.group.len(),
            "stopping"
        );
        stops.accept.cancel();
        stops.relay.cancel();
        let orderly = async {
            if relay.await.is_err() {
                warn!("the relay had failed before");
            }
            let _ =
                tokio::time::timeout(FANOUT_GRACE.min(drain), passed_on(&bus, &edge.gateway.ring))
                    .await;
            stops.sessions.cancel();
            edge.gateway.group.emptied().await;
            edge.echoes.emptied().await;
        };
        if tokio::time::timeout_at(deadline, orderly).await.is_err() {
            warn!(
                sockets = edge.gateway.group.len(),
                "the grace period is over: cutting what is left"
            );
        }
        stops.sessions.cancel();
        stops.fanout.cancel();
        server.abort();
        info!("stopped");
        Ok(())
    }
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
        return demo::create(path)
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
