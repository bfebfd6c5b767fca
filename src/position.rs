//! Where things stand: a [`Checkpoint`] in the source, a [`Position`] in the bus.
//! They are never the same type, so that neither can be taken for the other.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of one history of the bus: `[a-z0-9]{1,16}`.
///
/// Offsets of different epochs have nothing to do with each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Epoch(Arc<str>);

/// Where an event sits in the bus. Its text form `<epoch>:<offset>` is the wire's `cursor`.
///
/// Offsets start at 1 and grow with every event; 0 is "before the first event".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The history that the offset belongs to.
    pub epoch: Epoch,
    /// The place within that history.
    pub offset: u64,
}

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

impl Position {
    /// The place just before the first event of an epoch.
    pub fn start_of(epoch: Epoch) -> Self {
        Self { epoch, offset: 0 }
    }

    /// The same epoch at another offset.
    pub fn at(&self, offset: u64) -> Self {
        Self {
            epoch: self.epoch.clone(),
            offset,
        }
    }
}

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
        write!(f, "{}:{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (epoch, offset) = text.split_once(':').ok_or(BadCursor)?;
        // `u64::from_str` also takes a plus sign and leading zeros; a cursor has one spelling.
        let value: u64 = offset.parse().map_err(|_| BadCursor)?;
        if value.to_string() != offset {
            return Err(BadCursor);
        }
        Ok(Self {
            epoch: Epoch::parse(epoch)?,
            offset: value,
        })
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
        for bad in [
            "", "k3", "k3:", ":4", "k3:+4", "k3:04", "K3:4", "k3:-1", "k3:4:5", "k 3:4",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(BadCursor), "{bad:?}");
        }
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
