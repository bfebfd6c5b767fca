//! What somebody brings, to be judged by it.

use std::{fmt, net::IpAddr};

use bytes::Bytes;

/// What somebody brings.
#[derive(Clone, Default)]
pub struct Presented {
    /// A token, wherever it stood.
    pub token: Option<String>,
    /// What of his request an endpoint is asked with.
    pub handshake: Handshake,
    /// Where he comes from, if that is known.
    pub from: Option<IpAddr>,
}

/// What of a request an endpoint is asked with.
#[derive(Clone, Default)]
pub struct Handshake {
    /// The path, without parameters.
    pub path: Option<Bytes>,
    /// The header `cookie`; none where no page that may connect has sent it.
    pub cookie: Option<Bytes>,
    /// The header `authorization`.
    pub authorization: Option<Bytes>,
    /// The header `token`.
    pub token: Option<Bytes>,
    /// The header `origin`.
    pub origin: Option<Bytes>,
}

impl Presented {
    /// A token that came on an open socket, from there, or with a message.
    pub fn token(token: String, from: Option<IpAddr>) -> Self {
        Self {
            token: Some(token),
            from,
            ..Self::default()
        }
    }
}

/// All of it is secret.
impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "***");
        f.debug_struct("Presented")
            .field("token", &token)
            .finish_non_exhaustive()
    }
}
