//! Topics: the declared kinds of data, and the tables that they are views of.
//! A topic's wire `type` is spelled in the configuration and nowhere else.

mod fingerprint;
mod kind;
mod nearest;

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

pub use kind::Kind;
pub use nearest::nearest;

/// Rows of a page when a request names no size.
pub const DEFAULT_PAGE_SIZE: u32 = 50;

/// The most rows that a request may ask for in one page.
///
/// 200 rows of a few hundred bytes stay well under the 64 KiB that a phone on a bad line takes
/// in one go; who wants more pages on, or asks for `all`.
pub const DEFAULT_MAX_PAGE_SIZE: u32 = 200;

/// The most rows of an `all` reply.
pub const DEFAULT_MAX_ROWS: u32 = 10_000;

/// How a topic's changes reach the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Push {
    /// The changed row.
    #[default]
    Row,
    /// The whole default page after a burst of changes.
    Page,
}

/// A topic as it is written in the configuration, not yet held against the database.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// The wire `type`: `^[A-Za-z0-9_-]{1,64}$`.
    pub r#type: String,
    /// The table; none for a topic that carries application events only.
    #[serde(default)]
    pub table: Option<String>,
    /// The key columns; the table's primary key where empty.
    #[serde(default)]
    pub key: Vec<String>,
    /// The columns that clients see; `["*"]`, or nothing, is all of them.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The view's condition, in the documented SQL subset.
    #[serde(default)]
    pub r#where: Option<String>,
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
    /// How changes are pushed.
    #[serde(default)]
    pub push: Push,
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

/// What SQLite does to a value before it compares it with the column (sqlite.org/datatype3 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Declared INT…
    Integer,
    /// Declared CHAR, CLOB, TEXT.
    Text,
    /// Declared BLOB, or without a type: nothing is converted.
    Blob,
    /// Declared REAL, FLOA, DOUB.
    Real,
    /// Anything else: DATE, BOOLEAN, DECIMAL…
    Numeric,
}

/// How two texts of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    /// Byte by byte.
    Binary,
    /// As `Binary`, ASCII letters without regard to case.
    NoCase,
    /// As `Binary`, trailing spaces ignored.
    RTrim,
    /// Equal only byte by byte, but ordered by the rules of a language. PostgreSQL only.
    Locale,
    /// Defined by some program: Rust cannot follow it.
    Other,
}

/// One column of a table, as the database describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The name as declared.
    pub name: Arc<str>,
    /// The declared type, possibly empty.
    pub declared: String,
    /// What that type means for comparisons in SQLite; [`Affinity::Blob`] elsewhere.
    pub affinity: Affinity,
    /// What a PostgreSQL column holds; `None` in SQLite, where any column holds anything.
    pub kind: Option<Kind>,
    /// How texts compare.
    pub collation: Collation,
    /// Declared NOT NULL.
    pub not_null: bool,
}

/// A table, as the database describes it at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The name as declared.
    pub name: String,
    /// In declaration order, without hidden ones.
    pub columns: Vec<Column>,
    /// The primary key's columns in key order; empty where the table declares none.
    pub primary_key: Vec<String>,
    /// Column sets under a UNIQUE constraint of the table itself.
    pub unique: Vec<Vec<String>>,
    /// Whether REPLACE may displace a row of another key: there is a unique index beside the
    /// primary key, or two spellings of one primary key.
    pub displaces: bool,
}

/// One column of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: String,
    /// Largest first.
    pub descending: bool,
}

/// A declared kind of data.
#[derive(Debug, Clone, PartialEq)]
pub struct Topic {
    /// The wire `type`.
    pub name: Arc<str>,
    /// The table, its key and what is shown of it; none for application events only.
    pub view: Option<View>,
    /// How changes are pushed.
    pub push: Push,
}

