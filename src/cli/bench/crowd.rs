//! The sockets: opened, read, and counted.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use anyhow::{Context, bail};
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{
    frame,
    mark::now_ns,
    plan::{Opening, Target},
    tally::{Progress, Tally, Window},
    walk::{Inflated, Walk, Walked},
};

/// The one buffer into which all sockets are read.
const BUFFER_BYTES: usize = 256 * 1024;

/// The longest answer to a handshake.
const MAX_ANSWER: usize = 16 * 1024;

/// A key as good as any: it only proves that the server has read it (RFC 6455 §1.3).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a server makes of [`KEY`].
const ACCEPT: &[u8] = b"s3pplmbitxaq9kygzzhzrbk+xoo=";

/// The receive buffer of a socket that does not read: the least that Linux gives.
const STALLED_BUFFER: usize = 4096;

/// Compression, without memory between messages: what a server needs to compress once for all.
const OFFER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// All sockets of a run. The first ones read, then come those that ask, then those that stall.
pub struct Crowd {
    sockets: Vec<Socket>,
    buffer: Vec<u8>,
    inflated: Inflated,
    answers: Vec<u8>,
    request: Vec<u8>,
    /// The messages that a socket sends first, as frames.
    first: Vec<u8>,
    nats: bool,
    /// Handshakes that are done.
    pub open: usize,
    /// Handshakes that are not.
    pub pending: usize,
    /// Sockets that the server has closed, by code; 1006 where it just went.
    pub closed: BTreeMap<u16, u64>,
    /// Whether compression was agreed upon.
    pub deflate: bool,
}

struct Socket {
    /// None once it is closed.
    tcp: Option<TcpStream>,
    state: State,
    /// The beginning of a frame, or of an answer, while it is incomplete.
    partial: Vec<u8>,
    /// Bytes of a long frame that were not consumed yet.
    skip: u64,
    progress: Progress,
    /// When the question under way was sent, for sockets that ask.
    asked_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Answering,
    Open,
    /// It does not read.
    Stalled,
}

