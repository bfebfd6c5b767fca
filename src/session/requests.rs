//! What a client says to its session, and the answers that need no query.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{
    Ask, End, NO_SUCH_TOPICS, Session, filters::TOO_MANY_TOPICS, interests::Interests,
    rights::Introduced,
};
use crate::protocol::{
    self, CloseReason, ErrorCode, Failure, Hello, Interest, Request, Rid, Select,
};

/// Malformed frames within [`STRIKE_WINDOW`] that a session puts up with.
const MAX_STRIKES: usize = 10;

/// How long a malformed frame is remembered.
const STRIKE_WINDOW: Duration = Duration::from_secs(60);

/// When a client has lately sent what could not be understood.
#[derive(Default)]
pub(super) struct Strikes(VecDeque<Instant>);

impl Session {
    pub(super) async fn request(&mut self, text: &str) -> Result<(), End> {
        let config = &self.gateway.config;
        let request = Request::parse(text, &config.json);
        if let Err(wait) = self.messages.take(config.messages, Instant::now()) {
            return self.too_often(request, wait).await;
        }
        match request {
            // Who has not said who he is learns nothing, not even which topics there are.
            Ok(
                Request::Query { rid, .. }
                | Request::Subscribe(rid, _)
                | Request::Unsubscribe(rid, _),
            ) if self.rights.owes_token => {
                self.fail(Failure::from(ErrorCode::TokenMissing).to(rid))
                    .await
            }
            Ok(Request::Query { topic, rid, select }) => self.query(&topic, rid, select).await,
            Ok(Request::Hello(hello)) => self.hello(hello).await,
            Ok(Request::Subscribe(rid, types)) => self.subscribe(rid, types).await,
            Ok(Request::Unsubscribe(rid, types)) => self.unsubscribe(rid, &types).await,
            Ok(Request::Auth(rid, token)) => self.renewed(rid, token).await,
            Ok(Request::Ping(rid)) => self.wire.send(protocol::pong(rid.as_ref())).await,
            Err(failure) => self.misread(failure).await,
        }
    }

    /// Answers what came before its time; it is told when it may come.
    async fn too_often(
        &mut self,
        request: Result<Request, Failure>,
        wait: Duration,
    ) -> Result<(), End> {
        let rid = match request {
            Err(failure) if failure.code.is_malformed() => return self.misread(failure).await,
            Err(failure) => failure.rid,
            Ok(request) => request.rid().cloned(),
        };
        self.gateway.metrics.limited("messages");
        self.fail(later(wait).to(rid)).await
    }

    /// Answers what is no request.
    async fn misread(&mut self, failure: Failure) -> Result<(), End> {
        if failure.code.is_malformed() {
            self.strike()?;
        }
        if failure.code.is_limit() {
            self.gateway.metrics.limited("json");
        }
        self.fail(failure).await
    }

    /// Answers a request with an error.
    pub(super) async fn fail(&mut self, failure: Failure) -> Result<(), End> {
        self.gateway.metrics.error(failure.code.slug());
        let frame = protocol::error(&failure, self.gateway.config.language);
        self.wire.send(frame).await
    }

    /// Counts a malformed frame; one too many ends the session.
    fn strike(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let Strikes(strikes) = &mut **self.strikes.get_or_insert_default();
        strikes.push_back(now);
        while strikes.front().is_some_and(|at| now - *at > STRIKE_WINDOW) {
            strikes.pop_front();
        }
        match strikes.len() > MAX_STRIKES {
            true => Err(End::Close(CloseReason::Malformed)),
            false => Ok(()),
        }
    }

    async fn query(&mut self, name: &str, rid: Option<Rid>, select: Select) -> Result<(), End> {
        let Some(topic) = self.gateway.topic(name, &self.identity) else {
            return self
                .fail(Failure::from(ErrorCode::UnknownType).to(rid))
                .await;
        };
        if topic.view.is_none() {
            let failure = Failure::param("type: this topic carries events only");
            return self.fail(failure.to(rid)).await;
        }
        if self.silent {
            // What changes between the reply and the hello would be neither in the one nor after
            // the other.
            return self
                .fail(Failure::param("sys:hello: first, with hello=1").to(rid))
                .await;
        }
        // What is read and waits for its place still counts as running.
        let config = &self.gateway.config;
        let free = config
            .queries_running
            .saturating_sub(self.asks.running() + self.asks.held().len());
        // Fresh pages after a replay are not the client's.
        let queued = self.asks.queued().filter(|ask| !ask.fresh_page).count();
        if queued >= config.queries_queued + free {
            return self
                .fail(self.gateway.queries.refuse("queries").to(rid))
                .await;
        }
        self.asks.work().queued.push_back(Ask {
            changes: self.confines.changes,
            ..Ask::new(topic, rid, select)
        });
        Ok(())
    }

