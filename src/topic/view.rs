//! Views: what of a table, or of a query's result, a topic shows.

use std::fmt;

use super::{BadTopic, Column, Kind, Policy, Roles, Shown, Table, TopicSpec};

/// One column of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The column.
    pub column: String,
    /// Largest first.
    pub descending: bool,
}

/// What a view is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Base {
    /// The table of that name.
    Table(String),
    /// The result of a query, which is read again when one of the watched tables changes.
    Query {
        /// One SELECT, without a semicolon at its end.
        sql: String,
        /// At least one, each once.
        watch: Vec<Watch>,
    },
}

/// A query as a table to select from, called `t`. On lines of its own, for it may end in a comment.
pub fn subselect(sql: &str) -> String {
    format!("(\n{sql}\n) t")
}

/// A table that is watched for a query's sake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watch {
    /// Its name as declared.
    pub table: String,
    /// Its primary key, else the columns of a UNIQUE constraint that are NOT NULL; empty where it
    /// has neither.
    pub key: Vec<String>,
}

/// The part of a table, or of a query's result, that a topic shows.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The table, or the query.
    pub base: Base,
    /// The key columns, at least one.
    pub key: Vec<String>,
    /// The columns shown; empty means all, also those added later.
    pub columns: Vec<String>,
    /// The condition's text.
    pub condition: Option<String>,
    /// Which of its rows whom may see; all everybody where none.
    pub policy: Option<Policy>,
    /// Which of its columns; all that are shown everybody where none.
    pub roles: Option<Roles>,
    /// The default order, the key not yet appended.
    pub order: Vec<Order>,
    /// Rows of the default page.
    pub page_size: u32,
    /// The most rows of one page.
    pub max_page_size: u32,
    /// The most rows of an `all` reply.
    pub max_rows: u32,
}

impl View {
    pub(super) fn of_table(spec: &TopicSpec, table: &Table) -> Result<Self, BadTopic> {
        let view = Self::new(spec, table, Base::Table(table.name.clone()))?;
        unique(&view.key, table)?;
        Ok(view)
    }

    pub(super) fn of_query(
        spec: &TopicSpec,
        result: &Table,
        watched: &[Table],
    ) -> Result<Self, BadTopic> {
        let bad = |field, reason: String| Err(BadTopic { field, reason });
        let Shown::Query(sql) = spec.shown()? else {
            return bad("query", "is missing".into());
        };
        let mut watch: Vec<Watch> = Vec::with_capacity(watched.len());
        for table in watched {
            if watch.iter().all(|known| known.table != table.name) {
                watch.push(Watch::of(table));
            }
        }
        let sql = sql.to_owned();
        let view = Self::new(spec, result, Base::Query { sql, watch })?;
        let unordered = |name: &&String| {
            let kind = result.column(name).and_then(|column| column.kind.as_ref());
            matches!(kind, Some(Kind::Json | Kind::Array { .. }))
        };
        match view.key.iter().find(unordered) {
            Some(name) => bad("key", format!("\"{name}\" has no order to page by")),
            None => Ok(view),
        }
    }

    fn new(spec: &TopicSpec, table: &Table, base: Base) -> Result<Self, BadTopic> {
        sizes(spec)?;
        let columns = match spec.columns.iter().any(|column| column == "*") {
            true => Vec::new(),
            false => spec.columns.clone(),
        };
        for column in &columns {
            table
                .column(column)
                .ok_or_else(|| table.unknown("columns", column))?;
        }
        Ok(Self {
            base,
            order: resolve_order(spec, table, &columns)?,
            key: resolve_key(spec, table, &columns)?,
            policy: Policy::of(spec)?,
            roles: Roles::of(spec, table, &columns)?,
            columns,
            condition: spec.r#where.clone().filter(|text| !text.trim().is_empty()),
            page_size: spec.page_size,
            max_page_size: spec.max_page_size,
            max_rows: spec.max_rows,
        })
    }

