//! The embedded bus's file: appending, reading and trimming, all synchronous.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::super::{Chunk, Head, PublishError, Published, ReadError};
use crate::{
    clock::now_ms,
    event::{Batch, Delivery, Event, MAX_EVENT_BYTES},
    position::{Check, Checkpoint, Epoch, Position},
    sabotage::{self, Fault},
};

/// An application's event with an id stored within this time is a repetition.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Events deleted in one step.
const TRIM_STEP: u32 = 2000;

const TABLES: &str = include_str!("../../../migrations/bus.sql");

/// A connection to the file.
#[derive(Debug)]
pub struct Log {
    pub(super) conn: Connection,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Log {
    /// Opens the file, or creates it with a fresh epoch.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let conn = Connection::open(path)?;
        conn.busy_timeout(Duration::from_secs(10))?;
        conn.pragma_update(None, "journal_mode", "wal")?;
        // An acknowledged event is on the disk (promise P11).
        conn.pragma_update(None, "synchronous", "full")?;
        let mut log = Self { conn };
        let tx = log
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(TABLES)?;
        if fact::<String>(&tx, "epoch")?.is_none() {
            begin_epoch(&tx)?;
        }
        tx.commit()?;
        Ok(log)
    }

    /// Opens an existing file to look into it.
    pub fn look(path: &Path) -> Result<Self, Failure> {
        let conn = crate::sqlite::open(path, crate::sqlite::Mode::Read)?;
        Ok(Self { conn })
    }

    /// The position of the last event before `horizon`, if the bus has come that far.
    pub fn cut(&self, horizon: &Checkpoint) -> Result<Option<Position>, Failure> {
        let tx = self.conn.unchecked_transaction()?;
        let head = head(&tx)?;
        if !head
            .checkpoint
            .as_ref()
            .is_some_and(|stored| stored.reaches(horizon))
        {
            return Ok(None);
        }
        let mut newest =
            tx.prepare("SELECT offset, id FROM event WHERE change ORDER BY offset DESC")?;
        let mut rows = newest.query([])?;
        let mut cut = head.position.offset;
        while let Some(row) = rows.next()? {
            let (offset, id): (i64, String) = (row.get(0)?, row.get(1)?);
            let place = id
                .rsplit_once('/')
                .and_then(|(place, _)| place.parse().ok());
            if place.is_none_or(|place| horizon.covers(&place)) {
                break;
            }
            cut = offset.unsigned_abs() - 1;
        }
        Ok(Some(checked(&tx, head.position.at(cut))?))
    }

    /// The head, in one read.
    pub fn head(&self) -> Result<Head, Failure> {
        head(&self.conn)
    }

    /// How far the source has been read into the file, parts included.
    pub fn reached(&self) -> Result<Option<Checkpoint>, Failure> {
        reached(&self.conn)
    }

    /// Appends batches in one commit, or if that fails, none of them.
    pub fn append(&mut self, batches: &[Batch]) -> Vec<Result<Published, PublishError>> {
        let mut outcomes = Vec::with_capacity(batches.len());
        let done = self.try_append(batches, &mut outcomes);
        if let Err(err) = done {
            let text = err.to_string();
            outcomes.clear();
            outcomes.extend(
                batches
                    .iter()
                    .map(|_| Err(PublishError::Unavailable(text.clone().into()))),
            );
        }
        outcomes
    }

    fn try_append(
        &mut self,
        batches: &[Batch],
        outcomes: &mut Vec<Result<Published, PublishError>>,
    ) -> Result<(), Failure> {
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = now_ms();
        for batch in batches {
            outcomes.push(match append(&tx, batch, now) {
                Ok(published) => Ok(published),
                Err(AppendError::Publish(err)) => Err(err),
                Err(AppendError::File(err)) => return Err(err),
            });
        }
        tx.commit()?;
        Ok(())
    }

