//! What an application writes above its event. The server stores whatever stands there, so it may be lies about the
//! message, a status, or no headers at all: each is an event at its own place, and ends nothing.

use async_nats::jetstream;
use futures_util::StreamExt;
use rowcast::{
    bus::{
        Bus, ReadError,
        jetstream::{JetStreamBus, JetStreamConfig, Role},
    },
    event::{Body, Event},
    position::Position,
};

use super::{changes, checkpoint, config, connect, publish, stranger, stream};
use crate::{
    accounts::wire::{Wire, get},
    support::{Nats, in_time, nats::shipped, wait_until},
};

/// The lies: of which subject it is, where and when it was stored, that it is none, and how far there is more.
pub const LIES: [&[u8]; 6] = [
    b"NATS/1.0\r\nNats-Stream: ROWCAST\r\nNats-Subject: rowcast.change.t\r\nNats-Sequence: 3\r\n\
      Nats-Time-Stamp: 2020-01-01T00:00:00Z\r\nNats-Num-Pending: 0\r\nRowcast-Epoch: e0\r\n\r\n",
    b"NATS/1.0\r\nNats-Subject: rowcast.change.t\r\nNats-Sequence: 9\r\nNats-Time-Stamp: never\r\n\r\n\r\n",
    b"NATS/1.0\r\n\r\nNats-Subject: rowcast.change.sys.state\r\nNats-Sequence: x\r\nRowcast-More: 1\r\n\r\n",
    b"NATS/1.0\r\nStatus: 404\r\nDescription: No Messages\r\nNats-Pending-Messages: 9\r\n\r\n",
    b"NATS/1.0\r\nNats-Subject: rowcast.change.t\r\n x\r\n\r\n",
    b"NATS/1.0\r\nNats-Msg-Id: 1\r\nNats-Msg-Id: 2\r\n\r\n",
];

/// What the server itself would say.
const STATUSES: [&[u8]; 6] = [
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    b"NATS/1.0 404 Message Not Found\r\n\r\n",
    b"NATS/1.0 408 Request Timeout\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
];

/// Those that end otherwise than the server supposes, which writes over the last two bytes when it is read directly.
pub const ENDS: [&[u8]; 10] = [
    b"NATS/1.0\r\nNats-Msg-Id: abcd",
    b"NATS/1.0\r\nNats-Msg-Id: efgh\r\n",
    b"NATS/1.0\r\nNats-Msg-Id: ijkl\n\n",
    b"NATS/1.0\r\nNats-Stream: ROWCAST\r\nNats-Msg-Id: mnop",
    b"NATS/1.0\r\nNats-Stream: ROWCAST\r\nNats-Msg-Id: qrst\r\n uvwx",
    b"NATS/1.0\r\nNats-Msg-Id: 2345\r\n 6",
    b"NATS/1.0\r\nNats-Msg-Id:   6789\r\n\t0",
    b"NATS/1.0\r\nce-id: 7\r\nX:",
    b"NATS/1.0 100 Idle",
    b"NATS/1.0\r\nNats-Stream: OTHER\r\nNats-Msg-Id: yz01\r\n\r\n",
];

/// What the client ends the connection for.
pub const NONE: [&[u8]; 11] = [
    b"\r\n\r\n",
    b"HTTP/1.1\r\na: b\r\n\r\n",
    b"NATS/1.0",
    b"NATS/1.0 many\r\n\r\n",
    b"NATS/1.0\r\nno headers\r\n\r\n",
    b"NATS/1.0\r\na b: c\r\n\r\n",
    b"NATS/1.0\r\nname: M\xfcller\r\n\r\n",
    b"NATS/1.0\r\n: nobody's\r\nNats-Subject: rowcast.change.t\r\n\r\n",
    // Lines that would go on with one, and follow none.
    b"NATS/1.0\r\n x\r\n\r\n",
    b"NATS/1.0\r\na: b\r\n\r\n x\r\n\r\n",
    // For this one it ends itself.
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
];

pub async fn bus(nats: &Nats, user: &str, role: Role) -> JetStreamBus {
    let config = JetStreamConfig {
        servers: nats.url_as(user),
        ..config(nats)
    };
    connect(config, role).await
}

/// The data of applications' events; of anything else what it is.
pub fn told(event: &Event) -> String {
    match &event.body {
        Body::Application(data) => data.get().to_owned(),
        Body::Change { checkpoint, .. } => format!("change {}", checkpoint.high),
        Body::Emitted { .. } => "emitted".into(),
    }
}

/// All that one reader is sent after a place, to the change of that number.
pub async fn followed(bus: &JetStreamBus, from: Position, last: &str) -> Vec<(Position, String)> {
    let mut chunks = bus.subscribe(from);
    let mut all = Vec::new();
    loop {
        match in_time("a chunk", chunks.next()).await.unwrap() {
            Ok(chunk) => {
                for delivery in chunk.deliveries {
                    if let Some(event) = &delivery.event {
                        all.push((delivery.position, told(event)));
                    }
                }
            }
            Err(ReadError::Unavailable(_)) => {}
            Err(err) => panic!("{err}"),
        }
        if all.last().is_some_and(|(_, told)| told == last) {
            return all;
        }
    }
}

