use super::*;
use crate::position::Epoch;

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
