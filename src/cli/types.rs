//! `rowcast types`: the topics' rows as types for other programs, straight from the database.

use std::{
    io::{self, Write},
    sync::Arc,
};

use anyhow::Context;

use super::{Exit, Types};
use crate::{
    app,
    config::{Config, DatabaseUrl},
    store::{Store, StoreError},
    topic::{Table, Topic, Topics},
};

/// Prints the types on standard output, and nothing where a table cannot be described.
pub async fn run(config: &Config, asked: &Types) -> anyhow::Result<Exit> {
    let topics = app::topics(config).await?;
    let described = match &config.database.url {
        DatabaseUrl::Sqlite(path) => describe(app::sqlite_store(config, path), &topics).await,
        DatabaseUrl::Postgres(address) => {
            describe(app::postgres_store(config, address), &topics).await
        }
    };
    let text = asked.lang.write(&described?);
    let written = io::stdout().write_all(text.as_bytes());
    written.context("standard output takes nothing more")?;
    Ok(Exit::Fine)
}

async fn describe(
    store: impl Store,
    topics: &Topics,
) -> Result<Vec<(Arc<Topic>, Option<Table>)>, StoreError> {
    let mut described = Vec::new();
    for topic in topics.iter() {
        let table = match topic.view {
            Some(_) => Some(store.describe(topic.clone()).await?),
            None => None,
        };
        described.push((topic.clone(), table));
    }
    Ok(described)
}
