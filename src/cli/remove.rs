//! `rowcast remove`: takes everything that Rowcast put into the database off again.

use std::path::Path;

use anyhow::{Context, bail};

use super::Exit;
use crate::{
    bus::embedded,
    config::{BusUrl, Config, DatabaseUrl},
    postgres::Address,
    source::{self, sqlite as capture},
    sqlite::{self, Mode},
};

/// Removes triggers and changelog, and says what was there.
pub async fn run(config: &Config) -> anyhow::Result<Exit> {
    match &config.database.url {
        DatabaseUrl::Sqlite(path) => of_sqlite(config, path),
        DatabaseUrl::Postgres(address) => of_postgres(config, address).await,
    }
}

fn of_sqlite(config: &Config, path: &Path) -> anyhow::Result<Exit> {
    if embedded::is_taken(&config.bus_path()) {
        bail!(
            "a rowcast serves {}; stop it first, or it puts everything back",
            path.display()
        );
    }
    let mut conn = sqlite::open(path, Mode::Write)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    let had = sqlite::present(&conn)?.is_some();
    let triggers = capture::remove(&mut conn)?;
    if !had && triggers.is_empty() {
        println!("nothing of Rowcast is in {}", path.display());
        return Ok(Exit::Fine);
    }
    println!(
        "removed the changelog and {} triggers from {}",
        triggers.len(),
        path.display()
    );
    let bus = config.bus_path();
    if bus.exists() {
        println!(
            "the stored events are left in {0}: delete {0}* if nobody resumes from them",
            bus.display()
        );
    }
    Ok(Exit::Fine)
}

async fn of_postgres(config: &Config, address: &Address) -> anyhow::Result<Exit> {
    let (slot, publication) = (&config.database.slot, &config.database.publication);
    let removed = source::postgres::remove(address, slot, publication).await?;
    match removed.is_empty() {
        true => println!("nothing of Rowcast is in {address}"),
        false => println!("removed {} from {address}", removed.join(" and ")),
    }
    if matches!(config.bus.url, BusUrl::Nats(_)) {
        println!("the stored events are left on NATS: `nats stream rm` deletes them");
    }
    Ok(Exit::Fine)
}
