//! The rows of all topics, written down as types for other programs.

use std::sync::Arc;

use super::{Table, Topic, schema, typescript};

/// How types are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Notation {
    /// A TypeScript module: an interface for each topic's rows, and `Topics`, which maps the wire's
    /// types to them. It says what a front end works with.
    #[default]
    TypeScript,
    /// One JSON Schema document with a definition for each topic. It admits every value there can be.
    Schema,
}

impl Notation {
    /// What [`Notation::parse`] reads, the default first.
    pub const NAMES: [&str; 2] = ["ts", "schema"];

    /// Reads one of [`Notation::NAMES`].
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "ts" => Some(Self::TypeScript),
            "schema" => Some(Self::Schema),
            _ => None,
        }
    }

    /// Writes the rows of these topics, each with its table or its query's result as it is now, if it
    /// has one. The same topics and tables give the same text; it ends with a line's end.
    pub fn write(self, topics: &[(Arc<Topic>, Option<Table>)]) -> String {
        let topics = topics.iter();
        let topics = topics.map(|(topic, table)| (&**topic, table.as_ref()));
        match self {
            Self::TypeScript => typescript::module(&topics.collect::<Vec<_>>()),
            Self::Schema => format!("{:#}\n", schema::document(topics)),
        }
    }
}
