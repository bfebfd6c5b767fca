//! PostgreSQL's array text → a JSON array, of any number of dimensions.
//!
//! Follows `array_out` (PostgreSQL documentation §8.15.6).

use crate::{
    row::{Value, write_value},
    topic::Kind,
};

/// PostgreSQL's own bound of dimensions.
const MAX_DIMENSIONS: usize = 6;

/// The JSON of an array's text; `None` where it is no such text.
///
/// Bounds, `[0:2]={…}`, are left out: JSON's arrays have none.
pub(super) fn json(element: &Kind, delimiter: char, text: &str) -> Option<String> {
    let body = match text.starts_with('[') {
        true => text.split_once("={")?.1,
        false => text.strip_prefix('{')?,
    };
    let mut reader = Reader {
        rest: body,
        delimiter,
        out: vec![b'['],
    };
    reader.elements(element)?;
    String::from_utf8(reader.out).ok()
}

struct Reader<'a> {
    rest: &'a str,
    delimiter: char,
    out: Vec<u8>,
}

impl Reader<'_> {
    /// Everything after the first brace, to the end of the text.
    fn elements(&mut self, kind: &Kind) -> Option<()> {
        let mut depth = 1;
        // Whether an element or a brace may follow, and whether one must, after a delimiter.
        let (mut open, mut owed) = (true, false);
        while depth > 0 {
            let next = self.rest.chars().next()?;
            if next == '}' && !owed {
                self.skip(next);
                self.out.push(b']');
                depth -= 1;
                open = false;
            } else if next == self.delimiter && !open {
                self.skip(next);
                self.out.push(b',');
                (open, owed) = (true, true);
            } else if !open || next == '}' {
                return None;
            } else if next == '{' {
                self.skip(next);
                self.out.push(b'[');
                owed = false;
                depth += 1;
                if depth > MAX_DIMENSIONS {
                    return None;
                }
            } else {
                let value = self.element(kind, next == '"')?;
                write_value(&mut self.out, &value);
                (open, owed) = (false, false);
            }
        }
        self.rest.is_empty().then_some(())
    }

    fn skip(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
    }

    fn element(&mut self, kind: &Kind, quoted: bool) -> Option<Value> {
        let mut text = String::new();
        let mut bare = !quoted;
        let mut chars = self.rest.char_indices();
        if quoted {
            chars.next();
        }
        let end = loop {
            let (at, c) = chars.next()?;
            match c {
                '\\' => {
                    // An escaped NULL is a text.
                    bare = false;
                    text.push(chars.next()?.1);
                }
                '"' if quoted => break at + 1,
                '"' | '{' if !quoted => return None,
                c if !quoted && (c == '}' || c == self.delimiter) => break at,
                c => text.push(c),
            }
        };
        self.rest = &self.rest[end..];
        match text.as_str() {
            // An empty text is quoted.
            "" if bare => return None,
            "NULL" if bare => return Some(Value::Null),
            _ => {}
        }
        Some(super::value(kind, &text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(kind: &Kind, text: &str) -> String {
        json(kind, ',', text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn elements_have_their_kind() {
        assert_eq!(array(&Kind::Integer, "{}"), "[]");
        assert_eq!(
            array(&Kind::Integer, "{1,NULL,9007199254740993}"),
            r#"[1,null,"9007199254740993"]"#
        );
        assert_eq!(array(&Kind::Boolean, "{t,f}"), "[true,false]");
        assert_eq!(
            array(&Kind::Json, r#"{"{\"a\": 1}",NULL,null}"#),
            r#"[{"a": 1},null,null]"#
        );
        assert_eq!(
            array(&Kind::Timestamptz, r#"{"2026-11-23 02:36:00.5+00"}"#),
            r#"["2026-11-23T02:36:00.5Z"]"#
        );
    }

    #[test]
    fn quotes_escapes_and_nulls_are_told_apart() {
        assert_eq!(
            array(
                &Kind::Text,
                r#"{a,"b c","NULL",NULL,"","say \"x\\\"","王,]"}"#
            ),
            r#"["a","b c","NULL",null,"","say \"x\\\"","王,]"]"#
        );
    }

    #[test]
    fn dimensions_nest_and_bounds_are_left_out() {
        assert_eq!(array(&Kind::Integer, "{{1,2},{3,4}}"), "[[1,2],[3,4]]");
        assert_eq!(array(&Kind::Integer, "[0:1][-2:-2]={{1},{2}}"), "[[1],[2]]");
        assert_eq!(
            json(&Kind::Other, ';', "{(1,1),(0,0);(2,2),(1,1)}").as_deref(),
            Some(r#"["(1,1),(0,0)","(2,2),(1,1)"]"#)
        );
    }

    #[test]
    fn what_is_no_array_is_told_as_such() {
        for text in [
            "",
            "{",
            "}",
            "{1",
            "{1,}",
            "{,1}",
            "{1}2",
            "{\"a}",
            "{a\\",
            "{{1}",
            "[0:1]",
            "{1{2}}",
            "{{{{{{{1}}}}}}}",
        ] {
            assert_eq!(json(&Kind::Text, ',', text), None, "{text}");
        }
    }
}
