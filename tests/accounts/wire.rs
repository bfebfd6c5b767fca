//! The protocol of NATS by hand, for what a client library hides: each line, and whether the server
//! refuses it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use crate::support::Nats;

/// A connection as one user.
pub struct Wire {
    stream: BufReader<TcpStream>,
    subscriptions: u32,
}

impl Wire {
    /// Connects as a user of nats/server.conf.
    pub fn open(nats: &Nats, user: &str) -> Self {
        Self::try_open(nats, user, &format!("{user}-s3cret")).unwrap()
    }

    /// Connects as whoever it may be; what the server says against it.
    pub fn try_open(nats: &Nats, user: &str, password: &str) -> Result<Self, String> {
        let address = nats.url().replace("nats://", "");
        let stream = TcpStream::connect(address).unwrap();
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).unwrap();
        let mut wire = Self {
            stream: BufReader::new(stream),
            subscriptions: 0,
        };
        let mut info = String::new();
        wire.stream.read_line(&mut info).unwrap();
        let hello = json!({
            "user": user, "pass": password, "verbose": false, "pedantic": false, "headers": true,
            "no_responders": true, "protocol": 1, "lang": "test", "version": "0",
        });
        match wire.say(&format!("CONNECT {hello}\r\n")) {
            None => Ok(wire),
            Some(refused) => Err(refused),
        }
    }

    /// Publishes; what the server says against it.
    pub fn publish(&mut self, subject: &str, body: &str) -> Option<String> {
        self.say(&format!("PUB {subject} {}\r\n{body}\r\n", body.len()))
    }

    /// Publishes with this above the body, headers or not; what the server says against it.
    pub fn publish_under(&mut self, subject: &str, above: &[u8], body: &str) -> Option<String> {
        let bytes = above.len();
        let line = format!("HPUB {subject} {bytes} {}\r\n", bytes + body.len());
        self.say_bytes(&[line.as_bytes(), above, body.as_bytes(), b"\r\n"].concat())
    }

    /// Publishes on a subject of any bytes; what the server says against it.
    pub fn publish_on(&mut self, subject: &[u8], body: &str) -> Option<String> {
        let bytes = format!(" {}\r\n{body}\r\n", body.len());
        self.say_bytes(&[b"PUB ", subject, bytes.as_bytes()].concat())
    }

    /// Asks, with the answer to go elsewhere.
    pub fn ask(&mut self, subject: &str, inbox: &str, body: &str) -> Option<String> {
        let bytes = body.len();
        self.say(&format!("PUB {subject} {inbox} {bytes}\r\n{body}\r\n"))
    }

    /// Listens; what the server says against it.
    pub fn subscribe(&mut self, subject: &str, queue: &str) -> Option<String> {
        self.subscriptions += 1;
        let number = self.subscriptions;
        let refused = self.say(&format!("SUB {subject} {queue} {number}\r\n"));
        if refused.is_none() {
            self.say(&format!("UNSUB {number}\r\n"));
        }
        refused
    }

    /// Sends a line, and waits until the server has come past it.
    fn say(&mut self, line: &str) -> Option<String> {
        self.say_bytes(line.as_bytes())
    }

    fn say_bytes(&mut self, line: &[u8]) -> Option<String> {
        let sent = self.stream.get_mut();
        sent.write_all(&[line, b"PING\r\n"].concat()).unwrap();
        let mut refused = None;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).unwrap_or(0) == 0 {
                return Some(refused.unwrap_or_else(|| "the connection was cut".into()));
            }
            match line.trim_end() {
                "PONG" => return refused,
                "PING" => self.stream.get_mut().write_all(b"PONG\r\n").unwrap(),
                line if line.starts_with("-ERR") => refused = Some(line.to_owned()),
                // A message, or its body.
                _ => {}
            }
        }
    }
}

/// `GET` of a server that closes the connection after its answer: the body.
pub fn get(base: &str, path: &str) -> String {
    let host = base.replace("http://", "");
    let mut stream = TcpStream::connect(&host).unwrap();
    let ask = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
