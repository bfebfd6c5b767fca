//! Cursors after a bus was restored, purged, trimmed or begun anew, on gateways that were
//! restarted meanwhile; and many sockets that come back at once.

use std::{fs, time::Duration};

use async_nats::jetstream;
use rowcast::{
    bus::{
        Bus,
        embedded::{EmbeddedBus, EmbeddedBusConfig},
        jetstream::{JetStreamBus, JetStreamConfig, Role},
    },
    event::{Batch, Event},
    fanout::{Missing, serve_backlog},
    metrics::Metrics,
    position::Checkpoint,
    protocol::ResetReason,
    ring::Ring,
};
use serde_json::{Value as Json, json};

use crate::support::{
    Follower, Nats, Options, Server, Socket,
    follower::{BEAT, topics},
    nats::copy,
    wait_until,
};

/// A topic for applications' events, and a ring that holds some three hundred of them.
const NOTES: &str = "[server]\nring_max_bytes = 65536\n[[topics]]\ntype = \"note\"\n";

/// What every store needs: some database.
const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY);";

/// NATS, a producer of nothing, and two gateways.
struct Site {
    nats: Nats,
    producer: JetStreamBus,
    gateways: Vec<Server>,
}

impl Site {
    async fn new() -> Self {
        let nats = Nats::start();
        let text = include_str!("../nats/stream.json");
        let mut definition: jetstream::stream::Config = serde_json::from_str(text).unwrap();
        // An operator who allows it can do it.
        definition.deny_purge = false;
        let client = async_nats::connect(nats.url()).await.unwrap();
        let js = jetstream::new(client);
        js.create_stream(definition).await.unwrap();
        let producer = produce(&nats, "s", 1).await;
        let config = format!("[bus]\nurl = \"{}\"\n{NOTES}", nats.url());
        let gateways = (0..2).map(|_| {
            Server::with(Options {
                config: Some(config.clone()),
                database: Some(TABLE.into()),
                ..Options::default()
            })
        });
        let gateways = gateways.collect();
        let site = Self {
            nats,
            producer,
            gateways,
        };
        site.begun().await;
        site
    }

    async fn restart(&mut self) {
        for gateway in &mut self.gateways {
            gateway.kill();
            gateway.restart();
        }
        self.begun().await;
    }

    /// Waits until the gateways take sockets.
    async fn begun(&self) {
        for gateway in &self.gateways {
            wait_until("a gateway", async || {
                let (status, _) = gateway.get("/api/topics").await;
                (status == 200).then_some(())
            })
            .await;
        }
    }

    /// Exchanges the server's store, with the gateways down, and starts everything again.
    async fn put(&mut self, exchange: impl FnOnce(&Nats)) {
        for gateway in &mut self.gateways {
            gateway.kill();
        }
        self.nats.kill();
        exchange(&self.nats);
        self.nats.restart();
        for gateway in &mut self.gateways {
            gateway.restart();
        }
        self.begun().await;
    }

    async fn stream(&self) -> jetstream::stream::Stream {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        jetstream::new(client).get_stream("ROWCAST").await.unwrap()
    }

    /// Messages of a publisher that gives them no ids.
    async fn raw(&self, count: usize) {
        let js = jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        let mut sent = Vec::new();
        for n in 0..count {
            let text = json!({ "type": "note", "data": n }).to_string();
            sent.push(js.publish("rowcast.event.note", text.into()).await.unwrap());
        }
        let mut last = 0;
        for ack in sent {
            last = ack.await.unwrap().sequence;
        }
        for gateway in &self.gateways {
            wait_until("the last message in the ring", async || {
                (gateway.counted("ring_offset").await == last).then_some(())
            })
            .await;
        }
    }

