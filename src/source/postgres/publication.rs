//! The publication: exactly the watched tables, and none whose own writers it would stop.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio_postgres::{Client, Error, error::SqlState};

use super::{refused::Refused, relations::Watched};
use crate::{
    postgres::{quote, quote_table as quoted},
    source::SourceError,
};

/// The comment by which a publication is known to be ours.
const OURS: &str = "made by rowcast";

/// What it must publish, and how.
const PUBLISHED: &str = "publish = 'insert, update, delete, truncate'";

/// A publication as the catalog has it.
#[derive(Debug)]
pub struct Publication {
    /// We made it, so we may change it.
    pub ours: bool,
    /// It publishes every kind of change, partitions under the name of their root.
    pub complete: bool,
    /// The tables in it, `schema.table`; partitions under their root.
    pub tables: BTreeSet<String>,
    /// Of these the tables with a row filter or a list of columns.
    pub partial: BTreeSet<String>,
}

/// How a table's old rows are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The key.
    Key,
    /// The whole row.
    Full,
    /// Nothing: once published, the database would refuse every UPDATE and DELETE of it.
    Missing,
}

/// A watched table as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// How its old rows are told.
    pub identity: Identity,
    /// For a partitioned table, a fingerprint of its partitions.
    pub partitions: Option<String>,
}

/// Why a watched table cannot be followed now, while the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// There is no such table.
    Gone,
    /// It is not in the publication.
    Unpublished,
    /// It has no replica identity: published or not, its changes are not all told.
    Harmed,
}

/// What [`ensure`] found and did.
#[derive(Debug, Default)]
pub struct Ensured {
    /// Tables that were added to a publication that was there already: what was written to them
    /// before was not published.
    pub added: Vec<String>,
    /// Tables that are there and are left out.
    pub absent: BTreeMap<String, Absence>,
}

const FIND: &str = "
    SELECT coalesce(pg_catalog.obj_description(p.oid, 'pg_publication') LIKE $2 || '%', false),
        p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot
    FROM pg_catalog.pg_publication p WHERE p.pubname = $1";

/// `to_jsonb`, for what only newer servers have: row filters and lists of columns.
const MEMBERS: &str = "
    SELECT t.schemaname || '.' || t.tablename,
        coalesce(pg_catalog.to_jsonb(r) ->> 'prqual', pg_catalog.to_jsonb(r) ->> 'prattrs')
            IS NOT NULL
    FROM pg_catalog.pg_publication_tables t
    JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    LEFT JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
    WHERE p.pubname = $1";

/// The identity of a table is the poorest of its partitions', for they hold the rows. What they
/// are, and in which files, is told too: rows come and go with them without a change of a row.
const MEMBERS_OF: &str = "
    SELECT w.name, pg_catalog.min(CASE c.relreplident
        WHEN 'f' THEN 2
        WHEN 'd' THEN (EXISTS (SELECT FROM pg_catalog.pg_index i
            WHERE i.indrelid = c.oid AND i.indisprimary AND i.indislive))::int
        WHEN 'i' THEN (EXISTS (SELECT FROM pg_catalog.pg_index i
            WHERE i.indrelid = c.oid AND i.indisreplident AND i.indislive))::int
        ELSE 0 END),
        CASE WHEN pg_catalog.bool_or(root.relkind = 'p') THEN pg_catalog.md5(
            pg_catalog.string_agg(c.oid || '/' || c.relfilenode, ',' ORDER BY c.oid)) END
    FROM pg_catalog.unnest($1::text[]) w(name)
    JOIN pg_catalog.pg_namespace n ON n.nspname = pg_catalog.split_part(w.name, '.', 1)
    JOIN pg_catalog.pg_class root
        ON root.relnamespace = n.oid AND root.relname = pg_catalog.split_part(w.name, '.', 2)
    CROSS JOIN LATERAL (
        SELECT root.oid WHERE root.relkind <> 'p'
        UNION ALL
        SELECT p.relid FROM pg_catalog.pg_partition_tree(root.oid) p
        WHERE p.isleaf AND root.relkind = 'p' AND p.relid <> root.oid
        UNION ALL
        SELECT root.oid WHERE root.relkind = 'p' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_partition_tree(root.oid) p WHERE p.isleaf AND p.level > 0)
    ) leaf(oid)
    JOIN pg_catalog.pg_class c ON c.oid = leaf.oid
    GROUP BY w.name";

/// The publication of that name, if there is one.
///
/// # Errors
/// What PostgreSQL says.
pub async fn find(client: &Client, name: &str) -> Result<Option<Publication>, Error> {
    let Some(row) = client.query_opt(FIND, &[&name, &OURS]).await? else {
        return Ok(None);
    };
    let mut found = Publication {
        ours: row.try_get(0)?,
        complete: row.try_get(1)?,
        tables: BTreeSet::new(),
        partial: BTreeSet::new(),
    };
    for row in client.query(MEMBERS, &[&name]).await? {
        let table: String = row.try_get(0)?;
        if row.try_get(1)? {
            found.partial.insert(table.clone());
        }
        found.tables.insert(table);
    }
    Ok(Some(found))
}

