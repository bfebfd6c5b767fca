//! Dead letters: told once on `<prefix>.dlq.<type>`, however many come at once, without anybody
//! waiting for it. What does not fit in memory is read again from the stream.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Failure, JetStreamBus, Role, Shared,
    batch::{Outgoing, Refused},
    outgoing::HEADER_BYTES,
    range::{REPLICA_PAUSE, STEP},
};
use crate::{
    position::{Epoch, Position},
    status::brief,
    topic::is_topic_name,
};

/// Letters that wait in memory.
const LETTERS: usize = 256;

/// Their bytes.
const BYTES: usize = 8 * 1024 * 1024;

/// Letters told at once.
const AT_ONCE: usize = 64;

/// How often a letter is offered to the server in one go.
const TRIES: usize = 3;

/// The pause after that.
const PAUSE: Duration = Duration::from_secs(5);

/// So often one stretch is tried while there is a connection, before it is given up: one letter
/// that the server will not have must not stand before all others for ever.
const ROUNDS: usize = 60;

/// Between two warnings.
const QUIET: Duration = Duration::from_secs(1);

/// Epochs of which is known how far they were handled.
const EPOCHS: usize = 4;

/// A message that is no event.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it stands.
    pub position: Position,
    /// Why it is no event.
    pub reason: String,
    /// Its subject.
    pub subject: String,
    /// Its body.
    pub payload: Bytes,
}

/// Offsets of one epoch among which are letters that had no room.
#[derive(Debug, Clone)]
struct Stretch {
    epoch: Epoch,
    first: u64,
    last: u64,
}

/// What waits to be told, the letters before the stretches.
#[derive(Debug, Default)]
struct Waiting {
    letters: VecDeque<DeadLetter>,
    bytes: usize,
    stretches: VecDeque<Stretch>,
    /// The highest offset handled of each epoch: what is read again is not told again.
    handled: VecDeque<(Epoch, u64)>,
    /// Letters of which no warning has told, and why the last of them is one.
    untold: Option<(u64, Position, String)>,
}

/// The dead letters of this process.
#[derive(Debug)]
pub struct Dead {
    waiting: Mutex<Waiting>,
    wake: mpsc::Sender<()>,
}

impl Dead {
    /// Nothing, and what wakes who tells it.
    pub fn new() -> (Self, mpsc::Receiver<()>) {
        let (wake, woken) = mpsc::channel(1);
        let waiting = Mutex::default();
        (Self { waiting, wake }, woken)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Takes a letter, unless it was handled already.
    fn take(&mut self, letter: DeadLetter) -> bool {
        let Position { epoch, offset, .. } = letter.position.clone();
        match self.handled.iter_mut().find(|(known, _)| *known == epoch) {
            Some((_, handled)) if *handled >= offset => return false,
            Some((_, handled)) => *handled = offset,
            None => {
                self.handled.push_back((epoch.clone(), offset));
                if self.handled.len() > EPOCHS {
                    self.handled.pop_front();
                }
            }
        }
        let before = self.untold.take().map_or(0, |(count, ..)| count);
        let reason = letter.reason.clone();
        self.untold = Some((before + 1, letter.position.clone(), reason));
        let bytes = self.bytes + letter.payload.len();
        let room = self.letters.len() < LETTERS && bytes <= BYTES;
        match self.stretches.back_mut() {
            None if room => {
                self.bytes = bytes;
                self.letters.push_back(letter);
            }
            Some(stretch) if stretch.epoch == epoch => stretch.last = offset,
            _ => {
                self.stretches.push_back(Stretch {
                    epoch,
                    first: offset,
                    last: offset,
                });
                if self.stretches.len() > EPOCHS {
                    self.stretches.pop_front();
                }
            }
        }
        true
    }

    fn drop_letters(&mut self, count: usize) {
        let dropped = self.letters.drain(..count.min(self.letters.len()));
        self.bytes -= dropped.map(|letter| letter.payload.len()).sum::<usize>();
    }

    /// Goes on at `next` in the first stretch.
    fn advance(&mut self, next: u64) {
        if let Some(stretch) = self.stretches.front_mut() {
            stretch.first = stretch.first.max(next);
            if stretch.first > stretch.last {
                self.stretches.pop_front();
            }
        }
    }
}

impl JetStreamBus {
    /// Hands a dead letter to who tells it, without waiting. Each one once: what was rejected
    /// before in this process, or stands before what was, is left alone.
    pub(super) fn reject(&self, letter: DeadLetter) {
        if self.role == Role::Command {
            // Whoever looks on tells nothing.
            return;
        }
        let (subject, reason) = (letter.subject.clone(), letter.reason.clone());
        if self.dead.waiting().take(letter) {
            self.config.metrics.dead_letter(&subject, &reason);
            // Full is woken.
            let _ = self.dead.wake.try_send(());
        }
    }

