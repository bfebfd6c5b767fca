//! What follows from who is connected: how far the session goes along the stream, and what becomes of what was
//! asked for when somebody turns out to have other claims.

use std::sync::Arc;

use super::{Ask, End, Session};
use crate::{
    identity::Identity,
    policy,
    protocol::{self, ErrorCode, Failure, ResetReason},
    ring::Frame,
};

/// A random wait that a client takes before it queries again: claims seldom change for many at once.
const RESET_AFTER_MS: [u32; 2] = [0, 500];

/// Within which confines a session goes on along the stream.
#[derive(Debug, Default)]
pub struct Confines {
    /// The client is not told yet that they are others than before.
    pub untold: bool,
    /// How often they have been.
    pub changes: u32,
    /// The topic of the row that it came to and could not judge.
    pub stopped_at: Option<Arc<str>>,
}

impl Session {
    /// Whether a frame can be judged by who is connected. Where not, the session must stop before it: what
    /// comes behind it would be out of order.
    pub(super) fn can_judge(&mut self, frame: &Frame) -> bool {
        if self.silent || !self.interests.cannot_judge(frame) {
            return true;
        }
        self.confines.stopped_at = Some(frame.topic.clone());
        self.may_go_on()
    }

    /// Whether what the session has stopped at can be judged by now, or concerns it no more.
    pub(super) fn may_go_on(&mut self) -> bool {
        if let Some(topic) = &self.confines.stopped_at {
            if self.interests.awaits(topic, &self.gateway.filters) {
                return false;
            }
            self.confines.stopped_at = None;
        }
        true
    }

    /// Takes note that somebody is connected in place of who was.
    pub(super) fn redraw(&mut self, before: &Identity) {
        let seen = |identity| move |topic| policy::seen_by(topic, identity);
        let (before, now) = (seen(before), seen(&self.identity));
        let mut guarded = self
            .gateway
            .topics
            .iter()
            .filter(|topic| topic.is_guarded());
        if guarded.any(|topic| before(topic) != now(topic)) {
            self.confines.untold = true;
            self.confines.changes += 1;
        }
    }

    /// Tells the client, before any later event, that it may see other things than before; what it has asked
    /// for is asked anew.
    pub(super) async fn tell_confines(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.confines.untold) {
            return Ok(());
        }
        let work = self.asks.work();
        let held = work.held.drain(..).map(|held| held.ask);
        let asked: Vec<Ask> = held.chain(work.queued.drain(..)).collect();
        for ask in asked {
            self.renew(ask).await?;
        }
        if self.silent {
            return Ok(());
        }
        let reason = ResetReason::Scope;
        self.gateway.metrics.reset(reason.as_str());
        self.wire.stand(&self.cursor);
        let frame = protocol::reset(reason, &self.cursor, RESET_AFTER_MS);
        self.wire.send(frame).await
    }

    /// Has a query that was asked within other confines asked within those of now.
    pub(super) async fn renew(&mut self, ask: Ask) -> Result<(), End> {
        let Some(topic) = self.gateway.topic(&ask.topic.name, &self.identity) else {
            let failure = Failure::from(ErrorCode::UnknownType).to(ask.rid);
            return self.fail(failure).await;
        };
        self.asks.work().queued.push_back(Ask {
            topic,
            changes: self.confines.changes,
            ..ask
        });
        Ok(())
    }
}
