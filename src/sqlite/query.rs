//! How SQLite describes the result of a query.

use std::{collections::HashSet, sync::Arc};

use rusqlite::{Connection, Error, ErrorCode};

use super::affinity;
use crate::topic::{Collation, Column, Table, subselect};

/// Why a query's result is not described.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// SQLite cannot be asked just now.
    #[error(transparent)]
    Sqlite(Error),
    /// The query can be no topic's as the database stands; the text says why.
    #[error("{0}")]
    Unfit(String),
}

/// Describes the columns of a SELECT without running it. Reads the schema only.
///
/// A column of a table has its declared type, what is computed has none. None of them counts as
/// NOT NULL, for a join may leave any of them out, and none has a collation that could be relied on.
///
/// # Errors
/// [`QueryError::Unfit`] for what is not exactly one SELECT that stands by itself, also as a part
/// of a larger one; for parameters; for two columns of one name.
pub fn describe_query(conn: &Connection, sql: &str) -> Result<Table, QueryError> {
    // A statement is prepared by the schema as the connection last knew it; one that is run makes
    // it look.
    conn.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 0")
        .and_then(|mut look| look.exists([]))
        .map_err(QueryError::Sqlite)?;
    let statement = conn.prepare(sql).map_err(refused)?;
    if !statement.readonly() || statement.is_explain() != 0 || statement.column_count() == 0 {
        return unfit("must be one SELECT, which writes nothing".into());
    }
    if statement.parameter_count() > 0 {
        return unfit("cannot have parameters: nobody would bind them".into());
    }
    let columns = statement.columns().map(|column| {
        let declared = column.decl_type().unwrap_or_default();
        Column {
            name: Arc::from(column.name()),
            declared: declared.to_owned(),
            // Of ANY it is not known whether the table is STRICT: there nothing is converted.
            affinity: affinity(declared, true),
            kind: None,
            collation: Collation::Other,
            not_null: false,
        }
    });
    let columns: Vec<Column> = columns.collect();
    let mut names = HashSet::new();
    let again = |column: &&Column| !names.insert(column.name.to_ascii_lowercase());
    if let Some(column) = columns.iter().find(again) {
        return unfit(format!(
            "has two columns \"{}\"; give one of them another name with AS",
            column.name
        ));
    }
    let sql = format!("SELECT * FROM {}", subselect(sql));
    let whole = conn.prepare(&sql).map_err(refused)?;
    let names = columns.iter().map(|column| &*column.name);
    if !whole.column_names().eq(names) {
        return unfit("has columns without a plain name; give them one with AS".into());
    }
    Ok(Table {
        name: String::new(),
        columns,
        primary_key: Vec::new(),
        unique: Vec::new(),
        displaces: false,
    })
}

/// What is wrong with the text is the query's fault, anything else the moment's.
fn refused(err: Error) -> QueryError {
    match err {
        Error::MultipleStatement => {
            QueryError::Unfit("must be one SELECT, with nothing behind it".into())
        }
        Error::SqlInputError { msg, .. } => {
            QueryError::Unfit(format!("the database refuses it: {msg}"))
        }
        err if err.sqlite_error_code() == Some(ErrorCode::Unknown) => {
            QueryError::Unfit(format!("the database refuses it: {err}"))
        }
        err => QueryError::Sqlite(err),
    }
}

fn unfit<T>(reason: String) -> Result<T, QueryError> {
    Err(QueryError::Unfit(reason))
}
