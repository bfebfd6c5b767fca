//! The task that reads the stream, and hands out what it has put together whenever somebody asks.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use pgwire_replication::{Lsn, PgWireError, ReplicationEvent};
use tokio::sync::{mpsc, watch};

use super::{
    PostgresSourceConfig,
    assembly::{Assembly, Noted, Skip},
    describe::{self, Types},
    history::{self, Verdict},
    pgoutput::{self, Message},
    place,
    publication::Absence,
    pulse::{self, Beat},
    refused::Refused,
    relations::Relations,
    session::Session,
    status::SourceStatus,
};
use crate::{
    clock,
    position::Checkpoint,
    source::{SourceError, Transactions},
};

/// Heartbeats that wait for us: while a batch cannot be handed out, they are not looked at.
const BEATS: usize = 1;

/// After so many intervals without a sign of the stream it is given up.
const SILENT_INTERVALS: u32 = 3;

/// How the task and its owner speak.
#[derive(Debug)]
pub struct Ends {
    /// The batches, or why there are no more.
    pub out: mpsc::Sender<Result<Transactions, SourceError>>,
    /// What is durable on the bus.
    pub confirmed: watch::Receiver<Option<Checkpoint>>,
    /// Set when the slot cannot be read from where it stands.
    pub broken: Arc<AtomicBool>,
}

/// Reads one session's stream from what the bus holds (`stored`) on.
pub struct Tail {
    session: Session,
    assembly: Assembly,
    types: Types,
    /// The stored transaction, which must come by again before the history is known to go on.
    awaited: Option<Checkpoint>,
    /// All that ends up to here has been read.
    read: u64,
    last_sign: Instant,
    ends: Ends,
    config: PostgresSourceConfig,
    status: SourceStatus,
    /// Tables added to the publication, to be told once more when all transactions that were open
    /// then have ended: what those wrote before is not published either.
    settling: Option<(u64, Vec<Arc<str>>)>,
    /// The partitions of tables, as the last heartbeat found them.
    partitions: HashMap<String, String>,
    /// Tables that are not followed, of which clients were told.
    absent: BTreeMap<String, Absence>,
    /// Why the session ends as soon as clients have been told of it.
    ending: Option<Refused>,
}

/// Follows the stream until it fails or nobody listens.
pub async fn run(
    session: Session,
    config: PostgresSourceConfig,
    stored: Option<Checkpoint>,
    status: SourceStatus,
    ends: Ends,
) {
    let out = ends.out.clone();
    let broken = ends.broken.clone();
    let ended = match Tail::new(session, config, stored.as_ref(), status, ends) {
        Ok((mut tail, first)) => tail.follow(first).await,
        Err(err) => Err(err),
    };
    let Err(err) = ended else { return };
    // A publication must have existed all the time that the slot covers.
    let text = err.to_string();
    if text.contains("publication \"") && text.contains("does not exist") {
        broken.store(true, Ordering::Release);
    }
    // The session is dropped by now: a server that shuts down does not wait for us. Nobody may be
    // listening any more.
    let _ = out.send(Err(err.into())).await;
}

impl Tail {
    fn new(
        mut session: Session,
        config: PostgresSourceConfig,
        stored: Option<&Checkpoint>,
        status: SourceStatus,
        ends: Ends,
    ) -> Result<(Self, Option<Transactions>), Refused> {
        let standing = &session.standing;
        let (from, skip, verdict) = match stored {
            None => {
                let source = place::fresh(&standing.identity).map_err(no_random)?;
                let from = place::between(&source, standing.confirmed);
                (from, Skip::Nothing, Verdict::Same)
            }
            Some(stored) => match history::judge(standing, stored) {
                Verdict::Other(reason) => {
                    tracing::warn!(reason, "another history begins: all clients query again");
                    let from = history::fresh(standing).map_err(no_random)?;
                    let skip = Skip::Seen(standing.snapshot.clone(), standing.insert);
                    (from, skip, Verdict::Same)
                }
                verdict => (stored.clone(), Skip::Stored(stored.clone()), verdict),
            },
        };
        let awaited = (verdict == Verdict::SameIfSeen).then(|| from.clone());
        let first = awaited.is_none().then(|| first(&from));
        let relations = Relations::new(config.watched.clone(), session.shapes.iter().cloned());
        let mut assembly = Assembly::new(relations, config.batch, from, skip);
        assembly.near_xid = standing.snapshot.xmax;
        let added: Vec<Arc<str>> = std::mem::take(&mut session.added)
            .into_iter()
            .map(Into::into)
            .collect();
        for table in &added {
            tracing::warn!(table = &**table, "the table was not published all the time");
            assembly.reload(table.clone());
        }
        let absent = std::mem::take(&mut session.absent);
        for table in absent.keys() {
            assembly.reload(table.as_str().into());
        }
        let settling = (!added.is_empty()).then_some((session.standing.snapshot.xmax, added));
        let partitions = std::mem::take(&mut session.partitions);
        let tail = Self {
            read: session.standing.confirmed,
            session,
            assembly,
            types: Types::default(),
            awaited,
            last_sign: Instant::now(),
            ends,
            config,
            status,
            settling,
            partitions,
            absent,
            ending: None,
        };
        Ok((tail, first))
    }

