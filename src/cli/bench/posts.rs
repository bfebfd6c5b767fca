//! Events published with `POST`, over connections that are kept: one request at a time on each.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use anyhow::{Context, bail};
use mio::{Interest, Registry, Token, net::TcpStream};

use super::{body::Body, mark::Mark, plan::Target, publisher::open};

/// Events that wait for a free connection; with more, nothing is added.
const MAX_WAITING: usize = 1_000_000;

/// Connections to one server.
pub struct Posts {
    connections: Vec<Connection>,
    first: usize,
    head: String,
    waiting: VecDeque<Mark>,
    free: Vec<usize>,
    /// Connections that the server has closed while they had nothing to do, as it may.
    gone: usize,
    /// The first answer that was not 2xx.
    pub refusal: Option<String>,
}

struct Connection {
    tcp: TcpStream,
    /// The number of the event under way.
    asked: Option<u64>,
    request: Vec<u8>,
    written: usize,
    answer: Vec<u8>,
}

impl Posts {
    /// Connects that often.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(
        target: &Target,
        (registry, first, count): (&Registry, usize, usize),
    ) -> anyhow::Result<Self> {
        let mut connections = Vec::new();
        for index in 0..count.max(1) {
            let mut tcp = open(target)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut tcp, Token(first + index), interest)?;
            connections.push(Connection {
                tcp,
                asked: None,
                request: Vec::new(),
                written: 0,
                answer: Vec::new(),
            });
        }
        let (path, host) = (&target.path, &target.host);
        Ok(Self {
            free: (0..connections.len()).rev().collect(),
            connections,
            first,
            head: format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            ),
            waiting: VecDeque::new(),
            gone: 0,
            refusal: None,
        })
    }

    /// Whether another event may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// Whether everything is answered.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.free.len() + self.gone == self.connections.len()
    }

    /// An event to be sent when there is a connection.
    pub fn add(&mut self, mark: Mark) {
        self.waiting.push_back(mark);
    }

    /// Sends what waits, as far as connections are free.
    ///
    /// # Errors
    /// A connection is gone.
    pub fn flush(&mut self, body: &Body) -> anyhow::Result<()> {
        while let Some(mark) = self.waiting.front()
            && let Some(index) = self.free.pop()
        {
            let connection = &mut self.connections[index];
            connection.asked = Some(mark.number);
            connection.written = 0;
            connection.request.clear();
            let length = format!("Content-Length: {}\r\n\r\n", body.len());
            connection.request.extend_from_slice(self.head.as_bytes());
            connection.request.extend_from_slice(length.as_bytes());
            body.write(*mark, &mut connection.request);
            self.waiting.pop_front();
            connection.write()?;
        }
        if !self.waiting.is_empty() && self.gone == self.connections.len() {
            bail!("the server has closed all connections, which it should keep");
        }
        Ok(())
    }

    /// Reads answers; the numbers of events that were refused go to `refused`.
    ///
    /// # Errors
    /// A connection is gone.
    pub fn ready(&mut self, token: Token, refused: &mut Vec<u64>) -> anyhow::Result<()> {
        let index = token.0 - self.first;
        let Some(connection) = self.connections.get_mut(index) else {
            return Ok(());
        };
        connection.write()?;
        let side = connection.read()?;
        let Some((status, length)) = answer(&connection.answer) else {
            if side == Side::Closed {
                if connection.asked.is_some() {
                    bail!("the server has closed a connection instead of answering");
                }
                let before = self.free.len();
                self.free.retain(|free| *free != index);
                self.gone += before - self.free.len();
            }
            return Ok(());
        };
        let Some(number) = connection.asked.take() else {
            bail!("the server answers what nobody asked");
        };
        if !(200..300).contains(&status) {
            refused.push(number);
            let text = || String::from_utf8_lossy(&connection.answer[..length]).into_owned();
            self.refusal.get_or_insert_with(text);
        }
        connection.answer.drain(..length);
        match side {
            Side::Open => self.free.push(index),
            Side::Closed => self.gone += 1,
        }
        Ok(())
    }
}

impl Connection {
    fn write(&mut self) -> io::Result<()> {
        while self.written < self.request.len() {
            match self.tcp.write(&self.request[self.written..]) {
                Ok(written) => self.written += written,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> anyhow::Result<Side> {
        let mut buffer = [0; 4096];
        loop {
            match self.tcp.read(&mut buffer) {
                Ok(0) => return Ok(Side::Closed),
                Err(err) if err.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Side::Closed);
                }
                Ok(read) => self.answer.extend_from_slice(&buffer[..read]),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(Side::Open),
                Err(err) => return Err(err).context("reading an answer"),
            }
        }
    }
}

/// Whether the server's side of a connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Open,
    Closed,
}

/// Status and length of the answer that `bytes` begin with, once it is whole.
fn answer(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let begin = end + 4;
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let length = match header("content-length:") {
        Some(length) => begin + length.trim().parse::<usize>().ok()?,
        None if header("transfer-encoding:").is_some() => {
            begin + memchr::memmem::find(&bytes[begin..], b"0\r\n\r\n")? + 5
        }
        None => begin,
    };
    (bytes.len() >= length).then_some((status, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closed_while_it_has_nothing_to_do_is_not_needed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/events", listener.local_addr().unwrap());
        let target = Target::parse(&url, &["http"]).unwrap();
        let mut poll = mio::Poll::new().unwrap();
        let mut posts = Posts::connect(&target, (poll.registry(), 0, 2)).unwrap();
        let mut taken = vec![listener.accept().unwrap().0, listener.accept().unwrap().0];
        let mut until = |posts: &mut Posts, done: &dyn Fn(&Posts) -> bool| {
            let mut events = mio::Events::with_capacity(8);
            while !done(posts) {
                poll.poll(&mut events, Some(std::time::Duration::from_secs(10)))
                    .unwrap();
                assert!(!events.is_empty(), "nothing happens");
                for event in &events {
                    posts.ready(event.token(), &mut Vec::new())?;
                }
            }
            anyhow::Ok(())
        };
        drop(taken.remove(0));
        until(&mut posts, &|posts| posts.gone == 1).unwrap();
        assert!(posts.is_idle());
        posts.add(Mark {
            due_ns: 1,
            number: 0,
        });
        posts.flush(&Body::parse("{mark}", 60).unwrap()).unwrap();
        taken[0]
            .write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        until(&mut posts, &|posts| posts.is_idle()).unwrap();
        posts.add(Mark {
            due_ns: 1,
            number: 1,
        });
        posts.flush(&Body::parse("{mark}", 60).unwrap()).unwrap();
        taken.clear();
        let err = until(&mut posts, &|posts| posts.is_idle()).unwrap_err();
        assert!(err.to_string().contains("instead of answering"), "{err}");
    }

    #[test]
    fn an_answer_ends_where_it_says() {
        let text = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nokHTTP";
        assert_eq!(answer(text), Some((202, text.len() - 4)));
        assert_eq!(answer(&text[..text.len() - 5]), None);
        let text = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
        assert_eq!(answer(text), Some((500, text.len())));
        assert_eq!(answer(b"HTTP/1.1 204 None\r\n\r\n"), Some((204, 21)));
    }
}
