//! Where SQLite and PostgreSQL want the same thing said in other words.

use crate::{
    postgres,
    row::{Value, hex, unhex},
    sqlite::quote,
    topic::{Base, Column, Kind, Table, subselect},
};

/// Which database a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite: a comparison converts by itself, values are bound in their storage class.
    Sqlite,
    /// PostgreSQL: every value is bound as a text and cast to the column's type; every column
    /// comes as the text that its type's output function writes, as in the change stream.
    Postgres,
}

impl Dialect {
    /// A condition that never holds.
    pub fn never(self) -> &'static str {
        match self {
            Self::Sqlite => "0",
            Self::Postgres => "FALSE",
        }
    }

    /// What to read from: the table of that name, or the query.
    pub fn base(self, base: &Base, name: &str) -> String {
        match (self, base) {
            (_, Base::Query { sql, .. }) => subselect(sql),
            (Self::Sqlite, Base::Table(_)) => format!("main.{}", quote(name)),
            (Self::Postgres, Base::Table(_)) => format!("{} t", postgres::quote_table(name)),
        }
    }

    /// The value as it is bound for a comparison with a column; `None` where it is none of the
    /// column's type, as far as that can be told here.
    pub fn typed(self, column: &Column, value: Value) -> Option<Value> {
        match (self, &column.kind) {
            (Self::Postgres, Some(Kind::Other)) if !is_plain(&column.declared) => None,
            (Self::Postgres, Some(kind)) => text(kind, value).map(Value::Text),
            _ => Some(value),
        }
    }

    /// The pattern of a LIKE. PostgreSQL's texts hold no NUL.
    pub fn pattern(self, pattern: &str) -> Option<Value> {
        let fits = self == Self::Sqlite || !pattern.contains('\0');
        fits.then(|| Value::Text(pattern.to_owned()))
    }

    /// The place of the `number`th bound value in a comparison with a column.
    pub fn place(self, number: usize, column: &Column) -> String {
        match self {
            Self::Sqlite => format!("?{number}"),
            Self::Postgres => format!("${number}::text::{}", cast(column)),
        }
    }

    /// `column LIKE` the `number`th value. No character escapes another, as in SQLite.
    pub fn like(self, column: &Column, number: usize) -> String {
        let name = quote(&column.name);
        match (self, &column.kind) {
            (Self::Sqlite, _) => format!("{name} LIKE ?{number}"),
            (Self::Postgres, Some(Kind::Text)) => {
                format!("{name} LIKE ${number}::text ESCAPE ''")
            }
            (Self::Postgres, _) => format!("{name}::text LIKE ${number}::text ESCAPE ''"),
        }
    }

    /// What is selected for these columns.
    pub fn outputs(self, table: &Table, columns: &[String]) -> String {
        let output = |name: &String| match table.column(name) {
            Some(column) if self == Self::Postgres => output(column),
            _ => quote(name),
        };
        let outputs: Vec<String> = columns.iter().map(output).collect();
        outputs.join(", ")
    }

    /// One column of an ORDER BY, NULL the smallest of all.
    pub fn order(self, column: &Column, descending: bool) -> String {
        let name = quote(&column.name);
        let direction = if descending { "DESC" } else { "ASC" };
        match (self, descending) {
            (Self::Sqlite, _) => format!("{name} {direction}"),
            // A bare name would mean the text that is selected under it. And without NULLs a
            // plain index serves either order.
            (Self::Postgres, _) if column.not_null => format!("t.{name} {direction}"),
            (Self::Postgres, false) => format!("t.{name} ASC NULLS FIRST"),
            (Self::Postgres, true) => format!("t.{name} DESC NULLS LAST"),
        }
    }
}

/// Whether rows can be ordered by a column, and a page go on from one of its values.
pub fn ordered(column: &Column) -> bool {
    !matches!(column.kind, Some(Kind::Json | Kind::Array { .. }))
}

/// A column as its type's output function writes it.
///
/// A cast to text is that, except for `char(n)`, which loses its blanks, and for types with a cast
/// of their own: `inet` would gain a netmask. `num_nulls` alone tells NULL from a row of NULLs.
fn output(column: &Column) -> String {
    let name = format!("t.{}", quote(&column.name));
    match column.kind {
        Some(Kind::Padded | Kind::Other) | None => format!(
            "CASE WHEN pg_catalog.num_nulls({name}) = 0 THEN pg_catalog.format('%s', {name}) END"
        ),
        Some(_) => format!("{name}::text"),
    }
}

