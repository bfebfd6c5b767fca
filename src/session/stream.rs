//! The session's way along the stream: from the ring, or from the bus where the ring has moved
//! on; and the places of its replies in it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Ask, End, Held, MAX_TRIES, SETTLE, Session};
use crate::{
    clock::now_ms,
    fanout::Missing,
    position::{Checkpoint, Position},
    protocol::{self, Params, ResetReason, Select},
    ring::{Cut, Frame, FrameKind, Place, Seek},
    topic::Push,
};

/// Bytes of frames that are written before the socket is flushed.
const WRITE_BYTES: usize = 64 * 1024;

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
    /// The bus cannot be read now.
    Stuck,
}

/// Where a held reply goes.
enum Placed {
    At(Place),
    Anywhere,
    Wait,
    Again,
}

impl Session {
    /// Goes on along the stream as far as possible, and sends the replies whose place is reached.
    pub(super) async fn advance(&mut self) -> Result<(), End> {
        loop {
            // While a reply waits for its place no new query starts, or it might never get one.
            if self.held.is_empty() {
                self.start_queries();
            }
            if !self.running.is_empty() {
                // Hold: what a running query will see is not known yet.
                return self.wire.flush().await;
            }
            if !self.held.is_empty() {
                if self.release().await? {
                    continue;
                }
                return self.wire.flush().await;
            }
            if self.walk(None, &[]).await? == Walk::There && self.replaying {
                self.caught_up().await?;
                continue;
            }
            return self.wire.flush().await;
        }
    }

    fn start_queries(&mut self) {
        while self.running.len() < self.gateway.config.queries_running.max(1) {
            let Some(ask) = self.queued.pop_front() else {
                return;
            };
            let queries = self.gateway.queries.clone();
            self.running.push(Box::pin(async move {
                let found = queries
                    .snapshot(ask.topic.clone(), ask.select.clone())
                    .await;
                (ask, found)
            }));
        }
    }

    /// A query was read: an error goes out at once, rows wait for their place.
    pub(super) async fn answered(&mut self, (ask, found): super::Answer) -> Result<(), End> {
        match found {
            Ok(snapshot) => {
                self.held.push(Held {
                    ask,
                    snapshot,
                    until: Instant::now() + SETTLE,
                });
                Ok(())
            }
            // The client did not ask for a fresh page; the next change brings one.
            Err(_) if ask.fresh_page => Ok(()),
            Err(failure) => self.fail(failure.to(ask.rid)).await,
        }
    }

    /// Sends the held replies in the order of their places; returns whether it could.
    async fn release(&mut self) -> Result<bool, End> {
        let now = Instant::now();
        let mut places = Vec::new();
        for held in &self.held {
            match self.place(held, now) {
                Placed::Wait => return Ok(false),
                placed => places.push(placed),
            }
        }
        let mut replies: Vec<(Placed, Held)> =
            places.into_iter().zip(self.held.drain(..)).collect();
        // Those without a place of their own go first, where the cursor stands.
        replies.sort_by_key(|(placed, _)| match placed {
            Placed::At(place) => place.seq,
            _ => 0,
        });
        let pages = replies.iter().filter(|(_, held)| held.ask.wants_page());
        let superseded: Vec<Arc<str>> =
            pages.map(|(_, held)| held.ask.topic.name.clone()).collect();
        for (placed, held) in replies {
            match placed {
                Placed::Anywhere => self.reply(held, false).await?,
                Placed::Again | Placed::Wait => self.ask_again(held.ask),
                Placed::At(place) => match self.walk(Some(&place), &superseded).await? {
                    Walk::There => self.reply(held, true).await?,
                    // The client was told to reset on the way, which does not happen for ever.
                    Walk::Beyond if held.ask.tries < MAX_TRIES => self.ask_again(held.ask),
                    Walk::Beyond => self.reply(held, false).await?,
                    Walk::Stuck if held.until > now => self.held.push(held),
                    Walk::Stuck => self.reply(held, false).await?,
                },
            }
        }
        Ok(self.held.is_empty())
    }

    fn place(&self, held: &Held, now: Instant) -> Placed {
        let Some(horizon) = &held.snapshot.horizon else {
            return Placed::Anywhere;
        };
        match self.gateway.ring.cut(horizon) {
            Cut::At(place) => Placed::At(place),
            Cut::Wait if held.until > now => Placed::Wait,
            Cut::Fallen if held.ask.tries < MAX_TRIES => Placed::Again,
            Cut::Wait | Cut::Fallen => Placed::Anywhere,
        }
    }

    fn ask_again(&mut self, ask: Ask) {
        self.queued.push_front(Ask {
            tries: ask.tries.saturating_add(1),
            ..ask
        });
    }

