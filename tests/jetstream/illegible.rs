//! Events that the client of NATS cannot read: they hold nobody up, however many there are and whoever reads past them.

use futures_util::StreamExt;
use rowcast::bus::{Bus, jetstream::Role};

use super::{
    changes,
    headers::{BY_CHANCE, NONE, bus, connections, followed, read, told as told_of},
    publish,
};
use crate::{
    accounts::wire::Wire,
    support::{Nats, in_time, wait_until},
};

/// An event of that number, which each of these may be.
fn numbered(number: usize) -> String {
    format!("{{\"type\":\"t\",\"data\":{number}}}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_back_is_sent_what_stands_behind_what_is_no_header() {
    // More than are read one by one without one of these.
    const PLAIN: usize = 70;
    let nats = Nats::start();
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let mut application = Wire::open(&nats, "application");
    let mut expected = Vec::new();
    for block in NONE {
        // A subject that is no text, either: of this nothing is told.
        assert_eq!(application.publish_on(b"rowcast.event.t\xff", "{}"), None);
        let plain = std::iter::repeat_n(&b"NATS/1.0\r\n\r\n"[..], PLAIN);
        for above in plain.chain([block]) {
            let event = numbered(expected.len());
            let refused = application.publish_under("rowcast.event.t", above, &event);
            assert_eq!(refused, None);
            expected.push(expected.len().to_string());
        }
    }
    publish(&producer, changes(2, 2)).await;
    expected.push("change 2".into());
    for blocks in [0, 1, 2, 5] {
        let late = bus(&nats, "gateway", Role::Gateway).await;
        wait_until("a head", async || late.head().await.ok()).await;
        let before = connections(&nats);
        let told = blocks * (PLAIN + 1);
        let from = start.offset + u64::try_from(told + blocks).unwrap();
        let place = match blocks {
            0 => start.clone(),
            _ => start.at(from),
        };
        let all = read(&late, place, "change 2").await;
        let texts: Vec<&str> = all.iter().map(|(_, told)| &**told).collect();
        assert_eq!(texts, expected[told..]);
        // The client comes upon one of them, and the others are read by themselves.
        let ends = connections(&nats) - before;
        assert!(
            ends <= 1 + BY_CHANCE,
            "{ends} connections were lost behind {blocks}"
        );
    }
}

/// This one passes for headers everywhere else, but the server writes over its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_in_the_way_of_one_replay_is_not_in_that_of_the_next() {
    let nats = Nats::start();
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let mut application = Wire::open(&nats, "application");
    for (number, above) in [&b"NATS/1.0\r\n\r\n"[..], b"NATS/1.0 404"]
        .iter()
        .enumerate()
    {
        let refused = application.publish_under("rowcast.event.t", above, &numbered(number));
        assert_eq!(refused, None);
    }
    publish(&producer, changes(2, 2)).await;
    let late = bus(&nats, "gateway", Role::Gateway).await;
    wait_until("a head", async || late.head().await.ok()).await;
    let first = read(&late, start.clone(), "change 2").await;
    assert_eq!(first.len(), 3);
    let before = connections(&nats);
    for _ in 0..6 {
        assert_eq!(read(&late, start.clone(), "change 2").await, first);
    }
    let ends = connections(&nats) - before;
    assert!(ends <= BY_CHANCE, "{ends} connections were lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subject_that_the_client_cannot_read_stops_no_reader() {
    let nats = Nats::start();
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let live = bus(&nats, "gateway", Role::Gateway).await;
    let live = tokio::spawn({
        let start = start.clone();
        async move { followed(&live, start, "change 2").await }
    });
    let mut application = Wire::open(&nats, "application");
    let mut texts = Vec::new();
    for subject in [&b"t"[..], b"t\xff", b"t", b"t\xc2\xa0x", b"t"] {
        let event = numbered(texts.len());
        let subject_of = [b"rowcast.event.", subject].concat();
        assert_eq!(application.publish_on(&subject_of, &event), None);
        if subject == b"t" {
            texts.push(event);
        }
    }
    publish(&producer, changes(2, 2)).await;
    let late = bus(&nats, "gateway", Role::Gateway).await;
    let live = live.await.unwrap();
    let told: Vec<&str> = live.iter().map(|(_, told)| &**told).collect();
    assert_eq!(told, ["0", "1", "2", "change 2"]);
    let places: Vec<u64> = live
        .iter()
        .map(|(place, _)| place.offset - start.offset)
        .collect();
    assert_eq!(places, [1, 3, 5, 6]);
    assert_eq!(read(&late, start, "change 2").await, live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_are_no_headers_few_connections_are_lost_and_none_is_late() {
    let nats = Nats::start();
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let follower = bus(&nats, "gateway", Role::Gateway).await;
    wait_until("a head", async || follower.head().await.ok()).await;
    let mut chunks = follower.subscribe(start);
    let mut application = Wire::open(&nats, "application");
    let before = connections(&nats);
    let mut told = 0;
    // One after another, and more at once than are read in one go.
    for upto in (1..40).chain([740]) {
        for number in told..upto {
            let above = NONE[NONE.len() - 1 - number % 2 * 3];
            let event = numbered(number);
            let refused = application.publish_under("rowcast.event.t", above, &event);
            assert_eq!(refused, None);
        }
        while told < upto {
            let Ok(chunk) = in_time("a chunk", chunks.next()).await.unwrap() else {
                continue;
            };
            for event in chunk.deliveries.iter().filter_map(|d| d.event.as_ref()) {
                assert_eq!(told_of(event), told.to_string());
                told += 1;
            }
        }
    }
    let ends = connections(&nats) - before;
    assert!(ends <= 3 + BY_CHANCE, "{ends} connections were lost");
}
