//! What every [`Bus`] promises, sentence by sentence of its doc comment. A further backend is one
//! more `contract!` at the end.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use rowcast::{
    bus::{
        Bus, Chunk, PublishError, ReadError,
        embedded::{EmbeddedBus, EmbeddedBusConfig},
        jetstream::{JetStreamBus, JetStreamConfig, Role},
    },
    event::{Batch, Body, ChangeData, Delivery, Event, MAX_EVENT_BYTES, Op},
    position::{Checkpoint, Position},
};

use crate::support::{Nats, in_time, wait_until};

/// A bus that can be closed and opened again. Nothing is in it at first.
trait Home {
    type Bus: Bus;

    /// Retains about `max_bytes` of events.
    fn new(max_bytes: u64) -> Self;

    /// Opens it and claims it; all handles of before are dropped.
    fn open(&self) -> impl Future<Output = Self::Bus>;
}

/// More than any test but those about trimming writes.
const ROOM: u64 = 1 << 30;

// === events ===

fn checkpoint(source: &str, high: u64) -> Checkpoint {
    Checkpoint {
        source: source.into(),
        high,
        low: 0,
    }
}

fn change(source: &str, high: u64) -> Event {
    let key = serde_json::json!({ "id": high });
    Event {
        id: format!("{}/t", checkpoint(source, high)),
        source: "/test/t".into(),
        topic: "t".into(),
        subject: Some(key.to_string()),
        at_ms: 1_790_000_000_123,
        tx: Some("x".into()),
        xid: Some(7),
        body: Body::Change {
            checkpoint: checkpoint(source, high),
            data: ChangeData {
                key: Some(rowcast::event::raw(&key)),
                row: Some(rowcast::event::raw(&key)),
                ..ChangeData::whole(Op::Update)
            },
        },
    }
}

/// The changes `first..=last` of a source, read up to `last`.
fn changes(source: &str, first: u64, last: u64) -> Batch {
    Batch {
        events: (first..=last).map(|high| change(source, high)).collect(),
        checkpoint: Some(checkpoint(source, last)),
        marks: Vec::new(),
        more: false,
    }
}

/// A part of a transaction: the changes `first..=last`, and there are more.
fn part(source: &str, first: u64, last: u64) -> Batch {
    Batch {
        more: true,
        ..changes(source, first, last)
    }
}

/// A source read further without an event.
fn progress(source: &str, upto: u64) -> Batch {
    Batch {
        checkpoint: Some(checkpoint(source, upto)),
        ..Batch::default()
    }
}

fn application(id: &str, data: &str) -> Batch {
    let text = serde_json::json!({ "type": "t", "id": id, "data": data }).to_string();
    let event = Event::from_application(&text, String::new(), 1_790_000_000_000).unwrap();
    Batch {
        events: vec![event],
        checkpoint: None,
        marks: Vec::new(),
        more: false,
    }
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    let events = deliveries.iter().filter_map(|d| d.event.as_ref());
    events.map(|event| event.id.clone()).collect()
}

/// The event offsets, counted from the bus's beginning: a bus may have records of its own.
fn offsets(deliveries: &[Delivery], start: &Position) -> Vec<u64> {
    let events = deliveries.iter().filter(|d| d.event.is_some());
    events.map(|d| d.position.offset - start.offset).collect()
}

async fn everything(bus: &impl Bus) -> Vec<Delivery> {
    let head = bus.head().await.unwrap();
    let start = head.position.at(head.first - 1);
    bus.read(start, usize::MAX).await.unwrap()
}

/// The next chunk that is no error.
async fn next(chunks: &mut (impl Stream<Item = Result<Chunk, ReadError>> + Unpin)) -> Chunk {
    let chunk = in_time("a chunk", chunks.next()).await;
    chunk.expect("a subscription has no end").unwrap()
}

/// Deliveries until there are `count` of them.
async fn follow(
    chunks: &mut (impl Stream<Item = Result<Chunk, ReadError>> + Unpin),
    count: usize,
) -> Vec<Delivery> {
    let mut found = Vec::new();
    while found.len() < count {
        let chunk = next(chunks).await;
        found.extend(chunk.deliveries.into_iter().filter(|d| d.event.is_some()));
    }
    found
}

// === the contract ===

async fn a_fresh_bus_stands_before_its_first_event<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let head = bus.head().await.unwrap();
    assert_eq!(head.first, head.position.offset + 1);
    assert_eq!(head.checkpoint, None);
    assert!(bus.read(head.position, 10).await.unwrap().is_empty());
}