    /// Tells one reset for this cursor, whichever gateway it comes to, and after a restart.
    async fn resets(&mut self, since: &str, reason: &str) {
        for restarted in [false, true] {
            if restarted {
                self.restart().await;
            }
            for gateway in &self.gateways {
                let reset = reset(gateway, since, reason).await;
                for gateway in &self.gateways {
                    resumes(gateway, &reset, 0).await;
                }
            }
        }
    }

    /// Publishes notes, and waits until all gateways have come to them.
    async fn notes(&self, names: &[&str]) -> Vec<String> {
        let cursors = notes(&self.gateways[0], names).await;
        resumes(&self.gateways[1], cursors.last().unwrap(), 0).await;
        cursors
    }

    /// Goes on from this cursor, whichever gateway it comes to, and after a restart.
    async fn resumes(&mut self, since: &str, count: usize) {
        for restarted in [false, true] {
            if restarted {
                self.restart().await;
            }
            for gateway in &self.gateways {
                resumes(gateway, since, count).await;
            }
        }
    }
}

/// A producer that declares the history `source`, and has read it up to `high`.
async fn produce(nats: &Nats, source: &str, high: u64) -> JetStreamBus {
    let config = JetStreamConfig {
        servers: nats.url(),
        max_bytes: 1 << 30,
        ..JetStreamConfig::default()
    };
    let bus = JetStreamBus::connect(config, Role::Producer).await.unwrap();
    wait_until("a producer", || async {
        bus.claim().await.ok()?;
        bus.publish(progress(source, high)).await.ok()
    })
    .await;
    bus
}

fn progress(source: &str, high: u64) -> Batch {
    Batch {
        checkpoint: Some(Checkpoint {
            source: source.into(),
            high,
            low: 0,
        }),
        ..Batch::default()
    }
}

/// Publishes notes through a gateway, waits until it has come to them, and returns the cursors that
/// it answers.
async fn notes(server: &Server, names: &[&str]) -> Vec<String> {
    let mut cursors = Vec::new();
    for name in names {
        let note = json!({ "type": "note", "data": name });
        let answer = wait_until("a note to be stored", || async {
            let (status, answer) = server.post("/api/events", note.clone()).await;
            (status == 202).then_some(answer)
        })
        .await;
        cursors.push(cursor(&answer));
    }
    resumes(server, cursors.last().unwrap(), 0).await;
    cursors
}

fn cursor(frame: &Json) -> String {
    frame["cursor"].as_str().unwrap().to_owned()
}

/// What comes before `sys:caught_up`.
async fn replay(server: &Server, since: &str) -> Vec<Json> {
    let mut socket = server.socket(&format!("since={since}")).await;
    let mut frames = Vec::new();
    loop {
        let frame = socket.next().await;
        if frame["type"] == "sys:caught_up" {
            return frames;
        }
        frames.push(frame);
    }
}

async fn resumes(server: &Server, since: &str, count: usize) {
    let frames = replay(server, since).await;
    let events = frames.iter().filter(|frame| frame["op"] == "event").count();
    assert_eq!(
        (events, frames.len()),
        (count, count),
        "{since}: {frames:?}"
    );
}

/// Expects a reset at once and returns its cursor.
async fn reset(server: &Server, since: &str, reason: &str) -> String {
    let mut socket = server.socket(&format!("since={since}")).await;
    let reset = socket.next().await;
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&json!("sys:reset"), &json!(reason)),
        "{since}: {reset}"
    );
    cursor(&reset)
}

fn without_check(cursor: &str) -> &str {
    cursor.split('-').next().unwrap()
}

