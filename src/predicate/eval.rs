//! Condition × row → SQL's three truth values.

use std::{borrow::Cow, cmp::Ordering};

use super::{Condition, Op, Operand, like::like, number::number, typed};
use crate::{
    row::{Row, Value},
    topic::Collation,
};

impl Condition {
    pub(super) fn test(&self, row: &Row) -> Option<bool> {
        match self {
            Self::Literal { column, op, value } => {
                let ordering = column.compare(&*column.read(row)?, value)?;
                Some(op.accepts(ordering))
            }
            Self::Columns { left, op, right } => {
                let (a, b) = (left.read(row)?, right.read(row)?);
                Some(op.accepts(left.compare(&a, &b)?))
            }
            Self::In {
                column,
                negated,
                values,
            } => {
                let value = column.read(row)?;
                let equals = |item| Some(column.compare(&value, item)?.is_eq());
                Some(any(values.iter().map(equals))? != *negated)
            }
            Self::Between {
                column,
                negated,
                low,
                high,
            } => {
                let value = column.read(row)?;
                let above = column.compare(&value, low).map(Ordering::is_ge);
                let below = column.compare(&value, high).map(Ordering::is_le);
                Some(all([above, below].into_iter())? != *negated)
            }
            Self::Null { column, negated } => {
                Some(column.is_null(row.get(&column.name)?) != *negated)
            }
            Self::Claim(claim) => claim.bound(None).test(row),
            Self::Like { column, pattern } => like(column, row.get(&column.name)?, pattern),
            Self::Not(inner) => inner.test(row).map(|truth| !truth),
            Self::All(parts) => all(parts.iter().map(|part| part.test(row))),
            Self::Any(parts) => any(parts.iter().map(|part| part.test(row))),
        }
    }
}

impl Operand {
    /// The row's value under the column's affinity; `None` where the image does not hold it.
    fn read<'a>(&self, row: &'a Row) -> Option<Cow<'a, Value>> {
        let value = row.get(&self.name)?;
        let converted = match value {
            Value::Text(text) if self.numeric => number(text),
            _ => None,
        };
        Some(converted.map_or(Cow::Borrowed(value), Cow::Owned))
    }

    fn compare(&self, a: &Value, b: &Value) -> Option<Ordering> {
        match &self.kind {
            Some(kind) => typed::compare(kind, a, b),
            None => compare(a, b, self.collation),
        }
    }

    fn is_null(&self, value: &Value) -> bool {
        match self.kind {
            Some(_) => *value == Value::Null,
            None => is_null(value),
        }
    }
}

impl Op {
    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }
}

/// False if one is false, else unknown if one is unknown, else true.
fn all(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    any(truths.map(|truth| truth.map(|truth| !truth))).map(|truth| !truth)
}

/// True if one is true, else unknown if one is unknown, else false.
fn any(truths: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut sum = Some(false);
    for truth in truths {
        match truth {
            Some(true) => return Some(true),
            Some(false) => {}
            None => sum = None,
        }
    }
    sum
}

/// SQLite has no NaN: it stores and reads it as NULL.
fn is_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Real(real) => real.is_nan(),
        _ => false,
    }
}

/// The order of two values: numbers, then texts, then blobs; `None` if one is NULL.
fn compare(a: &Value, b: &Value, collation: Collation) -> Option<Ordering> {
    use Value::{Blob, Integer, Real, Text};
    match (a, b) {
        _ if is_null(a) || is_null(b) => None,
        (Integer(a), Integer(b)) => Some(a.cmp(b)),
        (Integer(a), Real(b)) => Some(compare_mixed(*a, *b)),
        (Real(a), Integer(b)) => Some(compare_mixed(*b, *a).reverse()),
        (Real(a), Real(b)) => a.partial_cmp(b),
        (Text(a), Text(b)) => Some(collate(a.as_bytes(), b.as_bytes(), collation)),
        (Blob(a), Blob(b)) => Some(a.cmp(b)),
        _ => Some(class(a).cmp(&class(b))),
    }
}

/// The place of a value's storage class among the others.
fn class(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
        // Not among SQLite's.
        Value::Boolean(_) | Value::Json(_) => 4,
    }
}