async fn offsets_grow_by_one_and_every_reader_sees_the_same_order<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let mut chunks = bus.subscribe(start.clone());
    let writers = (0..4).map(|writer| {
        let bus = bus.clone();
        async move {
            for n in 0..20 {
                let batch = application(&format!("{writer}-{n}"), "x");
                bus.publish(batch).await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let followed = follow(&mut chunks, 80).await;
    assert_eq!(offsets(&followed, &start), (1..=80).collect::<Vec<_>>());
    let read = bus.read(start, usize::MAX).await.unwrap();
    assert_eq!(ids(&read), ids(&followed));
    // What one writer published one after another stands in that order.
    let of_one: Vec<_> = ids(&read)
        .into_iter()
        .filter(|id| id.starts_with("2-"))
        .collect();
    assert_eq!(
        of_one,
        (0..20).map(|n| format!("2-{n}")).collect::<Vec<_>>()
    );
}

async fn an_event_comes_back_as_it_was_published<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let batch = changes("s", 1, 2);
    let texts: Vec<String> = batch.events.iter().map(Event::to_json).collect();
    let published = bus.publish(batch).await.unwrap();
    assert_eq!(published.position, start.at(start.offset + 2));
    assert_eq!(published.stored, 2);
    let read = everything(&bus).await;
    let back: Vec<String> = read
        .iter()
        .map(|d| d.event.as_ref().unwrap().to_json())
        .collect();
    assert_eq!(back, texts);
    assert_eq!(
        read[1].event.as_ref().unwrap().checkpoint(),
        Some(&checkpoint("s", 2))
    );
}

async fn a_batch_is_contiguous_whoever_else_publishes<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let publish = |n: u64| {
        let bus = bus.clone();
        let mut batch = Batch::default();
        for part in 0..5 {
            let one = application(&format!("{n}.{part}"), "x");
            batch.events.extend(one.events);
        }
        async move { bus.publish(batch).await.unwrap() }
    };
    futures_util::future::join_all((0..16).map(publish)).await;
    let read = ids(&everything(&bus).await);
    for batch in read.chunks(5) {
        let (name, _) = batch[0].split_once('.').unwrap();
        let whole: Vec<String> = (0..5).map(|part| format!("{name}.{part}")).collect();
        assert_eq!(batch, whole);
    }
}

async fn a_batch_with_an_event_that_is_too_large_stores_nothing<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let mut batch = changes("s", 1, 2);
    let huge = application("huge", &"x".repeat(MAX_EVENT_BYTES));
    batch.events.extend(huge.events);
    // Beside others that wait at the same time.
    let (before, refused, after) = tokio::join!(
        bus.publish(application("a", "x")),
        bus.publish(batch),
        bus.publish(application("b", "x")),
    );
    assert!(matches!(refused, Err(PublishError::TooLarge { bytes }) if bytes > MAX_EVENT_BYTES));
    assert!(before.is_ok() && after.is_ok());
    let mut stored = ids(&everything(&bus).await);
    stored.sort();
    assert_eq!(stored, ["a", "b"]);
    assert_eq!(bus.head().await.unwrap().checkpoint, None);
}

async fn a_batch_whose_checkpoint_is_not_after_the_stored_one_stores_nothing<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let first = bus.publish(changes("s", 1, 5)).await.unwrap();
    for again in [changes("s", 1, 5), changes("s", 4, 5), changes("s", 2, 3)] {
        let published = bus.publish(again).await.unwrap();
        assert_eq!(
            (published.stored, &published.position),
            (0, &first.position)
        );
    }
    let more = bus.publish(changes("s", 6, 6)).await.unwrap();
    let next = first.position.at(first.position.offset + 1);
    assert_eq!((more.stored, more.position), (1, next));
    // Of a batch that goes on, what is stored is left out.
    assert_eq!(bus.publish(changes("s", 5, 6)).await.unwrap().stored, 0);
    assert_eq!(everything(&bus).await.len(), 6);
}

async fn an_applications_id_is_stored_once<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let first = bus.publish(application("a", "1")).await.unwrap();
    bus.publish(application("b", "2")).await.unwrap();
    let again = bus.publish(application("a", "3")).await.unwrap();
    assert_eq!((again.stored, again.position), (0, first.position));
    let twice = Batch {
        events: [application("c", "4").events, application("c", "5").events].concat(),
        checkpoint: None,
        marks: Vec::new(),
        more: false,
    };
    assert_eq!(bus.publish(twice).await.unwrap().stored, 1);
    assert_eq!(ids(&everything(&bus).await), ["a", "b", "c"]);
}

