//! Rows as TypeScript, to be used with client/rowcast.d.ts.
//!
//! A type is what a front end works with, not all that could come: where a JSON Schema must admit a
//! NaN's text in a column of numbers, nobody wants to ask each number whether it is one. Where
//! another type is no rarity, as with 64-bit integers in PostgreSQL, it is told.

use std::{collections::HashSet, fmt::Write};

use super::{Affinity, Base, Column, Kind, Push, Table, Topic, View};

/// The module's first lines.
const HEAD: &str = r#"// Written by `rowcast types`. Write it again after a table or a topic has changed.
//
//   import { connect } from "./rowcast.js";
//   const rowcast = connect<Topics>();
//   const patients = rowcast.live("patient");
//
// A column's type is what it is declared as. Seldom another value comes (docs/protocol.md §6):
"#;

/// What SQLite's types do not say.
const OF_SQLITE: &str = "\
// SQLite keeps any value in any column; an integer beyond ±(2^53 − 1) comes as a string of its digits.
";

/// What PostgreSQL's types do not say.
const OF_POSTGRES: &str = "\
// NaN and infinities come as strings; arrays may hold null, and arrays where they have dimensions.
";

/// The type of an integer that JSON's readers might round.
const INT64: &str = "\
/** A `bigint`: a number within ±(2^53 − 1), beyond it a string of its digits. */
export type Int64 = number | string;
";

/// Names that no topic's interface can have.
const TAKEN: [&str; 2] = ["Topics", "Int64"];

/// A topic's interface, under its name.
struct Interface<'a> {
    topic: &'a Topic,
    view: &'a View,
    name: String,
    body: String,
}

/// A module with an interface for each topic that has a table, and `Topics`.
pub(super) fn module(topics: &[(&Topic, Option<&Table>)]) -> String {
    let mut names = Names::default();
    let mut interfaces = Vec::new();
    let mut map = String::new();
    for (topic, table) in topics {
        let row = match (&topic.view, table) {
            (Some(view), Some(table)) => {
                let (name, body) = (names.of(&topic.name), body(view, table));
                interfaces.push(Interface {
                    topic,
                    view,
                    name: name.clone(),
                    body,
                });
                name
            }
            _ => {
                map += "  /** What applications publish. */\n";
                "unknown".to_owned()
            }
        };
        let _ = writeln!(map, "  {}: {row};", property(&topic.name));
    }
    let columns = || {
        let tables = topics.iter().filter_map(|(_, table)| *table);
        tables.flat_map(|table| &table.columns)
    };
    let mut out = HEAD.to_owned();
    out += match columns().any(|column| column.kind.is_some()) {
        true => OF_POSTGRES,
        false => OF_SQLITE,
    };
    if interfaces.iter().any(|row| row.body.contains("Int64")) {
        out = out + "\n" + INT64;
    }
    for interface in &interfaces {
        out = out + "\n" + &interface.declaration(&interfaces);
    }
    out + "\n/** The rows of each topic, for `connect<Topics>()`. */\nexport interface Topics {\n"
        + &map
        + "}\n"
}

impl Interface<'_> {
    /// An interface; or another name of one with the same columns of the same table.
    fn declaration(&self, all: &[Self]) -> String {
        let same = |other: &&Self| {
            matches!(self.view.base, Base::Table(_))
                && other.view.base == self.view.base
                && other.body == self.body
        };
        let mut alike = all.iter().filter(same);
        let first = alike.clone().next();
        let owner = alike.find(|row| row.topic.push == Push::Row).or(first);
        let (name, topic) = (&self.name, &self.topic.name);
        match owner {
            Some(owner) if owner.name != *name => {
                format!(
                    "/** A row of the topic `{topic}`. */\nexport type {name} = {};\n",
                    owner.name
                )
            }
            _ => format!(
                "/** A row of the topic `{topic}`. Its key: {}. */\nexport interface {name} {{\n{}}}\n",
                comment(&self.view.key.join(", ")),
                self.body
            ),
        }
    }
}

