//! Rows as JSON Schema, which admits every value that docs/protocol.md §6 lets a column have.

use serde_json::{Map, Value as Json, json};

use super::{Affinity, Column, Kind, Table, Topic};

/// The dialect that the schemas are written in.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

impl Topic {
    /// The JSON Schema of a row. `table` is the topic's table, or its query's result, as it is now;
    /// a topic that has neither admits anything.
    ///
    /// SQLite stores any type in any column, so there types are what is declared.
    pub fn schema(&self, table: &Table) -> Json {
        let mut schema = Map::from_iter([("$schema".to_owned(), DIALECT.into())]);
        schema.extend(row(self, Some(table)));
        schema.into()
    }
}

/// The rows of all topics in one document, each under its name in `$defs`.
pub(super) fn document<'a>(topics: impl Iterator<Item = (&'a Topic, Option<&'a Table>)>) -> Json {
    let rows = topics.map(|(topic, table)| (topic.name.to_string(), row(topic, table).into()));
    json!({ "$schema": DIALECT, "$defs": rows.collect::<Map<_, _>>() })
}

fn row(topic: &Topic, table: Option<&Table>) -> Map<String, Json> {
    let mut schema = Map::from_iter([("title".to_owned(), topic.name.as_ref().into())]);
    if let (Some(view), Some(table)) = (&topic.view, table) {
        let properties = view.shown(table).map(|column| {
            let schema = of_column(column, view.nullable(column));
            (column.name.to_string(), schema)
        });
        let required = view.shown(table).map(|column| Json::from(&*column.name));
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), Json::Object(properties.collect()));
        schema.insert("required".to_owned(), required.collect());
    }
    schema
}

fn of_column(column: &Column, nullable: bool) -> Json {
    let mut schema = match &column.kind {
        Some(kind) => of_kind(kind, column.holds_large_integers()),
        None if column.holds_anything() => json!({ "type": ["number", "string"] }),
        None => of_affinity(column.affinity),
    };
    if nullable {
        admit(&mut schema, "null");
    }
    schema
}

/// Lets a value be of that type, too.
fn admit(schema: &mut Json, word: &str) {
    if let Some(types) = schema["type"].as_array_mut()
        && !types.contains(&word.into())
    {
        types.push(word.into());
    }
    if let Some(labels) = schema.get_mut("enum").and_then(Json::as_array_mut)
        && word == "null"
    {
        labels.push(Json::Null);
    }
}

fn of_affinity(affinity: Affinity) -> Json {
    json!({ "type": match affinity {
        // An integer beyond 2^53 − 1 is a string.
        Affinity::Integer => &["integer", "string"][..],
        Affinity::Real | Affinity::Numeric => &["number", "string"],
        Affinity::Text | Affinity::Blob => &["string"],
    } })
}

fn of_kind(kind: &Kind, large: bool) -> Json {
    let types: &[&str] = match kind {
        Kind::Boolean => &["boolean"],
        Kind::Integer if large => &["integer", "string"],
        Kind::Integer | Kind::Oid => &["integer"],
        // NaN and infinities are strings.
        Kind::Float4 | Kind::Float8 => &["number", "string"],
        Kind::Json => &["object", "array", "string", "number", "boolean", "null"],
        Kind::Array { element, .. } => {
            // Of any number of dimensions, and any element may be NULL.
            let mut items = of_kind(element, large);
            admit(&mut items, "array");
            admit(&mut items, "null");
            if let Some(items) = items.as_object_mut() {
                // An array within is none of the labels.
                items.remove("enum");
            }
            return json!({ "type": ["array"], "items": items });
        }
        Kind::Enum { labels } => {
            return json!({ "type": ["string"], "enum": &labels[..] });
        }
        _ => &["string"],
    };
    json!({ "type": types })
}
