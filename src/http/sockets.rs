//! The two WebSocket paths: what a URL may ask for, and who is let in.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{Extensions, header},
    response::{IntoResponse, Response},
};

use futures_util::future::BoxFuture;

use super::{
    Edge,
    headers::{Asked, Headers},
    upgrade::{Answer, Handshake, NoHandshake, compression, offers},
    who::{TOKEN, Whence},
};
use crate::{
    auth::{Admission, Presented, Refused},
    callers::{Crowded, Share},
    identity::Identity,
    protocol::{CloseReason, ErrorCode, Failure, Mode},
    session::{self, CONNECTIONS, NO_SUCH_TOPICS, Opening, Socket, deflate::Agreed},
    topic::is_topic_name,
};

/// The path of the group.
pub const ALL: &str = "/socket/all/";

/// The path of the tutorial's echo.
pub const ECHO: &str = "/chat/socket/";

/// Whether it is the path of one of them.
pub fn is_path(path: &str) -> bool {
    matches!(path, ALL | ECHO)
}

/// The subprotocol that means `hello=1`.
const SUBPROTOCOL: &str = "rowcast";

/// What becomes of a connection once its handshake is answered.
#[derive(Debug)]
pub struct Next {
    /// What was agreed on about compression.
    agreed: Option<Agreed>,
    as_what: As,
}

#[derive(Debug)]
enum As {
    /// A session of the group.
    Session(Opening),
    /// The tutorial's echo, for somebody.
    Echo(Identity, Share),
    /// It is told that its page may not connect, which a browser cannot read from a refused
    /// handshake.
    Foreign,
    /// It is told that it may not connect as who it is, or is not.
    TurnedAway(Refused),
    /// It is told that whoever it is has all the connections that he may have.
    Crowded,
}

impl Next {
    /// What serves the socket from here on, until it is closed.
    pub fn service(self, edge: Arc<Edge>, socket: Socket) -> BoxFuture<'static, ()> {
        let socket = socket.compressed(self.agreed);
        let refused = |socket, edge: Arc<Edge>, reason| -> BoxFuture<'static, ()> {
            Box::pin(async move { session::refuse(socket, &edge.gateway, reason).await })
        };
        match self.as_what {
            As::Session(opening) => session::join(socket, edge.gateway.clone(), opening)
                .unwrap_or_else(|socket| refused(socket, edge, CloseReason::Overloaded)),
            As::Echo(identity, share) => match edge.echoes.join() {
                Some(membership) => Box::pin(async move {
                    let _places = (membership, share);
                    session::echo(socket, &edge.gateway, &identity).await;
                }),
                None => refused(socket, edge, CloseReason::Overloaded),
            },
            As::Foreign => refused(socket, edge, CloseReason::Forbidden),
            As::TurnedAway(why) => {
                edge.gateway.metrics.auth.refused(why.reason());
                refused(socket, edge, why.close())
            }
            As::Crowded => refused(socket, edge, CloseReason::TooManyConnections),
        }
    }
}

/// `GET` of either path that did not get [`Edge::upgrade`]d: why.
pub async fn refused(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    match edge.upgrade(&Asked::from(&request)) {
        Err(NotUpgraded::NotAsked) => edge.no_upgrade(),
        Err(NotUpgraded::Wrong(failure)) => edge.refuse(failure).into_response(),
        Err(NotUpgraded::TurnedAway(why)) => edge.turn_away(why),
        Err(NotUpgraded::Crowded) => edge.refuse(edge.crowded()).into_response(),
        // A connection asks, and waits, before it comes here.
        Ok(_) | Err(NotUpgraded::Later(_)) => edge.refuse(ErrorCode::Internal).into_response(),
    }
}

