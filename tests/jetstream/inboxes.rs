//! What comes into an inbox of a gateway's and is no answer to it, or says something else than a message. Somebody
//! stands between it and JetStream here: the account has what he is asked in JetStream's place, and he answers as that
//! would, after whatever he likes.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use async_nats::{Client, Message};
use futures_util::StreamExt;
use rowcast::{
    bus::{
        Bus,
        jetstream::{JetStreamBus, Role},
    },
    position::Position,
    status::Report,
};
use serde_json::json;

use super::{
    changes,
    headers::{bus, read},
    publish, user,
};
use crate::{
    accounts::wire::Wire,
    support::{Nats, NatsOptions, in_time, wait_until},
};

const STREAM: &str = "ROWCAST";

/// One account for all, in which questions come to `asked.…` instead, and to JetStream from `passed.…`.
fn between() -> NatsOptions {
    let users = ["producer", "gateway", "application"];
    let users = users.map(|user| format!("{{ user: {user}, password: {user}-s3cret }}"));
    let (get, next) = (
        "$JS.API.DIRECT.GET.ROWCAST",
        "$JS.API.CONSUMER.MSG.NEXT.ROWCAST",
    );
    let mappings = format!(
        "\"{get}\": asked.range, passed.range: \"{get}\", \"{next}.*\": \"asked.next.{{{{wildcard(1)}}}}\", \
         \"passed.next.*\": \"{next}.{{{{wildcard(1)}}}}\""
    );
    NatsOptions {
        extra: format!(
            "accounts {{ ONE: {{ jetstream: enabled, users: [{}], mappings: {{ {mappings} }} }} }}\n",
            users.join(", ")
        ),
        ..NatsOptions::default()
    }
}

/// A question that JetStream was to have.
struct Asked {
    /// `range`, or `next.` and the consumer.
    of: String,
    inbox: String,
    body: String,
}

impl Asked {
    fn new(message: Message) -> Self {
        Self {
            of: message.subject.strip_prefix("asked.").unwrap().to_owned(),
            inbox: message.reply.unwrap().to_string(),
            body: String::from_utf8(message.payload.to_vec()).unwrap(),
        }
    }

    /// Has JetStream answer it.
    fn pass(&self, wire: &mut Wire) {
        let subject = format!("passed.{}", self.of);
        assert_eq!(wire.ask(&subject, &self.inbox, &self.body), None);
    }
}

