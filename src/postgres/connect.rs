//! Connections to PostgreSQL. Every one of them renders values alike, so that a row is the same
//! text whether a query or the change stream tells it.

use std::{error::Error, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, config::SslMode};

use super::{Address, TlsError, TlsMode, connector};

/// The settings that every session of ours has, for the `options` of a connection.
///
/// They pin how values become text: a database or a role may have other defaults, and the change
/// stream is rendered by the session that reads it.
pub const SESSION_OPTIONS: &str = "-c DateStyle=ISO -c IntervalStyle=iso_8601 -c TimeZone=UTC \
     -c extra_float_digits=3 -c bytea_output=hex -c lc_monetary=C \
     -c standard_conforming_strings=on";

/// When a silent connection is asked for a sign of life, and how often: a peer that is gone is
/// noticed after 15 s, not after the system's two hours.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A connection, and the task that drives it.
///
/// Dropping the client ends the task.
#[derive(Debug)]
pub struct Connected {
    /// To ask with.
    pub client: Client,
    /// Ends when the connection does, with why.
    pub driver: JoinHandle<Result<(), tokio_postgres::Error>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Certificates are missing or wrong: only another configuration helps.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server did not answer in time.
    #[error("the server did not answer within {0:?}")]
    Timeout(Duration),
    /// The server, or the way to it, said no. Its text has the cause in it already.
    #[error("{}", told(.0))]
    Refused(tokio_postgres::Error),
}

/// What went wrong, in full: the driver's own text for what PostgreSQL said is "db error".
///
/// For logs and `/readyz`; it can name tables and columns, and so is nothing for clients.
pub fn told(err: &tokio_postgres::Error) -> String {
    match (err.as_db_error(), err.source()) {
        (Some(db), _) => db.to_string(),
        (None, Some(cause)) => format!("{err}: {cause}"),
        (None, None) => err.to_string(),
    }
}

/// The driver's settings for an address. `settings` are appended to [`SESSION_OPTIONS`], each as
/// `name=value` without blanks.
pub fn config(address: &Address, timeout: Duration, settings: &[&str]) -> Config {
    let mut options = SESSION_OPTIONS.to_owned();
    for setting in settings {
        options.push_str(" -c ");
        options.push_str(setting);
    }
    let mut config = Config::new();
    config
        .host(address.host())
        .port(address.port())
        .user(address.user())
        .dbname(address.dbname())
        .application_name(address.application_name())
        .options(options)
        .connect_timeout(timeout)
        .tcp_user_timeout(KEEPALIVE * 3)
        .keepalives_idle(KEEPALIVE)
        .keepalives_interval(KEEPALIVE)
        .keepalives_retries(2)
        .ssl_mode(match address.tls() {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
    if let Some(password) = address.password() {
        config.password(password);
    }
    config
}

/// Opens one connection, log-in included, within `timeout`.
///
/// # Errors
/// [`ConnectError::Tls`] needs another configuration; the others may pass, so ask again later.
///
/// # Cancel safety
/// Cancel safe: the attempt is given up.
pub async fn connect(
    address: &Address,
    timeout: Duration,
    settings: &[&str],
) -> Result<Connected, ConnectError> {
    let tls = connector(address)?;
    let config = config(address, timeout, settings);
    let opened = tokio::time::timeout(timeout, config.connect(tls)).await;
    let (client, connection) = opened
        .map_err(|_| ConnectError::Timeout(timeout))?
        .map_err(ConnectError::Refused)?;
    Ok(Connected {
        client,
        driver: tokio::spawn(connection),
    })
}
