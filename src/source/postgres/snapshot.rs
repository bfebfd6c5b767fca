//! Transaction ids of 64 bits, and which of them a snapshot sees.

/// What a statement of PostgreSQL saw: `pg_current_snapshot()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// All below have ended.
    pub xmin: u64,
    /// From here on none had begun.
    pub xmax: u64,
    /// Those between that were running, in order.
    running: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip,…`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let xmin = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|text| !text.is_empty());
        let mut running: Vec<u64> = running.map(|xid| xid.parse().ok()).collect::<Option<_>>()?;
        running.sort_unstable();
        parts.next().is_none().then_some(Self {
            xmin,
            xmax,
            running,
        })
    }

    /// Whether a committed transaction was seen.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }
}

/// The 64-bit id of which the stream tells the low 32 bits: the nearest to `near`, a present one.
///
/// Ids in use never lie 2³¹ apart, so the nearest is the one.
pub fn widen(xid: u32, near: u64) -> u64 {
    let ahead = xid.wrapping_sub(near as u32) as i32;
    near.checked_add_signed(i64::from(ahead))
        .unwrap_or(u64::from(xid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_widened_to_the_nearest_epoch() {
        let epoch = |n: u64| n << 32;
        assert_eq!(widen(700, 731), 700);
        assert_eq!(widen(800, 731), 800);
        // Just before and just after the 32 bits have turned.
        assert_eq!(widen(0xffff_fff0, epoch(3) + 5), epoch(2) + 0xffff_fff0);
        assert_eq!(widen(3, epoch(2) + 0xffff_fff0), epoch(3) + 3);
        assert_eq!(
            widen(0xffff_fff0, epoch(2) + 0xffff_fff5),
            epoch(2) + 0xffff_fff0
        );
        // There is no epoch before the first.
        assert_eq!(widen(0xffff_fff0, 5), 0xffff_fff0);
    }

    #[test]
    fn a_snapshot_sees_what_had_ended() {
        let snapshot = Snapshot::parse("727:731:728,730").unwrap();
        let seen: Vec<u64> = (725..733).filter(|xid| snapshot.sees(*xid)).collect();
        assert_eq!(seen, [725, 726, 727, 729]);
        assert!(Snapshot::parse("727:727:").unwrap().sees(726));
        for bad in ["", "1:2", "1:2:x", "1:2:3:4"] {
            assert_eq!(Snapshot::parse(bad), None, "{bad:?}");
        }
    }
}