/// Compares exactly, where a conversion to either type would round (`sqlite3IntFloatCompare`).
fn compare_mixed(integer: i64, real: f64) -> Ordering {
    // 2^63, which a double holds exactly; the cast below is exact but for the fraction.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real >= BEYOND {
        return Ordering::Less;
    }
    if real < -BEYOND {
        return Ordering::Greater;
    }
    let fraction = real.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal);
    integer.cmp(&(real as i64)).then(fraction.reverse())
}

fn collate(a: &[u8], b: &[u8], collation: Collation) -> Ordering {
    match collation {
        Collation::NoCase => collate_nocase(a, b),
        Collation::RTrim => trim(a).cmp(trim(b)),
        // The parser refuses what these two cannot tell.
        Collation::Binary | Collation::Locale | Collation::Other => a.cmp(b),
    }
}

/// As `nocaseCollatingFunc`, which reads C strings: past a NUL common to both only lengths count.
fn collate_nocase(a: &[u8], b: &[u8]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        match a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()) {
            Ordering::Equal if *a == 0 => break,
            Ordering::Equal => {}
            decided => return decided,
        }
    }
    a.len().cmp(&b.len())
}

fn trim(text: &[u8]) -> &[u8] {
    let spaces = text.iter().rev().take_while(|&&byte| byte == b' ').count();
    &text[..text.len() - spaces]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn storage_classes_are_ordered() {
        let order = [
            Value::Real(f64::NEG_INFINITY),
            Value::Integer(i64::MIN),
            Value::Integer(0),
            Value::Real(f64::INFINITY),
            text(""),
            text("z"),
            Value::Blob(vec![]),
            Value::Blob(vec![0]),
        ];
        for (i, a) in order.iter().enumerate() {
            for (j, b) in order.iter().enumerate() {
                assert_eq!(
                    compare(a, b, Collation::Binary),
                    Some(i.cmp(&j)),
                    "{a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn null_and_nan_compare_with_nothing() {
        for null in [Value::Null, Value::Real(f64::NAN)] {
            assert_eq!(compare(&null, &null, Collation::Binary), None);
            assert_eq!(compare(&Value::Integer(1), &null, Collation::Binary), None);
            assert!(is_null(&null));
        }
    }

    #[test]
    fn integers_and_reals_compare_exactly() {
        use Ordering::{Equal, Greater, Less};
        assert_eq!(
            compare_mixed(9_007_199_254_740_993, 9_007_199_254_740_992.0),
            Greater
        );
        assert_eq!(compare_mixed(i64::MAX, 9_223_372_036_854_775_808.0), Less);
        assert_eq!(compare_mixed(i64::MIN, -9_223_372_036_854_775_808.0), Equal);
        assert_eq!(compare_mixed(i64::MIN, f64::NEG_INFINITY), Greater);
        assert_eq!(compare_mixed(0, -0.0), Equal);
        assert_eq!(compare_mixed(-1, -1.5), Greater);
        assert_eq!(compare_mixed(1, 1.5), Less);
        assert_eq!(compare_mixed(0, 5e-324), Less);
    }

    #[test]
    fn collations_fold_ascii_and_trim_spaces_only() {
        let eq = |a: &str, b: &str, c| collate(a.as_bytes(), b.as_bytes(), c).is_eq();
        assert!(eq("aZ", "Az", Collation::NoCase));
        assert!(!eq("ä", "Ä", Collation::NoCase));
        assert!(eq("a\0b", "A\0c", Collation::NoCase));
        assert!(!eq("a\0b", "a\0", Collation::NoCase));
        assert!(collate(b"_", b"A", Collation::NoCase).is_lt());
        assert!(eq("a  ", "a", Collation::RTrim));
        assert!(!eq("a\t", "a", Collation::RTrim));
        assert!(!eq("a ", "a", Collation::Binary));
    }

    #[test]
    fn unknown_spreads_as_in_sql() {
        let (t, f, n) = (Some(true), Some(false), None);
        assert_eq!(all([t, n].into_iter()), n);
        assert_eq!(all([n, f].into_iter()), f);
        assert_eq!(any([n, t].into_iter()), t);
        assert_eq!(any([f, n].into_iter()), n);
    }
}