async fn a_position_is_known_by_the_message_there<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    bus.publish(changes("s", 1, 3)).await.unwrap();
    let stored = bus.publish(application("a b", "1")).await.unwrap().position;
    let again = bus.publish(application("a b", "2")).await.unwrap().position;
    assert_eq!((stored.check, &stored), (again.check, &again));
    let read = everything(&bus).await;
    let last = read.last().unwrap().position.clone();
    assert_eq!((last.check, &last), (stored.check, &stored));
    let mut chunks = bus.subscribe(read[0].position.clone());
    let followed = follow(&mut chunks, 3).await;
    let tail = &read[read.len() - 3..];
    for (one, other) in followed.iter().zip(tail) {
        assert!(one.position.check.is_some());
        assert_eq!(one.position.check, other.position.check, "for every reader");
    }
    for delivery in &read {
        let mut other = read.iter().map(|d| d.position.check);
        let other = other.find(|check| *check != delivery.position.check);
        let position = delivery.position.clone().checked(other.unwrap());
        let refused = bus.read(position.clone(), 10).await;
        assert!(matches!(refused, Err(ReadError::Mismatch)), "{refused:?}");
        let mut chunks = bus.subscribe(position);
        let told = in_time("to be told", chunks.next()).await.unwrap();
        assert!(matches!(told, Err(ReadError::Mismatch)), "{told:?}");
        let unverified = delivery.position.clone().checked(None);
        assert!(bus.read(unverified, 10).await.is_ok());
    }
}

async fn another_source_begins_another_epoch<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let old = bus.publish(changes("s", 1, 5)).await.unwrap().position;
    let new = bus.publish(changes("other", 1, 2)).await.unwrap().position;
    assert_ne!(old.epoch, new.epoch);
    let head = bus.head().await.unwrap();
    assert_eq!((&head.position, head.first), (&new, new.offset - 1));
    assert_eq!(head.checkpoint, Some(checkpoint("other", 2)));
    let refused = bus.read(old, 10).await;
    assert!(matches!(refused, Err(ReadError::Epoch)), "{refused:?}");
    assert_eq!(everything(&bus).await.len(), 2);
}

async fn what_was_published_survives<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    bus.publish(changes("s", 1, 3)).await.unwrap();
    bus.publish(application("a", "1")).await.unwrap();
    let (head, before) = (bus.head().await.unwrap(), ids(&everything(&bus).await));
    drop(bus);
    let bus = home.open().await;
    let again = bus.head().await.unwrap();
    assert_eq!(again.position.epoch, head.position.epoch);
    assert_eq!(
        (again.first, &again.checkpoint),
        (head.first, &head.checkpoint)
    );
    assert_eq!(ids(&everything(&bus).await), before);
    // So does the memory of what would be stored twice.
    assert_eq!(bus.publish(changes("s", 2, 3)).await.unwrap().stored, 0);
    assert_eq!(bus.publish(application("a", "1")).await.unwrap().stored, 0);
    let next = bus.publish(changes("s", 4, 4)).await.unwrap();
    assert_eq!(next.position, again.position.at(again.position.offset + 1));
}

async fn a_read_is_bounded_and_whole<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let head = bus.publish(changes("s", 1, 10)).await.unwrap().position;
    let third = start.at(start.offset + 3);
    let some = bus.read(third.clone(), 4).await.unwrap();
    assert_eq!(offsets(&some, &start), [4, 5, 6, 7]);
    assert!(bus.read(head.clone(), 4).await.unwrap().is_empty());
    let beyond = bus.read(head.at(head.offset + 1), 4).await;
    assert!(matches!(beyond, Err(ReadError::Ahead)), "{beyond:?}");
    // To drop a read consumes nothing.
    for _ in 0..10 {
        let read = bus.read(third.clone(), 4);
        tokio::select! { biased; _ = read => {}, () = std::future::ready(()) => {} }
    }
    assert_eq!(ids(&bus.read(third, 4).await.unwrap()), ids(&some));
}

