//! The bus on NATS JetStream while its server is killed, stands still, goes back, is not there,
//! or is told nonsense. What every bus promises is in bus_contract.rs.

mod headers;
mod illegible;
mod inboxes;
mod letters;
mod revoked;

use std::{
    collections::HashSet,
    error::Error,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use futures_util::{Stream, StreamExt};
use rowcast::{
    bus::{
        Bus, Chunk, Durability, PublishError, ReadError,
        jetstream::{JetStreamBus, JetStreamConfig, Role},
    },
    event::{Batch, Body, ChangeData, Event, Op},
    metrics::Metrics,
    position::{Checkpoint, Position},
    status::Report,
};

use crate::support::{
    Nats, NatsOptions, STANDSTILL, in_time,
    nats::{copy, shipped},
    wait_until,
};

// === what a test needs ===

fn config(nats: &Nats) -> JetStreamConfig {
    JetStreamConfig {
        servers: nats.url(),
        max_bytes: 1 << 30,
        ..JetStreamConfig::default()
    }
}

async fn connect(config: JetStreamConfig, role: Role) -> JetStreamBus {
    JetStreamBus::connect(config, role).await.unwrap()
}

/// A producer that has claimed the bus.
async fn producer(nats: &Nats) -> JetStreamBus {
    let bus = connect(config(nats), Role::Producer).await;
    wait_until("a claim", || async { bus.claim().await.ok() }).await;
    bus
}

async fn gateway(nats: &Nats) -> JetStreamBus {
    let bus = connect(config(nats), Role::Gateway).await;
    wait_until("a head", || async { bus.head().await.ok() }).await;
    bus
}

/// Somebody else's connection.
async fn stranger(nats: &Nats) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap())
}

/// The stream, as nats/stream.json has it.
fn stream() -> jetstream::stream::Config {
    serde_json::from_str(include_str!("../nats/stream.json")).unwrap()
}

/// A connection of one of the users in nats/server.conf.
async fn user(nats: &Nats, name: &str) -> async_nats::Client {
    let (user, password) = (name.to_owned(), format!("{name}-s3cret"));
    let options = async_nats::ConnectOptions::with_user_and_password(user, password);
    options.connect(nats.url()).await.unwrap()
}

fn checkpoint(high: u64) -> Checkpoint {
    Checkpoint {
        source: "s".into(),
        high,
        low: 0,
    }
}

fn change(high: u64) -> Event {
    let key = serde_json::json!({ "id": high });
    Event {
        id: format!("{}/t", checkpoint(high)),
        source: "/test/t".into(),
        topic: "t".into(),
        subject: Some(key.to_string()),
        at_ms: 1_790_000_000_123,
        tx: None,
        xid: None,
        body: Body::Change {
            checkpoint: checkpoint(high),
            data: ChangeData {
                key: Some(rowcast::event::raw(&key)),
                row: Some(rowcast::event::raw(&key)),
                ..ChangeData::whole(Op::Update)
            },
        },
    }
}

fn changes(first: u64, last: u64) -> Batch {
    Batch {
        events: (first..=last).map(change).collect(),
        checkpoint: Some(checkpoint(last)),
        ..Batch::default()
    }
}

/// Publishes until it is stored.
async fn publish(bus: &JetStreamBus, batch: Batch) -> Position {
    wait_until("a batch to be stored", || async {
        match bus.publish(batch.clone()).await {
            Ok(published) => Some(published.position),
            Err(PublishError::Unavailable(_)) => None,
            Err(err) => panic!("{err}"),
        }
    })
    .await
}

fn highs<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<u64> {
    let places = events.into_iter().filter_map(Event::checkpoint);
    places.map(|place| place.high).collect()
}

/// The changes up to `last`, over all that a reader is told to wait for.
async fn follow(
    chunks: &mut (impl Stream<Item = Result<Chunk, ReadError>> + Unpin),
    last: u64,
) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    while found.last().and_then(Event::checkpoint) != Some(&checkpoint(last)) {
        match in_time("a chunk", chunks.next()).await.unwrap() {
            Ok(chunk) => found.extend(chunk.deliveries.into_iter().filter_map(|d| d.event)),
            Err(ReadError::Unavailable(_)) => {}
            Err(err) => panic!("{err}"),
        }
    }
    found
}

