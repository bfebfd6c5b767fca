//! Logs: to standard error, for operators; never payloads or tokens.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging as configured. Call it once.
pub fn start(log: &Log) {
    // The libraries tell every reconnection in their own words; ours are said once.
    let quiet = "async_nats=off,pgwire_replication=off";
    let filter = EnvFilter::new(format!("{quiet},{}", log.level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Only a second call could fail, and then logging goes on as it is.
    let _ = match log.format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
