//! What an event costs that concerns one of many sockets, beside one that concerns them all: processor time of
//! this process, in which no client runs.
//!
//! `injected policy [SOCKETS…]`: sockets of 100, 1,000 and 10,000 people, or of as many as it says, each in a ward
//! of its own, all in one house; once as plain TCP, and once as what no lane can write to, as TLS is.

use std::{
    env, fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rowcast::{
    auth::{Auth, Settings},
    bus::Bus,
    callers::{Identities, Pace, Share},
    event::{Body, ChangeData, Event, Op, raw},
    fanout::{self, Pages},
    groups::Group,
    identity::Identity,
    metrics::{Health, Metrics},
    protocol::{GROUP, Mode, Select},
    query,
    ring::Ring,
    session::{self, Filters, Gateway, Lanes, Opening, Socket},
    store::{Snapshot, Store, StoreError},
    topic::{Affinity, Collation, Column, Kind, Table, Topic, Topics},
};
use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{
    gateway::{ANY, asks, sessions},
    memory::Memory,
};

/// How many sockets there are, from round to round, unless it is said.
const SOCKETS: [usize; 3] = [100, 1_000, 10_000];

/// Between two events: longer than one takes for all, so that each is carried alone.
const PAUSE: Duration = Duration::from_millis(2);

/// Events of a measurement, and frames that it writes at the most.
const EVENTS: usize = 2_000;
const FRAMES: usize = 400_000;

/// The topics: who is concerned is looked up, or each is asked, or it is everybody.
const TOPICS: [(&str, &str); 3] = [
    ("looked_up", "ward = token.ward"),
    ("asked", "NOT ward <> token.ward"),
    ("all", "house = token.house"),
];

/// A database of which nothing is known but its table.
#[derive(Clone)]
struct Described;

impl Store for Described {
    async fn snapshot(&self, _: Arc<Topic>, _: Select) -> Result<Snapshot, StoreError> {
        Err(StoreError::Timeout)
    }

    async fn describe(&self, _: Arc<Topic>) -> Result<Table, StoreError> {
        Ok(table())
    }

    async fn mark(&self, _: &str) -> Result<u64, StoreError> {
        Err(StoreError::Timeout)
    }
}

fn table() -> Table {
    let column = |name: &str| Column {
        name: name.into(),
        declared: "text".into(),
        affinity: Affinity::Blob,
        kind: Some(Kind::Text),
        collation: Collation::Binary,
        not_null: true,
    };
    Table {
        name: "t".into(),
        columns: ["id", "ward", "house", "text"].map(column).into(),
        primary_key: vec!["id".into()],
        unique: Vec::new(),
        displaces: false,
    }
}

fn topics() -> Topics {
    let topic = |(name, policy): (&str, &str)| {
        let spec = json!({ "type": name, "table": "t", "policy": policy });
        Topic::resolve(&serde_json::from_value(spec).unwrap(), Some(&table())).unwrap()
    };
    Topics::new(TOPICS.map(topic).into()).unwrap()
}

/// Measures with so many sockets, and prints a table.
pub async fn run(sockets: &[usize]) {
    let sockets = match sockets {
        [] => &SOCKETS,
        given => given,
    };
    println!("| sockets | | one, looked up | one, each asked | all |\n|---:|---|---:|---:|---:|");
    for (sockets, plain) in sockets.iter().flat_map(|one| [(*one, true), (*one, false)]) {
        let scene = Scene::new(sockets, plain).await;
        let mut cells = Vec::new();
        for (topic, _) in TOPICS {
            let each = if topic == "all" { sockets } else { 1 };
            let events = (FRAMES / each).min(EVENTS);
            scene.publish(topic, 20, each).await;
            let used = scene.publish(topic, events, each).await;
            cells.push(format!(
                "{:.1} µs",
                used.as_secs_f64() * 1e6 / events as f64
            ));
        }
        let how = if plain { "plain TCP" } else { "not" };
        println!("| {sockets} | {how} | {} |", cells.join(" | "));
    }
}

/// A gateway with so many sockets, whose clients are another process.
struct Scene {
    bus: Memory,
    metrics: Metrics,
    sockets: usize,
    stop: CancellationToken,
    clients: Child,
}

impl Scene {
    async fn new(sockets: usize, plain: bool) -> Self {
        let (health, metrics) = (Health::default(), Metrics::default());
        let (bus, stop, topics) = (Memory::new(), CancellationToken::new(), topics());
        let from = bus.head().await.unwrap().position;
        let ring = Ring::new(from.clone(), 64 * 1024 * 1024);
        let pages = Pages::new(topics.clone());
        let (queries, inbox) = query::channel(asks(), metrics.clone());
        tokio::spawn(query::run(
            Described,
            inbox,
            health.clone(),
            metrics.clone(),
        ));
        tokio::spawn(fanout::run(
            bus.clone(),
            from,
            ring.clone(),
            pages.clone(),
            (health.clone(), metrics.clone()),
            (None, stop.clone()),
        ));
        let cores = std::thread::available_parallelism().unwrap().get();
        let lanes = Lanes::new(&ring, &topics, cores);
        for lane in lanes.loops(&ring, &metrics, &stop) {
            tokio::spawn(lane);
        }
        let gateway = Arc::new(Gateway {
            lanes,
            filters: Filters::new(ring.clone(), queries.clone()),
            backlog: fanout::serve_backlog(bus.clone(), ring.clone(), metrics.clone()),
            pages,
            queries,
            group: Group::new(GROUP, sockets),
            auth: Auth::new(Settings::default(), metrics.clone()).unwrap(),
            identities: Identities::new(sockets),
            askers: Identities::new(sockets),
            pace: Pace::new(ANY),
            metrics: metrics.clone(),
            health,
            config: sessions(),
            stop: stop.clone(),
            topics,
            ring,
        });
        gateway.filters.describe_guarded(&gateway.topics).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients = Command::new(env::current_exe().unwrap())
            .args(["clients", &listener.local_addr().unwrap().to_string()])
            .arg(sockets.to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        for number in 0..sockets {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let claims = json!({ "ward": format!("ward {number}"), "house": "one" });
            let opening = Opening {
                head: gateway.ring.head(),
                types: None,
                since: None,
                hello_first: false,
                mode: Mode::Every,
                owes_token: false,
                from: None,
                share: Share::default(),
                identity: Identity::new(claims.as_object().unwrap().clone(), None),
            };
            let socket = match plain {
                true => Socket::tcp(stream, Bytes::new()),
                false => Socket::other(stream, Bytes::new()),
            };
            let served = session::join(socket, gateway.clone(), opening).unwrap();
            tokio::spawn(served);
        }
        Self {
            bus,
            metrics,
            sockets,
            stop,
            clients,
        }
    }

    /// Publishes events each of which concerns so many sockets, and returns what that took of processors.
    async fn publish(&self, topic: &str, events: usize, each: usize) -> Duration {
        let sent = self.metrics.pushes_sent.get();
        let before = processor_time();
        let mut pace = tokio::time::interval(PAUSE * u32::try_from(1 + each / 100).unwrap());
        for number in 0..events {
            pace.tick().await;
            let ward = format!("ward {}", number * 7919 % self.sockets);
            self.bus.append(vec![event(topic, number, &ward)]);
        }
        let wanted = sent + (events * each) as u64;
        while self.metrics.pushes_sent.get() < wanted {
            pace.tick().await;
        }
        processor_time() - before
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        self.clients.kill().unwrap();
        self.clients.wait().unwrap();
    }
}

fn event(topic: &str, number: usize, ward: &str) -> Event {
    let row = json!({ "id": number, "ward": ward, "house": "one", "text": "x".repeat(100) });
    let data = ChangeData {
        key: Some(raw(&json!({ "id": number }))),
        old: Some(raw(&row)),
        row: Some(raw(&row)),
        ..ChangeData::whole(Op::Update)
    };
    Event {
        id: "i".into(),
        source: "/bench".into(),
        topic: topic.into(),
        subject: None,
        at_ms: rowcast::clock::now_ms(),
        tx: None,
        xid: Some(number as u64 + 1),
        body: Body::Change {
            checkpoint: "s:1.0".parse().unwrap(),
            data,
        },
    }
}

/// What all threads of this process have run, as the scheduler counts it.
fn processor_time() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let ran = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ran.sum())
}

/// Clients that read whatever comes.
pub async fn clients(address: SocketAddr, sockets: usize) {
    for _ in 0..sockets {
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        });
    }
    std::future::pending::<()>().await;
}
