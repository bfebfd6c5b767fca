//! Who is at the other end of a connection.

use std::net::IpAddr;

use super::{headers::Headers, origins::Scheme, proxies::Proxies};

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    address: IpAddr,
    /// Whether it says for whom it asks.
    is_proxy: bool,
    /// How it came, where that is certain.
    scheme: Option<Scheme>,
}

impl Peer {
    /// A connection from there, through TLS of ours or not.
    pub fn new(address: IpAddr, proxies: &Proxies, tls: bool) -> Self {
        let is_proxy = proxies.contain(address);
        Self {
            address,
            is_proxy,
            // A proxy that nobody has told us of may have taken TLS off.
            scheme: match tls {
                true => Some(Scheme::Https),
                false => (!proxies.is_empty() && !is_proxy).then_some(Scheme::Http),
            },
        }
    }

    /// Where it is.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Whether it brings others, each request one.
    pub fn is_proxy(self) -> bool {
        self.is_proxy
    }

    /// Who sends a request with these headers.
    pub fn client(self, proxies: &Proxies, headers: &impl Headers) -> IpAddr {
        match self.is_proxy {
            true => proxies.client(self.address, headers),
            false => self.address,
        }
    }

    /// How who sends these headers came, where that is known.
    pub fn scheme(self, proxies: &Proxies, headers: &impl Headers) -> Option<Scheme> {
        match self.is_proxy {
            true => proxies.scheme(headers),
            false => self.scheme,
        }
    }
}
