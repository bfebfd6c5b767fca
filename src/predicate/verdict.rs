//! What a filter, a policy, or both make of a change, as a view's condition makes events of changes
//! (docs/protocol.md §1.3).

use super::Predicate;
use crate::{event::Op, row::Row};

/// What is sent of a change to whom not everything is.
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

/// What decides which rows are sent to somebody. Rows for which all of it is true are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Judges<'a> {
    /// What he may see: of a row for which this is not known to be true he learns nothing, not even
    /// its key.
    pub policy: Option<&'a Predicate>,
    /// What he wants to see.
    pub filter: Option<&'a Predicate>,
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
}

impl<'a> Judges<'a> {
    /// A filter alone.
    pub fn filter(filter: &'a Predicate) -> Self {
        Self {
            policy: None,
            filter: Some(filter),
        }
    }

    /// The verdict on a change of a row.
    ///
    /// `old` and `new` are images before and after, as far as they are known, the key at least;
    /// `certain` says that an insert replaces no row (PostgreSQL; SQLite has REPLACE), `moved` that the
    /// change altered the key.
    pub fn verdict(&self, op: Op, (certain, moved): (bool, bool), old: &Row, new: &Row) -> Verdict {
        if matches!(op, Op::Truncate | Op::Reload | Op::Touch) {
            return Verdict::Pass;
        }
        let fresh = op == Op::Insert && certain;
        let before = match fresh {
            true => Some(false),
            false => self.tells(old),
        };
        let after = match op {
            Op::Delete => Some(false),
            _ => self.tells(new),
        };
        let verdict = match (after, before) {
            (Some(true), Some(false)) if op == Op::Update || moved => Verdict::Insert,
            (Some(true), _) => Verdict::Pass,
            (Some(false), Some(false)) => Verdict::Nothing,
            (Some(false), _) if op == Op::Delete => Verdict::Pass,
            (Some(false), _) => Verdict::Delete,
            (None, _) => Verdict::Reload,
        };
        // These name the row as it was, which may be one that he may not know of.
        let names_old = match verdict {
            Verdict::Delete => true,
            Verdict::Pass => op == Op::Delete || moved,
            _ => false,
        };
        let may = |policy: &Predicate| policy.tells(old) == Some(true);
        match names_old && !self.policy.is_none_or(may) {
            true => Verdict::Reload,
            false => verdict,
        }
    }

    /// Whether all of them hold for an image, as far as it tells.
    fn tells(&self, row: &Row) -> Option<bool> {
        let judges = [self.policy, self.filter].into_iter().flatten();
        let mut all = Some(true);
        for judge in judges {
            match judge.tells(row) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}
