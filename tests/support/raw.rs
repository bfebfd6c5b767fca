//! A WebSocket client that can break every rule: bytes over TCP, frames made by hand, and no
//! pong unless a test sends one.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{Closed, Server, in_time};

/// The first byte of a whole text frame.
pub const TEXT: u8 = 0x81;

/// Bytes that the kernel holds for this client: little, so that not reading is soon noticed.
const RECEIVE_BUFFER: u32 = 8 * 1024;

/// A TCP connection on which the handshake was spoken.
pub struct Raw {
    stream: TcpStream,
}

/// The head of an answer, and nothing of what follows it; what there is of it where the connection ends.
pub async fn head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut seen) = (Vec::new(), [0; 4096]);
    loop {
        let count = in_time("an answer's head", stream.peek(&mut seen)).await;
        let count = count.unwrap_or(0);
        let before = head.len();
        head.extend(&seen[..count]);
        let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        head.truncate(end.map_or(head.len(), |end| end + 4));
        let used = head.len() - before;
        // It was just seen there.
        stream.read_exact(&mut seen[..used]).await.unwrap();
        if end.is_some() || count == 0 {
            return head;
        }
    }
}

impl Raw {
    /// Asks for an upgrade; returns the connection and the head of the answer, empty where there is none.
    pub async fn ask(server: &Server, path: &str, headers: &str) -> (Self, String) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let stream = socket.connect(server.address().parse().unwrap()).await;
        Self::ask_over(stream.unwrap(), server, path, headers).await
    }

    /// Opens a socket of the group on a connection of one's own.
    pub async fn shaking_hands(stream: TcpStream, server: &Server) -> Self {
        let (raw, head) = Self::ask_over(stream, server, "/socket/all/", "").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    async fn ask_over(
        stream: TcpStream,
        server: &Server,
        path: &str,
        headers: &str,
    ) -> (Self, String) {
        let mut raw = Self { stream };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
            server.address()
        );
        raw.bytes(request.as_bytes()).await;
        let head = head(&mut raw.stream).await;
        (raw, String::from_utf8(head).unwrap())
    }

    /// Goes on with a connection on which the handshake was spoken.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Opens a socket on a path.
    pub async fn open(server: &Server, path: &str) -> Self {
        let (raw, head) = Self::ask(server, path, "").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    /// Sends bytes as they are; a server that has closed the connection already is no failure.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Ends this client's side: it will say nothing more, and still listens.
    pub async fn finish(&mut self) {
        // A server that has closed the connection already is no failure.
        let _ = self.stream.shutdown().await;
    }

    /// Sends a masked frame whose first byte holds the flags and the opcode.
    pub async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length @ ..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // A mask of zeros is a mask, and leaves the payload as it is.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.bytes(&frame).await;
    }

    /// The next frame's opcode and payload; `None` where the connection has ended.
    pub async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let (first, payload) = self.next_whole().await?;
        Some((first & 0x0f, payload))
    }

    /// The next frame's first byte, with all its flags, and its payload; `None` where the connection has
    /// ended.
    pub async fn next_whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        let read = in_time("a frame", self.stream.read_exact(&mut head)).await;
        read.ok()?;
        let length = match head[1] {
            126 => usize::from(self.stream.read_u16().await.ok()?),
            127 => usize::try_from(self.stream.read_u64().await.ok()?).unwrap(),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[0], payload))
    }

    /// The next text frame.
    pub async fn next_text(&mut self) -> String {
        loop {
            let (opcode, payload) = self.next().await.expect("the connection has ended");
            if opcode == 1 {
                return String::from_utf8(payload).unwrap();
            }
        }
    }

    /// Some of the bytes that come, none where the connection has ended: for who reads as slowly as he likes.
    pub async fn some(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; most];
        let read = in_time("some bytes", self.stream.read(&mut bytes)).await;
        bytes.truncate(read.unwrap_or(0));
        bytes
    }

    /// Skips frames until the server closes the socket.
    pub async fn closed(&mut self) -> Closed {
        let (code, reason) = in_time("a close", async {
            loop {
                match self.next().await {
                    Some((8, payload)) if payload.len() >= 2 => {
                        let code = u16::from_be_bytes([payload[0], payload[1]]);
                        return (code, String::from_utf8(payload[2..].to_vec()).unwrap());
                    }
                    Some(_) => {}
                    None => return (1006, String::new()),
                }
            }
        })
        .await;
        Closed { code, reason }
    }
}
