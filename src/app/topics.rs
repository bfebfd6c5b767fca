//! From the configuration's topics to topics that fit the database.

use std::{path::Path, time::Duration};

use anyhow::Context;

use crate::{
    config::{Config, DatabaseUrl},
    postgres::{self, Address, DescribeError},
    predicate::{self, Unbound},
    source::sqlite as capture,
    sqlite::{self, Mode, QueryError},
    topic::{self, BadTopic, Base, Shown, Table, Topic, TopicSpec, Topics},
};

/// How long PostgreSQL may take to describe the tables.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Holds every topic of the configuration against the database.
///
/// # Errors
/// A [`crate::config::ConfigError`] that names file and key, where a topic is not what it says;
/// else why the database cannot be read.
pub async fn topics(config: &Config) -> anyhow::Result<Topics> {
    match &config.database.url {
        DatabaseUrl::Sqlite(path) => of_sqlite(config, path),
        DatabaseUrl::Postgres(address) => {
            let asked = tokio::time::timeout(DESCRIBE_TIMEOUT, of_postgres(config, address));
            asked
                .await
                .with_context(|| format!("{address} does not answer"))?
        }
    }
}

fn of_sqlite(config: &Config, path: &Path) -> anyhow::Result<Topics> {
    let cannot_open = || cannot_open(path);
    let conn = sqlite::open(path, Mode::Read).with_context(cannot_open)?;
    let mut topics = Vec::with_capacity(config.topics.len());
    for (index, spec) in config.topics.iter().enumerate() {
        let bad = |bad: BadTopic| config.bad_topic(index, &bad);
        let find = |field, name: &String| {
            let found = sqlite::introspect(&conn, name).with_context(cannot_open)?;
            let tables = || sqlite::tables(&conn).unwrap_or_default();
            let found = found.ok_or_else(|| bad(no_table(field, name, &tables())))?;
            anyhow::Ok(found)
        };
        if spec.r#where.is_some() && !sqlite::is_utf8(&conn).with_context(cannot_open)? {
            return Err(bad(utf16()).into());
        }
        let topic = match spec.shown().map_err(bad)? {
            Shown::Nothing => Topic::resolve(spec, None),
            Shown::Table(name) => match &spec.policy {
                None => resolve(spec, &find("table", &name.to_owned())?),
                Some(_) => Err(no_policy()),
            },
            Shown::Query(sql) => {
                let watched = spec.watch.iter().map(|name| find("watch", name));
                let watched = watched.collect::<anyhow::Result<Vec<Table>>>()?;
                let result = match sqlite::describe_query(&conn, sql) {
                    Err(QueryError::Unfit(reason)) => return Err(bad(bad_query(reason)).into()),
                    found => found.with_context(cannot_open)?,
                };
                Topic::resolve_query(spec, &result, &watched).and_then(keyed)
            }
        };
        topics.push(topic.map_err(bad)?);
    }
    let topics = Topics::new(topics).map_err(|bad| config.bad_topic(0, &bad))?;
    fits_changelog(&topics).map_err(|bad| config.bad_topic(0, &bad))?;
    Ok(topics)
}

async fn of_postgres(config: &Config, address: &Address) -> anyhow::Result<Topics> {
    let cannot_read = || format!("{address} cannot be read");
    // Queries are begun to see whether they may run, and must not write anything.
    let settings = ["default_transaction_read_only=on"];
    let connected = postgres::connect(address, DESCRIBE_TIMEOUT, &settings)
        .await
        .with_context(cannot_read)?;
    let client = connected.client;
    let mut topics = Vec::with_capacity(config.topics.len());
    for (index, spec) in config.topics.iter().enumerate() {
        let bad = |bad: BadTopic| config.bad_topic(index, &bad);
        let find = async |field, name: &str| match postgres::describe(&client, name).await {
            Ok(Some(table)) => Ok(table),
            Ok(None) => {
                let tables = postgres::tables(&client).await.with_context(cannot_read)?;
                Err(bad(no_table(field, name, &tables)).into())
            }
            Err(DescribeError::Unfit(reason)) => Err(bad(BadTopic { field, reason }).into()),
            Err(err) => Err(err).with_context(cannot_read),
        };
        let topic = match spec.shown().map_err(bad)? {
            Shown::Nothing => Topic::resolve(spec, None),
            Shown::Table(name) => {
                let table = find("table", name).await?;
                let told = match &spec.policy {
                    Some(_) => postgres::tells_rows_before(&client, &table.name).await,
                    None => Ok(true),
                };
                match told.with_context(cannot_read)? {
                    true => resolve(spec, &table),
                    false => Err(unjudged(&table)),
                }
            }
            Shown::Query(sql) => {
                let mut watched = Vec::with_capacity(spec.watch.len());
                for name in &spec.watch {
                    watched.push(find("watch", name).await?);
                }
                let result = match postgres::describe_query(&client, sql).await {
                    Err(DescribeError::Unfit(reason)) => return Err(bad(bad_query(reason)).into()),
                    found => found.with_context(cannot_read)?,
                };
                Topic::resolve_query(spec, &result, &watched)
            }
        };
        topics.push(topic.map_err(bad)?);
    }
    Ok(Topics::new(topics).map_err(|bad| config.bad_topic(0, &bad))?)
}

