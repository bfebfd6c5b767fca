use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::{
    event::{Body, ChangeData, Delivery, Event, Op, raw},
    position::Epoch,
    predicate::Verdict,
};

fn at(offset: u64) -> Position {
    Position::new(Epoch::parse("e").unwrap(), offset)
}

fn checkpoint(high: u64) -> Checkpoint {
    Checkpoint {
        source: "s".into(),
        high,
        low: 0,
    }
}

fn cut(ring: &Ring, checkpoint: Checkpoint) -> Cut {
    ring.cut("t", &Horizon::Checkpoint(checkpoint), None)
}

fn change(offset: u64, high: u64) -> Frame {
    Frame {
        topic: "t".into(),
        position: at(offset),
        text: Some(Encoded::of(&"x".repeat(100))),
        kind: FrameKind::Event {
            checkpoint: Some(checkpoint(high)),
            xid: None,
        },
        change: None,
    }
}

#[test]
fn a_cursor_is_found_or_told_why_not() {
    let ring = Ring::new(at(10), 3 * change(0, 0).cost());
    ring.append((11..=14).map(|n| change(n, n)).collect(), None);
    assert_eq!(ring.seek(&at(10)), Seek::Behind);
    assert_eq!(
        ring.seek(&at(11)),
        Seek::At(Place {
            seq: 1,
            position: at(11)
        })
    );
    assert_eq!(ring.seek(&at(14)), Seek::At(ring.head()));
    assert_eq!(ring.seek(&at(15)), Seek::Ahead);
    assert_eq!(ring.read(0, u64::MAX, 1000), None);
    assert_eq!(ring.read(1, u64::MAX, 1).unwrap().len(), 1);
    assert_eq!(ring.read(1, 3, 1000).unwrap().len(), 2);
    ring.restart(Position::start_of(Epoch::parse("f").unwrap()));
    assert_eq!(ring.seek(&at(14)), Seek::Epoch);
    assert_eq!(ring.read(4, u64::MAX, 1000), None);
}

#[test]
fn a_read_stands_before_what_it_did_not_see() {
    let ring = Ring::new(at(0), 1 << 20);
    assert_eq!(cut(&ring, checkpoint(0)), Cut::Wait);
    ring.append(
        vec![change(1, 5), change(2, 7), change(3, 9)],
        Some(checkpoint(9)),
    );
    let place = |seq, offset| {
        Cut::At(Place {
            seq,
            position: at(offset),
        })
    };
    assert_eq!(cut(&ring, checkpoint(4)), place(0, 0));
    assert_eq!(cut(&ring, checkpoint(5)), place(1, 1));
    assert_eq!(cut(&ring, checkpoint(8)), place(2, 2));
    assert_eq!(cut(&ring, checkpoint(9)), place(3, 3));
    assert_eq!(cut(&ring, checkpoint(10)), Cut::Wait);
    let other = Checkpoint {
        source: "other".into(),
        ..checkpoint(1)
    };
    assert_eq!(cut(&ring, other), Cut::Wait);
}

#[test]
fn a_read_older_than_the_ring_is_read_again() {
    let ring = Ring::new(at(0), 2 * change(0, 0).cost());
    ring.append((1..=5).map(|n| change(n, n)).collect(), Some(checkpoint(5)));
    assert_eq!(cut(&ring, checkpoint(2)), Cut::Fallen);
    assert_eq!(
        cut(&ring, checkpoint(3)),
        Cut::At(Place {
            seq: 3,
            position: at(3)
        })
    );
}

#[test]
fn whatever_is_made_of_a_frame_counts_for_as_long_as_the_ring_holds_it() {
    let data = ChangeData {
        key: Some(raw(&json!({ "id": 1 }))),
        row: Some(raw(
            &json!({ "id": 1, "name": "n".repeat(300), "secret": "s" }),
        )),
        ..ChangeData::whole(Op::Update)
    };
    let event = Event {
        id: String::new(),
        source: String::new(),
        topic: "t".into(),
        subject: None,
        at_ms: 0,
        tx: None,
        xid: None,
        body: Body::Change {
            checkpoint: "s:1.0".parse().unwrap(),
            data,
        },
    };
    let position = at(1);
    let event = Some(event);
    let ring = Ring::new(at(0), 1 << 20);
    ring.append(vec![Frame::of(&Delivery { position, event })], None);
    let frame = ring.read(0, u64::MAX, 1000).unwrap().remove(0);
    let columns: Arc<[String]> = ["id".to_owned(), "name".to_owned()].into();
    for (verdict, columns) in [
        (Verdict::Insert, None),
        (Verdict::Delete, None),
        (Verdict::Pass, Some(&columns)),
        (Verdict::Insert, Some(&columns)),
    ] {
        let before = ring.size().1;
        let text = frame.form(verdict, columns).unwrap();
        let plain = ring.size().1;
        assert_eq!(plain - before, text.len(), "{verdict:?} {columns:?}");
        let shorter = text.shorter(|_| Some(Bytes::from_static(b"shorter")));
        assert!(shorter.is_some());
        assert_eq!(ring.size().1 - plain, 7, "{verdict:?} {columns:?}");
    }
    drop(frame);
    ring.restart(at(0));
    assert_eq!(ring.size().1, 0);
}
