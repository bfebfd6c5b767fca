//! The session's way along the stream: from the ring, or from the bus where the ring has moved
//! on; and the places of its replies in it.

use std::{cmp::Ordering, sync::Arc};

use tokio::time::Instant;

use super::{
    Ask, End, Held, MAX_TRIES, SETTLE, Session, inexact::Inexact, reads::pause, seen::Seen,
    wire::WRITE_BYTES,
};
use crate::{
    clock::now_ms,
    fanout::Missing,
    predicate::Verdict,
    protocol::{self, Encoded, Mode, Params, ResetReason, Rid, Select},
    ring::{Cut, Frame, FrameKind, Place, Seek},
    sabotage::{self, Fault},
    topic::Topic,
};

/// Bytes of rows in one part of an `all` reply.
const PART_BYTES: usize = 48 * 1024;

/// The wait before the bus is asked again.
const RETRY: std::time::Duration = std::time::Duration::from_millis(200);

/// A random wait that clients take before they query again, so that not all do at once.
const RESET_AFTER_MS: [u32; 2] = [0, 3000];

/// How a walk along the stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// At the place asked for, or at the head.
    There,
    /// Beyond the place, because the client had to be told to reset on the way.
    Beyond,
    /// The bus cannot be read now, or what comes next cannot be judged.
    Stuck,
}

/// Where a held reply goes.
enum Placed {
    At(Place),
    Anywhere(Inexact),
    Wait,
    Again,
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
            self.asks.work().running.push(Box::pin(async move {
                if ask.tries > 0 {
                    tokio::time::sleep(pause(ask.tries)).await;
                }
                let found = queries
                    .snapshot(ask.topic.clone(), ask.select.clone())
                    .await;
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
                self.gateway.pages.touch(&ask.topic.name, None);
                Ok(())
            }
            Err(failure) => self.fail(failure.to(ask.rid)).await,
        }
    }

    /// Sends the held replies in the order of their places; returns whether it could.
    async fn release(&mut self) -> Result<bool, End> {
        let now = Instant::now();
        let mut places = Vec::new();
        for held in self.asks.held() {
            match self.place(held, now) {
                Placed::Wait => return Ok(false),
                placed => places.push(placed),
            }
        }
        let held = self.asks.work().held.drain(..);
        let mut replies: Vec<(Placed, Held)> = places.into_iter().zip(held).collect();
        // Those without a place of their own go first, where the cursor stands.
        replies.sort_by_key(|(placed, _)| match placed {
            Placed::At(place) => place.seq,
            _ => 0,
        });
        // Not those of a reply that goes before them, or may never come.
        let pages = replies
            .iter()
            .filter(|(placed, held)| matches!(placed, Placed::At(_)) && held.ask.wants_page());
        let superseded: Vec<Arc<str>> =
            pages.map(|(_, held)| held.ask.topic.name.clone()).collect();
        for (placed, held) in replies {
            match placed {
                Placed::Anywhere(why) => self.reply(held, Err(why)).await?,
                Placed::Again | Placed::Wait => self.ask_again(held.ask),
                // Sabotage: what the read had seen follows it.
                Placed::At(_) if sabotage::active(Fault::ReplyBeforePosition) => {
                    self.reply(held, Ok(())).await?;
                }
                Placed::At(place) => match self.walk(Some(&place), &superseded).await? {
                    Walk::There => self.reply(held, Ok(())).await?,
                    // The client was told to reset on the way, which does not happen for ever.
                    Walk::Beyond if held.ask.tries < MAX_TRIES => self.ask_again(held.ask),
                    Walk::Beyond => self.reply(held, Err(Inexact::Unseen)).await?,
                    Walk::Stuck if held.until > now => self.asks.work().held.push(held),
                    Walk::Stuck => self.reply(held, Err(Inexact::Late)).await?,
                },
            }
        }
        Ok(self.asks.held().is_empty())
    }

    fn place(&self, held: &Held, now: Instant) -> Placed {
        let Some(horizon) = &held.snapshot.horizon else {
            return Placed::Anywhere(Inexact::Unknown);
        };
        let (topic, settled) = (&held.ask.topic.name, held.snapshot.settled.as_ref());
        let ring = &self.gateway.ring;
        let cut = match ring.cut(topic, horizon, settled) {
            // What came before the ring began again is not known to have been seen.
            Cut::At(_) if ring.restarts() != held.ask.restarts => Cut::Fallen,
            cut => cut,
        };
        match cut {
            Cut::At(place) => Placed::At(place),
            Cut::Wait if held.until > now => Placed::Wait,
            Cut::Fallen if held.ask.tries < MAX_TRIES => Placed::Again,
            Cut::Wait => Placed::Anywhere(Inexact::Late),
            Cut::Fallen => Placed::Anywhere(Inexact::Unseen),
            Cut::Unknown => Placed::Anywhere(Inexact::Unknown),
        }
    }

    fn ask_again(&mut self, ask: Ask) {
        self.asks.work().queued.push_front(Ask {
            tries: ask.tries.saturating_add(1),
            ..ask
        });
    }

    async fn reply(&mut self, held: Held, exact: Result<(), Inexact>) -> Result<(), End> {
        let (ask, snapshot) = (held.ask, held.snapshot);
        let parts = matches!(ask.select, Select::All(_)).then_some(PART_BYTES);
        let name = &ask.topic.name;
        let frames = match (&snapshot.page, ask.fresh_page) {
            (Some(page), true) => {
                vec![protocol::page_push(
                    name,
                    &snapshot.rows,
                    page,
                    &self.cursor,
                    now_ms(),
                )]
            }
            (page, _) => protocol::reply(
                name,
                ask.rid.as_ref(),
                &snapshot.rows,
                page.as_ref(),
                Some(&self.cursor),
                (exact.is_ok(), parts),
            ),
        };
        if let (Err(why), false) = (exact, ask.fresh_page) {
            self.gateway.metrics.inexact(why.as_str());
        }
        if let Some(horizon) = snapshot.horizon.as_ref().filter(|_| ask.wants_page()) {
            self.seen.insert(name.clone(), horizon.clone());
        }
        self.wire.stand(&self.cursor);
        for frame in frames {
            if sabotage::active(Fault::ReplyToGroup) {
                let text = frame.clone();
                self.gateway.ring.append_page(name.clone(), None, |_| text);
            }
            self.wire.send(frame).await?;
        }
        Ok(())
    }

    /// Sends what lies between the cursor and `limit`, or the head. Pages of `superseded`
    /// topics are left out: a newer reply follows.
    async fn walk(&mut self, limit: Option<&Place>, superseded: &[Arc<str>]) -> Result<Walk, End> {
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
    fn wants_page(&self) -> bool {
        self.select == Select::Page(Params::default())
    }
}
