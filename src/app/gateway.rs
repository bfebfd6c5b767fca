//! A gateway, put together: from a configuration to running loops, as soon as database and bus are
//! there.

use std::{net::SocketAddr, num::NonZero, sync::Arc, time::Duration};

use anyhow::anyhow;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{
    loops::{self, Loops},
    nats, process, revocations, topics,
};
use crate::{
    auth::Auth,
    bus::{Bus, Head, ReadError, embedded::EmbeddedBus, jetstream::Role},
    callers::{Identities, Pace, Rate},
    config::{BusUrl, Config, ConfigError, DatabaseUrl, Server},
    fanout::{self, Pages},
    groups::Group,
    http::{self, Demo, Edge, Origins, Tokens},
    metrics::Part,
    nats_service,
    pipeline::{self, Serving},
    position::Position,
    protocol::{GROUP, JsonLimits},
    ring::Ring,
    session::{self, Filters, Gateway, Lanes, SessionConfig},
    source::sqlite::Waker,
    store::demo::{self as demo_tables, DemoWriter},
    topic::Topics,
};

/// Events read from the bus at start, so that a client that returns at once is served from
/// memory.
const WARM_EVENTS: u64 = 5_000;

/// A producer's silence is not told before this: a takeover from one that froze takes its time.
const MIN_SILENCE: Duration = Duration::from_secs(15);

/// The pause before a database or a bus that is not there is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How long a ring may take to come to the bus's head before the head is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often the first reading of the source is looked for: it may be up without a frame to show.
const START_POLL: Duration = Duration::from_millis(10);

/// A gateway whose loops run.
#[derive(Debug)]
pub(super) struct Running {
    pub edge: Arc<Edge>,
    /// Where this process also reads the database: with the embedded bus.
    pub relay: Option<(JoinHandle<()>, EmbeddedBus)>,
}

/// Waits for database and bus, and starts everything. On the first run with the default topics a
/// SQLite database is created with the demo.
///
/// # Errors
/// What no waiting will mend, and what to do about it.
pub(super) async fn assemble(
    config: Config,
    loops: Loops,
    address: SocketAddr,
) -> anyhow::Result<Running> {
    let auth = Auth::new(config.auth_settings()?, loops.metrics.clone())?;
    follow_keys(&config, &auth, &loops);
    match &config.bus.url {
        BusUrl::Embedded => {
            let created = create(&config)?;
            let topics = resolved(&config, &loops).await?;
            let bus = loops::embedded(&config)?;
            if created {
                info!(database = %config.database.url, "created the database with the demo");
            }
            if auth.judges() {
                revocations::in_file(&bus, &auth, &loops).await?;
            }
            let (relay, waker) = loops.relay(&config, &bus, &topics);
            let edge = edge(
                &config,
                &loops,
                (&topics, &auth),
                bus.clone(),
                (address, waker),
            )
            .await?;
            let running = Running {
                edge,
                relay: Some((relay, bus)),
            };
            running.captured(&loops).await;
            described(&running.edge.gateway, &loops).await;
            Ok(running)
        }
        BusUrl::Nats(servers) => {
            loops.health.expect(Part::Bus);
            let topics = resolved(&config, &loops).await?;
            let metrics = &loops.metrics;
            let bus = nats::connect(&config, servers, Role::Gateway, &topics, metrics).await?;
            if auth.judges() {
                // When a producer has been there the stream of revocations is, too.
                head(&bus, &loops).await;
                revocations::on_nats(&bus, &auth, &loops, config.auth.keep_revoked).await;
            }
            let at = (address, None);
            let edge = edge(&config, &loops, (&topics, &auth), bus.clone(), at).await?;
            passed_on(&bus, &edge.gateway.ring).await;
            described(&edge.gateway, &loops).await;
            tokio::spawn(nats::tell_durability(bus.clone()));
            tokio::spawn(nats::compare(bus.clone(), topics, loops.clone()));
            let stop = loops.stops.relay.clone();
            let gateway = edge.gateway.clone();
            let queries = nats_service::run(bus.clone(), gateway, stop);
            loops.spawn("queries over NATS", queries);
            let told = bus.clone();
            let refreshes = nats::refreshes(bus, edge.pages.clone(), loops.clone());
            loops.spawn("refreshes", refreshes);
            let process = edge.pipeline.process().clone();
            loops.spawn("status", nats::tell_status(told, process, loops.clone()));
            Ok(Running { edge, relay: None })
        }
    }
}

