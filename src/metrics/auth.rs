//! What is counted of who may connect.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{Kind, kind, new};

/// Counters of refusals, revocations and keys.
#[derive(Debug, Clone)]
pub struct AuthMetrics {
    refused: Family<Kind, Counter>,
    revocations: Counter,
    forgotten: Counter,
    looks: Family<Kind, Counter>,
}

impl AuthMetrics {
    pub(super) fn new(r: &mut Registry) -> Self {
        Self {
            refused: new(r, "auth_refused", "Who was not let in, by reason"),
            revocations: new(r, "revocations", "Revocations taken in"),
            forgotten: new(r, "revocations_forgotten", "Times that some had to go"),
            looks: new(r, "key_reads", "Reads of the issuer's keys, by outcome"),
        }
    }

    /// Counts somebody who was not let in, by why.
    pub fn refused(&self, reason: &str) {
        self.refused.get_or_create(&kind(reason)).inc();
    }

    /// Counts a revocation.
    pub fn revoked(&self) {
        self.revocations.inc();
    }

    /// Counts that there was no room for all revocations.
    pub fn forgot_revocation(&self) {
        self.forgotten.inc();
    }

    /// Counts a look for the issuer's keys.
    pub fn looked_for_keys(&self, is_well: bool) {
        let outcome = if is_well { "ok" } else { "failed" };
        self.looks.get_or_create(&kind(outcome)).inc();
    }
}