/// The members of an interface, a line each.
fn body(view: &View, table: &Table) -> String {
    let mut out = String::new();
    for column in view.shown(table) {
        if let Some(declared) = told(column) {
            let _ = writeln!(out, "  /** `{}` */", comment(declared));
        }
        let mut of = match &column.kind {
            Some(kind) => of_kind(kind, column),
            None => of_sqlite(column).to_owned(),
        };
        if view.nullable(column) && of != "unknown" {
            of += " | null";
        }
        let _ = writeln!(out, "  {}: {of};", property(&column.name));
    }
    out
}

/// The declared type, where the TypeScript does not say as much.
fn told(column: &Column) -> Option<&str> {
    let plain = match &column.kind {
        Some(Kind::Array { element, .. }) => is_plain(element),
        Some(kind) => is_plain(kind),
        None => !matches!(column.affinity, Affinity::Numeric | Affinity::Blob),
    };
    (!plain && !column.declared.is_empty()).then_some(&column.declared)
}

fn is_plain(kind: &Kind) -> bool {
    use Kind::{Boolean, Enum, Float4, Float8, Integer, Padded, Text};
    matches!(
        kind,
        Boolean | Integer | Float4 | Float8 | Text | Padded | Enum { .. }
    )
}

fn of_kind(kind: &Kind, column: &Column) -> String {
    match kind {
        Kind::Boolean => "boolean".to_owned(),
        Kind::Integer if column.holds_large_integers() => "Int64".to_owned(),
        Kind::Integer | Kind::Oid | Kind::Float4 | Kind::Float8 => "number".to_owned(),
        Kind::Json => "unknown".to_owned(),
        Kind::Enum { labels } if !labels.is_empty() => {
            let labels: Vec<String> = labels.iter().map(|label| text(label)).collect();
            labels.join(" | ")
        }
        Kind::Array { element, .. } => match of_kind(element, column) {
            union if union.contains(" | ") => format!("({union})[]"),
            element => element + "[]",
        },
        _ => "string".to_owned(),
    }
}

/// Of SQLite's declared types; those that are none of its own words are told by what one finds there.
fn of_sqlite(column: &Column) -> &'static str {
    let declared = column.declared.to_ascii_uppercase();
    let says = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    match column.affinity {
        _ if column.holds_anything() => "number | string",
        Affinity::Integer | Affinity::Real => "number",
        Affinity::Text | Affinity::Blob => "string",
        // A truth is 0 or 1.
        Affinity::Numeric if says(&["BOOL", "NUM", "DEC"]) => "number",
        Affinity::Numeric if says(&["DATE", "TIME"]) => "string",
        Affinity::Numeric => "number | string",
    }
}

/// A member's name, in quotes where it is no identifier.
fn property(name: &str) -> String {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '$';
    match name.starts_with(starts) && name.chars().all(|c| starts(c) || c.is_ascii_digit()) {
        true => name.to_owned(),
        false => text(name),
    }
}

/// A text as a literal: JSON's are TypeScript's, too.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A text that cannot end the comment that it stands in.
fn comment(text: &str) -> String {
    text.replace("*/", "*\\/").replace(char::is_control, " ")
}

/// The interfaces' names, each given once.
#[derive(Default)]
struct Names(HashSet<String>);

impl Names {
    /// `all_patient_page_data` → `AllPatientPageData`; with a number where that is another's.
    fn of(&mut self, topic: &str) -> String {
        let words = topic.split(['_', '-']).filter(|word| !word.is_empty());
        let words = words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
        let mut name: String = words.collect();
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            name = format!("Topic{name}");
        }
        let numbered = (2..).map(|n| format!("{name}{n}"));
        let free = std::iter::once(name.clone())
            .chain(numbered)
            .find(|name| !TAKEN.contains(&&**name) && !self.0.contains(name))
            .expect("numbers do not end");
        self.0.insert(free.clone());
        free
    }
}
