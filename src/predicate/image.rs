//! A row as a frame shows it → the row as the producer judged it: the encoder's way back
//! (docs/protocol.md §6), by what the table's columns hold.

use serde_json::{Map, Value as Json};

use crate::{
    row::{MAX_SAFE_INTEGER, Names, Row, Value, unhex},
    topic::{Affinity, Kind, Table},
};

/// The image of a row. A column that the table does not have, or whose JSON could not be told from
/// another value's (`json`, `jsonb`), is absent from it.
///
/// SQLite's values are of any class in any column. In a column without a type a text that is
/// spelled like bytes, or like an integer that browsers would round, is taken for one; in a column
/// of numbers also one that is spelled like bytes or an infinity. In a column of texts every string
/// is a text.
pub fn image(table: &Table, shown: &Map<String, Json>) -> Row {
    let known = shown.iter().filter_map(|(name, json)| {
        let column = table.column(name)?;
        let value = match &column.kind {
            Some(kind) => typed(kind, json),
            None => stored(column.affinity, json),
        };
        Some((column.name.clone(), value?))
    });
    let (names, values): (Vec<_>, Vec<_>) = known.unzip();
    Row::new(Names::from(names), values)
}

fn stored(affinity: Affinity, json: &Json) -> Option<Value> {
    let text = match json {
        Json::Null => return Some(Value::Null),
        Json::Number(number) => {
            let integer = number.as_i64().map(Value::Integer);
            return integer.or_else(|| number.as_f64().map(Value::Real));
        }
        Json::String(text) => text,
        Json::Bool(_) | Json::Array(_) | Json::Object(_) => return None,
    };
    if affinity == Affinity::Text {
        return Some(Value::Text(text.clone()));
    }
    if let Some(bytes) = unhex(text) {
        return Some(Value::Blob(bytes));
    }
    let rounded = |integer: &i64| integer.unsigned_abs() > MAX_SAFE_INTEGER.unsigned_abs();
    let spelled = |integer: &i64| integer.to_string() == *text;
    let integer = text.parse().ok().filter(rounded).filter(spelled);
    Some(match (affinity, integer, text.as_str()) {
        (_, Some(integer), _) => Value::Integer(integer),
        (Affinity::Blob, ..) => Value::Text(text.clone()),
        (_, _, "Infinity") => Value::Real(f64::INFINITY),
        (_, _, "-Infinity") => Value::Real(f64::NEG_INFINITY),
        _ => Value::Text(text.clone()),
    })
}

fn typed(kind: &Kind, json: &Json) -> Option<Value> {
    if let Kind::Json = kind {
        return None;
    }
    match (kind, json) {
        (_, Json::Null) => Some(Value::Null),
        (_, Json::Bool(truth)) => Some(Value::Boolean(*truth)),
        (Kind::Float4 | Kind::Float8, Json::Number(number)) => number.as_f64().map(Value::Real),
        (Kind::Float4 | Kind::Float8, Json::String(text)) => text.parse().ok().map(Value::Real),
        (_, Json::Number(number)) => number.as_i64().map(Value::Integer),
        (Kind::Integer, Json::String(text)) => text.parse().ok().map(Value::Integer),
        (Kind::Bytes, Json::String(text)) => unhex(text).map(Value::Blob),
        (_, Json::String(text)) => Some(Value::Text(text.clone())),
        // An array is not NULL; no more is asked of it.
        (_, Json::Array(_) | Json::Object(_)) => Some(Value::Json("[]".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        row::write_object,
        topic::{Collation, Column},
    };

    fn table(columns: &[(Affinity, Option<Kind>)]) -> Table {
        let column = |(index, (affinity, kind)): (usize, &(Affinity, Option<Kind>))| Column {
            name: format!("c{index}").into(),
            declared: String::new(),
            affinity: *affinity,
            kind: kind.clone(),
            collation: Collation::Binary,
            not_null: false,
        };
        Table {
            name: "t".into(),
            columns: columns.iter().enumerate().map(column).collect(),
            primary_key: vec!["c0".into()],
            unique: Vec::new(),
            displaces: false,
        }
    }

    /// Encodes one value of a column, and reads it back.
    fn back(affinity: Affinity, kind: Option<Kind>, value: &Value) -> Option<Value> {
        let mut out = Vec::new();
        write_object(&mut out, std::iter::once(("c0", value)));
        let shown = serde_json::from_slice(&out).unwrap();
        image(&table(&[(affinity, kind)]), &shown)
            .get("c0")
            .cloned()
    }

    #[test]
    fn what_the_encoder_writes_is_read_back() {
        let text = |text: &str| Value::Text(text.into());
        let sqlite = [
            (Affinity::Integer, Value::Integer(i64::MIN)),
            (Affinity::Integer, Value::Real(0.5)),
            (Affinity::Real, Value::Real(3.0)),
            (Affinity::Real, Value::Real(f64::NEG_INFINITY)),
            (Affinity::Text, text("\\x00")),
            (Affinity::Text, text("9007199254740993")),
            (Affinity::Text, text("Infinity")),
            (Affinity::Blob, Value::Integer(9_007_199_254_740_993)),
            (Affinity::Blob, Value::Blob(vec![0, 255])),
            (Affinity::Blob, text("7")),
            (Affinity::Numeric, Value::Null),
        ];
        for (affinity, value) in sqlite {
            assert_eq!(back(affinity, None, &value), Some(value), "{affinity:?}");
        }
        let postgres = [
            (Kind::Integer, Value::Integer(i64::MAX)),
            (Kind::Float8, Value::Real(3.0)),
            (Kind::Float4, Value::Real(f64::INFINITY)),
            (Kind::Numeric, text("1.50")),
            (Kind::Bytes, Value::Blob(vec![1])),
            (Kind::Text, text("\\x00")),
            (Kind::Boolean, Value::Boolean(true)),
        ];
        for (kind, value) in postgres {
            let read = back(Affinity::Blob, Some(kind.clone()), &value);
            assert_eq!(read, Some(value), "{kind:?}");
        }
        assert_eq!(back(Affinity::Blob, Some(Kind::Json), &Value::Null), None);
    }
}
