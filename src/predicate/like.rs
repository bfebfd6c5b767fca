//! `text LIKE pattern`, as the databases judge it in our queries: no character escapes another.

use std::borrow::Cow;

use super::Operand;
use crate::{row::Value, topic::Kind};

/// Whether a value is like a pattern; `None` if it is NULL, or has no text that is known here.
pub(super) fn like(column: &Operand, value: &Value, pattern: &str) -> Option<bool> {
    let text = match (value, &column.kind) {
        (Value::Text(text), Some(Kind::Padded)) => Cow::Borrowed(text.trim_end_matches(' ')),
        (Value::Text(text), _) => Cow::Borrowed(text.as_str()),
        (Value::Integer(integer), _) => Cow::Owned(integer.to_string()),
        _ => return None,
    };
    Some(match column.kind {
        Some(_) => fits(&text, pattern, |a, b| a == b),
        // SQLite folds ASCII only, and reads both as C strings.
        None => fits(before_nul(&text), before_nul(pattern), |a, b| {
            a.eq_ignore_ascii_case(&b)
        }),
    })
}

fn before_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or(text)
}

/// `%` stands for any characters, `_` for one. After each `%` the first fit is as good as any
/// later one, so it is enough to go back to the last `%`.
fn fits(text: &str, pattern: &str, same: impl Fn(char, char) -> bool) -> bool {
    let (mut text, mut pattern) = (text.chars(), pattern.chars());
    let mut back = None;
    loop {
        let mut ahead = pattern.clone();
        match ahead.next() {
            Some('%') => {
                back = Some((text.clone(), ahead.clone()));
                pattern = ahead;
                continue;
            }
            wanted => {
                let mut rest = text.clone();
                match (wanted, rest.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(found)) if wanted == '_' || same(wanted, found) => {
                        (text, pattern) = (rest, ahead);
                        continue;
                    }
                    // What is left of the text is too short, wherever the last `%` ends.
                    (Some(_), None) => return false,
                    _ => {}
                }
            }
        }
        let Some((mut from, after)) = back.take() else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (text, pattern) = (from.clone(), after.clone());
        back = Some((from, after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_text() {
        let same = |a: char, b: char| a == b;
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "a_c", true),
            ("abc", "a_", false),
            ("abc", "abcd", false),
            ("王秀英", "王__", true),
            ("aXbXc", "%X_", true),
            ("aXbXcd", "%X_", false),
            ("aab", "%ab", true),
            ("a\\%", "a\\%", true),
            ("mississippi", "%iss%ip%", true),
            ("mississippi", "m%issipp_%_", false),
        ] {
            assert_eq!(fits(text, pattern, same), expected, "{text} LIKE {pattern}");
        }
    }
}