/// Why a request to one of the paths gets no socket.
#[derive(Debug)]
pub enum NotUpgraded {
    /// It asked for none that there is.
    NotAsked,
    /// What it asked for is wrong.
    Wrong(Failure),
    /// Whoever asks may not connect, and can read why.
    TurnedAway(Refused),
    /// Whoever asks has all the connections that he may have, and can read that. It belongs into the request's
    /// extensions, so that whoever asks again for it learns the same.
    Crowded,
    /// Who asks cannot be said at once. What [`Auth::judge`](crate::auth::Auth::judge) says of it belongs
    /// into the request's extensions, and then it can be asked again.
    Later(Box<Presented>),
}

impl Edge {
    /// Answers the handshake of a request to one of the paths, and says what comes then.
    ///
    /// # Errors
    /// Why there will be no socket; nothing was counted or answered yet.
    pub(super) fn upgrade(
        &self,
        asked: &Asked<'_, impl Headers>,
    ) -> Result<(Answer, Next), NotUpgraded> {
        let headers = asked.headers;
        let handshake = Handshake::read(asked.method, asked.version, headers);
        let handshake = handshake.map_err(|why| match why {
            NoHandshake::NotAsked => NotUpgraded::NotAsked,
            NoHandshake::Malformed(rule) => NotUpgraded::Wrong(Failure::param(rule)),
        })?;
        let agreed = match self.gateway.config.compression {
            true => compression(headers),
            false => None,
        };
        let opened = |as_what, subprotocol| {
            let answer = handshake.answer(subprotocol, agreed);
            Ok((answer, Next { agreed, as_what }))
        };
        let subprotocol = offers(headers, SUBPROTOCOL).then_some(SUBPROTOCOL);
        let is_echo = asked.uri.path() == ECHO;
        if !self.admits(headers, asked.extensions) {
            return opened(As::Foreign, subprotocol);
        }
        let admission = self.admission(asked)?;
        // The tutorial prints the token, which is never written down here.
        let token = headers.first(TOKEN).map_or("none", |_| "***");
        tracing::debug!(token, "a socket opens");
        if is_echo {
            let as_what = match admission {
                Ok(identity) => match self.share(asked, &identity) {
                    Ok(share) => As::Echo(identity, share),
                    Err(Crowded) => told(headers, As::Crowded, NotUpgraded::Crowded)?,
                },
                Err(why) => turned_away(headers, why)?,
            };
            // A browser that brings a token so hangs up where none of the names is answered.
            return opened(as_what, subprotocol);
        }
        let query = asked.uri.query().unwrap_or("");
        // Who may yet say who he is may see other topics then.
        let says_hello = subprotocol.is_some() || says_hello(query);
        let says_later = |identity: &Identity| {
            says_hello && identity.is_anonymous() && self.gateway.auth.judges()
        };
        let known = admission.clone().ok();
        let opening = self.opening(query, known.filter(|identity| !says_later(identity)));
        let opening = opening.map(|opening| Opening {
            hello_first: opening.hello_first || subprotocol.is_some(),
            from: asked.from.map(|Whence(from)| from),
            ..opening
        });
        let as_what = match (admission, opening) {
            (Ok(identity), Ok(opening)) => match self.share(asked, &identity) {
                Ok(share) => As::Session(Opening { share, ..opening }),
                Err(Crowded) => told(headers, As::Crowded, NotUpgraded::Crowded)?,
            },
            (Ok(_), Err(wrong)) => return Err(NotUpgraded::Wrong(wrong)),
            (Err(Refused::Missing), Ok(opening)) if opening.hello_first => As::Session(Opening {
                owes_token: true,
                ..opening
            }),
            // Who is nobody is told nothing of what he may have got wrong.
            (Err(why), _) => turned_away(headers, why)?,
        };
        opened(as_what, subprotocol)
    }

    /// Who sends a handshake, if that can be said now or has been found out before.
    fn admission(&self, asked: &Asked<'_, impl Headers>) -> Result<Admission, NotUpgraded> {
        if let Some(admission) = asked.extensions.get::<Admission>() {
            return Ok(admission.clone());
        }
        let presented = self.presented(asked);
        let admission = self.gateway.auth.judge_now(&presented);
        admission.ok_or_else(|| NotUpgraded::Later(Box::new(presented)))
    }

