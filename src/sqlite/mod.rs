//! What every room that speaks to SQLite shares: how a table describes itself, how values cross
//! the border, and how names and texts are written into SQL.

mod open;
mod query;

use std::sync::Arc;

use rusqlite::{
    Connection, OptionalExtension, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use crate::{
    row::Value,
    topic::{Affinity, Collation, Column, Table},
};

pub use open::{
    CHANGELOG, FileId, META, Mode, OWN_BUSY_TIMEOUT, can_write, file_id, is_utf8, journal,
    journal_mode, open, present, source_id,
};
pub use query::{QueryError, describe_query};

/// The prefix of the tables and triggers that Rowcast itself puts into a database.
pub const OWN_PREFIX: &str = "_rowcast";

/// Describes an ordinary table of the main database as it stands now.
///
/// `table` is looked up as SQLite does it, without regard to the case of ASCII letters; the
/// description carries the names as declared. `None` for what is missing and for what no trigger
/// can watch: views, virtual tables with their shadow tables, SQLite's own tables.
///
/// - `columns` include generated ones, but not the hidden ones of table-valued modules.
/// - `unique` holds UNIQUE constraints only; an index made by CREATE UNIQUE INDEX can be dropped
///   at any time, and so is no key.
/// - `displaces` is true for *any* unique index that does not belong to the primary key: partial
///   ones, those over expressions and those made by CREATE UNIQUE INDEX too. It is also true where
///   two spellings of a primary key are equal, such as `'a'` and `'A'`.
///
/// The description is made of several reads. Call it inside a transaction where another process
/// may alter the table meanwhile.
///
/// # Errors
/// What SQLite says; the caller treats it as any other failed read.
pub fn introspect(conn: &Connection, table: &str) -> rusqlite::Result<Option<Table>> {
    let Some((name, strict)) = find(conn, table)? else {
        return Ok(None);
    };
    let (columns, primary_key) = columns(conn, &name, strict)?;
    let (unique, other_unique) = unique_indexes(conn, &name)?;
    let displaces = other_unique
        || columns
            .iter()
            .filter(|column| primary_key.iter().any(|key| **key == *column.name))
            .any(|key| key.collation != Collation::Binary);
    Ok(Some(Table {
        name,
        columns,
        primary_key,
        unique,
        displaces,
    }))
}

/// The names of the user's ordinary tables in the main database, in alphabetical order.
///
/// Views, virtual tables with their shadow tables, SQLite's own tables and those of Rowcast
/// ([`OWN_PREFIX`]) are left out.
///
/// # Errors
/// What SQLite says; the caller treats it as any other failed read.
pub fn tables(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    let mut names = names.collect::<rusqlite::Result<Vec<String>>>()?;
    names.retain(|name| !has_prefix(name, "sqlite_") && !has_prefix(name, OWN_PREFIX));
    Ok(names)
}

/// Describes every table that [`tables`] names, in one read transaction, so that a migration which
/// runs meanwhile is seen whole or not at all.
///
/// # Errors
/// What SQLite says; the caller treats it as any other failed read.
pub fn introspect_all(conn: &Connection) -> rusqlite::Result<Vec<Table>> {
    let read = conn.unchecked_transaction()?;
    let names = tables(&read)?;
    let found = names.iter().map(|name| introspect(&read, name));
    found.filter_map(Result::transpose).collect()
}

/// Takes a value out of SQLite, in its storage class.
///
/// Invalid UTF-8 in a text becomes U+FFFD, for JSON can hold nothing else.
pub fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// Binds a value without copying it. SQLite stores a NaN as NULL.
impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(integer) => ValueRef::Integer(*integer),
            Self::Real(real) => ValueRef::Real(*real),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
            Self::Boolean(truth) => ValueRef::Integer((*truth).into()),
            Self::Json(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// Writes a name as an SQL identifier: `"patient"`, with every `"` within it doubled.
///
/// The name is one that SQLite itself reported, hence without NUL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes a text as an SQL expression: `'it''s'`.
///
/// SQLite ends a statement at NUL, so a text with one is written as bytes cast to TEXT.
pub fn text_literal(text: &str) -> String {
    if text.contains('\0') {
        let hex = crate::row::hex(text.as_bytes());
        return format!("CAST(x'{}' AS TEXT)", hex.trim_start_matches("\\x"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

/// The declared name of an ordinary table, and whether it is STRICT.
fn find(conn: &Connection, table: &str) -> rusqlite::Result<Option<(String, bool)>> {
    if has_prefix(table, "sqlite_") {
        return Ok(None);
    }
    conn.prepare_cached(
        "SELECT name, strict FROM pragma_table_list(?1) WHERE schema = 'main' AND type = 'table'",
    )?
    .query_row([table], |row| Ok((row.get(0)?, row.get(1)?)))
    .optional()
}

/// The columns in declaration order, and the names of the primary key's in key order.
fn columns(
    conn: &Connection,
    table: &str,
    strict: bool,
) -> rusqlite::Result<(Vec<Column>, Vec<String>)> {
    let mut statement = conn.prepare_cached(
        "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1, 'main') \
         WHERE hidden <> 1 ORDER BY cid",
    )?;
    let mut rows = statement.query([table])?;
    let (mut columns, mut key) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let declared: String = row.get(1)?;
        let rank: u32 = row.get(3)?;
        if rank > 0 {
            key.push((rank, name.clone()));
        }
        columns.push(Column {
            affinity: affinity(&declared, strict),
            kind: None,
            collation: collation(conn, table, &name)?,
            not_null: row.get(2)?,
            name: Arc::from(name),
            declared,
        });
    }
    key.sort_unstable();
    Ok((columns, key.into_iter().map(|(_, name)| name).collect()))
}

/// The column sets of UNIQUE constraints, and whether any unique index beside the primary key's
/// exists.
fn unique_indexes(conn: &Connection, table: &str) -> rusqlite::Result<(Vec<Vec<String>>, bool)> {
    let mut statement = conn.prepare_cached(
        "SELECT name, origin = 'u' AND NOT partial FROM pragma_index_list(?1, 'main') \
         WHERE \"unique\" AND origin <> 'pk' ORDER BY seq DESC",
    )?;
    let mut rows = statement.query([table])?;
    let (mut unique, mut displaces) = (Vec::new(), false);
    while let Some(row) = rows.next()? {
        displaces = true;
        if row.get(1)? {
            unique.push(index_columns(conn, &row.get::<_, String>(0)?)?);
        }
    }
    Ok((unique, displaces))
}

/// The columns of an index that a UNIQUE constraint made: such an index has no expressions.
fn index_columns(conn: &Connection, index: &str) -> rusqlite::Result<Vec<String>> {
    conn.prepare_cached("SELECT name FROM pragma_index_info(?1, 'main') ORDER BY seqno")?
        .query_map([index], |row| row.get(0))?
        .collect()
}

/// Follows sqlite.org/datatype3 §3.1, and sqlite.org/stricttables for ANY in a STRICT table.
fn affinity(declared: &str, strict: bool) -> Affinity {
    let declared = declared.to_ascii_uppercase();
    let says = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    if strict && declared == "ANY" {
        Affinity::Blob
    } else if says(&["INT"]) {
        Affinity::Integer
    } else if says(&["CHAR", "CLOB", "TEXT"]) {
        Affinity::Text
    } else if says(&["BLOB"]) || declared.is_empty() {
        Affinity::Blob
    } else if says(&["REAL", "FLOA", "DOUB"]) {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

/// A collation that a program registers under a built-in name cannot be told from the built-in.
fn collation(conn: &Connection, table: &str, column: &str) -> rusqlite::Result<Collation> {
    let (_, name, ..) = conn.column_metadata(Some("main"), table, column)?;
    let name = name.map_or("BINARY".into(), |name| name.to_string_lossy());
    Ok(match name.to_ascii_uppercase().as_str() {
        "BINARY" => Collation::Binary,
        "NOCASE" => Collation::NoCase,
        "RTRIM" => Collation::RTrim,
        _ => Collation::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        conn
    }

    fn describe(sql: &str) -> Table {
        introspect(&database(sql), "t").unwrap().unwrap()
    }

    #[test]
    fn a_table_is_found_in_any_case_and_keeps_its_own_spelling() {
        let conn = database(
            "CREATE TABLE \"Fall \"\"1\"\"\" (Id INTEGER PRIMARY KEY, Name TEXT NOT NULL)",
        );
        let table = introspect(&conn, "FALL \"1\"").unwrap().unwrap();
        assert_eq!(table.name, "Fall \"1\"");
        assert_eq!(table.primary_key, ["Id"]);
        assert!(!table.displaces);
        let name = table.column("Name").unwrap();
        assert!(name.not_null);
        assert_eq!(name.declared, "TEXT");
    }

    #[test]
    fn only_ordinary_tables_of_the_main_database_are_described() {
        let conn = database(
            "CREATE TABLE t (a); CREATE VIEW v AS SELECT * FROM gone; CREATE TEMP TABLE temporary (a);
             CREATE VIRTUAL TABLE words USING fts5(body); CREATE TABLE _rowcast_log (a);
             CREATE TABLE sqliteish (a); CREATE TABLE s (a INTEGER PRIMARY KEY AUTOINCREMENT)",
        );
        assert_eq!(tables(&conn).unwrap(), ["s", "sqliteish", "t"]);
        for name in [
            "v",
            "words",
            "words_data",
            "temporary",
            "missing",
            "sqlite_sequence",
            "sqlite_schema",
        ] {
            assert_eq!(introspect(&conn, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn affinity_follows_the_declared_type_as_sqlite_reads_it() {
        let table = describe(
            "CREATE TABLE t (a BIGINT, b VARCHAR(30), c, d DOUBLE PRECISION, e DECIMAL(10,5),
             f BLOB, g FLOATING POINT, h datetime, i CHARINT, j bool, k ANY)",
        );
        use Affinity::{Blob, Integer, Numeric, Real, Text};
        let found: Vec<_> = table.columns.iter().map(|column| column.affinity).collect();
        let expected = [
            Integer, Text, Blob, Real, Numeric, Blob, Integer, Numeric, Integer, Numeric, Numeric,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn any_converts_nothing_in_a_strict_table() {
        let sql = "CREATE TABLE t (a ANY, b INT) STRICT; INSERT INTO t VALUES ('1', 1)";
        assert_eq!(describe(sql).column("a").unwrap().affinity, Affinity::Blob);
        let equal: bool = database(sql)
            .query_row("SELECT a = 1 FROM t", [], |row| row.get(0))
            .unwrap();
        assert!(!equal);
    }

    #[test]
    fn collations_are_the_columns_own() {
        let conn = database(
            "CREATE TABLE t (a, b COLLATE nocase, c COLLATE RTRIM, d AS (b) COLLATE NOCASE)",
        );
        let table = introspect(&conn, "t").unwrap().unwrap();
        let found: Vec<_> = table
            .columns
            .iter()
            .map(|column| column.collation)
            .collect();
        use Collation::{Binary, NoCase, RTrim};
        assert_eq!(found, [Binary, NoCase, RTrim, NoCase]);
    }

    #[test]
    fn a_collation_of_some_program_is_known_as_such() {
        // The program that created the table had the collation; this connection has not.
        let table = describe(
            "CREATE TABLE t (a TEXT COLLATE NOCASE UNIQUE); PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'pinyin') WHERE name = 't';
             PRAGMA writable_schema = RESET",
        );
        assert_eq!(table.unique.len(), 1);
        assert_eq!(table.columns[0].collation, Collation::Other);
    }

    #[test]
    fn generated_columns_are_columns() {
        let table = describe(
            "CREATE TABLE t (a INT, b INT AS (a + 1), c TEXT GENERATED ALWAYS AS (a) STORED)",
        );
        let names: Vec<_> = table.columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(table.columns[2].declared, "TEXT");
    }

    #[test]
    fn the_primary_key_is_in_key_order_and_displaces_nothing() {
        for suffix in ["", "WITHOUT ROWID"] {
            let table = describe(&format!(
                "CREATE TABLE t (a, b, c, PRIMARY KEY (c, a)) {suffix}"
            ));
            assert_eq!(table.primary_key, ["c", "a"]);
            assert_eq!((table.unique.len(), table.displaces), (0, false));
        }
        assert!(describe("CREATE TABLE t (a)").primary_key.is_empty());
        assert!(!describe("CREATE TABLE t (a TEXT PRIMARY KEY)").displaces);
        assert!(describe("CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY)").displaces);
    }

    #[test]
    fn only_a_constraint_is_a_key_but_every_unique_index_displaces() {
        let table =
            describe("CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE, b, c, UNIQUE (c, b))");
        assert_eq!(
            table.unique,
            [vec!["a".to_owned()], vec!["c".into(), "b".into()]]
        );
        assert!(table.displaces);
        for index in ["(a)", "(a) WHERE a > 0", "(lower(a))"] {
            let sql = format!(
                "CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE UNIQUE INDEX i ON t {index}"
            );
            let table = describe(&sql);
            assert_eq!((table.unique.len(), table.displaces), (0, true), "{index}");
        }
        assert!(!describe("CREATE TABLE t (a); CREATE INDEX i ON t (a)").displaces);
    }

    #[test]
    fn values_cross_the_border_unchanged() {
        let conn = database("");
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::Text("王秀英\0'".into()),
            Value::Blob(vec![0, 255]),
        ];
        for sent in values {
            let back = conn.query_row("SELECT ?1", [&sent], |row| Ok(value(row.get_ref(0)?)));
            assert_eq!(back.unwrap(), sent);
        }
        let broken = conn.query_row("SELECT CAST(x'41ff' AS TEXT)", [], |row| {
            Ok(value(row.get_ref(0)?))
        });
        assert_eq!(broken.unwrap(), Value::Text("A\u{fffd}".into()));
    }

    #[test]
    fn names_and_texts_survive_being_written_into_sql() {
        let name = "a\"b'c; --";
        let conn = database(&format!("CREATE TABLE {} (x)", quote(name)));
        assert_eq!(tables(&conn).unwrap(), [name]);
        for text in ["", "it's", "\"''\"", "a\0b", "来访"] {
            let sql = format!("SELECT {}", text_literal(text));
            let back: String = conn.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(back, text);
        }
    }
}
