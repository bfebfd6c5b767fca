//! Rows and the one encoder: a row becomes the same JSON whether it came from the
//! change stream or from a query (docs/protocol.md §6).

use std::sync::Arc;

/// The largest integer that a browser's number holds exactly: 2^53 − 1.
pub const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// One value as the database stores it.
///
/// SQLite values keep their storage class; nothing is coerced. Which of these a PostgreSQL type
/// becomes: docs/protocol.md §6.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// An IEEE 754 double; NaN and infinities are possible.
    Real(f64),
    /// Text; invalid UTF-8 was replaced by U+FFFD when it was read.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// True or false; PostgreSQL only.
    Boolean(bool),
    /// A JSON text on one line, passed on as it is: `json`, `jsonb`, arrays. PostgreSQL only.
    Json(Box<str>),
}

/// The column names of a row, shared by all rows of one read.
pub type Names = Arc<[Arc<str>]>;

/// A row image: names and values of the same length, in column order.
///
/// An image may be partial: a column that the database did not tell is absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    names: Names,
    values: Vec<Value>,
}

impl Row {
    /// Joins names and values; surplus values are dropped, so both have one length.
    pub fn new(names: Names, mut values: Vec<Value>) -> Self {
        values.truncate(names.len());
        Self { names, values }
    }

    /// The value of a column, or `None` where the image does not hold that column.
    pub fn get(&self, column: &str) -> Option<&Value> {
        let index = self.names.iter().position(|name| &**name == column)?;
        self.values.get(index)
    }

    /// Names and values in column order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.names.iter().map(|name| &**name).zip(&self.values)
    }

    /// The values of `columns` in that order, or `None` if one is absent.
    pub fn pick(&self, columns: &[String]) -> Option<Vec<Value>> {
        columns
            .iter()
            .map(|column| self.get(column).cloned())
            .collect()
    }
}

/// Rows already encoded, one JSON object each, in one buffer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    json: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    /// Encodes one more row.
    pub fn push<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a Value)>) {
        write_object(&mut self.json, pairs);
        self.ends.push(self.json.len());
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Splits the rows into ranges of at most `max_bytes` each, though of one row at least.
    ///
    /// There is always one range, if only an empty one.
    pub fn parts(&self, max_bytes: usize) -> Vec<std::ops::Range<usize>> {
        let mut parts = Vec::new();
        let mut first = 0;
        for index in 1..self.len() {
            if self.ends[index] - self.start(first) > max_bytes {
                parts.push(first..index);
                first = index;
            }
        }
        parts.push(first..self.len());
        parts
    }

    /// Appends the rows of a range as a JSON array.
    pub fn write_array(&self, out: &mut Vec<u8>, range: std::ops::Range<usize>) {
        out.push(b'[');
        for index in range.clone() {
            if index > range.start {
                out.push(b',');
            }
            out.extend_from_slice(&self.json[self.start(index)..self.ends[index]]);
        }
        out.push(b']');
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

/// Appends a JSON object with the given columns and values, in that order.
pub fn write_object<'a>(out: &mut Vec<u8>, pairs: impl Iterator<Item = (&'a str, &'a Value)>) {
    out.push(b'{');
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

/// Appends one value as JSON.
///
/// Integers within ±(2^53 − 1) and finite reals are numbers; larger integers, NaN and
/// infinities are strings, for a browser would round them in silence. Bytes are the
/// string `\x` followed by lower-case hexadecimal digits.
pub fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Integer(i) if i.unsigned_abs() <= MAX_SAFE_INTEGER.unsigned_abs() => {
            out.extend_from_slice(i.to_string().as_bytes());
        }
        Value::Integer(i) => write_text(out, &i.to_string()),
        Value::Real(r) => write_real(out, *r),
        Value::Text(text) => write_text(out, text),
        Value::Blob(bytes) => write_text(out, &hex(bytes)),
        Value::Boolean(true) => out.extend_from_slice(b"true"),
        Value::Boolean(false) => out.extend_from_slice(b"false"),
        Value::Json(text) => out.extend_from_slice(text.as_bytes()),
    }
}

fn write_real(out: &mut Vec<u8>, real: f64) {
    match serde_json::Number::from_f64(real) {
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None if real.is_nan() => write_text(out, "NaN"),
        None if real > 0.0 => write_text(out, "Infinity"),
        None => write_text(out, "-Infinity"),
    }
}

/// Appends a JSON string, escaped.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing to memory cannot fail");
}

/// `\x00ff`: how bytes are written in JSON.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("\\x");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to memory cannot fail");
    }
    text
}

/// Reads what [`hex`] wrote; `None` where the text has another form.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    if digits.len() % 2 != 0 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

/// What a text is in base64, of either alphabet, padded or not.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        (bits, held) = (bits << 6 | u32::from(six), held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &Value) -> String {
        let mut out = Vec::new();
        write_value(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn nothing_is_rounded_in_silence() {
        assert_eq!(json(&Value::Integer(MAX_SAFE_INTEGER)), "9007199254740991");
        assert_eq!(
            json(&Value::Integer(9_007_199_254_740_992)),
            "\"9007199254740992\""
        );
        assert_eq!(json(&Value::Integer(i64::MIN)), "\"-9223372036854775808\"");
        assert_eq!(json(&Value::Real(f64::NAN)), "\"NaN\"");
        assert_eq!(json(&Value::Real(f64::NEG_INFINITY)), "\"-Infinity\"");
        assert_eq!(json(&Value::Real(0.1)), "0.1");
    }

    #[test]
    fn bytes_are_hexadecimal_text() {
        assert_eq!(json(&Value::Blob(vec![0, 255])), "\"\\\\x00ff\"");
        assert_eq!(unhex("\\x00ff"), Some(vec![0, 255]));
        assert_eq!(unhex("\\x0"), None);
        assert_eq!(unhex("00"), None);
        assert_eq!(unhex("\\x+f"), None);
    }
}
