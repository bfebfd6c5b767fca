//! One frame of the ring.

use std::sync::Arc;

use super::change::Particulars;
use crate::{
    event::{Body, Delivery, Event, Op},
    horizon::Horizon,
    position::{Checkpoint, Position},
    predicate::{Judges, Verdict},
    protocol::{self, Encoded},
    row::Row,
    topic::Table,
};

/// What a frame costs beside its text.
const FRAME_OVERHEAD: usize = 240;

/// One frame, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The topic that it belongs to.
    pub topic: Arc<str>,
    /// Where it stands: its cursor.
    pub position: Position,
    /// The text, UTF-8 JSON, encoded once for all; none for an event that only gateways need.
    pub text: Option<Encoded>,
    /// What it is.
    pub kind: FrameKind,
    /// Of a change that is sent row by row, what filters and compaction ask.
    pub change: Option<Arc<Particulars>>,
}

/// What a frame is, and what it knows of the database.
#[derive(Debug, Clone, PartialEq)]
pub enum FrameKind {
    /// An event of the bus.
    Event {
        /// Of a change, where it stands in its source.
        checkpoint: Option<Checkpoint>,
        /// Of a change, its transaction, where the database names it.
        xid: Option<u64>,
    },
    /// A page read by this gateway, and what that read saw.
    Page(Option<Horizon>),
}

impl Frame {
    /// A delivery as a frame, encoded once for all.
    pub fn of(delivery: &Delivery) -> Self {
        let event = delivery.event.as_ref();
        let change = event.and_then(|event| match &event.body {
            Body::Change { data, .. } if data.op != Op::Touch => Some(Particulars::of(data)),
            Body::Change { .. } | Body::Application(_) | Body::Emitted { .. } => None,
        });
        Self {
            topic: event.map_or_else(|| "".into(), |event| event.topic.clone()),
            position: delivery.position.clone(),
            text: protocol::event(delivery).map(Encoded::from),
            kind: FrameKind::Event {
                checkpoint: event.and_then(Event::checkpoint).cloned(),
                xid: event.and_then(|event| event.xid),
            },
            change: change.map(Arc::new),
        }
    }

    /// The transaction of a change, where the database names it.
    pub fn xid(&self) -> Option<u64> {
        match self.kind {
            FrameKind::Event { xid, .. } => xid,
            FrameKind::Page(_) => None,
        }
    }

    /// How far the source had come with it, where it came from there.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.kind {
            FrameKind::Event { checkpoint, .. } => checkpoint.as_ref(),
            FrameKind::Page(_) => None,
        }
    }

    /// Whether it says that its topic must be queried again, whatever a filter makes of it.
    pub fn is_reload(&self) -> bool {
        let change = self.change.as_ref();
        change.is_some_and(|change| change.op == Op::Reload)
    }

    /// Whether it tells of one row, which not everybody may see.
    pub fn is_of_a_row(&self) -> bool {
        let change = self.change.as_ref().filter(|_| self.text.is_some());
        change.is_some_and(|change| change.key.is_some())
    }

    /// Bytes that it takes in the ring from the beginning.
    pub fn cost(&self) -> usize {
        let change = self.change.as_ref().map_or(0, |change| change.cost());
        FRAME_OVERHEAD + self.text.as_ref().map_or(0, |text| text.len()) + change
    }

    /// What becomes of this frame by what is compiled for `table`. What is no change of a row passes.
    pub fn judged(&self, judges: Judges<'_>, table: &Arc<Table>) -> Verdict {
        let (Some(change), Some(text)) = (&self.change, &self.text) else {
            return Verdict::Pass;
        };
        // Where transactions have ids, as in PostgreSQL, an insert never replaces a row.
        let certain = self.xid().is_some();
        change.judged(text, (judges, certain), table)
    }

    /// Looks at the row before and after, as far as they are known; `None` for what is no change of a row.
    pub fn images<T>(&self, table: &Arc<Table>, look: impl FnOnce(&Row, &Row) -> T) -> Option<T> {
        let (Some(change), Some(text)) = (&self.change, &self.text) else {
            return None;
        };
        change.key.as_ref()?;
        Some(change.with_images(text, table, look))
    }

    /// The text for a socket to which this verdict was given, with these columns only where some are
    /// named. Each is made at most once, and the same bytes serve all sockets.
    pub fn form(&self, verdict: Verdict, columns: Option<&Arc<[String]>>) -> Option<Encoded> {
        let text = self.text.as_ref()?;
        let narrow = |change: &Particulars| columns.filter(|_| change.has_row || change.partial);
        match (&self.change, verdict) {
            (_, Verdict::Nothing) => None,
            (None, _) => Some(text.clone()),
            (Some(change), Verdict::Pass) => match narrow(change) {
                Some(columns) => change.narrowed(text, false, columns),
                None => Some(text.clone()),
            },
            (Some(change), Verdict::Insert) => match narrow(change) {
                Some(columns) => change.narrowed(text, true, columns),
                None => change.turned(text, Op::Insert),
            },
            (Some(change), Verdict::Delete) => change.turned(text, Op::Delete),
            (Some(change), Verdict::Reload) => change.turned(text, Op::Reload),
        }
    }
}