async fn everything(bus: &JetStreamBus) -> Vec<Event> {
    let head = wait_until("a head", || async { bus.head().await.ok() }).await;
    let start = head.position.at(head.first - 1);
    let read = bus.read(start, usize::MAX).await.unwrap();
    read.into_iter().filter_map(|d| d.event).collect()
}

/// Why the bus is not there.
async fn reason(bus: &JetStreamBus) -> String {
    match bus.head().await {
        Err(ReadError::Unavailable(err)) => err.to_string(),
        other => panic!("the bus is there: {other:?}"),
    }
}

// === storing once ===

#[tokio::test]
async fn what_was_stored_without_an_answer_is_not_stored_again() {
    let nats = Nats::start();
    let bus = producer(&nats).await;
    for round in 0..3 {
        let (first, last) = (round * 1500 + 1, round * 1500 + 1500);
        nats.stop();
        // It lies in the socket, and is stored when the server wakes up.
        let outcome = bus.publish(changes(first, last)).await;
        assert!(
            matches!(outcome, Err(PublishError::Unavailable(_))),
            "{outcome:?}"
        );
        nats.cont();
        publish(&bus, changes(first, last)).await;
    }
    assert_eq!(
        highs(&everything(&bus).await),
        (1..=4500).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn nothing_relies_on_the_duplicate_window() {
    let nats = Nats::start();
    let js = stranger(&nats).await;
    let text = include_str!("../nats/stream.json");
    let mut definition: jetstream::stream::Config = serde_json::from_str(text).unwrap();
    definition.duplicate_window = Duration::from_secs(1);
    js.create_stream(definition).await.unwrap();
    let bus = producer(&nats).await;
    publish(&bus, changes(1, 5)).await;
    drop(bus);
    // The window has passed when the server takes an id again.
    let probe = || async {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "probe");
        let sent = js.publish_with_headers("rowcast.event.t", headers, "{\"type\":\"t\"}".into());
        sent.await.unwrap().await.unwrap().duplicate
    };
    assert!(!probe().await);
    wait_until("the window", || async { (!probe().await).then_some(()) }).await;
    let bus = producer(&nats).await;
    assert_eq!(bus.claim().await.unwrap(), Some(checkpoint(5)));
    assert_eq!(bus.publish(changes(1, 5)).await.unwrap().stored, 0);
    assert_eq!(bus.publish(changes(3, 7)).await.unwrap().stored, 2);
    assert_eq!(highs(&everything(&bus).await), (1..=7).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_claimed_before_is_fenced() {
    let nats = Nats::start();
    let first = producer(&nats).await;
    publish(&first, changes(1, 3)).await;
    let second = producer(&nats).await;
    assert_eq!(second.claim().await.unwrap(), Some(checkpoint(3)));
    let refused = first.publish(changes(4, 4)).await;
    assert!(matches!(refused, Err(PublishError::Fenced)), "{refused:?}");
    publish(&second, changes(4, 5)).await;
    let refused = first.publish(changes(6, 6)).await;
    assert!(matches!(refused, Err(PublishError::Fenced)), "{refused:?}");
    assert_eq!(highs(&everything(&second).await), [1, 2, 3, 4, 5]);
    // Who claims again goes on.
    assert_eq!(first.claim().await.unwrap(), Some(checkpoint(5)));
    publish(&first, changes(6, 6)).await;
    let refused = second.publish(changes(7, 7)).await;
    assert!(matches!(refused, Err(PublishError::Fenced)), "{refused:?}");
}

// === a server that fails ===

#[tokio::test]
async fn a_killed_server_loses_nothing_and_is_found_again() {
    let mut nats = Nats::with(NatsOptions {
        sync_interval: Some("always".into()),
        ..NatsOptions::default()
    });
    let bus = producer(&nats).await;
    let start = bus.head().await.unwrap().position;
    let reader = gateway(&nats).await;
    let mut chunks = reader.subscribe(start);
    let writer = tokio::spawn({
        let bus = bus.clone();
        async move {
            for n in 0..300 {
                publish(&bus, changes(n * 3 + 1, n * 3 + 3)).await;
            }
        }
    });
    let mut found = highs(&follow(&mut chunks, 30).await);
    for _ in 0..2 {
        nats.kill();
        nats.restart();
        let open = Instant::now();
        let next = found.last().unwrap() / 3 * 3 + 9;
        found.extend(highs(&follow(&mut chunks, next).await));
        assert!(
            open.elapsed() < Duration::from_secs(3) + STANDSTILL,
            "{:?}",
            open.elapsed()
        );
    }
    found.extend(highs(&follow(&mut chunks, 900).await));
    writer.await.unwrap();
    assert_eq!(found, (1..=900).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_stands_still_is_told_of_and_goes_on() {
    let nats = Nats::start();
    let bus = producer(&nats).await;
    let start = publish(&bus, changes(1, 1)).await;
    let reader = gateway(&nats).await;
    let mut chunks = reader.subscribe(start);
    in_time("the head", chunks.next()).await.unwrap().unwrap();
    nats.stop();
    let stopped = Instant::now();
    let told = in_time("an error", chunks.next()).await.unwrap();
    assert!(matches!(told, Err(ReadError::Unavailable(_))), "{told:?}");
    assert!(
        stopped.elapsed() < Duration::from_secs(7) + STANDSTILL,
        "{:?}",
        stopped.elapsed()
    );
    nats.cont();
    publish(&bus, changes(2, 4)).await;
    assert_eq!(highs(&follow(&mut chunks, 4).await), [2, 3, 4]);
}

#[tokio::test]
async fn a_transaction_held_back_outlives_the_server() {
    let mut nats = Nats::start();
    let bus = producer(&nats).await;
    let start = publish(&bus, changes(1, 1)).await;
    let reader = gateway(&nats).await;
    let mut chunks = reader.subscribe(start.clone());
    in_time("the head", chunks.next()).await.unwrap().unwrap();
    let part = |first, last| Batch {
        more: true,
        ..changes(first, last)
    };
    publish(&bus, part(2, 1200)).await;
    let js = stranger(&nats).await;
    let between = js.publish("rowcast.event.t", "{\"type\":\"t\"}".into());
    between.await.unwrap().await.unwrap();
    nats.kill();
    nats.restart();
    publish(&bus, part(1201, 1500)).await;
    assert_eq!(highs(&everything(&reader).await), [1]);
    nats.kill();
    nats.restart();
    publish(&bus, changes(1501, 1600)).await;
    let found = follow(&mut chunks, 1600).await;
    assert_eq!(highs(&found), (2..=1600).collect::<Vec<_>>());
    assert_eq!(found.len(), 1600);
    assert_eq!(everything(&reader).await.len(), 1601);
}

#[tokio::test]
async fn a_server_that_has_gone_back_begins_a_new_epoch() {
    let mut nats = Nats::start();
    let bus = producer(&nats).await;
    let old = publish(&bus, changes(1, 5)).await;
    let reader = gateway(&nats).await;
    nats.kill();
    let backup = tempfile::tempdir().unwrap();
    copy(&nats.store(), backup.path());
    nats.restart();
    let mut chunks = reader.subscribe(old.clone());
    publish(&bus, changes(6, 8)).await;
    follow(&mut chunks, 8).await;
    nats.kill();
    std::fs::remove_dir_all(nats.store()).unwrap();
    copy(backup.path(), &nats.store());
    nats.restart();
    let new = publish(&bus, changes(9, 12)).await;
    assert_ne!(new.epoch, old.epoch);
    // The reader is told before it sees anything of what follows.
    loop {
        match in_time("to be told", chunks.next()).await.unwrap() {
            Err(ReadError::Unavailable(_)) => {}
            Err(ReadError::Ahead | ReadError::Epoch) => break,
            Err(err) => panic!("{err}"),
            Ok(chunk) => {
                let first = chunk.deliveries.first().map(|d| &d.position);
                let Some(position) = first.or(chunk.head.as_ref().map(|head| &head.position))
                else {
                    continue;
                };
                assert_eq!(position.epoch, new.epoch);
                break;
            }
        }
    }
    let refused = reader.read(old, 10).await;
    assert!(matches!(refused, Err(ReadError::Epoch)), "{refused:?}");
    assert_eq!(highs(&everything(&reader).await), [9, 10, 11, 12]);
}

#[tokio::test]
async fn a_stream_deleted_and_made_anew_is_another_epoch() {
    let nats = Nats::start();
    let bus = producer(&nats).await;
    let old = publish(&bus, changes(1, 5)).await;
    let reader = gateway(&nats).await;
    let mut chunks = reader.subscribe(old.clone());
    in_time("the head", chunks.next()).await.unwrap().unwrap();
    let js = stranger(&nats).await;
    js.delete_stream("ROWCAST").await.unwrap();
    let told = in_time("an error", chunks.next()).await.unwrap();
    assert!(matches!(told, Err(ReadError::Unavailable(_))), "{told:?}");
    let new = publish(&bus, changes(6, 9)).await;
    assert_ne!(new.epoch, old.epoch);
    assert_eq!(highs(&follow(&mut chunks, 9).await), [6, 7, 8, 9]);
}

#[tokio::test]
async fn what_was_purged_is_told() {
    let nats = Nats::start();
    let js = stranger(&nats).await;
    let text = include_str!("../nats/stream.json");
    let mut definition: jetstream::stream::Config = serde_json::from_str(text).unwrap();
    definition.deny_purge = false;
    let stream = js.create_stream(definition).await.unwrap();
    let bus = producer(&nats).await;
    let start = bus.head().await.unwrap().position;
    let head = publish(&bus, changes(1, 9)).await;
    stream.purge().sequence(head.offset - 3).await.unwrap();
    let reader = gateway(&nats).await;
    let refused = reader.read(start.clone(), 10).await;
    assert!(matches!(refused, Err(ReadError::Trimmed)), "{refused:?}");
    let told = in_time("to be told", reader.subscribe(start).next())
        .await
        .unwrap();
    assert!(matches!(told, Err(ReadError::Trimmed)), "{told:?}");
}

#[tokio::test]
async fn a_reader_that_was_overtaken_is_told() {
    let nats = Nats::start();
    let small = JetStreamConfig {
        max_bytes: 200_000,
        ..config(&nats)
    };
    let bus = connect(small, Role::Producer).await;
    wait_until("a claim", || async { bus.claim().await.ok() }).await;
    let start = publish(&bus, changes(1, 1)).await;
    let reader = gateway(&nats).await;
    let mut chunks = reader.subscribe(start.clone());
    in_time("the head", chunks.next()).await.unwrap().unwrap();
    // More than is kept, and more than the reader asked for at once.
    for n in 0..8 {
        publish(&bus, changes(n * 500 + 2, n * 500 + 501)).await;
    }
    let mut last = start.offset;
    loop {
        match in_time("to be told", chunks.next()).await.unwrap() {
            Ok(chunk) => {
                for delivery in chunk.deliveries {
                    last += 1;
                    assert_eq!(delivery.position.offset, last);
                }
            }
            Err(ReadError::Trimmed) => break,
            Err(err) => panic!("{err}"),
        }
    }
    assert!(last < start.offset + 4000);
}

// === a server that is not as it must be ===

#[tokio::test]
async fn without_a_server_the_bus_waits_and_says_why() {
    let mut nats = Nats::down(NatsOptions {
        bare: true,
        ..NatsOptions::default()
    });
    let bus = connect(config(&nats), Role::Producer).await;
    assert!(
        reason(&bus)
            .await
            .contains("not connected to NATS at 127.0.0.1")
    );
    nats.restart();
    wait_until("the reason", || async {
        reason(&bus)
            .await
            .contains("JetStream is not enabled")
            .then_some(())
    })
    .await;
    nats.options().bare = false;
    nats.restart();
    let open = Instant::now();
    wait_until("a claim", || async { bus.claim().await.ok() }).await;
    assert!(
        open.elapsed() < Duration::from_secs(2) + STANDSTILL,
        "{:?}",
        open.elapsed()
    );
}

#[tokio::test]
async fn wrong_credentials_are_told_and_never_shown() {
    let users = |password: &str| {
        format!("authorization {{ users: [{{ user: a, password: {password} }}] }}\n")
    };
    let mut nats = Nats::with(NatsOptions {
        extra: users("right"),
        ..NatsOptions::default()
    });
    let wrong = JetStreamConfig {
        servers: nats.url_of("a", "s3cret"),
        ..config(&nats)
    };
    let bus = connect(wrong, Role::Producer).await;
    let text = wait_until("the reason", || async {
        Some(reason(&bus).await).filter(|text| text.contains("refuses these credentials"))
    })
    .await;
    assert!(!text.contains("s3cret"), "{text}");
    nats.options().extra = users("s3cret");
    nats.restart();
    let open = Instant::now();
    wait_until("a claim", || async { bus.claim().await.ok() }).await;
    assert!(
        open.elapsed() < Duration::from_secs(2) + STANDSTILL,
        "{:?}",
        open.elapsed()
    );
}

#[tokio::test]
async fn a_connection_may_be_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(path("key.pem"))
        .arg("-out")
        .arg(path("cert.pem"))
        .output()
        .expect("openssl is missing: apt-get install -y openssl");
    assert!(made.status.success(), "{made:?}");
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let tls = format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
        cert.display(),
        key.display()
    );
    let nats = Nats::with(NatsOptions {
        extra: tls,
        ..NatsOptions::default()
    });
    // As `main` does; another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let private = JetStreamConfig {
        servers: nats.url().replace("nats://", "tls://"),
        ca: Some(cert),
        ..config(&nats)
    };
    let bus = connect(private.clone(), Role::Producer).await;
    wait_until("a claim", || async { bus.claim().await.ok() }).await;
    let missing = JetStreamConfig {
        ca: Some(path("missing.pem")),
        ..private
    };
    let refused = JetStreamBus::connect(missing, Role::Producer).await;
    assert!(refused.unwrap_err().to_string().contains("missing.pem"));
}

#[tokio::test]
async fn a_gateway_waits_for_a_producer() {
    let nats = Nats::start();
    let reader = connect(config(&nats), Role::Gateway).await;
    wait_until("the reason", || async {
        reason(&reader)
            .await
            .contains("rowcast produce")
            .then_some(())
    })
    .await;
    // Which is nothing wrong, and what a bus that is out of reach says is.
    let new = reader.head().await.unwrap_err();
    assert!(JetStreamBus::is_only_new(&new), "{new}");
    stranger(&nats).await.create_stream(stream()).await.unwrap();
    let new = wait_until("a stream", || async {
        let err = reader.head().await.unwrap_err();
        err.source()?
            .to_string()
            .contains("declared")
            .then_some(err)
    })
    .await;
    assert!(JetStreamBus::is_only_new(&new), "{new}");
    let nobody = connect(config(&Nats::down(NatsOptions::default())), Role::Command).await;
    let gone = nobody.head().await.unwrap_err();
    assert!(!JetStreamBus::is_only_new(&gone), "{gone}");
    producer(&nats).await;
    wait_until("a head", || async { reader.head().await.ok() }).await;
}

#[tokio::test]
async fn every_part_does_with_its_permissions() {
    let nats = Nats::with(shipped());
    let as_user = |user: &str| JetStreamConfig {
        servers: nats.url_as(user),
        ..config(&nats)
    };
    let bus = connect(as_user("producer"), Role::Producer).await;
    wait_until("a claim", || async { bus.claim().await.ok() }).await;
    let start = publish(&bus, changes(1, 1)).await;
    let reader = connect(as_user("gateway"), Role::Gateway).await;
    let mut chunks = {
        wait_until("a head", || async { reader.head().await.ok() }).await;
        reader.subscribe(start.clone())
    };
    publish(&bus, changes(2, 1500)).await;
    assert_eq!(follow(&mut chunks, 1500).await.len(), 1499);
    assert_eq!(reader.read(start, 700).await.unwrap().len(), 700);
    // An application publishes events, and nothing else.
    let client = user(&nats, "application").await;
    let js = jetstream::new(client.clone());
    let sent = js.publish("rowcast.event.t", "{\"type\":\"t\",\"data\":1}".into());
    sent.await.unwrap().await.unwrap();
    let chunk = in_time("the event", chunks.next()).await.unwrap().unwrap();
    assert_eq!(chunk.deliveries.len(), 1);
    // So it does by `rowcast publish`, and so do others look on by `rowcast check`.
    for user in ["application", "gateway"] {
        let command = connect(as_user(user), Role::Command).await;
        command.answers().await.unwrap();
        let text = "{\"type\":\"t\",\"data\":2}";
        let event = Event::from_application(text, format!("by {user}"), 5).unwrap();
        let batch = Batch {
            events: vec![event],
            ..Batch::default()
        };
        let begun = Instant::now();
        let position = command.publish(batch).await.unwrap().position;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "{user}: {took:?}");
        let chunk = in_time("the event", chunks.next()).await.unwrap().unwrap();
        assert_eq!(chunk.deliveries[0].position, position);
    }
    for user in ["producer", "gateway"] {
        let command = connect(as_user(user), Role::Command).await;
        command.answers().await.unwrap();
        command.head().await.unwrap();
    }
    // A gateway asks how the producer is, and reads the dead letters.
    let told = bus.tell_status(|| Report {
        id: "1".into(),
        process: "the producer".into(),
        stages: Vec::new(),
    });
    let asked = wait_until("an answer of the producer", || async {
        let mut answers = reader.reports();
        let patience = Duration::from_millis(300);
        let answer = tokio::time::timeout(patience, answers.next()).await;
        answer.ok().flatten()
    });
    tokio::select! {
        () = told => panic!("nobody listens any more"),
        asked = asked => assert_eq!(asked.process, "the producer"),
    }
    let sent = js.publish("rowcast.event.t", "nonsense".into());
    sent.await.unwrap().await.unwrap();
    let chunk = in_time("the nonsense", chunks.next())
        .await
        .unwrap()
        .unwrap();
    assert!(chunk.deliveries[0].event.is_none());
    let letters = wait_until("the dead letter", || async {
        let found = reader.dead_letters(5).await.unwrap();
        (found.total > 0).then_some(found.letters)
    })
    .await;
    assert_eq!(letters[0].reason, "not a JSON object");
    for subject in [
        "rowcast.change.t",
        "$JS.API.STREAM.INFO.ROWCAST_DLQ",
        "$JS.API.DIRECT.GET.ROWCAST_DLQ",
        "$JS.API.STREAM.MSG.GET.ROWCAST_DLQ",
        "rowcast.dlq.t",
        "$JS.API.STREAM.MSG.GET.ROWCAST",
        "$JS.API.DIRECT.GET.ROWCAST",
        "$JS.API.DIRECT.GET.ROWCAST.rowcast.change.t",
        "$JS.API.STREAM.DELETE.ROWCAST",
    ] {
        let refused = client.request(subject, "{}".into());
        let refused = tokio::time::timeout(Duration::from_millis(300), refused).await;
        assert!(!matches!(refused, Ok(Ok(_))), "{subject}");
    }
    // A gateway cannot write changes.
    let client = user(&nats, "gateway").await;
    client
        .publish("rowcast.change.t", "{}".into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    publish(&bus, changes(1501, 1501)).await;
    assert_eq!(highs(&follow(&mut chunks, 1501).await), [1501]);
}

// === what is stored ===

#[tokio::test]
async fn a_row_that_is_too_large_is_told_by_its_key() {
    let nats = Nats::with(NatsOptions {
        max_payload: Some(64 * 1024),
        ..NatsOptions::default()
    });
    let bus = producer(&nats).await;
    let large = |high, old: usize, row: usize| {
        let mut event = change(high);
        let Body::Change { data, .. } = &mut event.body else {
            panic!("a change")
        };
        data.old = Some(rowcast::event::raw(&"x".repeat(old)));
        data.row = Some(rowcast::event::raw(&"x".repeat(row)));
        event
    };
    let batch = Batch {
        events: vec![large(1, 70_000, 10), large(2, 10, 2 << 20), change(3)],
        ..changes(1, 3)
    };
    publish(&bus, batch).await;
    let read = everything(&bus).await;
    assert_eq!(highs(&read), [1, 2, 3]);
    let data = |event: &Event| match &event.body {
        Body::Change { data, .. } => data.clone(),
        _ => panic!("a change"),
    };
    let (first, second) = (data(&read[0]), data(&read[1]));
    assert!(first.old.is_none() && first.row.is_some() && !first.too_large);
    assert!(second.row.is_none() && second.too_large);
    assert_eq!(second.key.unwrap().get(), "{\"id\":2}");
}

#[tokio::test]
async fn nonsense_becomes_one_dead_letter_and_delays_nobody() {
    let nats = Nats::start();
    let bus = producer(&nats).await;
    let start = publish(&bus, changes(1, 1)).await;
    let metrics = Metrics::default();
    let reader = || async {
        let config = JetStreamConfig {
            types: vec!["t".into()],
            metrics: metrics.clone(),
            ..config(&nats)
        };
        connect(config, Role::Gateway).await
    };
    let (one, two) = (reader().await, reader().await);
    let mut chunks = [one.subscribe(start.clone()), two.subscribe(start)];
    let js = stranger(&nats).await;
    let nonsense = [
        ("rowcast.event.t", "nonsense"),
        ("rowcast.event.t", "{\"type\":\"u\"}"),
        ("rowcast.event.foreign", "{\"type\":\"foreign\"}"),
    ];
    for (subject, text) in nonsense {
        js.publish(subject, text.into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-type", "t");
    headers.insert("ce-id", "binary");
    let sent = js.publish_with_headers("rowcast.event.t", headers, "[1]".into());
    sent.await.unwrap().await.unwrap();
    for chunks in &mut chunks {
        let mut deliveries = Vec::new();
        while deliveries.len() < 4 {
            if let Ok(chunk) = in_time("a chunk", chunks.next()).await.unwrap() {
                deliveries.extend(chunk.deliveries);
            }
        }
        assert!(deliveries[..3].iter().all(|d| d.event.is_none()));
        assert_eq!(deliveries[3].event.as_ref().unwrap().id, "binary");
    }
    assert_eq!(metrics.dead_letters.get(), 6);
    // Every letter was told twice, and is stored once.
    let dead = js.get_stream("ROWCAST_DLQ").await.unwrap();
    let letters = wait_until("the dead letters", || async {
        let state = dead.get_info().await.unwrap().state;
        (state.messages >= 3).then_some(state.messages)
    })
    .await;
    assert_eq!(letters, 3);
    let letter = dead.get_raw_message(1).await.unwrap();
    assert_eq!(letter.payload, "nonsense");
    let reason = letter.headers.get("Rowcast-Reason").unwrap();
    assert_eq!(reason.as_str(), "not a JSON object");
}

#[tokio::test]
async fn a_flood_of_nonsense_is_kept_whole_and_delays_nobody() {
    const FLOOD: usize = 3000;
    let nats = Nats::start();
    let bus = producer(&nats).await;
    let start = publish(&bus, changes(1, 1)).await;
    let metrics = [Metrics::default(), Metrics::default()];
    let mut readers = Vec::new();
    for metrics in &metrics {
        let config = JetStreamConfig {
            metrics: metrics.clone(),
            ..config(&nats)
        };
        let reader = connect(config, Role::Gateway).await;
        let chunks = reader.subscribe(start.clone());
        readers.push((reader, chunks));
    }
    let js = stranger(&nats).await;
    for _ in 0..FLOOD {
        let sent = js.publish("rowcast.event.t", "nonsense".into());
        sent.await.unwrap();
    }
    let good = "{\"type\":\"t\",\"data\":1}";
    let sent = js.publish("rowcast.event.t", good.into());
    sent.await.unwrap().await.unwrap();
    let begun = Instant::now();
    for (_, chunks) in &mut readers {
        assert_eq!(offsets_until_event(chunks).await, FLOOD + 1);
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3) + STANDSTILL, "{took:?}");
    let dead = js.get_stream("ROWCAST_DLQ").await.unwrap();
    wait_until("the dead letters", || async {
        let state = dead.get_info().await.unwrap().state;
        (state.messages >= FLOOD as u64).then_some(())
    })
    .await;
    // Who reads the same once more tells nothing anew.
    let mut again = readers[0].0.subscribe(start);
    assert_eq!(offsets_until_event(&mut again).await, FLOOD + 1);
    for metrics in &metrics {
        assert_eq!(metrics.dead_letters.get(), FLOOD as u64);
    }
    let state = dead.get_info().await.unwrap().state;
    assert_eq!(state.messages, FLOOD as u64);
    let mut told = HashSet::new();
    for seq in 1..=state.last_sequence {
        let letter = dead.get_raw_message(seq).await.unwrap();
        told.insert(letter.headers.get("Rowcast-Sequence").unwrap().to_string());
    }
    assert_eq!(told.len(), FLOOD);
}

/// How many deliveries come until one is an event, with it.
async fn offsets_until_event(
    chunks: &mut (impl Stream<Item = Result<Chunk, ReadError>> + Unpin),
) -> usize {
    let mut count = 0;
    loop {
        if let Ok(chunk) = in_time("a chunk", chunks.next()).await.unwrap() {
            count += chunk.deliveries.len();
            if chunk.deliveries.iter().any(|d| d.event.is_some()) {
                return count;
            }
        }
    }
}

#[tokio::test]
async fn marks_are_answered_once_their_batch_is_stored() {
    let nats = Nats::start();
    let bus = producer(&nats).await;
    let mut control = bus.control().await.unwrap();
    let batch = Batch {
        marks: vec!["m1".into()],
        ..changes(1, 2)
    };
    let position = publish(&bus, batch).await;
    let (subject, body) = in_time("the mark", control.next()).await.unwrap();
    assert_eq!(subject, "mark");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({ "mark": "m1", "cursor": position.to_string() })
    );
}

#[tokio::test]
async fn topics_that_changed_are_found_by_the_next_producer() {
    let nats = Nats::start();
    let with = |fingerprint: &str| JetStreamConfig {
        fingerprints: vec![("t".into(), fingerprint.into())],
        ..config(&nats)
    };
    let first = connect(with("a"), Role::Producer).await;
    wait_until("a claim", || async { first.claim().await.ok() }).await;
    publish(&first, changes(1, 1)).await;
    let second = connect(with("b"), Role::Producer).await;
    wait_until("a claim", || async { second.claim().await.ok() }).await;
    assert_eq!(second.declared_fingerprints()["t"], "a");
    let reader = gateway(&nats).await;
    assert_eq!(reader.fingerprints().await.unwrap()["t"], "a");
    publish(&second, changes(2, 2)).await;
    assert_eq!(reader.fingerprints().await.unwrap()["t"], "b");
}

#[tokio::test]
async fn how_durable_the_bus_is_can_be_asked() {
    for (sync, expected) in [
        (None, Durability::Buffered),
        (Some("always"), Durability::Fsynced),
    ] {
        let nats = Nats::with(NatsOptions {
            sync_interval: sync.map(str::to_owned),
            ..NatsOptions::default()
        });
        let config = JetStreamConfig {
            monitor: Some(nats.monitor()),
            ..config(&nats)
        };
        let bus = connect(config, Role::Producer).await;
        wait_until("a claim", || async { bus.claim().await.ok() }).await;
        assert_eq!(bus.durability().await, expected);
    }
}

/// Not a check but a measurement: `cargo test --release -- --ignored --nocapture batches`.
#[tokio::test]
#[ignore = "a measurement"]
async fn batches_of_a_thousand_changes_by_the_second() {
    for sync in ["\"2m\"", "always"] {
        let nats = Nats::with(NatsOptions {
            sync_interval: Some(sync.into()),
            ..NatsOptions::default()
        });
        let bus = producer(&nats).await;
        let batches: Vec<Batch> = (0..50)
            .map(|n| changes(n * 1000 + 1, n * 1000 + 1000))
            .collect();
        let start = Instant::now();
        for batch in batches {
            bus.publish(batch).await.unwrap();
        }
        let rate = 50_000.0 / start.elapsed().as_secs_f64();
        println!("sync_interval {sync}: {rate:.0} changes/s");
    }
}
