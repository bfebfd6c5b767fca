//! Topics as they are written in the configuration.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{BadTopic, Push};

/// Rows of a page when a request names no size.
pub const DEFAULT_PAGE_SIZE: u32 = 50;

/// The most rows that a request may ask for in one page.
///
/// 200 rows of a few hundred bytes stay well under the 64 KiB that a phone on a bad line takes
/// in one go; who wants more pages on, or asks for `all`.
pub const DEFAULT_MAX_PAGE_SIZE: u32 = 200;

/// The most rows of an `all` reply.
pub const DEFAULT_MAX_ROWS: u32 = 10_000;

/// A topic as it is written in the configuration, not yet held against the database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// The wire `type`: `^[A-Za-z0-9_-]{1,64}$`.
    pub r#type: String,
    /// The table; none for a topic over a query, and for one that carries application events only.
    #[serde(default)]
    pub table: Option<String>,
    /// One SELECT, such as a join, whose result is shown instead of a table.
    #[serde(default)]
    pub query: Option<String>,
    /// The tables whose changes touch the query's result.
    #[serde(default)]
    pub watch: Vec<String>,
    /// The key columns; the table's primary key where empty. A query needs some.
    #[serde(default)]
    pub key: Vec<String>,
    /// The columns that clients see; `["*"]`, or nothing, is all of them.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The view's condition, in the documented SQL subset.
    #[serde(default)]
    pub r#where: Option<String>,
    /// Which rows whom may see: a condition over the columns and, as `token.NAME`, the claims.
    #[serde(default)]
    pub policy: Option<String>,
    /// The claim that says who somebody is to `columns_by_role`; `token.role` where none.
    #[serde(default)]
    pub role: Option<String>,
    /// The columns that each role sees; who has none of the roles does not see the topic.
    #[serde(default)]
    pub columns_by_role: BTreeMap<String, Vec<String>>,
    /// The default order: `"name"`, `"name asc"` or `"name desc"`; the key is appended.
    #[serde(default)]
    pub order_by: Vec<String>,
    /// Rows of the default page.
    #[serde(default = "default_page_size")]
    pub page_size: u32,
    /// The most rows of one page.
    #[serde(default = "default_max_page_size")]
    pub max_page_size: u32,
    /// The most rows of an `all` reply.
    #[serde(default = "default_max_rows")]
    pub max_rows: u32,
    /// How changes are pushed: rows where nothing is said, pages where there is a query.
    #[serde(default)]
    pub push: Option<Push>,
}

fn default_page_size() -> u32 {
    DEFAULT_PAGE_SIZE
}

fn default_max_page_size() -> u32 {
    DEFAULT_MAX_PAGE_SIZE
}

fn default_max_rows() -> u32 {
    DEFAULT_MAX_ROWS
}

/// What a specification shows, as far as it says one thing only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown<'a> {
    /// Nothing: the topic carries application events only.
    Nothing,
    /// The table of that name.
    Table(&'a str),
    /// The result of this SELECT, without the semicolon that may have ended it.
    Query(&'a str),
}

impl TopicSpec {
    /// What the topic shows. Whether the database knows it is for the database to say.
    ///
    /// # Errors
    /// [`BadTopic`] where keys stand together that contradict each other, and where the query does
    /// not begin as a SELECT does.
    pub fn shown(&self) -> Result<Shown<'_>, BadTopic> {
        let bad = |field, reason: &str| {
            let reason = reason.to_owned();
            Err(BadTopic { field, reason })
        };
        let Some(query) = &self.query else {
            return match &self.table {
                _ if !self.watch.is_empty() => bad(
                    "watch",
                    "belongs to a `query`; a `table` is watched by itself",
                ),
                Some(table) => Ok(Shown::Table(table)),
                None => Ok(Shown::Nothing),
            };
        };
        if self.table.is_some() {
            return bad(
                "query",
                "a topic shows a `table` or a `query`; name one of them",
            );
        }
        if self.watch.is_empty() {
            return bad(
                "watch",
                "a `query` needs the tables whose changes touch it, such as [\"visit\", \"patient\"]",
            );
        }
        if self.r#where.is_some() {
            return bad("where", "a `query` has its condition in itself");
        }
        if self.push == Some(Push::Row) {
            return bad(
                "push",
                "a topic over a `query` pushes pages: \"page\", or nothing",
            );
        }
        if self.key.is_empty() {
            return bad(
                "key",
                "a `query` needs columns of its result that tell its rows apart",
            );
        }
        let query = query.trim_end_matches(|c: char| c.is_whitespace() || c == ';');
        let word = first_word(query);
        if !["select", "with"]
            .map(str::to_owned)
            .contains(&word.to_ascii_lowercase())
        {
            return bad("query", "must be one SELECT, or WITH … SELECT");
        }
        Ok(Shown::Query(query))
    }

    /// How changes are pushed.
    pub fn push(&self) -> Push {
        self.push.unwrap_or(match self.query {
            Some(_) => Push::Page,
            None => Push::Row,
        })
    }

    /// A setting that makes no sense for a topic that carries application events only.
    pub(super) fn needs_table(&self) -> Option<&'static str> {
        let settings = [
            ("push", self.push == Some(Push::Page)),
            ("key", !self.key.is_empty()),
            ("columns", !self.columns.is_empty()),
            ("where", self.r#where.is_some()),
            ("policy", self.policy.is_some()),
            ("role", self.role.is_some()),
            ("columns_by_role", !self.columns_by_role.is_empty()),
            ("order_by", !self.order_by.is_empty()),
        ];
        settings
            .into_iter()
            .find(|(_, given)| *given)
            .map(|(field, _)| field)
    }
}

/// The first word of an SQL text, behind blanks and comments; empty where it begins otherwise.
fn first_word(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        rest = if let Some(comment) = rest.strip_prefix("--") {
            comment.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            break;
        }
        .trim_start();
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    &rest[..end.unwrap_or(rest.len())]
}
