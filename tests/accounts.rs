//! The users of nats/server.conf: each may do what it must, and nothing else. The server runs on the file
//! as it is shipped; the processes before it are the real ones.

mod replies;
mod revocations;
mod tricks;
pub mod wire;

use std::{fs, path::PathBuf, time::Instant};

use futures_util::StreamExt;
use serde_json::{Value as Json, json};

use crate::{
    production_commands::bus::Tail,
    support::{
        Folder, Nats, NatsOptions, Options, Producer, Ran, STANDSTILL, Server, in_time,
        nats::shipped,
        postgres::{self, Database},
        wait_until,
    },
};

use wire::Wire;

const TABLE: &str = "
CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO t VALUES (1, 0);
";

const TOPICS: &str = "
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"

[[topics]]
type = \"page\"
table = \"t\"
push = \"page\"

[[topics]]
type = \"note\"
";

const USERS: [&str; 4] = ["producer", "gateway", "application", "operator"];

/// A database, and a NATS with users.
struct Site {
    database: Database,
    nats: Nats,
    /// More lines for `[bus]`.
    bus: String,
}

impl Site {
    fn new(nats: Nats) -> Self {
        let database = postgres::database();
        database.sql(TABLE);
        Self {
            database,
            nats,
            bus: String::new(),
        }
    }

    fn config(&self, user: &str) -> String {
        format!(
            "[database]\nurl = \"{}\"\nslot = \"slot_{}\"\nheartbeat_interval_ms = 500\n\
             [bus]\nurl = \"{}\"\nmonitor = \"{}\"\n{}{TOPICS}",
            self.database.url(),
            self.database.name(),
            self.nats.url_as(user),
            self.nats.monitor(),
            self.bus,
        )
    }

    fn producer(&self) -> Producer {
        Producer::start(&self.config("producer"))
    }

    fn gateway(&self) -> Server {
        Server::with(Options {
            config: Some(self.config("gateway")),
            ..Options::default()
        })
    }

    fn run(&self, user: &str, args: &[&str]) -> Ran {
        let folder = Folder::new();
        folder.write("rowcast.toml", &self.config(user));
        folder.run(args)
    }

    async fn client(&self, user: &str) -> async_nats::Client {
        client(&self.nats, user).await
    }

    /// How many messages the stream has had.
    async fn stored(&self) -> u64 {
        let js = async_nats::jetstream::new(self.client("operator").await);
        let stream = js.get_stream("ROWCAST").await.unwrap();
        stream.cached_info().state.last_sequence
    }
}

async fn client(nats: &Nats, user: &str) -> async_nats::Client {
    let inbox = match user {
        "application" => "_INBOX".to_owned(),
        user => format!("_INBOX_{}", user.to_uppercase()),
    };
    let (name, password) = (user.to_owned(), format!("{user}-s3cret"));
    let options = async_nats::ConnectOptions::with_user_and_password(name, password);
    let options = options.custom_inbox_prefix(inbox);
    options.connect(nats.url()).await.unwrap()
}

async fn ready(producer: &Producer) {
    wait_until("a producer", async || {
        producer.is_ready().await.then_some(())
    })
    .await;
}

/// nats/server.conf without the lines that have one of these in them.
fn without(lines: &[&str]) -> (Nats, Folder) {
    let text = fs::read_to_string(shipped().config.unwrap()).unwrap();
    for line in lines {
        assert!(text.contains(line), "{line} is not in nats/server.conf");
    }
    let kept = text
        .lines()
        .filter(|line| !lines.iter().any(|out| line.contains(out)));
    run(&kept.collect::<Vec<_>>().join("\n"))
}

/// As nats/server.conf says that it is for `bus.manage = false`.
fn strict() -> (Nats, Folder) {
    let text = fs::read_to_string(shipped().config.unwrap()).unwrap();
    let parts: Vec<&str> = text.split("# With bus.manage = false").collect();
    let [before, permissions, imports] = parts[..] else {
        panic!("the producer's permissions and their imports are not marked");
    };
    let rest = |marked: &str| {
        let five: Vec<&str> = marked.lines().skip(1).take(5).collect();
        let streams = five.iter().filter(|line| line.contains("$JS.API.STREAM."));
        assert_eq!(streams.count(), 5, "{five:?}");
        marked.lines().skip(6).collect::<Vec<_>>().join("\n")
    };
    let (permissions, imports) = (rest(permissions), rest(imports));
    run(&format!("{before}\n{permissions}\n{imports}"))
}

