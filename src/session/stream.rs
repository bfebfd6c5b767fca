//! The session's way along the stream: from the ring, or from the bus where the ring has moved
//! on; and the places of its replies in it.

use std::{cmp::Ordering, sync::Arc};

use tokio::time::Instant;

use super::{Ask, End, Held, SETTLE, Session, reads::pause, seen::Seen, wire::WRITE_BYTES};
use crate::{
    callers::Asker,
    fanout::Missing,
    predicate::Verdict,
    protocol::{self, Encoded, Mode, Params, ResetReason, Rid, Select},
    ring::{Frame, FrameKind, Place, Seek},
    topic::Topic,
};

/// The wait before the bus is asked again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// A random wait that clients take before they query again, so that not all do at once.
const RESET_AFTER_MS: [u32; 2] = [0, 3000];

/// How a walk along the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// At the place asked for, or at the head.
    There,
    /// Beyond the place, because the client had to be told to reset on the way.
    Beyond,
    /// The bus cannot be read now, or what comes next cannot be judged.
    Stuck,
}

impl Session {
    /// Goes on along the stream as far as possible, and sends the replies whose place is reached.
    pub(super) async fn advance(&mut self) -> Result<(), End> {
        self.tell_confines().await?;
        loop {
            // While a reply waits for its place no new query starts, or it might never get one.
            if self.asks.held().is_empty() {
                self.start_queries();
            }
            if self.asks.running() > 0 {
                // Hold: what a running query will see is not known yet.
                return self.wire.flush().await;
            }
            if !self.asks.held().is_empty() {
                if self.release().await? {
                    continue;
                }
                return self.wire.flush().await;
            }
            if self.walk(None, &[]).await? == Walk::There && self.is_owed_pages() {
                self.caught_up().await?;
                continue;
            }
            return self.wire.flush().await;
        }
    }

    fn start_queries(&mut self) {
        while self.asks.running() < self.gateway.config.queries_running.max(1) {
            let Some(mut ask) = self.asks.next() else {
                return;
            };
            ask.restarts = self.gateway.ring.restarts();
            let queries = self.gateway.queries.clone();
            let asker = Asker::of(&self.identity, self.from);
            self.asks.work().running.push(Box::pin(async move {
                if ask.tries > 0 {
                    tokio::time::sleep(pause(ask.tries)).await;
                }
                let topic = ask.topic.clone();
                let found = queries.snapshot(asker, topic, ask.select.clone()).await;
                (ask, found)
            }));
        }
    }

    /// A query was read: an error goes out at once, rows wait for their place.
    pub(super) async fn answered(&mut self, (ask, found): super::Answer) -> Result<(), End> {
        if ask.changes != self.confines.changes {
            return self.renew(ask).await;
        }
        match found {
            Ok(snapshot) => {
                self.asks.work().held.push(Held {
                    ask,
                    snapshot,
                    until: Instant::now() + SETTLE,
                });
                Ok(())
            }
            // The client did not ask for a fresh page: it comes as soon as it can be read.
            Err(_) if ask.fresh_page => {
                self.missed_pages |= !self.gateway.pages.owe(&ask.topic.name);
                Ok(())
            }
            Err(failure) => self.fail(failure.to(ask.rid)).await,
        }
    }