fn bad_query(reason: String) -> BadTopic {
    BadTopic {
        field: "query",
        reason,
    }
}

/// Triggers note the key of the row that was touched: a table without one cannot be watched.
fn keyed(topic: Topic) -> Result<Topic, BadTopic> {
    let Some(Base::Query { watch, .. }) = topic.view.as_ref().map(|view| &view.base) else {
        return Ok(topic);
    };
    match watch.iter().find(|watch| watch.key.is_empty()) {
        None => Ok(topic),
        Some(watch) => Err(BadTopic {
            field: "watch",
            reason: format!(
                "table \"{}\" has no primary key, and no UNIQUE constraint over NOT NULL columns",
                watch.table
            ),
        }),
    }
}

fn utf16() -> BadTopic {
    BadTopic {
        field: "where",
        reason: "the database keeps its texts in UTF-16, which sorts them in another order than \
                 Rowcast; a condition needs a database in UTF-8 (`.dump` it into a new one)"
            .to_owned(),
    }
}

/// Whom a row concerns that is gone, or another now, nobody could say.
fn no_policy() -> BadTopic {
    BadTopic {
        field: "policy",
        reason:
            "SQLite does not tell a row as it was before a change, which a policy must be judged \
                 on: use PostgreSQL, or a database for each audience"
                .to_owned(),
    }
}

/// The same where PostgreSQL does not tell it.
fn unjudged(table: &Table) -> BadTopic {
    BadTopic {
        field: "policy",
        reason: format!(
            "\"{}\" tells only the key of a row as it was before a change, and a policy must be \
             judged on all of it: ALTER TABLE {} REPLICA IDENTITY FULL, of a partitioned table each \
             partition",
            table.name,
            postgres::quote_table(&table.name)
        ),
    }
}

fn resolve(spec: &TopicSpec, table: &Table) -> Result<Topic, BadTopic> {
    let topic = Topic::resolve(spec, Some(table))?;
    if let Some(text) = &spec.policy {
        judged(text, &topic, table)?;
    }
    if let Some(text) = &spec.r#where {
        predicate::parse(text, table).map_err(|err| BadTopic {
            field: "where",
            reason: err.to_string(),
        })?;
    }
    Ok(topic)
}

/// A policy is judged on what an event has of a row: the topic's columns.
fn judged(text: &str, topic: &Topic, table: &Table) -> Result<(), BadTopic> {
    let bad = |reason: String| {
        Err(BadTopic {
            field: "policy",
            reason,
        })
    };
    let policy = match Unbound::parse(text, table) {
        Ok(policy) => policy,
        Err(err) => return bad(err.to_string()),
    };
    let view = topic.view.as_ref();
    let left_out = |column: &&str| view.is_some_and(|view| !view.shows(column));
    match policy.columns().find(left_out) {
        Some(column) => bad(format!(
            "\"{column}\" must be among `columns`; `columns_by_role` hides it from clients"
        )),
        None => Ok(()),
    }
}

/// An entry of the changelog has room for so many key columns of all topics of a table together.
fn fits_changelog(topics: &Topics) -> Result<(), BadTopic> {
    let most = capture::MAX_KEY_COLUMNS;
    let mut watched = capture::watched(topics).into_iter();
    match watched.find(|table| table.identity.len() > most) {
        None => Ok(()),
        Some(table) => Err(BadTopic {
            field: "key",
            reason: format!(
                "the topics of \"{}\" have more than {most} key columns together",
                table.table
            ),
        }),
    }
}

fn no_table<'a>(field: &'static str, name: &str, tables: &'a [String]) -> BadTopic {
    // Who names no schema has mistyped what stands behind it.
    let plain = |table: &'a String| match name.contains('.') {
        true => table.as_str(),
        false => table.rsplit('.').next().unwrap_or(table),
    };
    let near = topic::nearest(name, tables.iter().map(plain));
    let near = near.and_then(|near| tables.iter().find(|table| plain(table) == near));
    let hint = match near {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "its tables are {}; views cannot be watched",
            tables.join(", ")
        ),
    };
    BadTopic {
        field,
        reason: format!("the database has no table \"{name}\"; {hint}"),
    }
}

fn cannot_open(path: &Path) -> String {
    format!("the database {} cannot be read", path.display())
}