    /// Reads what follows `after`, and where to go on. Another epoch is read from its beginning.
    pub fn follow(&self, after: &Position, limit: usize) -> Result<(Chunk, Position), ReadError> {
        let tx = self.conn.unchecked_transaction().map_err(unavailable)?;
        let head = head(&tx).map_err(ReadError::Unavailable)?;
        let after = match after.epoch == head.position.epoch {
            true => after.clone(),
            false => head.position.at(head.first - 1),
        };
        let deliveries = range(&tx, &head, &after, limit)?;
        let next = deliveries
            .last()
            .map_or(after, |last| last.position.clone());
        let head = (next == head.position).then_some(head);
        Ok((Chunk { deliveries, head }, next))
    }

    /// Reads at most `limit` events after a position of this epoch.
    pub fn read(&self, after: &Position, limit: usize) -> Result<Vec<Delivery>, ReadError> {
        let tx = self.conn.unchecked_transaction().map_err(unavailable)?;
        let head = head(&tx).map_err(ReadError::Unavailable)?;
        if after.epoch != head.position.epoch {
            return Err(ReadError::Epoch);
        }
        range(&tx, &head, after, limit)
    }

    /// Deletes a step of what is older than `keep`, or over `max_bytes`, the oldest first;
    /// returns whether there may be more.
    pub fn trim(&mut self, keep: Duration, max_bytes: u64) -> Result<bool, Failure> {
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = now_ms();
        let mut bytes = fact::<i64>(&tx, "bytes")?.unwrap_or(0);
        let old = now.saturating_sub(millis(keep));
        let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        let mut oldest = tx.prepare(
            "SELECT offset, at_ms, length(CAST(body AS BLOB)) FROM event ORDER BY offset LIMIT ?1",
        )?;
        let mut rows = oldest.query([TRIM_STEP])?;
        let (mut upto, mut deleted) = (None, 0);
        while let Some(row) = rows.next()? {
            let (offset, at_ms, length): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if at_ms >= old && bytes <= max_bytes {
                break;
            }
            (upto, bytes) = (Some(offset), bytes - length);
            deleted += 1;
        }
        drop(rows);
        drop(oldest);
        if let Some(upto) = upto {
            tx.execute("DELETE FROM event WHERE offset <= ?1", [upto])?;
            set_fact(&tx, "bytes", bytes)?;
        }
        tx.execute(
            "DELETE FROM recent WHERE at_ms < ?1",
            [now - millis(DUPLICATE_WINDOW)],
        )?;
        tx.commit()?;
        Ok(deleted == TRIM_STEP)
    }
}

enum AppendError {
    Publish(PublishError),
    File(Failure),
}

impl<E: Into<Failure>> From<E> for AppendError {
    fn from(err: E) -> Self {
        Self::File(err.into())
    }
}

