//! Where a read of the database stands among the frames of the ring.

use std::collections::{HashSet, VecDeque};

use super::{Cut, Inner, Place};
use crate::{
    horizon::{Settled, Visible},
    position::Checkpoint,
};

/// Transactions that are remembered after they have left the ring: more than pass while a reply
/// waits for its place.
const REMEMBERED: usize = 32 * 1024;

/// The transactions of frames that have left the ring.
#[derive(Debug)]
pub(super) struct Gone {
    /// The highest of all.
    pub highest: u64,
    /// Those that left last, as many as [`REMEMBERED`].
    left: HashSet<u64>,
    order: VecDeque<u64>,
    /// Transactions from this one on have not been in the stream before the ring's beginning, nor
    /// are they forgotten.
    unknown_below: u64,
}

impl Default for Gone {
    fn default() -> Self {
        Self {
            highest: 0,
            left: HashSet::new(),
            order: VecDeque::new(),
            unknown_below: u64::MAX,
        }
    }
}

impl Gone {
    /// A frame of this transaction leaves.
    pub(super) fn add(&mut self, xid: u64) {
        self.highest = self.highest.max(xid);
        if !self.left.insert(xid) {
            return;
        }
        self.order.push_back(xid);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.left.remove(&oldest);
            if self.unknown_below < u64::MAX {
                self.unknown_below = self.unknown_below.max(oldest + 1);
            }
        }
    }
}

impl Inner {
    /// The place just before the frame of that index.
    pub(super) fn place(&self, index: usize) -> Place {
        let before = index.checked_sub(1).map(|before| &self.frames[before]);
        Place {
            seq: self.base.seq + index as u64,
            position: before
                .map_or(&self.base.position, |entry| &entry.frame.position)
                .clone(),
        }
    }

    pub(super) fn cut_at(&self, horizon: &Checkpoint) -> Cut {
        if !self
            .progress
            .as_ref()
            .is_some_and(|progress| progress.reaches(horizon))
        {
            return Cut::Wait;
        }
        let mut cut = self.frames.len();
        let mut seen = self
            .evicted
            .as_ref()
            .is_none_or(|last| horizon.covers(last));
        for place in self.marked.iter().rev() {
            let index = (place - self.base.seq) as usize;
            let checkpoint = self.frames[index].frame.checkpoint();
            if checkpoint.is_some_and(|checkpoint| horizon.covers(checkpoint)) {
                seen = true;
                break;
            }
            cut = index;
        }
        match seen {
            true => Cut::At(self.place(cut)),
            false => Cut::Fallen,
        }
    }

    /// An event is before the cut if its transaction is visible in the snapshot. One without a
    /// transaction never matters.
    pub(super) fn cut_visible(&mut self, topic: &str, visible: &Visible, settled: &Settled) -> Cut {
        let head = &self.head;
        if settled.position.epoch != head.epoch || settled.position.offset > head.offset {
            return Cut::Wait;
        }
        self.gone.unknown_below = match self.gone.unknown_below {
            u64::MAX => settled.xid,
            known => known,
        };
        if !self.nothing_hidden_has_left(visible) {
            return Cut::Fallen;
        }
        let mut cut = None;
        let first = self.first_hidden(visible);
        for (index, entry) in (first..).zip(self.frames.range(first..)) {
            let Some(xid) = entry.frame.xid().filter(|_| *entry.frame.topic == *topic) else {
                continue;
            };
            match (visible.sees(xid), cut) {
                (false, None) => cut = Some(index),
                // Seen is what stands behind what is not.
                (true, Some(_)) => return Cut::Fallen,
                _ => {}
            }
        }
        Cut::At(self.place(cut.unwrap_or(self.frames.len())))
    }

    /// The index of the first frame of a transaction that the read did not see. Found without a
    /// look at all frames: the oldest transaction may have been running for hours.
    fn first_hidden(&self, visible: &Visible) -> usize {
        let later = self
            .frames
            .partition_point(|entry| entry.highest < visible.xmax);
        let running = visible.running.iter().filter_map(|xid| self.begun.get(xid));
        let index = |seq: &u64| usize::try_from(seq - self.base.seq).unwrap_or(later);
        running.map(index).fold(later, usize::min)
    }

