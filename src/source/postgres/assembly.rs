//! The stream's messages, put together to batches of whole transactions.
//!
//! Knows no connection. What was stored before is read again and skipped; a transaction too large
//! for one batch is handed out in parts.

use std::{mem, sync::Arc};

use serde_json::value::RawValue;

use super::{
    pgoutput::{self, Old, Tuple},
    place,
    relations::{Relations, Undescribed},
    snapshot,
};
use crate::{
    event::{Change, What},
    horizon::Visible,
    position::Checkpoint,
    row::Row,
    source::Transactions,
};

/// The most marks that wait for a batch; of more, the oldest are answered by nobody.
const MAX_MARKS: usize = 4096;

/// What an application's own event is emitted with: this, then the topic.
const EVENT: &str = "rowcast:";

/// The prefix of what tells that the stream lives.
pub const HEARTBEAT: &str = "rowcast.heartbeat";

/// The prefix of what asks to be answered when all before it is on the bus.
pub const MARK: &str = "rowcast.mark";

/// How much one batch holds at the most, but for the last change of it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Changes.
    pub changes: usize,
    /// Bytes of values, about.
    pub bytes: usize,
}

/// What of the stream need not be told.
#[derive(Debug)]
pub enum Skip {
    /// Nothing.
    Nothing,
    /// What the bus holds: all up to this place.
    Stored(Checkpoint),
    /// What a snapshot saw, for the history begins with it; up to an LSN that lies behind it.
    Seen(Visible, u64),
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It was used, or is nobody's business here.
    Taken,
    /// It was meant for us and cannot be used.
    LeftOut,
}

/// Messages in, batches out.
#[derive(Debug)]
pub struct Assembly {
    /// The tables.
    pub relations: Relations,
    /// A present transaction id, by which those of the stream are widened.
    pub near_xid: u64,
    source: Arc<str>,
    limits: Limits,
    skip: Skip,
    open: Option<Open>,
    changes: Vec<Change>,
    bytes: usize,
    /// How many of the changes belong to whole transactions, and their bytes.
    whole: (usize, usize),
    /// The end of the last whole transaction.
    checkpoint: Checkpoint,
    marks: Vec<Arc<str>>,
    /// There is something to hand out, though it be no change.
    due: bool,
    /// Tables to be told as not followed, with the next heartbeat.
    reloads: Vec<Arc<str>>,
}

/// The transaction that is being read.
#[derive(Debug)]
struct Open {
    commit_lsn: u64,
    xid: u64,
    at_ms: i64,
    /// Of the time of the commit, see [`place::mark`].
    mark: u32,
    /// Of the next change.
    ordinal: u32,
    /// Its first change that has not been handed out.
    first: usize,
    /// How many changes it had so far, those skipped too.
    count: usize,
    /// Ordinals up to here are stored.
    stored: Option<u32>,
    tx: Option<Arc<str>>,
    /// Parts of it were handed out, now or before a restart.
    split: bool,
    marks: Vec<Arc<str>>,
}

impl Assembly {
    /// Begins at `from`, which names the history.
    pub fn new(relations: Relations, limits: Limits, from: Checkpoint, skip: Skip) -> Self {
        Self {
            relations,
            near_xid: 0,
            source: from.source.clone(),
            limits,
            skip,
            open: None,
            changes: Vec::new(),
            bytes: 0,
            whole: (0, 0),
            checkpoint: from,
            marks: Vec::new(),
            due: false,
            reloads: Vec::new(),
        }
    }

    // === in ===

    /// A transaction begins.
    pub fn begin(&mut self, commit_lsn: u64, committed_micros: i64, xid: u32) {
        let xid = snapshot::widen(xid, self.near_xid);
        let at_ms = pgoutput::unix_ms(committed_micros);
        let stored = match &self.skip {
            Skip::Nothing => None,
            Skip::Stored(stored) if commit_lsn < stored.high => Some(u32::MAX),
            Skip::Stored(stored) => (commit_lsn == stored.high).then_some(stored.low),
            Skip::Seen(snapshot, _) => snapshot.sees(xid).then_some(u32::MAX),
        };
        self.open = Some(Open {
            commit_lsn,
            xid,
            at_ms,
            mark: place::mark(committed_micros),
            ordinal: 0,
            first: self.changes.len(),
            count: 0,
            split: stored.is_some_and(|low| low != u32::MAX && low < 1 << 31),
            stored,
            tx: None,
            marks: Vec::new(),
        });
    }

