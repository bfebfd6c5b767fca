//! A connection that was upgraded to a WebSocket, as a session takes it over from HTTP: the raw
//! stream, and what the client had already sent after its handshake.

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::deflate::Agreed;
use crate::callers::Permit;

/// An upgraded connection.
#[derive(Debug)]
pub struct Socket {
    /// The stream.
    pub(super) io: Io,
    /// Bytes that were read behind the handshake.
    pub(super) leftover: Bytes,
    /// What was agreed on about compression.
    pub(super) agreed: Option<Agreed>,
    /// Its place among the callers, to be kept for as long as the stream.
    pub(super) permit: Option<Permit>,
}

/// What is underneath.
pub(super) enum Io {
    /// A TCP stream, which is written to directly.
    Tcp(TcpStream),
    /// Anything else, such as TLS.
    Other(Box<dyn Duplex>),
}

/// A stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Other(_) => "Other",
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl Socket {
    /// A TCP stream whose handshake was answered with 101.
    pub fn tcp(stream: TcpStream, leftover: Bytes) -> Self {
        Self {
            io: Io::Tcp(stream),
            leftover,
            agreed: None,
            permit: None,
        }
    }

    /// Any other stream whose handshake was answered with 101.
    pub fn other(stream: impl Duplex + 'static, leftover: Bytes) -> Self {
        Self {
            io: Io::Other(Box::new(stream)),
            leftover,
            agreed: None,
            permit: None,
        }
    }

    /// With compression, where the handshake's answer agreed to an offer of it.
    pub fn compressed(self, agreed: Option<Agreed>) -> Self {
        Self { agreed, ..self }
    }

    /// Has it hold that place among the callers.
    pub fn holding(self, permit: Permit) -> Self {
        Self {
            permit: Some(permit),
            ..self
        }
    }
}
