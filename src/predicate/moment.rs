//! PostgreSQL's dates and times as numbers that are ordered as they are.

use crate::topic::Kind;

const DAY: i64 = 86_400_000_000;

/// A day's distance from another is at most some 2^31 days, so nothing here overflows.
const MAX_YEAR: i64 = 5_900_000;

/// The microseconds (for a date, days) of what PostgreSQL or our encoder wrote; `None` for what
/// neither writes.
pub(super) fn key(kind: &Kind, text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (text, before) = match text.strip_suffix(" BC") {
        Some(text) => (text, true),
        None => (text, false),
    };
    match kind {
        Kind::Date => day(text, before),
        Kind::Time => time(text),
        _ => {
            let (date, rest) = text.split_once([' ', 'T'])?;
            let (clock, offset) = zone(rest)?;
            let day = day(date, before)?;
            day.checked_mul(DAY)?
                .checked_add(time(clock)? - offset.unwrap_or(0))
        }
    }
}

/// A literal in the one spelling that PostgreSQL reads the same way everywhere; `None` for what it
/// reads differently here and there, or what does not fit the kind.
pub(super) fn literal(kind: &Kind, text: &str) -> Option<String> {
    if matches!(text, "infinity" | "-infinity") && *kind != Kind::Time {
        return Some(text.to_owned());
    }
    match kind {
        Kind::Date => plain_date(text).map(str::to_owned),
        Kind::Time => clock(text),
        _ => {
            let Some((date, rest)) = text.split_once([' ', 'T']) else {
                let zone = if *kind == Kind::Timestamptz {
                    "+00"
                } else {
                    ""
                };
                return plain_date(text).map(|date| format!("{date} 00:00:00{zone}"));
            };
            let (time, offset) = zone(rest)?;
            let (date, time) = (plain_date(date)?, clock(time)?);
            match (kind, offset) {
                // PostgreSQL would read it, and leave out the zone.
                (Kind::Timestamp, Some(_)) => None,
                (Kind::Timestamp, None) => Some(format!("{date} {time}")),
                // The sessions' own zone is UTC.
                (_, None | Some(0)) => Some(format!("{date} {time}+00")),
                (_, Some(_)) => Some(format!("{date} {time}{}", &rest[rest.find(['+', '-'])?..])),
            }
        }
    }
}

/// A date of four digits, which is one.
fn plain_date(text: &str) -> Option<&str> {
    (text.len() == 10 && !text.starts_with("0000")).then_some(())?;
    day(text, false).map(|_| text)
}

/// A time with its seconds, and its fraction without trailing zeros.
fn clock(text: &str) -> Option<String> {
    let full = if text.len() == 5 {
        format!("{text}:00")
    } else {
        text.to_owned()
    };
    let below = time(&full)? < DAY;
    let short = match full.contains('.') {
        true => full.trim_end_matches('0').trim_end_matches('.'),
        false => &full,
    };
    below.then(|| short.to_owned())
}

/// Splits off `Z`, `+05`, `-03:30` or `+05:53:28`, in microseconds.
fn zone(text: &str) -> Option<(&str, Option<i64>)> {
    if let Some(clock) = text.strip_suffix('Z') {
        return Some((clock, Some(0)));
    }
    let Some(at) = text.find(['+', '-']) else {
        return Some((text, None));
    };
    let (clock, zone) = text.split_at(at);
    let mut seconds = 0;
    for (part, worth) in zone[1..].splitn(3, ':').zip([3600, 60, 1]) {
        let number = digits(part, 2)?;
        (number <= if worth == 3600 { 15 } else { 59 }).then_some(())?;
        seconds += number * worth;
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    Some((clock, Some(sign * seconds * 1_000_000)))
}

/// Days since 2000-01-01, PostgreSQL's own beginning, of `YYYY-MM-DD`, in the Gregorian calendar whatever the year.
fn day(text: &str, before: bool) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let year = if year.len() >= 4 {
        digits(year, year.len())?
    } else {
        return None;
    };
    let year = if before { 1 - year } else { year };
    let (month, day) = (digits(month, 2)?, digits(day, 2)?);
    let leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1..=length).contains(&day) && year.abs() <= MAX_YEAR).then_some(())?;
    // Years begin in March, so that the day that some lack is the last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leaps + (month * 153 + 2) / 5 + day - 730_426)
}

/// Microseconds since midnight of `HH:MM:SS[.ffffff]`; the day's end, 24:00:00, is a time.
fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = clock.splitn(3, ':');
    let mut part = || digits(parts.next()?, 2);
    let (hours, minutes, seconds) = (part()?, part()?, part()?);
    (minutes < 60 && seconds < 60 && fraction.len() <= 6).then_some(())?;
    let micros = digits(&format!("{fraction:0<6}"), 6)?;
    let sum = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
    (sum <= DAY).then_some(sum)
}

fn digits(text: &str, length: usize) -> Option<i64> {
    let plain = text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order() {
        let order = [
            "-infinity",
            "4713-01-01 00:00:00 BC",
            "0001-12-31 23:59:59 BC",
            "0001-01-01 00:00:00",
            "1969-12-31 23:59:59.999999",
            "1970-01-01T00:00:00",
            "2024-02-29T12:00:00.5",
            "2024-03-01 00:00:00",
            "294276-12-31 23:59:59.999999",
            "infinity",
        ];
        let keys = order.map(|text| key(&Kind::Timestamp, text).unwrap());
        assert!(keys.is_sorted(), "{keys:?}");
        assert_eq!(key(&Kind::Date, "2000-01-01"), Some(0));
        assert_eq!(key(&Kind::Date, "5874897-12-31"), Some(2_145_031_948));
        let zoned = |text| key(&Kind::Timestamptz, text).unwrap();
        assert_eq!(
            zoned("2026-11-23T02:36:00Z"),
            zoned("2026-11-23 04:36:00+02")
        );
        assert_eq!(
            zoned("2026-11-23T02:36:00Z"),
            zoned("2026-11-22 23:06:00-03:30")
        );
    }

    #[test]
    fn a_literal_has_one_spelling_or_is_none() {
        let zoned = |text| literal(&Kind::Timestamptz, text);
        assert_eq!(
            zoned("2026-11-23T02:36Z").unwrap(),
            "2026-11-23 02:36:00+00"
        );
        assert_eq!(
            zoned("2026-11-23 02:36:00.500+05:30").unwrap(),
            "2026-11-23 02:36:00.5+05:30"
        );
        assert_eq!(zoned("2026-11-23").unwrap(), "2026-11-23 00:00:00+00");
        assert_eq!(literal(&Kind::Timestamp, "2026-11-23 02:36Z"), None);
        assert_eq!(literal(&Kind::Date, "2026-02-29"), None);
        assert_eq!(literal(&Kind::Time, "02:36").unwrap(), "02:36:00");
        for text in [
            "",
            "now",
            "today",
            "23.11.2026",
            "2026-11-23 25:00",
            "2026-11-23 02:36 CET",
            "2026-1-2",
        ] {
            assert_eq!(zoned(text), None, "{text}");
        }
    }
}