    /// Tells some of what waits; whether there was any.
    async fn tell_some(&self) -> Result<bool, Failure> {
        let (letters, stretch) = {
            let waiting = self.dead.waiting();
            let letters: Vec<_> = waiting.letters.iter().take(AT_ONCE).cloned().collect();
            (letters, waiting.stretches.front().cloned())
        };
        if !letters.is_empty() {
            let count = letters.len();
            self.tell(letters).await?;
            self.dead.waiting().drop_letters(count);
            return Ok(true);
        }
        let Some(stretch) = stretch else {
            return Ok(false);
        };
        let (letters, next) = self.letters_of(&stretch).await?;
        self.tell(letters).await?;
        self.dead.waiting().advance(next);
        Ok(true)
    }

    /// The first letters of a stretch, and where to go on after them.
    async fn letters_of(&self, stretch: &Stretch) -> Result<(Vec<DeadLetter>, u64), Failure> {
        let found = self.range(stretch.first, STEP).await?;
        let Some(last) = found.last().map(|message| message.seq) else {
            let extent = self.extent().await?;
            if extent.last < stretch.first {
                // The stream is another one.
                return Ok((Vec::new(), stretch.last + 1));
            }
            if extent.first > stretch.first {
                // They are not retained any more.
                return Ok((Vec::new(), extent.first));
            }
            tokio::time::sleep(REPLICA_PAUSE).await;
            // The leader knows whether a replica is behind or all of them are gone.
            let there = self.one_by_one(&self.names.stream, stretch.first, 1).await;
            let next = there?.first().map(|message| message.seq);
            return Ok((Vec::new(), next.unwrap_or(stretch.last + 1)));
        };
        let within = found.iter().filter(|message| message.seq <= stretch.last);
        let letters = within.filter_map(|message| self.delivery(&stretch.epoch, message).1);
        Ok((letters.collect(), last.min(stretch.last) + 1))
    }

    /// Stores letters, each once.
    async fn tell(&self, letters: Vec<DeadLetter>) -> Result<(), Failure> {
        let max_bytes = self.connection.client()?.max_payload();
        let max_bytes = max_bytes.saturating_sub(HEADER_BYTES);
        let messages = letters
            .into_iter()
            .map(|letter| self.told(letter, max_bytes));
        let mut left: Vec<Outgoing> = messages.collect();
        let mut failure = Failure::from("it was refused");
        for attempt in 0..TRIES {
            let sent = stream::iter(left).map(|message| async {
                match self.store(vec![message.clone()], None).await {
                    Err(Refused::Unknown(err)) => Some((message, err)),
                    // Another gateway may have been first.
                    Ok(_) | Err(Refused::Known | Refused::Mismatch) => None,
                }
            });
            let answers: Vec<_> = sent.buffered(AT_ONCE).collect().await;
            left = Vec::new();
            for (message, err) in answers.into_iter().flatten() {
                left.push(message);
                failure = err;
            }
            if left.is_empty() {
                return Ok(());
            }
            if attempt == 0
                && let Err(err) = self.ensure_dead_letters().await
            {
                failure = err;
            }
        }
        Err(failure)
    }

    /// A letter as a message, of which the server stores one copy whoever tells it.
    fn told(&self, letter: DeadLetter, max_bytes: usize) -> Outgoing {
        let events = format!("{}.event.", self.names.prefix);
        let topic = letter.subject.strip_prefix(&events);
        let topic = topic.filter(|topic| is_topic_name(topic));
        let topic = topic.unwrap_or("unknown");
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", letter.position.to_string().as_str());
        headers.insert("Rowcast-Reason", letter.reason.as_str());
        headers.insert("Rowcast-Subject", in_header(&letter.subject).as_str());
        headers.insert("Rowcast-Sequence", letter.position.offset.to_string());
        Outgoing {
            subject: format!("{}.dlq.{topic}", self.names.prefix),
            headers,
            // The original is in the stream.
            payload: letter.payload.slice(..letter.payload.len().min(max_bytes)),
        }
    }

