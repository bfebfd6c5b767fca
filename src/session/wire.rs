//! What is underneath a session: a WebSocket, or a response of Server-Sent Events. Bounded buffers,
//! bounded waits, and a close that the client can read. Nothing else knows which WebSocket library is
//! used.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::SinkExt;
use tungstenite::error::{CapacityError, Error as WsError};

use super::{End, Gateway, events::Events};
use crate::{
    position::Position,
    protocol::{CloseReason, ECHO_CLOSE, ECHO_PREFIX},
};

/// Read and write buffers of one socket. The library's own would be 128 KiB each.
pub const BUFFER_BYTES: usize = 4096;

/// The most bytes of a message that are read in order to close properly: a client that is told
/// 1009 while it still sends might see a reset connection instead.
pub const MAX_READ_BYTES: usize = 256 * 1024;

/// How long a closed socket may take to close its own side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, and how long it may take nothing.
pub struct Wire {
    line: Line,
    write_timeout: Duration,
}

enum Line {
    Socket(Box<WebSocket>),
    Events(Events),
}

/// What came from the client.
pub enum Inbound {
    /// A text frame.
    Text(Utf8Bytes),
    /// A ping, or the answer to ours.
    Alive,
    /// The client has closed the socket, or the connection is broken.
    Gone,
    /// A frame for which the socket must be closed.
    Broken(CloseReason),
}

impl Wire {
    /// Takes a socket over.
    pub fn new(socket: WebSocket, write_timeout: Duration) -> Self {
        Self {
            line: Line::Socket(Box::new(socket)),
            write_timeout,
        }
    }

    /// Takes a response over.
    pub fn events(events: Events, write_timeout: Duration) -> Self {
        Self {
            line: Line::Events(events),
            write_timeout,
        }
    }

    /// Whether the client can speak: a response is one way only.
    pub fn is_one_way(&self) -> bool {
        matches!(self.line, Line::Events(_))
    }

    /// From here on what is sent stands at this cursor.
    pub fn stand(&mut self, cursor: &Position) {
        if let Line::Events(events) = &mut self.line {
            events.stand(cursor);
        }
    }

    /// Waits for the next frame. Cancel safe.
    pub async fn recv(&mut self) -> Inbound {
        let socket = match &mut self.line {
            Line::Socket(socket) => socket,
            Line::Events(events) => {
                events.gone().await;
                return Inbound::Gone;
            }
        };
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => Inbound::Text(text),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Inbound::Alive,
            Some(Ok(Message::Binary(_))) => Inbound::Broken(CloseReason::Binary),
            Some(Ok(Message::Close(_))) => {
                // Reading on sends the answer, without which a browser calls the close unclean.
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.recv()).await;
                Inbound::Gone
            }
            None => Inbound::Gone,
            Some(Err(err)) => broken(err),
        }
    }

    /// Puts a shared frame into the write buffer, which may send what is there.
    pub async fn feed(&mut self, text: &Bytes) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(socket) => {
                // Frames are UTF-8 by construction; one that is not would be ours to mend.
                let Ok(text) = Utf8Bytes::try_from(text.clone()) else {
                    return Ok(());
                };
                within(self.write_timeout, socket.feed(Message::Text(text))).await
            }
            Line::Events(events) => events.feed(text, self.write_timeout).await,
        }
    }

    /// Sends what is in the write buffer.
    pub async fn flush(&mut self) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(socket) => within(self.write_timeout, socket.flush()).await,
            Line::Events(events) => events.flush(self.write_timeout).await,
        }
    }

    /// Sends one frame.
    pub async fn send(&mut self, text: String) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(socket) => {
                within(self.write_timeout, socket.send(Message::Text(text.into()))).await
            }
            Line::Events(events) => {
                events.feed(text.as_bytes(), self.write_timeout).await?;
                events.flush(self.write_timeout).await
            }
        }
    }

    /// Asks whether the client is there.
    pub async fn ping(&mut self) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(socket) => {
                within(self.write_timeout, socket.send(Message::Ping(Bytes::new()))).await
            }
            Line::Events(events) => events.beat(self.write_timeout).await,
        }
    }

    /// Closes the connection, a socket with a code, and waits a moment for the client's side.
    pub async fn close(mut self, reason: CloseReason) {
        let socket = match &mut self.line {
            Line::Socket(socket) => socket,
            // It ends when nothing is sent into it any more.
            Line::Events(events) => {
                let _ = events.flush(CLOSE_TIMEOUT).await;
                return;
            }
        };
        let frame = CloseFrame {
            code: reason.code(),
            reason: reason.text().into(),
        };
        let closing = async {
            if socket.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
            // To drop a socket with unread bytes would reset it, and the code might be lost.
            while let Some(Ok(_)) = socket.recv().await {}
            if reason == CloseReason::TooBig {
                tokio::time::sleep(CLOSE_TIMEOUT).await;
            }
        };
        // A client that does not close its side is cut off.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

async fn within<E>(limit: Duration, write: impl Future<Output = Result<(), E>>) -> Result<(), End> {
    match tokio::time::timeout(limit, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::Gone),
        Err(_) => Err(End::Close(CloseReason::TooSlow)),
    }
}

fn broken(err: axum::Error) -> Inbound {
    let inner = err.into_inner();
    let Some(err) = inner.downcast_ref::<WsError>() else {
        return Inbound::Gone;
    };
    match err {
        WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
            Inbound::Broken(CloseReason::TooBig)
        }
        WsError::Utf8(_) => Inbound::Broken(CloseReason::NotUtf8),
        WsError::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake
            | tungstenite::error::ProtocolError::SendAfterClosing,
        ) => Inbound::Gone,
        WsError::Protocol(_) | WsError::Capacity(_) => Inbound::Broken(CloseReason::ProtocolError),
        _ => Inbound::Gone,
    }
}

/// The tutorial's echo: every text is answered with the local time; the text `close` closes.
pub async fn echo(socket: WebSocket, gateway: &Gateway) {
    let mut wire = Wire::new(socket, gateway.config.write_timeout);
    let idle = gateway.config.ping_interval + gateway.config.pong_timeout;
    let mut asked = false;
    let end = loop {
        let inbound = tokio::select! {
            inbound = wire.recv() => inbound,
            () = gateway.stop.cancelled() => break End::Close(CloseReason::Restart),
            () = tokio::time::sleep(idle) => {
                if asked {
                    break End::Close(CloseReason::NoPong);
                }
                asked = true;
                match wire.ping().await {
                    Ok(()) => continue,
                    Err(end) => break end,
                }
            }
        };
        asked = false;
        let sent = match inbound {
            Inbound::Text(text) if text.as_str() == ECHO_CLOSE => {
                Err(End::Close(CloseReason::Normal))
            }
            Inbound::Text(text) if text.len() > gateway.config.max_message_bytes => {
                Err(End::Close(CloseReason::TooBig))
            }
            Inbound::Text(_) => {
                let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S");
                wire.send(format!("{ECHO_PREFIX}{now}")).await
            }
            Inbound::Alive => Ok(()),
            Inbound::Gone => Err(End::Gone),
            Inbound::Broken(reason) => Err(End::Close(reason)),
        };
        if let Err(end) = sent {
            break end;
        }
    };
    if let End::Close(reason) = end {
        gateway.metrics.close(reason.code(), reason.text());
        wire.close(reason).await;
    }
}
