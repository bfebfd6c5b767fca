//! What a filter makes of a change, as a view's condition makes events of changes
//! (docs/protocol.md §1.3).

use super::Predicate;
use crate::{event::Op, row::Row};

/// What is sent of a change to whom a filter is set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The change as it is.
    Pass,
    /// The row came into the filter's view.
    Insert,
    /// The row left it, or may have.
    Delete,
    /// It cannot be told: the topic must be queried again.
    Reload,
    /// Nothing: no row of the filter's view is concerned.
    Nothing,
}

impl Predicate {
    /// Judges a partial image: `None` where the columns that it lacks decide.
    ///
    /// A missing column is unknown to every comparison, and so is NULL. What is true or false all
    /// the same stays so, whatever the column holds.
    pub fn tells(&self, row: &Row) -> Option<bool> {
        let whole = || self.columns().all(|column| row.get(column).is_some());
        self.test(row).or_else(|| whole().then_some(false))
    }

    /// The verdict on a change of a row.
    ///
    /// `old` and `new` are images before and after, as far as they are known, the key at least;
    /// `certain` says that an insert replaces no row (PostgreSQL; SQLite has REPLACE).
    pub fn verdict(&self, op: Op, certain: bool, old: &Row, new: &Row) -> Verdict {
        let fresh = op == Op::Insert && certain;
        match op {
            Op::Truncate | Op::Reload | Op::Touch => return Verdict::Pass,
            Op::Delete if self.tells(old) == Some(false) => return Verdict::Nothing,
            Op::Delete => return Verdict::Pass,
            Op::Insert | Op::Update => {}
        }
        let outside = || fresh || self.tells(old) == Some(false);
        match self.tells(new) {
            Some(true) if op == Op::Update && outside() => Verdict::Insert,
            Some(true) => Verdict::Pass,
            Some(false) if outside() => Verdict::Nothing,
            Some(false) => Verdict::Delete,
            None => Verdict::Reload,
        }
    }
}
