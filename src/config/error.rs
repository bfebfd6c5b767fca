//! Why a configuration is refused: one to three plain lines that name the place, what is wrong,
//! what is allowed, and the nearest spelling.

use std::{fmt, path::PathBuf};

use super::masked::{choice as repeated, masked};
use crate::topic::nearest;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Defaults,
    /// A configuration file.
    File(PathBuf),
    /// A place in a file that is no TOML.
    Place {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line, with its dashes.
    Flag(&'static str),
}

/// A configuration that cannot be used. The process exits with 64.
///
/// Displays as one to three lines. Values are repeated only where they cannot hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was written.
    pub origin: Origin,
    /// The key's path, such as `topics[1].push`; empty where the whole file is meant.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What is allowed, or what to write instead.
    pub advice: Option<String>,
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("built-in defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Place { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

// === impl ConfigError ===

impl ConfigError {
    /// An error without advice.
    pub fn new(origin: Origin, key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            origin,
            key: key.into(),
            problem: problem.into(),
            advice: None,
        }
    }

    /// The same with what to do instead.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Reads what serde said about the value at `key`.
    ///
    /// Serde knows the allowed names and tells them in its message only; a test holds the form.
    pub(super) fn from_serde(origin: Origin, key: String, message: &str) -> Self {
        let names: Vec<_> = message.split('`').skip(1).step_by(2).collect();
        let kind = message.split(['`', ':']).next().unwrap_or(message).trim();
        match (kind, names.as_slice()) {
            ("unknown field", [name, known @ ..]) => {
                Self::new(origin, key, "unknown key").advise(choice(name, known))
            }
            ("unknown variant", [name, known @ ..]) => {
                Self::new(origin, key, format!("{} is not allowed", repeated(name)))
                    .advise(choice(name, known))
            }
            ("missing field", [name]) => Self::new(origin, key, format!("\"{name}\" is missing")),
            ("invalid type" | "invalid value", _) => Self::new(origin, key, mismatch(message)),
            _ => Self::new(origin, key, message),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&masked(&self.problem))?;
        match &self.advice {
            Some(advice) => write!(f, "\n  {}", masked(advice)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// `did you mean "push"? allowed: type, table, …`
fn choice(name: &str, known: &[&str]) -> String {
    let allowed = format!("allowed: {}", known.join(", "));
    match nearest(&name.to_ascii_lowercase(), known.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"? {allowed}"),
        None => allowed,
    }
}

/// Turns `invalid type: string "x", expected u32` into words of a configuration. The value is
/// left out: it may be a secret in the wrong place.
fn mismatch(message: &str) -> String {
    let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let found = found.split_once(": ").map_or(found, |(_, rest)| rest);
    let needed = match expected {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "a map" => "a section",
        "i64" => "a whole number",
        "u32" => "a whole number from 0 to 4294967295",
        other if other.starts_with("struct") => "a section",
        other if other.contains("string") => "a text in quotes",
        other => other,
    };
    let found = match found.split([' ', '`']).next() {
        _ if message.starts_with("invalid value") => None,
        Some("string") => Some("a text"),
        Some("integer") => Some("a whole number"),
        Some("floating") => Some("a fraction"),
        Some("boolean") => Some("true or false"),
        Some("sequence") => Some("a list"),
        Some("map") => Some("a section"),
        _ => None,
    };
    match found {
        Some(found) => format!("{needed} is needed, not {found}"),
        None => format!("{needed} is needed"),
    }
}
