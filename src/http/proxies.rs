//! The proxies that are believed when they say for whom they ask. What anybody else says of that is
//! ignored, for everybody can write a header.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderName, header};

use super::{
    headers::{Headers, text},
    origins::Scheme,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// `server.trusted_proxies`: networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Proxies {
    /// Reads a list of addresses and networks.
    ///
    /// # Errors
    /// The first that is none.
    pub fn parse(list: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            Network::parse(text).ok_or_else(|| {
                format!(
                    "\"{text}\" is no network: an address is, or \"10.0.0.0/8\", with nothing behind \
                     the bits that count"
                )
            })
        };
        list.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nobody is believed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// For whom one of them, at `own`, asks: the last hop that is none of them, for what stands before it
    /// may be that hop's invention. Where all are, the last of them, which the proxy has written itself:
    /// a client may have written the others. Where that cannot be read, or there is none, the proxy.
    ///
    /// `X-Forwarded-For` counts, and `Forwarded` (RFC 7239) only where that is missing.
    pub fn client(&self, own: IpAddr, headers: &impl Headers) -> IpAddr {
        let listed = headers.has(FORWARDED_FOR);
        let name = if listed {
            FORWARDED_FOR
        } else {
            header::FORWARDED
        };
        let mut nearest = None;
        for hop in hops(headers, name).rev() {
            let hop = if listed {
                Some(hop)
            } else {
                parameter(hop, "for")
            };
            match hop.and_then(address) {
                Some(hop) if self.contain(hop) => drop(nearest.get_or_insert(hop)),
                Some(client) => return client,
                None => break,
            }
        }
        nearest.unwrap_or(own)
    }

    /// How a client came to one of them, as the nearest says.
    pub fn scheme(&self, headers: &impl Headers) -> Option<Scheme> {
        let told = match headers.has(FORWARDED_PROTO) {
            true => hops(headers, FORWARDED_PROTO).next_back(),
            false => hops(headers, header::FORWARDED)
                .next_back()
                .and_then(|hop| parameter(hop, "proto")),
        };
        match told? {
            told if told.eq_ignore_ascii_case("https") => Some(Scheme::Https),
            told if told.eq_ignore_ascii_case("http") => Some(Scheme::Http),
            _ => None,
        }
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = bits_of(address);
        let network = Self {
            address,
            bits: bits.unwrap_or(most),
        };
        (network.bits <= most && network.masked(address) == number(address)).then_some(network)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let address = match self.address {
            IpAddr::V4(_) => address.to_canonical(),
            IpAddr::V6(_) => address,
        };
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == number(self.address)
    }

    /// What is left of an address when only the bits that count are.
    fn masked(&self, address: IpAddr) -> u128 {
        let rest = bits_of(address) - self.bits;
        let number = number(address);
        number
            .checked_shr(rest)
            .and_then(|kept| kept.checked_shl(rest))
            .unwrap_or(0)
    }
}

