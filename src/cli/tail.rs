//! `rowcast tail`: the events as they come, one frame a line.

use std::{fmt, io::Write};

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};

use super::{Exit, NATS_REMEDY, Tail, gateway_token, gateway_url, serve::Shutdown, shown};
use crate::{
    app,
    bus::{Bus, ReadError},
    config::{BusUrl, Config},
    event::Delivery,
    position::Position,
    protocol,
};

/// Without what the URL lets in with.
impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("topics", &self.topics)
            .field("since", &self.since)
            .field("url", &self.url.as_deref().map(shown))
            .finish()
    }
}

/// Prints events until the process is told to stop: straight from NATS, or where the bus is
/// embedded from the gateway that runs, which also tells pages and resets.
pub async fn run(config: &Config, asked: &Tail) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let followed = async {
        match (&config.bus.url, &asked.url) {
            (BusUrl::Nats(servers), None) => {
                let bus = app::bus_of_command(config, servers).await;
                let bus = bus.context(NATS_REMEDY)?;
                follow(&bus, asked).await
            }
            (_, url) => watch(&gateway_url(config, url.as_deref()), asked).await,
        }
    };
    tokio::select! {
        () = shutdown.told() => Ok(Exit::Fine),
        ended = followed => ended.map(|()| Exit::Fine),
    }
}

async fn follow(bus: &impl Bus, asked: &Tail) -> anyhow::Result<()> {
    let from = match &asked.since {
        Some(cursor) => {
            // To follow from elsewhere would leave out, in silence, what lies between.
            let read = bus.read(cursor.clone(), 1).await;
            read.map_err(told)?;
            cursor.clone()
        }
        None => bus.head().await.map_err(|err| anyhow!("{err}"))?.position,
    };
    let mut chunks = bus.subscribe(from);
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                for delivery in &chunk.deliveries {
                    print(delivery, &asked.topics)?;
                }
            }
            Err(ReadError::Unavailable(err)) => tracing::warn!(error = %err, "waiting for the bus"),
            Err(lost) => return Err(told(lost)),
        }
    }
    Ok(())
}

fn told(err: ReadError) -> anyhow::Error {
    match err {
        ReadError::Unavailable(_) => anyhow!("{err}"),
        lost => anyhow!("{lost}; begin at the head, without --since"),
    }
}

fn print(delivery: &Delivery, topics: &[String]) -> anyhow::Result<()> {
    let topic = delivery.event.as_ref().map(|event| &*event.topic);
    let wanted = topic.is_some_and(|t| topics.is_empty() || topics.iter().any(|name| name == t));
    match protocol::event(delivery).filter(|_| wanted) {
        Some(frame) => say(&frame),
        None => Ok(()),
    }
}

/// As a browser would be told.
async fn watch(url: &str, asked: &Tail) -> anyhow::Result<()> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !asked.topics.is_empty() {
        query.append_pair("types", &asked.topics.join(","));
    }
    if let Some(cursor) = &asked.since {
        query.append_pair("since", &cursor.to_string());
    }
    let socket = format!(
        "{}/socket/all/?{}",
        url.replacen("http", "ws", 1),
        query.finish()
    );
    let mut request = socket.into_client_request()?;
    if let Some(token) = gateway_token() {
        let bearer = HeaderValue::try_from(format!("Bearer {token}"));
        let mut bearer = bearer.context("ROWCAST_TOKEN is no token")?;
        bearer.set_sensitive(true);
        request.headers_mut().insert("authorization", bearer);
    }
    let (mut socket, _) = tokio_tungstenite::connect_async(request)
        .await
        .with_context(|| {
            let url = shown(url);
            format!("no gateway answers at {url}; start `rowcast`, or name it with --url")
        })?;
    while let Some(message) = socket.next().await {
        match message.context("the gateway has gone")? {
            Message::Text(frame) => say(&frame)?,
            Message::Close(Some(close)) => bail!("the gateway closed the socket: {}", close.code),
            _ => {}
        }
    }
    Ok(())
}

fn say(frame: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{frame}")?;
    Ok(out.flush()?)
}

/// A cursor of the command line.
pub(super) fn read_cursor(text: &str) -> Result<Position, String> {
    text.parse()
        .map_err(|_| "a cursor is needed, such as e1a2b3:41".to_owned())
}
