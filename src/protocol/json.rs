//! The JSON of a request, read under limits in one pass: how deep, how many members, how long its texts.
//! What is too deep is skipped without recursion, and nothing beyond a limit is kept, so that hostile text
//! costs what its bytes cost. A request that breaks a limit is still read to its end: its answer carries
//! its `rid`.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::{ErrorCode, Failure};
use crate::row::MAX_SAFE_INTEGER;

/// The largest integer that every JSON parser reads as it was written.
pub(super) const MAX_EXACT: u64 = MAX_SAFE_INTEGER.unsigned_abs();

/// How much JSON one request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Objects and arrays inside one another. At most 100: the parser beneath has a bound of its own.
    pub depth: usize,
    /// Members of all its objects together.
    pub keys: usize,
    /// Bytes of one text or name.
    pub string_bytes: usize,
    /// Bytes of a `token`.
    pub token_bytes: usize,
}

impl Default for JsonLimits {
    /// As in rowcast.example.toml.
    fn default() -> Self {
        Self {
            depth: 32,
            keys: 256,
            string_bytes: 16 * 1024,
            token_bytes: 4 * 1024,
        }
    }
}

/// An object that was read to its end.
pub(super) struct Read {
    /// Its members, as far as they are within the limits.
    pub members: Map<String, Json>,
    /// The first limit that it breaks.
    pub broken: Option<Failure>,
}

/// Reads the JSON object of a request.
///
/// # Errors
/// [`ErrorCode::BadJson`] where it is none; otherwise the limit that it breaks, or what no database can
/// store and no number can hold.
pub fn object(text: &str, limits: &JsonLimits) -> Result<Map<String, Json>, Failure> {
    let read = read(text, limits)?;
    read.broken.map_or(Ok(read.members), Err)
}

/// Holds an event's JSON object against what every reader of it can take. What its texts and numbers are,
/// and how many, is the publisher's affair: it is passed on as it is.
///
/// # Errors
/// [`ErrorCode::BadJson`], [`ErrorCode::TooDeep`] and [`ErrorCode::DuplicateKey`].
pub fn check_event(text: &str, limits: &JsonLimits) -> Result<(), Failure> {
    let limits = JsonLimits {
        keys: usize::MAX,
        string_bytes: usize::MAX,
        ..*limits
    };
    let read = read_as(text, &limits, false)?;
    read.broken.map_or(Ok(()), Err)
}

/// Reads an object that may break a limit.
///
/// # Errors
/// [`ErrorCode::BadJson`] where it is none.
pub(super) fn read(text: &str, limits: &JsonLimits) -> Result<Read, Failure> {
    read_as(text, limits, true)
}

fn read_as(text: &str, limits: &JsonLimits, ours: bool) -> Result<Read, Failure> {
    let reading = Reading {
        limits,
        ours,
        keys: Cell::new(0),
        broken: Cell::new(None),
    };
    let mut from = serde_json::Deserializer::from_str(text);
    let top = Node {
        reading: &reading,
        depth: 0,
        is_echoed: false,
    };
    let read = top.deserialize(&mut from);
    let read = read.and_then(|json| from.end().map(|()| json));
    let Ok(Json::Object(members)) = read else {
        return Err(ErrorCode::BadJson.into());
    };
    let broken = reading.broken.get();
    let broken = broken.map(|(code, detail)| Failure {
        detail,
        ..code.into()
    });
    Ok(Read { members, broken })
}

/// What is known of a text that is being read.
struct Reading<'a> {
    limits: &'a JsonLimits,
    /// Whether its texts may reach the database, and its numbers are read by us.
    ours: bool,
    keys: Cell<usize>,
    broken: Cell<Option<(ErrorCode, Option<&'static str>)>>,
}

