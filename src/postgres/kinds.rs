//! PostgreSQL's types → kinds, and their text → values (docs/protocol.md §6).
//!
//! The text is what the type's output function writes under
//! [`SESSION_OPTIONS`](super::SESSION_OPTIONS): the change stream sends it, and queries ask for it.

use std::{collections::HashMap, sync::Arc};

use tokio_postgres::{Client, Error};

use super::arrays;
use crate::{
    row::{Value, unhex},
    topic::Kind,
};

/// The kinds of the types that a database has beside PostgreSQL's own.
///
/// A type's kind never changes while it exists, but for the labels of an enum; and an OID is not
/// used again soon. So what was resolved once stays.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    known: HashMap<u32, Kind>,
}

/// One line of `pg_type`.
struct Described {
    domain_of: Option<u32>,
    element: Option<(u32, char)>,
    labels: Option<Arc<[Box<str>]>>,
}

/// The types asked for, with those that they are made of.
const TYPES: &str = "
    WITH RECURSIVE needed(oid) AS (
        SELECT unnest($1::pg_catalog.oid[])
        UNION
        SELECT part.oid FROM needed JOIN pg_catalog.pg_type t USING (oid)
        CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) part(oid) WHERE part.oid <> 0
    )
    SELECT t.oid, t.typtype = 'd', t.typbasetype,
        t.typoutput = 'pg_catalog.array_out'::pg_catalog.regproc, t.typelem,
        (SELECT e.typdelim FROM pg_catalog.pg_type e WHERE e.oid = t.typelem),
        CASE WHEN t.typtype = 'e' THEN (SELECT pg_catalog.array_agg(l.enumlabel::text
            ORDER BY l.enumsortorder) FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid) END
    FROM needed JOIN pg_catalog.pg_type t USING (oid)";

impl Catalog {
    /// The kind of a type; `None` where it was never resolved.
    pub fn get(&self, oid: u32) -> Option<Kind> {
        builtin(oid).or_else(|| self.known.get(&oid).cloned())
    }

    /// Learns the kinds of these types, as far as they are not known. A type that does not exist
    /// (any more) is [`Kind::Other`]. Afterwards [`Catalog::get`] knows every one of them.
    ///
    /// # Errors
    /// What PostgreSQL says; nothing was learned.
    pub async fn resolve(&mut self, client: &Client, oids: &[u32]) -> Result<(), Error> {
        let unknown: Vec<u32> = oids
            .iter()
            .copied()
            .filter(|oid| self.get(*oid).is_none())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let mut found = HashMap::new();
        for row in client.query(TYPES, &[&unknown]).await? {
            let delimiter: Option<i8> = row.try_get(5)?;
            let delimiter = delimiter.map_or(',', |byte| char::from(byte.unsigned_abs()));
            let labels: Option<Vec<String>> = row.try_get(6)?;
            let described = Described {
                domain_of: row.try_get::<_, bool>(1)?.then_some(row.try_get(2)?),
                element: match row.try_get(3)? {
                    true => Some((row.try_get(4)?, delimiter)),
                    false => None,
                },
                labels: labels.map(|labels| labels.into_iter().map(String::into).collect()),
            };
            found.insert(row.try_get(0)?, described);
        }
        for oid in unknown {
            let kind = kind(oid, &found);
            self.known.insert(oid, kind);
        }
        Ok(())
    }
}

/// PostgreSQL admits no type that contains itself in this way, so this ends.
fn kind(oid: u32, found: &HashMap<u32, Described>) -> Kind {
    if let Some(kind) = builtin(oid) {
        return kind;
    }
    match found.get(&oid) {
        Some(Described {
            domain_of: Some(base),
            ..
        }) => kind(*base, found),
        Some(Described {
            element: Some((element, delimiter)),
            ..
        }) => Kind::Array {
            element: Box::new(kind(*element, found)),
            delimiter: *delimiter,
        },
        Some(Described {
            labels: Some(labels),
            ..
        }) => Kind::Enum {
            labels: labels.clone(),
        },
        _ => Kind::Other,
    }
}

/// The kind of one of PostgreSQL's own types, as far as it is not [`Kind::Other`].
pub fn builtin(oid: u32) -> Option<Kind> {
    let array = |element| {
        Some(Kind::Array {
            element: Box::new(builtin(element)?),
            delimiter: ',',
        })
    };
    Some(match oid {
        16 => Kind::Boolean,
        20 | 21 | 23 => Kind::Integer,
        26 => Kind::Oid,
        700 => Kind::Float4,
        701 => Kind::Float8,
        1700 => Kind::Numeric,
        25 | 1043 => Kind::Text,
        1042 => Kind::Padded,
        1184 => Kind::Timestamptz,
        1114 => Kind::Timestamp,
        1082 => Kind::Date,
        1083 => Kind::Time,
        2950 => Kind::Uuid,
        114 | 3802 => Kind::Json,
        17 => Kind::Bytes,
        1000 => return array(16),
        1005 | 1007 | 1016 => return array(20),
        1021 => return array(700),
        1022 => return array(701),
        1231 => return array(1700),
        1009 | 1015 => return array(25),
        1185 => return array(1184),
        2951 => return array(2950),
        199 | 3807 => return array(114),
        _ => return None,
    })
}

