//! The two WebSocket paths: what a URL may ask for, and who is let in.

use std::{collections::HashSet, sync::Arc};

use axum::{
    extract::{
        RawQuery, State,
        ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::Edge;
use crate::{
    protocol::{CloseReason, ErrorCode, Failure, Mode},
    session::{self, BUFFER_BYTES, MAX_READ_BYTES, Opening},
    topic::is_topic_name,
};

/// The subprotocol that means `hello=1`.
const SUBPROTOCOL: &str = "rowcast";

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// `GET /socket/all/`: the group.
pub async fn all(
    State(edge): State<Arc<Edge>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([SUBPROTOCOL]),
        Err(_) => return edge.no_upgrade(),
    };
    let mut opening = match edge.opening(query.as_deref().unwrap_or("")) {
        Ok(opening) => opening,
        Err(failure) => return edge.refuse(failure).into_response(),
    };
    opening.hello_first |= upgrade.selected_protocol().is_some();
    // The tutorial prints the token. It is read here too, and never written down.
    let token = headers.get("token").map_or("none", |_| "***");
    tracing::debug!(token, "a socket opens");
    let gateway = edge.gateway.clone();
    let admitted = edge.admits(&headers);
    sized(upgrade).on_upgrade(async move |socket| match admitted {
        true => session::run(socket, gateway, opening).await,
        false => session::refuse(socket, &gateway, CloseReason::Forbidden).await,
    })
}

/// `GET /chat/socket/`: the tutorial's echo.
pub async fn echo(State(edge): State<Arc<Edge>>, headers: HeaderMap, upgrade: Upgrade) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => return edge.no_upgrade(),
    };
    let admitted = edge.admits(&headers);
    sized(upgrade).on_upgrade(async move |socket| {
        let membership = edge.echoes.join();
        match (admitted, membership.is_some()) {
            (true, true) => session::echo(socket, &edge.gateway).await,
            (true, false) => session::refuse(socket, &edge.gateway, CloseReason::Overloaded).await,
            (false, _) => session::refuse(socket, &edge.gateway, CloseReason::Forbidden).await,
        }
    })
}

fn sized(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_message_size(MAX_READ_BYTES)
        .max_frame_size(MAX_READ_BYTES)
}

impl Edge {
    /// A program without an `Origin` is admitted; a browser only from an allowed one.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN);
        origin.is_none_or(|origin| self.origins.allow(origin, headers.get(header::HOST)))
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

    pub(super) fn opening(&self, query: &str) -> Result<Opening, Failure> {
        let mut opening = Opening {
            head: self.gateway.ring.head(),
            types: None,
            since: None,
            hello_first: false,
            mode: Mode::Every,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "types" => opening.types = Some(self.types(&value)?),
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

    fn types(&self, list: &str) -> Result<HashSet<Arc<str>>, Failure> {
        let names = list.split(',').map(|name| {
            let wrong = Failure::param("types: names of topics, with commas between");
            let name = Some(name).filter(|name| is_topic_name(name)).ok_or(wrong)?;
            let topic = self.gateway.topics.get(name);
            topic
                .map(|topic| topic.name.clone())
                .ok_or(Failure::param("types: topics that this server has"))
        });
        names.collect()
    }
}
