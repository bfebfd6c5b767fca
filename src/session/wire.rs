//! What is underneath a session: a WebSocket, or a response of Server-Sent Events. Bounded buffers,
//! bounded waits, and a close that the client can read.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{net::TcpStream, time::Instant};

use super::{
    End, SessionConfig,
    deflate::{Agreed, framed},
    events::Events,
    inbound::{Limits, Message, Violation},
    link::{Link, Received},
    socket::Socket,
};
use crate::{
    callers::{Bucket, Rate},
    position::Position,
    protocol::{CloseReason, Encoded, MAX_HEADER_BYTES, put_header},
};

/// Bytes of frames that are read from the ring, and queued, before they are written.
pub(super) const WRITE_BYTES: usize = 64 * 1024;

/// How much more than the rate at which it is answered a client may send before it is closed.
const CLOSE_FACTOR: u32 = 10;

/// How long a closed socket may take to close its own side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The first byte of a message of bytes in one frame, and of each control frame.
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// A connection, how long it may take nothing, and how often its client may say something.
pub struct Wire {
    line: Line,
    write_timeout: Duration,
    rates: Rates,
}

/// What a client may say, and what is left of it. A response has none.
#[derive(Default)]
struct Rates {
    /// Messages before the socket is closed: more than are answered.
    messages: Option<(Rate, Bucket)>,
    /// Pings and pongs.
    controls: Option<(Rate, Bucket)>,
}

enum Line {
    Socket(Link),
    Events(Events),
}

/// What came from the client.
#[derive(Debug)]
pub enum Inbound {
    /// A message.
    Data(Data),
    /// A ping, which must be answered with this.
    Ping(Vec<u8>),
    /// The answer to a ping of ours.
    Pong,
    /// The client closes the socket, for this reason.
    Close(Option<u16>),
    /// The connection is broken.
    Gone,
    /// A frame for which the socket must be closed.
    Broken(CloseReason),
}

/// What a client says beside what the protocol itself asks for.
#[derive(Debug)]
pub enum Data {
    /// A text message.
    Text(String),
    /// A message of bytes.
    Binary(Vec<u8>),
}

impl Wire {
    /// Takes a socket over.
    pub fn new(socket: Socket, config: &SessionConfig) -> Self {
        let limits = Limits {
            message_bytes: config.max_message_bytes,
            fragments: config.max_fragments,
        };
        let bucket = |rate| Some((rate, Bucket::default()));
        Self {
            rates: Rates {
                messages: bucket(config.messages.times(CLOSE_FACTOR)),
                controls: bucket(config.controls),
            },
            ..Self::within(socket, limits, config.write_timeout)
        }
    }

    /// The same with limits of its own, however often its client says something.
    pub fn within(socket: Socket, limits: Limits, write_timeout: Duration) -> Self {
        Self {
            line: Line::Socket(Link::new(socket, limits)),
            write_timeout,
            rates: Rates::default(),
        }
    }

    /// Takes a response over.
    pub fn events(events: Events, write_timeout: Duration) -> Self {
        Self {
            line: Line::Events(events),
            write_timeout,
            rates: Rates::default(),
        }
    }

    /// Whether the client can speak: a response is one way only.
    pub fn is_one_way(&self) -> bool {
        matches!(self.line, Line::Events(_))
    }

