//! How sockets, and responses of Server-Sent Events, come into the group, and what becomes of those for
//! whom there is no room.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures_util::Stream;

use super::{Gateway, Opening, Session, events::Events, socket::Socket, wire::Wire};
use crate::{
    groups::Membership,
    protocol::{CloseReason, ErrorCode, Failure},
};

/// When there may be room again in a full group.
const FULL_RETRY_MS: u32 = 5000;

/// A socket of the group, ready to be served.
pub struct Live {
    session: Session,
    _membership: Membership,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// Takes a socket into the group.
///
/// # Errors
/// The socket, where the group is full: [`refuse`] it.
pub fn join(socket: Socket, gateway: Arc<Gateway>, opening: Opening) -> Result<Live, Socket> {
    let Some(membership) = gateway.group.join() else {
        return Err(socket);
    };
    let wire = Wire::new(socket, &gateway.config);
    Ok(Live {
        session: Session::new(gateway, wire, opening),
        _membership: membership,
    })
}

impl Live {
    /// Serves the socket until it is closed.
    pub async fn serve(&mut self) {
        self.session.live().await;
    }
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

/// Closes a socket that may not be served at all. A browser cannot read a refused handshake.
pub async fn refuse(socket: Socket, gateway: &Gateway, reason: CloseReason) {
    gateway.closes(reason);
    let mut wire = Wire::new(socket, &gateway.config);
    wire.close(reason).await;
}
