//! The connection of one WebSocket: what the client says is decoded as it comes, and shared frames are
//! written in as few system calls as the kernel allows. While nothing is on its way in or out it
//! holds no buffer.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::{
    deflate::Agreed,
    inbound::{Decoder, Limits, Message, Violation},
    socket::{Duplex, Io, Socket},
};
use crate::callers::Permit;

/// Bytes that are read at once, into a buffer that lives no longer than that.
const READ_BYTES: usize = 8 * 1024;

/// Bytes of a socket that was closed already that are thrown away at once, and the pause after them: who
/// goes on sending as fast as it can must not have a core for it.
const DRAIN_BYTES: usize = 64 * 1024;
const DRAIN_PAUSE: Duration = Duration::from_millis(5);

/// Pieces that are handed to the kernel at once; it takes 1,024 at the most.
pub const PIECES: usize = 128;

/// A connection, what was read of it and not decoded, and what waits to be written.
#[derive(Debug)]
pub struct Link {
    stream: Stream,
    /// What was agreed on about compression.
    agreed: Option<Agreed>,
    decoder: Decoder,
    /// Read, but behind a message that was returned first.
    rest: Bytes,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
    /// Of the first in the queue a part is written.
    begun: bool,
    /// Its place among the callers.
    _permit: Option<Permit>,
}

enum Stream {
    /// Shared with the lane, which writes to it while the session stands in it.
    Tcp(Arc<TcpStream>),
    Other(Box<dyn Duplex>),
}

/// What came of waiting for the client.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message(Message),
    /// The end of the connection.
    End,
    /// What no client may send; nothing that follows can be understood.
    Violation(Violation),
}

impl Link {
    /// Takes a connection over; a message may have so many bytes, in all its fragments.
    pub fn new(socket: Socket, limits: Limits) -> Self {
        let decoder = Decoder::new(limits);
        Self {
            stream: match socket.io {
                Io::Tcp(stream) => Stream::Tcp(Arc::new(stream)),
                Io::Other(stream) => Stream::Other(stream),
            },
            agreed: socket.agreed,
            decoder: match socket.agreed {
                Some(_) => decoder.with_deflate(),
                None => decoder,
            },
            rest: socket.leftover,
            queue: VecDeque::new(),
            queued_bytes: 0,
            begun: false,
            _permit: socket.permit,
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// The TCP stream, where it is one.
    pub fn tcp(&self) -> Option<&Arc<TcpStream>> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream),
            Stream::Other(_) => None,
        }
    }

    /// What was agreed on about compression.
    pub fn agreed(&self) -> Option<Agreed> {
        self.agreed
    }

    /// Waits for the next message.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn recv(&mut self) -> Received {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`Self::recv`], which a socket that waits has no room for.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Received> {
        loop {
            let found = if self.rest.is_empty() {
                let decoder = &mut self.decoder;
                let decode = |mut input: &[u8]| {
                    let found = decoder.decode(&mut input);
                    (found, Bytes::copy_from_slice(input))
                };
                let read = ready!(poll_read(&mut self.stream, context, decode));
                let Some((found, rest)) = read else {
                    return Poll::Ready(Received::End);
                };
                self.rest = rest;
                found
            } else {
                // Thousands of small frames may come at once: others have their turn between them.
                ready!(pin!(tokio::task::consume_budget()).poll(context));
                let mut input = &self.rest[..];
                let found = self.decoder.decode(&mut input);
                let used = self.rest.len() - input.len();
                self.rest.advance(used);
                if self.rest.is_empty() {
                    // It shares a larger buffer.
                    self.rest = Bytes::new();
                }
                found
            };
            match found {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Received::Message(message)),
                Err(violation) => return Poll::Ready(Received::Violation(violation)),
            }
        }
    }

    /// Reads on, and throws away what comes, until the client has closed its side. A connection that
    /// is dropped with unread bytes is reset, and what was sent last might be lost.
    pub async fn drain(&mut self) {
        self.rest = Bytes::new();
        let mut drained = 0;
        while let Some(count) =
            poll_fn(|context| poll_read(&mut self.stream, context, <[u8]>::len)).await
        {
            drained += count;
            if drained >= DRAIN_BYTES {
                drained = 0;
                tokio::time::sleep(DRAIN_PAUSE).await;
            }
        }
    }

    /// Queues a whole frame, or the rest of one, never nothing. The caller bounds what is queued, by
    /// [`Self::queued_bytes`].
    pub fn push(&mut self, frame: Bytes) {
        self.queued_bytes += frame.len();
        self.queue.push_back(frame);
    }

    /// Queues the rest of a frame that somebody else has begun, while nothing else waits.
    pub fn go_on(&mut self, rest: Bytes) {
        self.begun = self.queue.is_empty();
        self.push(rest);
    }

    /// Throws away what is queued, but for the rest of a frame that was begun: what follows could not be
    /// read without it.
    pub fn forget(&mut self) {
        self.queue.truncate(usize::from(self.begun));
        self.queued_bytes = self.queue.iter().map(Bytes::len).sum();
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Writes as much of what is queued as the connection takes at once, at least a byte of it; returns
    /// whether that was all.
    ///
    /// # Errors
    /// The connection is broken.
    ///
    /// # Cancel safety
    /// Cancel safe: what is written leaves the queue, to the byte.
    pub async fn write(&mut self) -> io::Result<bool> {
        if !self.queue.is_empty() {
            let (stream, queue) = (&mut self.stream, &self.queue);
            let written = poll_fn(|context| poll_write(stream, context, queue)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.wrote(written);
            if !self.queue.is_empty() {
                return Ok(false);
            }
            // What a burst needed is not kept for the time after it.
            self.queue = VecDeque::new();
        }
        match &mut self.stream {
            Stream::Tcp(_) => {}
            Stream::Other(stream) => stream.flush().await?,
        }
        Ok(true)
    }

    /// Writes all that is queued.
    #[cfg(test)]
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.write().await? {}
        Ok(())
    }

    /// Ends our side: the client sees that nothing follows.
    pub async fn finish(&mut self) {
        // A connection that is broken already has nothing to end.
        let _ = match &mut self.stream {
            Stream::Tcp(stream) => {
                socket2::SockRef::from(&**stream).shutdown(std::net::Shutdown::Write)
            }
            Stream::Other(stream) => stream.shutdown().await,
        };
    }

    fn wrote(&mut self, mut written: usize) {
        self.queued_bytes -= written;
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                front.advance(written);
                self.begun |= written > 0;
                return;
            }
            written -= front.len();
            self.queue.pop_front();
            self.begun = false;
        }
    }
}