    /// Whether nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        match &self.line {
            Line::Socket(link) => link.is_idle(),
            Line::Events(events) => events.is_idle(),
        }
    }

    /// The TCP stream beneath, where it is one: others may write whole frames to it while this is idle.
    pub fn tcp(&self) -> Option<&Arc<TcpStream>> {
        match &self.line {
            Line::Socket(link) => link.tcp(),
            Line::Events(_) => None,
        }
    }

    /// What was agreed on about compression.
    pub fn agreed(&self) -> Option<Agreed> {
        match &self.line {
            Line::Socket(link) => link.agreed(),
            Line::Events(_) => None,
        }
    }

    /// From here on what is sent stands at this cursor.
    pub fn stand(&mut self, cursor: &Position) {
        if let Line::Events(events) = &mut self.line {
            events.stand(cursor);
        }
    }

    /// Waits for the next message. Cancel safe.
    pub async fn recv(&mut self) -> Inbound {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`Self::recv`], which a socket that waits has no room for.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Inbound> {
        match &mut self.line {
            Line::Socket(link) => link.poll_recv(context).map(|received| self.came(received)),
            Line::Events(events) => events.poll_gone(context).map(|()| Inbound::Gone),
        }
    }

    fn came(&mut self, received: Received) -> Inbound {
        let message = match received {
            Received::Message(message) => message,
            Received::End => return Inbound::Gone,
            Received::Violation(violation) => {
                return Inbound::Broken(match violation {
                    Violation::Protocol => CloseReason::ProtocolError,
                    Violation::NotUtf8 => CloseReason::NotUtf8,
                    Violation::TooBig => CloseReason::TooBig,
                    Violation::TooManyFragments => CloseReason::TooManyFragments,
                });
            }
        };
        if let Err(reason) = self.rates.admit(&message) {
            return Inbound::Broken(reason);
        }
        match message {
            Message::Text(text) => Inbound::Data(Data::Text(text)),
            Message::Binary(bytes) => Inbound::Data(Data::Binary(bytes)),
            Message::Ping(payload) => Inbound::Ping(payload),
            Message::Pong => Inbound::Pong,
            Message::Close(code) => Inbound::Close(code),
        }
    }

    /// Does what the protocol itself asks for: a ping is answered, and so is a close. Returns the message,
    /// if it was one. Nothing more is read before an answer is written, so that at most one waits.
    ///
    /// # Errors
    /// The socket is over.
    pub async fn attend(&mut self, inbound: Inbound) -> Result<Option<Data>, End> {
        match inbound {
            Inbound::Data(data) => Ok(Some(data)),
            Inbound::Ping(payload) => self.frame(PONG, &payload).await.map(|()| None),
            Inbound::Pong => Ok(None),
            Inbound::Close(code) => {
                self.closed(code).await;
                Err(End::Gone)
            }
            Inbound::Gone => Err(End::Gone),
            Inbound::Broken(reason) => Err(End::Close(reason)),
        }
    }

    /// Queues a shared frame; writes what is queued where that is much.
    pub async fn feed(&mut self, text: &Encoded) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(link) => {
                link.push(framed(text, link.agreed()).clone());
                match link.queued_bytes() < WRITE_BYTES {
                    true => Ok(()),
                    false => flush(link, self.write_timeout).await,
                }
            }
            Line::Events(events) => events.feed(text, self.write_timeout).await,
        }
    }

    /// Queues the rest of a frame that was begun.
    pub fn go_on(&mut self, rest: Bytes) {
        if let Line::Socket(link) = &mut self.line
            && !rest.is_empty()
        {
            link.go_on(rest);
        }
    }

    /// Throws away what waits to be written, but for the rest of a frame that was begun.
    pub fn forget(&mut self) {
        match &mut self.line {
            Line::Socket(link) => link.forget(),
            Line::Events(events) => events.forget(),
        }
    }

    /// Writes what is queued.
    pub async fn flush(&mut self) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(link) if link.queued_bytes() == 0 => Ok(()),
            Line::Socket(link) => flush(link, self.write_timeout).await,
            Line::Events(events) => events.flush(self.write_timeout).await,
        }
    }

    /// Sends one frame.
    pub async fn send(&mut self, text: String) -> Result<(), End> {
        self.feed(&Encoded::of(&text)).await?;
        self.flush().await
    }

    /// Asks whether the client is there.
    pub async fn ping(&mut self) -> Result<(), End> {
        match &mut self.line {
            Line::Socket(_) => self.frame(PING, &[]).await,
            Line::Events(events) => events.beat(self.write_timeout).await,
        }
    }

    /// Answers the client's close, without which a browser calls the close unclean.
    async fn closed(&mut self, code: Option<u16>) {
        let code = code.map(u16::to_be_bytes);
        let payload = code.as_ref().map_or(&[][..], |code| code);
        let answer = async {
            // Whether it arrives is of no interest to anybody any more.
            let _ = self.frame(CLOSE, payload).await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, answer).await;
    }

    /// Closes the connection, a socket with a code, and waits a moment for the client's side.
    pub async fn close(&mut self, reason: CloseReason) {
        let mut payload = reason.code().to_be_bytes().to_vec();
        payload.extend_from_slice(reason.text().as_bytes());
        if let Line::Events(events) = &mut self.line {
            // It ends when nothing is sent into it any more.
            let _ = events.flush(CLOSE_TIMEOUT).await;
            return;
        }
        let closing = async {
            if self.frame(CLOSE, &payload).await.is_err() {
                return;
            }
            let Line::Socket(link) = &mut self.line else {
                return;
            };
            // What follows cannot be understood, or is more than is to be read.
            let is_violation = matches!(
                reason,
                CloseReason::ProtocolError
                    | CloseReason::NotUtf8
                    | CloseReason::TooBig
                    | CloseReason::TooManyFragments
                    | CloseReason::TooManyControls
                    | CloseReason::TooManyMessages
                    | CloseReason::Malformed
            );
            if !is_violation {
                // It answers with a close of its own.
                while let Received::Message(message) = link.recv().await {
                    if matches!(message, Message::Close(_)) {
                        return;
                    }
                }
            }
            link.finish().await;
            link.drain().await;
        };
        // A client that does not close its side is cut off.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }

    /// Sends bytes, which no client of the group expects.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.frame(BINARY, bytes).await
    }

    async fn frame(&mut self, first: u8, payload: &[u8]) -> Result<(), End> {
        let Line::Socket(link) = &mut self.line else {
            return Ok(());
        };
        let mut frame = BytesMut::with_capacity(MAX_HEADER_BYTES + payload.len());
        put_header(&mut frame, first, payload.len());
        frame.extend_from_slice(payload);
        link.push(frame.freeze());
        flush(link, self.write_timeout).await
    }
}

impl Rates {
    /// Counts what came; fails where that is so much that the socket must be closed.
    fn admit(&mut self, message: &Message) -> Result<(), CloseReason> {
        let (rate, reason) = match message {
            Message::Text(_) | Message::Binary(_) => {
                (&mut self.messages, CloseReason::TooManyMessages)
            }
            Message::Ping(_) | Message::Pong => (&mut self.controls, CloseReason::TooManyControls),
            Message::Close(_) => return Ok(()),
        };
        match rate {
            Some((rate, bucket)) => bucket.take(*rate, Instant::now()).map_err(|_| reason),
            None => Ok(()),
        }
    }
}

/// Writes all that is queued, to who takes some of it within each `limit`: a slow reader is none that has
/// gone.
async fn flush(link: &mut Link, limit: Duration) -> Result<(), End> {
    loop {
        match tokio::time::timeout(limit, link.write()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => {}
            Ok(Err(_)) => return Err(End::Gone),
            Err(_) => return Err(End::Close(CloseReason::TooSlow)),
        }
    }
}
