//! Every command: what it prints, and the code it ends with.

mod others;
mod serve;
mod types;

use crate::support::Ran;

/// Asserts that a command failed as it should: with this code, these words, and nothing that only
/// a programmer could read.
#[track_caller]
fn failed(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is not in: {ran:?}");
    }
    let lower = ran.stderr.to_lowercase();
    for word in ["backtrace", "panicked", "src/"] {
        assert!(!lower.contains(word), "{ran:?}");
    }
}
