//! Revocations in the bus's file, for the next start. They are no part of its history: another epoch
//! leaves them alone.

use std::time::{Duration, SystemTime};

use rusqlite::{TransactionBehavior, params};

use super::{super::KeptRevocation, log::Log};
use crate::clock::now_ms;

/// Revocations kept at the most, as many as a gateway holds in memory. Of more those go that end first.
const MAX_KEPT: i64 = 100_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Log {
    /// Keeps revocations, each until its time, in one commit, and forgets those that are over.
    pub fn keep_revoked(&mut self, new: &[(KeptRevocation, SystemTime)]) -> Result<(), Failure> {
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute("DELETE FROM revoked WHERE until_ms <= ?1", [now_ms()])?;
        for (revocation, until) in new {
            let body = std::str::from_utf8(&revocation.body)?;
            // A millisecond longer rather than shorter.
            let until_ms = since(*until).as_millis() + 1;
            tx.prepare_cached("INSERT INTO revoked (at_ns, until_ms, body) VALUES (?1, ?2, ?3)")?
                .execute(params![
                    i64::try_from(since(revocation.at).as_nanos())?,
                    i64::try_from(until_ms)?,
                    body,
                ])?;
        }
        let count: i64 = tx.query_row("SELECT count(*) FROM revoked", [], |row| row.get(0))?;
        if count > MAX_KEPT {
            tx.execute(
                "DELETE FROM revoked WHERE n IN (SELECT n FROM revoked ORDER BY until_ms, n LIMIT ?1)",
                [count - MAX_KEPT],
            )?;
        }
        tx.commit()?;
        Ok(())
    }

    /// The revocations that hold still, the oldest first.
    pub fn revoked(&self) -> Result<Vec<KeptRevocation>, Failure> {
        let mut statement = self
            .conn
            .prepare("SELECT at_ns, body FROM revoked WHERE until_ms > ?1 ORDER BY n")?;
        let rows = statement.query_map([now_ms()], |row| {
            let at_ns: i64 = row.get(0)?;
            Ok(KeptRevocation {
                at: SystemTime::UNIX_EPOCH + Duration::from_nanos(at_ns.unsigned_abs()),
                body: row.get::<_, String>(1)?.into(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn since(time: SystemTime) -> Duration {
    // Nothing is revoked before 1970.
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: u64, until: SystemTime) -> (KeptRevocation, SystemTime) {
        let body = format!("{{\"jti\":\"{id}\"}}").into();
        let at = SystemTime::now();
        (KeptRevocation { at, body }, until)
    }

    #[test]
    fn what_is_kept_is_bounded_and_read_as_it_was_and_what_is_over_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let mut log = Log::open(&path).unwrap();
        let now = SystemTime::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let over = kept(0, now - Duration::from_secs(1));
        let all: Vec<_> = (1..=MAX_KEPT as u64 + 10)
            .map(|id| kept(id, later(1000 + id)))
            .collect();
        log.keep_revoked(&[over, all[0].clone()]).unwrap();
        let read = Log::open(&path).unwrap().revoked().unwrap();
        assert_eq!(read, [all[0].0.clone()]);
        log.keep_revoked(&all[1..]).unwrap();
        let read = Log::open(&path).unwrap().revoked().unwrap();
        assert_eq!(read.len(), MAX_KEPT as usize);
        assert!(read.iter().eq(all[10..].iter().map(|(kept, _)| kept)));
    }
}