    async fn reply(&mut self, held: Held, exact: bool) -> Result<(), End> {
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
                (exact, parts),
            ),
        };
        if let Some(horizon) = snapshot.horizon.filter(|_| ask.wants_page()) {
            self.seen.insert(name.clone(), horizon);
        }
        for frame in frames {
            self.wire.send(frame).await?;
        }
        Ok(())
    }

    /// Sends what lies between the cursor and `limit`, or the head. Pages of `superseded`
    /// topics are left out: a newer reply follows.
    async fn walk(&mut self, limit: Option<&Place>, superseded: &[Arc<str>]) -> Result<Walk, End> {
        loop {
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
                self.seq = None;
                continue;
            };
            if frames.is_empty() {
                return Ok(Walk::There);
            }
            for frame in &frames {
                self.push(frame, superseded).await?;
            }
            self.seq = Some(seq + frames.len() as u64);
            self.wire.flush().await?;
        }
    }

    /// One stretch from the bus, until the ring has what follows; `None` to go on.
    async fn walk_on_bus(&mut self, limit: Option<&Place>) -> Result<Option<Walk>, End> {
        match self.gateway.ring.seek(&self.cursor) {
            Seek::At(place) => {
                self.seq = Some(place.seq);
                return Ok(None);
            }
            Seek::Epoch => return self.lost(ResetReason::Epoch).await.map(Some),
            Seek::Ahead => return self.lost(ResetReason::Ahead).await.map(Some),
            Seek::Behind => {}
        }
        let end = limit.map_or(u64::MAX, |place| place.position.offset);
        if self.cursor.offset >= end {
            return Ok(Some(Walk::There));
        }
        if self.clocks.retry.is_some() {
            return Ok(Some(Walk::Stuck));
        }
        match self.gateway.backlog.after(self.cursor.clone()).await {
            Ok(frames) => {
                for frame in frames.iter().filter(|frame| frame.position.offset <= end) {
                    self.push(frame, &[]).await?;
                }
                self.wire.flush().await?;
                Ok(None)
            }
            Err(Missing::Reset(reason)) => self.lost(reason).await.map(Some),
            Err(Missing::Later) => {
                self.clocks.retry = Some(Instant::now() + RETRY);
                Ok(Some(Walk::Stuck))
            }
        }
    }

    /// Writes one frame if this session wants it, and moves the cursor past it.
    async fn push(&mut self, frame: &Frame, superseded: &[Arc<str>]) -> Result<(), End> {
        self.cursor = frame.position.clone();
        let Some(text) = frame
            .text
            .as_ref()
            .filter(|_| self.wants(frame, superseded))
        else {
            return Ok(());
        };
        self.gateway.metrics.pushes_sent.inc();
        self.wire.feed(text).await
    }

    fn wants(&self, frame: &Frame, superseded: &[Arc<str>]) -> bool {
        let chosen = self
            .types
            .as_ref()
            .is_none_or(|types| types.contains(&frame.topic));
        let fresh = match &frame.kind {
            FrameKind::Event(_) => true,
            // A fresh page follows a replay, so those of the past are of no use.
            FrameKind::Page(horizon) => {
                !self.replaying
                    && !superseded.contains(&frame.topic)
                    && !self.has_seen(&frame.topic, horizon.as_ref())
            }
        };
        chosen && fresh && !self.silent
    }

    /// Whether a reply was sent that saw at least as much as a page.
    fn has_seen(&self, topic: &Arc<str>, page: Option<&Checkpoint>) -> bool {
        match (self.seen.get(topic), page) {
            (Some(seen), Some(page)) => seen.covers(page),
            _ => false,
        }
    }

    /// Sets the cursor to where the client left off; what came after is sent by [`Self::walk`].
    pub(super) fn resume_from(&mut self, since: Position) {
        self.seq = None;
        self.cursor = since;
        self.replaying = true;
    }

    /// Goes on at the head, and tells the client that it must query again.
    async fn lost(&mut self, reason: ResetReason) -> Result<Walk, End> {
        let reason = match reason {
            ResetReason::Trimmed if !self.replaying => ResetReason::Lagged,
            reason => reason,
        };
        let head = self.gateway.ring.head();
        self.seq = Some(head.seq);
        self.cursor = head.position;
        self.replaying = false;
        if !self.silent {
            self.gateway.metrics.reset(reason.as_str());
            let frame = protocol::reset(reason, &self.cursor, RESET_AFTER_MS);
            self.wire.send(frame).await?;
        }
        Ok(Walk::Beyond)
    }

    /// Whether everything after `since` can be had.
    pub(super) async fn recoverable(&mut self, since: &Position) -> bool {
        match self.gateway.ring.seek(since) {
            Seek::At(_) => true,
            Seek::Epoch | Seek::Ahead => false,
            Seek::Behind => {
                let found = self.gateway.backlog.after(since.clone()).await;
                !matches!(found, Err(Missing::Reset(_)))
            }
        }
    }

    /// The replay is over: says so, and has a fresh page of every page topic read.
    async fn caught_up(&mut self) -> Result<(), End> {
        self.replaying = false;
        self.wire.send(protocol::caught_up(&self.cursor)).await?;
        let topics = self.gateway.topics.clone();
        for topic in topics.iter().filter(|topic| topic.push == Push::Page) {
            if self
                .types
                .as_ref()
                .is_none_or(|types| types.contains(&topic.name))
            {
                self.queued.push_back(Ask {
                    topic: topic.clone(),
                    rid: None,
                    select: Select::Page(Params::default()),
                    fresh_page: true,
                    tries: 0,
                });
            }
        }
        Ok(())
    }
}

impl Ask {
    /// Whether the reply is what a page topic pushes, so that an older push is not sent after it.
    fn wants_page(&self) -> bool {
        self.select == Select::Page(Params::default())
    }
}