/// A server with another configuration and the same users; the folder holds its file.
fn run(config: &str) -> (Nats, Folder) {
    let folder = Folder::new();
    folder.write("nats.conf", config);
    let nats = Nats::with(NatsOptions {
        config: Some(folder.path("nats.conf")),
        ..shipped()
    });
    (nats, folder)
}

/// One of the files beside nats/server.conf.
fn definition(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("nats")
        .join(file);
    fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_chain_works_with_the_users_of_the_shipped_configuration() {
    let site = Site::new(Nats::with(shipped()));
    let checked = site.run("producer", &["check"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    assert!(
        !checked.stdout.contains("vulnerabilities"),
        "{}",
        checked.stdout
    );
    let producer = site.producer();
    ready(&producer).await;
    let gateways = [site.gateway(), site.gateway()];
    let (mut sockets, mut pages) = (Vec::new(), Vec::new());
    for gateway in &gateways {
        sockets.push(gateway.socket("types=t,note").await);
        pages.push(gateway.socket("types=page").await);
    }
    let checked = site.run("gateway", &["check"]);
    assert!(checked.stdout.contains("is fsynced"), "{}", checked.stdout);
    // Changes come, and queries are answered at a place that a mark has told.
    site.database.sql("UPDATE t SET n = 1");
    for socket in &mut sockets {
        assert_eq!(socket.next_of("t").await["data"]["n"], 1);
        // Where the machine stands still a mark is waited for in vain.
        let deadline = Instant::now() + STANDSTILL;
        loop {
            let reply = socket.ask(json!({"type": "t", "rid": 1})).await;
            if reply.get("exact").is_none() {
                break;
            }
            assert!(Instant::now() < deadline, "{reply}");
        }
    }
    for socket in &mut pages {
        assert_eq!(socket.next_of("page").await["data"][0]["n"], 1);
    }
    // An application publishes, by command and by hand, and asks.
    let published = site.run("application", &["publish", "note", "{\"by\":\"command\"}"]);
    assert_eq!(published.code, 0, "{}", published.stderr);
    let published: Json = serde_json::from_str(&published.stdout).unwrap();
    let since = published["cursor"].as_str().unwrap();
    let tail = Tail::start(&site.config("gateway"), &["note", "--since", since]);
    let application = site.client("application").await;
    let js = async_nats::jetstream::new(application.clone());
    let sent = js.publish(
        "rowcast.event.note",
        "{\"type\":\"note\",\"data\":2}".into(),
    );
    sent.await.unwrap().await.unwrap();
    for socket in &mut sockets {
        assert_eq!(socket.next_of("note").await["data"]["by"], "command");
        assert_eq!(socket.next_of("note").await["data"], 2);
    }
    let answer = application.request("rowcast.query.t", "{\"id\":1}".into());
    let answer: Json = serde_json::from_slice(&answer.await.unwrap().payload).unwrap();
    assert_eq!(answer["data"][0]["n"], 1, "{answer}");
    // What a browser publishes through a gateway comes to the other.
    let (status, _) = gateways[0]
        .post("/api/events", json!({"type": "note", "data": 3}))
        .await;
    assert_eq!(status, 202);
    for socket in &mut sockets {
        assert_eq!(socket.next_of("note").await["data"], 3);
    }
    let published = site.run("gateway", &["publish", "note", "4"]);
    assert_eq!(published.code, 0, "{}", published.stderr);
    for socket in &mut sockets {
        assert_eq!(socket.next_of("note").await["data"], 4);
    }
    for expected in [2, 3, 4] {
        assert_eq!(tail.data(), expected);
    }
    // Dead letters are kept and read, and the processes know of one another.
    let sent = js.publish("rowcast.event.note", "nonsense".into());
    sent.await.unwrap().await.unwrap();
    for gateway in &gateways {
        wait_until("the dead letter", async || {
            let (_, told) = gateway.get("/api/dead_letters").await;
            (told["total"] == 1).then_some(())
        })
        .await;
        wait_until("the producer's report", async || {
            let (_, told) = gateway.get("/api/pipeline").await;
            let mut stages = told["stages"].as_array()?.iter();
            stages
                .any(|stage| stage["stage"] == "source" && stage["state"] == "up")
                .then_some(())
        })
        .await;
    }
    // A refresh is asked of one gateway, or of all by the operator; a revocation is heard.
    gateways[1]
        .post("/api/topics/page/refresh", Json::Null)
        .await;
    for socket in &mut pages {
        socket.next_of("page").await;
    }
    let listening = site.client("gateway").await;
    let mut heard = listening.subscribe("rowcast.control.revoke").await.unwrap();
    listening.flush().await.unwrap();
    let mut operator = Wire::open(&site.nats, "operator");
    assert_eq!(
        operator.publish("rowcast.control.refresh", "{\"type\":\"page\"}"),
        None
    );
    for socket in &mut pages {
        socket.next_of("page").await;
    }
    assert_eq!(
        operator.publish("rowcast.control.revoke", "{\"sub\":\"anna\"}"),
        None
    );
    in_time("the revocation", heard.next()).await.unwrap();
    // Nobody is answered where he may not publish: what happens there would be believed.
    let epoch = |frame: &Json| {
        let cursor = frame["cursor"].as_str().unwrap();
        cursor.split_once(':').unwrap().0.to_owned()
    };
    site.database.sql("UPDATE t SET n = 2");
    let mut before = Vec::new();
    for socket in &mut sockets {
        let frame = socket.next_of("t").await;
        assert_eq!(frame["data"]["n"], 2);
        before.push(epoch(&frame));
    }
    for user in ["application", "operator", "gateway"] {
        let mut asking = Wire::open(&site.nats, user);
        let mays = publishes(user);
        for inbox in replies::ANSWERS
            .into_iter()
            .filter(|inbox| !mays.contains(inbox))
        {
            for subject in ["rowcast.query.t", "rowcast.control.status", "$SRV.PING"] {
                if mays.contains(&subject) {
                    assert_eq!(asking.ask(subject, inbox, ""), None);
                }
            }
            if mays.contains(&"rowcast.event.t") {
                let event = "{\"type\":\"note\",\"data\":5}";
                assert_eq!(asking.ask("rowcast.event.note", inbox, event), None);
                for socket in &mut sockets {
                    assert_eq!(socket.next_of("note").await["data"], 5);
                }
            }
        }
    }
    let answer = application.request("rowcast.query.t", "".into());
    assert!(!answer.await.unwrap().payload.is_empty());
    site.database.sql("UPDATE t SET n = 3");
    for (socket, before) in sockets.iter_mut().zip(&before) {
        let frame = socket.next_of("t").await;
        assert_eq!(frame["data"]["n"], 3);
        assert_eq!(&epoch(&frame), before, "{frame}");
    }
    assert!(producer.is_ready().await);
    // Nobody lacked anything.
    for log in gateways.iter().map(Server::log).chain([producer.log()]) {
        assert!(!log.contains("may not"), "{log}");
        assert!(!log.contains("refuses"), "{log}");
    }
}

/// Where each user may publish, of [`subjects`]: all that nats/server.conf lets it do.
fn publishes(user: &str) -> &'static [&'static str] {
    match user {
        "producer" => &[
            "rowcast.change.t",
            "rowcast.change.sys.state",
            "rowcast.control.mark",
            "$JS.API.STREAM.INFO.ROWCAST",
            "$JS.API.STREAM.CREATE.ROWCAST",
            "$JS.API.STREAM.UPDATE.ROWCAST",
            "$JS.API.STREAM.MSG.GET.ROWCAST",
            "$JS.API.STREAM.INFO.ROWCAST_DLQ",
            "$JS.API.STREAM.CREATE.ROWCAST_DLQ",
            "$JS.API.STREAM.INFO.ROWCAST_REVOKED",
            "$JS.API.STREAM.CREATE.ROWCAST_REVOKED",
            "$JS.API.STREAM.UPDATE.ROWCAST_REVOKED",
        ],
        "gateway" => &[
            "rowcast.event.t",
            "rowcast.dlq.t",
            "rowcast.control.refresh",
            "rowcast.control.revoke",
            "rowcast.control.status",
            "$JS.API.STREAM.INFO.ROWCAST",
            "$JS.API.STREAM.MSG.GET.ROWCAST",
            "$JS.API.DIRECT.GET.ROWCAST",
            "$JS.API.DIRECT.GET.ROWCAST.rowcast.change.sys.state",
            "$JS.API.CONSUMER.CREATE.ROWCAST.c",
            "$JS.API.CONSUMER.MSG.NEXT.ROWCAST.c",
            "$JS.API.STREAM.INFO.ROWCAST_DLQ",
            "$JS.API.STREAM.MSG.GET.ROWCAST_DLQ",
            "$JS.API.STREAM.INFO.ROWCAST_REVOKED",
            "$JS.API.CONSUMER.CREATE.ROWCAST_REVOKED.c",
            "$JS.API.CONSUMER.MSG.NEXT.ROWCAST_REVOKED.c",
            "$JS.API.STREAM.MSG.GET.ROWCAST_REVOKED",
        ],
        "application" => &[
            "rowcast.event.t",
            "rowcast.query.t",
            "$JS.API.STREAM.INFO.ROWCAST",
            "$JS.API.DIRECT.GET.ROWCAST.rowcast.change.sys.state",
        ],
        _ => &[
            "rowcast.control.refresh",
            "rowcast.control.revoke",
            "rowcast.control.status",
            "$SRV.PING",
            "$JS.API.INFO",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.LIST",
            "$JS.API.STREAM.INFO.ROWCAST",
            "$JS.API.STREAM.INFO.ROWCAST_DLQ",
            "$JS.API.STREAM.INFO.OTHER",
            "$JS.API.STREAM.CREATE.ROWCAST",
            "$JS.API.STREAM.UPDATE.ROWCAST",
            "$JS.API.STREAM.DELETE.ROWCAST",
            "$JS.API.STREAM.CREATE.ROWCAST_DLQ",
            "$JS.API.STREAM.UPDATE.ROWCAST_DLQ",
            "$JS.API.STREAM.DELETE.ROWCAST_DLQ",
            "$JS.API.STREAM.PURGE.ROWCAST_DLQ",
            "$JS.API.STREAM.MSG.GET.ROWCAST_DLQ",
            "$JS.API.STREAM.INFO.ROWCAST_REVOKED",
            "$JS.API.STREAM.CREATE.ROWCAST_REVOKED",
            "$JS.API.STREAM.UPDATE.ROWCAST_REVOKED",
            "$JS.API.STREAM.DELETE.ROWCAST_REVOKED",
            "$JS.API.STREAM.MSG.GET.ROWCAST_REVOKED",
            "$JS.API.CONSUMER.NAMES.ROWCAST",
            "$JS.API.CONSUMER.NAMES.ROWCAST_DLQ",
            "$JS.API.CONSUMER.NAMES.ROWCAST_REVOKED",
            "$JS.API.CONSUMER.NAMES.OTHER",
            "$JS.API.CONSUMER.LIST.ROWCAST",
            "$JS.API.CONSUMER.LIST.ROWCAST_DLQ",
            "$JS.API.CONSUMER.LIST.ROWCAST_REVOKED",
            "$JS.API.CONSUMER.LIST.OTHER",
            "$JS.API.CONSUMER.INFO.ROWCAST.c",
            "$JS.API.CONSUMER.INFO.ROWCAST_DLQ.c",
            "$JS.API.CONSUMER.INFO.ROWCAST_REVOKED.c",
            "$JS.API.CONSUMER.INFO.OTHER.c",
        ],
    }
}

/// Where each user may listen, of [`LISTENING`].
fn listens(user: &str) -> &'static [&'static str] {
    match user {
        "producer" => &["rowcast.control.status", "_INBOX_PRODUCER.>"],
        "gateway" => &[
            "rowcast.control.>",
            "rowcast.control.status",
            "rowcast.control.revoke",
            "rowcast.query.*",
            "rowcast.query.t",
            "$SRV.PING",
            "$SRV.>",
            "_INBOX_GATEWAY.>",
        ],
        "application" => &["_INBOX.>", "_INBOX.a.b"],
        _ => &["_INBOX_OPERATOR.>"],
    }
}

const LISTENING: [&str; 27] = [
    ">",
    "*",
    "*.>",
    "*.*.*",
    "rowcast.>",
    "rowcast.*.t",
    "rowcast.change.>",
    "rowcast.change.t",
    "rowcast.event.>",
    "rowcast.dlq.>",
    "rowcast.control.>",
    "rowcast.control.status",
    "rowcast.control.revoke",
    "rowcast.query.*",
    "rowcast.query.t",
    "$SRV.PING",
    "$SRV.>",
    "$SYS.>",
    "$SYS.ACCOUNT.>",
    "$JS.>",
    "$JS.EVENT.>",
    "$JS.API.>",
    "_INBOX.>",
    "_INBOX.a.b",
    "_INBOX_PRODUCER.>",
    "_INBOX_GATEWAY.>",
    "_INBOX_OPERATOR.>",
];

/// Every kind of subject that there is, each request of JetStream for every stream.
fn subjects() -> Vec<String> {
    let mut all: Vec<String> = "rowcast.change.t rowcast.change.sys.state rowcast.event.t rowcast.dlq.t \
        rowcast.control.mark rowcast.control.refresh rowcast.control.status rowcast.control.revoke \
        rowcast.control.other rowcast.query.t rowcast.other other.subject $SRV.PING _INBOX.a.b \
        _INBOX_PRODUCER.a.b _INBOX_GATEWAY.a.b _INBOX_OPERATOR.a.b $KV.b.k $O.b.k $JS.ACK.ROWCAST.c.1.1.1.1.0 \
        $JS.FC.ROWCAST.c.x $JS.SNAPSHOT.ACK.ROWCAST.x $JS.SNAPSHOT.RESTORE.ROWCAST.x $JS.API.INFO \
        $JS.API.STREAM.NAMES $JS.API.STREAM.LIST $JS.API.ACCOUNT.PURGE.ROWCAST $JS.API.META.LEADER.STEPDOWN \
        $JS.API.SERVER.REMOVE $SYS.REQ.SERVER.PING $SYS.REQ.SERVER.PING.VARZ $SYS.REQ.ACCOUNT.PING.CONNZ \
        $SYS.REQ.USER.INFO $SYS.REQ.CLAIMS.UPDATE $SYS.ACCOUNT.ROWCAST.CONNECT"
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let of_streams = "STREAM.CREATE STREAM.UPDATE STREAM.DELETE STREAM.PURGE STREAM.INFO STREAM.MSG.GET \
        STREAM.MSG.DELETE STREAM.SNAPSHOT STREAM.RESTORE STREAM.LEADER.STEPDOWN STREAM.PEER.REMOVE \
        DIRECT.GET CONSUMER.NAMES CONSUMER.LIST CONSUMER.CREATE";
    let of_consumers = "CONSUMER.CREATE CONSUMER.DURABLE.CREATE CONSUMER.DELETE CONSUMER.INFO \
        CONSUMER.MSG.NEXT CONSUMER.PAUSE CONSUMER.RESET CONSUMER.UNPIN CONSUMER.LEADER.STEPDOWN";
    for stream in ["ROWCAST", "ROWCAST_DLQ", "ROWCAST_REVOKED", "OTHER"] {
        let streams = of_streams.split_whitespace();
        all.extend(streams.map(|what| format!("$JS.API.{what}.{stream}")));
        let consumers = of_consumers.split_whitespace();
        all.extend(consumers.map(|what| format!("$JS.API.{what}.{stream}.c")));
        all.push(format!(
            "$JS.API.CONSUMER.CREATE.{stream}.c.rowcast.change.t"
        ));
        all.push(format!("$JS.API.DIRECT.GET.{stream}.rowcast.change.t"));
        all.push(format!(
            "$JS.API.DIRECT.GET.{stream}.rowcast.change.sys.state"
        ));
    }
    all
}

#[test]
fn each_user_may_do_what_it_must_and_nothing_else() {
    let nats = Nats::with(shipped());
    for user in USERS {
        let mut wire = Wire::open(&nats, user);
        let (mut publishes, mut listens) = (publishes(user).to_vec(), listens(user).to_vec());
        for subject in subjects() {
            // A body that no request of JetStream has, so that none is carried out.
            let refused = wire.publish(&subject, "?");
            let allowed = publishes.iter().position(|known| *known == subject);
            assert_eq!(
                refused.is_none(),
                allowed.is_some(),
                "{user}: {subject}: {refused:?}"
            );
            if let Some(index) = allowed {
                publishes.remove(index);
            }
        }
        for subject in LISTENING {
            for queue in ["", "q"] {
                let refused = wire.subscribe(subject, queue);
                let allowed = listens.contains(&subject);
                assert_eq!(
                    refused.is_none(),
                    allowed,
                    "{user}: {subject} {queue}: {refused:?}"
                );
            }
            listens.retain(|known| *known != subject);
        }
        assert!(
            publishes.is_empty() && listens.is_empty(),
            "{publishes:?} {listens:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_purges_the_stream_or_reads_rows_beside_a_gateway() {
    let site = Site::new(Nats::with(shipped()));
    let producer = site.producer();
    ready(&producer).await;
    site.database.sql("UPDATE t SET n = 4711");
    wait_until("the change", async || {
        (site.stored().await > 2).then_some(())
    })
    .await;
    let operator = site.client("operator").await;
    let js = async_nats::jetstream::new(operator.clone());
    let mut config = js
        .get_stream("ROWCAST")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    assert!(config.deny_delete && config.deny_purge && !config.allow_rollup);
    for (delete, purge) in [(false, true), (true, false)] {
        (config.deny_delete, config.deny_purge) = (delete, purge);
        assert!(js.update_stream(config.clone()).await.is_err());
    }
    // The record of the producer that an application may read is that one, whatever it asks for.
    let application = site.client("application").await;
    let record = "$JS.API.DIRECT.GET.ROWCAST.rowcast.change.sys.state";
    for ask in [
        json!({}),
        json!({"seq": 1}),
        json!({"seq": 1, "batch": 100}),
        json!({"last_by_subj": "rowcast.change.t"}),
        json!({"next_by_subj": "rowcast.change.>", "batch": 100}),
        json!({"multi_last": ["rowcast.change.>"], "batch": 100}),
    ] {
        let answer = application
            .request(record, ask.to_string().into())
            .await
            .unwrap();
        let subject = answer
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Subject"));
        let rows = subject.is_some_and(|subject| subject.as_str() != "rowcast.change.sys.state");
        let text = String::from_utf8_lossy(&answer.payload);
        assert!(!rows && !text.contains("4711"), "{ask}: {answer:?}");
    }
}

#[test]
fn there_is_no_other_way_in() {
    let nats = Nats::with(shipped());
    let varz = wire::get(&nats.monitor(), "/varz");
    let varz: Json = serde_json::from_str(&varz).unwrap();
    for listener in ["websocket", "mqtt", "leaf", "cluster", "gateway"] {
        let port = varz[listener]["port"].as_u64().unwrap_or(0);
        assert_eq!(port, 0, "{listener}: {}", varz[listener]);
    }
    assert_eq!(varz["jetstream"]["config"]["sync_always"], true);
    // Nobody comes in without a name, or with another one's password.
    for (user, password) in [
        ("", ""),
        ("sys", "sys"),
        ("gateway", "producer-s3cret"),
        ("operator", ""),
    ] {
        assert!(Wire::try_open(&nats, user, password).is_err(), "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_missing_is_named() {
    let (nats, _folder) = without(&["$JS.API.STREAM.MSG.GET.ROWCAST\""]);
    let site = Site::new(nats);
    let named = "may not publish to \"$JS.API.STREAM.MSG.GET.ROWCAST\"";
    let producer = site.producer();
    wait_until("the producer to say so", async || {
        let (_, told) = producer.get("/readyz").await;
        told.to_string()
            .replace('\\', "")
            .contains(named)
            .then_some(())
    })
    .await;
    wait_until("the log to say so", async || {
        producer.log().contains(named).then_some(())
    })
    .await;
    let checked = site.run("gateway", &["check"]);
    assert_eq!(checked.code, 1);
    for part in [
        "FAILED  bus: the NATS user",
        named,
        "give that user the permission",
    ] {
        assert!(checked.stdout.contains(part), "{}", checked.stdout);
    }
    drop(producer);
    let (nats, _folder) = without(&["\"rowcast.change.>\"", "\"rowcast.event.>\""]);
    let site = Site { nats, ..site };
    let producer = site.producer();
    let named = "may not publish to \"rowcast.change.sys.state\"";
    wait_until("the producer to say so", async || {
        let (_, told) = producer.get("/readyz").await;
        told.to_string()
            .replace('\\', "")
            .contains(named)
            .then_some(())
    })
    .await;
    let published = site.run("application", &["publish", "note", "1"]);
    assert_eq!(published.code, 1);
    let named = "may not publish to \"rowcast.event.note\"";
    assert!(published.stderr.contains(named), "{}", published.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_may_not_follow_says_so_and_is_not_ready() {
    let (nats, _folder) = without(&["$JS.API.CONSUMER.MSG.NEXT.ROWCAST"]);
    let site = Site::new(nats);
    let producer = site.producer();
    ready(&producer).await;
    let gateway = site.gateway();
    let named = "may not publish to \"$JS.API.CONSUMER.MSG.NEXT.ROWCAST.*\"";
    wait_until("the gateway to say so", async || {
        // There must be something to follow.
        site.database.sql("UPDATE t SET n = n + 1");
        let (_, told) = gateway.get("/readyz").await;
        let told = told.to_string().replace('\\', "");
        told.contains(named).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_can_be_left_to_the_operator() {
    let (nats, _folder) = strict();
    let mut site = Site::new(nats);
    // Whoever still manages is told what he may not.
    let managing = site.producer();
    wait_until("the producer to say so", async || {
        let (_, told) = managing.get("/readyz").await;
        let told = told.to_string().replace('\\', "");
        told.contains("may not publish to \"$JS.API.STREAM.CREATE.ROWCAST\"")
            .then_some(())
    })
    .await;
    drop(managing);
    site.bus = "manage = false\n".into();
    let producer = site.producer();
    wait_until("the producer to wait", async || {
        let (_, told) = producer.get("/readyz").await;
        told.to_string()
            .contains("create it from nats/stream.json")
            .then_some(())
    })
    .await;
    let operator = site.client("operator").await;
    for (name, file) in [
        ("ROWCAST", "stream.json"),
        ("ROWCAST_DLQ", "dead_letters.json"),
        ("ROWCAST_REVOKED", "revocations.json"),
    ] {
        let definition = definition(file);
        let subject = format!("$JS.API.STREAM.CREATE.{name}");
        let made = operator.request(subject, definition.clone().into()).await;
        let made: Json = serde_json::from_slice(&made.unwrap().payload).unwrap();
        assert_eq!(made["error"], Json::Null, "{made}");
        // Nothing of what the file says was left out.
        let wanted: Json = serde_json::from_str(&definition).unwrap();
        for (key, value) in wanted.as_object().unwrap() {
            assert_eq!(&made["config"][key], value, "{name}: {key}");
        }
    }
    ready(&producer).await;
    let gateway = site.gateway();
    let mut socket = gateway.socket("types=t,note").await;
    site.database.sql("UPDATE t SET n = 1");
    assert_eq!(socket.next_of("t").await["data"]["n"], 1);
    let application = async_nats::jetstream::new(site.client("application").await);
    let sent = application.publish("rowcast.event.note", "nonsense".into());
    sent.await.unwrap().await.unwrap();
    wait_until("the dead letter", async || {
        let (_, told) = gateway.get("/api/dead_letters").await;
        (told["total"] == 1).then_some(())
    })
    .await;
    for log in [gateway.log(), producer.log()] {
        assert!(!log.contains("may not"), "{log}");
    }
}
