//! Whether a server answers at all, for commands that say what is in the way.

use std::time::Duration;

use async_nats::Client;
use tokio::time::Instant;

use super::{
    ConnectError, Failure, JetStreamBus, JetStreamConfig,
    connect::Connection,
    stream::{NO_JETSTREAM, check_version, numbers},
};

/// How long a first connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The oldest servers, by minor version, in which nothing known lets somebody in who may not:
/// CVE-2026-27889, CVE-2026-27571, CVE-2026-33246, CVE-2026-33248, GHSA-9983-vrx2-fg9c.
const MENDED: [(i64, i64, i64); 2] = [(2, 12, 7), (2, 14, 0)];

/// How often it is looked for meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// A connection apart from that of the bus: whoever may send us something may end the connection over which it comes,
/// by headers that the client cannot read, and the bus is to be read all the same.
#[derive(Debug, Clone)]
pub struct Apart(Connection);

impl Apart {
    /// The client, as soon as there is a connection.
    ///
    /// # Errors
    /// Where that was lost at once.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn client(&self) -> Result<Client, Failure> {
        // Any but none.
        self.0.renewed(0).await;
        self.0.client()
    }
}

impl JetStreamBus {
    /// Begins to connect once more, for what others send us directly, with this added to the name.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn apart(&self, what: &str) -> Result<Apart, ConnectError> {
        let config = JetStreamConfig {
            name: format!("{}, {what}", self.config.name),
            ..self.config.clone()
        };
        Connection::open(&config, self.role).await.map(Apart)
    }

    /// The version of a connected server in which vulnerabilities are known.
    pub fn outdated(&self) -> Option<String> {
        let version = self.connection.client().ok()?.server_info().version;
        is_outdated(&version).then_some(version)
    }

    /// The subject of direct queries, its last word the topic: `<prefix>.query.*`.
    pub fn query_subject(&self) -> String {
        format!("{}.query.*", self.names.prefix)
    }

    /// Waits some seconds for a connection to a server that is new enough and has JetStream.
    /// Whether the stream is there is another question.
    ///
    /// # Errors
    /// What is in the way.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn answers(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let client = loop {
            match self.connection.client() {
                Ok(client) => break client,
                Err(err) if Instant::now() > deadline => return Err(err),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        };
        let server = client.server_info();
        check_version(&server.version)?;
        match server.jetstream {
            true => Ok(()),
            false => Err(NO_JETSTREAM.into()),
        }
    }
}

fn is_outdated(version: &str) -> bool {
    let found = numbers(version);
    let [oldest, next] = MENDED;
    found < oldest || (found.1 != oldest.1 && found < next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_known_vulnerabilities_is_told_from_one_that_was_mended() {
        for version in ["2.12.0", "2.12.6", "2.13.1", "2.13.9-beta"] {
            assert!(is_outdated(version), "{version}");
        }
        for version in ["2.12.7", "2.12.11", "2.14.0", "2.15.1-beta", "3.0.0"] {
            assert!(!is_outdated(version), "{version}");
        }
    }
}
