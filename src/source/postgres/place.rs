//! Places in the WAL as [`Checkpoint`]s, and the names of histories.
//!
//! `high` is a commit LSN. `low` is the ordinal of a change within its transaction, or for the whole
//! transaction a number above every ordinal, of two parts: a mark made of the commit's time, for a
//! database that was put back to an earlier point may commit something else at the very same LSN;
//! and how far the commit record reaches, which is what the slot is confirmed to.

use std::sync::Arc;

use crate::position::Checkpoint;

/// From here on `low` stands for a whole transaction: no transaction has 2³¹ changes.
const WHOLE: u32 = 1 << 31;

/// The bits of a whole transaction's `low` that hold the length of its commit record, in units of
/// eight bytes, to which PostgreSQL aligns records; counted down from all ones. One over 8 MiB is
/// confirmed up to there only: it comes once more after a restart, and is known by then.
const LENGTH: u32 = (1 << 20) - 1;

/// The checkpoint of a whole transaction.
pub fn whole(source: &Arc<str>, commit_lsn: u64, end_lsn: u64, mark: u32) -> Checkpoint {
    let units = end_lsn.saturating_sub(commit_lsn) / 8;
    let length = u32::try_from(units).unwrap_or(LENGTH).min(LENGTH);
    Checkpoint {
        source: source.clone(),
        high: commit_lsn,
        low: WHOLE | (mark << 20 & (WHOLE - 1) & !LENGTH) | (LENGTH - length),
    }
}

/// What tells two commits at one LSN apart, as far as eleven bits can: of the time of the commit.
pub fn mark(committed_micros: i64) -> u32 {
    // The product's upper bits depend on all bits of the time.
    let mixed = committed_micros
        .cast_unsigned()
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u32::try_from(mixed >> 53).unwrap_or(0)
}

/// Whether a commit with this mark may be the one that a checkpoint at its LSN stands for.
pub fn may_be(checkpoint: &Checkpoint, mark: u32) -> bool {
    let stored = (checkpoint.low & (WHOLE - 1)) >> 20;
    checkpoint.low < WHOLE || stored == mark
}

/// The checkpoint of a place between transactions.
pub fn between(source: &Arc<str>, lsn: u64) -> Checkpoint {
    Checkpoint {
        source: source.clone(),
        high: lsn,
        low: u32::MAX,
    }
}

/// Up to where the slot may be confirmed; none for a part of a transaction.
pub fn end(checkpoint: &Checkpoint) -> Option<u64> {
    let length = LENGTH - (checkpoint.low & LENGTH);
    (checkpoint.low >= WHOLE).then(|| checkpoint.high.saturating_add(u64::from(length) * 8))
}

/// Whether no transaction of the stream need stand at this checkpoint.
pub fn is_between(checkpoint: &Checkpoint) -> bool {
    checkpoint.low == u32::MAX
}

/// What all histories of one slot have in common: ten hexadecimal digits.
///
/// Another server, a promoted standby, another database or another slot has another one.
pub fn identity(system: &str, timeline: u32, database: u32, slot: &str) -> String {
    // FNV-1a: it must be the same in every build for ever, and nobody attacks it.
    let text = format!("{system}/{timeline}/{database}/{slot}");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:010x}", hash >> 24)
}

/// A fresh name for a history of that slot.
///
/// # Errors
/// The system has no random numbers to give.
pub fn fresh(identity: &str) -> Result<Arc<str>, getrandom::Error> {
    let mut random = [0; 3];
    getrandom::fill(&mut random)?;
    let [a, b, c] = random;
    Ok(format!("{identity}-{a:02x}{b:02x}{c:02x}").into())
}

/// Whether the name is one of that slot's histories.
pub fn belongs(source: &str, identity: &str) -> bool {
    source
        .split_once('-')
        .is_some_and(|(prefix, _)| prefix == identity)
}

/// An LSN as PostgreSQL writes it: `16/B374D848`.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u32::from_str_radix(high, 16).ok()?;
    let low = u32::from_str_radix(low, 16).ok()?;
    Some(u64::from(high) << 32 | u64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_transaction_stands_above_its_changes_and_tells_its_end() {
        let source: Arc<str> = "0123456789-abcdef".into();
        let transaction = whole(&source, 0x1000, 0x1030, mark(777));
        let change = |low| Checkpoint {
            source: source.clone(),
            high: 0x1000,
            low,
        };
        assert!(transaction.covers(&change(0)) && transaction.covers(&change(1_000_000)));
        assert_eq!(end(&transaction), Some(0x1030));
        assert_eq!(end(&change(7)), None);
        assert_eq!(end(&between(&source, 0x2000)), Some(0x2000));
        assert!(is_between(&between(&source, 0x2000)) && !is_between(&transaction));
        let huge = whole(&source, 0x1000, 0x1000 + (1 << 30), mark(777));
        assert!(huge.covers(&change(1_000_000)));
        assert_eq!(end(&huge), Some(0x1000 + 8 * u64::from(LENGTH)));
    }

    #[test]
    fn another_commit_at_the_same_place_has_another_mark() {
        let source: Arc<str> = "0123456789-abcdef".into();
        let times = (0..1000).map(|n| 845_000_000_000_000 + n * 1_234_567);
        let stored = whole(&source, 0x1000, 0x1030, mark(845_000_000_000_001));
        assert!(may_be(&stored, mark(845_000_000_000_001)));
        let taken = times.filter(|time| may_be(&stored, mark(*time))).count();
        assert!(taken < 5, "{taken} of 1000");
        assert!(may_be(&Checkpoint { low: 7, ..stored }, mark(5)));
    }

    #[test]
    fn a_history_belongs_to_one_slot_of_one_database() {
        let one = identity("7301", 1, 5, "rowcast");
        assert_eq!(one.len(), 10);
        let history = fresh(&one).unwrap();
        assert!(belongs(&history, &one));
        assert_ne!(history, fresh(&one).unwrap());
        for other in [
            identity("7302", 1, 5, "rowcast"),
            identity("7301", 2, 5, "rowcast"),
            identity("7301", 1, 6, "rowcast"),
            identity("7301", 1, 5, "rowcast2"),
        ] {
            assert!(!belongs(&history, &other));
        }
    }

    #[test]
    fn an_lsn_has_two_halves() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_b374_d848));
        for bad in ["", "16", "16/", "g/1", "1/100000000"] {
            assert_eq!(parse_lsn(bad), None, "{bad:?}");
        }
    }
}
