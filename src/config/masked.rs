//! What a text may show to whoever reads a log. No part of Rowcast puts a secret into one; this is the net
//! below, for texts that somebody else has made.

use std::borrow::Cow;

/// What stands in place of a secret.
const MASK: &str = "***";

/// Parameters of a URL, or attributes, that hold a secret.
const SECRETS: [&str; 5] = ["password=", "passwd=", "token=", "secret=", "jwt="];

/// The longest word that may be a misspelt choice.
const MAX_CHOICE: usize = 16;

/// The text without user names and passwords of URLs, and without what follows `token=` and the like.
///
/// A URL goes on to the next blank or quote, and what lets somebody in stands before its last `@`: of a
/// password with a `/` or `@` that should have been escaped nothing is left either.
pub fn masked(text: &str) -> Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    if !text.contains("://") && !SECRETS.iter().any(|name| lower.contains(name)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(url) = rest.strip_prefix("://") {
            out.push_str("://");
            let secret = url[..end_of(url, "")].rfind('@').unwrap_or(0);
            if secret > 0 {
                out.push_str(MASK);
            }
            rest = &url[secret..];
        } else if let Some(name) = secret(rest) {
            out.push_str(&rest[..name]);
            let value = &rest[name..];
            let end = end_of(value, "&;,#");
            if end > 0 {
                out.push_str(MASK);
            }
            rest = &value[end..];
        } else {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            rest = &rest[next..];
        }
    }
    Cow::Owned(out)
}

/// A word as it stands if it may be a misspelt choice, else `this`: whoever has put a secret into the
/// wrong place must not find it in the log as well.
pub fn choice(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match text.len() <= MAX_CHOICE && text.bytes().all(plain) {
        true => format!("\"{text}\""),
        false => "this".to_owned(),
    }
}

/// Where a value ends.
fn end_of(text: &str, more: &str) -> usize {
    let ends = |c: char| c.is_whitespace() || "\"'`<>".contains(c) || more.contains(c);
    text.find(ends).unwrap_or(text.len())
}

/// How long the name is, where a secret's begins here.
fn secret(text: &str) -> Option<usize> {
    let begins = |name: &&&str| {
        let begin = text.as_bytes().get(..name.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(name.as_bytes()))
    };
    SECRETS.iter().find(begins).map(|name| name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_not_shown() {
        for (text, shown) in [
            ("nothing to hide: a@b", "nothing to hide: a@b"),
            ("at http://h:1/a, and on", "at http://h:1/a, and on"),
            ("postgres://u:p@h/d", "postgres://***@h/d"),
            (
                "\"postgres://u:p@s/s@h/d\" is no",
                "\"postgres://***@h/d\" is no",
            ),
            ("nats://a:b@x,tls://c@y", "nats://***@y"),
            (
                "for url (http://u:p@h/?token=a&b=1)",
                "for url (http://***@h/?token=***&b=1)",
            ),
            (
                "?access_TOKEN=é王&x=password=",
                "?access_TOKEN=***&x=password=",
            ),
            ("a token=x, a jwt=y", "a token=***, a jwt=***"),
            ("://@h ://", "://@h ://"),
        ] {
            assert_eq!(masked(text), shown, "{text}");
        }
    }

    #[test]
    fn a_misspelt_choice_is_repeated_and_nothing_that_may_be_a_secret() {
        assert_eq!(choice("eng"), "\"eng\"");
        for text in ["postgres://u:p@h", "a b", "aVeryLongWordIndeed"] {
            assert_eq!(choice(text), "this");
        }
    }
}
