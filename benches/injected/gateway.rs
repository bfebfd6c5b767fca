//! The gateway, put together as src/app/gateway.rs does it, with what no configuration names: a bus of
//! this program's own, and no database.

use std::{sync::Arc, time::Duration};

use rowcast::{
    auth::{Auth, Settings},
    bus::Bus,
    callers::{Identities, Pace, Rate, Room},
    fanout::{self, Pages},
    groups::Group,
    http::{self, AllowedHosts, Door, Edge, Face, Hosts, Origins, Proxies, Terms, Tokens, Usual},
    metrics::{Health, Metrics},
    pipeline::{self, Process, Serving, Watching},
    position::{Epoch, Position},
    protocol::{GROUP, JsonLimits, Language},
    query::{self, QueryLimits},
    ring::Ring,
    session::{Filters, Gateway, Lanes, SessionConfig},
    topic::{Topic, TopicSpec, Topics},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// As in rowcast.example.toml.
const RING_BYTES: usize = 64 * 1024 * 1024;

/// More sockets than any measurement opens.
const MAX_SOCKETS: usize = 100_000;

/// As fast as anybody can.
pub const ANY: Rate = Rate {
    per_second: 1_000_000,
    burst: 1_000_000,
};

/// Starts serving on `listen`.
pub async fn serve(listen: &str, spec: &TopicSpec, bus: impl Bus) {
    let (health, metrics) = (Health::default(), Metrics::default());
    let stop = CancellationToken::new();
    let from = Position::start_of(Epoch::parse("bench").unwrap());
    let ring = Ring::new(from.clone(), RING_BYTES);
    let topics = Topics::new(vec![Topic::resolve(spec, None).unwrap()]).unwrap();
    let pages = Pages::new(topics.clone());
    let (queries, _nobody) = query::channel(asks(), metrics.clone());
    tokio::spawn(fanout::run(
        bus.clone(),
        from,
        ring.clone(),
        pages.clone(),
        (health.clone(), metrics.clone()),
        (None, stop.clone()),
    ));
    let group = Group::new(GROUP, MAX_SOCKETS);
    let serving = Serving {
        ring: ring.clone(),
        group: group.clone(),
    };
    let both = (health.clone(), metrics.clone());
    let source = Watching::Elsewhere("nothing".into());
    let process = Process::new(listen.to_owned(), both, source, Some(serving));
    let cores = std::thread::available_parallelism().unwrap().get();
    let lanes = Lanes::new(&ring, &topics, cores);
    for lane in lanes.loops(&ring, &metrics, &stop) {
        tokio::spawn(lane);
    }
    let gateway = Arc::new(Gateway {
        lanes,
        filters: Filters::new(ring.clone(), queries.clone()),
        backlog: fanout::serve_backlog(bus.clone(), ring.clone(), metrics.clone()),
        pages: pages.clone(),
        queries,
        group,
        // Nothing is judged, as with an empty configuration.
        auth: Auth::new(Settings::default(), metrics.clone()).unwrap(),
        identities: Identities::new(MAX_SOCKETS),
        askers: Identities::new(MAX_SOCKETS),
        pace: Pace::new(ANY),
        metrics: metrics.clone(),
        health: health.clone(),
        config: sessions(),
        stop: stop.clone(),
        topics,
        ring,
    });
    let edge = Edge {
        gateway,
        publisher: fanout::serve_publisher(bus.clone(), 256, metrics.clone()),
        pipeline: pipeline::serve(bus, Arc::new(process)),
        pages,
        demo: None,
        origins: Origins::new(Vec::new(), true),
        body_timeout: Duration::from_secs(10),
        tokens: Tokens::default(),
        echoes: Group::new("echo", MAX_SOCKETS),
    };
    let door = Door::of_gateway(health, metrics, Language::En);
    door.open(Arc::new(edge));
    let listener = TcpListener::bind(listen).await.unwrap();
    let terms = Terms {
        room: Room {
            all: MAX_SOCKETS,
            of_one: MAX_SOCKETS,
            arrivals: ANY,
        },
        head_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        head_bytes: 8 * 1024,
        headers: 64,
        hosts: Hosts::new(AllowedHosts::default(), Usual::Loopback),
        proxies: Proxies::default(),
        tls: None,
        face: Face::Whole,
    };
    tokio::spawn(http::serve(listener, door, terms, stop));
}

/// As in rowcast.example.toml, and never used: there is no database.
pub fn asks() -> QueryLimits {
    QueryLimits {
        timeout: Duration::from_secs(1),
        waiting: 1024,
        requests: 256,
        connections: 1,
    }
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate { per_second, burst }
}

/// As in rowcast.example.toml.
pub fn sessions() -> SessionConfig {
    SessionConfig {
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        hello_timeout: Duration::from_secs(10),
        tick_interval: Duration::from_secs(5),
        write_timeout: Duration::from_secs(10),
        drain: Duration::from_secs(5),
        max_message_bytes: 65_536,
        max_fragments: 64,
        messages: rate(20, 40),
        controls: rate(10, 20),
        json: JsonLimits::default(),
        max_topics: 128,
        queries_running: 2,
        queries_queued: 8,
        compression: true,
        language: Language::En,
    }
}
