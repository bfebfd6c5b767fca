//! Who returns, or has fallen behind the ring: whether what follows a cursor can be had, and the
//! pages that no replay brings.

use std::sync::Arc;

use super::{Ask, End, Session};
use crate::{
    fanout::Missing,
    position::Position,
    protocol::{self, Params, Select},
    ring::Seek,
    sabotage::{self, Fault},
    topic::{Push, Topic},
};

impl Session {
    /// Sets the cursor to where the client left off; what came after is sent by [`Self::walk`].
    pub(super) fn resume_from(&mut self, since: Position) {
        self.seq = None;
        self.behind = Some(self.gateway.metrics.falls_behind());
        self.cursor = match sabotage::active(Fault::CursorOffByOne) {
            true => since.at(since.offset + 1),
            false => since,
        };
        self.replaying = true;
    }

    /// What follows the cursor has left the ring, and the bus has no pages.
    pub(super) fn fall_out(&mut self) {
        self.seq = None;
        self.behind = Some(self.gateway.metrics.falls_behind());
        self.gateway.metrics.slow();
        self.missed_pages |= !self.silent;
    }

    /// Whether pages may have been among what was sent from the bus, or instead of it.
    pub(super) fn is_owed_pages(&self) -> bool {
        self.replaying || self.missed_pages
    }

    /// Whether everything after `since` can be had.
    pub(super) async fn recoverable(&mut self, since: &Position) -> bool {
        match self.gateway.ring.seek(since) {
            Seek::At(_) => true,
            Seek::Mismatch => false,
            Seek::Epoch | Seek::Ahead => {
                self.gateway.backlog.place(since.clone()).await == Missing::Later
            }
            Seek::Behind => {
                let found = self.gateway.backlog.after(since.clone()).await;
                !matches!(found, Err(Missing::Reset(_)))
            }
        }
    }

    /// The head is reached: says so where a replay is over, and sends a fresh page of every page
    /// topic. Who returns when nothing has changed since the page was read last gets that one; else
    /// it is read again, once for all who ask at the time, or, where that may take long, comes when the gateway
    /// has read it.
    pub(super) async fn caught_up(&mut self) -> Result<(), End> {
        self.missed_pages = false;
        self.wire.stand(&self.cursor);
        if std::mem::take(&mut self.replaying) {
            self.wire.send(protocol::caught_up(&self.cursor)).await?;
        }
        let topics = self.gateway.topics.clone();
        for topic in topics.iter().filter(|topic| topic.push == Push::Page) {
            if !self.interests.takes(&topic.name) {
                continue;
            }
            self.page(topic).await?;
        }
        Ok(())
    }

    /// Sends a topic's page, or sees to it that it comes.
    async fn page(&mut self, topic: &Arc<Topic>) -> Result<(), End> {
        loop {
            if let Some((frame, horizon)) = self.gateway.pages.fresh(&topic.name, &self.cursor) {
                if let Some(horizon) = horizon {
                    self.seen.insert(topic.name.clone(), horizon);
                }
                return self.feed(&frame).await;
            }
            if self.gateway.queries.is_at_hand(topic) {
                self.asks.work().queued.push_back(Ask {
                    fresh_page: true,
                    changes: self.confines.changes,
                    ..Ask::new(topic.clone(), None, Select::Page(Params::default()))
                });
                return Ok(());
            }
            if self.gateway.pages.owe(&topic.name) {
                return Ok(());
            }
        }
    }
}
