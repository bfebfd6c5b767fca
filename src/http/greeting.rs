//! What a connection says first. Nearly always that is the handshake of a socket, whole and at once. It
//! is answered right here; the machinery of HTTP, which costs several times as much time and memory,
//! is for everything else, and for every handshake that is not as it should be.

use std::{future::poll_fn, mem::MaybeUninit, pin::Pin, sync::Arc, time::Duration};

use axum::http::{Extensions, Method, Uri, Version};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

use super::{
    Edge,
    accept::Shared,
    connection::{Served, Wire},
    headers::{Asked, Said},
    peer::Peer,
    sockets::{self, Next},
};
use crate::callers::{Permit, Portion};

/// The longest handshake that is answered here, cookies included.
const BYTES: usize = 4 * 1024;

/// The most headers of one.
const HEADERS: usize = 32;

/// How long a client may take to take the answer; it fits into the kernel's buffer of a new
/// connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was said first.
pub enum Greeting {
    /// A handshake that opens a socket.
    Handshake(Box<Opened>),
    /// Anything else, or a part of it.
    Other(Bytes),
    /// Nothing: the client has gone.
    Nothing,
}

/// A handshake, and what follows from it.
pub struct Opened {
    edge: Arc<Edge>,
    answer: Vec<u8>,
    next: Next,
    /// What was sent behind it.
    leftover: Bytes,
    /// The place of who came through a proxy.
    portion: Option<Portion>,
}

/// Waits until the client says something, and reads it.
///
/// # Cancel safety
/// Cancel safe.
pub async fn hear(stream: &mut (impl AsyncRead + Unpin), shared: &Shared, peer: Peer) -> Greeting {
    let said = poll_fn(|context| {
        // Out here, or the task would have room for the buffer.
        let mut buffer = [MaybeUninit::uninit(); BYTES];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
        read.map_ok(|()| Bytes::copy_from_slice(buffer.filled()))
    });
    match said.await {
        Ok(said) if !said.is_empty() => understand(said, shared, peer),
        Ok(_) | Err(_) => Greeting::Nothing,
    }
}

fn understand(said: Bytes, shared: &Shared, peer: Peer) -> Greeting {
    let Some(edge) = shared.edge() else {
        return Greeting::Other(said);
    };
    match open(&said, shared, edge, peer) {
        Some(opened) => Greeting::Handshake(Box::new(opened)),
        None => Greeting::Other(said),
    }
}

/// Opens a socket, if that is asked for. None where a head is not whole or not as it should be: hyper knows
/// what to say then.
fn open(said: &Bytes, shared: &Shared, edge: &Arc<Edge>, peer: Peer) -> Option<Opened> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(said) else {
        return None;
    };
    // A line that ends without CR is for `framing.rs` to refuse.
    let ends = memchr::memchr_iter(b'\n', &said[..length]);
    if ends.into_iter().any(|at| at == 0 || said[at - 1] != b'\r') {
        return None;
    }
    let target = head.path?;
    let (path, _) = target.split_once('?').unwrap_or((target, ""));
    let asks = head.method == Some("GET") && head.version == Some(1) && sockets::is_path(path);
    if !asks {
        return None;
    }
    let uri = Uri::from_maybe_shared(said.slice_ref(target.as_bytes())).ok()?;
    let headers = Said(head.headers);
    if !shared.hosts.admit(&headers, &uri) {
        return None;
    }
    let mut extensions = Extensions::new();
    let introduced = shared.introduce(peer, &headers).ok()?;
    if let Some(scheme) = introduced.scheme {
        extensions.insert(scheme);
    }
    let asked = Asked {
        method: &Method::GET,
        version: Version::HTTP_11,
        uri: &uri,
        headers: &headers,
        extensions: &extensions,
        from: Some(introduced.whence),
    };
    let (answer, next) = edge.upgrade(&asked).ok()?;
    Some(Opened {
        edge: edge.clone(),
        portion: introduced.portion,
        answer: answer.text(),
        next,
        // Copied, or a few bytes would keep the whole head.
        leftover: Bytes::copy_from_slice(&said[length..]),
    })
}

impl Opened {
    /// Answers; returns what serves the socket then, unless the client takes no answer.
    pub async fn answer(self, mut stream: impl Wire, permit: Permit) -> Served {
        let answered = tokio::time::timeout(PATIENCE, stream.write_all(&self.answer)).await;
        matches!(answered, Ok(Ok(()))).then(|| {
            let socket = stream
                .socket(self.leftover)
                .holding(permit.of(self.portion));
            self.next.service(self.edge, socket)
        })
    }
}