async fn what_was_trimmed_is_refused_and_never_shortened<H: Home>() {
    let home = H::new(200_000);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let trimmed = async {
        for count in 0.. {
            let batch = application(&count.to_string(), &"x".repeat(20_000));
            bus.publish(batch).await.unwrap();
            // A producer that lives says so; a bus may forget one that is long silent.
            bus.publish(progress("s", count + 1)).await.unwrap();
            let head = bus.head().await.unwrap();
            if head.first > start.offset + 1 {
                return head.first;
            }
        }
        0
    };
    let first = in_time("trimming", trimmed).await;
    let refused = bus.read(start.clone(), usize::MAX).await;
    assert!(matches!(refused, Err(ReadError::Trimmed)), "{refused:?}");
    let refused = bus.read(start.at(first - 2), usize::MAX).await;
    assert!(matches!(refused, Err(ReadError::Trimmed)), "{refused:?}");
    let kept = bus.read(start.at(first - 1), usize::MAX).await.unwrap();
    assert_eq!(kept[0].position.offset, first);
    let head = bus.head().await.unwrap().position;
    assert_eq!(kept.last().unwrap().position, head);
    let mut chunks = bus.subscribe(start);
    let told = in_time("a refusal", chunks.next()).await.unwrap();
    assert!(matches!(told, Err(ReadError::Trimmed)), "{told:?}");
}

async fn a_subscription_follows_from_just_after_its_position_for_ever<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let head = bus.publish(changes("s", 1, 5)).await.unwrap().position;
    let mut chunks = bus.subscribe(head.at(head.offset - 3));
    let found = follow(&mut chunks, 3).await;
    assert_eq!(found[0].position, head.at(head.offset - 2));
    for high in 6..30 {
        bus.publish(changes("s", high, high)).await.unwrap();
        let found = follow(&mut chunks, 1).await;
        assert_eq!(found[0].position, head.at(head.offset + high - 5));
    }
}

async fn a_mark_is_answered_with_the_place_of_what_was_published_before_it<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let mut answers = bus.marks();
    let head = bus.publish(changes("s", 1, 5)).await.unwrap().position;
    // An answer is for who listens: it is asked for until it is heard.
    let mut asked = 0;
    let heard = loop {
        asked += 1;
        assert!(bus.answer(&[format!("one-{asked}").into()]).await);
        let heard = tokio::time::timeout(Duration::from_millis(100), answers.next());
        if let Ok(heard) = heard.await {
            break heard.unwrap();
        }
    };
    assert!(heard.0.starts_with("one-"), "{heard:?}");
    assert_eq!(heard.1, head);
    let mut batch = changes("s", 6, 7);
    batch.marks = vec!["two".into()];
    let head = bus.publish(batch).await.unwrap().position;
    let heard = in_time("the answer", async {
        loop {
            let heard = answers.next().await.unwrap();
            if &*heard.0 == "two" {
                break heard;
            }
        }
    });
    assert_eq!(heard.await.1, head);
}

async fn a_chunk_that_reaches_the_head_says_how_far_the_source_has_come<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let head = bus.publish(changes("s", 1, 3)).await.unwrap().position;
    let mut chunks = bus.subscribe(head.at(head.offset - 3));
    let mut deliveries = 0;
    let told = loop {
        let chunk = next(&mut chunks).await;
        deliveries += chunk.deliveries.len();
        if let Some(head) = chunk.head {
            break head;
        }
    };
    assert_eq!(deliveries, 3);
    assert_eq!(told.position, head);
    assert_eq!(told.checkpoint, Some(checkpoint("s", 3)));
    // A stretch of the source that concerned no topic is progress, too.
    bus.publish(progress("s", 9)).await.unwrap();
    loop {
        let chunk = next(&mut chunks).await;
        assert!(chunk.deliveries.iter().all(|d| d.event.is_none()));
        if chunk.head.and_then(|head| head.checkpoint) == Some(checkpoint("s", 9)) {
            return;
        }
    }
}

async fn a_subscription_from_another_epoch_begins_with_the_first_event<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let old = bus.publish(changes("s", 1, 5)).await.unwrap().position;
    let mut live = bus.subscribe(old.clone());
    next(&mut live).await;
    let new = bus.publish(changes("other", 1, 2)).await.unwrap().position;
    for chunks in [&mut live, &mut bus.subscribe(old)] {
        let found = follow(chunks, 2).await;
        assert_eq!(found[0].position, new.at(new.offset - 1));
        assert_eq!(found[1].position, new);
    }
}

async fn an_error_is_not_the_end_of_a_subscription<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let head = bus.publish(changes("s", 1, 1)).await.unwrap().position;
    let mut chunks = bus.subscribe(head.at(head.offset + 2));
    let told = in_time("a refusal", chunks.next()).await.unwrap();
    assert!(matches!(told, Err(ReadError::Ahead)), "{told:?}");
    bus.publish(changes("s", 2, 5)).await.unwrap();
    let found = loop {
        if let Ok(chunk) = in_time("a chunk", chunks.next()).await.unwrap() {
            break chunk.deliveries;
        }
    };
    assert_eq!(found[0].position, head.at(head.offset + 3));
}

