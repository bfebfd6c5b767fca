//! The time of day, as events and pages carry it. Durations are measured with `Instant` where they
//! are needed; this clock may jump.

use std::time::SystemTime;

/// Unix milliseconds now; 0 on a machine whose clock stands before 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}
