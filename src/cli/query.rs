//! `rowcast query`: one direct query, straight from the database.

use std::sync::Arc;

use super::{Exit, Query};
use crate::{
    app,
    bus::embedded,
    config::{Config, DatabaseUrl},
    horizon::Horizon,
    protocol::{self, ErrorCode, Failure, JsonLimits, Request, Select},
    store::Store,
    topic::Topics,
};

/// Prints the reply frame on standard output, or the error frame, with exit code 1.
///
/// The reply says `"exact":false`, and has no cursor, unless the bus has already stored
/// everything that the read saw, as it has within milliseconds where a gateway runs.
pub async fn run(config: &Config, asked: &Query) -> anyhow::Result<Exit> {
    let topics = app::topics(config).await?;
    let answered = match &config.database.url {
        DatabaseUrl::Sqlite(path) => {
            let store = app::sqlite_store(config, path);
            answer(config, store, &topics, asked).await
        }
        DatabaseUrl::Postgres(address) => {
            let store = app::postgres_store(config, address);
            answer(config, store, &topics, asked).await
        }
    };
    let (frames, exit) = match answered {
        Ok(frames) => (frames, Exit::Fine),
        Err(failure) => (
            vec![protocol::error(&failure, config.server.language)],
            Exit::Failure,
        ),
    };
    for frame in frames {
        println!("{frame}");
    }
    Ok(exit)
}

async fn answer(
    config: &Config,
    store: impl Store,
    topics: &Topics,
    asked: &Query,
) -> Result<Vec<String>, Failure> {
    // What a shell lets through is short enough.
    let request = Request::parse(&asked.frame().to_string(), &JsonLimits::default())?;
    let Request::Query { topic, select, .. } = request else {
        return Err(ErrorCode::UnknownType.into());
    };
    let topic = topics.get(&topic).ok_or(ErrorCode::UnknownType)?;
    // Who can read the configuration can read the database.
    let topic = Arc::new(topic.unguarded());
    let parts = matches!(select, Select::All(_)).then_some(usize::MAX);
    let snapshot = store.snapshot(topic.clone(), select).await?;
    let cursor = match &snapshot.horizon {
        Some(Horizon::Checkpoint(place)) => embedded::cut(&config.bus_path(), place),
        // Only who follows the stream can find the place of a snapshot in it.
        Some(Horizon::Visible(_)) | None => None,
    };
    let (rows, page) = (&snapshot.rows, snapshot.page.as_ref());
    Ok(protocol::reply(
        &topic.name,
        None,
        rows,
        page,
        cursor.as_ref(),
        (cursor.is_some(), parts),
    ))
}
