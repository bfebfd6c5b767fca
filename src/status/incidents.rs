//! What has happened lately that an operator would want to see as it happens: resets, closes,
//! sockets that fell behind. The metrics count the same for ever; this keeps the last of each.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::brief;
use crate::clock::now_ms;

/// Incidents that are kept; an older one makes room.
pub const KEPT: usize = 100;

/// Incidents that are alike and begin within so many milliseconds are one: a thousand sockets that
/// are closed at once are one line with a number, and not the end of all that was before.
pub const MERGED_MS: i64 = 1000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// A client was told to query again.
    Reset,
    /// The server closed a socket.
    Close,
    /// A socket fell behind what is in memory, and is served from the bus.
    Slow,
    /// An application published what is no event.
    DeadLetter,
    /// A part of the process went down.
    Down,
    /// It is up again, or has taken over.
    Up,
    /// A reply has no exact place in the stream.
    Inexact,
}

/// One incident, or several that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// Grows by one from incident to incident of the process.
    pub seq: u64,
    /// When it happened first, Unix milliseconds.
    pub at: i64,
    /// What happened.
    pub kind: IncidentKind,
    /// To what, or why: a reason, a code, a part, a subject.
    pub what: String,
    /// How often.
    pub n: u64,
    /// For a person. Never of what clients or applications have sent.
    pub text: String,
}

/// The incidents of one process. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Incidents(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    seq: u64,
    kept: VecDeque<Incident>,
}

impl Incidents {
    /// Notes an incident of now.
    pub fn tell(&self, kind: IncidentKind, what: &str, text: &str) {
        self.guard().take(now_ms(), kind, what, text);
    }

    /// Those that are kept, newest last.
    pub fn all(&self) -> Vec<Incident> {
        self.guard().kept.iter().cloned().collect()
    }

    fn guard(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn take(&mut self, at: i64, kind: IncidentKind, what: &str, text: &str) {
        let (what, text) = (brief(what), brief(text));
        let recent = self.kept.iter_mut().rev();
        // The clock may have been set back: then nothing is alike.
        let mut recent = recent.take_while(|one| (0..MERGED_MS).contains(&(at - one.at)));
        let alike = recent.find(|one| one.kind == kind && one.what == what && one.text == text);
        if let Some(alike) = alike {
            alike.n += 1;
            return;
        }
        if self.kept.len() == KEPT {
            self.make_room();
        }
        self.seq += 1;
        self.kept.push_back(Incident {
            seq: self.seq,
            at,
            kind,
            what,
            n: 1,
            text,
        });
    }

    /// Drops the oldest of the kind that has most: a client that is closed once a second must not
    /// end what is known of the night.
    fn make_room(&mut self) {
        let count = |kind| self.kept.iter().filter(|one| one.kind == kind).count();
        let counts = self.kept.iter().enumerate();
        // Of equal ones the first: it is the oldest.
        let oldest = counts.rev().max_by_key(|(_, one)| count(one.kind));
        if let Some((index, _)) = oldest {
            self.kept.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_ones_within_a_second_are_one() {
        let mut log = Log::default();
        for (at, what) in [(0, "a"), (10, "b"), (999, "a"), (1000, "a"), (1001, "a")] {
            log.take(at, IncidentKind::Reset, what, "");
        }
        let told = log.kept.iter().map(|one| (one.seq, one.at, one.n));
        let told: Vec<_> = told.collect();
        assert_eq!(told, [(1, 0, 2), (2, 10, 1), (3, 1000, 2)]);
    }

    #[test]
    fn many_of_one_kind_leave_the_others() {
        let mut log = Log::default();
        log.take(0, IncidentKind::Down, "bus", "away");
        for at in 1..1000 {
            log.take(at * MERGED_MS, IncidentKind::Close, "1003", "");
        }
        assert_eq!(log.kept.len(), KEPT);
        assert_eq!(log.kept[0].kind, IncidentKind::Down);
        assert_eq!(log.kept[1].seq, 902, "of the others the newest");
    }

    #[test]
    fn a_hundred_are_kept() {
        let mut log = Log::default();
        for at in 0..1000 {
            log.take(at, IncidentKind::Close, &at.to_string(), &"x".repeat(9000));
        }
        assert_eq!(log.kept.len(), KEPT);
        assert_eq!(
            log.kept.back().map(|one| (one.seq, one.at)),
            Some((1000, 999))
        );
        assert!(log.kept.iter().all(|one| one.text.len() <= 500));
    }
}
