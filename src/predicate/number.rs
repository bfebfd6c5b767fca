//! Text → number, as SQLite reads literals and converts texts under numeric affinity.

use crate::row::Value;

/// A mantissa from here on takes no further digit.
const FULL_MANTISSA: u64 = (u64::MAX - 9) / 10;

/// The number that a whole text spells, white space around it ignored; `None` if it spells none.
///
/// Digits alone that fit 64 bits are an integer, everything else is a real; `inf` and `nan` are
/// no numbers. Follows SQLite's `applyNumericAffinity` and `sqlite3AtoF`.
pub(super) fn number(text: &str) -> Option<Value> {
    let text = text.trim_matches(|c: char| matches!(c, ' ' | '\t'..='\r'));
    if !text
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
    {
        return None;
    }
    // Over this alphabet Rust accepts exactly what SQLite does; only its rounding is not wanted.
    text.parse::<f64>().ok()?;
    Some(
        text.parse()
            .map_or_else(|_| Value::Real(real(text)), Value::Integer),
    )
}

/// The value of a well-formed number.
///
/// SQLite rounds correctly, but what it rounds are the first 19 digits or so: those that follow
/// cannot tip the balance. Such a literal must mean the same double here.
fn real(text: &str) -> f64 {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, ""));
    let (mut digits, mut shift, mut fraction) = (0_u64, 0_i64, false);
    for byte in mantissa.bytes() {
        match byte {
            b'.' => fraction = true,
            b'0'..=b'9' if digits < FULL_MANTISSA => {
                digits = digits * 10 + u64::from(byte - b'0');
                shift -= i64::from(fraction);
            }
            b'0'..=b'9' => shift += i64::from(!fraction),
            _ => {}
        }
    }
    shift += match exponent.strip_prefix('-') {
        Some(exponent) => -magnitude(exponent),
        None => magnitude(exponent),
    };
    let real = format!("{digits}e{shift}").parse().unwrap_or(f64::INFINITY);
    if mantissa.starts_with('-') {
        -real
    } else {
        real
    }
}

/// An exponent without its minus; one of six digits and more is as good as 10000.
fn magnitude(exponent: &str) -> i64 {
    let digits = exponent.bytes().filter(u8::is_ascii_digit);
    digits.fold(0, |sum, digit| match sum < 10_000 {
        true => sum * 10 + i64::from(digit - b'0'),
        false => 10_000,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_numbers_as_in_sqlite() {
        assert_eq!(number(" \t\n\x0b\x0c\r3 "), Some(Value::Integer(3)));
        assert_eq!(number("+007"), Some(Value::Integer(7)));
        assert_eq!(number("-0"), Some(Value::Integer(0)));
        assert_eq!(number("3.0"), Some(Value::Real(3.0)));
        assert_eq!(number("5."), Some(Value::Real(5.0)));
        assert_eq!(number(".5e+1"), Some(Value::Real(5.0)));
        assert_eq!(number("1e2"), Some(Value::Real(100.0)));
        assert_eq!(
            number("9223372036854775807"),
            Some(Value::Integer(i64::MAX))
        );
        assert_eq!(
            number("-9223372036854775808"),
            Some(Value::Integer(i64::MIN))
        );
        assert_eq!(
            number("9223372036854775808"),
            Some(Value::Real(9_223_372_036_854_775_808.0))
        );
        assert_eq!(number("1e999"), Some(Value::Real(f64::INFINITY)));
        assert_eq!(number("-1e-99999999999999999999"), Some(Value::Real(0.0)));
    }

    #[test]
    fn other_texts_stay_texts() {
        for text in [
            "",
            " ",
            ".",
            "+",
            "-",
            "e5",
            ".e5",
            "1e",
            "1e+",
            "1 2",
            "3abc",
            "2026-01-01",
            "--1",
            "0x10",
            "inf",
            "-Infinity",
            "nan",
            "1_000",
            "\u{a0}3",
            "٣",
            "3\0",
        ] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn digits_past_the_nineteenth_are_ignored() {
        // Correct rounding would give …0.5 and …993.0: the digits that decide come too late.
        assert_eq!(
            number("3500000000000000.2500001"),
            Some(Value::Real(3_500_000_000_000_000.0))
        );
        let long = "9007199254740993.00000000000000001";
        assert_eq!(number(long), Some(Value::Real(9_007_199_254_740_992.0)));
    }
}
