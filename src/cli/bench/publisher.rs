//! Where events are published: over connections of its own, in the loop that also reads.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use mio::{Interest, Registry, Token, net::TcpStream, unix::pipe};

use super::{body::Body, mark::Mark, plan::Target, posts::Posts};

/// Bytes that wait for a server which takes none; with more, nothing is added until it does.
const MAX_WAITING: usize = 4 * 1024 * 1024;

/// Publishes events, each with its mark.
pub struct Publisher {
    way: Way,
    body: Body,
    /// How many were published.
    pub published: u64,
}

/// How a server takes events.
enum Way {
    /// `POST`, each answered.
    Posts(Posts),
    /// One stream, of which nothing is known but that it was written.
    Stream(Stream),
}

struct Stream {
    to: To,
    framing: Framing,
    waiting: Vec<u8>,
    written: usize,
}

enum To {
    Tcp(TcpStream),
    Child(Child, pipe::Sender),
}

/// What tells one event from the next.
enum Framing {
    /// Four bytes of length before it.
    Length,
    /// `PUB subject length`, as NATS has it.
    Nats(String),
    /// A line break behind it.
    Line,
}

impl Publisher {
    /// Connects. `tokens` are those that the poll may use for it, as many as there are `posters`.
    ///
    /// # Errors
    /// Nobody listens there, or the command cannot be started.
    pub fn connect(
        target: &Target,
        body: Body,
        (registry, first, posters): (&Registry, usize, usize),
    ) -> anyhow::Result<Self> {
        let way = match (&*target.scheme, target.address) {
            ("http", Some(_)) => Way::Posts(Posts::connect(target, (registry, first, posters))?),
            ("exec", _) => Way::Stream(Stream::start(&target.path, registry, Token(first))?),
            (_, Some(_)) => Way::Stream(Stream::connect(target, registry, Token(first))?),
            _ => bail!("{} has no address", target.scheme),
        };
        Ok(Self {
            way,
            body,
            published: 0,
        })
    }

    /// Whether there is room for an event now: elsewise the server takes none.
    pub fn has_room(&self) -> bool {
        match &self.way {
            Way::Posts(posts) => posts.has_room(),
            Way::Stream(stream) => stream.waiting.len() - stream.written < MAX_WAITING,
        }
    }

    /// Takes the next event, due at `due_ns`.
    pub fn publish(&mut self, due_ns: u64) {
        let mark = Mark {
            due_ns,
            number: self.published,
        };
        self.published += 1;
        match &mut self.way {
            Way::Posts(posts) => posts.add(mark),
            Way::Stream(stream) => stream.add(&self.body, mark),
        }
    }

    /// Writes what can be written.
    ///
    /// # Errors
    /// The server has gone.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match &mut self.way {
            Way::Posts(posts) => posts.flush(&self.body).context("publishing"),
            Way::Stream(stream) => stream.flush().context("publishing"),
        }
    }

    /// Something can be read or written; the numbers of refused events go to `refused`.
    ///
    /// # Errors
    /// The server has gone.
    pub fn ready(&mut self, token: Token, refused: &mut Vec<u64>) -> anyhow::Result<()> {
        match &mut self.way {
            Way::Posts(posts) => posts.ready(token, refused).context("publishing")?,
            Way::Stream(stream) => stream.read().context("publishing")?,
        }
        self.flush()
    }

    /// Whether everything is written, and answered where there are answers.
    pub fn is_idle(&self) -> bool {
        match &self.way {
            Way::Posts(posts) => posts.is_idle(),
            Way::Stream(stream) => stream.waiting.is_empty(),
        }
    }

    /// What the server said when it refused the first of them.
    pub fn refusal(&self) -> Option<&str> {
        match &self.way {
            Way::Posts(posts) => posts.refusal.as_deref(),
            Way::Stream(_) => None,
        }
    }
}

impl Stream {
    fn connect(target: &Target, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let mut tcp = open(target)?;
        registry.register(&mut tcp, token, Interest::READABLE | Interest::WRITABLE)?;
        let (framing, waiting) = match target.scheme == "nats" {
            true => {
                let hello = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
                let subject = target.subject().to_owned();
                (Framing::Nats(subject), hello.as_bytes().to_vec())
            }
            false => (Framing::Length, Vec::new()),
        };
        Ok(Self {
            to: To::Tcp(tcp),
            framing,
            waiting,
            written: 0,
        })
    }

    fn start(command: &str, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let started = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .spawn();
        let mut child = started.with_context(|| format!("exec:{command} cannot be started"))?;
        let stdin = child.stdin.take().context("the command has no input")?;
        let mut sender = pipe::Sender::from(stdin);
        sender.set_nonblocking(true)?;
        registry.register(&mut sender, token, Interest::WRITABLE)?;
        Ok(Self {
            to: To::Child(child, sender),
            framing: Framing::Line,
            waiting: Vec::new(),
            written: 0,
        })
    }

    fn add(&mut self, body: &Body, mark: Mark) {
        let out = &mut self.waiting;
        match &self.framing {
            Framing::Length => out.extend_from_slice(&(body.len() as u32).to_be_bytes()),
            Framing::Nats(subject) => {
                out.extend_from_slice(format!("PUB {subject} {}\r\n", body.len()).as_bytes());
            }
            Framing::Line => {}
        }
        body.write(mark, out);
        match &self.framing {
            Framing::Length => {}
            Framing::Nats(_) => out.extend_from_slice(b"\r\n"),
            Framing::Line => out.push(b'\n'),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.waiting.len() {
            let rest = &self.waiting[self.written..];
            let written = match &mut self.to {
                To::Tcp(tcp) => tcp.write(rest),
                To::Child(_, sender) => sender.write(rest),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.written += written,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(err) => return Err(err),
            }
        }
        self.waiting.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads what nobody asked for. A NATS server greets, and wants its pings answered.
    fn read(&mut self) -> anyhow::Result<()> {
        let To::Tcp(tcp) = &mut self.to else {
            return Ok(());
        };
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = match tcp.read(&mut buffer) {
                Ok(0) => bail!("the server has closed the connection"),
                Ok(read) => &buffer[..read],
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) => return Err(err.into()),
            };
            if let (Framing::Nats(_), Ok(text)) = (&self.framing, std::str::from_utf8(read)) {
                if let Some(line) = text.lines().find(|line| line.starts_with("-ERR")) {
                    bail!("NATS says {line}");
                }
                if text.contains("PING\r\n") {
                    self.waiting.extend_from_slice(b"PONG\r\n");
                }
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let To::Child(child, _) = &mut self.to {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Opens a connection, and waits until somebody has taken it.
///
/// # Errors
/// Nobody has.
pub fn open(target: &Target) -> anyhow::Result<TcpStream> {
    let address = target.address.context("no address")?;
    let tcp = std::net::TcpStream::connect(address)
        .with_context(|| format!("nobody listens at {}://{}", target.scheme, target.host))?;
    tcp.set_nodelay(true)?;
    tcp.set_nonblocking(true)?;
    Ok(TcpStream::from_std(tcp))
}
