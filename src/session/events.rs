//! Server-Sent Events: the same frames over HTTP, for who cannot or need not speak WebSocket. An
//! event's `id` is its cursor, so that `EventSource` resumes by itself.
//!
//! Follows the HTML standard, "Server-sent events": lines `id:`, `data:` and `retry:`, and an empty
//! line after each event. An event without `data` only sets the last id.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, future::BoxFuture};
use tokio::sync::mpsc;

use super::End;
use crate::{position::Position, protocol::CloseReason};

/// Pieces on their way into the response, each of at most some [`PIECE_BYTES`] and an event.
const PIECES: usize = 2;

/// Bytes gathered before they are sent.
const PIECE_BYTES: usize = 16 * 1024;

/// What a client waits before it connects again, by itself.
const RECONNECT_MS: u32 = 2000;

/// The sending side of one response.
pub struct Events {
    sender: mpsc::Sender<Bytes>,
    /// The client has gone.
    gone: BoxFuture<'static, ()>,
    buffer: Vec<u8>,
    /// What the next `id:` line says, as far as the client does not know it.
    id: Option<Position>,
}

impl Events {
    /// A response's body, and what sends into it.
    pub fn new() -> (
        Self,
        impl Stream<Item = Result<Bytes, std::convert::Infallible>>,
    ) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let client = sender.clone();
        let events = Self {
            sender,
            gone: async move { client.closed().await }.boxed(),
            buffer: format!("retry: {RECONNECT_MS}\n").into_bytes(),
            id: None,
        };
        let body = futures_util::stream::unfold(pieces, |mut pieces| async move {
            Some((Ok(pieces.recv().await?), pieces))
        });
        (events, body)
    }

    /// From here on events carry this cursor.
    pub fn stand(&mut self, cursor: &Position) {
        self.id = Some(cursor.clone());
    }

    /// Adds an event.
    pub async fn feed(&mut self, text: &[u8], limit: Duration) -> Result<(), End> {
        self.id_line();
        self.buffer.extend_from_slice(b"data: ");
        // A frame is JSON on one line: line breaks in texts are escaped.
        self.buffer.extend_from_slice(text);
        self.buffer.extend_from_slice(b"\n\n");
        match self.buffer.len() < PIECE_BYTES {
            true => Ok(()),
            false => self.flush(limit).await,
        }
    }

    /// Tells the cursor alone, if it is news; else nothing but that the connection is alive.
    pub async fn beat(&mut self, limit: Duration) -> Result<(), End> {
        match self.id_line() {
            true => self.buffer.push(b'\n'),
            false => self.buffer.extend_from_slice(b":\n\n"),
        }
        self.flush(limit).await
    }

    /// Whether all that was added is sent.
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Throws away what was added and not sent.
    pub fn forget(&mut self) {
        self.buffer.clear();
    }

    /// Sends what was added.
    pub async fn flush(&mut self, limit: Duration) -> Result<(), End> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        match tokio::time::timeout(limit, self.sender.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Close(CloseReason::TooSlow)),
        }
    }

    /// Whether the client has gone; the task is woken when it has.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.sender.is_closed() {
            true => Poll::Ready(()),
            false => self.gone.poll_unpin(context),
        }
    }

    /// Returns whether there was something to say.
    fn id_line(&mut self) -> bool {
        let id = self.id.take();
        if let Some(id) = &id {
            self.buffer
                .extend_from_slice(format!("id: {id}\n").as_bytes());
        }
        id.is_some()
    }
}