    /// One of the connections that somebody may have.
    fn share<H>(&self, asked: &Asked<'_, H>, identity: &Identity) -> Result<Share, Crowded> {
        match asked.extensions.get::<Crowded>() {
            Some(crowded) => Err(*crowded),
            None => self.gateway.identities.admit(identity),
        }
    }

    /// What somebody is told who has all the connections that he may have, which is counted.
    pub(super) fn crowded(&self) -> Failure {
        self.gateway.metrics.limited(CONNECTIONS);
        session::crowded()
    }

    /// A program without an `Origin` is admitted; a browser only from an allowed one.
    pub(super) fn admits(&self, headers: &impl Headers, extensions: &Extensions) -> bool {
        self.origins.admit(headers, extensions.get().copied())
    }

    /// Tells a request that is no handshake what is needed (RFC 9110 §15.5.22).
    fn no_upgrade(&self) -> Response {
        let mut response = self.refuse(ErrorCode::UpgradeRequired).into_response();
        let needed = [
            (header::UPGRADE, "websocket"),
            (header::CONNECTION, "Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
        ];
        for (name, value) in needed {
            let value = header::HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }

    /// What a URL asks for. Whether its topics exist is not looked up for who is not known yet: he is to learn
    /// nothing of it.
    pub(super) fn opening(
        &self,
        query: &str,
        identity: Option<Identity>,
    ) -> Result<Opening, Failure> {
        let mut opening = Opening {
            head: self.gateway.ring.head(),
            types: None,
            since: None,
            hello_first: false,
            mode: Mode::Every,
            identity: identity.clone().unwrap_or_else(Identity::anonymous),
            share: Share::default(),
            owes_token: false,
            from: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "types" => opening.types = Some(self.types(&value, identity.as_ref())?),
                "since" => {
                    let since = value.parse();
                    opening.since = Some(since.map_err(|_| Failure::param("since: a cursor"))?);
                }
                "hello" => {
                    opening.hello_first = match &*value {
                        "1" => true,
                        "0" => false,
                        _ => return Err(Failure::param("hello: 0 or 1")),
                    }
                }
                "mode" => opening.mode = Mode::parse(&value)?,
                // What is not known is ignored.
                _ => {}
            }
        }
        if opening.hello_first && opening.since.is_some() {
            return Err(Failure::param("since: in the sys:hello, with hello=1"));
        }
        Ok(opening)
    }

    fn types(&self, list: &str, identity: Option<&Identity>) -> Result<Vec<Arc<str>>, Failure> {
        if list.split(',').count() > self.gateway.config.max_topics {
            self.gateway.metrics.limited("topics");
            return Err(Failure::param("types: too many for one socket"));
        }
        let names = list.split(',').map(|name| {
            let wrong = Failure::param("types: names of topics, with commas between");
            let name = Some(name).filter(|name| is_topic_name(name)).ok_or(wrong)?;
            let Some(identity) = identity else {
                return Ok(name.into());
            };
            let topic = self.gateway.topic(name, identity);
            topic
                .map(|topic| topic.name.clone())
                .ok_or(Failure::param(NO_SUCH_TOPICS))
        });
        names.collect()
    }
}

fn turned_away(headers: &impl Headers, why: Refused) -> Result<As, NotUpgraded> {
    told(headers, As::TurnedAway(why), NotUpgraded::TurnedAway(why))
}

/// How somebody is told why he may not connect: browsers cannot read a refused handshake, and get a socket that
/// is closed.
fn told(headers: &impl Headers, closed: As, answered: NotUpgraded) -> Result<As, NotUpgraded> {
    match headers.has(header::ORIGIN) {
        true => Ok(closed),
        false => Err(answered),
    }
}

/// Whether a socket with these parameters begins with a hello.
fn says_hello(query: &str) -> bool {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.any(|(name, value)| name == "hello" && value == "1")
}
