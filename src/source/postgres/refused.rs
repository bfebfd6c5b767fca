//! Why a session does not begin, or has ended: a text for the operator, with the remedy.

use crate::source::SourceError;

/// The text of a [`SourceError::Unavailable`].
#[derive(Debug)]
pub struct Refused {
    message: String,
}

impl Refused {
    /// Says so.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// Says what was tried, and what came of it.
    pub fn while_doing(what: &str, err: impl std::fmt::Display) -> Self {
        Self::new(format!("{what}: {err}"))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl From<tokio_postgres::Error> for Refused {
    fn from(err: tokio_postgres::Error) -> Self {
        // The driver's own text for what the server said is "db error".
        Self::new(match (err.as_db_error(), std::error::Error::source(&err)) {
            (Some(said), _) => said.to_string(),
            (None, Some(cause)) => format!("{err}: {cause}"),
            (None, None) => err.to_string(),
        })
    }
}

impl From<Refused> for SourceError {
    fn from(refused: Refused) -> Self {
        Self::Unavailable(Box::new(refused))
    }
}
