//! Our own writes to the user's file: triggers put back, marks noted, old entries deleted. Each is
//! one short transaction in a quiet moment, so that no other program ever finds the file locked.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tracing::{error, info};

use super::{
    changelog,
    open::{Failure, Open},
    tail::Tail,
};
use crate::sqlite;

/// Entries deleted in one transaction, during which no other program can write. A hundred take
/// about 0.1 ms.
const TRIM_STEP: u32 = 100;

/// The pause between two such transactions: far longer than they are.
const TRIM_PAUSE: Duration = Duration::from_millis(20);

/// How long nobody else must have written before we do: `sqlite3` waits for no lock at all, so a
/// script of its must never meet one of ours between two statements. On a busy disk one statement
/// may wait for its fsync for some tenths of a second.
const QUIET: Duration = Duration::from_secs(1);

/// The same before triggers are put back: clients are to be told of a migration within a tick.
const REPAIR_QUIET: Duration = Duration::from_millis(200);

/// How long we wait for such a quiet moment before triggers are put back all the same.
const REPAIR_PATIENCE: Duration = Duration::from_secs(2);

/// The same for trimming, which only keeps the file small.
const TRIM_PATIENCE: Duration = Duration::from_secs(60);

/// How long nobody must have written before even the last few old entries are deleted.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// The least time between two marks.
pub const MARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long the triggers' transaction waits for another writer; meanwhile nothing is read.
const REPAIR_BUSY: Duration = Duration::from_millis(500);

impl Tail {
    /// Puts triggers back after the schema changed `waited` ago, unless nothing of ours is
    /// concerned. Tries again at the next look where another program holds the lock.
    pub(super) fn repair(
        &mut self,
        open: &mut Open,
        quiet: Duration,
        waited: Duration,
    ) -> Result<(), Failure> {
        if quiet < REPAIR_QUIET && waited < REPAIR_PATIENCE {
            return Ok(());
        }
        let found = changelog::inspect(&open.reader, &self.watched)?;
        for table in &found.absent {
            error!(
                table,
                "a watched table, or a key column of it, is missing: its topics cannot be served"
            );
        }
        if found.no_changelog {
            return Err("the changelog was removed".into());
        }
        if !found.is_whole() || !open.reload.is_empty() {
            open.wrote = true;
            open.writer.busy_timeout(REPAIR_BUSY)?;
            let found = match changelog::install(&mut open.writer, &self.watched, &open.reload) {
                Ok(found) => found,
                Err(err) if is_busy(&err) => return Ok(()),
                Err(err) => return Err(err.into()),
            };
            open.unfollowed.extend(found.lacking.iter().cloned());
            self.define(open)?;
            info!(triggers = ?found.lacking, reload = ?open.reload, "followed a change of the schema");
        }
        open.reload.clear();
        open.altered = None;
        Ok(())
    }

    /// Notes a mark now and then, in a quiet moment after others have written: a copy of the file
    /// from before it that went another way can be told by it.
    pub(super) fn mark(&mut self, open: &mut Open, quiet: Duration) -> Result<(), Failure> {
        let now = Instant::now();
        let due = self.last.high > self.marked && now >= self.next_mark && quiet >= QUIET;
        if !due {
            return Ok(());
        }
        let noted = match own(&open.writer, Duration::ZERO, changelog::mark) {
            Ok(()) => sqlite::present(&open.writer)?.unwrap_or(0),
            Err(err) if is_busy(&err) => return Ok(()),
            Err(err) => return Err(err.into()),
        };
        open.wrote = true;
        self.marked = noted;
        self.next_mark = now + MARK_INTERVAL;
        Ok(())
    }

    /// Deletes a step of what is confirmed and either old or too much, when nobody has written
    /// for a while. Of what is confirmed the last [`changelog::EVIDENCE`] entries stay: by them a
    /// restored file is recognised.
    pub(super) fn trim(&mut self, open: &mut Open, quiet: Duration) -> Result<(), Failure> {
        let now = Instant::now();
        if now < self.next_trim {
            return Ok(());
        }
        self.next_trim = now
            + (self.config.changelog_keep / 10)
                .min(Duration::from_secs(1))
                .max(TRIM_PAUSE);
        if self.ages.back().is_none_or(|(_, id)| *id != self.last.high) {
            self.ages.push_back((now, self.last.high));
        }
        let mut below = self
            .last
            .high
            .saturating_sub(self.config.changelog_max_rows);
        while let Some((_, id)) = self
            .ages
            .front()
            .filter(|(at, _)| now - *at >= self.config.changelog_keep)
            .copied()
        {
            below = below.max(id);
            if self.ages.len() == 1 {
                break;
            }
            self.ages.pop_front();
        }
        let confirmed = self.confirmed.load(Ordering::Acquire);
        let below = below.min(confirmed.saturating_sub(changelog::EVIDENCE));
        // A handful of entries is not worth a lock, unless nobody can want it.
        let worth = match quiet < TIDY_AFTER {
            true => below.saturating_sub(u64::from(TRIM_STEP)),
            false => below,
        };
        if !changelog::reaches_below(&open.reader, worth)? {
            self.untrimmed = None;
            return Ok(());
        }
        self.next_trim = now + TRIM_PAUSE;
        let since = *self.untrimmed.get_or_insert(now);
        if quiet < QUIET && now - since < TRIM_PATIENCE {
            return Ok(());
        }
        let trim = |conn: &Connection| changelog::trim(conn, below, TRIM_STEP);
        match own(&open.writer, Duration::ZERO, trim) {
            Ok(()) => open.wrote = true,
            // Another program writes just now: theirs goes first.
            Err(err) if is_busy(&err) => {}
            Err(err) => return Err(err.into()),
        }
        Ok(())
    }
}

/// Runs a small write of ours that waits for other programs no longer than `wait`.
fn own(
    conn: &Connection,
    wait: Duration,
    write: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    conn.busy_timeout(wait)?;
    write(conn)
}

fn is_busy(err: &rusqlite::Error) -> bool {
    err.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
