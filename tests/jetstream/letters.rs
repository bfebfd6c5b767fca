//! Dead letters of what is strange in itself: a subject that no header can carry, and letters that are none, as whoever
//! shares the gateways' account may leave them.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use rowcast::bus::{Bus, DeadLetter, jetstream::Role};

use super::{
    changes,
    headers::{ENDS, LIES, NONE, bus, connections},
    publish,
};
use crate::{
    accounts::wire::Wire,
    support::{Nats, nats::shipped, wait_until},
};

/// NATS lets nearly every byte stand in a subject.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_subject_nonsense_has_it_becomes_one_dead_letter_like_the_others() {
    let nats = Nats::with(shipped());
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let start = publish(&producer, changes(1, 1)).await;
    let reader = bus(&nats, "gateway", Role::Gateway).await;
    let mut chunks = reader.subscribe(start);
    tokio::spawn(async move { while chunks.next().await.is_some() {} });
    let long = format!("rowcast.event.{}", "long".repeat(900));
    let subjects: [(&[u8], &str); 8] = [
        (b"rowcast.event.a\rb", "unknown"),
        (b"rowcast.event.\r", "unknown"),
        (b"rowcast.event.a\x0bb\x01", "unknown"),
        (b"rowcast.event.M\xfcller", "unknown"),
        ("rowcast.event.a\u{2003}b\u{85}".as_bytes(), "unknown"),
        (b"rowcast.event.a.b", "unknown"),
        (long.as_bytes(), "unknown"),
        (b"rowcast.event.t", "t"),
    ];
    // As large as a message may be: a letter has headers as well.
    let body = "x".repeat((1 << 20) - 100);
    let mut application = Wire::open(&nats, "application");
    for (subject, _) in subjects {
        assert_eq!(application.publish_on(subject, &body), None);
    }
    let letters = wait_until("the dead letters", async || {
        let found = reader.dead_letters(20).await.ok()?;
        (found.total == subjects.len() as u64).then_some(found.letters)
    })
    .await;
    let told: BTreeSet<(&str, &str)> = letters
        .iter()
        .map(|letter| (&*letter.topic, &*letter.subject))
        .collect();
    let expected = BTreeSet::from([
        ("unknown", "rowcast.event.a\u{fffd}b"),
        // White space at the end is no part of it.
        ("unknown", "rowcast.event."),
        ("unknown", "rowcast.event.a\u{fffd}b\u{fffd}"),
        ("unknown", "rowcast.event.M\u{fffd}ller"),
        ("unknown", "rowcast.event.a\u{2003}b"),
        ("unknown", "rowcast.event.a.b"),
        ("unknown", &long[..500]),
        ("t", "rowcast.event.t"),
    ]);
    assert_eq!(told, expected);
}

/// Each is read as far as it can be, and nothing above it says where it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_of_which_the_headers_cannot_be_read_is_shown_and_ends_no_connection() {
    let nats = Nats::with(shipped());
    let producer = bus(&nats, "producer", Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let blocks: Vec<&[u8]> = [&LIES[..], &ENDS, &NONE].concat();
    let mut forging = Wire::open(&nats, "gateway");
    for (number, block) in blocks.iter().enumerate() {
        let reason = b"Rowcast-Reason: said so\r\nRowcast-Subject: rowcast.event.t\r\n";
        let body = format!("letter {number}");
        // Below what stands there, where that has an end.
        let above = match block.strip_suffix(b"\r\n\r\n") {
            Some(begun) => [begun, b"\r\n", reason, b"\r\n"].concat(),
            None => block.to_vec(),
        };
        let refused = forging.publish_under("rowcast.dlq.t", &above, &body);
        assert_eq!(refused, None);
    }
    let reader = bus(&nats, "gateway", Role::Gateway).await;
    wait_until("all of them to be stored", async || {
        let found = reader.dead_letters(1).await.ok()?;
        (found.total == blocks.len() as u64).then_some(())
    })
    .await;
    let before = connections(&nats);
    for _ in 0..3 {
        let found = reader.dead_letters(blocks.len() + 1).await.unwrap();
        assert_eq!(found.total, blocks.len() as u64);
        let mut letters: Vec<DeadLetter> = found.letters;
        letters.reverse();
        for (number, letter) in letters.iter().enumerate() {
            assert_eq!(letter.seq, number as u64 + 1);
            assert_eq!(letter.text, format!("letter {number}"));
            assert_eq!(letter.topic, "t");
            assert!(letter.at_ms > 1_780_000_000_000, "{letter:?}");
            let said = ["", "said so"].contains(&&*letter.reason);
            assert!(said, "{letter:?}");
        }
        assert_eq!(letters.len(), blocks.len());
    }
    assert_eq!(connections(&nats), before);
}