    /// Gives up what is tried first.
    fn give_up(&self) {
        let mut waiting = self.dead.waiting();
        match waiting.letters.is_empty() {
            false => waiting.drop_letters(AT_ONCE),
            true => {
                let next = waiting.stretches.front().map(|s| s.first + STEP as u64);
                waiting.advance(next.unwrap_or(0));
            }
        }
    }
}

/// A subject as a header can carry it. NATS takes nearly every byte in one, and some thousands of them.
fn in_header(subject: &str) -> String {
    brief(&subject.replace(char::is_control, "\u{fffd}"))
}

/// Tells dead letters until every handle of the bus is dropped; and of them in the log, at most
/// once a second.
pub async fn bury(bus: Weak<Shared>, mut woken: mpsc::Receiver<()>) {
    let mut quiet_until = Instant::now();
    let mut retry_at = Instant::now();
    let (mut rounds, mut told) = (0, String::new());
    loop {
        let Some(bus) = bus.upgrade().map(JetStreamBus) else {
            return;
        };
        if Instant::now() >= quiet_until
            && let Some((count, position, reason)) = bus.dead.waiting().untold.take()
        {
            tracing::warn!(count, last = %position, reason, "messages that are no events");
            quiet_until = Instant::now() + QUIET;
        }
        if Instant::now() >= retry_at {
            match bus.tell_some().await {
                Ok(true) => {
                    rounds = 0;
                    continue;
                }
                Ok(false) => {}
                Err(err) => {
                    let err = bus.reason(err);
                    retry_at = Instant::now() + PAUSE;
                    rounds += usize::from(bus.connection.client().is_ok());
                    if told != err.to_string() {
                        told = err.to_string();
                        tracing::warn!(error = %err, "dead letters cannot be stored yet");
                    }
                    if rounds >= ROUNDS {
                        rounds = 0;
                        tracing::warn!(error = %err, "dead letters were given up");
                        bus.give_up();
                    }
                }
            }
        }
        let (untold, waits) = {
            let waiting = bus.dead.waiting();
            let waits = !waiting.letters.is_empty() || !waiting.stretches.is_empty();
            (waiting.untold.is_some(), waits)
        };
        drop(bus);
        let woke = tokio::select! {
            woke = woken.recv() => woke,
            () = tokio::time::sleep_until(quiet_until), if untold => Some(()),
            () = tokio::time::sleep_until(retry_at), if waits => Some(()),
        };
        if woke.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: u64, bytes: usize) -> DeadLetter {
        DeadLetter {
            position: Position::new(Epoch::parse("e1").unwrap(), offset),
            reason: "nonsense".into(),
            subject: "rowcast.event.t".into(),
            payload: vec![b'x'; bytes].into(),
        }
    }

    #[test]
    fn what_has_no_room_is_remembered_by_its_place() {
        let mut waiting = Waiting::default();
        for offset in 1..=3000 {
            assert!(waiting.take(letter(offset, 1)));
        }
        assert_eq!((waiting.letters.len(), waiting.bytes), (LETTERS, LETTERS));
        // What comes later comes after it.
        waiting.drop_letters(AT_ONCE);
        assert!(waiting.take(letter(3001, 1)));
        let stretch = &waiting.stretches[0];
        assert_eq!((stretch.first, stretch.last), (LETTERS as u64 + 1, 3001));
        waiting.drop_letters(LETTERS);
        waiting.advance(3002);
        assert!(waiting.take(letter(3002, BYTES + 1)));
        assert!(waiting.letters.is_empty() && waiting.bytes == 0);
        assert_eq!(waiting.untold.unwrap().0, 3002);
    }

    #[test]
    fn what_is_read_again_is_not_told_again() {
        let mut waiting = Waiting::default();
        assert!(waiting.take(letter(7, 1)));
        assert!(!waiting.take(letter(7, 1)));
        assert!(!waiting.take(letter(3, 1)));
        assert!(waiting.take(letter(8, 1)));
        assert_eq!(waiting.letters.len(), 2);
    }
}