    async fn follow(&mut self, mut first: Option<Transactions>) -> Result<(), Refused> {
        let (sender, mut beats) = mpsc::channel(BEATS);
        let driver = self.session.driver.take();
        let driver = driver.ok_or_else(|| Refused::new("the session was used up"))?;
        let _pulse = AbortOnDrop(tokio::spawn(pulse::run(
            self.session.client.clone(),
            driver,
            self.config.clone(),
            self.session.pid,
            self.status.clone(),
            sender,
        )));
        let out = self.ends.out.clone();
        loop {
            let known = self.awaited.is_none();
            let ready = known && (first.is_some() || self.assembly.is_ready());
            let full = known && self.assembly.is_full();
            tokio::select! {
                biased;
                changed = self.ends.confirmed.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.acknowledge();
                }
                beat = beats.recv() => {
                    let beat = beat.ok_or_else(|| Refused::new("the heartbeat has ended"))?;
                    self.beat(beat?)?;
                }
                event = self.session.stream.recv(), if !full => {
                    self.last_sign = Instant::now();
                    let event = event.map_err(lost)?.ok_or_else(|| Refused::new("the stream has ended"))?;
                    if let Some(decided) = self.event(event).await? {
                        first = Some(decided);
                    }
                }
                permit = out.reserve(), if ready => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let batch = first.take().unwrap_or_else(|| self.assembly.take());
                    permit.send(Ok(batch));
                    self.last_sign = Instant::now();
                    if !self.assembly.owes_reloads() && let Some(err) = self.ending.take() {
                        return Err(err);
                    }
                }
            }
        }
    }

    /// Tells the server what is durable, but never more than has been read.
    fn acknowledge(&mut self) {
        let confirmed = self.ends.confirmed.borrow_and_update();
        let ours = confirmed
            .as_ref()
            .filter(|checkpoint| checkpoint.source == *self.assembly.source());
        if let Some(end) = ours.and_then(place::end) {
            let end = Lsn::from_u64(end.min(self.read));
            self.session.stream.update_applied_lsn(end);
        }
    }

    fn beat(&mut self, beat: Beat) -> Result<(), Refused> {
        self.assembly.near_xid = beat.snapshot.xmax;
        if let Some((xmax, tables)) = &self.settling
            && beat.snapshot.xmin >= *xmax
        {
            for table in tables {
                self.assembly.reload(table.clone());
            }
            self.settling = None;
        }
        for (table, partitions) in beat.partitions {
            let before = self.partitions.insert(table.clone(), partitions.clone());
            if before.is_some_and(|before| before != partitions) {
                // Rows may have come or gone with a partition, and of that the stream tells nothing.
                tracing::info!(table, "the table's partitions have changed");
                self.assembly.reload(table.into());
            }
        }
        self.attend(beat.absent, beat.mendable, beat.snapshot.xmax);
        let silent = self.last_sign.elapsed() > self.config.heartbeat_interval * SILENT_INTERVALS;
        if silent && !beat.busy && !self.assembly.is_full() {
            return Err(Refused::new(
                "the stream is silent: heartbeats do not come back",
            ));
        }
        Ok(())
    }

    /// Tells of each table once when it can be followed no longer, and once when it can again.
    fn attend(&mut self, absent: BTreeMap<String, Absence>, mendable: bool, xmax: u64) {
        let before = std::mem::replace(&mut self.absent, absent);
        let mut lost = Vec::new();
        for (table, absence) in &self.absent {
            if before.get(table) == Some(absence) {
                continue;
            }
            self.assembly.reload(table.as_str().into());
            match mendable && *absence != Absence::Gone {
                true => lost.push(table.as_str()),
                false => absence.warn(table, &self.config.publication),
            }
        }
        for table in before.keys().filter(|t| !self.absent.contains_key(*t)) {
            tracing::info!(table, "the table is published again");
            let table: Arc<str> = table.as_str().into();
            self.assembly.reload(table.clone());
            let (until, tables) = self.settling.get_or_insert_default();
            *until = xmax;
            tables.push(table);
        }
        if !lost.is_empty() && self.ending.is_none() {
            // Clients are told before the session ends; the next one sees to it.
            let text = format!("{} can be followed no longer as it is", lost.join(", "));
            self.ending = Some(Refused::new(text));
        }
    }

    /// Takes in one event of the stream; the first batch, if it decided which history is followed.
    async fn event(&mut self, event: ReplicationEvent) -> Result<Option<Transactions>, Refused> {
        match event {
            ReplicationEvent::Begin {
                final_lsn,
                xid,
                commit_time_micros,
            } => {
                let mark = place::mark(commit_time_micros);
                let decided = self.decide(final_lsn.as_u64(), Some(mark))?;
                self.assembly
                    .begin(final_lsn.as_u64(), commit_time_micros, xid);
                return Ok(decided);
            }
            ReplicationEvent::Commit {
                lsn,
                end_lsn,
                commit_time_micros,
            } => {
                self.read = end_lsn.as_u64();
                self.assembly.commit(lsn.as_u64(), end_lsn.as_u64());
                let committed = pgoutput::unix_ms(commit_time_micros);
                self.status.read(committed, clock::now_ms());
            }
            ReplicationEvent::Message {
                transactional,
                prefix,
                content,
                ..
            } => {
                if self.assembly.message(transactional, &prefix, &content) == Noted::LeftOut {
                    self.status.leaves_out();
                }
            }
            ReplicationEvent::XLogData { data, .. } => self.change(&data).await?,
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                return self.decide(wal_end.as_u64(), None);
            }
            ReplicationEvent::StoppedAt { .. } => {}
        }
        Ok(None)
    }

    async fn change(&mut self, data: &bytes::Bytes) -> Result<(), Refused> {
        let message = pgoutput::decode(data).map_err(|err| Refused::new(err.to_string()))?;
        let taken = match &message {
            Message::Insert { relation, new } => {
                self.assembly.row(*relation, None, Some(new), true)
            }
            Message::Update { relation, old, new } => {
                self.assembly.row(*relation, old.as_ref(), Some(new), false)
            }
            Message::Delete { relation, old } => {
                self.assembly.row(*relation, Some(old), None, false)
            }
            Message::Truncate { relations } => self.assembly.truncate(relations),
            Message::Relation(relation) => {
                let relations = &mut self.assembly.relations;
                let client = &self.session.client;
                describe::learn(client, &mut self.types, relations, relation).await?;
                self.last_sign = Instant::now();
                Ok(())
            }
            // Begin, Commit and Message arrive decoded; origins and type names tell us nothing.
            _ => Ok(()),
        };
        taken.map_err(|err| Refused::new(err.to_string()))
    }

    /// While the stored transaction is awaited: it has come by, or can come no more. `mark` is that
    /// of a transaction that begins, none for a keepalive.
    fn decide(&mut self, lsn: u64, mark: Option<u32>) -> Result<Option<Transactions>, Refused> {
        let Some(stored) = &self.awaited else {
            return Ok(None);
        };
        let passed = match mark {
            None => lsn > place::end(stored).unwrap_or(stored.high),
            Some(mark) if lsn == stored.high && place::may_be(stored, mark) => {
                return Ok(self.awaited.take().map(|stored| first(&stored)));
            }
            Some(_) => lsn >= stored.high,
        };
        if !passed {
            return Ok(None);
        }
        tracing::warn!(
            reason = "the transaction that the bus holds last is not in the database",
            "another history begins: all clients query again"
        );
        let standing = &self.session.standing;
        let from = history::fresh(standing).map_err(no_random)?;
        self.awaited = None;
        let skip = Skip::Seen(standing.snapshot.clone(), standing.insert);
        self.assembly.restart(from.clone(), skip);
        Ok(Some(first(&from)))
    }
}

/// Says which history is followed, and from where. Where the last that is stored is a part of a
/// transaction, its rest is still to come.
fn first(from: &Checkpoint) -> Transactions {
    Transactions {
        changes: Vec::new(),
        checkpoint: from.clone(),
        marks: Vec::new(),
        more: place::end(from).is_none(),
    }
}

fn no_random(err: getrandom::Error) -> Refused {
    Refused::while_doing("naming a history", err)
}

fn lost(err: PgWireError) -> Refused {
    Refused::while_doing("replication", err)
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct AbortOnDrop(pub tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