    /// Sends what lies between the cursor and `limit`, or the head. Pages of `superseded`
    /// topics are left out: a newer reply follows.
    pub(super) async fn walk(
        &mut self,
        limit: Option<&Place>,
        superseded: &[Arc<str>],
    ) -> Result<Walk, End> {
        'walk: loop {
            if !self.may_go_on() {
                return Ok(Walk::Stuck);
            }
            let Some(seq) = self.seq else {
                match self.walk_on_bus(limit).await? {
                    Some(walk) => return Ok(walk),
                    None => continue,
                }
            };
            let until = limit.map_or(u64::MAX, |place| place.seq);
            if seq > until {
                return Ok(Walk::Beyond);
            }
            let Some(frames) = self.gateway.ring.read(seq, until, WRITE_BYTES) else {
                self.fall_out();
                continue;
            };
            if frames.is_empty() {
                return Ok(Walk::There);
            }
            let next = seq + frames.len() as u64;
            if self.is_behind(&frames, next, until) {
                self.skim(seq, until, superseded).await?;
                continue;
            }
            for (frame, at) in frames.iter().zip(seq..) {
                self.seq = Some(at);
                if !self.can_judge(frame) {
                    continue 'walk;
                }
                self.push(frame, superseded).await?;
            }
            self.seq = Some(next);
            self.wire.flush().await?;
            // A long replay may take its core for seconds, the more so if it is compressed.
            tokio::task::yield_now().await;
        }
    }

    /// One stretch from the bus, until the ring has what follows; `None` to go on.
    async fn walk_on_bus(&mut self, limit: Option<&Place>) -> Result<Option<Walk>, End> {
        match self.gateway.ring.seek(&self.cursor) {
            Seek::At(place) => {
                self.seq = Some(place.seq);
                self.behind = None;
                self.cursor = place.position;
                return Ok(None);
            }
            Seek::Mismatch => return self.lost(ResetReason::Mismatch).await.map(Some),
            Seek::Epoch | Seek::Ahead => return self.ask_the_bus().await.map(Some),
            Seek::Behind => {}
        }
        let end = limit.map_or(u64::MAX, |place| place.position.offset);
        match self.cursor.offset.cmp(&end) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(Walk::There)),
            Ordering::Greater => return Ok(Some(Walk::Beyond)),
        }
        if self.clocks.retry.is_some() {
            return Ok(Some(Walk::Stuck));
        }
        match self.gateway.backlog.after(self.cursor.clone()).await {
            Ok(frames) => {
                let frames = frames.iter().map(AsRef::as_ref);
                let frames = frames.filter(|frame: &&Frame| frame.position.offset <= end);
                match self.mode {
                    Mode::Every => {
                        for frame in frames {
                            if !self.can_judge(frame) {
                                break;
                            }
                            self.push(frame, &[]).await?;
                        }
                    }
                    Mode::Latest => self.condense(frames).await?,
                }
                self.wire.flush().await?;
                tokio::task::yield_now().await;
                Ok(None)
            }
            Err(Missing::Reset(reason)) => self.lost(reason).await.map(Some),
            Err(Missing::Later) => {
                self.clocks.retry = Some(Instant::now() + RETRY);
                Ok(Some(Walk::Stuck))
            }
        }
    }

    /// The ring does not know the cursor. Perhaps another gateway has seen more than this one yet.
    async fn ask_the_bus(&mut self) -> Result<Walk, End> {
        if self.clocks.retry.is_some() {
            return Ok(Walk::Stuck);
        }
        match self.gateway.backlog.place(self.cursor.clone()).await {
            Missing::Reset(reason) => self.lost(reason).await,
            Missing::Later => {
                self.clocks.retry = Some(Instant::now() + RETRY);
                Ok(Walk::Stuck)
            }
        }
    }

    /// Writes one frame if this session wants it, and moves the cursor past it.
    async fn push(&mut self, frame: &Frame, superseded: &[Arc<str>]) -> Result<(), End> {
        self.cursor = frame.position.clone();
        match self.shown(frame, superseded).await {
            Some((_, text)) => self.feed(&text).await,
            None => Ok(()),
        }
    }

    /// Writes the text of a frame.
    pub(super) async fn feed(&mut self, text: &Encoded) -> Result<(), End> {
        self.gateway.metrics.pushes_sent.inc();
        self.wire.stand(&self.cursor);
        self.wire.feed(text).await
    }

    /// The form in which this session gets the next frame, and its text; `None` where it does not.
    pub(super) async fn shown(
        &mut self,
        frame: &Frame,
        superseded: &[Arc<str>],
    ) -> Option<(Verdict, Encoded)> {
        let form = match self.wants(frame, superseded) {
            true => self.interests.form(frame),
            false => None,
        };
        if frame.is_reload() {
            // What follows is of the table as it is now.
            self.interests.refresh(&self.gateway, &frame.topic).await;
        }
        form
    }

    fn wants(&self, frame: &Frame, superseded: &[Arc<str>]) -> bool {
        let fresh = match &frame.kind {
            FrameKind::Event { .. } => true,
            // A fresh page follows a replay, so those of the past are of no use.
            FrameKind::Page(horizon) => {
                !self.replaying
                    && !superseded.contains(&frame.topic)
                    && !self.seen.covers(&frame.topic, horizon.as_ref())
            }
        };
        fresh && !self.silent
    }

    /// Goes on at the head, and tells the client that it must query again.
    async fn lost(&mut self, reason: ResetReason) -> Result<Walk, End> {
        let reason = match reason {
            ResetReason::Trimmed if !self.replaying => ResetReason::Lagged,
            reason => reason,
        };
        let head = self.gateway.ring.head();
        self.seq = Some(head.seq);
        self.behind = None;
        self.cursor = head.position;
        self.replaying = false;
        self.missed_pages = false;
        self.confines.stopped_at = None;
        // Of another history nobody has seen anything.
        self.seen = Seen::default();
        // A reload may have been among what is lost.
        self.interests.refresh_all(&self.gateway).await;
        if !self.silent {
            self.gateway.metrics.reset(reason.as_str());
            let frame = protocol::reset(reason, &self.cursor, RESET_AFTER_MS);
            self.wire.stand(&self.cursor);
            self.wire.send(frame).await?;
        }
        Ok(Walk::Beyond)
    }
}

impl Ask {
    /// A client's query.
    pub(super) fn new(topic: Arc<Topic>, rid: Option<Rid>, select: Select) -> Self {
        Self {
            topic,
            rid,
            select,
            fresh_page: false,
            tries: 0,
            changes: 0,
            restarts: 0,
        }
    }

    /// Whether the reply is what a page topic pushes, so that an older push is not sent after it.
    pub(super) fn wants_page(&self) -> bool {
        self.select == Select::Page(Params::default())
    }
}
