//! A connection of which something was read already, and whose requests can be read in one way only.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{crumbs::Crumbs, framing::Framing, owed::Owed};

/// A stream that first gives back what was read of it, and ends where a request could be read in two
/// ways, or where nothing of an answer is taken: hyper would wait for that for ever. What comes byte by
/// byte is put together before it is read.
pub struct Begun<S> {
    read: Bytes,
    stream: S,
    framing: Framing,
    crumbs: Crumbs,
    owed: Arc<Owed>,
    /// How long its client may take nothing.
    patience: Duration,
    /// Goes while there is something to write that the client does not take.
    stalled: Option<Pin<Box<Sleep>>>,
    gave_up: bool,
}

impl<S: Unpin> Begun<S> {
    /// A stream of which that was read. It says in `owed` whether what is written is taken, and ends with
    /// an error where nothing is for as long as `patience`.
    pub fn new(read: Bytes, stream: S, owed: Arc<Owed>, patience: Duration) -> Self {
        Self {
            read,
            stream,
            framing: Framing::default(),
            crumbs: Crumbs::default(),
            owed,
            patience,
            stalled: None,
            gave_up: false,
        }
    }

    /// Whether it was ended because its client took nothing.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Whether it was ended for what came.
    pub fn is_ambiguous(&self) -> bool {
        self.framing.is_ambiguous()
    }

    /// What has not been read again, and the stream.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.read, self.stream)
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(&mut self.get_mut().stream)
    }

    /// What came of a try to write a part of an answer.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if matches!(tried, Poll::Ready(Ok(1..))) {
            self.crumbs.answered();
        }
        self.in_time(cx, tried)
    }

    /// What came of a try to write or to flush, unless it is one too many.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            if self.stalled.take().is_some() {
                self.owed.stall(false);
            }
            return tried;
        }
        let patience = self.patience;
        let timer = self.stalled.get_or_insert_with(|| {
            self.owed.stall(true);
            Box::pin(sleep(patience))
        });
        if timer.as_mut().poll(cx).is_ready() {
            self.gave_up = true;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.read.is_empty() {
            ready!(self.crumbs.poll_next(cx));
            ready!(self.as_mut().stream().poll_read(cx, buffer))?;
            let came = buffer.filled().len() - before;
            self.crumbs.came(came);
        } else {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read[..count]);
            self.read.advance(count);
        }
        match self.framing.follow(&buffer.filled()[before..]) {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = self.as_mut().stream().poll_write(cx, bytes);
        self.written(cx, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = self.as_mut().stream().poll_write_vectored(cx, pieces);
        self.written(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = self.as_mut().stream().poll_flush(cx);
        self.in_time(cx, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.framing.is_ambiguous() {
            // Its client has yet to be told so.
            return Poll::Ready(Ok(()));
        }
        let tried = self.as_mut().stream().poll_shutdown(cx);
        self.in_time(cx, tried)
    }
}
