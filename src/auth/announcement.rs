//! Revoking: here at once, and announced to whoever keeps it for the next start and has all gateways know.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value as Json};
use tokio::{
    sync::{MutexGuard, mpsc, oneshot},
    time::timeout,
};

use super::{Auth, Revocation};

/// Revocations on their way to where they are kept.
pub(super) const WAITING: usize = 256;

/// How long one may be on its way: it is some milliseconds, and somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A revocation that is to be kept, and that all gateways are to know of.
#[derive(Debug)]
pub struct Announcement {
    /// What was revoked.
    pub revocation: Revocation,
    /// When.
    pub at: SystemTime,
    /// Said when it is kept; dropped where it cannot be.
    pub kept: oneshot::Sender<()>,
}

impl Auth {
    /// Reads a revocation, as [`Revocation::read`], that still ends something.
    ///
    /// # Errors
    /// What is needed instead.
    pub fn revocation(&self, body: &Map<String, Json>) -> Result<Revocation, &'static str> {
        let revocation = Revocation::read(body)?;
        match self.0.revoked.is_over(&revocation, SystemTime::now()) {
            true => Err("until: a time to come, at which the last of the tokens ends"),
            false => Ok(revocation),
        }
    }

    /// Until when a revocation holds that was said `at` that time: no token is left then that it could
    /// concern.
    pub fn holds_until(&self, revocation: &Revocation, at: SystemTime) -> SystemTime {
        self.0.revoked.until(revocation, at)
    }

    /// Has a revocation hold that was said `at` that time: of what was issued by then whoever is there is
    /// told now, and all of it is refused from now on. To hold one again changes nothing.
    pub fn hold(&self, revocation: &Revocation, at: SystemTime) {
        let ended = self.uphold(revocation, at);
        if ended > 0 {
            tracing::info!(sessions = ended, "revoked");
        }
    }

    /// The same, of one that is new: it is counted and told in the log.
    pub fn revoke(&self, revocation: &Revocation, at: SystemTime) {
        let ended = self.uphold(revocation, at);
        self.0.metrics.auth.revoked();
        tracing::info!(sessions = ended, "revoked");
    }

    /// Revokes here, has it kept for the next start, and all other gateways know of it.
    ///
    /// Returns whether it is kept; where not, it holds here alone, and as long as this process runs. That
    /// takes some seconds at the most.
    ///
    /// # Cancel safety
    /// Cancel safe: it holds here, and may be kept.
    pub async fn revoke_for_good(&self, revocation: Revocation) -> bool {
        let at = SystemTime::now();
        self.revoke(&revocation, at);
        let (kept, is_kept) = oneshot::channel();
        let announcement = Announcement {
            revocation,
            at,
            kept,
        };
        match self.0.announce.try_send(announcement) {
            Ok(()) => matches!(timeout(PATIENCE, is_kept).await, Ok(Ok(()))),
            Err(_) => false,
        }
    }

    /// What is to be kept, for the one who keeps it.
    pub async fn announced(&self) -> MutexGuard<'_, mpsc::Receiver<Announcement>> {
        self.0.announced.lock().await
    }

    /// Returns how many sessions it has ended.
    fn uphold(&self, revocation: &Revocation, at: SystemTime) -> usize {
        let inner = &self.0;
        if inner.revoked.is_over(revocation, at) {
            return 0;
        }
        inner.revoked.add(revocation, at);
        inner
            .grants
            .end(revocation, |who| inner.revoked.covers(who))
    }
}
