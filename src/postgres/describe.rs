//! How PostgreSQL describes a table.

use std::sync::Arc;

use serde::Deserialize;
use tokio_postgres::{Client, Error};

use super::Catalog;
use crate::topic::{Affinity, Collation, Column, Table};

/// Why a table is not described.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// PostgreSQL said so, or went away.
    #[error(transparent)]
    Postgres(#[from] Error),
    /// The table is there and can be no topic's; the text says why, and what would help.
    #[error("{0}")]
    Unfit(String),
}

/// What [`TABLE`] says of one table.
#[derive(Deserialize)]
struct Found {
    schema: String,
    name: String,
    kind: String,
    persistence: String,
    partition: bool,
    inherited: bool,
    columns: Vec<FoundColumn>,
    primary: Option<Vec<String>>,
    unique: Vec<Vec<String>>,
}

#[derive(Deserialize)]
struct FoundColumn {
    name: String,
    declared: String,
    r#type: u32,
    not_null: bool,
    collation: String,
}

/// One statement, so that a table that is altered meanwhile is seen before or after, not between.
///
/// What only newer servers have is read by way of JSON, where a missing member is null.
const TABLE: &str = "
    SELECT pg_catalog.jsonb_build_object(
        'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'persistence', c.relpersistence,
        'partition', c.relispartition,
        'inherited', c.relkind = 'r' AND EXISTS (
            SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
        'columns', (SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'name', a.attname, 'declared', pg_catalog.format_type(a.atttypid, a.atttypmod),
                'type', a.atttypid::pg_catalog.int8, 'not_null', a.attnotnull,
                'collation', CASE
                    WHEN o.oid IS NULL THEN 'binary'
                    WHEN NOT o.collisdeterministic THEN 'other'
                    WHEN pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN 'locale'
                    WHEN l.provider = 'b' OR l.provider = 'c' AND l.rules IN ('C', 'POSIX')
                        THEN 'binary'
                    ELSE 'locale' END
            ) ORDER BY a.attnum), '[]')
            FROM pg_catalog.pg_attribute a
            LEFT JOIN pg_catalog.pg_collation o ON o.oid = a.attcollation
            LEFT JOIN pg_catalog.pg_database d
                ON d.datname = pg_catalog.current_database() AND o.collprovider = 'd'
            CROSS JOIN LATERAL (SELECT
                CASE WHEN d.oid IS NULL THEN o.collprovider::text
                    ELSE coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') END,
                CASE WHEN d.oid IS NULL THEN pg_catalog.to_jsonb(o) ->> 'collcollate'
                    ELSE d.datcollate::text END
            ) l(provider, rules)
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attgenerated = ''),
        'primary', (SELECT k.names FROM keys k WHERE k.contype = 'p'),
        'unique', (SELECT coalesce(pg_catalog.jsonb_agg(k.names ORDER BY k.oid), '[]')
            FROM keys k WHERE k.contype = 'u')
    )::text
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = (SELECT oid FROM target)";

/// Which table is meant, and its keys: what [`TABLE`] begins with.
const TARGET: &str = "
    WITH target AS (
        SELECT c.oid FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relname = $2 AND c.relkind = ANY ('{r,p,v,m,f}')
            AND CASE WHEN $1 = '' THEN pg_catalog.pg_table_is_visible(c.oid)
                ELSE n.nspname = $1 END
    ), keys AS (
        SELECT u.oid, u.contype, (
            SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k.place)
            FROM pg_catalog.unnest(u.conkey) WITH ORDINALITY k(attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = u.conrelid AND a.attnum = k.attnum
        ) AS names
        FROM pg_catalog.pg_constraint u JOIN target ON u.conrelid = target.oid
        WHERE u.contype = 'p' OR u.contype = 'u' AND NOT u.condeferrable
    )";

/// The ordinary and partitioned tables of users, those on the search path without their schema
/// first.
const TABLES: &str = "
    SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND n.nspname || c.relname !~ '[.\"]'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                AND d.deptype = 'e')
    ORDER BY NOT pg_catalog.pg_table_is_visible(c.oid), 1";

/// Whether all that hold a table's rows have the replica identity FULL: its partitions, or itself.
const FULL: &str = "
    SELECT coalesce(pg_catalog.bool_and(c.relreplident = 'f'), false)
    FROM pg_catalog.pg_class root JOIN pg_catalog.pg_namespace n ON n.oid = root.relnamespace
    JOIN pg_catalog.pg_class c ON c.oid = root.oid AND root.relkind <> 'p'
        OR c.relkind <> 'p' AND c.oid IN (
            SELECT p.relid FROM pg_catalog.pg_partition_tree(root.oid) p)
    WHERE n.nspname = pg_catalog.split_part($1, '.', 1)
        AND root.relname = pg_catalog.split_part($1, '.', 2)";