    /// The transaction is whole.
    pub fn commit(&mut self, commit_lsn: u64, end_lsn: u64) {
        let Some(open) = self.open.take() else { return };
        self.whole = (self.changes.len(), self.bytes);
        self.due |= open.split || !open.marks.is_empty();
        self.marks.extend(open.marks);
        // One that was visible late may stand before the place where the history begins.
        let end = place::whole(&self.source, commit_lsn, end_lsn, open.mark);
        if !self.checkpoint.covers(&end) {
            self.checkpoint = end;
        }
        let passed = match &self.skip {
            Skip::Nothing => false,
            Skip::Stored(stored) => commit_lsn >= stored.high,
            Skip::Seen(_, lsn) => end_lsn > *lsn,
        };
        if passed {
            self.skip = Skip::Nothing;
        }
    }

    /// A row changed.
    ///
    /// # Errors
    /// The stream did not describe the relation before.
    pub fn row(
        &mut self,
        relation: u32,
        old: Option<&Old>,
        new: Option<&Tuple>,
        inserted: bool,
    ) -> Result<(), Undescribed> {
        let Some(ordinal) = self.next_ordinal() else {
            return Ok(());
        };
        let Some(table) = self.relations.get(relation)? else {
            return Ok(());
        };
        let cells = old.map_or(0, |old| old.tuple.len()) + new.map_or(0, Tuple::len);
        let values = old.map_or(0, |old| old.tuple.bytes()) + new.map_or(0, Tuple::bytes);
        let name = table.name.clone();
        let what = match mem::take(&mut table.reload) {
            true => What::Reload,
            false => What::Row {
                shape: table.shape.clone(),
                inserted,
                old: old.map(|old| table.before(old)),
                new: new.map(|new| -> Row { table.after(new, old) }),
            },
        };
        self.push(ordinal, name, what, values + 64 * cells + 256);
        Ok(())
    }

    /// Tables were emptied.
    ///
    /// # Errors
    /// As [`Assembly::row`].
    pub fn truncate(&mut self, relations: &[u32]) -> Result<(), Undescribed> {
        for relation in relations {
            let ordinal = self.next_ordinal();
            let table = self
                .relations
                .get(*relation)?
                .map(|table| table.name.clone());
            if let (Some(ordinal), Some(table)) = (ordinal, table) {
                self.push(ordinal, table, What::Truncate, 256);
            }
        }
        Ok(())
    }

    /// An application's message, or one of ours.
    pub fn message(&mut self, transactional: bool, prefix: &str, content: &[u8]) -> Noted {
        let ordinal = match transactional {
            true => self.next_ordinal(),
            false => None,
        };
        match prefix {
            HEARTBEAT => self.heartbeat(ordinal),
            MARK => self.mark(transactional, content),
            _ => {
                if let Some(topic) = prefix.strip_prefix(EVENT) {
                    return self.emitted(topic, (transactional, ordinal), content);
                }
            }
        }
        Noted::Taken
    }

    /// An application's event. Outside of a transaction it would come though its transaction was
    /// rolled back, and could come twice: only what is transactional is taken.
    fn emitted(
        &mut self,
        topic: &str,
        (transactional, ordinal): (bool, Option<u32>),
        content: &[u8],
    ) -> Noted {
        let bytes = content.len();
        let Some(data) = json(content).filter(|_| transactional) else {
            tracing::warn!(
                topic,
                bytes,
                transactional,
                "an event emitted in the database is not transactional or not JSON: left out"
            );
            return Noted::LeftOut;
        };
        if let Some(ordinal) = ordinal {
            let topic: Arc<str> = topic.into();
            self.push(
                ordinal,
                "".into(),
                What::Message { topic, data },
                bytes + 256,
            );
        }
        Noted::Taken
    }

    /// The history that is followed.
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// Begins another history, between two transactions.
    pub fn restart(&mut self, from: Checkpoint, skip: Skip) {
        self.source = from.source.clone();
        self.checkpoint = from;
        self.skip = skip;
    }

    /// Whether tables wait to be told with a heartbeat.
    pub fn owes_reloads(&self) -> bool {
        !self.reloads.is_empty()
    }

    /// Tells that a table could not be followed, with the next heartbeat.
    pub fn reload(&mut self, table: Arc<str>) {
        if !self.reloads.contains(&table) {
            self.reloads.push(table);
        }
    }

