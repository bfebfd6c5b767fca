//! What came to the sockets: how often, how late, and what did not.

use std::ops::Range;

use hdrhistogram::Histogram;

use super::mark::Mark;

/// The longest latency that is told apart from longer ones, in microseconds.
const MAX_LATENCY_US: u64 = 120_000_000;

/// What all sockets were sent.
#[derive(Debug)]
pub struct Tally {
    /// From when an event was due to when it was read from the socket, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Deliveries, repeated ones not counted.
    pub delivered: u64,
    /// Deliveries of what a socket had already.
    pub duplicates: u64,
    /// Deliveries that came behind a later one.
    pub reordered: u64,
    /// Marked with a time before this run.
    pub foreign: u64,
    /// Compressed frames among all that were read.
    pub compressed: u64,
    /// Bytes read.
    pub bytes: u64,
    /// When the last delivery was read, nanoseconds of the wall clock.
    pub last_ns: u64,
    /// Marks from before this are not this run's.
    pub begun_ns: u64,
}

/// How far one socket has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Behind the highest number it was sent.
    next: u64,
    /// What is missing before that.
    holes: Vec<Range<u64>>,
}

/// How many events may be under way in a closed loop, and which are.
#[derive(Debug)]
pub struct Window {
    /// How often each event under way has been delivered.
    counts: Vec<u32>,
    /// The oldest event that not every socket has.
    oldest: u64,
    /// Deliveries that make an event complete.
    readers: u32,
}

impl Tally {
    /// Counts from now on.
    pub fn new(begun_ns: u64) -> Self {
        Self {
            latency_us: Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)
                .expect("the bounds are in order and the digits few"),
            delivered: 0,
            duplicates: 0,
            reordered: 0,
            foreign: 0,
            compressed: 0,
            bytes: 0,
            last_ns: 0,
            begun_ns,
        }
    }

    /// One delivery, read at `now_ns`. Returns whether it is the socket's first of this event.
    #[inline]
    pub fn deliver(&mut self, progress: &mut Progress, mark: Mark, now_ns: u64) -> bool {
        if mark.due_ns < self.begun_ns {
            self.foreign += 1;
            return false;
        }
        let first = match mark.number == progress.next {
            true => {
                progress.next += 1;
                true
            }
            false => self.out_of_line(progress, mark.number),
        };
        if first {
            self.delivered += 1;
            self.last_ns = now_ns;
            let late_us = now_ns.saturating_sub(mark.due_ns) / 1_000;
            self.latency_us.saturating_record(late_us);
        }
        first
    }

    fn out_of_line(&mut self, progress: &mut Progress, number: u64) -> bool {
        if number > progress.next {
            progress.holes.push(progress.next..number);
            progress.next = number + 1;
            return true;
        }
        let hole = progress
            .holes
            .iter()
            .position(|hole| hole.contains(&number));
        let Some(at) = hole else {
            self.duplicates += 1;
            return false;
        };
        let hole = progress.holes.remove(at);
        let parts = [hole.start..number, number + 1..hole.end];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        progress.holes.splice(at..at, parts);
        self.reordered += 1;
        true
    }
}

impl Window {
    /// At most `size` events under way, each of them until `readers` sockets have it.
    pub fn new(size: u32, readers: u32) -> Self {
        Self {
            counts: vec![0; size as usize],
            oldest: 0,
            readers,
        }
    }

    /// How many more may be published, after `published`.
    pub fn room(&self, published: u64) -> u64 {
        // Another run on the same topic may have delivered what this one has not published yet.
        let under_way = published.saturating_sub(self.oldest);
        (self.counts.len() as u64).saturating_sub(under_way)
    }

    /// A socket has it.
    #[inline]
    pub fn deliver(&mut self, number: u64) {
        self.add(number, 1);
    }

    /// The server has refused it: nobody will have it.
    pub fn give_up(&mut self, number: u64) {
        self.add(number, self.readers);
    }

    fn add(&mut self, number: u64, deliveries: u32) {
        let size = self.counts.len() as u64;
        if number < self.oldest || number >= self.oldest + size {
            return;
        }
        self.counts[(number % size) as usize] += deliveries;
        while self.counts[(self.oldest % size) as usize] >= self.readers {
            self.counts[(self.oldest % size) as usize] = 0;
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(numbers: &[u64]) -> Tally {
        let mut tally = Tally::new(0);
        let mut progress = Progress::default();
        for number in numbers {
            let mark = Mark {
                due_ns: 1,
                number: *number,
            };
            tally.deliver(&mut progress, mark, 1_001);
        }
        tally
    }

    #[test]
    fn what_comes_late_or_twice_is_told_apart() {
        let told = |numbers: &[u64]| {
            let tally = run(numbers);
            (tally.delivered, tally.reordered, tally.duplicates)
        };
        assert_eq!(told(&[0, 1, 2, 3]), (4, 0, 0));
        assert_eq!(told(&[0, 2, 1, 3]), (4, 1, 0));
        assert_eq!(told(&[0, 5, 2, 2, 4, 1, 3, 0]), (6, 4, 2));
        assert_eq!(told(&[0, 1, 3]), (3, 0, 0));
    }

    #[test]
    fn an_event_is_under_way_until_every_socket_has_it() {
        let mut window = Window::new(2, 2);
        assert_eq!(window.room(2), 0);
        window.deliver(1);
        window.deliver(1);
        window.deliver(0);
        assert_eq!(window.room(2), 0, "the oldest is under way");
        window.deliver(0);
        assert_eq!(window.room(2), 2);
        window.give_up(2);
        assert_eq!(window.room(3), 2);
        window.give_up(3);
        assert_eq!(window.room(3), 2, "it was somebody else's");
    }
}
