//! Whether a server answers at all, for commands that say what is in the way.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Failure, JetStreamBus,
    stream::{NO_JETSTREAM, check_version, numbers},
};

/// How long a first connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The oldest servers, by minor version, in which nothing known lets somebody in who may not:
/// CVE-2026-27889, CVE-2026-27571, CVE-2026-33246, CVE-2026-33248, GHSA-9983-vrx2-fg9c.
const MENDED: [(i64, i64, i64); 2] = [(2, 12, 7), (2, 14, 0)];

/// How often it is looked for meanwhile.
const POLL: Duration = Duration::from_millis(20);

impl JetStreamBus {
    /// The connection, for what passes over NATS beside the bus.
    ///
    /// # Errors
    /// Where there is none now.
    pub fn client(&self) -> Result<async_nats::Client, Failure> {
        self.connection.client().cloned()
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
