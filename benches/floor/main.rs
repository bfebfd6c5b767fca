//! What the kernel allows: WebSockets that are nothing but a file descriptor and a place in a log,
//! and a loop that sends. It is the floor against which `benches/peers/run` holds every server.
//!
//! `floor plain|batched|echo LISTEN [PUBLISH]`: `plain` sends every event to every socket on its own,
//! `batched` sends each socket all that is new to it at once, `echo` answers what it is asked.
//! Events come over PUBLISH, four bytes of length before each.

#![allow(clippy::unwrap_used)] // a measurement that cannot go on has failed

use std::{
    env,
    io::{self, Read, Write},
    net::SocketAddr,
};

use mio::{
    Events, Interest, Poll, Registry, Token,
    net::{TcpListener, TcpStream},
};
use tungstenite::handshake::derive_accept_key;

const SOCKETS: Token = Token(usize::MAX);
const PUBLISHERS: Token = Token(usize::MAX - 1);

/// Bytes of the log; who is further behind is cut off.
const LOG_BYTES: usize = 16 * 1024 * 1024;

/// The most that one send is given.
const BATCH_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Batched,
    Echo,
}

struct Floor {
    mode: Mode,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    log: Vec<u8>,
    /// The place of the log's first byte.
    base: u64,
    buffer: Vec<u8>,
    /// The ends of events that were not sent yet.
    ends: Vec<u64>,
}

struct Connection {
    tcp: TcpStream,
    kind: Kind,
    /// Where in the log it stands.
    at: u64,
    /// Whether the socket took less than it was given.
    full: bool,
}

enum Kind {
    Shaking(Vec<u8>),
    Open,
    Publisher(Vec<u8>),
}

fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    // `cargo test --all-targets` runs this too, without any.
    let Some(mode) = arguments.next() else { return };
    let mode = match &*mode {
        "plain" => Mode::Plain,
        "batched" => Mode::Batched,
        "echo" => Mode::Echo,
        _ => panic!("plain, batched or echo"),
    };
    let mut poll = Poll::new().unwrap();
    let mut listeners = Vec::new();
    for (token, address) in [SOCKETS, PUBLISHERS].into_iter().zip(arguments) {
        let address: SocketAddr = address.parse().unwrap();
        let mut listener = TcpListener::bind(address).unwrap();
        poll.registry()
            .register(&mut listener, token, Interest::READABLE)
            .unwrap();
        listeners.push(listener);
    }
    let mut floor = Floor {
        mode,
        connections: Vec::new(),
        free: Vec::new(),
        log: Vec::with_capacity(2 * LOG_BYTES),
        base: 0,
        buffer: vec![0; 256 * 1024],
        ends: Vec::new(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            done => done.unwrap(),
        }
        for event in &events {
            match event.token() {
                SOCKETS => floor.accept(&listeners[0], poll.registry(), false),
                PUBLISHERS => floor.accept(&listeners[1], poll.registry(), true),
                Token(index) => {
                    if event.is_readable() {
                        floor.read(index);
                    }
                    if event.is_writable() {
                        floor.writable(index);
                    }
                }
            }
        }
        floor.pass();
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry, publishes: bool) {
        while let Ok((mut tcp, _)) = listener.accept() {
            let index = self.free.pop().unwrap_or(self.connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut tcp, Token(index), interest).unwrap();
            tcp.set_nodelay(true).unwrap();
            let connection = Some(Connection {
                tcp,
                kind: match publishes {
                    true => Kind::Publisher(Vec::new()),
                    false => Kind::Shaking(Vec::new()),
                },
                at: 0,
                full: false,
            });
            match index == self.connections.len() {
                true => self.connections.push(connection),
                false => self.connections[index] = connection,
            }
        }
    }

    fn read(&mut self, index: usize) {
        while let Some(Some(connection)) = self.connections.get_mut(index) {
            let read = match connection.tcp.read(&mut self.buffer) {
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => return self.drop(index),
                Ok(read) => read,
            };
            let head = self.base + self.log.len() as u64;
            match &mut connection.kind {
                Kind::Shaking(request) => {
                    request.extend_from_slice(&self.buffer[..read]);
                    if let Some(answer) = answer(request) {
                        connection.tcp.write_all(answer.as_bytes()).unwrap();
                        connection.kind = Kind::Open;
                        connection.at = head;
                    }
                }
                Kind::Open if self.mode == Mode::Echo => {
                    let frames = echoed(&self.buffer[..read]);
                    connection.tcp.write_all(&frames).unwrap();
                }
                Kind::Open => {}
                Kind::Publisher(kept) => {
                    kept.extend_from_slice(&self.buffer[..read]);
                    let mut events = &**kept;
                    while let Some((length, rest)) = events.split_first_chunk() {
                        let length = u32::from_be_bytes(*length) as usize;
                        let Some(event) = rest.get(..length) else {
                            break;
                        };
                        frame(event, &mut self.log);
                        self.ends.push(self.base + self.log.len() as u64);
                        events = &rest[length..];
                    }
                    let left = kept.len() - events.len();
                    kept.drain(..left);
                    // Whoever publishes must not keep the others from being sent to.
                    if self.ends.len() > 4096 {
                        self.pass();
                    }
                }
            }
            if read < self.buffer.len() {
                return;
            }
        }
    }

    /// Sends what is new to everybody.
    fn pass(&mut self) {
        let mut ends = std::mem::take(&mut self.ends);
        if self.mode == Mode::Batched {
            // Only the last one: all before it goes along.
            let first = ends.len().saturating_sub(1);
            ends.drain(..first);
        }
        for end in ends.drain(..) {
            for index in 0..self.connections.len() {
                self.send(index, end);
            }
        }
        self.ends = ends;
        if self.log.len() > LOG_BYTES {
            let gone = self.log.len() - LOG_BYTES / 2;
            self.log.drain(..gone);
            self.base += gone as u64;
        }
    }

    fn writable(&mut self, index: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(index)
            && connection.full
        {
            connection.full = false;
            self.send(index, self.base + self.log.len() as u64);
        }
    }

    fn send(&mut self, index: usize, end: u64) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        if connection.full || !matches!(connection.kind, Kind::Open) {
            return;
        }
        if connection.at < self.base {
            return self.drop(index);
        }
        while connection.at < end {
            let from = (connection.at - self.base) as usize;
            let to = ((end - self.base) as usize).min(from + BATCH_BYTES);
            match connection.tcp.write(&self.log[from..to]) {
                Ok(sent) => connection.at += sent as u64,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    connection.full = true;
                    return;
                }
                Err(_) => return self.drop(index),
            }
        }
    }

    fn drop(&mut self, index: usize) {
        self.connections[index] = None;
        self.free.push(index);
    }
}

fn answer(request: &[u8]) -> Option<String> {
    let end = memchr::memmem::find(request, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&request[..end]);
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?;
    let accept = derive_accept_key(key.1.as_bytes());
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

fn frame(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x81);
    match payload.len() {
        len @ 0..126 => out.push(len as u8),
        len @ 126..65_536 => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The answers to short, whole, masked frames: what the load generator asks.
fn echoed(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [_, second, rest @ ..] = bytes {
        let (len, rest) = match second & 0x7f {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            short => (usize::from(short), rest),
        };
        let (mask, rest) = rest.split_at(4);
        let payload = rest[..len].iter().zip(mask.iter().cycle());
        let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
        frame(&payload, &mut out);
        bytes = &rest[len..];
    }
    out
}