/// Whether the change stream tells the rows of a table, `schema.table`, as they were before a change; of
/// one partitioned and without partitions there is nothing that says so.
///
/// # Errors
/// What PostgreSQL says.
pub async fn tells_rows_before(client: &Client, table: &str) -> Result<bool, Error> {
    client.query_one(FULL, &[&table]).await?.try_get(0)
}

/// Describes a table as it stands now. `name` is `table`, found on the search path, or
/// `schema.table`, letter by letter; the description's name is always `schema.table`.
///
/// `None` for what is missing. Generated columns are left out: the change stream does not carry
/// them. `unique` holds the constraints that are not deferrable.
///
/// # Errors
/// [`DescribeError::Unfit`] for what cannot be watched: a view, a foreign, unlogged or temporary
/// table, a partition or a parent of INHERITS, and a name with a dot or a quote in it.
pub async fn describe(client: &Client, name: &str) -> Result<Option<Table>, DescribeError> {
    let (schema, table) = match name.split_once('.') {
        Some((schema, table)) => (schema, table),
        None => ("", name),
    };
    if name.contains('"') || table.contains('.') {
        return unfit(
            name,
            "names with a dot or a quote in them cannot be watched",
        );
    }
    let sql = format!("{TARGET}{TABLE}");
    let Some(row) = client.query_opt(&sql, &[&schema, &table]).await? else {
        return Ok(None);
    };
    let found: String = row.try_get(0)?;
    let found: Found = match serde_json::from_str(&found) {
        Ok(found) => found,
        Err(err) => return unfit(name, &format!("its description is not understood: {err}")),
    };
    if let Some(reason) = reason(&found) {
        return unfit(name, reason);
    }
    let types: Vec<u32> = found.columns.iter().map(|column| column.r#type).collect();
    let mut catalog = Catalog::default();
    catalog.resolve(client, &types).await?;
    Ok(Some(found.table(&catalog)))
}

/// The names, `schema.table`, of the tables that [`describe`] would describe, those on the search
/// path first.
///
/// # Errors
/// What PostgreSQL says.
pub async fn tables(client: &Client) -> Result<Vec<String>, Error> {
    let rows = client.query(TABLES, &[]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Describes every table that [`tables`] names, as far as it can be watched.
///
/// # Errors
/// What PostgreSQL says.
pub async fn describe_all(client: &Client) -> Result<Vec<Table>, Error> {
    let mut described = Vec::new();
    for name in tables(client).await? {
        match describe(client, &name).await {
            Ok(table) => described.extend(table),
            Err(DescribeError::Unfit(_)) => {}
            Err(DescribeError::Postgres(err)) => return Err(err),
        }
    }
    Ok(described)
}

/// Writes a name as an SQL identifier: `"patient"`, with every `"` within it doubled.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Writes a table's name, `schema.table`, as SQL.
pub fn quote_table(name: &str) -> String {
    match name.split_once('.') {
        Some((schema, table)) => format!("{}.{}", quote(schema), quote(table)),
        None => quote(name),
    }
}

fn unfit<T>(name: &str, reason: &str) -> Result<T, DescribeError> {
    Err(DescribeError::Unfit(format!("\"{name}\": {reason}")))
}

/// Why a table cannot be watched, if so.
fn reason(found: &Found) -> Option<&'static str> {
    match (&*found.kind, &*found.persistence) {
        ("v" | "m", _) => Some("a view cannot be watched; name the table beneath it"),
        ("f", _) => Some("a foreign table cannot be watched here, only where its rows are"),
        (_, "t") => Some("a temporary table cannot be watched"),
        (_, "u") => Some(
            "the changes of an unlogged table are not in the log; ALTER TABLE … SET LOGGED would \
             put them there",
        ),
        _ if found.partition => {
            Some("a partition cannot be watched by itself; name the table that it is a part of")
        }
        _ if found.inherited => {
            Some("other tables INHERIT from it, and their rows would be its rows too")
        }
        _ if format!("{}{}", found.schema, found.name).contains(['.', '"']) => {
            Some("names with a dot or a quote in them cannot be watched")
        }
        _ => None,
    }
}

impl Found {
    fn table(self, catalog: &Catalog) -> Table {
        let columns = self.columns.into_iter().map(|column| Column {
            name: Arc::from(column.name),
            declared: column.declared,
            affinity: Affinity::Blob,
            kind: catalog.get(column.r#type),
            collation: match &*column.collation {
                "binary" => Collation::Binary,
                "locale" => Collation::Locale,
                _ => Collation::Other,
            },
            not_null: column.not_null,
        });
        Table {
            name: format!("{}.{}", self.schema, self.name),
            columns: columns.collect(),
            primary_key: self.primary.unwrap_or_default(),
            unique: self.unique,
            displaces: false,
        }
    }
}