async fn to_drop_a_poll_of_a_subscription_loses_nothing<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let mut chunks = bus.subscribe(start.clone());
    let mut found = Vec::new();
    for high in 1..=40 {
        bus.publish(changes("s", high, high)).await.unwrap();
        tokio::select! {
            biased;
            chunk = chunks.next() => found.extend(chunk.unwrap().unwrap().deliveries),
            () = tokio::task::yield_now() => {}
        }
    }
    let missing = 40 - found.len();
    found.extend(follow(&mut chunks, missing).await);
    assert_eq!(offsets(&found, &start), (1..=40).collect::<Vec<_>>());
}

async fn parts_are_seen_when_the_last_one_is_stored<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let mut chunks = bus.subscribe(start);
    bus.publish(part("s", 1, 3)).await.unwrap();
    bus.publish(application("a", "x")).await.unwrap();
    let unseen = |ids: Vec<String>| ids.iter().all(|id| id == "a");
    assert!(unseen(ids(&everything(&bus).await)));
    assert_eq!(bus.head().await.unwrap().checkpoint, None);
    // It goes on where it was, also after a restart.
    drop(chunks);
    drop(bus);
    let bus = home.open().await;
    assert_eq!(bus.claim().await.unwrap(), Some(checkpoint("s", 3)));
    let head = bus.head().await.unwrap();
    assert!(unseen(ids(&everything(&bus).await)));
    chunks = bus.subscribe(head.position.at(head.first - 1));
    assert_eq!(bus.publish(part("s", 2, 3)).await.unwrap().stored, 0);
    bus.publish(part("s", 3, 4)).await.unwrap();
    bus.publish(application("b", "x")).await.unwrap();
    assert!(
        ids(&everything(&bus).await)
            .iter()
            .all(|id| id == "a" || id == "b")
    );
    bus.publish(changes("s", 5, 5)).await.unwrap();
    let read = everything(&bus).await;
    let is_change = |id: &String| id.contains('/');
    let told: Vec<String> = ids(&read).into_iter().filter(is_change).collect();
    let whole: Vec<String> = (1..=5).map(|high| change("s", high).id).collect();
    assert_eq!(told, whole);
    assert_eq!(ids(&follow(&mut chunks, 7).await), ids(&read));
    let head = bus.head().await.unwrap();
    assert_eq!(head.checkpoint, Some(checkpoint("s", 5)));
}

async fn a_new_epoch_abandons_an_open_part<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.publish(changes("s", 1, 1)).await.unwrap().position;
    let mut chunks = bus.subscribe(start);
    bus.publish(part("s", 2, 3)).await.unwrap();
    bus.publish(changes("other", 1, 2)).await.unwrap();
    let whole = vec![change("other", 1).id, change("other", 2).id];
    assert_eq!(ids(&everything(&bus).await), whole);
    assert_eq!(ids(&follow(&mut chunks, 2).await), whole);
}

async fn a_large_transaction_is_whole<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    let start = bus.head().await.unwrap().position;
    let mut chunks = bus.subscribe(start.clone());
    bus.publish(part("s", 1, 2500)).await.unwrap();
    bus.publish(changes("s", 2501, 5000)).await.unwrap();
    let found = follow(&mut chunks, 5000).await;
    let whole: Vec<String> = (1..=5000).map(|high| change("s", high).id).collect();
    assert_eq!(ids(&found), whole);
    assert_eq!(ids(&bus.read(start, usize::MAX).await.unwrap()), whole);
}

async fn what_is_stored_of_a_batch_is_left_out<H: Home>() {
    let home = H::new(ROOM);
    let bus = home.open().await;
    bus.publish(changes("s", 1, 5)).await.unwrap();
    assert_eq!(bus.publish(changes("s", 4, 7)).await.unwrap().stored, 2);
    let whole: Vec<String> = (1..=7).map(|high| change("s", high).id).collect();
    assert_eq!(ids(&everything(&bus).await), whole);
}