/// The watched tables as they stand; a table that is not there is not in it.
///
/// # Errors
/// What PostgreSQL says.
pub async fn standing(
    client: &Client,
    watched: &Watched,
) -> Result<BTreeMap<String, Stand>, Error> {
    let names: Vec<&str> = watched.tables().collect();
    let rows = client.query(MEMBERS_OF, &[&names]).await?;
    let read = rows.iter().map(|row| {
        let identity = match row.try_get(1)? {
            0 => Identity::Missing,
            1 => Identity::Key,
            _ => Identity::Full,
        };
        let partitions = row.try_get(2)?;
        let stand = Stand {
            identity,
            partitions,
        };
        Ok((row.try_get(0)?, stand))
    });
    read.collect()
}

/// The fingerprints of the partitioned ones.
pub fn partitions(standing: BTreeMap<String, Stand>) -> HashMap<String, String> {
    let found = standing.into_iter();
    found
        .filter_map(|(table, stand)| Some((table, stand.partitions?)))
        .collect()
}

/// The watched tables that cannot be followed as they stand, and why.
pub fn absent(
    found: Option<&Publication>,
    standing: &BTreeMap<String, Stand>,
    watched: &Watched,
) -> BTreeMap<String, Absence> {
    let published = |table| found.is_some_and(|found| found.tables.contains(table));
    let judged = watched.tables().filter_map(|table| {
        let absence = match standing.get(table) {
            None => Absence::Gone,
            Some(stand) if stand.identity == Identity::Missing => Absence::Harmed,
            Some(_) if !published(table) => Absence::Unpublished,
            Some(_) => return None,
        };
        Some((table.to_owned(), absence))
    });
    judged.collect()
}

impl Absence {
    /// Tells the operator, with the remedy.
    pub fn warn(self, table: &str, publication: &str) {
        match self {
            Self::Gone => tracing::warn!(table, "the table has gone"),
            Self::Unpublished => tracing::warn!(
                table,
                "the table is left out, for it is not published: {}",
                addition(publication, [table])
            ),
            Self::Harmed => {
                tracing::warn!(table, "the table is left out: {}", no_identity(table));
            }
        }
    }
}

/// Makes the publication publish the watched tables and no others, as far as it is ours to change.
/// Tables that it cannot or must not publish are left out.
///
/// # Errors
/// [`SourceError::Unavailable`] says what to do: none of the tables is left, or the publication
/// leaves out changes. [`SourceError::Standby`]: another producer makes it.
pub async fn ensure(
    client: &Client,
    name: &str,
    watched: &Watched,
    manage: bool,
) -> Result<Ensured, SourceError> {
    let standing = standing(client, watched).await.map_err(Refused::from)?;
    let found = find(client, name).await.map_err(Refused::from)?;
    let mut absent = absent(found.as_ref(), &standing, watched);
    absent.retain(|_, absence| *absence != Absence::Gone);
    // The others go on; one that is not there is added when it comes.
    let mut tables: BTreeSet<String> = standing.keys().cloned().collect();
    tables.retain(|table| absent.get(table) != Some(&Absence::Harmed));
    let mut added = Vec::new();
    match &found {
        None if tables.is_empty() && !standing.is_empty() => {}
        None if !manage => {
            let text = format!(
                "there is no publication \"{name}\": {}",
                creation(name, &tables)
            );
            return Err(Refused::new(text).into());
        }
        None => {
            create(client, name, &tables).await?;
            absent.retain(|_, absence| *absence == Absence::Harmed);
        }
        Some(found) if found.ours && manage => {
            added = alter(client, name, found, &tables)
                .await
                .map_err(Refused::from)?;
            absent.retain(|table, _| !added.contains(table));
        }
        Some(found) => {
            if let Some(refusal) = unfit(name, found, &tables, &[]) {
                return Err(Refused::new(refusal).into());
            }
        }
    }
    remains(name, &standing, &absent)?;
    for (table, absence) in &absent {
        absence.warn(table, name);
    }
    Ok(Ensured { added, absent })
}

/// Refuses to follow nothing.
fn remains(
    name: &str,
    standing: &BTreeMap<String, Stand>,
    absent: &BTreeMap<String, Absence>,
) -> Result<(), Refused> {
    if standing.is_empty() || absent.len() < standing.len() {
        return Ok(());
    }
    let harmed = absent.iter().find(|(_, why)| **why == Absence::Harmed);
    Err(Refused::new(match harmed {
        Some((table, _)) => no_identity(table),
        None => lacking(name, absent.keys().map(String::as_str).collect()),
    }))
}

