//! Where strangers meet the server: which names it answers to, which pages may ask, what a request may
//! bring, who is believed, and what is shown to whom. Tables of concrete inputs, against the real server.

mod behind;
mod bodies;
mod cors;
mod flood;
mod framing;
mod hardened;
mod hosts;
mod operator;
mod origins;
mod proxies;
pub mod tls;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    support::{Options, Server, in_time},
    wire::{CARE, CARE_TABLES},
};

/// The headers that ask for a socket.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A gateway on the care home with these settings of `[server]`.
fn tuned(settings: &str) -> Server {
    let config = format!("[auth]\nanonymous = true\n[server]\n{settings}\n{CARE}");
    Server::configured(&config, CARE_TABLES)
}

/// The same, on a listener that others reach.
fn open(settings: &str) -> Server {
    Server::with(Options {
        config: Some(format!(
            "[auth]\nanonymous = true\n[server]\n{settings}\n{CARE}"
        )),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    })
}

/// What came of a request.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    /// What follows the head, which for a socket are frames.
    body: Vec<u8>,
}

impl Answer {
    /// The values of a header, its lines joined.
    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let values: Vec<_> = lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_ascii_lowercase())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The slug of an error.
    fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"].as_str().unwrap_or_default().to_owned()
    }

    /// The code with which a socket was closed at once.
    fn close_code(&self) -> Option<u16> {
        match self.body.as_slice() {
            [0x88, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
            _ => None,
        }
    }
}

async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends bytes on a connection of their own. A socket that stays open is left when its head is there; all
/// else is read to its end, which the server must bring about.
async fn say(address: &str, bytes: &[u8]) -> Answer {
    let mut stream = connect(address).await;
    // A server that has closed the connection already is no failure.
    let _ = stream.write_all(bytes).await;
    heard_on(&mut stream).await
}

/// What is answered on a connection.
async fn heard_on(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Answer {
    let mut all = Vec::new();
    let head = loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break all.drain(..end + 4).collect::<Vec<_>>();
        }
        let read = in_time("an answer", stream.read_buf(&mut all)).await;
        if read.is_err() || matches!(read, Ok(0)) {
            break std::mem::take(&mut all);
        }
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.unwrap_or(0);
    if status == 101 {
        // Who is refused is told so at once; who is let in is sent the answer to a question.
        let ping = b"\x81\x93\0\0\0\0{\"type\":\"sys:ping\"}";
        let _ = stream.write_all(ping).await;
        while all.len() < 4 {
            match in_time("a frame", stream.read_buf(&mut all)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
    } else {
        let _ = in_time("a connection's end", stream.read_to_end(&mut all)).await;
    }
    Answer {
        status,
        head,
        body: all,
    }
}

/// A request of one line and these headers, the last on its connection.
fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").into_bytes()
}

/// The handshake of a socket.
fn handshake(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n{headers}{UPGRADE}\r\n").into_bytes()
}
