//! The replication slot: made where there is none, taken over from a producer that is gone or
//! frozen, and never taken from one that lives.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, error::SqlState};

use super::{refused::Refused, status::SourceStatus};
use crate::{
    postgres::{self, Address, Connected},
    source::SourceError,
};

/// How long one call waits for the slot to be made. The attempt itself goes on.
const CREATION_PATIENCE: Duration = Duration::from_secs(1);

/// How long one connection serves a producer that stands by: the host's name may come to mean
/// another server.
const KEPT: Duration = Duration::from_secs(60);

/// How long a backend that was told to end is waited for.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// A slot as the catalog has it.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The decoder; none for a physical slot.
    pub plugin: Option<String>,
    /// Its database; none for a physical slot.
    pub database: Option<String>,
    /// The process that reads it.
    pub active_pid: Option<i32>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes of WAL that it keeps.
    pub retained: Option<i64>,
    /// `max_slot_wal_keep_size`, bytes; negative where there is no limit.
    pub keep: Option<i64>,
    /// When its reader last answered, as text of the reader's clock; none where we may not know.
    pub reply_time: Option<String>,
    /// It is of the database that is asked, and a pgoutput one.
    pub usable: bool,
}

const FIND: &str = "
    SELECT s.plugin::text, s.database::text, s.active_pid, s.wal_status,
        pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::int8,
        CASE WHEN r.state IS NOT NULL THEN coalesce(r.reply_time::text, 'never') END,
        coalesce(s.plugin = 'pgoutput' AND s.database = pg_catalog.current_database(), false),
        pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size', true))
    FROM pg_catalog.pg_replication_slots s
    LEFT JOIN pg_catalog.pg_stat_replication r ON r.pid = s.active_pid
    WHERE s.slot_name = $1";

const BLOCKERS: &str = "
    SELECT pg_catalog.string_agg(a.pid || coalesce(' (' || nullif(a.application_name, '') || ')',
        ''), ', ' ORDER BY a.xact_start)
    FROM pg_catalog.pg_stat_activity a
    WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()";

/// What one producer remembers of a slot between its attempts to get it.
#[derive(Debug, Default)]
pub struct Claim {
    /// The one attempt to make the slot.
    creating: Option<JoinHandle<Result<(), SourceError>>>,
    /// The connection of one that stands by, and since when.
    kept: Option<(Connected, Instant)>,
    /// Where what the slot retains is noted.
    status: SourceStatus,
    /// Who had it, when it last answered, and since when on our own clock it has not again.
    silent: Option<(i32, Option<String>, Instant)>,
    /// The process that read it for us.
    pub own_pid: Option<i32>,
    /// The slot cannot be read from where it stands; it must be made anew.
    pub broken: bool,
}

/// The slot of that name, if there is one.
///
/// # Errors
/// What PostgreSQL says.
pub async fn find(client: &Client, name: &str) -> Result<Option<Slot>, tokio_postgres::Error> {
    let Some(row) = client.query_opt(FIND, &[&name]).await? else {
        return Ok(None);
    };
    Ok(Some(Slot {
        plugin: row.try_get(0)?,
        database: row.try_get(1)?,
        active_pid: row.try_get(2)?,
        wal_status: row.try_get(3)?,
        retained: row.try_get(4)?,
        reply_time: row.try_get(5)?,
        usable: row.try_get(6)?,
        keep: row.try_get(7)?,
    }))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Its connection ends with it, and the server gives the attempt up.
        if let Some(creating) = &self.creating {
            creating.abort();
        }
    }
}

impl Claim {
    /// One that notes what the slot retains whenever it is looked at.
    pub fn new(status: SourceStatus) -> Self {
        let mut claim = Self::default();
        claim.status = status;
        claim
    }

    /// The connection on which this producer stood by before, if it may serve again.
    pub fn kept(&mut self) -> Option<(Connected, Instant)> {
        let (connected, since) = self.kept.take()?;
        let serves = !connected.client.is_closed() && since.elapsed() < KEPT;
        serves.then_some((connected, since))
    }

    /// Keeps a connection for the next look.
    pub fn keep(&mut self, connected: Connected, since: Instant) {
        self.kept = Some((connected, since));
    }

    /// Sees to it that nobody else reads the slot, if there is one. Until then nothing may be
    /// altered, for it is the other producer's.
    ///
    /// # Errors
    /// [`SourceError::Standby`] while another producer has it; [`SourceError::Unavailable`] with
    /// the remedy. Call again in either case.
    pub async fn hold(
        &mut self,
        client: &Client,
        name: &str,
        takeover: Duration,
    ) -> Result<(), SourceError> {
        self.created(client, name).await?;
        let Some(slot) = self.look(client, name).await? else {
            return Ok(());
        };
        if !slot.usable {
            return Err(Refused::new(format!(
                "the replication slot \"{name}\" is another's (plugin {}, database {}): name \
                 another slot, or drop it with SELECT pg_drop_replication_slot('{name}')",
                slot.plugin.as_deref().unwrap_or("none"),
                slot.database.as_deref().unwrap_or("none"),
            ))
            .into());
        }
        if let Some(pid) = slot.active_pid {
            self.displace(client, name, (pid, slot.reply_time.clone()), takeover)
                .await?;
        }
        self.silent = None;
        Ok(())
    }