macro_rules! contract {
    ($backend:ident, $home:ty) => {
        mod $backend {
            use super::*;
            contract!($home:
                a_fresh_bus_stands_before_its_first_event
                offsets_grow_by_one_and_every_reader_sees_the_same_order
                an_event_comes_back_as_it_was_published
                a_batch_is_contiguous_whoever_else_publishes
                a_batch_with_an_event_that_is_too_large_stores_nothing
                a_batch_whose_checkpoint_is_not_after_the_stored_one_stores_nothing
                an_applications_id_is_stored_once
                a_position_is_known_by_the_message_there
                another_source_begins_another_epoch
                what_was_published_survives
                a_read_is_bounded_and_whole
                what_was_trimmed_is_refused_and_never_shortened
                a_subscription_follows_from_just_after_its_position_for_ever
                a_mark_is_answered_with_the_place_of_what_was_published_before_it
                a_chunk_that_reaches_the_head_says_how_far_the_source_has_come
                a_subscription_from_another_epoch_begins_with_the_first_event
                an_error_is_not_the_end_of_a_subscription
                to_drop_a_poll_of_a_subscription_loses_nothing
                parts_are_seen_when_the_last_one_is_stored
                a_new_epoch_abandons_an_open_part
                a_large_transaction_is_whole
                what_is_stored_of_a_batch_is_left_out
            );
        }
    };
    ($home:ty: $($promise:ident)*) => {
        $(#[tokio::test] async fn $promise() { super::$promise::<$home>().await })*
    };
}

contract!(embedded, Embedded);
contract!(jetstream, JetStream);

// === the bus on JetStream ===

struct JetStream {
    nats: Nats,
    max_bytes: u64,
}

impl Home for JetStream {
    type Bus = JetStreamBus;

    fn new(max_bytes: u64) -> Self {
        let nats = Nats::start();
        Self { nats, max_bytes }
    }

    async fn open(&self) -> JetStreamBus {
        let config = JetStreamConfig {
            servers: self.nats.url(),
            max_bytes: self.max_bytes,
            ..JetStreamConfig::default()
        };
        let bus = JetStreamBus::connect(config, Role::Producer).await.unwrap();
        // To connect does not wait for a connection.
        wait_until("a claim", || async { bus.claim().await.ok() }).await;
        bus
    }
}

// === the embedded bus ===

struct Embedded {
    folder: Arc<tempfile::TempDir>,
    max_bytes: u64,
}

impl Embedded {
    fn config(&self) -> EmbeddedBusConfig {
        EmbeddedBusConfig {
            path: self.folder.path().join("care.db-bus"),
            keep: std::time::Duration::from_secs(3600),
            max_bytes: self.max_bytes,
        }
    }
}

impl Home for Embedded {
    type Bus = EmbeddedBus;

    fn new(max_bytes: u64) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self { folder, max_bytes }
    }

    async fn open(&self) -> EmbeddedBus {
        EmbeddedBus::open(&self.config()).unwrap()
    }
}

#[tokio::test]
async fn a_second_process_is_told_that_the_file_is_taken() {
    let home = Embedded::new(ROOM);
    let bus = home.open().await;
    let second = EmbeddedBus::open(&home.config());
    let text = second.unwrap_err().to_string();
    assert!(text.contains("another rowcast"), "{text}");
    drop(bus);
    home.open().await;
}

#[tokio::test]
async fn a_file_of_before_there_were_parts_opens() {
    let home = Embedded::new(ROOM);
    let bus = home.open().await;
    bus.publish(changes("s", 1, 2)).await.unwrap();
    drop(bus);
    let path = home.config().path;
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("DROP TABLE part").unwrap();
    drop(conn);
    let cut = rowcast::bus::embedded::cut(&path, &checkpoint("s", 2));
    assert!(cut.is_some_and(|cut| cut.offset == 2));
    let bus = home.open().await;
    bus.publish(part("s", 3, 3)).await.unwrap();
    bus.publish(changes("s", 4, 4)).await.unwrap();
    assert_eq!(everything(&bus).await.len(), 4);
}

#[tokio::test]
async fn who_only_looks_finds_the_place_of_a_read() {
    let home = Embedded::new(ROOM);
    let bus = home.open().await;
    let head = bus.publish(changes("s", 1, 4)).await.unwrap().position;
    bus.publish(application("a", "x")).await.unwrap();
    let cut = |high| -> Option<Position> {
        rowcast::bus::embedded::cut(&home.config().path, &checkpoint("s", high))
    };
    assert_eq!(cut(0), Some(head.at(0)));
    assert_eq!(cut(2), Some(head.at(2)));
    // Events of applications after the last change a read saw do not concern it.
    assert_eq!(cut(4), Some(head.at(5)));
    assert_eq!(cut(5), None);
}
