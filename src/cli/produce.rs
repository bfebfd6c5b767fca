//! `rowcast produce`

use std::io::Write;

use super::{Exit, serve::Shutdown};
use crate::{app::Producer, config::Config};

/// Publishes changes until the process is told to stop. A second signal ends it at once.
pub async fn run(config: &Config) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let producer = Producer::start(config).await?;
    if let Some(address) = producer.address() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "listening on http://{address}")?;
        out.flush()?;
    }
    producer.run(shutdown.told()).await?;
    Ok(Exit::Fine)
}
