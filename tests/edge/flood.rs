//! What a flood meets at the nginx of docs/operations.md, and that the others go on. The bounds are as they stand there,
//! but smaller, and a minute for a second, so that no test is too slow to come to them.

use rustls::version::TLS13;
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Answer, handshake,
    hardened::{JWKS, Nginx, bearer, blocks, gateway, replaced},
    heard_on, request, tls,
};
use crate::{
    auth::{endpoint::Endpoint, issuer::Pair},
    support::{Authority, Server, in_time, wait_until},
};

/// Has nginx take a client for whom the test says that he is: a machine has few addresses.
const POSE: &str = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Posed;\n";

const CONNECTIONS: (&str, &str) = (
    "limit_conn rowcast_connections 100",
    "limit_conn rowcast_connections 3",
);

const REQUESTS: [(&str, &str); 4] = [
    ("rate=50r/s", "rate=1r/m"),
    ("burst=200 ", "burst=5 "),
    ("rate=500r/s", "rate=1r/m"),
    ("burst=5000 ", "burst=20 "),
];

/// A gateway behind it.
struct Bounded {
    nginx: Nginx,
    connector: TlsConnector,
    token: String,
    _server: Server,
    _issuer: Endpoint,
    _authority: Authority,
}

impl Bounded {
    async fn start(changes: &[(&str, &str)]) -> Self {
        let authority = Authority::new("ours");
        tls::certify(
            &authority,
            &[authority.path("used.crt"), authority.path("used.key")],
        );
        let pair = Pair::rsa();
        let issuer = Endpoint::new(json!({ "keys": [pair.named("one")] })).await;
        let settings = [("127.0.0.1:9888", "127.0.0.1:0"), (JWKS, issuer.url())];
        let server = gateway(&replaced(&blocks("toml")[0], &settings), None);
        let http = replaced(&blocks("nginx")[0], changes);
        let http = replaced(&http, &[("127.0.0.1:8888", server.address())]);
        Self {
            nginx: Nginx::start(&authority, &format!("{POSE}{http}")),
            connector: tls::client(&authority, &[&TLS13], &[]),
            token: bearer(pair, json!({})),
            _server: server,
            _issuer: issuer,
            _authority: authority,
        }
    }

    /// The headers of a client there.
    fn headers(&self, from: &str) -> String {
        let token = &self.token;
        format!("Host: care.example.org\r\nX-Posed: {from}\r\n{token}")
    }

    async fn get(&self, from: &str, more: &str) -> Answer {
        let headers = format!("{}{more}", self.headers(from));
        let asked = request("GET /api/topics", &headers);
        self.nginx.say(&self.connector, &asked).await
    }

    /// A socket that stays open, or why there is none.
    async fn socket(&self, from: &str) -> Result<TlsStream<TcpStream>, Answer> {
        let dialled = tls::dial_to(&self.nginx.address, &self.connector).await;
        let mut stream = dialled.unwrap();
        let headers = format!("{}Connection: close\r\n", self.headers(from));
        let asked = handshake("/socket/all/", &headers);
        stream.write_all(&asked).await.unwrap();
        let answer = heard_on(&mut stream).await;
        match answer.status {
            101 => Ok(stream),
            _ => Err(answer),
        }
    }

    /// How many requests of a client are answered before one is refused.
    async fn answered(&self, from: &str) -> usize {
        for answered in 0..60 {
            let answer = self.get(from, "").await;
            if answer.status == 429 {
                return answered;
            }
            assert_eq!(answer.status, 200, "{}", answer.head);
        }
        panic!("sixty requests were answered");
    }
}

/// Fails where a client could not tell that it is to come back, and when.
#[track_caller]
fn is_told_to_come_back(answer: &Answer) {
    assert_eq!(answer.status, 429, "{}", answer.head);
    assert_eq!(answer.header("retry-after").as_deref(), Some("5"));
    let kind = answer.header("content-type");
    assert_eq!(kind.as_deref(), Some("application/json"));
    let body: Json = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["error"], "too_many_requests", "{body}");
    assert_eq!(body["retry_after_ms"], 5000, "{body}");
}

/// Has a socket answer.
async fn goes_on(socket: &mut TlsStream<TcpStream>) {
    let ping = b"\x81\x9b\0\0\0\0{\"type\":\"sys:ping\",\"rid\":7}";
    socket.write_all(ping).await.unwrap();
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("\"rid\":7") {
        let read = in_time("a pong", socket.read_buf(&mut told)).await;
        assert!(read.unwrap() > 0, "the socket was closed");
    }
}

#[tokio::test]
async fn a_client_has_so_many_sockets_through_nginx_and_others_have_theirs() {
    let bounded = Bounded::start(&[CONNECTIONS]).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(bounded.socket("192.0.2.1").await.unwrap());
    }
    is_told_to_come_back(&bounded.socket("192.0.2.1").await.unwrap_err());
    let stream = "Accept: text/event-stream\r\n";
    let answer = bounded.get("192.0.2.1", stream).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let kind = answer.header("content-type");
    assert_eq!(kind.as_deref(), Some("text/event-stream"));
    let told = String::from_utf8_lossy(&answer.body);
    assert!(told.contains("retry: 5000\n\n"), "{told}");
    let mut other = bounded.socket("192.0.2.2").await.unwrap();
    goes_on(&mut other).await;
    for socket in &mut sockets {
        goes_on(socket).await;
    }
    sockets.pop();
    wait_until("the place of a socket that has gone", async || {
        bounded.socket("192.0.2.1").await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_client_asks_so_often_through_nginx_and_others_do_as_they_did() {
    let bounded = Bounded::start(&REQUESTS).await;
    let mut socket = bounded.socket("192.0.2.1").await.unwrap();
    // One at once, and five more; one was the socket's. A minute brings another.
    let answered = bounded.answered("192.0.2.1").await;
    assert!((5..=8).contains(&answered), "{answered}");
    is_told_to_come_back(&bounded.get("192.0.2.1", "").await);
    is_told_to_come_back(&bounded.socket("192.0.2.1").await.unwrap_err());
    goes_on(&mut socket).await;
    // Of IPv6 all addresses of one /64 are one client.
    assert!(bounded.answered("2001:db8:1:2::1").await >= 6);
    let same = bounded.answered("2001:db8:1:2:ffff::0a0a").await;
    assert!(same < 5, "{same}");
    // And all of a /48 have a bound together, that of a hostile network.
    let mut network = 0;
    for number in 3..12 {
        network += bounded.answered(&format!("2001:db8:1:{number}::1")).await;
    }
    assert!((13..=20).contains(&network), "{network}");
    for other in ["192.0.2.2", "198.51.10.10", "2001:db8:2:2::1"] {
        assert_eq!(bounded.get(other, "").await.status, 200, "{other}");
        goes_on(&mut bounded.socket(other).await.unwrap()).await;
    }
}
