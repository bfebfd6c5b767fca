//! Decimal numbers of any length, compared exactly.

use std::cmp::Ordering;

/// The largest exponent of a literal: beyond it nobody means it, and its digits fill memory.
const MAX_EXPONENT: i32 = 1000;

/// A `numeric` as PostgreSQL orders them: NaN is equal to itself and above everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decimal {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// Without leading zeros.
        whole: String,
        /// Without trailing zeros.
        fraction: String,
    },
    Infinity,
    NaN,
}

impl Decimal {
    /// Reads digits with an optional sign, point and exponent, or a word for what is no number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "nan" => return Some(Self::NaN),
            "infinity" | "inf" => return Some(Self::Infinity),
            "-infinity" | "-inf" => return Some(Self::NegativeInfinity),
            _ => {}
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let negative = mantissa.starts_with('-');
        let digits = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let valid = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !valid(whole) || !valid(fraction) || whole.len() + fraction.len() == 0 {
            return None;
        }
        if exponent.abs() > MAX_EXPONENT {
            return None;
        }
        Some(Self::shifted(negative, whole, fraction, exponent))
    }

    fn shifted(negative: bool, whole: &str, fraction: &str, exponent: i32) -> Self {
        let shift = exponent.unsigned_abs() as usize;
        let (whole, fraction) = if exponent >= 0 {
            let padded = format!("{fraction:0<shift$}");
            let (up, rest) = padded.split_at(shift);
            (format!("{whole}{up}"), rest.to_owned())
        } else {
            let padded = format!("{whole:0>shift$}");
            let (rest, down) = padded.split_at(padded.len() - shift);
            (rest.to_owned(), format!("{down}{fraction}"))
        };
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        Self::Finite {
            // There is one zero.
            negative: negative && !(whole.is_empty() && fraction.is_empty()),
            whole,
            fraction,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let (
            Self::Finite {
                negative: n,
                whole: w,
                fraction: f,
            },
            Self::Finite {
                negative,
                whole,
                fraction,
            },
        ) = (self, other)
        else {
            return self.rank().cmp(&other.rank());
        };
        let sizes = w
            .len()
            .cmp(&whole.len())
            .then_with(|| w.cmp(whole))
            .then_with(|| f.cmp(fraction));
        match (n, negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => sizes,
            (true, true) => sizes.reverse(),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One spelling for each number.
impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NegativeInfinity => f.write_str("-Infinity"),
            Self::Infinity => f.write_str("Infinity"),
            Self::NaN => f.write_str("NaN"),
            Self::Finite {
                negative,
                whole,
                fraction,
            } => {
                let sign = if *negative { "-" } else { "" };
                let whole = if whole.is_empty() { "0" } else { whole };
                let point = if fraction.is_empty() { "" } else { "." };
                write!(f, "{sign}{whole}{point}{fraction}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_number_are_one() {
        for (text, canonical) in [
            ("007", "7"),
            ("-0.0", "0"),
            ("+1.50", "1.5"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("1.25e1", "12.5"),
            ("12e-3", "0.012"),
            ("-1E-1", "-0.1"),
            ("nan", "NaN"),
            ("-Infinity", "-Infinity"),
        ] {
            assert_eq!(
                Decimal::parse(text).unwrap().to_string(),
                canonical,
                "{text}"
            );
        }
        for text in [
            "", "-", ".", "1e", "e1", "1 2", "--1", "0x1", "1e1001", "1_0", "+NaN1",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_in_order() {
        let order = [
            "-Infinity",
            "-100",
            "-99.5",
            "-99.4999999999999999999999999",
            "-0.5",
            "0",
            "0.05",
            "0.5",
            "0.51",
            "9",
            "10",
            "123456789012345678901234567890",
            "Infinity",
            "NaN",
        ];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                let (a, b) = (Decimal::parse(a).unwrap(), Decimal::parse(b).unwrap());
                assert_eq!(a.cmp(&b), i.cmp(&j), "{a} {b}");
            }
        }
    }
}
