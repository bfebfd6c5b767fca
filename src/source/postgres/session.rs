//! One session with the server: a connection for questions and heartbeats, and one that streams.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pgwire_replication::{
    Lsn, PgWireError, ReplicationClient, ReplicationConfig, SslMode, TlsConfig,
};
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::{
    CONNECT_TIMEOUT, PostgresSourceConfig,
    history::Standing,
    place,
    publication::{self, Absence},
    refused::Refused,
    slot::Claim,
};
use crate::{
    postgres::{self, Address, Connected, SESSION_OPTIONS, TlsMode},
    source::SourceError,
    topic::Table,
};

/// How often the server hears how far we are, and that we live.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Messages that wait between the socket and us. Few, for each may be large; enough, for each
/// hand-over costs a wake-up.
const BUFFERED_MESSAGES: usize = 128;

/// The largest message: a row of more is no row for a browser, and would be held several times.
const MAX_MESSAGE_BYTES: usize = 256 * 1024 * 1024;

/// What holds the slot.
pub struct Session {
    /// For questions.
    pub client: Arc<Client>,
    /// Ends when that connection does.
    pub driver: Option<JoinHandle<Result<(), tokio_postgres::Error>>>,
    /// The stream.
    pub stream: ReplicationClient,
    /// Where slot and server stood when the slot was ours.
    pub standing: Standing,
    /// The tables as they were then.
    pub shapes: Vec<Arc<Table>>,
    /// The partitions of those that have any, by a fingerprint.
    pub partitions: HashMap<String, String>,
    /// Tables that were not published all the time.
    pub added: Vec<String>,
    /// Tables that are there and are not published.
    pub absent: BTreeMap<String, Absence>,
    /// The server's process that reads the slot for us.
    pub pid: Option<i32>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Else its task would go on until it notices by itself, and hold the slot.
        self.stream.abort();
    }
}

const SERVER: &str = "
    SELECT pg_catalog.current_setting('server_version_num')::int4,
        pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery()";

