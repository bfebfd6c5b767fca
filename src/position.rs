//! Where things stand: a [`Checkpoint`] in the source, a [`Position`] in the bus.
//! They are never the same type, so that neither can be taken for the other.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
};

/// The name of one history of the bus: `[a-z0-9]{1,16}`.
///
/// Offsets of different epochs have nothing to do with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

/// Where an event sits in the bus. Its text form `<epoch>:<offset>-<check>` is the wire's `cursor`;
/// without a check, `<epoch>:<offset>`.
///
/// Offsets start at 1 and grow with every event; 0 is "before the first event". Two positions are
/// equal if epoch and offset are: the check says nothing about the place, only whether what sits
/// there is still the same.
#[derive(Debug, Clone)]
pub struct Position {
    /// The history that the offset belongs to.
    pub epoch: Epoch,
    /// The place within that history.
    pub offset: u64,
    /// Of the message that sits there; none where nobody knows it.
    pub check: Option<Check>,
}

/// Twenty bits of what identifies a message on its bus, the same on every gateway.
///
/// A bus restored from a backup gives its offsets to other messages. A cursor from before is told
/// by its check, but for one in a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check(u32);

/// Letters of a check, five bits each. Those that are easily misread are left out.
const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// How far a source has been read.
///
/// Checkpoints of one `source` are ordered by `(high, low)`: a changelog id and 0 for SQLite,
/// a commit LSN and the ordinal within its transaction for PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The source's own epoch: another text means another history of changes.
    pub source: Arc<str>,
    /// Changelog id, or commit LSN.
    pub high: u64,
    /// Ordinal within the transaction.
    pub low: u32,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct BadCursor;

impl Epoch {
    /// Accepts `[a-z0-9]{1,16}`.
    ///
    /// # Errors
    /// [`BadCursor`] for any other text.
    pub fn parse(text: &str) -> Result<Self, BadCursor> {
        let valid = (1..=16).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(BadCursor)
        }
    }

    /// The epoch's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Check {
    /// The check of a message with this identity. Cursors outlive versions, so what it makes of
    /// an identity must never change.
    pub fn of(identity: &[u8]) -> Self {
        // FNV-1a, its bits mixed so that the last byte reaches them all.
        let hash = identity
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self((mixed >> 44) as u32)
    }

    /// Reads four of [`LETTERS`].
    fn parse(text: &str) -> Result<Self, BadCursor> {
        if text.len() != 4 {
            return Err(BadCursor);
        }
        text.bytes().try_fold(Self(0), |Self(bits), byte| {
            let letter = LETTERS.iter().position(|letter| *letter == byte);
            let letter = letter.ok_or(BadCursor)? as u32;
            Ok(Self(bits << 5 | letter))
        })
    }
}

impl Position {
    /// A place whose message nobody has looked at.
    pub fn new(epoch: Epoch, offset: u64) -> Self {
        Self {
            epoch,
            offset,
            check: None,
        }
    }

    /// The place just before the first event of an epoch.
    pub fn start_of(epoch: Epoch) -> Self {
        Self::new(epoch, 0)
    }

    /// The same epoch at another offset.
    pub fn at(&self, offset: u64) -> Self {
        Self::new(self.epoch.clone(), offset)
    }

    /// The same place, with the check of what sits there.
    pub fn checked(self, check: Option<Check>) -> Self {
        Self { check, ..self }
    }

    /// Whether `other`, of the same place, was certainly told of another message.
    pub fn contradicts(&self, other: &Position) -> bool {
        let known = self.check.is_some() && other.check.is_some();
        self == other && known && self.check != other.check
    }
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        (&self.epoch, self.offset) == (&other.epoch, other.offset)
    }
}

impl Eq for Position {}

impl Checkpoint {
    /// Whether both come from one history and this one stands at or after `other`.
    pub fn covers(&self, other: &Checkpoint) -> bool {
        self.source == other.source && (self.high, self.low) >= (other.high, other.low)
    }

    /// Whether a source read this far has told everything that a read of the database saw, for
    /// which `horizon` stands: the same place or a later one, whatever the ordinals.
    pub fn reaches(&self, horizon: &Checkpoint) -> bool {
        self.source == horizon.source && self.high >= horizon.high
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.offset)?;
        match self.check {
            Some(check) => write!(f, "-{check}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for shift in [15, 10, 5, 0] {
            let letter = LETTERS[(self.0 >> shift & 31) as usize];
            f.write_char(char::from(letter))?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (epoch, place) = text.split_once(':').ok_or(BadCursor)?;
        let (offset, check) = match place.split_once('-') {
            Some((offset, check)) => (offset, Some(Check::parse(check)?)),
            None => (place, None),
        };
        // `u64::from_str` also takes a plus sign and leading zeros; a cursor has one spelling.
        let value: u64 = offset.parse().map_err(|_| BadCursor)?;
        if value.to_string() != offset {
            return Err(BadCursor);
        }
        Ok(Self::new(Epoch::parse(epoch)?, value).checked(check))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:x}.{}", self.source, self.high, self.low)
    }
}

impl FromStr for Checkpoint {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (source, place) = text.split_once(':').ok_or(BadCursor)?;
        let (high, low) = place.split_once('.').ok_or(BadCursor)?;
        Ok(Self {
            source: source.into(),
            high: u64::from_str_radix(high, 16).map_err(|_| BadCursor)?,
            low: low.parse().map_err(|_| BadCursor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_one_spelling() {
        let position: Position = "k3:42".parse().unwrap();
        assert_eq!(position.to_string(), "k3:42");
        let position: Position = "k3:42-x7f2".parse().unwrap();
        assert_eq!(position.to_string(), "k3:42-x7f2");
        for bad in [
            "",
            "k3",
            "k3:",
            ":4",
            "k3:+4",
            "k3:04",
            "K3:4",
            "k3:-1",
            "k3:4:5",
            "k 3:4",
            "k3:4-",
            "k3:4-x7f",
            "k3:4-x7f22",
            "k3:4-X7F2",
            "k3:4-x7fo",
            "k3:4-x7f2-",
            "k3-x7f2:4",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(BadCursor), "{bad:?}");
        }
    }

    #[test]
    fn a_check_tells_messages_of_one_place_apart() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        assert!(at("k3:42-x7f2").contradicts(&at("k3:42-x7f3")));
        assert!(!at("k3:42-x7f2").contradicts(&at("k3:42-x7f2")));
        assert!(!at("k3:42-x7f2").contradicts(&at("k3:42")));
        assert!(!at("k3:42-x7f2").contradicts(&at("k3:43-x7f3")));
        assert_eq!(at("k3:42-x7f2"), at("k3:42"));
        // Clients hold such texts over an update of ours.
        assert_eq!(Check::of(b"1790000000000000001").to_string(), "7xqs");
        let mut seen = std::collections::HashSet::new();
        for n in 0..1000 {
            seen.insert(Check::of(format!("visit-{n}").as_bytes()).to_string());
        }
        assert!(seen.len() > 990, "{}", seen.len());
    }

    #[test]
    fn checkpoints_of_two_sources_do_not_compare() {
        let at = |source: &str, high| Checkpoint {
            source: source.into(),
            high,
            low: 0,
        };
        assert!(at("a", 5).covers(&at("a", 5)));
        assert!(!at("a", 4).covers(&at("a", 5)));
        assert!(!at("b", 9).covers(&at("a", 5)));
    }
}
