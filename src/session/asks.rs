//! The direct queries of one socket: those that wait to be read, that are read, and that were read and wait
//! for their place in the stream. Nearly every socket has none nearly all of the time: then it holds
//! nothing for them.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use super::{Answer, Ask, Held, reads::Reads};

/// What there is to be done for them.
#[derive(Default)]
pub struct Asks(Option<Box<Work>>);

/// At least one query, or nothing for the moment.
#[derive(Default)]
pub struct Work {
    /// Those that are read.
    pub running: Reads,
    /// Those that wait to be read.
    pub queued: VecDeque<Ask>,
    /// Those that were read.
    pub held: Vec<Held>,
}

impl Asks {
    /// To be changed.
    pub fn work(&mut self) -> &mut Work {
        self.0.get_or_insert_default()
    }

    /// Whether there are none; what was held for them is freed then.
    pub fn are_done(&mut self) -> bool {
        let done =
            |work: &Work| work.running.is_empty() && work.queued.is_empty() && work.held.is_empty();
        if self.0.as_deref().is_some_and(done) {
            self.0 = None;
        }
        self.0.is_none()
    }

    /// Takes the one that has waited longest.
    pub fn next(&mut self) -> Option<Ask> {
        self.0.as_mut()?.queued.pop_front()
    }

    /// How many are read now.
    pub fn running(&self) -> usize {
        self.0.as_ref().map_or(0, |work| work.running.len())
    }

    /// Those that wait to be read.
    pub fn queued(&self) -> impl Iterator<Item = &Ask> {
        self.0.iter().flat_map(|work| &work.queued)
    }

    /// Those that were read.
    pub fn held(&self) -> &[Held] {
        self.0.as_ref().map_or(&[], |work| &work.held)
    }

    /// The answer that comes first; for ever in coming where nothing is read.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.0 {
            Some(work) => work.running.poll_next(context),
            None => Poll::Pending,
        }
    }
}