    /// The tables whose changes concern the view, as declared; at least one.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        let (table, watch) = match &self.base {
            Base::Table(table) => (Some(table), &[][..]),
            Base::Query { watch, .. } => (None, &watch[..]),
        };
        let watched = watch.iter().map(|watch| &watch.table);
        table.into_iter().chain(watched).map(String::as_str)
    }

    /// The default order as the wire spells it, the key not appended.
    pub fn spelled_order(&self) -> Vec<String> {
        self.order.iter().map(ToString::to_string).collect()
    }

    /// The columns of its table, or of its query's result, that clients see.
    pub fn shown<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = &'a Column> {
        let columns = table.columns.iter();
        columns.filter(|column| self.shows(&column.name))
    }

    /// Whether a row may have null in this column: a key's never has.
    pub fn nullable(&self, column: &Column) -> bool {
        !column.not_null && !self.key.iter().any(|key| **key == *column.name)
    }

    /// Whether clients see this column.
    pub fn shows(&self, column: &str) -> bool {
        self.columns.is_empty() || self.columns.iter().any(|shown| shown == column)
    }
}

impl Watch {
    fn of(table: &Table) -> Self {
        let sure = |name: &String| table.column(name).is_some_and(|column| column.not_null);
        let unique = table.unique.iter().find(|set| set.iter().all(sure));
        let key = match (table.primary_key.as_slice(), unique) {
            ([], Some(unique)) => unique.clone(),
            (primary, _) => primary.to_vec(),
        };
        Self {
            table: table.name.clone(),
            key,
        }
    }
}

fn sizes(spec: &TopicSpec) -> Result<(), BadTopic> {
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
    match spec.max_rows {
        0 => bad("max_rows", "at least 1 is needed".into()),
        _ => Ok(()),
    }
}

fn resolve_order(
    spec: &TopicSpec,
    table: &Table,
    shown: &[String],
) -> Result<Vec<Order>, BadTopic> {
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
        if !shown.is_empty() && !shown.contains(&by.column) {
            return Err(BadTopic {
                field: "order_by",
                reason: format!("\"{}\" must be among `columns`", by.column),
            });
        }
    }
    Ok(order)
}

fn bad_order(text: &str) -> BadTopic {
    BadTopic {
        field: "order_by",
        reason: format!("\"{text}\" is not \"column\", \"column asc\" or \"column desc\""),
    }
}

/// The columns that tell rows apart, which are there and shown.
fn resolve_key(spec: &TopicSpec, table: &Table, shown: &[String]) -> Result<Vec<String>, BadTopic> {
    let key = match spec.key.is_empty() {
        true => table.primary_key.clone(),
        false => spec.key.clone(),
    };
    if key.is_empty() {
        return bad_key(format!(
            "{} has no primary key; name unique columns",
            table.called()
        ));
    }
    for column in &key {
        table
            .column(column)
            .ok_or_else(|| table.unknown("key", column))?;
        if !shown.is_empty() && !shown.contains(column) {
            return bad_key(format!("\"{column}\" must be among `columns`"));
        }
    }
    Ok(key)
}

/// The key must be unique, and by a constraint of the table: such columns cannot be dropped while
/// the table stands, so the capture triggers that name them can never break an ALTER TABLE.
fn unique(key: &[String], table: &Table) -> Result<(), BadTopic> {
    let same = |set: &Vec<String>| set.len() == key.len() && set.iter().all(|c| key.contains(c));
    if same(&table.primary_key) {
        return Ok(());
    }
    if !table.unique.iter().any(same) {
        return bad_key(format!(
            "({}) is neither the primary key of \"{}\" nor under a UNIQUE constraint of it",
            key.join(", "),
            table.name
        ));
    }
    // UNIQUE admits any number of rows with NULL, which one key could not tell apart.
    let nullable = |name: &&String| table.column(name).is_some_and(|column| !column.not_null);
    match key.iter().find(nullable) {
        Some(column) => bad_key(format!(
            "\"{column}\" may be NULL; a key's columns must be NOT NULL"
        )),
        None => Ok(()),
    }
}

fn bad_key<T>(reason: String) -> Result<T, BadTopic> {
    Err(BadTopic {
        field: "key",
        reason,
    })
}

/// As [`Order::parse`] reads it: `name`, `name desc`.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        f.write_str(if self.descending { " desc" } else { "" })
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