impl Reading<'_> {
    fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// Remembers the first of all limits that are broken.
    fn breaks(&self, code: ErrorCode, detail: Option<&'static str>) {
        if !self.is_broken() {
            self.broken.set(Some((code, detail)));
        }
    }

    /// Holds a text or a name against the limits; returns whether it may be kept.
    fn text(&self, text: &str) -> bool {
        if text.len() > self.limits.string_bytes {
            let detail = "json: a text is too long";
            self.breaks(ErrorCode::PayloadTooLarge, Some(detail));
            return false;
        }
        if self.ours && text.contains('\0') {
            self.breaks(ErrorCode::NulNotAllowed, None);
            return false;
        }
        true
    }

    /// Counts a member of an object; returns whether it may be kept.
    fn member(&self, name: &str, before: &Map<String, Json>) -> bool {
        self.keys.set(self.keys.get() + 1);
        if self.keys.get() > self.limits.keys {
            let detail = "json: too many members";
            self.breaks(ErrorCode::PayloadTooLarge, Some(detail));
        } else if before.contains_key(name) {
            self.breaks(ErrorCode::DuplicateKey, None);
            return false;
        }
        // Who is told what was wrong wants to know with which request.
        self.text(name) && (!self.is_broken() || name == "rid")
    }
}

/// A value, inside of so many objects and arrays.
#[derive(Clone, Copy)]
struct Node<'a> {
    reading: &'a Reading<'a>,
    depth: usize,
    /// Whether it only goes back to where it came from.
    is_echoed: bool,
}