/// One statement: the snapshot is taken first, so that what it saw lies before the LSN.
const STANDING: &str = "
    SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_wal_insert_lsn()::text,
        s.confirmed_flush_lsn::text, s.active_pid,
        (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = $1";

impl Session {
    /// Opens one: the preconditions, the publication, the slot, the stream.
    ///
    /// # Errors
    /// As [`crate::source::Source::begin`].
    pub async fn open(
        config: &PostgresSourceConfig,
        claim: &mut Claim,
    ) -> Result<Self, SourceError> {
        let Connected { client, driver } = hold(config, claim).await?;
        let (name, watched) = (config.publication.as_str(), &config.watched);
        let ensured = publication::ensure(&client, name, watched, config.manage).await?;
        let standing = publication::standing(&client, watched).await;
        let partitions = publication::partitions(standing.map_err(Refused::from)?);
        claim
            .ensure(&client, (&config.address, &config.slot), config.manage)
            .await?;
        let mut shapes = Vec::new();
        for table in config.watched.tables() {
            let described = postgres::describe(&client, table).await;
            let described = described.map_err(|err| Refused::new(err.to_string()))?;
            shapes.extend(described.map(Arc::new));
        }
        let stream = start(&config.address, &config.slot, name);
        let started = tokio::time::timeout(CONNECT_TIMEOUT * 3, stream).await;
        let (stream, system, timeline) =
            started.map_err(|_| Refused::new("the server did not start to stream in time"))??;
        let (standing, pid) = stand(&client, &config.slot, &system, timeline).await?;
        claim.own_pid = pid;
        Ok(Self {
            client: Arc::new(client),
            driver: Some(driver),
            stream,
            standing,
            shapes,
            partitions,
            added: ensured.added,
            absent: ensured.absent,
            pid,
        })
    }
}

/// A connection to a server that can be followed, with the slot, if there is one, read by nobody.
async fn hold(config: &PostgresSourceConfig, claim: &mut Claim) -> Result<Connected, SourceError> {
    // A heartbeat must not wait for a synchronous standby, as the applications may have to.
    let settings = [
        "lock_timeout=5s",
        "statement_timeout=30s",
        "synchronous_commit=local",
    ];
    let (connected, since) = match claim.kept() {
        Some(kept) => kept,
        None => {
            let connected = postgres::connect(&config.address, CONNECT_TIMEOUT, &settings).await;
            let connected = connected.map_err(|err| Refused::new(err.to_string()))?;
            check(&connected.client).await?;
            (connected, Instant::now())
        }
    };
    let held = claim.hold(&connected.client, &config.slot, config.takeover);
    match held.await {
        Ok(()) => Ok(connected),
        Err(err) => {
            if let SourceError::Standby(_) = err {
                claim.keep(connected, since);
            }
            Err(err)
        }
    }
}

async fn check(client: &Client) -> Result<(), Refused> {
    let row = client.query_one(SERVER, &[]).await?;
    let (version, wal_level): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < 140_000 {
        return Err(Refused::new(format!(
            "PostgreSQL {} is too old: 14 or later is needed",
            version / 10_000
        )));
    }
    if wal_level != "logical" {
        return Err(Refused::new(format!(
            "wal_level is {wal_level}: ALTER SYSTEM SET wal_level = logical, and restart the server"
        )));
    }
    if row.try_get(2)? {
        return Err(Refused::new(
            "the server is a standby: name the primary, or wait for the promotion",
        ));
    }
    Ok(())
}

async fn stand(
    client: &Client,
    slot: &str,
    system: &str,
    timeline: u32,
) -> Result<(Standing, Option<i32>), Refused> {
    let row = client.query_opt(STANDING, &[&slot]).await?;
    let row = row.ok_or_else(|| Refused::new("the replication slot has gone"))?;
    let odd = || Refused::new("the server's positions are not understood");
    let (snapshot, insert): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let confirmed: Option<String> = row.try_get(2)?;
    let database: u32 = row.try_get(4)?;
    let standing = Standing {
        identity: place::identity(system, timeline, database, slot),
        confirmed: confirmed
            .as_deref()
            .and_then(place::parse_lsn)
            .ok_or_else(odd)?,
        insert: place::parse_lsn(&insert).ok_or_else(odd)?,
        snapshot: snapshot.parse().map_err(|_| odd())?,
    };
    Ok((standing, row.try_get(3)?))
}

/// Starts the stream where the slot stands; tells the server's identifier and timeline too.
async fn start(
    address: &Address,
    slot: &str,
    publication: &str,
) -> Result<(ReplicationClient, String, u32), SourceError> {
    let user = address.user();
    let password = address.password().unwrap_or_default();
    let (host, database) = (address.host(), address.dbname());
    let config = ReplicationConfig::new(host, user, password, database, slot, publication)
        .with_port(address.port())
        .with_tls(tls(address))
        .with_start_lsn(Lsn::from_u64(0))
        .with_status_interval(STATUS_INTERVAL)
        .with_wakeup_interval(STATUS_INTERVAL)
        .with_buffer_size(BUFFERED_MESSAGES)
        .with_max_message_size(MAX_MESSAGE_BYTES)
        .with_options(SESSION_OPTIONS)
        .with_application_name(address.application_name());
    let mut client = ReplicationClient::connect_gated(config)
        .await
        .map_err(refused)?;
    let system = client.identify_system().await.map_err(refused)?;
    client.start().await.map_err(refused)?;
    match client.wait_started().await {
        Ok(()) => Ok((client, system.system_id, system.timeline)),
        Err(err) if err.to_string().contains("55006") => Err(SourceError::Standby(err.to_string())),
        Err(err) => Err(refused(err).into()),
    }
}

fn refused(err: PgWireError) -> Refused {
    Refused::while_doing("replication", err)
}

fn tls(address: &Address) -> TlsConfig {
    let (cert, key) = address.client_cert().unzip();
    // The library takes a certificate for an IP address only where it is told to expect one.
    let is_ip = address.host().parse::<IpAddr>().is_ok();
    TlsConfig {
        mode: match address.tls() {
            _ if address.is_socket() => SslMode::Disable,
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require => SslMode::Require,
            TlsMode::VerifyCa => SslMode::VerifyCa,
            TlsMode::VerifyFull => SslMode::VerifyFull,
        },
        // Without a file the library trusts the authorities that it was built with.
        ca_pem_path: postgres::root_file(address),
        sni_hostname: is_ip.then(|| address.host().to_owned()),
        client_cert_pem_path: cert.cloned(),
        client_key_pem_path: key.cloned(),
    }
}