#[tokio::test]
async fn a_note_within_a_transaction_that_is_being_stored_is_not_ahead() {
    let site = Site::new().await;
    let part = |high, more| Batch {
        more,
        ..progress("s", high)
    };
    site.producer.publish(part(2, true)).await.unwrap();
    // Readers see nothing from the first part on, so this one is told by its publisher alone.
    let note = json!({ "type": "note", "data": "within" });
    let (status, answer) = site.gateways[0].post("/api/events", note).await;
    assert_eq!(status, 202, "{answer}");
    let since = cursor(&answer);
    let mut sockets = Vec::new();
    for gateway in &site.gateways {
        let mut socket = gateway.socket(&format!("since={since}")).await;
        assert!(socket.silent_for(Duration::from_millis(300)).await);
        sockets.push(socket);
    }
    site.producer.publish(part(3, false)).await.unwrap();
    for socket in &mut sockets {
        assert_eq!(socket.next().await["type"], "sys:caught_up");
    }
}

// === a bus that was restored ===

#[tokio::test]
async fn a_restored_stream_is_told_to_who_saw_what_came_after_the_backup() {
    let mut site = Site::new().await;
    let mut sockets = Vec::new();
    for gateway in &site.gateways {
        sockets.push(gateway.socket("").await);
    }
    let kept = site.notes(&["1", "2", "3"]).await;
    for socket in &mut sockets {
        for expected in &kept {
            assert_eq!(
                cursor(&socket.next().await),
                *expected,
                "the same everywhere"
            );
        }
    }
    let backup = tempfile::tempdir().unwrap();
    site.put(|nats| copy(&nats.store(), backup.path())).await;
    let gone = site.notes(&["4", "5", "6"]).await;
    resumes(&site.gateways[0], &kept[2], 3).await;
    site.put(|nats| {
        fs::remove_dir_all(nats.store()).unwrap();
        copy(backup.path(), &nats.store());
    })
    .await;
    site.resets(&gone[2], "ahead").await;
    site.resumes(&kept[0], 2).await;
    site.notes(&["7", "8", "9", "10"]).await;
    for gone in &gone {
        site.resets(gone, "mismatch").await;
    }
    site.resumes(&kept[2], 4).await;
    // One that was given out without a check cannot be verified.
    site.resumes(without_check(&gone[0]), 3).await;
}

#[tokio::test]
async fn a_cursor_that_has_left_the_ring_is_verified_on_the_bus() {
    let mut site = Site::new().await;
    let kept = site.notes(&["1"]).await;
    let backup = tempfile::tempdir().unwrap();
    site.put(|nats| copy(&nats.store(), backup.path())).await;
    site.raw(1600).await;
    let frames = replay(&site.gateways[0], &kept[0]).await;
    let gone: Vec<String> = frames.iter().map(cursor).collect();
    assert_eq!(gone.len(), 1600);
    // The very same cursors, whether a frame came from a block, from the ring or from a consumer.
    let other: Vec<Json> = replay(&site.gateways[1], &kept[0]).await;
    assert_eq!(other, frames);
    site.put(|nats| {
        fs::remove_dir_all(nats.store()).unwrap();
        copy(backup.path(), &nats.store());
    })
    .await;
    site.raw(1700).await;
    // Offsets at the edge of a block, too, and a block that is known already.
    let edges = [(500, 0), (499, 0), (501, 0), (1000, 0), (300, 0), (300, 1)];
    for (offset, gateway) in edges {
        let told = gone
            .iter()
            .find(|gone| without_check(gone).ends_with(&format!(":{offset}")));
        let reset = reset(&site.gateways[gateway], told.unwrap(), "mismatch").await;
        resumes(&site.gateways[1 - gateway], &reset, 0).await;
    }
    site.resumes(&kept[0], 1700).await;
}

