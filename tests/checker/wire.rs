//! What a client reads from: a socket, or Server-Sent Events.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value as Json;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// The longest wait for a connection.
const OPENING: Duration = Duration::from_secs(5);

/// One or the other.
pub enum Wire {
    /// A socket.
    Socket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    /// An answer that goes on, and what of it was not taken yet.
    Events(reqwest::Response, Vec<u8>),
}

/// What comes.
pub enum Incoming {
    /// A frame, over Server-Sent Events with its id.
    Text(String, Option<String>),
    /// An id without a frame.
    Id(String),
    /// The end, with its code: 1006 where it has none.
    Closed(u16),
    /// Nothing that matters.
    Nothing,
}

impl Wire {
    /// Opens a socket.
    pub async fn socket(url: String) -> Option<Self> {
        let opened = tokio::time::timeout(OPENING, connect_async(url)).await;
        let (socket, _) = opened.ok()?.ok()?;
        Some(Self::Socket(Box::new(socket)))
    }

    /// Opens Server-Sent Events, after this cursor as a browser tells it.
    pub async fn events(url: String, last: Option<&str>) -> Option<Self> {
        let mut request = reqwest::Client::new().get(url);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let opened = tokio::time::timeout(OPENING, request.send()).await;
        let response = opened.ok()?.ok()?;
        response
            .status()
            .is_success()
            .then(|| Self::Events(response, Vec::new()))
    }

    /// A socket that has just broken is noticed when it is read.
    pub async fn send(&mut self, frame: &Json) {
        if let Self::Socket(socket) = self {
            let _ = socket.send(Message::text(frame.to_string())).await;
        }
    }

    /// What comes next. Cancel safe.
    pub async fn next(&mut self) -> Incoming {
        match self {
            Self::Socket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => Incoming::Text(text.to_string(), None),
                Some(Ok(Message::Close(frame))) => {
                    Incoming::Closed(frame.map_or(1005, |frame| frame.code.into()))
                }
                Some(Ok(_)) => Incoming::Nothing,
                None | Some(Err(_)) => Incoming::Closed(1006),
            },
            Self::Events(response, rest) => loop {
                let end = rest.windows(2).position(|two| two == b"\n\n");
                if let Some(end) = end {
                    let event: Vec<u8> = rest.drain(..end + 2).collect();
                    return event_of(&String::from_utf8(event).unwrap());
                }
                match response.chunk().await {
                    Ok(Some(piece)) => rest.extend_from_slice(&piece),
                    Ok(None) | Err(_) => return Incoming::Closed(1006),
                }
            },
        }
    }
}

fn event_of(text: &str) -> Incoming {
    let (mut id, mut data) = (None, None);
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("id", told)) => id = Some(told.to_owned()),
            Some(("data", told)) => data = Some(told.to_owned()),
            _ => {}
        }
    }
    match (data, id) {
        (Some(data), id) => Incoming::Text(data, id),
        (None, Some(id)) => Incoming::Id(id),
        (None, None) => Incoming::Nothing,
    }
}