fn bits_of(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The members of a header's list, on however many lines. What is not ASCII is no member that anybody
/// understands, and stays one.
fn hops(headers: &impl Headers, name: HeaderName) -> impl DoubleEndedIterator<Item = &str> {
    let lines = headers.lines(name);
    lines.flat_map(|line| text(line).unwrap_or("?").split(',').map(str::trim))
}

/// `for=192.0.2.1;proto=https`
fn parameter<'a>(hop: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
    let value = value.trim();
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

/// An address, which may have a port, and brackets if it is an IPv6 one.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = |text: &str| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let read = text.parse().ok().or_else(|| bracketed(text));
    read.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn proxies(list: &[&str]) -> Proxies {
        let list: Vec<_> = list.iter().map(|text| (*text).to_owned()).collect();
        Proxies::parse(&list).unwrap()
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_network_is_the_addresses_that_begin_alike() {
        let ours = proxies(&["10.0.0.0/8", "127.0.0.1", "2001:db8::/33", "::1"]);
        for inside in [
            "10.255.0.1",
            "::ffff:10.0.0.1",
            "127.0.0.1",
            "2001:db8:7fff::1",
            "::1",
        ] {
            assert!(ours.contain(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.0", "127.0.0.2", "2001:db8:8000::", "::2", "::a00:1"] {
            assert!(!ours.contain(outside.parse().unwrap()), "{outside}");
        }
        let all = proxies(&["0.0.0.0/0", "::/0"]);
        assert!(all.contain("192.0.2.1".parse().unwrap()) && all.contain("::".parse().unwrap()));
        assert!(!proxies(&[]).contain("127.0.0.1".parse().unwrap()));
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "localhost",
            "*",
            "10",
        ] {
            assert!(Proxies::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_proxy() {
        let ours = proxies(&["10.0.0.0/8", "127.0.0.1"]);
        let own: IpAddr = "10.0.0.1".parse().unwrap();
        let xff = |value| vec![("x-forwarded-for", value)];
        let fwd = |value| vec![("forwarded", value)];
        for (lines, client) in [
            (xff("192.0.2.1"), "192.0.2.1"),
            (xff("192.0.2.1, 10.0.0.2"), "192.0.2.1"),
            (xff("evil, 198.51.100.9,192.0.2.1 ,10.0.0.2"), "192.0.2.1"),
            (xff("127.0.0.1, 192.0.2.1"), "192.0.2.1"),
            (xff("192.0.2.1:4711"), "192.0.2.1"),
            (xff("::ffff:192.0.2.1"), "192.0.2.1"),
            (xff("2001:db8::7"), "2001:db8::7"),
            (xff("[2001:db8::7]:1"), "2001:db8::7"),
            (xff("[2001:db8::7]"), "2001:db8::7"),
            // A client within the networks may have written whatever stands before it.
            (xff("10.0.0.7, 10.0.0.2"), "10.0.0.2"),
            (xff("127.0.0.1, 10.0.0.7, 10.0.0.2"), "10.0.0.2"),
            (xff("evil, 10.0.0.2"), "10.0.0.2"),
            (xff("10.0.0.2"), "10.0.0.2"),
            (fwd("for=10.0.0.7, for=_hidden, for=10.0.0.2"), "10.0.0.2"),
            (
                vec![
                    ("x-forwarded-for", "192.0.2.1"),
                    ("x-forwarded-for", "10.0.0.2"),
                ],
                "192.0.2.1",
            ),
            (
                vec![
                    ("x-forwarded-for", "192.0.2.1"),
                    ("forwarded", "for=198.51.100.9"),
                ],
                "192.0.2.1",
            ),
            (fwd("for=192.0.2.1;proto=https;by=10.0.0.1"), "192.0.2.1"),
            (
                fwd("for=198.51.100.9, proto=http; For=\"[2001:db8::7]:1\""),
                "2001:db8::7",
            ),
            (fwd("for=\"198.51.100.9, for=192.0.2.1"), "192.0.2.1"),
            // What cannot be read is the proxy's own doing.
            (vec![], "10.0.0.1"),
            (xff(""), "10.0.0.1"),
            (xff("unknown"), "10.0.0.1"),
            (xff("192.0.2.1, evil"), "10.0.0.1"),
            (xff("192.0.2.1,"), "10.0.0.1"),
            (xff("192.0.2.1;"), "10.0.0.1"),
            (fwd("for=_hidden"), "10.0.0.1"),
            (fwd("proto=https"), "10.0.0.1"),
        ] {
            let told = ours.client(own, &headers(&lines));
            assert_eq!(told, client.parse::<IpAddr>().unwrap(), "{lines:?}");
        }
        let mut unreadable = HeaderMap::new();
        let bytes = header::HeaderValue::from_bytes(b"192.0.2.1, \xff").unwrap();
        unreadable.insert("x-forwarded-for", bytes);
        assert_eq!(ours.client(own, &unreadable), own);
    }

    #[test]
    fn the_scheme_is_what_the_nearest_proxy_says() {
        let ours = proxies(&["10.0.0.0/8"]);
        for (lines, scheme) in [
            (vec![("x-forwarded-proto", "https")], Some(Scheme::Https)),
            (
                vec![("x-forwarded-proto", "https, http")],
                Some(Scheme::Http),
            ),
            (
                vec![("forwarded", "for=192.0.2.1;proto=HTTPS")],
                Some(Scheme::Https),
            ),
            (vec![("x-forwarded-proto", "wss")], None),
            (vec![("forwarded", "for=192.0.2.1")], None),
            (vec![], None),
        ] {
            assert_eq!(ours.scheme(&headers(&lines)), scheme, "{lines:?}");
        }
    }
}
