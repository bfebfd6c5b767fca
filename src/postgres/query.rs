//! How PostgreSQL describes the result of a query.

use std::{collections::HashSet, sync::Arc};

use tokio_postgres::{Client, Error, Statement, error::SqlState};

use super::{Catalog, DescribeError, told};
use crate::topic::{Affinity, Collation, Column, Table, subselect};

/// How the types of a result are written in a cast. Without a length: `bit` alone would mean one.
const TYPES: &str = "
    SELECT pg_catalog.format_type(t.oid, -1)
    FROM pg_catalog.unnest($1::pg_catalog.oid[]) WITH ORDINALITY t(oid, place) ORDER BY t.place";

/// Describes the columns of a SELECT. It is begun, so that PostgreSQL says what it has against it,
/// and no row of it is read.
///
/// None of the columns counts as NOT NULL, for a join may leave any of them out, and none has a
/// collation that could be relied on. The session must be read-only.
///
/// # Errors
/// [`DescribeError::Unfit`] for what is not exactly one SELECT that stands by itself, also as a part
/// of a larger one; for parameters; for two columns of one name; for what is not there. That the rows
/// may not be read is for their readers to find.
pub async fn describe_query(client: &Client, sql: &str) -> Result<Table, DescribeError> {
    let prepared = client.prepare(sql).await.map_err(refused)?;
    if !prepared.params().is_empty() {
        return unfit("cannot have parameters: nobody would bind them");
    }
    if prepared.columns().is_empty() {
        return unfit("must be one SELECT with columns in its result");
    }
    let mut names = HashSet::new();
    let mut columns = prepared.columns().iter();
    if let Some(column) = columns.find(|column| !names.insert(column.name())) {
        return unfit(&format!(
            "has two columns \"{}\"; give one of them another name with AS",
            column.name()
        ));
    }
    let begun = format!("SELECT FROM {} LIMIT 0", subselect(sql));
    match client.query(&begun, &[]).await {
        // A producer's role need not read what it publishes.
        Err(err) if err.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {}
        found => drop(found.map_err(refused)?),
    }
    Ok(Table {
        name: String::new(),
        columns: described(client, &prepared).await?,
        primary_key: Vec::new(),
        unique: Vec::new(),
        displaces: false,
    })
}

async fn described(client: &Client, prepared: &Statement) -> Result<Vec<Column>, Error> {
    let types: Vec<u32> = prepared
        .columns()
        .iter()
        .map(|column| column.type_().oid())
        .collect();
    let mut catalog = Catalog::default();
    catalog.resolve(client, &types).await?;
    let written = client.query(TYPES, &[&types]).await?;
    let columns = prepared.columns().iter().zip(&types).zip(&written);
    let columns = columns.map(|((column, oid), written)| {
        let declared: Option<String> = written.try_get(0)?;
        Ok(Column {
            name: Arc::from(column.name()),
            declared: declared.unwrap_or_default(),
            affinity: Affinity::Blob,
            kind: catalog.get(*oid),
            collation: Collation::Other,
            not_null: false,
        })
    });
    columns.collect()
}

/// What is wrong with the text (classes 42, 22, 0A), with a schema in it (3F), or what a read-only
/// session may not do (25), is the query's fault; anything else the moment's.
fn refused(err: Error) -> DescribeError {
    let code = err.code().map_or("", |code| code.code());
    match code.get(..2) {
        Some("42" | "22" | "0A" | "3F" | "25") => {
            DescribeError::Unfit(format!("the database refuses it: {}", told(&err)))
        }
        _ => DescribeError::Postgres(err),
    }
}

fn unfit<T>(reason: &str) -> Result<T, DescribeError> {
    Err(DescribeError::Unfit(reason.to_owned()))
}