/// What was found on a socket that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Deliveries with a mark.
    pub marked: u64,
    /// Data frames without.
    pub unmarked: u64,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(target: &Target, opening: &Opening) -> Self {
        let mut request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n",
            target.path, target.host
        );
        if opening.deflate {
            request += &format!("Sec-WebSocket-Extensions: {OFFER}\r\n");
        }
        for header in &opening.headers {
            request += &format!("{header}\r\n");
        }
        request += "\r\n";
        let mut first = Vec::new();
        for (opcode, payload) in &opening.first {
            frame::write(*opcode, payload, &mut first);
        }
        Self {
            sockets: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            inflated: Inflated::new(),
            answers: Vec::new(),
            request: request.into_bytes(),
            first,
            nats: opening.nats,
            open: 0,
            pending: 0,
            closed: BTreeMap::new(),
            deflate: false,
        }
    }

    /// How many were begun.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Begins another one.
    ///
    /// # Errors
    /// It cannot be opened at all.
    pub fn connect(
        &mut self,
        target: &Target,
        registry: &Registry,
        stalls: bool,
    ) -> anyhow::Result<()> {
        let address = target.address.context("no address")?;
        let opened = match stalls {
            false => TcpStream::connect(address),
            true => stalling(address),
        };
        let mut tcp = opened.context("a socket cannot be opened")?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut tcp, Token(self.sockets.len()), interest)?;
        self.pending += 1;
        self.sockets.push(Socket {
            tcp: Some(tcp),
            state: State::Connecting,
            partial: Vec::new(),
            skip: 0,
            progress: Progress::default(),
            asked_ns: 0,
        });
        Ok(())
    }

    /// Goes on with a socket whose handshake is not done.
    ///
    /// # Errors
    /// The server does not take it; it says why.
    pub fn shake(&mut self, index: usize, stalls: bool) -> anyhow::Result<()> {
        let socket = &mut self.sockets[index];
        let Some(tcp) = &mut socket.tcp else {
            return Ok(());
        };
        if socket.state == State::Connecting {
            match tcp.write(&self.request) {
                Ok(written) if written == self.request.len() => socket.state = State::Answering,
                Ok(_) => bail!("a handshake could not be sent in one piece"),
                Err(err) if not_yet(&err) => return Ok(()),
                Err(err) => return Err(err).context("the server takes no connection"),
            }
        }
        if socket.state != State::Answering {
            return Ok(());
        }
        while memchr::memmem::find(&socket.partial, b"\r\n\r\n").is_none() {
            // In small steps: what comes behind the answer is a frame already.
            match tcp.read(&mut self.buffer[..MAX_ANSWER]) {
                Ok(0) => {
                    bail!("the server has closed the connection instead of answering the handshake")
                }
                Ok(read) => socket.partial.extend_from_slice(&self.buffer[..read]),
                Err(err) if not_yet(&err) => return Ok(()),
                Err(err) => return Err(err).context("during the handshake"),
            }
            if socket.partial.len() > MAX_ANSWER {
                break;
            }
        }
        self.deflate |= agreed(&mut socket.partial)?;
        let sent = tcp
            .write(&self.first)
            .context("sending the first messages")?;
        if sent < self.first.len() {
            bail!("the first messages do not fit into the socket");
        }
        socket.state = match stalls {
            true => State::Stalled,
            false => State::Open,
        };
        self.pending -= 1;
        self.open += 1;
        Ok(())
    }

    /// Whether this socket's handshake is still under way.
    pub fn is_pending(&self, index: usize) -> bool {
        let state = self.sockets[index].state;
        matches!(state, State::Connecting | State::Answering)
    }

    /// Reads all that a socket has, and counts it.
    pub fn read(
        &mut self,
        index: usize,
        tally: &mut Tally,
        mut window: Option<&mut Window>,
    ) -> Heard {
        let mut heard = Heard {
            marked: 0,
            unmarked: 0,
        };
        let socket = &mut self.sockets[index];
        if socket.state != State::Open {
            return heard;
        }
        let mut closed = None;
        while let Some(tcp) = &mut socket.tcp {
            let kept = socket.partial.len();
            let room = self.buffer.len() - kept;
            let read = match tcp.read(&mut self.buffer[kept..]) {
                Ok(0) => {
                    closed = closed.or(Some(1006));
                    break;
                }
                // What a handshake's answer had behind it is there without a read.
                Err(err) if not_yet(&err) => break,
                Err(_) => {
                    closed = closed.or(Some(1006));
                    break;
                }
                Ok(read) => read,
            };
            tally.bytes += read as u64;
            self.buffer[..kept].copy_from_slice(&socket.partial);
            let walked = Walk {
                tally,
                window: window.as_deref_mut(),
                inflated: &mut self.inflated,
                now_ns: now_ns(),
                nats: self.nats,
                answers: &mut self.answers,
            }
            .all(socket, &self.buffer[..kept + read]);
            heard.marked += walked.delivered;
            heard.unmarked += walked.unmarked;
            closed = closed.or(walked.closed);
            // A read that does not fill the buffer has emptied the socket, and the next that arrives
            // is announced again (epoll(7), on edges and streams).
            if read < room {
                break;
            }
        }
        if !self.answers.is_empty() {
            if let Some(tcp) = &mut socket.tcp {
                // A pong that does not fit any more the server will miss, and close.
                let _ = tcp.write(&self.answers);
            }
            self.answers.clear();
        }
        if let Some(code) = closed {
            socket.tcp = None;
            *self.closed.entry(code).or_default() += 1;
        }
        heard
    }

    /// Sends a message; returns whether the socket took it.
    pub fn ask(&mut self, index: usize, text: &[u8], at_ns: u64) -> bool {
        let socket = &mut self.sockets[index];
        let Some(tcp) = &mut socket.tcp else {
            return false;
        };
        socket.asked_ns = at_ns;
        let mut question = Vec::with_capacity(text.len() + 14);
        frame::write(frame::TEXT, text, &mut question);
        matches!(tcp.write(&question), Ok(written) if written == question.len())
    }

    /// When this socket's question was sent.
    pub fn asked_ns(&self, index: usize) -> u64 {
        self.sockets[index].asked_ns
    }
}

impl Walk<'_> {
    /// Counts what is new on a socket, and keeps what is incomplete.
    fn all(&mut self, socket: &mut Socket, bytes: &[u8]) -> Walked {
        let walked = self.over(bytes, socket.skip, &mut socket.progress);
        socket.skip = walked.skip;
        let rest = &bytes[walked.consumed..];
        match rest.is_empty() {
            // Nothing is kept for a socket that has nothing to wait for.
            true => socket.partial = Vec::new(),
            false => {
                socket.partial.clear();
                socket.partial.extend_from_slice(rest);
            }
        }
        walked
    }
}

/// Takes the answer to a handshake off what was read. Returns whether compression was agreed upon.
fn agreed(read: &mut Vec<u8>) -> anyhow::Result<bool> {
    let end = memchr::memmem::find(read, b"\r\n\r\n")
        .context("the answer to the handshake is too long")?;
    let answer: Vec<u8> = read.drain(..end + 4).collect();
    let lower = answer.to_ascii_lowercase();
    if !lower.starts_with(b"http/1.1 101 ") {
        let mut told = answer;
        told.extend_from_slice(read);
        let told = String::from_utf8_lossy(&told[..told.len().min(500)]).into_owned();
        bail!("the server does not open a WebSocket; it answers\n{told}");
    }
    if memchr::memmem::find(&lower, ACCEPT).is_none() {
        bail!("the server's Sec-WebSocket-Accept is wrong");
    }
    Ok(memchr::memmem::find(&lower, b"permessage-deflate").is_some())
}

fn not_yet(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}

/// A socket with a small receive buffer, which must be set before it is connected.
fn stalling(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_recv_buffer_size(STALLED_BUFFER)?;
    socket.connect(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}
