//! The mark that every published event carries, and by which a delivery is known again: `@`, the
//! time it was due (19 digits, nanoseconds of the wall clock), `#`, and its number (8 digits).

use std::time::SystemTime;

/// Bytes of a mark.
pub const MARK_BYTES: usize = 29;

/// The most events of a run: what the number has digits for.
pub const MAX_EVENTS: u64 = 100_000_000;

/// Where the number begins.
const NUMBER_AT: usize = 21;

/// Digits of the time that are read in one piece, twice.
const PIECE: usize = 8;

/// When an event was due, and which one it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Nanoseconds of the wall clock. Of an open loop the moment at which the event was scheduled,
    /// however late it was sent: a server that makes its publisher wait does not look better for it.
    pub due_ns: u64,
    /// Counts from 0.
    pub number: u64,
}

/// The wall clock in nanoseconds: the server's other side may be another process.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

impl Mark {
    /// Appends the mark.
    pub fn write(self, out: &mut Vec<u8>) {
        let Self { due_ns, number } = self;
        out.extend_from_slice(format!("@{due_ns:019}#{number:08}").as_bytes());
    }

    /// The first mark in `bytes`, and where what follows it begins.
    pub fn find(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut from = 0;
        while let Some(at) = memchr::memchr(b'@', &bytes[from..]) {
            let begin = from + at;
            let end = begin + MARK_BYTES;
            let found = bytes.get(begin..end)?;
            if let Some(mark) = Self::read(found) {
                return Some((mark, end));
            }
            from = begin + 1;
        }
        None
    }

    fn read(text: &[u8]) -> Option<Self> {
        if text[NUMBER_AT - 1] != b'#' {
            return None;
        }
        let high = eight(&text[1..])?;
        let middle = eight(&text[1 + PIECE..])?;
        let low = &text[1 + 2 * PIECE..NUMBER_AT - 1];
        if !low.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let low = low
            .iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let due_ns = (high * 100_000_000 + middle).checked_mul(1_000)?;
        Some(Self {
            due_ns: due_ns.checked_add(low)?,
            number: eight(&text[NUMBER_AT..])?,
        })
    }
}

/// The value of eight digits, all at once: this is done millions of times a second. The digits lie in
/// one word, and neighbours are joined to pairs, fours and then all of them.
fn eight(text: &[u8]) -> Option<u64> {
    let word = u64::from_le_bytes(text[..PIECE].try_into().ok()?);
    let high = 0xf0f0_f0f0_f0f0_f0f0;
    let zeros = 0x3030_3030_3030_3030;
    // Above '9' adding six changes the upper half of the byte.
    let beyond = word.wrapping_add(0x0606_0606_0606_0606);
    if word & high != zeros || beyond & high != zeros {
        return None;
    }
    let digits = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(2561) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(6_553_601) >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(42_949_672_960_001) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(due_ns: u64, number: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Mark { due_ns, number }.write(&mut out);
        out
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for (due_ns, number) in [
            (0, 0),
            (1_795_478_400_123_456_789, 98_765_432),
            (now_ns(), 7),
        ] {
            let text = written(due_ns, number);
            assert_eq!(text.len(), MARK_BYTES);
            let expected = Mark { due_ns, number };
            assert_eq!(Mark::find(&text), Some((expected, MARK_BYTES)));
        }
    }

    #[test]
    fn it_is_found_among_other_text_and_only_where_it_is_one() {
        let mut text = b"{\"mail\":\"a@b.example\",\"data\":\"".to_vec();
        let at = text.len();
        text.extend(written(5, 6));
        text.extend(b"xxx\"}");
        let mark = Mark {
            due_ns: 5,
            number: 6,
        };
        assert_eq!(Mark::find(&text), Some((mark, at + MARK_BYTES)));
        assert_eq!(Mark::find(&text[..at + 20]), None);
        for broken in [
            "@00000000000000000a5#00000006",
            "@0000000000000000005#0000:006",
        ] {
            assert_eq!(Mark::find(broken.as_bytes()), None, "{broken}");
        }
    }
}