/// A value of a kind, from the text that PostgreSQL writes for it.
///
/// What is no such text, as far as that can be told, stays a text: this never fails.
pub fn value(kind: &Kind, text: &str) -> Value {
    typed(kind, text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn typed(kind: &Kind, text: &str) -> Option<Value> {
    match kind {
        Kind::Boolean => match text {
            "t" | "true" => Some(Value::Boolean(true)),
            "f" | "false" => Some(Value::Boolean(false)),
            _ => None,
        },
        Kind::Integer | Kind::Oid => text.parse().ok().map(Value::Integer),
        // The shortest digits that tell one `real` from the next are few: as a double they stay
        // these digits, where widening the 32 bits would add others.
        Kind::Float4 | Kind::Float8 => text.parse().ok().map(Value::Real),
        Kind::Timestamptz => zoned(text).map(Value::Text),
        Kind::Timestamp => local(text).map(Value::Text),
        Kind::Json => Some(Value::Json(on_one_line(text))),
        Kind::Bytes => unhex(text).map(Value::Blob),
        Kind::Array { element, delimiter } => {
            arrays::json(element, *delimiter, text).map(|json| Value::Json(json.into_boxed_str()))
        }
        Kind::Numeric
        | Kind::Text
        | Kind::Padded
        | Kind::Date
        | Kind::Time
        | Kind::Uuid
        | Kind::Enum { .. }
        | Kind::Other => None,
    }
}

/// `2026-11-23 02:36:00.5+00` → `2026-11-23T02:36:00.5Z`. Infinities, years before our era and
/// those of five digits are not RFC 3339's: they stay as they are.
fn zoned(text: &str) -> Option<String> {
    local(text.strip_suffix("+00")?).map(|local| local + "Z")
}

/// `2026-11-23 02:36:00.5` → `2026-11-23T02:36:00.5`.
fn local(text: &str) -> Option<String> {
    let (date, time) = text.split_once(' ')?;
    let digits = |text: &str, extra: char| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || b == b':' || char::from(b) == extra)
    };
    let plain = date.len() == 10 && digits(date, '-') && digits(time, '.');
    plain.then(|| format!("{date}T{time}"))
}

/// A line's end can only stand between the tokens of a JSON text, never in one.
fn on_one_line(text: &str) -> Box<str> {
    match text.contains(['\n', '\r']) {
        true => text.replace(['\n', '\r'], "").into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::row::write_value;

    fn json(kind: &Kind, text: &str) -> String {
        let mut out = Vec::new();
        write_value(&mut out, &value(kind, text));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(json(&Kind::Float4, "0.1"), "0.1");
        assert_eq!(json(&Kind::Float8, "1e+300"), "1e+300");
        assert_eq!(json(&Kind::Float8, "-Infinity"), "\"-Infinity\"");
        assert_eq!(json(&Kind::Float4, "NaN"), "\"NaN\"");
        assert_eq!(json(&Kind::Numeric, "1.50"), "\"1.50\"");
        assert_eq!(
            json(&Kind::Integer, "9223372036854775807"),
            "\"9223372036854775807\""
        );
        assert_eq!(json(&Kind::Oid, "4294967295"), "4294967295");
    }

    #[test]
    fn times_keep_the_precision_stored() {
        let zoned = |text| json(&Kind::Timestamptz, text);
        assert_eq!(zoned("2026-11-23 02:36:00+00"), "\"2026-11-23T02:36:00Z\"");
        assert_eq!(
            zoned("2026-11-23 02:36:00.5+00"),
            "\"2026-11-23T02:36:00.5Z\""
        );
        assert_eq!(zoned("infinity"), "\"infinity\"");
        assert_eq!(
            zoned("0044-03-15 12:00:00+00 BC"),
            "\"0044-03-15 12:00:00+00 BC\""
        );
        assert_eq!(
            zoned("10000-01-01 00:00:00+00"),
            "\"10000-01-01 00:00:00+00\""
        );
        assert_eq!(
            json(&Kind::Timestamp, "2026-11-23 02:36:00.000001"),
            "\"2026-11-23T02:36:00.000001\""
        );
        assert_eq!(json(&Kind::Date, "2026-11-23"), "\"2026-11-23\"");
        assert_eq!(json(&Kind::Time, "24:00:00"), "\"24:00:00\"");
    }

    #[test]
    fn json_stays_as_it_is_but_on_one_line() {
        assert_eq!(
            json(
                &Kind::Json,
                "{\"b\": 1.0,\r\n \"a\": \"\\n\", \"b\": 1e400}"
            ),
            "{\"b\": 1.0, \"a\": \"\\n\", \"b\": 1e400}"
        );
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        let plain = prop::sample::select(vec![
            Kind::Boolean,
            Kind::Integer,
            Kind::Oid,
            Kind::Float4,
            Kind::Float8,
            Kind::Numeric,
            Kind::Text,
            Kind::Padded,
            Kind::Timestamptz,
            Kind::Timestamp,
            Kind::Date,
            Kind::Time,
            Kind::Uuid,
            Kind::Bytes,
            Kind::Other,
        ]);
        plain.prop_recursive(2, 3, 1, |inner| {
            inner.prop_map(|element| Kind::Array {
                element: Box::new(element),
                delimiter: ',',
            })
        })
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(kind in kinds(), text in "\\PC*|[-{}\\[\\]\",\\\\:=0-9a-z +.TZé]{0,40}") {
            let found = json(&kind, &text);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&found).is_ok(), "{found}");
            prop_assert!(!found.contains('\n'));
        }

        #[test]
        fn any_texts_in_an_array_are_read_back(texts in prop::collection::vec(prop::option::of("\\PC{0,9}"), 0..5)) {
            let quoted = |text: &String| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let parts: Vec<_> = texts.iter().map(|text| text.as_ref().map_or("NULL".into(), quoted)).collect();
            let kind = Kind::Array { element: Box::new(Kind::Text), delimiter: ',' };
            let found = json(&kind, &format!("{{{}}}", parts.join(",")));
            prop_assert_eq!(found, serde_json::to_string(&texts).unwrap());
        }
    }
}
