//! An event as clients see it, taken apart again: for those whose filter makes another operation
//! of it.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::frame::{close_object, member, open_object};
use crate::event::Op;

/// The members of a change's event, as [`super::event`] wrote them.
#[derive(Debug, Deserialize)]
struct Sent<'a> {
    r#type: &'a str,
    op: Op,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    old_key: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow)]
    unchanged: Option<&'a RawValue>,
    too_large: Option<bool>,
    #[serde(borrow)]
    tx: Option<&'a RawValue>,
    #[serde(borrow)]
    cursor: &'a RawValue,
    #[serde(borrow)]
    ts: &'a RawValue,
}

/// The `data` of an event as its JSON; `None` for what is no event of ours.
pub fn data_of(text: &str) -> Option<&str> {
    let sent: Sent<'_> = serde_json::from_str(text).ok()?;
    Some(sent.data.get())
}

/// An event of a row's change with another operation: an insert without `old_key`, a deletion of
/// the row as it was before, or a reload. `None` for other operations, and what is no such event.
pub fn turned(text: &str, op: Op) -> Option<String> {
    let sent: Sent<'_> = serde_json::from_str(text).ok()?;
    let mut out = open_object(sent.r#type);
    member(&mut out, "op", &op);
    match op {
        Op::Insert => {
            member(&mut out, "key", &sent.key);
            member(&mut out, "data", sent.data);
            if let Some(unchanged) = sent.unchanged {
                member(&mut out, "unchanged", unchanged);
            }
            if sent.too_large == Some(true) {
                member(&mut out, "too_large", &true);
            }
        }
        Op::Delete => {
            member(&mut out, "key", &sent.old_key.or(sent.key));
            member(&mut out, "data", RawValue::NULL);
        }
        Op::Reload => member(&mut out, "data", RawValue::NULL),
        Op::Update | Op::Truncate | Op::Touch => return None,
    }
    if let Some(tx) = sent.tx {
        member(&mut out, "tx", tx);
    }
    member(&mut out, "cursor", sent.cursor);
    member(&mut out, "ts", sent.ts);
    Some(close_object(out))
}

/// The members of a row, in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A member's name, which has escapes in it or not.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// An event of a row's change with these columns of the row only, as it is or as an insert without
/// `old_key`. `None` for what is no such event.
pub fn narrowed(text: &str, as_insert: bool, columns: &[String]) -> Option<String> {
    let sent: Sent<'_> = serde_json::from_str(text).ok()?;
    let shows = |name: &str| columns.iter().any(|column| column == name);
    let mut out = open_object(sent.r#type);
    member(
        &mut out,
        "op",
        &if as_insert { Op::Insert } else { sent.op },
    );
    if let Some(key) = sent.key {
        member(&mut out, "key", key);
    }
    if let Some(key) = sent.old_key.filter(|_| !as_insert) {
        member(&mut out, "old_key", key);
    }
    let row: Option<Members<'_>> = serde_json::from_str(sent.data.get()).ok()?;
    let shown = row.map(|Members(row)| row.into_iter().filter(|(name, _)| shows(name)));
    member(&mut out, "data", &shown.map(|shown| Shown(shown.collect())));
    if let Some(unchanged) = sent.unchanged {
        let names: Vec<String> = serde_json::from_str(unchanged.get()).ok()?;
        let names: Vec<String> = names.into_iter().filter(|name| shows(name)).collect();
        if !names.is_empty() {
            member(&mut out, "unchanged", &names);
        }
    }
    if sent.too_large == Some(true) {
        member(&mut out, "too_large", &true);
    }
    if let Some(tx) = sent.tx {
        member(&mut out, "tx", tx);
    }
    member(&mut out, "cursor", sent.cursor);
    member(&mut out, "ts", sent.ts);
    Some(close_object(out))
}

/// Members to be written, in their order.
struct Shown<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl serde::Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self.0.iter();
        serializer.collect_map(members.map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPDATE: &str = r#"{"type":"t","op":"update","key":{"id":2},"old_key":{"id":1},"data":{"id":2,"a":"\"x"},"unchanged":["b"],"tx":"q","cursor":"e:1","ts":5}"#;

    #[test]
    fn an_update_becomes_what_a_filter_makes_of_it() {
        assert_eq!(data_of(UPDATE), Some(r#"{"id":2,"a":"\"x"}"#));
        let turned = |op| turned(UPDATE, op).unwrap();
        assert_eq!(
            turned(Op::Insert),
            r#"{"type":"t","op":"insert","key":{"id":2},"data":{"id":2,"a":"\"x"},"unchanged":["b"],"tx":"q","cursor":"e:1","ts":5}"#
        );
        assert_eq!(
            turned(Op::Delete),
            r#"{"type":"t","op":"delete","key":{"id":1},"data":null,"tx":"q","cursor":"e:1","ts":5}"#
        );
        assert_eq!(
            turned(Op::Reload),
            r#"{"type":"t","op":"reload","data":null,"tx":"q","cursor":"e:1","ts":5}"#
        );
    }

    #[test]
    fn an_update_is_told_without_the_columns_that_somebody_does_not_see() {
        let columns = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            narrowed(UPDATE, false, &columns(&["id"])).unwrap(),
            r#"{"type":"t","op":"update","key":{"id":2},"old_key":{"id":1},"data":{"id":2},"tx":"q","cursor":"e:1","ts":5}"#
        );
        assert_eq!(
            narrowed(UPDATE, true, &columns(&["id", "a", "b"])).unwrap(),
            r#"{"type":"t","op":"insert","key":{"id":2},"data":{"id":2,"a":"\"x"},"unchanged":["b"],"tx":"q","cursor":"e:1","ts":5}"#
        );
        let escaped = UPDATE.replace(r#""a":"#, r#""\u0061":1e400,"c":"#);
        let told = narrowed(&escaped, false, &columns(&["id", "a"])).unwrap();
        assert!(told.contains(r#""data":{"id":2,"a":1e400},"tx""#), "{told}");
        let none = UPDATE.replace(r#"{"id":2,"a":"\"x"}"#, "null");
        let told = narrowed(&none, false, &columns(&["id", "a"])).unwrap();
        assert!(
            told.contains(r#""data":null,"tx""#),
            "no name of a column is told: {told}"
        );
    }
}
