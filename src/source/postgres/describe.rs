//! What the stream says of a table, joined with what the catalog says of it now.
//!
//! The stream describes the table as it was at that point; the catalog knows more of it, but as of
//! now. What both know has the stream's word.

use std::sync::Arc;

use tokio_postgres::Client;

use super::{pgoutput::Relation, refused::Refused, relations::Relations};
use crate::{
    postgres::{self, Catalog, DescribeError},
    topic::{Affinity, Collation, Column, Table},
};

/// The types that were asked for.
pub type Types = Catalog;

/// Lets the session know a relation.
///
/// # Errors
/// The catalog could not be asked.
pub async fn learn(
    client: &Client,
    types: &mut Types,
    relations: &mut Relations,
    relation: &Relation,
) -> Result<(), Refused> {
    let Some(name) = relations.watches(relation) else {
        relations.ignore(relation.oid);
        return Ok(());
    };
    let oids: Vec<u32> = relation.columns.iter().map(|column| column.kind).collect();
    types.resolve(client, &oids).await?;
    let now = match postgres::describe(client, &name).await {
        Ok(table) => table,
        // It is no such table any more; what follows was written while it was.
        Err(DescribeError::Unfit(_)) => None,
        Err(DescribeError::Postgres(err)) => return Err(err.into()),
    };
    let kinds = oids.iter().map(|oid| types.get(*oid));
    let kinds = kinds.map(|kind| kind.unwrap_or(crate::topic::Kind::Other));
    let shape = shape(relation, &name, now, types);
    relations.learn(relation, shape, kinds.collect());
    Ok(())
}

fn shape(relation: &Relation, name: &str, now: Option<Table>, types: &Types) -> Table {
    let columns = relation.columns.iter().map(|column| {
        let kind = types.get(column.kind);
        let known = now.as_ref().and_then(|now| now.column(&column.name));
        match known.filter(|known| known.kind == kind) {
            Some(known) => known.clone(),
            None => Column {
                name: Arc::from(column.name.as_str()),
                declared: String::new(),
                affinity: Affinity::Blob,
                kind,
                collation: Collation::Other,
                not_null: false,
            },
        }
    });
    let columns: Vec<Column> = columns.collect();
    let stands = |names: &Vec<String>| {
        let stands = |name: &String| columns.iter().any(|column| *column.name == **name);
        names.iter().all(stands)
    };
    let keys = now.map(|now| (now.primary_key, now.unique));
    let (primary_key, unique) = keys.unwrap_or_default();
    Table {
        name: name.to_owned(),
        primary_key: Some(primary_key).filter(stands).unwrap_or_default(),
        unique: unique.into_iter().filter(stands).collect(),
        columns,
        displaces: false,
    }
}