impl Node<'_> {
    fn inside(self) -> Self {
        self.member("")
    }

    fn member(self, name: &str) -> Self {
        Self {
            depth: self.depth + 1,
            // An id is the client's own affair, and a place in a list was ours: of a row's own texts, long
            // or not.
            is_echoed: matches!(name, "rid" | "after"),
            ..self
        }
    }

    /// Whether a number is read by us.
    fn is_judged(self) -> bool {
        self.reading.ours && !self.is_echoed
    }

    /// Whether what this object or array holds is skipped.
    fn is_skipped(self) -> bool {
        if self.depth >= self.reading.limits.depth {
            self.reading.breaks(ErrorCode::TooDeep, None);
        }
        self.depth > 0 && self.reading.is_broken()
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.depth {
            0 => "a JSON object",
            _ => "a JSON value",
        })
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Json, E> {
        Ok(truth.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        if self.is_judged() && number.unsigned_abs() > MAX_EXACT {
            self.reading.breaks(ErrorCode::NumberRange, None);
        }
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        if self.is_judged() && number > MAX_EXACT {
            self.reading.breaks(ErrorCode::NumberRange, None);
        }
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(match self.is_echoed || self.reading.text(text) {
            true => text.into(),
            false => Json::Null,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while !self.is_skipped() {
            match seq.next_element_seed(self.inside())? {
                Some(value) => list.push(value),
                None => return Ok(list.into()),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Map::new();
        while !self.is_skipped() {
            let Some(name) = map.next_key::<String>()? else {
                return Ok(members.into());
            };
            match self.reading.member(&name, &members) {
                true => {
                    let value = map.next_value_seed(self.member(&name))?;
                    members.insert(name, value);
                }
                false => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Json::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: JsonLimits = JsonLimits {
        depth: 3,
        keys: 4,
        string_bytes: 5,
        token_bytes: 5,
    };

    fn broken(text: &str) -> Option<ErrorCode> {
        object(text, &LIMITS).err().map(|failure| failure.code)
    }

    #[test]
    fn each_limit_holds_at_its_bound_and_is_told_one_beyond() {
        for (text, code) in [
            (r#"{"a":[[1]]}"#, None),
            (r#"{"a":[[[]]]}"#, Some(ErrorCode::TooDeep)),
            (r#"{"a":{"b":{"c":1}}}"#, None),
            (r#"{"a":{"b":{"c":{}}}}"#, Some(ErrorCode::TooDeep)),
            (r#"{"a":1,"b":{"a":1,"b":2}}"#, None),
            (
                r#"{"a":1,"b":{"a":1,"b":2},"c":1}"#,
                Some(ErrorCode::PayloadTooLarge),
            ),
            (r#"{"a":"12345"}"#, None),
            (r#"{"a":"123456"}"#, Some(ErrorCode::PayloadTooLarge)),
            (r#"{"123456":1}"#, Some(ErrorCode::PayloadTooLarge)),
            (r#"{"after":"0123456789","rid":9007199254740992}"#, None),
            (r#"{"a":["王"]}"#, None),
            (r#"{"a":["王王"]}"#, Some(ErrorCode::PayloadTooLarge)),
            (r#"{"a":9007199254740991,"b":-9007199254740991}"#, None),
            (r#"{"a":9007199254740992}"#, Some(ErrorCode::NumberRange)),
            (r#"{"a":-9007199254740992}"#, Some(ErrorCode::NumberRange)),
            (
                r#"{"a":18446744073709551615}"#,
                Some(ErrorCode::NumberRange),
            ),
            (r#"{"a":1e300,"b":-0}"#, None),
            (r#"{"a":"\u0000"}"#, Some(ErrorCode::NulNotAllowed)),
            (r#"{"a\u0000":1}"#, Some(ErrorCode::NulNotAllowed)),
            (r#"{"a":1,"a":1}"#, Some(ErrorCode::DuplicateKey)),
            (r#"{"a":1,"\u0061":1}"#, Some(ErrorCode::DuplicateKey)),
            (r#"{"a":[{"b":1,"b":2}]}"#, Some(ErrorCode::DuplicateKey)),
            (
                r#"{"a":1,"A":1,"__proto__":1}"#,
                Some(ErrorCode::PayloadTooLarge),
            ),
        ] {
            assert_eq!(broken(text), code, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_so_whatever_limit_it_breaks_before() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        for text in [
            "",
            " ",
            "[]",
            "1",
            "\"a\"",
            "null",
            "{",
            "{}{}",
            "{} x",
            "\u{feff}{}",
            "{\"a\":1e400}",
            "{\"a\":NaN}",
            "{\"a\":-Infinity}",
            "{\"a\":01}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":1}//",
            "{\"a\":1,\"a\":}",
            "[[[[[[[[[[",
            &deep,
        ] {
            assert_eq!(broken(text), Some(ErrorCode::BadJson), "{text:.40}");
        }
        // As deep as one likes, without a stack that grows with it.
        let deep = format!("{deep}{}}}", "]".repeat(100_000));
        assert_eq!(broken(&deep), Some(ErrorCode::TooDeep));
    }

    #[test]
    fn the_rid_of_what_breaks_a_limit_is_known() {
        for text in [
            r#"{"a":[[[[]]]],"rid":7}"#,
            r#"{"rid":7,"a":1,"a":1}"#,
            r#"{"a":1,"a":1,"rid":7}"#,
            r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"rid":7}"#,
            r#"{"a":"too long","b":{"c":{"rid":8}},"rid":7}"#,
        ] {
            let read = read(text, &LIMITS).ok().unwrap();
            assert!(read.broken.is_some(), "{text}");
            assert_eq!(read.members["rid"], 7, "{text}");
        }
    }

    #[test]
    fn an_event_may_hold_any_text_and_number_but_no_name_twice() {
        let event = |text: &str| check_event(text, &LIMITS).err().map(|failure| failure.code);
        assert_eq!(
            event(r#"{"a":"long and \u0000","b":9007199254740993,"c":1,"d":1,"e":1}"#),
            None
        );
        assert_eq!(event(r#"{"a":[[[]]]}"#), Some(ErrorCode::TooDeep));
        assert_eq!(
            event(r#"{"data":{"b":1,"b":1}}"#),
            Some(ErrorCode::DuplicateKey)
        );
    }

    #[test]
    fn a_name_that_the_parser_has_a_use_for_is_a_name_like_any_other() {
        let limits = JsonLimits::default();
        let text = r#"{"a":{"$serde_json::private::RawValue":"[1]"}}"#;
        let read = object(text, &limits).unwrap();
        assert_eq!(read["a"]["$serde_json::private::RawValue"], "[1]");
    }
}
