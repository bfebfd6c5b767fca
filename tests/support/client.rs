//! A WebSocket client that speaks the protocol by hand.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message, client::IntoClientRequest, handshake::client::Request, http::StatusCode,
    },
};

use super::in_time;

/// A connected WebSocket.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// How the server closed a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The close code; 1006 where the connection was cut.
    pub code: u16,
    /// The reason beside it.
    pub reason: String,
}

impl Socket {
    /// Connects to a URL.
    pub async fn open(url: &str) -> Self {
        Self::request(url.into_client_request().unwrap()).await
    }

    /// Connects with headers of one's own, and again to a gateway that is still starting.
    pub async fn request(request: Request) -> Self {
        let open = async {
            loop {
                match connect_async(request.clone()).await {
                    Ok((stream, _)) => return stream,
                    // As a client does: the gateway listens already, and waits for its database.
                    Err(Error::Http(answer))
                        if answer.status() == StatusCode::SERVICE_UNAVAILABLE =>
                    {
                        tokio::task::yield_now().await;
                    }
                    Err(err) => panic!("the handshake was refused: {err}"),
                }
            }
        };
        let stream = in_time("a handshake", open).await;
        Self { stream }
    }

    /// Sends a text as it is.
    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Json) {
        self.send_text(&frame.to_string()).await;
    }

    /// Sends frames in one piece, so that they come together however crowded the machine is.
    pub async fn send_together(&mut self, frames: impl IntoIterator<Item = Json>) {
        for frame in frames {
            let message = Message::text(frame.to_string());
            self.stream.feed(message).await.unwrap();
        }
        self.stream.flush().await.unwrap();
    }

    /// Sends any message, such as bytes.
    pub async fn send_message(&mut self, message: Message) {
        self.stream.send(message).await.unwrap();
    }

    /// The next text frame, as text.
    pub async fn next_text(&mut self) -> String {
        match self.next_or_close().await {
            Ok(text) => text,
            Err(closed) => panic!("the server closed the socket: {closed:?}"),
        }
    }

    /// The next text frame, as JSON.
    pub async fn next(&mut self) -> Json {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// The next frame that is no tick: after a hello one comes whenever it is due.
    pub async fn news(&mut self) -> Json {
        self.next_where("a frame", |frame| frame["type"] != "sys:tick")
            .await
    }

    /// Skips frames until one is wanted.
    pub async fn next_where(&mut self, what: &str, mut wanted: impl FnMut(&Json) -> bool) -> Json {
        let found = async {
            loop {
                let frame = self.next().await;
                if wanted(&frame) {
                    return frame;
                }
            }
        };
        in_time(what, found).await
    }

    /// Skips frames until one of this `type`.
    pub async fn next_of(&mut self, kind: &str) -> Json {
        self.next_where(kind, |frame| frame["type"] == kind).await
    }

    /// Sends a frame with a `rid` and returns its answer, skipping what comes between.
    pub async fn ask(&mut self, frame: Json) -> Json {
        let rid = frame["rid"].clone();
        assert!(!rid.is_null(), "a question needs a rid");
        self.send(frame).await;
        self.next_where("an answer", |answer| answer["rid"] == rid)
            .await
    }

    /// The next frame, or how the server closed the socket. Pings do not put the deadline off.
    pub async fn next_or_close(&mut self) -> Result<String, Closed> {
        in_time("a frame", self.frame_or_close()).await
    }

    async fn frame_or_close(&mut self) -> Result<String, Closed> {
        let cut = |code| Closed {
            code,
            reason: String::new(),
        };
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Closed {
                        code: frame.code.into(),
                        reason: frame.reason.to_string(),
                    });
                }
                Some(Ok(Message::Close(None))) => return Err(cut(1005)),
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return Err(cut(1006)),
            }
        }
    }

    /// Skips frames until the server closes the socket.
    pub async fn closed(&mut self) -> Closed {
        let ending = async {
            loop {
                if let Err(closed) = self.next_or_close().await {
                    return closed;
                }
            }
        };
        in_time("a close", ending).await
    }

    /// Whether nothing comes within `silence` but pings, which come when they are due. Only for "is not
    /// sent" assertions, and only after something that would have come later was already seen where that
    /// is possible.
    pub async fn silent_for(&mut self, silence: std::time::Duration) -> bool {
        tokio::time::timeout(silence, self.frame_or_close())
            .await
            .is_err()
    }
}