#[tokio::test]
async fn a_gateway_that_runs_through_a_restore_tells_its_sockets_once() {
    let mut site = Site::new().await;
    let kept = site.notes(&["1", "2"]).await;
    site.nats.kill();
    let backup = tempfile::tempdir().unwrap();
    copy(&site.nats.store(), backup.path());
    site.nats.restart();
    let mut sockets: Vec<Socket> = Vec::new();
    for gateway in site.gateways.iter().chain(&site.gateways) {
        sockets.push(gateway.socket(&format!("since={}", kept[0])).await);
    }
    site.notes(&["3", "4", "5"]).await;
    for socket in &mut sockets {
        let last = |frame: &Json| frame["data"] == "5";
        socket.next_where("the last note", last).await;
    }
    site.nats.kill();
    fs::remove_dir_all(site.nats.store()).unwrap();
    copy(backup.path(), &site.nats.store());
    site.nats.restart();
    site.notes(&["6", "7", "8", "9"]).await;
    for socket in &mut sockets {
        let reset = socket.next().await;
        assert_eq!(reset["type"], "sys:reset", "{reset}");
    }
    site.notes(&["10"]).await;
    for socket in &mut sockets {
        let last = socket.next_where("the next note", |frame| {
            assert_eq!(frame["type"], "note", "one reset: {frame}");
            frame["data"] == "10"
        });
        last.await;
    }
    site.resumes(&kept[1], 5).await;
}

#[tokio::test]
async fn a_restored_bus_file_is_told_to_who_saw_what_came_after_the_backup() {
    let mut server = Server::configured(NOTES, TABLE);
    let names = ["rowcast.db-bus", "rowcast.db-bus-wal", "rowcast.db-bus-shm"];
    let kept = notes(&server, &["1", "2"]).await;
    server.kill();
    let backup = tempfile::tempdir().unwrap();
    for name in names {
        fs::copy(server.folder().join(name), backup.path().join(name)).unwrap();
    }
    server.restart();
    let gone = notes(&server, &["3", "4", "5"]).await;
    resumes(&server, &kept[1], 3).await;
    server.kill();
    for name in names {
        fs::copy(backup.path().join(name), server.folder().join(name)).unwrap();
    }
    server.restart();
    let head = reset(&server, &gone[2], "ahead").await;
    resumes(&server, &head, 0).await;
    notes(&server, &["6", "7", "8", "9"]).await;
    for _ in 0..2 {
        for gone in &gone {
            let head = reset(&server, gone, "mismatch").await;
            resumes(&server, &head, 0).await;
        }
        resumes(&server, &kept[0], 5).await;
        server.kill();
        server.restart();
    }
}

// === a bus that has lost what is old ===

#[tokio::test]
async fn a_purge_a_trim_and_a_new_epoch_are_told_apart_after_a_restart() {
    let mut site = Site::new().await;
    let first = site.notes(&["1", "2", "3"]).await;
    site.stream().await.purge().await.unwrap();
    site.producer.publish(progress("s", 2)).await.unwrap();
    site.restart().await;
    site.resets(&first[0], "trimmed").await;
    // Nothing that came after it is missing.
    site.resumes(&first[2], 0).await;
    let second = site.notes(&["4", "5", "6", "7", "8"]).await;
    let mut stream = site.stream().await;
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_messages = 4;
    let js = jetstream::new(async_nats::connect(site.nats.url()).await.unwrap());
    js.update_stream(config).await.unwrap();
    site.producer.publish(progress("s", 3)).await.unwrap();
    site.restart().await;
    site.resets(&second[0], "trimmed").await;
    // What this cursor was given for is gone, but all that came after it is there.
    site.resumes(&second[1], 3).await;
    site.resumes(&second[2], 2).await;
    let ahead = format!("{}9", without_check(&second[4]));
    site.resets(&ahead, "ahead").await;
    produce(&site.nats, "other", 1).await;
    site.restart().await;
    site.resets(&second[4], "epoch").await;
}

// === many at once ===