/// A stream with one change, and where that is.
async fn begun(nats: &Nats) -> (JetStreamBus, Position) {
    let producer = bus(nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    (producer, start)
}

fn event(number: u64) -> String {
    json!({ "type": "t", "data": number }).to_string()
}

/// Has a message of the stream delivered into an inbox by a consumer, under its own subject.
async fn push(client: &Client, seq: u64, inbox: &str) {
    let js = async_nats::jetstream::new(client.clone());
    let stream = js.get_stream(STREAM).await.unwrap();
    let config = async_nats::jetstream::consumer::push::Config {
        deliver_subject: inbox.to_owned(),
        deliver_policy: async_nats::jetstream::consumer::DeliverPolicy::ByStartSequence {
            start_sequence: seq,
        },
        ack_policy: async_nats::jetstream::consumer::AckPolicy::None,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let name = &consumer.cached_info().name;
    wait_until("the delivery", async || {
        let info = stream.consumer_info(name).await.unwrap();
        (info.delivered.stream_sequence >= seq).then_some(())
    })
    .await;
}

/// Only so can something come into an inbox under another subject: a message that a consumer delivers there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_delivered_into_a_range_is_no_part_of_it() {
    let nats = Nats::with(between());
    let (producer, start) = begun(&nats).await;
    let mut wire = Wire::open(&nats, "application");
    // Where the second message stands, so that it would be taken for it.
    let second = start.offset + 2;
    let lie = format!(
        "NATS/1.0\r\nNats-Stream: {STREAM}\r\nNats-Subject: rowcast.change.t\r\nNats-Sequence: {second}\r\n\
         Nats-Time-Stamp: 2026-01-01T00:00:00Z\r\n\r\n"
    );
    let above: [&[u8]; 2] = [lie.as_bytes(), b"NATS/1.0\r\n\r\n"];
    for (number, above) in (1..).zip(above) {
        let refused = wire.publish_under("rowcast.event.t", above, &event(number));
        assert_eq!(refused, None);
    }
    let last = publish(&producer, changes(2, 2)).await.offset;
    let somebody = user(&nats, "application").await;
    let mut asked = somebody.subscribe("asked.range").await.unwrap();
    somebody.flush().await.unwrap();
    let reader = bus(&nats, "gateway", Role::Gateway).await;
    let reading = read(&reader, start.clone(), "change 2");
    tokio::pin!(reading);
    let all = loop {
        let ask = tokio::select! {
            all = &mut reading => break all,
            ask = in_time("a question", asked.next()) => Asked::new(ask.unwrap()),
        };
        for seq in start.offset + 1..=second {
            push(&somebody, seq, &ask.inbox).await;
        }
        ask.pass(&mut wire);
    };
    let told: Vec<(u64, &str)> = all
        .iter()
        .map(|(position, told)| (position.offset, &**told))
        .collect();
    let expected = [(second - 1, "1"), (second, "2"), (last, "change 2")];
    assert_eq!(told, expected);
}

/// What is to become of a request of a follower's.
enum Then {
    /// It goes on.
    On,
    /// It is made again for the same consumer.
    Again,
    /// It is over, and so is the consumer.
    Over,
}

/// What comes instead of a message.
const INSTEAD: [(&[u8], Then); 11] = [
    (b"NATS/1.0\r\n\r\n", Then::On),
    (b"NATS/1.0\r\nNats-Sequence: 3\r\n\r\n", Then::On),
    (
        b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 0\r\n\r\n",
        Then::On,
    ),
    (
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 500\r\nNats-Pending-Bytes: 0\r\n\r\n",
        Then::Again,
    ),
    (b"NATS/1.0 408 Request Timeout\r\n\r\n", Then::Again),
    (b"NATS/1.0 404 No Messages\r\n\r\n", Then::Over),
    (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", Then::Over),
    (b"NATS/1.0 409 Leadership Change\r\n\r\n", Then::Over),
    (b"NATS/1.0 409 Server Shutdown\r\n\r\n", Then::Over),
    (b"NATS/1.0 503\r\n\r\n", Then::Over),
    (b"NATS/1.0 777 Of tomorrow\r\n\r\n", Then::Over),
];

/// Waits for the message that follows `start`. Whatever is asked comes to `others` first, with how often it was asked
/// of that consumer, and is passed on where they say so; of how many consumers was asked.
async fn follow_past(
    nats: &Nats,
    start: &Position,
    others: impl AsyncFn(&Asked, usize, &mut Wire) -> bool,
) -> usize {
    let somebody = user(nats, "application").await;
    let mut wire = Wire::open(nats, "application");
    let mut asked = somebody.subscribe("asked.next.*").await.unwrap();
    somebody.flush().await.unwrap();
    let reader = bus(nats, "gateway", Role::Gateway).await;
    let mut chunks = reader.subscribe(start.clone());
    let mut consumers: HashMap<String, usize> = HashMap::new();
    loop {
        let ask = tokio::select! {
            chunk = in_time("a chunk", chunks.next()) => match chunk.unwrap() {
                Ok(chunk) if !chunk.deliveries.is_empty() => {
                    assert_eq!(chunk.deliveries[0].position.offset, start.offset + 1);
                    return consumers.len();
                }
                _ => continue,
            },
            ask = in_time("a question", asked.next()) => Asked::new(ask.unwrap()),
        };
        let times = consumers.entry(ask.of.clone()).or_default();
        *times += 1;
        if others(&ask, *times, &mut wire).await {
            ask.pass(&mut wire);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_is_told_instead_of_a_message_ends_its_request_or_does_not() {
    let nats = Nats::with(between());
    let (_producer, start) = begun(&nats).await;
    let mut application = Wire::open(&nats, "application");
    assert_eq!(application.publish("rowcast.event.t", &event(1)), None);
    for (above, then) in INSTEAD {
        let shown = String::from_utf8_lossy(above);
        let follow = async || {
            let first = AtomicBool::new(true);
            // Behind it comes the message, which who has ended his request does not hear any more.
            follow_past(&nats, &start, async |ask, times, wire| {
                let (instead, pass) = match then {
                    Then::On => (true, true),
                    Then::Again => (times == 1, times > 1),
                    Then::Over => (first.swap(false, Ordering::Relaxed), true),
                };
                if instead {
                    assert_eq!(wire.publish_under(&ask.inbox, above, ""), None);
                }
                pass
            })
            .await
        };
        match then {
            Then::On | Then::Again => assert!(of_one_consumer(follow).await, "ended it: {shown}"),
            Then::Over => assert!(follow().await > 1, "ended nothing: {shown}"),
        }
    }
}

/// Whether no more than one consumer was asked; where the machine stands still another one may be, but not always.
async fn of_one_consumer(follow: impl AsyncFn() -> usize) -> bool {
    for _ in 0..5 {
        if follow().await == 1 {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_delivered_to_a_follower_ends_nothing_and_is_no_message() {
    let nats = Nats::with(between());
    let (_producer, start) = begun(&nats).await;
    let mut application = Wire::open(&nats, "application");
    let above = b"NATS/1.0 409 Consumer Deleted\r\n\r\n";
    let refused = application.publish_under("rowcast.event.t", above, &event(1));
    assert_eq!(refused, None);
    let somebody = user(&nats, "application").await;
    let follow = async || {
        follow_past(&nats, &start, async |ask, _, _| {
            push(&somebody, start.offset + 1, &ask.inbox).await;
            true
        })
        .await
    };
    assert!(of_one_consumer(follow).await, "it ended the consumer");
}

/// Whoever asks chooses where he is answered, also where nobody can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_answered_keeps_nobody_else_from_an_answer() {
    let nats = Nats::start();
    let asked = bus(&nats, "gateway", Role::Gateway).await;
    tokio::spawn(async move {
        let told = asked.tell_status(|| Report {
            id: "1".into(),
            process: "a gateway".into(),
            stages: Vec::new(),
        });
        told.await;
    });
    let mut answers = Wire::open(&nats, "application");
    let other = user(&nats, "application").await;
    wait_until("somebody to listen", async || {
        let answer = other.request("rowcast.control.status", "".into()).await;
        answer.is_ok().then_some(())
    })
    .await;
    for inbox in ["a\rb", "..", "x..y"] {
        assert_eq!(answers.ask("rowcast.control.status", inbox, ""), None);
    }
    let answer = other.request("rowcast.control.status", "".into()).await;
    assert!(answer.is_ok(), "{answer:?}");
}
