//! An event as clients see it, taken apart again: for those whose filter makes another operation
//! of it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{close_object, member, open_object};
use crate::event::Op;

/// The members of a change's event, as [`super::event`] wrote them.
#[derive(Debug, Deserialize)]
struct Sent<'a> {
    r#type: &'a str,
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
}