#[tokio::test]
async fn many_sockets_that_left_the_ring_read_each_block_once() {
    const SOCKETS: usize = 300;
    let page = "[[topics]]\ntype = \"page\"\ntable = \"t\"\npush = \"page\"\npage_size = 1\n";
    let config = topics(&[("t", "")]) + page + "[server]\nring_max_bytes = 65536\n";
    let sql = format!("{BEAT}CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);");
    let server = Server::configured(&config, &sql);
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["INSERT INTO t VALUES (0, 0)"]).await;
    let since = cursor(&seen[0]);
    let fill = "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < 1490)
        INSERT INTO t SELECT i, i FROM k";
    let missed: Vec<String> = follower.after(&[fill]).await.iter().map(cursor).collect();
    let queries = "queries_total{kind=\"ok\"}";
    let asked = server.counted(queries).await;
    let clients = (0..SOCKETS).map(|_| async {
        let mut socket = server.socket(&format!("since={since}&types=t,page")).await;
        let mut came = Vec::new();
        loop {
            // Half a million texts, of which only the cursors are of interest.
            let text = socket.next_text().await;
            if text.contains("sys:caught_up") {
                assert_eq!(socket.next().await["type"], "page");
                return came;
            }
            let (_, rest) = text.split_once("\"cursor\":\"").unwrap();
            came.push(rest.split('"').next().unwrap().to_owned());
        }
    });
    for came in futures_util::future::join_all(clients).await {
        assert!(came == missed, "each event once, in order");
    }
    let reads = server.counted("backlog_reads_total").await;
    let hits = server.counted("backlog_hits_total").await;
    assert!((2..=8).contains(&reads), "{reads} reads for 3 blocks");
    assert!(hits >= 2 * SOCKETS as u64 - reads, "{hits} hits");
    let asked = server.counted(queries).await - asked;
    assert!(
        asked <= 2,
        "{asked} reads of the page for {SOCKETS} sockets"
    );
}

#[tokio::test]
async fn a_block_is_read_once_until_there_is_more_or_the_ring_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let bus = EmbeddedBus::open(&EmbeddedBusConfig {
        path: folder.path().join("bus"),
        keep: Duration::from_secs(3600),
        max_bytes: 1 << 30,
    });
    let bus = bus.unwrap();
    let publish = async |count: usize| {
        let text = json!({ "type": "note", "data": "x" }).to_string();
        let one = |n| Event::from_application(&text, format!("{n}"), 0).unwrap();
        let mut batch = Batch::default();
        let before = bus.head().await.unwrap().position.offset;
        batch.events = (0..count).map(|n| one(before + n as u64)).collect();
        bus.publish(batch).await.unwrap();
    };
    publish(700).await;
    let head = bus.head().await.unwrap().position;
    // A ring that has come to nothing yet.
    let ring = Ring::new(head.at(0), 1 << 20);
    let metrics = Metrics::default();
    let backlog = serve_backlog(bus.clone(), ring.clone(), metrics.clone());
    let after = async |offset: u64| {
        let found = backlog.after(head.at(offset)).await.unwrap();
        let offsets: Vec<u64> = found.iter().map(|frame| frame.position.offset).collect();
        assert_eq!(offsets[0], offset + 1);
        assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        (offsets.len(), metrics.backlog_reads.get())
    };
    let at_once = futures_util::future::join_all((0..100).map(|n| after(n % 2))).await;
    assert!(at_once.iter().all(|(_, reads)| *reads == 1), "{at_once:?}");
    assert_eq!(after(499).await, (1, 1));
    assert_eq!(after(500).await, (200, 2));
    publish(10).await;
    assert_eq!(after(650).await, (50, 2), "what follows is asked for next");
    assert_eq!(after(700).await, (10, 3));
    assert_eq!(after(650).await, (60, 3));
    ring.restart(head.at(710));
    assert_eq!(after(0).await, (500, 4));
    // Another gateway may have given these out; or nobody.
    assert_eq!(backlog.place(head.at(710)).await, Missing::Later);
    let ahead = backlog.place(head.at(711)).await;
    assert_eq!(ahead, Missing::Reset(ResetReason::Ahead));
    let foreign = backlog.place("k3:5".parse().unwrap()).await;
    assert_eq!(foreign, Missing::Reset(ResetReason::Epoch));
}