/// The part of a table that a topic shows.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The table's name.
    pub table: String,
    /// The key columns, at least one.
    pub key: Vec<String>,
    /// The columns shown; empty means all, also those added later.
    pub columns: Vec<String>,
    /// The condition's text.
    pub condition: Option<String>,
    /// The default order, the key not yet appended.
    pub order: Vec<Order>,
    /// Rows of the default page.
    pub page_size: u32,
    /// The most rows of one page.
    pub max_page_size: u32,
    /// The most rows of an `all` reply.
    pub max_rows: u32,
}

/// Why a topic cannot be what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct BadTopic {
    /// The configuration key within the topic, such as `order_by`.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub reason: String,
}

/// All topics of a gateway, by name.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    list: Arc<[Arc<Topic>]>,
    by_name: Arc<HashMap<Arc<str>, usize>>,
}

// === impl Table ===

impl Table {
    /// The column of that name, letter by letter.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| &*column.name == name)
    }

    /// An error for a column that does not exist, with the nearest one that does.
    fn unknown(&self, field: &'static str, name: &str) -> BadTopic {
        let nearest = nearest(name, self.columns.iter().map(|c| &*c.name));
        let hint = nearest.map_or_else(
            || format!("its columns are {}", self.names().join(", ")),
            |near| format!("did you mean \"{near}\"?"),
        );
        BadTopic {
            field,
            reason: format!("table \"{}\" has no column \"{name}\"; {hint}", self.name),
        }
    }

    fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| &*column.name).collect()
    }
}

// === impl Topic ===

/// Whether a text may be a topic's wire `type`: `^[A-Za-z0-9_-]{1,64}$`.
pub fn is_topic_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

impl Topic {
    /// Holds a specification against the table that it names.
    ///
    /// `table` is what the database says of `spec.table`, and `None` when the topic has no table.
    ///
    /// # Errors
    /// [`BadTopic`] names the configuration key, what is wrong and what is allowed. The
    /// condition is only carried, not parsed: see [`crate::predicate`].
    pub fn resolve(spec: &TopicSpec, table: Option<&Table>) -> Result<Self, BadTopic> {
        let bad = |field, reason: String| Err(BadTopic { field, reason });
        if !is_topic_name(&spec.r#type) {
            return bad("type", "1 to 64 of A-Z a-z 0-9 _ - are allowed".into());
        }
        let view = table.map(|table| View::resolve(spec, table)).transpose()?;
        if let (None, Some(field)) = (&view, needs_table(spec)) {
            return bad(field, "needs a table; name one with `table`".into());
        }
        Ok(Self {
            name: spec.r#type.as_str().into(),
            view,
            push: spec.push,
        })
    }
}

/// A setting that makes no sense for a topic that carries application events only.
fn needs_table(spec: &TopicSpec) -> Option<&'static str> {
    let settings = [
        ("push", spec.push == Push::Page),
        ("key", !spec.key.is_empty()),
        ("columns", !spec.columns.is_empty()),
        ("where", spec.r#where.is_some()),
        ("order_by", !spec.order_by.is_empty()),
    ];
    settings
        .into_iter()
        .find(|(_, given)| *given)
        .map(|(field, _)| field)
}

impl View {
    fn resolve(spec: &TopicSpec, table: &Table) -> Result<Self, BadTopic> {
        let bad = |field, reason: String| Err(BadTopic { field, reason });
        if !(1..=100_000).contains(&spec.max_page_size) {
            return bad("max_page_size", "1 to 100000 are allowed".into());
        }
        if !(1..=spec.max_page_size).contains(&spec.page_size) {
            return bad(
                "page_size",
                format!("1 to max_page_size ({}) are allowed", spec.max_page_size),
            );
        }
        if spec.max_rows == 0 {
            return bad("max_rows", "at least 1 is needed".into());
        }
        let columns = match spec.columns.iter().any(|column| column == "*") {
            true => Vec::new(),
            false => spec.columns.clone(),
        };
        for column in &columns {
            table
                .column(column)
                .ok_or_else(|| table.unknown("columns", column))?;
        }
        let order = spec
            .order_by
            .iter()
            .map(|text| Order::parse(text).ok_or_else(|| bad_order(text)))
            .collect::<Result<Vec<_>, _>>()?;
        for by in &order {
            table
                .column(&by.column)
                .ok_or_else(|| table.unknown("order_by", &by.column))?;
            // `page.next` carries the last row's values of these columns to the client.
            if !columns.is_empty() && !columns.contains(&by.column) {
                return bad(
                    "order_by",
                    format!("\"{}\" must be among `columns`", by.column),
                );
            }
        }
        Ok(Self {
            table: table.name.clone(),
            key: resolve_key(spec, table, &columns)?,
            columns,
            condition: spec.r#where.clone().filter(|text| !text.trim().is_empty()),
            order,
            page_size: spec.page_size,
            max_page_size: spec.max_page_size,
            max_rows: spec.max_rows,
        })
    }

