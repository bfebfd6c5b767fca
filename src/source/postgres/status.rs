//! What an operator wants to know of the source, as plain numbers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

/// A handle to the numbers of one source; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    committed_ms: AtomicI64,
    received_ms: AtomicI64,
    retained: AtomicU64,
    keep: AtomicU64,
    alarmed: AtomicBool,
    left_out: AtomicU64,
}

impl SourceStatus {
    /// Commit time of the last transaction that was read, Unix milliseconds; 0 for none yet.
    pub fn last_commit_ms(&self) -> i64 {
        self.0.committed_ms.load(Relaxed)
    }

    /// When the last transaction was read whole, Unix milliseconds; 0 for none yet. It less
    /// [`SourceStatus::last_commit_ms`] is the lag, if both clocks agree.
    pub fn last_read_ms(&self) -> i64 {
        self.0.received_ms.load(Relaxed)
    }

    /// Bytes of WAL that the server keeps for the slot, as of the last heartbeat.
    pub fn retained_bytes(&self) -> u64 {
        self.0.retained.load(Relaxed)
    }

    /// `max_slot_wal_keep_size` in bytes; none where the server keeps all.
    pub fn keep_bytes(&self) -> Option<u64> {
        Some(self.0.keep.load(Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Whether more than half of that is retained: soon the slot will be lost.
    pub fn alarm(&self) -> bool {
        self.0.alarmed.load(Relaxed)
    }

    /// Events emitted in the database that were no JSON, and so were left out.
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Relaxed)
    }

    pub(super) fn read(&self, committed_ms: i64, now_ms: i64) {
        self.0.committed_ms.store(committed_ms, Relaxed);
        self.0.received_ms.store(now_ms, Relaxed);
    }

    pub(super) fn leaves_out(&self) {
        self.0.left_out.fetch_add(1, Relaxed);
    }

    pub(super) fn retains(&self, retained: Option<i64>, keep: Option<i64>) {
        let retained = retained.and_then(|bytes| u64::try_from(bytes).ok());
        let keep = keep.and_then(|bytes| u64::try_from(bytes).ok());
        self.0.retained.store(retained.unwrap_or(0), Relaxed);
        self.0.keep.store(keep.unwrap_or(0), Relaxed);
        let alarm = matches!((retained, keep), (Some(r), Some(k)) if k > 0 && r > k / 2);
        let before = self.0.alarmed.swap(alarm, Relaxed);
        if alarm && !before {
            tracing::warn!(
                retained_bytes = retained,
                max_slot_wal_keep_size = keep,
                "more than half of the WAL that the server keeps for the slot waits to be read: \
                 when it is used up, all clients must query again"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_the_server_keeps_is_an_alarm() {
        let status = SourceStatus::default();
        for (retained, keep, alarm) in [
            (Some(40), Some(100), false),
            (Some(51), Some(100), true),
            (Some(10), Some(100), false),
            (Some(1 << 40), Some(-1), false),
            (None, None, false),
        ] {
            status.retains(retained, keep);
            assert_eq!(status.alarm(), alarm, "{retained:?} of {keep:?}");
        }
    }
}