async fn create(client: &Client, name: &str, tables: &BTreeSet<String>) -> Result<(), SourceError> {
    let comment = format!("COMMENT ON PUBLICATION {} IS '{OURS}'", quote(name));
    let sql = format!("{}; {comment}", creation(name, tables));
    let made = client.batch_execute(&sql).await;
    made.map_err(|err| match err.code() {
        // Two producers started for the first time, and the other came first.
        Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION) => {
            SourceError::Standby("another producer makes the publication".into())
        }
        _ => Refused::from(err).into(),
    })
}

/// Returns the tables that were added. One that may not be, or has just gone, is not.
async fn alter(
    client: &Client,
    name: &str,
    found: &Publication,
    tables: &BTreeSet<String>,
) -> Result<Vec<String>, Error> {
    if !found.complete {
        let sql = format!(
            "ALTER PUBLICATION {} SET ({PUBLISHED}, publish_via_partition_root = true)",
            quote(name)
        );
        client.batch_execute(&sql).await?;
    }
    // Also those that lost their replica identity: their writers come first.
    drop_tables(client, name, found.tables.difference(tables)).await?;
    let mut added = Vec::new();
    for table in tables.difference(&found.tables) {
        match client.batch_execute(&addition(name, [table])).await {
            Err(err)
                if [
                    &SqlState::INSUFFICIENT_PRIVILEGE,
                    &SqlState::INVALID_PARAMETER_VALUE,
                    &SqlState::UNDEFINED_TABLE,
                ]
                .map(Some)
                .contains(&err.code()) => {}
            ended => {
                ended?;
                added.push(table.clone());
            }
        }
    }
    if !added.is_empty() {
        tracing::info!(publication = name, tables = ?added, "added tables to the publication");
    }
    Ok(added)
}

/// Removes a publication, if it is ours.
///
/// # Errors
/// What PostgreSQL says.
pub async fn remove(client: &Client, name: &str) -> Result<bool, Error> {
    let ours = find(client, name).await?.is_some_and(|found| found.ours);
    if ours {
        let sql = format!("DROP PUBLICATION {}", quote(name));
        client.batch_execute(&sql).await?;
    }
    Ok(ours)
}

/// What is wrong with a publication that is not ours to change, and the remedy.
pub fn unfit(
    name: &str,
    found: &Publication,
    tables: &BTreeSet<String>,
    missing: &[String],
) -> Option<String> {
    if !missing.is_empty() {
        let missing = missing.iter().map(String::as_str);
        return Some(lacking(name, missing.collect()));
    }
    if !found.complete {
        return Some(format!(
            "the publication \"{name}\" leaves out changes: ALTER PUBLICATION {} SET \
             ({PUBLISHED}, publish_via_partition_root = true)",
            quote(name)
        ));
    }
    let partial = tables.iter().find(|table| found.partial.contains(*table))?;
    Some(format!(
        "the publication \"{name}\" publishes only some rows or columns of {partial}: drop the \
         table from it and add it again whole"
    ))
}

fn lacking(name: &str, missing: Vec<&str>) -> String {
    let remedy = addition(name, missing.iter().copied());
    let missing = missing.join(", ");
    format!("the publication \"{name}\" lacks {missing}: {remedy}")
}

/// Why a table is not published, and the remedy.
pub fn no_identity(table: &str) -> String {
    let name = quoted(table);
    format!(
        "{table} has no replica identity, so to publish it would make every UPDATE and DELETE of \
         it fail: give it a primary key, or ALTER TABLE {name} REPLICA IDENTITY FULL"
    )
}

async fn drop_tables(
    client: &Client,
    name: &str,
    tables: impl Iterator<Item = &String>,
) -> Result<(), Error> {
    let tables: Vec<String> = tables.map(|table| quoted(table)).collect();
    if tables.is_empty() {
        return Ok(());
    }
    let list = tables.join(", ");
    let sql = format!("ALTER PUBLICATION {} DROP TABLE {list}", quote(name));
    tracing::info!(
        publication = name,
        tables = list,
        "dropped tables from the publication"
    );
    client.batch_execute(&sql).await
}

fn creation(name: &str, tables: &BTreeSet<String>) -> String {
    let list: Vec<String> = tables.iter().map(|table| quoted(table)).collect();
    let tables = match list.is_empty() {
        true => String::new(),
        false => format!("FOR TABLE {} ", list.join(", ")),
    };
    format!(
        "CREATE PUBLICATION {} {tables}WITH ({PUBLISHED}, publish_via_partition_root = true)",
        quote(name)
    )
}

fn addition(name: &str, tables: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let tables = tables.into_iter();
    let list: Vec<String> = tables.map(|table| quoted(table.as_ref())).collect();
    format!(
        "ALTER PUBLICATION {} ADD TABLE {}",
        quote(name),
        list.join(", ")
    )
}
