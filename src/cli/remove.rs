//! `rowcast remove`: takes everything that Rowcast put into the database off again.

use anyhow::{Context, bail};

use super::Exit;
use crate::{
    bus::embedded,
    config::Config,
    source::sqlite as capture,
    sqlite::{self, Mode},
};

/// Removes triggers and changelog, and says what was there.
pub fn run(config: &Config) -> anyhow::Result<Exit> {
    let path = config.database_path();
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
