//! The checker: programs write and naive clients follow, cut their sockets, resume and ask, while
//! processes are killed. Every client keeps a log of all that it got, and afterwards each log is
//! judged against what was committed, as told by others than Rowcast.
//!
//! A seed decides what clients and writers do, and when something is killed; what comes of it also
//! depends on the machine. `ROWCAST_SEED` repeats a run, `ROWCAST_CHECK_SECONDS` makes it longer.

pub mod client;
pub mod frame;
pub mod judge;
pub mod machine;
pub mod random;
pub mod rows;
pub mod scene;
pub mod stream;
pub mod taker;
pub mod truth;
pub mod turned;
pub mod wire;
pub mod writers;

use std::time::Duration;

pub use judge::Verdict;
pub use scene::{Plan, Setup};

/// What came of a run.
pub struct Report {
    /// The line that sums it up.
    pub line: String,
    /// The judgement.
    pub verdict: Verdict,
    /// Replies that said that they are not exact, without the time around a producer's death.
    pub inexact: usize,
    /// Whether every gateway came to answer exactly once nobody wrote any more.
    pub steady: bool,
    /// Whether more wanted to run than the machine could serve in time.
    pub crowded: bool,
}

/// The seed, given or new.
pub fn seed() -> u64 {
    let given = std::env::var("ROWCAST_SEED").ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()))
}

/// How long to check each set-up: 20 seconds, or as `ROWCAST_CHECK_SECONDS` says, or with
/// `ROWCAST_LONG` an hour.
pub fn time() -> Duration {
    let given = std::env::var("ROWCAST_CHECK_SECONDS").ok();
    let seconds = given.and_then(|text| text.parse().ok());
    let long = std::env::var_os("ROWCAST_LONG").map(|_| 3600);
    Duration::from_secs(seconds.or(long).unwrap_or(20))
}
