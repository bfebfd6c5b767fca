//! The heartbeat: keeps an idle slot moving, shows that the stream lives, and looks after what
//! the stream itself does not tell: tables that left the publication, WAL that piles up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_postgres::Client;

use super::{
    PostgresSourceConfig,
    assembly::HEARTBEAT,
    publication::{self, Absence},
    refused::Refused,
    slot,
    status::SourceStatus,
};
use crate::horizon::Visible;

/// What one heartbeat learned.
#[derive(Debug)]
pub struct Beat {
    /// What its statement saw.
    pub snapshot: Visible,
    /// The server's process works on something that it has not sent yet.
    pub busy: bool,
    /// The partitions of the watched tables that have any, by a fingerprint.
    pub partitions: HashMap<String, String>,
    /// The watched tables that cannot be followed as they are.
    pub absent: BTreeMap<String, Absence>,
    /// Another session would do something about it.
    pub mendable: bool,
}

/// The snapshot is the statement's, so it is older than the message.
const BEAT: &str = "
    SELECT pg_catalog.pg_current_snapshot()::text,
        pg_catalog.pg_logical_emit_message(true, $1, '')::text,
        (SELECT a.wait_event_type IS NULL OR a.wait_event_type NOT IN ('Activity', 'Client')
            FROM pg_catalog.pg_stat_activity a WHERE a.pid = $2)";

/// Beats until the session ends, or the receiver is gone.
pub async fn run(
    client: Arc<Client>,
    mut driver: JoinHandle<Result<(), tokio_postgres::Error>>,
    config: PostgresSourceConfig,
    pid: Option<i32>,
    status: SourceStatus,
    beats: mpsc::Sender<Result<Beat, Refused>>,
) {
    let mut ticks = tokio::time::interval(config.heartbeat_interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let beat = tokio::select! {
            // A server that shuts down ends this connection first. It would then wait for the
            // stream to be confirmed, which a bus that is away may never allow.
            ended = &mut driver => Err(match ended {
                Ok(Err(err)) => Refused::from(err),
                _ => Refused::new("the connection to the server has ended"),
            }),
            beat = async {
                ticks.tick().await;
                beat(&client, &config, pid, &status).await
            } => beat,
        };
        let ended = beat.is_err();
        if beats.send(beat).await.is_err() || ended {
            return;
        }
    }
}

async fn beat(
    client: &Client,
    config: &PostgresSourceConfig,
    pid: Option<i32>,
    status: &SourceStatus,
) -> Result<Beat, Refused> {
    let patience = (config.heartbeat_interval * 3).max(Duration::from_secs(5));
    let asked = tokio::time::timeout(patience, async {
        let slot = slot::find(client, &config.slot).await?;
        let found = publication::find(client, &config.publication).await?;
        let standing = publication::standing(client, &config.watched).await?;
        // Last: what was seen before is older than the snapshot, and than the message with which
        // it is told.
        let row = client.query_one(BEAT, &[&HEARTBEAT, &pid]).await?;
        Ok::<_, Refused>((row, slot, found, standing))
    });
    let asked = asked
        .await
        .map_err(|_| Refused::new("the server does not answer"))?;
    let (row, slot, found, standing) = asked?;
    let snapshot: String = row.try_get(0)?;
    let snapshot = snapshot
        .parse()
        .map_err(|_| Refused::new("the server's snapshot is not understood"))?;
    let busy: Option<bool> = row.try_get(2)?;
    let slot = slot.ok_or_else(|| Refused::new("the replication slot has gone"))?;
    if pid.is_some() && slot.active_pid != pid {
        return Err(Refused::new("the slot's reader at the server has ended"));
    }
    status.retains(slot.retained, slot.keep);
    let changeable = |found: &publication::Publication| config.manage && found.ours;
    Ok(Beat {
        snapshot,
        busy: busy.unwrap_or(false),
        absent: publication::absent(found.as_ref(), &standing, &config.watched),
        mendable: found.as_ref().is_none_or(changeable),
        partitions: publication::partitions(standing),
    })
}
