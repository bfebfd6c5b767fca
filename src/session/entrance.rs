//! How sockets, and responses of Server-Sent Events, come into the group, and what becomes of those for
//! whom there is no room.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, future::BoxFuture};

use super::{Gateway, Opening, Session, events::Events, socket::Socket, wire::Wire};
use crate::protocol::{CloseReason, ErrorCode, Failure};

/// When there may be room again in a full group, or among somebody's connections.
const FULL_RETRY_MS: u32 = 5000;

/// The limit of connections of one identity, as it is counted.
pub const CONNECTIONS: &str = "identity";

/// Takes a socket into the group; returns what serves it until it is closed, in all the memory that it needs
/// while it waits.
///
/// # Errors
/// The socket, where the group is full: [`refuse`] it.
pub fn join(
    socket: Socket,
    gateway: Arc<Gateway>,
    opening: Opening,
) -> Result<BoxFuture<'static, ()>, Socket> {
    let Some(membership) = gateway.group.join() else {
        return Err(socket);
    };
    let wire = Wire::new(socket, &gateway.config);
    let mut session = Session::new(gateway, wire, opening);
    Ok(Box::pin(async move {
        let _membership = membership;
        session.live().await;
    }))
}

/// Serves a response of Server-Sent Events until one side ends it, and returns its body.
///
/// # Errors
/// [`ErrorCode::TooManyRequests`] where there is no room for another.
pub fn stream(
    gateway: Arc<Gateway>,
    opening: Opening,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static, Failure> {
    let Some(membership) = gateway.group.join() else {
        return Err(Failure {
            retry_after_ms: Some(FULL_RETRY_MS),
            ..ErrorCode::TooManyRequests.into()
        });
    };
    let (events, body) = Events::new();
    let wire = Wire::events(events, gateway.config.write_timeout);
    let mut session = Session::new(gateway, wire, opening);
    tokio::spawn(async move {
        let _membership = membership;
        session.live().await;
    });
    Ok(body)
}

/// What somebody is told who has all the connections that he may have.
pub fn crowded() -> Failure {
    Failure {
        detail: Some("connections: too many of this identity"),
        retry_after_ms: Some(FULL_RETRY_MS),
        ..ErrorCode::TooManyRequests.into()
    }
}

/// Closes a socket that may not be served at all. A browser cannot read a refused handshake.
pub async fn refuse(socket: Socket, gateway: &Gateway, reason: CloseReason) {
    gateway.closes(reason);
    let mut wire = Wire::new(socket, &gateway.config);
    wire.close(reason).await;
}

impl Gateway {
    /// Counts a socket that is closed, and the limit that it has come to.
    pub(super) fn closes(&self, reason: CloseReason) {
        self.metrics.close(reason.code(), reason.text());
        match reason {
            CloseReason::TooBig => self.metrics.limited("message_bytes"),
            CloseReason::TooManyFragments => self.metrics.limited("fragments"),
            CloseReason::TooManyControls => self.metrics.limited("controls"),
            CloseReason::TooManyMessages => self.metrics.limited("flood"),
            CloseReason::TooManyConnections => self.metrics.limited(CONNECTIONS),
            CloseReason::Malformed => self.metrics.limited("malformed"),
            CloseReason::Overloaded => self.metrics.limited("sockets"),
            _ => {}
        }
    }
}
