//! Whether a server answers at all, for commands that say what is in the way.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Failure, JetStreamBus,
    stream::{NO_JETSTREAM, check_version},
};

/// How long a first connection may take.
const PATIENCE: Duration = Duration::from_secs(3);

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