/// Waits until the connection takes something of the front of a queue, and says how many bytes.
fn poll_write(
    stream: &mut Stream,
    context: &mut Context<'_>,
    queue: &VecDeque<Bytes>,
) -> Poll<io::Result<usize>> {
    match stream {
        Stream::Tcp(stream) => loop {
            let written = match queue.len() {
                // A reply: to the kernel one buffer is less than a list of one.
                1 => stream.try_write(&queue[0]),
                _ => pieces(queue, |pieces| stream.try_write_vectored(pieces)),
            };
            match written {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    ready!(stream.poll_write_ready(context))?;
                }
                written => return Poll::Ready(written),
            }
        },
        Stream::Other(stream) => pieces(queue, |pieces| {
            Pin::new(stream).poll_write_vectored(context, pieces)
        }),
    }
}

/// The front of a queue as the kernel takes it.
fn pieces<T>(queue: &VecDeque<Bytes>, write: impl FnOnce(&[io::IoSlice<'_>]) -> T) -> T {
    let mut pieces = [io::IoSlice::new(&[]); PIECES];
    for (piece, frame) in pieces.iter_mut().zip(queue) {
        *piece = io::IoSlice::new(frame);
    }
    write(&pieces[..PIECES.min(queue.len())])
}

/// Waits until there is something to read, and shows it; `None` at the end of the connection. The
/// buffer lives on the stack, and only while it is shown.
fn poll_read<T>(
    stream: &mut Stream,
    context: &mut Context<'_>,
    show: impl FnOnce(&[u8]) -> T,
) -> Poll<Option<T>> {
    let mut show = Some(show);
    let mut shown = |bytes: &[u8]| {
        show.take()
            .filter(|_| !bytes.is_empty())
            .map(|show| show(bytes))
    };
    match stream {
        Stream::Tcp(stream) => loop {
            // Not `readable`: this replaces the waker of whoever read before, and what that keeps alive.
            if ready!(stream.poll_read_ready(context)).is_err() {
                return Poll::Ready(None);
            }
            match read_now(stream, &mut shown) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.ok().flatten()),
            }
        },
        Stream::Other(stream) => {
            let mut chunk = [MaybeUninit::uninit(); READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut chunk);
            let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            read.map(|read| shown(read.ok().map_or(&[], |()| buffer.filled())))
        }
    }
}

fn read_now<T>(stream: &TcpStream, shown: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut chunk = [MaybeUninit::uninit(); READ_BYTES];
    let mut buffer = ReadBuf::uninit(&mut chunk);
    stream.try_read_buf(&mut buffer)?;
    Ok(shown(buffer.filled()))
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Other(_) => "Other",
        })
    }
}