/// The type that a value is cast to before it is compared with a column.
fn cast(column: &Column) -> &str {
    match column.kind {
        Some(Kind::Boolean) => "boolean",
        // Of any width, so that no value is too large to be asked for.
        Some(Kind::Integer) => "bigint",
        Some(Kind::Oid) => "oid",
        Some(Kind::Float4) => "real",
        Some(Kind::Float8) => "double precision",
        Some(Kind::Numeric) => "numeric",
        Some(Kind::Text) => "text",
        Some(Kind::Padded) => "bpchar",
        Some(Kind::Timestamptz) => "timestamptz",
        Some(Kind::Timestamp) => "timestamp",
        Some(Kind::Date) => "date",
        Some(Kind::Time) => "time",
        Some(Kind::Uuid) => "uuid",
        Some(Kind::Bytes) => "bytea",
        Some(Kind::Json | Kind::Array { .. } | Kind::Enum { .. } | Kind::Other) | None => {
            &column.declared
        }
    }
}

/// Types that are no [`Kind`] of their own, and whose texts mean the same whoever reads them, so that a
/// client's may be one.
const PLAIN: [&str; 28] = [
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "interval",
    "time with time zone",
    "bit",
    "bit varying",
    "money",
    "name",
    "\"char\"",
    "pg_lsn",
    "xid8",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "citext",
    "ltree",
    "hstore",
];

/// Whether a client's text may be read as a value of a type without a [`Kind`]. Others understand more than a
/// value: `regclass` looks names up in the catalogue, and so tells which there are; `tsquery` is a language.
fn is_plain(declared: &str) -> bool {
    // `bit(3)`, `time(3) with time zone`, `interval day to second`; an extension may be in a schema.
    let (begin, rest) = declared.split_once('(').unwrap_or((declared, ""));
    let end = rest.split_once(')').map_or("", |(_, end)| end);
    let name = format!("{begin}{end}");
    let name = name.rsplit('.').next().unwrap_or_default();
    PLAIN.contains(&name) || name.starts_with("interval ")
}

/// The text that PostgreSQL reads as a value of this kind. What only it can judge, such as a
/// time, it judges.
fn text(kind: &Kind, value: Value) -> Option<String> {
    let text = match (kind, value) {
        (_, Value::Null | Value::Json(_)) | (Kind::Json | Kind::Array { .. }, _) => return None,
        (Kind::Boolean, value) => truth(&value)?.to_string(),
        (Kind::Bytes, Value::Blob(bytes)) => hex(&bytes),
        (Kind::Bytes, Value::Text(text)) => unhex(&text).map(|_| text)?,
        (Kind::Bytes, _) | (_, Value::Blob(_) | Value::Boolean(_)) => return None,
        (Kind::Integer | Kind::Oid, value) => {
            let integer = integer(&value)?;
            let fits = *kind == Kind::Integer || u32::try_from(integer).is_ok();
            fits.then(|| integer.to_string())?
        }
        (Kind::Float4 | Kind::Float8, Value::Text(text)) => {
            text.parse::<f64>().ok().map(|_| text)?
        }
        (Kind::Enum { labels }, Value::Text(text)) => labels
            .iter()
            .any(|label| **label == *text)
            .then_some(text)?,
        (
            Kind::Timestamptz | Kind::Timestamp | Kind::Date | Kind::Time | Kind::Uuid,
            Value::Integer(_) | Value::Real(_),
        ) => return None,
        (_, Value::Text(text)) => text,
        (_, Value::Integer(integer)) => integer.to_string(),
        (_, Value::Real(real)) => real.to_string(),
    };
    (!text.contains('\0')).then_some(text)
}

/// JSON's `true` arrives as 1.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(truth) => Some(*truth),
        Value::Integer(1) => Some(true),
        Value::Integer(0) => Some(false),
        Value::Text(text) => match text.as_str() {
            "t" | "true" => Some(true),
            "f" | "false" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(integer) => Some(*integer),
        Value::Text(text) => text.parse().ok(),
        // 3.0 is 3 in JSON; beyond 2^53 it is not known which integer was meant.
        Value::Real(real) if real.fract() == 0.0 && real.abs() <= 9_007_199_254_740_991.0 => {
            Some(*real as i64)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_text_is_read_only_as_a_type_that_says_nothing_but_values() {
        for plain in [
            "inet",
            "bit(3)",
            "bit varying(8)",
            "time(3) with time zone",
            "interval",
            "interval(3)",
            "interval day to second(3)",
            "public.citext",
            "extensions.ltree",
        ] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in [
            "regclass",
            "regtype",
            "regproc",
            "regrole",
            "tsvector",
            "tsquery",
            "jsonpath",
            "xml",
            "aclitem",
            "point",
            "public.my_domain",
            "inet[]",
            "intervals",
            "",
        ] {
            assert!(!is_plain(other), "{other}");
        }
    }
}