    /// Whether clients see this column.
    pub fn shows(&self, column: &str) -> bool {
        self.columns.is_empty() || self.columns.iter().any(|shown| shown == column)
    }
}

fn bad_order(text: &str) -> BadTopic {
    BadTopic {
        field: "order_by",
        reason: format!("\"{text}\" is not \"column\", \"column asc\" or \"column desc\""),
    }
}

/// The key must be unique, and by a constraint of the table: such columns cannot be dropped while
/// the table stands, so the capture triggers that name them can never break an ALTER TABLE.
fn resolve_key(spec: &TopicSpec, table: &Table, shown: &[String]) -> Result<Vec<String>, BadTopic> {
    let bad = |reason| {
        Err(BadTopic {
            field: "key",
            reason,
        })
    };
    let key = match spec.key.is_empty() {
        true => table.primary_key.clone(),
        false => spec.key.clone(),
    };
    if key.is_empty() {
        return bad(format!(
            "table \"{}\" has no primary key; name unique columns",
            table.name
        ));
    }
    for column in &key {
        table
            .column(column)
            .ok_or_else(|| table.unknown("key", column))?;
        if !shown.is_empty() && !shown.contains(column) {
            return bad(format!("\"{column}\" must be among `columns`"));
        }
    }
    let same = |set: &Vec<String>| set.len() == key.len() && set.iter().all(|c| key.contains(c));
    if same(&table.primary_key) {
        return Ok(key);
    }
    if !table.unique.iter().any(same) {
        return bad(format!(
            "({}) is neither the primary key of \"{}\" nor under a UNIQUE constraint of it",
            key.join(", "),
            table.name
        ));
    }
    // UNIQUE admits any number of rows with NULL, which one key could not tell apart.
    let nullable = |name: &&String| table.column(name).is_some_and(|column| !column.not_null);
    match key.iter().find(nullable) {
        Some(column) => bad(format!(
            "\"{column}\" may be NULL; a key's columns must be NOT NULL"
        )),
        None => Ok(key),
    }
}

impl Order {
    /// Reads `"name"`, `"name asc"` or `"name desc"`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (column, descending) = match text.rsplit_once(char::is_whitespace) {
            Some((column, word)) if word.eq_ignore_ascii_case("asc") => (column, false),
            Some((column, word)) if word.eq_ignore_ascii_case("desc") => (column, true),
            // A name may hold spaces; whether it is one is for the table to say.
            _ => (text, false),
        };
        let column = column.trim_end().to_owned();
        (!column.is_empty()).then_some(Self { column, descending })
    }
}

// === impl Topics ===

impl Topics {
    /// Gathers topics in the order of the configuration.
    ///
    /// # Errors
    /// [`BadTopic`] where two share a name.
    pub fn new(topics: Vec<Topic>) -> Result<Self, BadTopic> {
        let mut by_name = HashMap::new();
        for (index, topic) in topics.iter().enumerate() {
            if by_name.insert(topic.name.clone(), index).is_some() {
                return Err(BadTopic {
                    field: "type",
                    reason: format!("\"{}\" is declared twice", topic.name),
                });
            }
        }
        Ok(Self {
            list: topics.into_iter().map(Arc::new).collect(),
            by_name: Arc::new(by_name),
        })
    }

    /// The topic of that wire `type`.
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name).map(|&index| &self.list[index])
    }

    /// All topics, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.list.iter()
    }
}