/// The topics, held against the database as soon as it can be read.
pub(super) async fn resolved(config: &Config, loops: &Loops) -> anyhow::Result<Topics> {
    loop {
        let err = match topics(config).await {
            Ok(topics) => {
                loops.health.up(Part::Store);
                return Ok(topics);
            }
            Err(err) => err,
        };
        let for_good = err.downcast_ref::<ConfigError>().is_some();
        if for_good || config.database.url.path().is_some() {
            return Err(err);
        }
        // The errors beneath repeat what the second one says.
        let causes: Vec<String> = err.chain().take(2).map(ToString::to_string).collect();
        loops.health.down(Part::Store, &causes.join(": "));
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Everything between the bus and the sockets.
async fn edge(
    config: &Config,
    loops: &Loops,
    (topics, auth): (&Topics, &Auth),
    bus: impl Bus,
    (address, waker): (SocketAddr, Option<Waker>),
) -> anyhow::Result<Arc<Edge>> {
    let from = fanout::checked(&bus, warm(&head(&bus, loops).await)).await;
    let ring = Ring::new(from.clone(), config.server.ring_max_bytes);
    let pages = Pages::new(topics.clone());
    let queries = loops.queries(config);
    loops.fanout(silence(config), &bus, from, &ring, &pages, &queries);
    let group = Group::new(GROUP, config.server.max_connections);
    let serving = Serving {
        ring: ring.clone(),
        group: group.clone(),
    };
    let reads = matches!(config.bus.url, BusUrl::Embedded);
    let process = process::gateway(config, loops, address, reads, serving);
    let lanes = Lanes::new(&ring, topics, cores());
    for lane in lanes.loops(&ring, &loops.metrics, &loops.stops.sessions) {
        loops.spawn("lane", lane);
    }
    let gateway = Arc::new(Gateway {
        lanes,
        topics: topics.clone(),
        filters: Filters::new(ring.clone(), queries.clone()),
        backlog: fanout::serve_backlog(bus.clone(), ring.clone(), loops.metrics.clone()),
        ring,
        pages: pages.clone(),
        queries,
        group,
        auth: auth.clone(),
        identities: Identities::new(config.server.max_connections_per_identity),
        askers: Identities::new(config.limits.requests_per_identity),
        pace: Pace::new(Rate {
            per_second: config.limits.requests_per_second,
            burst: config.limits.requests_burst,
        }),
        metrics: loops.metrics.clone(),
        health: loops.health.clone(),
        config: sessions(config),
        stop: loops.stops.sessions.clone(),
    });
    Ok(Arc::new(Edge {
        pipeline: pipeline::serve(bus.clone(), process),
        publisher: fanout::serve_publisher(
            bus,
            config.limits.writes_running,
            loops.metrics.clone(),
        ),
        pages,
        demo: demo(config, waker)?,
        origins: Origins::new(
            config.server.allowed_origins.clone(),
            !config.server.is_exposed(),
        ),
        body_timeout: config.server.body_timeout,
        tokens: Tokens {
            cookie: config.auth.cookie.clone(),
            in_url: config.auth.token_in_url,
        },
        echoes: Group::new("echo", config.server.max_connections),
        gateway,
    }))
}

/// Has the issuer's keys read, from the first moment, and says what is not safe about it.
fn follow_keys(config: &Config, auth: &Auth, loops: &Loops) {
    for url in [&config.auth.jwks_url, &config.auth.forward_url] {
        if let Some(url) = url.as_ref().filter(|url| url.is_exposed()) {
            warn!(%url, "who somebody is is asked over http: whoever sits in between decides it");
        }
    }
    let (auth, stop) = (auth.clone(), loops.stops.relay.clone());
    loops.spawn("keys", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = auth.follow_keys() => {}
        }
    });
}

/// The cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// How long a change producer in another process may be silent. One that reads SQLite has no
/// heartbeats.
fn silence(config: &Config) -> Option<Duration> {
    let elsewhere = matches!(config.bus.url, BusUrl::Nats(_));
    let beats = config.database.url.path().is_none();
    let silence = (config.database.heartbeat_interval * 3).max(MIN_SILENCE);
    (elsewhere && beats).then_some(silence)
}

