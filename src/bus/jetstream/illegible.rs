//! What the client of NATS cannot read. The server stores whatever a publisher writes above his message, and the client
//! ends the connection over which that comes, or itself.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{HeaderName, StatusCode};
use tokio::time::Instant;

use super::single::ALONE;

/// After one that cannot be read more of them are expected for so long, and nothing is read by which one could end the
/// connection again: so none is lost more often than that, however often such messages come.
pub const SPELL: Duration = Duration::from_secs(10);

/// Stretches that are told apart.
const KNOWN: usize = 4096;

/// Sequences of the stream of events at which the client ends its connection, or itself: whoever reads on reads them by
/// themselves. To know too few of them, or wrong ones, costs time only.
#[derive(Debug, Default)]
pub struct Illegible {
    /// From one of them to another, by the first of each. What lies between is so little that it is read like them.
    stretches: BTreeMap<u64, u64>,
    /// Until when there may be more anywhere.
    spell: Option<Instant>,
}

impl Illegible {
    /// Remembers one. Where too many are known already, what lies between it and its neighbour counts as such, too.
    pub fn note(&mut self, seq: u64) {
        let before = self.stretches.range(..=seq).next_back();
        let before = before.map(|(first, last)| (*first, seq.saturating_sub(*last)));
        let after = self.stretches.range(seq..).next();
        let after = after.map(|(first, last)| (*first - seq, *first, *last));
        let nearest = before.iter().map(|(_, far)| *far);
        let nearest = nearest.chain(after.iter().map(|(far, ..)| *far)).min();
        let full = self.stretches.len() >= KNOWN;
        let near = nearest.filter(|_| full).unwrap_or(0).max(ALONE as u64);
        let (mut begins, mut ends) = (seq, seq);
        if let Some((first, _)) = before.filter(|(_, far)| *far <= near) {
            begins = first;
            ends = ends.max(self.stretches.get(&first).copied().unwrap_or(seq));
        }
        if let Some((_, first, last)) = after.filter(|(far, ..)| *far <= near) {
            self.stretches.remove(&first);
            ends = ends.max(last);
        }
        self.stretches.insert(begins, ends);
    }

    /// Forgets those before what the stream retains.
    pub fn forget(&mut self, retained: u64) {
        while let Some(first) = self.stretches.first_entry()
            && *first.get() < retained
        {
            first.remove();
        }
    }

    /// The first one from there on.
    pub fn next(&self, from: u64) -> Option<u64> {
        let before = self.stretches.range(..=from).next_back();
        if before.is_some_and(|(_, last)| *last >= from) {
            return Some(from);
        }
        self.stretches.range(from..).next().map(|(first, _)| *first)
    }

    /// Expects more of them for a [`SPELL`], wherever they may stand.
    pub fn expect_more(&mut self) {
        self.spell = Some(Instant::now() + SPELL);
    }

    /// Whether more of them are expected.
    pub fn are_expected(&self) -> bool {
        self.spell.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether the client can read a subject, as it stands in JSON.
pub fn is_legible_subject(subject: &str) -> bool {
    // What is not UTF-8 has become this one.
    !subject.contains(|c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER)
}

/// Whether the client can read a block of headers, or none.
pub fn is_legible(block: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(block) else {
        return false;
    };
    let mut lines = text.lines().peekable();
    let Some(first) = lines.next() else {
        return true;
    };
    let status = first.strip_prefix("NATS/1.0");
    let status = status.and_then(|status| status.trim().split(' ').next());
    if !status.is_some_and(|text| text.is_empty() || text.parse::<StatusCode>().is_ok()) {
        return false;
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let name = line.split_once(':').map(|(name, _)| name);
        let named = name.is_some_and(|name| name.parse::<HeaderName>().is_ok());
        if !named || line.contains('\r') {
            return false;
        }
        // What goes on with a header begins with a space, and follows it at once.
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            if more.contains('\r') {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_cannot_read_is_known() {
        for block in [
            &b""[..],
            b"NATS/1.0\r\n\r\n",
            b"NATS/1.0 404 No\r\na: b\r\n c\r\n\td\r\n\r\n",
            b"NATS/1.0\r\na: b\r\n\r\nc: d\r\n e\r\n\r\n",
            b"NATS/1.0\r\na:b",
        ] {
            assert!(is_legible(block), "{:?}", String::from_utf8_lossy(block));
        }
        for block in [
            &b"\r\n\r\n"[..],
            b"HTTP/1.1\r\na: b\r\n\r\n",
            b"NATS/1.0 many\r\n\r\n",
            b"NATS/1.0\r\nno headers\r\n\r\n",
            b"NATS/1.0\r\na b: c\r\n\r\n",
            b"NATS/1.0\r\na: \xfc\r\n\r\n",
            b"NATS/1.0\r\nX: a\rb\r\n\r\n",
            b"NATS/1.0\r\nX: a\r\n b\rc\r\n\r\n",
            b"NATS/1.0\r\n x\r\n\r\n",
            b"NATS/1.0\r\na: b\r\n\r\n x\r\n\r\n",
        ] {
            assert!(!is_legible(block), "{:?}", String::from_utf8_lossy(block));
        }
        assert!(is_legible_subject("rowcast.event.tür"));
        for subject in ["rowcast.event.a\u{a0}b", "rowcast.event.a\u{fffd}"] {
            assert!(!is_legible_subject(subject), "{subject}");
        }
    }

    #[test]
    fn those_near_one_another_are_one_stretch() {
        let mut illegible = Illegible::default();
        for seq in [700, 1000, 900, 1064, 1000, 964] {
            illegible.note(seq);
        }
        assert_eq!(
            illegible.stretches,
            BTreeMap::from([(700, 700), (900, 1064)])
        );
        for (from, next) in [
            (1, Some(700)),
            (700, Some(700)),
            (701, Some(900)),
            (950, Some(950)),
            (1064, Some(1064)),
            (1065, None),
        ] {
            assert_eq!(illegible.next(from), next, "{from}");
        }
        illegible.forget(700);
        assert_eq!(illegible.next(1), Some(700));
        illegible.forget(1064);
        assert_eq!(illegible.next(1), Some(900));
        illegible.forget(1065);
        assert_eq!(illegible.next(1), None);
    }

    #[test]
    fn none_is_forgotten_however_many_there_are() {
        let all = || (1..=KNOWN as u64 * 2).map(|nth| nth * 1000);
        for order in [all().collect::<Vec<_>>(), all().rev().collect()] {
            let mut illegible = Illegible::default();
            for seq in order {
                illegible.note(seq);
            }
            assert_eq!(illegible.stretches.len(), KNOWN);
            assert!(all().all(|seq| illegible.next(seq) == Some(seq)));
        }
    }
}