    /// Whether the read saw all that has left the ring. What ran while it read may have come and
    /// left since, or its beginning may have.
    ///
    /// Of what left longer ago than is remembered, a commit is in the stream before it is visible
    /// only where commits wait for standbys; else that is a matter of microseconds.
    fn nothing_hidden_has_left(&self, visible: &Visible) -> bool {
        let front = self.frames.front();
        if front.is_some_and(|entry| entry.highest < visible.xmin) {
            return true;
        }
        let forgotten = |xid| visible.awaits_standbys && xid < self.gone.unknown_below;
        let suspect = |xid| {
            self.gone.left.contains(&xid) || (forgotten(xid) && !self.begun.contains_key(&xid))
        };
        self.gone.highest < visible.xmax && !visible.running.iter().copied().any(suspect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::FrameKind;
    use crate::{
        horizon::Horizon,
        position::{Epoch, Position},
        ring::{Frame, Ring},
    };

    fn at(offset: u64) -> Position {
        Position::new(Epoch::parse("e").unwrap(), offset)
    }

    fn frame(offset: u64, topic: &str, xid: Option<u64>) -> Frame {
        Frame {
            topic: topic.into(),
            position: at(offset),
            text: Some("{}".to_owned().into()),
            kind: FrameKind::Event {
                checkpoint: None,
                xid,
            },
            change: None,
        }
    }

    /// A ring with changes of topic `t`, unless `u`, of these transactions.
    fn ring(max_bytes: usize, xids: &[(u64, &str)]) -> Ring {
        let ring = Ring::new(at(0), max_bytes);
        let frames = (1..)
            .zip(xids)
            .map(|(n, (xid, topic))| frame(n, topic, Some(*xid)));
        ring.append(frames.collect(), None);
        ring
    }

    fn cut(ring: &Ring, snapshot: &str, (settled, standbys): (u64, bool)) -> Option<u64> {
        let visible = Visible {
            awaits_standbys: standbys,
            ..snapshot.parse().unwrap()
        };
        let settled = Settled {
            position: at(settled),
            xid: 1000,
        };
        match ring.cut("t", &Horizon::Visible(visible.into()), Some(&settled)) {
            Cut::At(place) => Some(place.position.offset),
            Cut::Fallen => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_snapshot_stands_before_the_first_change_that_it_does_not_see() {
        let ring = ring(1 << 20, &[(5, "t"), (7, "t"), (6, "u"), (9, "t")]);
        assert_eq!(cut(&ring, "10:10:", (4, true)), Some(4));
        assert_eq!(cut(&ring, "9:9:", (4, true)), Some(3));
        // What another topic's change says is of no account.
        assert_eq!(cut(&ring, "6:8:6", (4, true)), Some(3));
        assert_eq!(cut(&ring, "7:10:7,9", (4, true)), Some(1));
        // 9 is seen and stands behind 7, which is not.
        assert_eq!(cut(&ring, "7:10:7", (4, true)), None);
    }

    #[test]
    fn a_snapshot_waits_until_the_stream_has_come_past_it() {
        let ring = ring(1 << 20, &[(5, "t")]);
        let visible = Horizon::Visible(std::sync::Arc::new("6:6:".parse().unwrap()));
        assert_eq!(ring.cut("t", &visible, None), Cut::Unknown);
        let settled = Settled {
            position: at(2),
            xid: 6,
        };
        assert_eq!(ring.cut("t", &visible, Some(&settled)), Cut::Wait);
        ring.append(vec![frame(2, "t", None)], None);
        assert!(matches!(
            ring.cut("t", &visible, Some(&settled)),
            Cut::At(_)
        ));
    }

    #[test]
    fn what_left_the_ring_and_may_be_unseen_is_read_again() {
        // Two frames fit; those of 5, 6 and 7 have left.
        let ring = ring(2 * 98, &[(5, "t"), (6, "t"), (7, "t"), (8, "t"), (9, "t")]);
        assert_eq!(cut(&ring, "10:10:", (5, true)), Some(5));
        assert_eq!(
            cut(&ring, "7:7:", (5, true)),
            None,
            "7 has left and is not seen"
        );
        // 6 ran while this was read, and has left since.
        for standbys in [true, false] {
            assert_eq!(cut(&ring, "6:10:6", (5, standbys)), None);
        }
        // 4 runs for long, and was not in the stream since the ring began.
        assert_eq!(cut(&ring, "4:10:4", (5, false)), Some(5));
        // Before that, it may have been, and wait for a standby.
        assert_eq!(cut(&ring, "4:10:4", (5, true)), None);
    }

    #[test]
    fn a_transaction_whose_beginning_has_left_the_ring_is_read_again() {
        let ring = ring(2 * 98, &[(5, "t"), (8, "t"), (8, "t"), (8, "t")]);
        for standbys in [true, false] {
            assert_eq!(cut(&ring, "8:10:8", (4, standbys)), None, "{standbys}");
        }
        assert_eq!(cut(&ring, "10:10:", (4, true)), Some(4));
    }

    #[test]
    fn what_runs_for_long_is_no_reason_to_read_again() {
        let ring = ring(2 * 98, &[(5, "t"), (6, "t")]);
        let mark = (2, true);
        assert_eq!(cut(&ring, "1001:1001:", mark), Some(2));
        // It began behind the first mark, and others come and go.
        let frames = (3..50).map(|n| frame(n, "t", Some(2000 + n)));
        ring.append(frames.collect(), None);
        assert_eq!(cut(&ring, "1500:3000:1500", (49, true)), Some(49));
    }

    /// What a look at every frame says.
    fn model(frames: &[(u64, &str)], visible: &Visible) -> Option<u64> {
        let mut of_t = (0..).zip(frames).filter(|(_, (_, topic))| *topic == "t");
        let hidden = |place: &(u64, &(u64, &str))| !visible.sees(place.1.0);
        let Some((cut, _)) = of_t.find(hidden) else {
            return Some(frames.len() as u64);
        };
        of_t.all(|place| hidden(&place)).then_some(cut)
    }

    #[test]
    fn the_place_is_that_which_a_look_at_every_frame_finds() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33) % below
        };
        for _ in 0..2000 {
            let count = random(12);
            let frames: Vec<(u64, &str)> = (0..count)
                .map(|_| (10 + random(8), if random(3) > 0 { "t" } else { "u" }))
                .collect();
            let (xmin, more) = (10 + random(8), random(6));
            let running: Vec<String> = (xmin..xmin + more)
                .filter(|xid| *xid == xmin || random(2) == 0)
                .map(|xid| xid.to_string())
                .collect();
            let snapshot = format!("{xmin}:{}:{}", xmin + more, running.join(","));
            let found = cut(&ring(1 << 20, &frames), &snapshot, (count, false));
            let expected = model(&frames, &snapshot.parse().unwrap());
            assert_eq!(found, expected, "{snapshot} {frames:?}");
        }
    }
}
