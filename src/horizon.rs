//! What one read of a database has seen, so that its place in the stream of changes can be found.

use std::{str::FromStr, sync::Arc};

use crate::position::{Checkpoint, Position};

/// What one read saw.
#[derive(Debug, Clone, PartialEq)]
pub enum Horizon {
    /// Everything that the source reports up to this checkpoint, and nothing after it.
    Checkpoint(Checkpoint),
    /// The transactions that a snapshot of PostgreSQL sees. Never an LSN: a commit can be in the
    /// stream before it is visible, and be visible before its LSN is flushed.
    Visible(Arc<Visible>),
}

/// A snapshot of PostgreSQL, by 64-bit transaction ids.
///
/// Follows `pg_current_snapshot()` (PostgreSQL documentation, "Transaction ID and Snapshot
/// Information Functions").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// All transactions below it are visible or rolled back.
    pub xmin: u64,
    /// None from it on is visible.
    pub xmax: u64,
    /// Those between that were running, ascending.
    pub running: Vec<u64>,
    /// Whether the server has commits wait for standbys: then one may be in the stream long before
    /// it is visible. False where nobody has asked.
    pub awaits_standbys: bool,
}

/// How far the stream had to come for all that a snapshot sees to be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// All that was visible when the mark was set stands at or before this position.
    pub position: Position,
    /// The mark's own transaction: every transaction in the stream before it was set is older.
    pub xid: u64,
}

/// The text is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot of PostgreSQL")]
pub struct BadSnapshot;

impl Horizon {
    /// Whether this read saw at least what `other` saw: an answer of it replaces one of that.
    pub fn covers(&self, other: &Horizon) -> bool {
        match (self, other) {
            (Self::Checkpoint(ours), Self::Checkpoint(theirs)) => ours.covers(theirs),
            (Self::Visible(ours), Self::Visible(theirs)) => ours.covers(theirs),
            _ => false,
        }
    }
}

impl Visible {
    /// Whether a transaction that has committed is visible in this snapshot.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Whether all that `other` sees is visible here, too.
    pub fn covers(&self, other: &Visible) -> bool {
        let hidden = self.running.iter().all(|xid| !other.sees(*xid));
        hidden && self.xmax >= other.xmax
    }
}

impl FromStr for Visible {
    type Err = BadSnapshot;

    /// Reads `xmin:xmax:xid,xid,…`, as PostgreSQL writes it.
    fn from_str(text: &str) -> Result<Self, BadSnapshot> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| BadSnapshot);
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(BadSnapshot);
        let (xmin, xmax, list) = (next()?, next()?, next()?);
        let running = list.split(',').filter(|xid| !xid.is_empty());
        let mut running = running.map(number).collect::<Result<Vec<_>, _>>()?;
        running.sort_unstable();
        Ok(Self {
            xmin: number(xmin)?,
            xmax: number(xmax)?,
            running,
            awaits_standbys: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(text: &str) -> Visible {
        text.parse().unwrap()
    }

    #[test]
    fn a_snapshot_sees_what_was_committed_before_it() {
        let snapshot = visible("10:20:10,14");
        for (xid, seen) in [
            (9, true),
            (10, false),
            (11, true),
            (14, false),
            (19, true),
            (20, false),
        ] {
            assert_eq!(snapshot.sees(xid), seen, "{xid}");
        }
        assert!(visible("7:7:").sees(6) && !visible("7:7:").sees(7));
        for bad in ["", "7", "7:8", "a:8:", "7:8:x", "7:8:9:9"] {
            assert_eq!(bad.parse::<Visible>(), Err(BadSnapshot), "{bad:?}");
        }
    }

    #[test]
    fn a_later_snapshot_covers_an_earlier_one() {
        let (early, late) = (visible("10:20:10,14"), visible("14:25:14,22"));
        assert!(late.covers(&early) && late.covers(&late));
        assert!(!early.covers(&late));
        // The one has seen 14, the other 10.
        let (left, right) = (visible("10:20:10"), visible("14:20:14"));
        assert!(!left.covers(&right) && !right.covers(&left));
    }
}
