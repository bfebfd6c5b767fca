//! What is known of a change beside its text: for filters its row before and after, for compaction
//! its keys. Whatever must be made of it is made when somebody first asks, and then kept.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicUsize};

use serde_json::Map;

use crate::{
    event::{ChangeData, Op},
    predicate::{Judges, Verdict, image},
    protocol::{Encoded, Grown, data_of, narrowed, turned},
    row::Row,
    sabotage::{self, Fault},
    topic::Table,
};

/// What the struct itself costs.
const OVERHEAD: usize = 160;

/// What a value costs in a row that was read from JSON, beside its text.
const VALUE_OVERHEAD: usize = 40;

/// A change that is sent row by row.
#[derive(Debug)]
pub struct Particulars {
    /// The operation, before any filter.
    pub op: Op,
    /// The key as JSON, as it is in the text; none for a change of the whole table.
    pub key: Option<Box<str>>,
    /// The key before, where the change altered it.
    pub old_key: Option<Box<str>>,
    /// Columns are left out of the row that keep their values.
    pub partial: bool,
    /// There is a row in the text.
    pub has_row: bool,
    /// The row before as JSON, where the bus told it. Never sent.
    old: Option<Box<str>>,
    images: OnceLock<Images>,
    insert: OnceLock<Option<Encoded>>,
    delete: OnceLock<Option<Encoded>>,
    reload: OnceLock<Option<Encoded>>,
    /// For those who do not see every column, by what they see.
    narrow: Mutex<Vec<Narrow>>,
    grown: Grown,
}

/// The text with some columns only, as it is or as an insert.
#[derive(Debug)]
struct Narrow {
    columns: Arc<[String]>,
    as_insert: bool,
    text: Option<Encoded>,
}

/// The row before and after, as far as it is known; the key at least.
#[derive(Debug)]
struct Images {
    table: Arc<Table>,
    old: Row,
    new: Row,
}

impl Particulars {
    /// The particulars of a change.
    pub fn of(data: &ChangeData) -> Self {
        Self {
            op: data.op,
            key: data.key.as_ref().map(|key| key.get().into()),
            old_key: data.old_key.as_ref().map(|key| key.get().into()),
            partial: !data.unchanged.is_empty(),
            has_row: data.row.is_some(),
            old: data.old.as_ref().map(|old| old.get().into()),
            images: OnceLock::new(),
            insert: OnceLock::new(),
            delete: OnceLock::new(),
            reload: OnceLock::new(),
            narrow: Mutex::default(),
            grown: Grown::default(),
        }
    }

    /// Bytes held from the beginning.
    pub(super) fn cost(&self) -> usize {
        let texts = [&self.key, &self.old_key, &self.old];
        OVERHEAD
            + texts
                .into_iter()
                .flatten()
                .map(|text| text.len())
                .sum::<usize>()
    }

    /// From now on what is made here counts as the ring's.
    pub(super) fn count_in(&self, ring: &Arc<AtomicUsize>) {
        // A frame is in one ring only, and only once.
        self.grown.count_in(ring);
    }

