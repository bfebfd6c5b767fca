//! What "stored" is worth on this server.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{super::Durability, Failure, JetStreamBus};

/// The most bytes of a monitoring answer that are read.
const MAX_ANSWER: u64 = 1024 * 1024;

impl JetStreamBus {
    /// Asks how durable the bus is: the stream's replicas, or the server's monitoring.
    pub(super) async fn worth(&self) -> Durability {
        let replicas = async {
            let jetstream = self.connection.jetstream()?;
            let stream = jetstream.get_stream(&self.names.stream).await?;
            Ok::<_, Failure>(stream.cached_info().config.num_replicas)
        };
        if replicas.await.is_ok_and(|replicas| replicas >= 3) {
            return Durability::Replicated;
        }
        let Some(monitor) = &self.config.monitor else {
            return Durability::Buffered;
        };
        let asked = tokio::time::timeout(Duration::from_secs(3), varz(monitor)).await;
        let always = |text: String| {
            let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
            answer["jetstream"]["config"]["sync_always"].as_bool()
        };
        match asked.ok().and_then(Result::ok).and_then(always) {
            Some(true) => Durability::Fsynced,
            _ => Durability::Buffered,
        }
    }
}

/// The body of `/varz`. Monitoring is on the loopback or in a private network: plain HTTP.
async fn varz(monitor: &str) -> Result<String, Failure> {
    let host = monitor.strip_prefix("http://").unwrap_or(monitor);
    let host = host.trim_end_matches('/');
    let mut socket = tokio::net::TcpStream::connect(host).await?;
    let ask = format!("GET /varz HTTP/1.0\r\nHost: {host}\r\n\r\n");
    socket.write_all(ask.as_bytes()).await?;
    let mut answer = String::new();
    socket.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
    Ok(body.to_owned())
}
