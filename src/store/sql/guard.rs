//! A topic's policy in SQL: one more condition, before anything that an asker chooses, with the claims
//! as bound values.

use super::{Builder, StoreError};
use crate::{
    predicate::Unbound,
    sabotage::{self, Fault},
    topic::Policy,
};

impl Builder<'_> {
    /// Leaves only the rows that the policy leaves to whose claims it has.
    pub(super) fn guard(&mut self, policy: &Policy) -> Result<(), StoreError> {
        // Sabotage: everybody is answered with every row.
        if sabotage::active(Fault::AnswerOthers) {
            return Ok(());
        }
        let gone = |err: &dyn std::fmt::Display| StoreError::Gone(err.to_string());
        let unbound = Unbound::parse(policy.text(), self.table).map_err(|err| gone(&err))?;
        let predicate = unbound.bind(policy.claims());
        let mut failed = None;
        let sql = predicate.to_bound_sql(|column, value| {
            // Never for a value that was read as one of the column's type.
            let place = self.bind(
                column,
                value.clone(),
                "policy: a value of the column's type",
            );
            place.unwrap_or_else(|err| {
                failed = Some(err);
                self.dialect.never().to_owned()
            })
        });
        match failed {
            Some(err) => Err(gone(&err)),
            None => {
                self.wheres.push(sql);
                Ok(())
            }
        }
    }
}