/// What the bus holds, once it can be asked.
async fn head(bus: &impl Bus, loops: &Loops) -> Head {
    loop {
        match bus.head().await {
            Ok(head) => return head,
            Err(ReadError::Unavailable(err)) => loops.health.down(Part::Bus, &err),
            Err(err) => loops.health.down(Part::Bus, &err),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

impl Running {
    /// Waits until changes are captured, so that whoever reads "listening" can rely on it.
    async fn captured(&self, loops: &Loops) {
        let ring = &self.edge.gateway.ring;
        let mut grown = ring.watch();
        let is_up = || {
            let missing = loops.health.missing();
            missing.iter().all(|(part, _)| *part != Part::Source)
        };
        // The source's first batch, which says which history it follows, must have passed.
        while !is_up() || ring.progress().is_none() {
            let _ = tokio::time::timeout(START_POLL, grown.changed()).await;
        }
        if let Some((_, bus)) = &self.relay {
            passed_on(bus, ring).await;
        }
    }
}

/// Has guarded topics' tables described before the first client comes, and from then on.
async fn described(gateway: &Arc<Gateway>, loops: &Loops) {
    gateway.filters.describe_guarded(&gateway.topics).await;
    let stop = loops.stops.fanout.clone();
    loops.spawn(
        "descriptions",
        session::keep_described(gateway.clone(), stop),
    );
}

/// Waits until the ring has come to where the bus is now, so that who returns at once is not told
/// of having caught up before that.
pub(super) async fn passed_on(bus: &impl Bus, ring: &Ring) {
    let mut grown = ring.watch();
    while let Ok(head) = bus.head().await {
        let behind = || {
            let (at, to) = (ring.head().position, &head.position);
            at.epoch != to.epoch || at.offset < to.offset
        };
        let come = async { while behind() && grown.changed().await.is_ok() {} };
        // Meanwhile the bus may have begun another epoch.
        if tokio::time::timeout(LOOK_AGAIN, come).await.is_ok() {
            return;
        }
    }
}

/// Where the ring begins: some events back.
fn warm(head: &Head) -> Position {
    let back = head.position.offset.saturating_sub(WARM_EVENTS);
    head.position.at(head.first.max(back).saturating_sub(1))
}

/// The trigger views' writer, where the topics are the demo's.
fn demo(config: &Config, waker: Option<Waker>) -> anyhow::Result<Option<Demo>> {
    let DatabaseUrl::Sqlite(path) = &config.database.url else {
        return Ok(None);
    };
    if !config.topics_are_demo {
        return Ok(None);
    }
    Ok(Some(Demo {
        writer: DemoWriter::open(path)?,
        waker,
        hint: http::hint(path),
    }))
}

/// Creates the demo's database where nothing else was asked for.
fn create(config: &Config) -> anyhow::Result<bool> {
    let DatabaseUrl::Sqlite(path) = &config.database.url else {
        return Ok(false);
    };
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

/// The share of the grace period in which sockets are closed in waves.
pub(super) fn drain(server: &Server) -> Duration {
    server.shutdown_grace / 2
}

fn sessions(config: &Config) -> SessionConfig {
    let (server, limits) = (&config.server, &config.limits);
    SessionConfig {
        ping_interval: server.ping_interval,
        pong_timeout: server.pong_timeout,
        hello_timeout: server.hello_timeout,
        tick_interval: server.tick_interval,
        write_timeout: server.write_timeout,
        compression: server.compression,
        drain: drain(server),
        max_message_bytes: server.max_message_bytes,
        max_fragments: limits.max_fragments,
        messages: Rate {
            per_second: limits.messages_per_second,
            burst: limits.messages_burst,
        },
        controls: Rate {
            per_second: limits.controls_per_second,
            burst: limits.controls_burst,
        },
        json: JsonLimits {
            depth: limits.json_depth,
            keys: limits.json_keys,
            string_bytes: limits.json_string_bytes,
            token_bytes: limits.token_bytes,
        },
        max_topics: limits.topics_per_socket,
        queries_running: server.queries_running,
        queries_queued: server.queries_queued,
        language: server.language,
    }
}