    pub(super) fn judged(
        &self,
        text: &Encoded,
        (judges, certain): (Judges<'_>, bool),
        table: &Arc<Table>,
    ) -> Verdict {
        let how = (certain, self.old_key.is_some());
        let verdict = self.with_images(text, table, |old, new| {
            judges.verdict(self.op, how, old, new)
        });
        match verdict {
            // Sabotage: who may not see the row any more goes on with it.
            Verdict::Delete if judges.policy.is_some() && sabotage::active(Fault::KeepLeft) => {
                Verdict::Nothing
            }
            // Two rows to tell of, and one event.
            Verdict::Delete | Verdict::Nothing if !certain && self.may_displace(judges, table) => {
                Verdict::Reload
            }
            verdict => verdict,
        }
    }

    /// The row images, before and after, are read once, for the table that the first asker knows; another
    /// table's description, just after a change of the table, is rare enough to read them again.
    pub(super) fn with_images<T>(
        &self,
        text: &Encoded,
        table: &Arc<Table>,
        look: impl FnOnce(&Row, &Row) -> T,
    ) -> T {
        let images = self.images.get_or_init(|| {
            let images = self.read(text, table);
            let values = images.old.iter().count() + images.new.iter().count();
            let old = self.old.as_ref().map_or(0, |old| old.len());
            self.grown.by(text.len() + old + values * VALUE_OVERHEAD);
            images
        });
        match Arc::ptr_eq(&images.table, table) {
            true => look(&images.old, &images.new),
            false => {
                let images = self.read(text, table);
                look(&images.old, &images.new)
            }
        }
    }

    /// Whether the row took a key whose row, replaced without a word, may have been inside.
    fn may_displace(&self, judges: Judges<'_>, table: &Arc<Table>) -> bool {
        let Some(filter) = judges.filter else {
            return false;
        };
        let key = self.key.as_deref().filter(|_| self.old_key.is_some());
        let members = key.and_then(|key| serde_json::from_str::<Map<_, _>>(key).ok());
        let taken = members.map(|members| image(table, &members));
        taken.is_some_and(|taken| filter.tells(&taken) != Some(false))
    }

    fn read(&self, text: &Encoded, table: &Arc<Table>) -> Images {
        let row = |json: Option<&str>| {
            let members =
                json.and_then(|json| serde_json::from_str::<Option<Map<_, _>>>(json).ok());
            members.flatten().map(|members| image(table, &members))
        };
        let key = |key: Option<&str>| row(key).unwrap_or_else(|| Row::new([].into(), Vec::new()));
        let before = self.old_key.as_deref().or(self.key.as_deref());
        let data = std::str::from_utf8(text).ok().and_then(data_of);
        Images {
            table: table.clone(),
            old: row(self.old.as_deref()).unwrap_or_else(|| key(before)),
            new: row(data).unwrap_or_else(|| key(self.key.as_deref())),
        }
    }

    /// The text with another operation.
    pub(super) fn turned(&self, text: &Encoded, op: Op) -> Option<Encoded> {
        let made = match op {
            Op::Insert => &self.insert,
            Op::Delete => &self.delete,
            _ => &self.reload,
        };
        let made = made.get_or_init(|| {
            let text = std::str::from_utf8(text).ok()?;
            let made = turned(text, op).map(Encoded::from)?;
            self.grown.by(made.len());
            self.grown.count(&made);
            Some(made)
        });
        made.clone()
    }

    /// The text with these columns only; `as_insert` says whether it is turned into one. `None` where it
    /// cannot be made: then nothing is sent.
    pub(super) fn narrowed(
        &self,
        text: &Encoded,
        as_insert: bool,
        columns: &Arc<[String]>,
    ) -> Option<Encoded> {
        // Nothing in here panics half way through a change.
        let mut known = self.narrow.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |made: &&Narrow| {
            made.as_insert == as_insert
                && (Arc::ptr_eq(&made.columns, columns) || made.columns == *columns)
        };
        if let Some(made) = known.iter().find(same) {
            return made.text.clone();
        }
        let plain = std::str::from_utf8(text).ok();
        let made = plain.and_then(|plain| narrowed(plain, as_insert, columns));
        let made = made.map(Encoded::from);
        if let Some(made) = &made {
            self.grown.by(made.len());
            self.grown.count(made);
        }
        known.push(Narrow {
            columns: columns.clone(),
            as_insert,
            text: made.clone(),
        });
        made
    }
}

/// What was made of a change since makes no difference.
impl PartialEq for Particulars {
    fn eq(&self, other: &Self) -> bool {
        let told = |of: &Self| (of.op, of.key.clone(), of.old_key.clone(), of.old.clone());
        told(self) == told(other) && self.partial == other.partial
    }
}