fn append(tx: &Transaction<'_>, batch: &Batch, now: i64) -> Result<Published, AppendError> {
    let bodies: Vec<String> = batch.events.iter().map(Event::to_json).collect();
    if let Some(body) = bodies.iter().find(|body| body.len() > MAX_EVENT_BYTES) {
        return Err(AppendError::Publish(PublishError::TooLarge {
            bytes: body.len(),
        }));
    }
    let mut head = head(tx)?;
    let mut known = None;
    if let Some(checkpoint) = &batch.checkpoint {
        known = reached(tx)?;
        match &known {
            Some(stored) if stored.source != checkpoint.source => {
                begin_epoch(tx)?;
                head = self::head(tx)?;
                known = None;
            }
            Some(stored) if stored.covers(checkpoint) => {
                return Ok(Published {
                    position: head.position,
                    stored: 0,
                });
            }
            _ => {}
        }
        if batch.more {
            let stored = keep_part(tx, batch, &bodies, known.as_ref())?;
            set_fact(tx, "open", checkpoint.to_string())?;
            let position = head.position;
            return Ok(Published { position, stored });
        }
        end_parts(tx, &mut head, now)?;
        set_fact(tx, "checkpoint", checkpoint.to_string())?;
    }
    let (mut stored, mut bytes) = (0, 0);
    let mut last = head.position.offset;
    let mut position = head.position.clone();
    for (event, body) in batch.events.iter().zip(&bodies) {
        let change = event.checkpoint().is_some();
        if is_stored(event, known.as_ref()) {
            continue;
        }
        if !change && let Some((offset, at_ms)) = repeated(tx, event, now)? {
            position = head.position.at(offset).checked(check(&event.id, at_ms));
            continue;
        }
        last += 1;
        position = head.position.at(last).checked(check(&event.id, now));
        tx.prepare_cached(
            "INSERT INTO event (offset, id, change, at_ms, body) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![last as i64, event.id, change, now, body])?;
        if !change {
            tx.prepare_cached(
                "INSERT OR REPLACE INTO recent (id, offset, at_ms) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![event.id, last as i64, now])?;
        }
        (stored, bytes) = (stored + 1, bytes + body.len());
    }
    if stored > 0 {
        set_fact(tx, "last", last as i64)?;
        let before = fact::<i64>(tx, "bytes")?.unwrap_or(0);
        set_fact(
            tx,
            "bytes",
            before + i64::try_from(bytes).unwrap_or(i64::MAX),
        )?;
    }
    Ok(Published { position, stored })
}

/// Whether an event's change was stored with an earlier batch.
fn is_stored(event: &Event, known: Option<&Checkpoint>) -> bool {
    let place = event.checkpoint();
    place.is_some_and(|place| known.is_some_and(|known| known.covers(place)))
}

/// Keeps a part that readers do not see yet; returns how many of its events were new.
fn keep_part(
    tx: &Transaction<'_>,
    batch: &Batch,
    bodies: &[String],
    known: Option<&Checkpoint>,
) -> rusqlite::Result<usize> {
    let mut insert =
        tx.prepare_cached("INSERT INTO part (id, change, body) VALUES (?1, ?2, ?3)")?;
    let mut stored = 0;
    for (event, body) in batch.events.iter().zip(bodies) {
        if !is_stored(event, known) {
            insert.execute(params![event.id, event.checkpoint().is_some(), body])?;
            stored += 1;
        }
    }
    Ok(stored)
}

/// Gives the parts kept their offsets: the transaction's last part is here.
fn end_parts(tx: &Transaction<'_>, head: &mut Head, now: i64) -> Result<(), Failure> {
    let (count, bytes): (i64, i64) = tx
        .prepare_cached("SELECT count(*), total(length(CAST(body AS BLOB))) FROM part")?
        .query_row([], |row| Ok((row.get(0)?, row.get::<_, f64>(1)? as i64)))?;
    if count > 0 {
        let last = head.position.offset as i64;
        tx.execute(
            "INSERT INTO event (offset, id, change, at_ms, body)
             SELECT ?1 + n, id, change, ?2, body FROM part",
            params![last, now],
        )?;
        tx.execute("DELETE FROM part", [])?;
        set_fact(tx, "last", last + count)?;
        let before = fact::<i64>(tx, "bytes")?.unwrap_or(0);
        set_fact(tx, "bytes", before + bytes)?;
        head.position = head.position.at((last + count).unsigned_abs());
    }
    tx.execute("DELETE FROM fact WHERE name = 'open'", [])?;
    Ok(())
}

fn reached(conn: &Connection) -> Result<Option<Checkpoint>, Failure> {
    let text: Option<String> = match fact(conn, "open")? {
        Some(open) => Some(open),
        None => fact(conn, "checkpoint")?,
    };
    Ok(text.map(|text| text.parse::<Checkpoint>()).transpose()?)
}

/// The offset under which an application's event was already stored, and when.
fn repeated(tx: &Transaction<'_>, event: &Event, now: i64) -> rusqlite::Result<Option<(u64, i64)>> {
    tx.prepare_cached("SELECT offset, at_ms FROM recent WHERE id = ?1 AND at_ms >= ?2")?
        .query_row(params![event.id, now - millis(DUPLICATE_WINDOW)], |row| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))
        })
        .optional()
}

