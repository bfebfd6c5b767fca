//! Replies that have no exact place in the stream, which they say.

/// Why a reply has no exact place in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inexact {
    /// Nothing says how far the stream has come: no change producer answers.
    Unknown,
    /// The stream did not come far enough in time.
    Late,
    /// What this socket was sent, or stands before what was read, was not visible to the last try.
    Unseen,
}

impl Inexact {
    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Late => "late",
            Self::Unseen => "unseen",
        }
    }
}