    /// Sees to it that there is a slot that can be read. It must be held, and the publication be
    /// there: what a slot covers is read by the publication as it was then.
    ///
    /// # Errors
    /// As [`Claim::hold`].
    pub async fn ensure(
        &mut self,
        client: &Client,
        (address, name): (&Address, &str),
        manage: bool,
    ) -> Result<(), SourceError> {
        let Some(slot) = self.look(client, name).await? else {
            return self.create(client, (address, name), manage).await;
        };
        let lost = slot.wal_status.as_deref() == Some("lost");
        if !lost && !self.broken {
            return Ok(());
        }
        let reason = match lost {
            true => "the server has dropped WAL that it needed (max_slot_wal_keep_size)",
            false => "its publication did not exist all the time",
        };
        if !manage {
            return Err(Refused::new(format!(
                "the replication slot \"{name}\" is lost: {reason}; drop it with SELECT \
                 pg_drop_replication_slot('{name}')"
            ))
            .into());
        }
        tracing::error!(
            slot = name,
            reason,
            "the replication slot is lost: making another, all clients are told to query again"
        );
        let sql = "SELECT pg_catalog.pg_drop_replication_slot($1::text::name)";
        client.query(sql, &[&name]).await.map_err(Refused::from)?;
        self.broken = false;
        self.create(client, (address, name), manage).await
    }

    async fn look(&self, client: &Client, name: &str) -> Result<Option<Slot>, Refused> {
        let asked = tokio::time::timeout(super::CONNECT_TIMEOUT, find(client, name)).await;
        let found = asked.map_err(|_| Refused::new("the server does not answer"))??;
        if let Some(slot) = &found {
            self.status.retains(slot.retained, slot.keep);
        }
        Ok(found)
    }

    /// Gets the slot from who has it: at once from what was left of ourselves, and from a producer
    /// that has not answered the server for `takeover`, told by our own clock.
    async fn displace(
        &mut self,
        client: &Client,
        name: &str,
        (pid, reply_time): (i32, Option<String>),
        takeover: Duration,
    ) -> Result<(), SourceError> {
        let since = match self.silent.take() {
            Some((who, replied, since)) if who == pid && replied == reply_time => since,
            _ => Instant::now(),
        };
        // Without pg_read_all_stats the time of the reply is not told, so nothing is known of it.
        let frozen = reply_time.is_some() && since.elapsed() >= takeover;
        self.silent = Some((pid, reply_time, since));
        if !frozen && self.own_pid != Some(pid) {
            return Err(SourceError::Standby(format!(
                "the replication slot \"{name}\" is read by process {pid} of the server"
            )));
        }
        if frozen {
            tracing::warn!(slot = name, pid, "ending the session of a frozen producer");
        }
        let sql = "SELECT pg_catalog.pg_terminate_backend($1)";
        client.query(sql, &[&pid]).await.map_err(Refused::from)?;
        let start = Instant::now();
        while start.elapsed() < END_PATIENCE {
            let found = find(client, name).await.map_err(Refused::from)?;
            if found.is_none_or(|slot| slot.active_pid != Some(pid)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(SourceError::Standby(format!(
            "process {pid} of the server was told to end, and still reads \"{name}\""
        )))
    }

    async fn create(
        &mut self,
        client: &Client,
        (address, name): (&Address, &str),
        manage: bool,
    ) -> Result<(), SourceError> {
        let sql = format!("SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')");
        if !manage {
            let refusal = format!("there is no replication slot \"{name}\": {sql}");
            return Err(Refused::new(refusal).into());
        }
        tracing::info!(slot = name, "creating the replication slot");
        let address = address.clone();
        self.creating = Some(tokio::spawn(async move {
            // It waits for every transaction that is open now, however long; should we be gone by
            // then, nobody must be left waiting.
            let settings = ["client_connection_check_interval=1s"];
            let timeout = super::CONNECT_TIMEOUT;
            let connected = postgres::connect(&address, timeout, &settings).await;
            let connected = connected.map_err(|err| Refused::new(err.to_string()))?;
            let made = connected.client.batch_execute(&sql).await;
            made.map_err(|err| match err.code() {
                // Two producers started for the first time, and the other came first.
                Some(&SqlState::DUPLICATE_OBJECT) => {
                    SourceError::Standby("another producer makes the replication slot".into())
                }
                _ => {
                    Refused::while_doing("creating the replication slot", Refused::from(err)).into()
                }
            })
        }));
        self.created(client, name).await
    }

    /// Waits a little for the attempt to make the slot.
    async fn created(&mut self, client: &Client, name: &str) -> Result<(), SourceError> {
        let Some(creating) = &mut self.creating else {
            return Ok(());
        };
        match tokio::time::timeout(CREATION_PATIENCE, creating).await {
            Ok(ended) => {
                self.creating = None;
                ended.map_err(|err| Refused::new(err.to_string()))?
            }
            Err(_) => {
                let row = client
                    .query_one(BLOCKERS, &[])
                    .await
                    .map_err(Refused::from)?;
                let pids: Option<String> = row.try_get(0).map_err(Refused::from)?;
                Err(Refused::new(format!(
                    "waiting for open transactions to end before the slot \"{name}\" can be made: \
                     {}",
                    pids.as_deref()
                        .unwrap_or("prepared ones, see pg_prepared_xacts")
                ))
                .into())
            }
        }
    }
}