/// What identifies a message: its event, and when it was stored. A change that is read again
/// after the bus was restored has the same id.
fn check(id: &str, at_ms: i64) -> Option<Check> {
    Some(Check::of(format!("{id} {at_ms}").as_bytes()))
}

/// A position with the check of the message there, if that is retained.
fn checked(conn: &Connection, position: Position) -> rusqlite::Result<Position> {
    let found = conn
        .prepare_cached("SELECT id, at_ms FROM event WHERE offset = ?1")?
        .query_row([position.offset as i64], |row| {
            Ok(check(row.get_ref(0)?.as_str()?, row.get(1)?))
        })
        .optional()?;
    Ok(position.checked(found.flatten()))
}

/// Begins another history, with nothing in it.
fn begin_epoch(tx: &Transaction<'_>) -> Result<(), Failure> {
    let mut bytes = [0_u8; 5];
    if !sabotage::active(Fault::ReuseEpoch) {
        getrandom::fill(&mut bytes)?;
    }
    let epoch: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    tx.execute_batch("DELETE FROM event; DELETE FROM part; DELETE FROM recent; DELETE FROM fact")?;
    set_fact(tx, "epoch", format!("e{epoch}"))?;
    Ok(())
}

fn head(conn: &Connection) -> Result<Head, Failure> {
    let epoch: String = fact(conn, "epoch")?.ok_or("the bus file has no epoch")?;
    let offset = fact::<i64>(conn, "last")?.unwrap_or(0).unsigned_abs();
    let first: Option<i64> = conn
        .prepare_cached("SELECT min(offset) FROM event")?
        .query_row([], |row| row.get(0))?;
    let checkpoint: Option<String> = fact(conn, "checkpoint")?;
    Ok(Head {
        position: checked(conn, Position::new(Epoch::parse(&epoch)?, offset))?,
        stored: offset,
        first: first.map_or(offset + 1, i64::unsigned_abs),
        checkpoint: checkpoint
            .map(|text| text.parse::<Checkpoint>())
            .transpose()?,
    })
}

fn range(
    conn: &Connection,
    head: &Head,
    after: &Position,
    limit: usize,
) -> Result<Vec<Delivery>, ReadError> {
    if after.offset > head.position.offset {
        return Err(ReadError::Ahead);
    }
    if after.offset + 1 < head.first {
        return Err(ReadError::Trimmed);
    }
    let there = checked(conn, after.clone().checked(None)).map_err(unavailable)?;
    if after.contradicts(&there) {
        return Err(ReadError::Mismatch);
    }
    let read = || -> Result<Vec<Delivery>, Failure> {
        let mut statement = conn.prepare_cached(
            "SELECT offset, change, body, id, at_ms FROM event WHERE offset > ?1
             ORDER BY offset LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![after.offset as i64, limit])?;
        let mut deliveries = Vec::new();
        while let Some(row) = rows.next()? {
            let (offset, change): (i64, bool) = (row.get(0)?, row.get(1)?);
            let event = Event::from_json(row.get_ref(2)?.as_str()?, change)?;
            let check = check(row.get_ref(3)?.as_str()?, row.get(4)?);
            deliveries.push(Delivery {
                position: after.at(offset.unsigned_abs()).checked(check),
                event: Some(event),
            });
        }
        Ok(deliveries)
    };
    read().map_err(ReadError::Unavailable)
}

fn fact<T: rusqlite::types::FromSql>(conn: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    conn.prepare_cached("SELECT value FROM fact WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

fn set_fact(conn: &Connection, name: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO fact (name, value) VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

fn unavailable(err: rusqlite::Error) -> ReadError {
    ReadError::Unavailable(err.into())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