    fn heartbeat(&mut self, ordinal: Option<u32>) {
        self.due = true;
        let Some(mut ordinal) = ordinal else { return };
        // A heartbeat is a transaction of its own, so nobody else has these ordinals.
        for table in mem::take(&mut self.reloads) {
            self.push(ordinal, table, What::Reload, 256);
            ordinal += 1;
        }
        if let Some(open) = &mut self.open {
            open.ordinal = ordinal + 1;
        }
    }

    /// A transactional mark is answered after its transaction, another after what came before it:
    /// a message outside of transactions stands between them in the stream.
    fn mark(&mut self, transactional: bool, content: &[u8]) {
        let Ok(mark) = std::str::from_utf8(content) else {
            return;
        };
        match (&mut self.open, transactional) {
            (Some(open), true) if open.marks.len() < MAX_MARKS => open.marks.push(mark.into()),
            (None, false) if self.marks.len() < MAX_MARKS => {
                self.marks.push(mark.into());
                self.due = true;
            }
            _ => tracing::warn!("a mark was dropped, for too many wait"),
        }
    }

    /// Counts a change of the open transaction; none where it is stored already.
    fn next_ordinal(&mut self) -> Option<u32> {
        let open = self.open.as_mut()?;
        let ordinal = open.ordinal;
        open.ordinal = ordinal.saturating_add(1);
        open.count += 1;
        match open.stored {
            Some(stored) if ordinal <= stored => None,
            _ => Some(ordinal),
        }
    }

    fn push(&mut self, ordinal: u32, table: Arc<str>, what: What, bytes: usize) {
        let Some(open) = self.open.as_mut() else {
            return;
        };
        if open.count > 1 && open.tx.is_none() {
            let tx: Arc<str> = format!("{:x}", open.commit_lsn).into();
            for change in &mut self.changes[open.first..] {
                change.tx = Some(tx.clone());
            }
            open.tx = Some(tx);
        }
        self.bytes += bytes;
        self.changes.push(Change {
            table,
            what,
            checkpoint: Checkpoint {
                source: self.source.clone(),
                high: open.commit_lsn,
                low: ordinal,
            },
            tx: open.tx.clone(),
            at_ms: open.at_ms,
            xid: Some(open.xid),
        });
    }

    // === out ===

    /// Whether a batch holds as much as one may: no more is to be read before it is taken.
    pub fn is_full(&self) -> bool {
        self.changes.len() >= self.limits.changes || self.bytes >= self.limits.bytes
    }

    /// Whether there is something to hand out.
    pub fn is_ready(&self) -> bool {
        self.whole.0 > 0 || (self.due && !self.in_parts()) || self.is_full()
    }

    /// Parts of the open transaction were handed out: nothing else may come before its last.
    fn in_parts(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.split)
    }

    /// The whole transactions that have been read, or a part of one that is too large.
    pub fn take(&mut self) -> Transactions {
        self.due = false;
        if self.whole.0 > 0 || !self.is_full() {
            return self.take_whole();
        }
        let Some(open) = self.open.as_mut() else {
            return self.take_whole();
        };
        open.split = true;
        open.first = 0;
        let tx = open
            .tx
            .get_or_insert_with(|| format!("{:x}", open.commit_lsn).into());
        for change in &mut self.changes {
            change.tx = Some(tx.clone());
        }
        let changes = mem::take(&mut self.changes);
        self.bytes = 0;
        let last = changes.last().map(|change| change.checkpoint.clone());
        Transactions {
            checkpoint: last.unwrap_or_else(|| self.checkpoint.clone()),
            changes,
            marks: Vec::new(),
            more: true,
        }
    }

    fn take_whole(&mut self) -> Transactions {
        let (count, bytes) = mem::take(&mut self.whole);
        let rest = self.changes.split_off(count);
        let changes = mem::replace(&mut self.changes, rest);
        self.bytes -= bytes;
        if let Some(open) = &mut self.open {
            open.first -= count;
        }
        Transactions {
            changes,
            checkpoint: self.checkpoint.clone(),
            marks: mem::take(&mut self.marks),
            more: false,
        }
    }
}

/// What every reader can take as JSON.
fn json(content: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(content).ok()?;
    serde_json::from_str::<serde_json::Value>(text).ok()?;
    serde_json::from_str(text).ok()
}