    async fn hello(&mut self, hello: Hello) -> Result<(), End> {
        if self.greeted {
            return self
                .fail(Failure::param("sys:hello: only once").to(hello.rid))
                .await;
        }
        if hello.since.is_some() && !self.silent {
            // What was already pushed cannot be taken back.
            let failure = Failure::param("since: in the URL, or on a socket with hello=1");
            return self.fail(failure.to(hello.rid)).await;
        }
        // Nobody was, or nobody in particular.
        let was_unknown = self.silent && self.identity.is_anonymous();
        if self.introduced(hello.rid.as_ref(), hello.token).await? == Introduced::No {
            return Ok(());
        }
        let exists = |name: &str| self.gateway.topic(name, &self.identity).is_some();
        if let Some(types) = hello.types {
            let none = Interests::default();
            match self.gateway.named(types, &none, &self.identity).await {
                Ok(named) => self.interests.choose(named),
                Err(failure) => return self.fail(failure.to(hello.rid)).await,
            }
        } else if was_unknown && self.interests.names_others(exists) {
            // The URL's were not looked up while nobody knew for whom.
            let failure = Failure::param(NO_SUCH_TOPICS);
            return self.fail(failure.to(hello.rid)).await;
        }
        self.mode = hello.mode.unwrap_or(self.mode);
        self.greeted = true;
        self.clocks.hello = None;
        let config = &self.gateway.config;
        let clocks = (millis(config.ping_interval), millis(config.tick_interval));
        self.clocks.tick = Some(Instant::now() + config.tick_interval);
        let head = self.gateway.ring.head();
        if self.silent {
            self.silent = false;
            self.seq = Some(head.seq);
            self.cursor = head.position.clone();
        }
        let (mut recovered, mut replay) = (false, 0);
        if let Some(since) = hello.since {
            recovered = self.recoverable(&since).await;
            if recovered {
                replay = head.position.offset.saturating_sub(since.offset);
            }
            self.resume_from(since);
        }
        // Not the head: what lies before it may still be to be sent, and a client that is cut off
        // now would miss it for ever.
        let cursor = &self.cursor;
        let topics = hello.topics.then(|| self.gateway.topics_of(&self.identity));
        let rid = hello.rid.as_ref();
        let topics = topics.as_ref();
        let frame = protocol::welcome(rid, cursor, recovered, replay, clocks, topics);
        self.wire.send(frame).await
    }

    async fn subscribe(&mut self, rid: Option<Rid>, types: Vec<Interest>) -> Result<(), End> {
        // The cursor stands still meanwhile: what follows it is judged by the new set.
        match self
            .gateway
            .named(types, &self.interests, &self.identity)
            .await
        {
            Ok(named) => self.interests.add(named),
            Err(failure) => return self.fail(failure.to(rid)).await,
        }
        self.wire
            .send(protocol::ok(rid.as_ref(), &self.cursor))
            .await
    }

    async fn unsubscribe(&mut self, rid: Option<Rid>, types: &[String]) -> Result<(), End> {
        if types.len() > self.gateway.config.max_topics {
            self.gateway.metrics.limited("topics");
            return self.fail(Failure::param(TOO_MANY_TOPICS).to(rid)).await;
        }
        self.interests.remove(types, &self.gateway.topics);
        self.wire
            .send(protocol::ok(rid.as_ref(), &self.cursor))
            .await
    }
}

/// A refusal that says when to ask again.
pub(super) fn later(wait: Duration) -> Failure {
    // A wait that is rounded down would be one too short.
    let wait = u32::try_from(wait.as_millis() + 1).unwrap_or(u32::MAX);
    Failure {
        retry_after_ms: Some(wait),
        ..ErrorCode::TooManyRequests.into()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
