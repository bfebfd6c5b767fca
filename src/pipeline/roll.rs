//! The processes that were heard of on the bus. One that does not answer any more is remembered for
//! a minute as silent: it was killed, or is cut off.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::status::{Own, Report, Stage, State};

/// How long a silent process is remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// Processes that are remembered. Of more those are forgotten first that are silent, and change
/// producers last.
const PROCESSES: usize = 256;

/// All processes but this one, by their ids.
#[derive(Debug, Default)]
pub struct Roll(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    report: Report,
    heard: Instant,
    /// Whether it has answered the last call.
    present: bool,
    /// Whether it had answered the one before.
    expected: bool,
}

impl Entry {
    /// Whether it is a change producer.
    fn reads(&self) -> bool {
        let mut stages = self.report.stages.iter();
        stages.any(|stage| matches!(stage.own, Own::Source { .. }))
    }
}

impl Roll {
    /// Begins a call: whoever is not heard now is silent.
    pub fn call(&mut self) {
        self.0.retain(|_, entry| entry.heard.elapsed() < MEMORY);
        for entry in self.0.values_mut() {
            entry.expected = std::mem::take(&mut entry.present);
        }
    }

    /// Takes an answer.
    pub fn hear(&mut self, report: Report) {
        // A process that was started again under its name is not missed any more.
        self.0.retain(|id, entry| {
            *id == report.id || entry.present || entry.report.process != report.process
        });
        let known = self.0.get(&report.id);
        let entry = Entry {
            expected: known.is_some_and(|entry| entry.expected),
            heard: Instant::now(),
            present: true,
            report,
        };
        self.0.insert(entry.report.id.clone(), entry);
        if self.0.len() > PROCESSES {
            let worth = |entry: &Entry| (entry.present, entry.reads(), entry.heard);
            let oldest = self.0.iter().min_by_key(|(_, entry)| worth(entry));
            let oldest = oldest.map(|(id, _)| id.clone());
            oldest.and_then(|id| self.0.remove(&id));
        }
    }

    /// Whether everybody has answered who answered the call before; not at the very first one.
    pub fn is_complete(&self) -> bool {
        let mut expected = self.0.values().filter(|entry| entry.expected).peekable();
        expected.peek().is_some() && expected.all(|entry| entry.present)
    }

    /// The stages of all of them.
    pub fn stages(&self) -> impl Iterator<Item = Stage> {
        self.0.values().flat_map(|entry| {
            let stages = entry.report.stages.iter().cloned();
            stages.map(|stage| match entry.present {
                true => stage,
                false => Stage {
                    state: State::Silent,
                    ..stage
                },
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(id: &str, process: &str) -> Report {
        let own = Own::Relay {
            position: None,
            lag_ms: None,
            total: 0,
        };
        let process = process.to_owned();
        let stage = Stage {
            own,
            process: process.clone(),
            state: State::Up,
            error: None,
        };
        Report {
            id: id.to_owned(),
            process,
            stages: vec![stage],
        }
    }

    fn states(roll: &Roll) -> Vec<(String, State)> {
        let stages = roll.stages().map(|s| (s.process.to_string(), s.state));
        let mut states: Vec<_> = stages.collect();
        states.sort_by(|a, b| a.0.cmp(&b.0));
        states
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_silent_for_a_minute_and_then_forgotten() {
        let mut roll = Roll::default();
        roll.call();
        assert!(!roll.is_complete(), "nobody is known who might be missing");
        roll.hear(report("1", "a"));
        assert!(
            !roll.is_complete(),
            "nobody was expected, and more may come"
        );
        roll.hear(report("2", "b"));
        roll.call();
        roll.hear(report("1", "a"));
        assert!(!roll.is_complete());
        let both = [("a".into(), State::Up), ("b".into(), State::Silent)];
        assert_eq!(states(&roll), both);
        tokio::time::advance(MEMORY).await;
        roll.call();
        roll.hear(report("1", "a"));
        assert_eq!(states(&roll), [("a".into(), State::Up)]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_started_again_takes_the_place_of_its_name() {
        let mut roll = Roll::default();
        roll.call();
        roll.hear(report("1", "a"));
        roll.call();
        roll.hear(report("2", "a"));
        assert_eq!(states(&roll), [("a".into(), State::Up)]);
        // Two that have one name are two.
        roll.hear(report("3", "a"));
        assert_eq!(states(&roll).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_are_remembered() {
        let mut roll = Roll::default();
        for n in 0..PROCESSES + 50 {
            tokio::time::advance(Duration::from_millis(1)).await;
            roll.hear(report(&n.to_string(), &n.to_string()));
        }
        assert_eq!(roll.0.len(), PROCESSES);
        assert!(!roll.0.contains_key("0") && roll.0.contains_key("300"));
    }
}