/// The same, read as whoever comes back has it read.
pub async fn read(bus: &JetStreamBus, from: Position, last: &str) -> Vec<(Position, String)> {
    let mut all: Vec<(Position, String)> = Vec::new();
    let mut next = from;
    loop {
        let step = wait_until("a stretch", async || {
            match bus.read(next.clone(), 500).await {
                Ok(step) => Some(step),
                Err(ReadError::Unavailable(_)) => None,
                Err(err) => panic!("{err}"),
            }
        })
        .await;
        for delivery in step {
            next = delivery.position.clone();
            if let Some(event) = &delivery.event {
                all.push((delivery.position, told(event)));
            }
        }
        if all.last().is_some_and(|(_, told)| told == last) {
            return all;
        }
    }
}

/// How many connections a server has had.
pub fn connections(nats: &Nats) -> u64 {
    let told: serde_json::Value = serde_json::from_str(&get(&nats.monitor(), "/varz")).unwrap();
    told["total_connections"].as_u64().unwrap()
}

/// Publishes an event under each of these, and holds what readers are sent against it.
async fn each_is_an_event(nats: &Nats, blocks: &[&[u8]]) {
    let producer = bus(nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let follower = bus(nats, "gateway", Role::Gateway).await;
    let live = tokio::spawn({
        let start = start.clone();
        async move { followed(&follower, start, "change 2").await }
    });
    let mut application = Wire::open(nats, "application");
    let mut expected = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        // One that would pass for a change of a row.
        let data = format!(
            "{{\"op\":\"update\",\"key\":{{\"id\":{number}}},\"row\":{{\"id\":{number}}}}}"
        );
        let event = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"s:9.{number}/t\",\"source\":\"/s\",\"type\":\"t\",\
             \"time\":\"2026-01-01T00:00:00Z\",\"data\":{data}}}"
        );
        assert_eq!(
            application.publish_under("rowcast.event.t", block, &event),
            None
        );
        expected.push(data);
    }
    publish(&producer, changes(2, 2)).await;
    expected.push("change 2".into());
    // Each of its chunks has its own deadline.
    let live = live.await.unwrap();
    let texts: Vec<&str> = live.iter().map(|(_, told)| &**told).collect();
    assert_eq!(texts, expected);
    let offsets: Vec<u64> = live.iter().map(|(position, _)| position.offset).collect();
    let places: Vec<u64> = (start.offset + 1..).take(expected.len()).collect();
    assert_eq!(offsets, places);
    // Whoever reads them later has them under the same cursors.
    let late = bus(nats, "gateway", Role::Gateway).await;
    let cursors = |all: &[(Position, String)]| -> Vec<(String, String)> {
        let text = all
            .iter()
            .map(|(position, told)| (position.to_string(), told.clone()));
        text.collect()
    };
    assert_eq!(
        cursors(&read(&late, start.clone(), "change 2").await),
        cursors(&live)
    );
    assert_eq!(
        cursors(&followed(&late, start, "change 2").await),
        cursors(&live)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_application_says_of_its_event_it_stays_one_at_its_place() {
    for blocks in [&LIES[..], &STATUSES, &ENDS] {
        each_is_an_event(&Nats::with(shipped()), blocks).await;
        each_is_an_event(&Nats::start(), blocks).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_the_source_has_been_read_only_its_producer_says() {
    let nats = Nats::with(shipped());
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let mut application = Wire::open(&nats, "application");
    let lie = b"NATS/1.0\r\nRowcast-Epoch: e0\r\nRowcast-Checkpoint: s:ff.0\r\n\r\n";
    let follower = bus(&nats, "gateway", Role::Gateway).await;
    let mut chunks = follower.subscribe(start.at(start.offset - 1));
    for stored in start.offset + 1..start.offset + 3 {
        let event = "{\"type\":\"t\",\"data\":1}";
        let refused = application.publish_under("rowcast.event.t", lie, event);
        assert_eq!(refused, None);
        loop {
            let chunk = in_time("a chunk", chunks.next()).await.unwrap();
            let Some(head) = chunk.ok().and_then(|chunk| chunk.head) else {
                continue;
            };
            assert_eq!(head.checkpoint, Some(checkpoint(1)), "at {}", head.stored);
            if head.stored == stored {
                break;
            }
        }
    }
    let found = bus(&nats, "gateway", Role::Gateway).await;
    let head = wait_until("a head", async || found.head().await.ok()).await;
    assert_eq!(head.checkpoint, Some(checkpoint(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_header_stops_no_reader() {
    each_is_an_event(&Nats::with(shipped()), &NONE).await;
    each_is_an_event(&Nats::start(), &NONE).await;
    // The last one by itself: who reads one by one reads on past others.
    each_is_an_event(&Nats::with(shipped()), &NONE[NONE.len() - 1..]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn white_space_at_the_end_of_a_subject_is_no_part_of_it() {
    let nats = Nats::with(shipped());
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let mut application = Wire::open(&nats, "application");
    let mut expected = Vec::new();
    for space in [
        "\u{a0}",
        "\u{b}",
        "\u{c}",
        "\u{85}",
        "\u{3000}",
        "\u{2009}\u{a0}",
    ] {
        let subject = format!("rowcast.event.t{space}");
        let refused = application.publish_on(subject.as_bytes(), EVENT);
        assert_eq!(refused, None, "{space:?}");
        let refused = application.publish_under(&subject, b"NATS/1.0\r\na: b\r\n\r\n", EVENT);
        assert_eq!(refused, None, "{space:?}");
        expected.extend(["1", "1"]);
    }
    publish(&producer, changes(2, 2)).await;
    expected.push("change 2");
    let reader = bus(&nats, "gateway", Role::Gateway).await;
    let read = read(&reader, start.clone(), "change 2").await;
    let followed = followed(&reader, start, "change 2").await;
    for all in [followed, read] {
        let all: Vec<&str> = all.iter().map(|(_, told)| &**told).collect();
        assert_eq!(all, expected);
    }
}

/// So many connections may be lost by chance on a machine that is busy.
pub const BY_CHANCE: u64 = 2;

const EVENT: &str = "{\"type\":\"t\",\"data\":1}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_header_costs_who_follows_one_connection() {
    let nats = Nats::with(shipped());
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let follower = bus(&nats, "gateway", Role::Gateway).await;
    let mut chunks = follower.subscribe(start.clone());
    let mut application = Wire::open(&nats, "application");
    let at_head = async || follower.head().await.ok();
    wait_until("a head", at_head).await;
    let before = connections(&nats);
    let (mut stored, mut last) = (start.offset, start.offset);
    for block in NONE {
        // One that is read again by itself stands before it.
        let doubtful = format!("NATS/1.0\r\nNats-Msg-Id: i{stored}\r\n 6");
        for above in [doubtful.as_bytes(), block] {
            let refused = application.publish_under("rowcast.event.t", above, EVENT);
            assert_eq!(refused, None);
            stored += 1;
        }
        while last < stored {
            let chunk = in_time("a chunk", chunks.next()).await.unwrap();
            let deliveries = chunk.into_iter().flat_map(|chunk| chunk.deliveries);
            for delivery in deliveries {
                last += 1;
                assert_eq!(delivery.position.offset, last);
            }
        }
    }
    let lost = connections(&nats) - before;
    assert!(lost <= NONE.len() as u64 + BY_CHANCE, "{lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_header_costs_all_who_read_past_it_one_connection() {
    let nats = Nats::with(shipped());
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let mut application = Wire::open(&nats, "application");
    assert_eq!(application.publish("rowcast.event.t", EVENT), None);
    // A subject that is no text ends the connection as well.
    assert_eq!(application.publish_on(b"rowcast.event.\xff", EVENT), None);
    for (number, block) in NONE.iter().enumerate() {
        // One that is read again by itself stands before it.
        let doubtful = format!("NATS/1.0\r\nNats-Msg-Id: i{number}\r\n");
        for above in [doubtful.as_bytes(), block] {
            let refused = application.publish_under("rowcast.event.t", above, EVENT);
            assert_eq!(refused, None);
        }
    }
    publish(&producer, changes(2, 2)).await;
    let reader = bus(&nats, "gateway", Role::Gateway).await;
    wait_until("a head", async || reader.head().await.ok()).await;
    let before = connections(&nats);
    for _ in 0..6 {
        let all = read(&reader, start.clone(), "change 2").await;
        assert_eq!(all.len(), 2 * NONE.len() + 2);
    }
    let lost = connections(&nats) - before;
    assert!(lost <= 1 + BY_CHANCE, "{lost}");
}

/// Nobody may delete from the stream as it ships.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_before_what_is_no_header_is_told() {
    const HOLE: u64 = 70;
    let nats = Nats::start();
    let js = stranger(&nats).await;
    let made = js.create_stream(jetstream::stream::Config {
        deny_delete: false,
        ..stream()
    });
    let stream = made.await.unwrap();
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let mut application = Wire::open(&nats, "application");
    for _ in 0..HOLE {
        assert_eq!(application.publish("rowcast.event.t", EVENT), None);
    }
    let refused = application.publish_under("rowcast.event.t", NONE[0], EVENT);
    assert_eq!(refused, None);
    publish(&producer, changes(2, 2)).await;
    for seq in 1..=HOLE {
        stream.delete_message(start.offset + seq).await.unwrap();
    }
    let reader = bus(&nats, "gateway", Role::Gateway).await;
    wait_until("a head", async || reader.head().await.ok()).await;
    let read = async |offset| match reader.read(start.at(offset), 100).await {
        Err(ReadError::Unavailable(_)) => None,
        read => Some(read),
    };
    // From within the hole, and from before it.
    for offset in [start.offset + 3, start.offset] {
        let told = wait_until("an answer", async || read(offset).await).await;
        assert!(matches!(told, Err(ReadError::Trimmed)), "{told:?}");
    }
    let behind = start.offset + HOLE;
    let told = wait_until("what is behind it", async || read(behind).await).await;
    assert_eq!(told.unwrap().len(), 2);
}
