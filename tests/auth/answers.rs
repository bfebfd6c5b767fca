//! Answers over HTTP whose client takes its time: they end with the rights of who has asked.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::{SECRET, ann, fetched, lives::LIFE, now};
use crate::support::{Server, in_time, wait_until};

/// How long somebody may be told something after the end of his rights.
const GRACE: Duration = Duration::from_secs(5);

/// Some 16 MB of rows, which the kernel does not take for a client that does not read.
pub(super) const BIG: &str = "
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO big SELECT i, printf('%.*c', 8000, 'a') FROM n;";

/// Their topic.
pub(super) const BIG_TOPIC: &str = "[[topics]]\ntype = \"big\"\ntable = \"big\"\n";

/// Patience with who takes nothing, long enough to have nothing to do with it, and time to read them all.
pub(super) const NO_END: &str =
    "[server]\nwrite_timeout_ms = 600000\n[database]\nquery_timeout_ms = 30000\n";

fn server() -> Server {
    let topics = format!("{BIG_TOPIC}[[topics]]\ntype = \"notice\"\n");
    let config = format!(
        "{NO_END}[auth]\nkey = \"{SECRET}\"\nleeway_ms = 0\n\
         operator = {{ role = \"admin\" }}\n{topics}"
    );
    Server::configured(&config, BIG)
}

fn admin() -> String {
    ann(json!({ "sub": "root", "role": "admin" }))
}

pub(super) async fn unread(server: &Server, path: &str, token: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(server.address().parse().unwrap()).await;
    let mut stream = stream.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nToken: {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // It is answered.
    in_time("an answer", stream.peek(&mut [0])).await.unwrap();
    stream
}

/// Waits until nobody is connected but who asks for that.
async fn alone(server: &Server) {
    wait_until("the connection's end", async || {
        (server.counted("connections").await == 1).then_some(())
    })
    .await;
}

/// What the kernel of the client has by then, which is not all.
async fn is_a_part(mut stream: TcpStream) {
    let mut got = Vec::new();
    let ended = in_time("the end", stream.read_to_end(&mut got)).await;
    assert!(ended.is_err() && got.len() < 8_000_000, "{}", got.len());
}

#[tokio::test]
async fn rows_that_are_not_taken_are_kept_back_when_the_token_is_over() {
    let server = server();
    let end = now() + LIFE;
    let stream = unread(
        &server,
        "/api/query/big?all=true",
        &ann(json!({ "exp": end })),
    )
    .await;
    alone(&server).await;
    let since = Duration::from_secs(now().saturating_sub(end));
    assert!(now() >= end && since <= GRACE, "{since:?} after its end");
    is_a_part(stream).await;
}

#[tokio::test]
async fn rows_and_events_that_are_not_taken_are_kept_back_from_who_is_revoked() {
    let server = server();
    let token = ann(json!({ "jti": "1", "iat": now() }));
    let rows = unread(&server, "/api/query/big?all=true", &token).await;
    let events = unread(&server, "/api/stream", &token).await;
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let post = async |path: &str, body: serde_json::Value| {
        let asked = client.post(server.url(path)).header("token", admin());
        asked.json(&body).send().await.unwrap().status().as_u16()
    };
    // More than the kernel takes.
    for _ in 0..200 {
        let event = json!({ "type": "notice", "data": "x".repeat(60_000) });
        assert_eq!(post("/api/events", event).await, 202);
    }
    // The last of those may not be quite gone.
    wait_until("the two and who asks", async || {
        (server.counted("connections").await == 3).then_some(())
    })
    .await;
    assert_eq!(post("/api/revoke", json!({ "sub": "ann" })).await, 202);
    let revoked = Instant::now();
    alone(&server).await;
    assert!(revoked.elapsed() < GRACE, "{:?}", revoked.elapsed());
    is_a_part(rows).await;
    is_a_part(events).await;
}

#[tokio::test]
async fn an_answer_that_was_taken_leaves_its_connection_as_it_was() {
    let server = server();
    let end = now() + LIFE;
    let mut stream = unread(&server, "/api/query/big?id=1", &ann(json!({ "exp": end }))).await;
    wait_until("the token's end", async || (now() > end + 1).then_some(())).await;
    // Another one is as good as on a new connection.
    let request = format!(
        "GET /api/query/big?id=2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nToken: {}\r\n\r\n",
        ann(json!({}))
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut got = String::new();
    in_time("both answers", stream.read_to_string(&mut got))
        .await
        .unwrap();
    assert_eq!(got.matches("HTTP/1.1 200 OK").count(), 2, "{}", got.len());
    let told = fetched(&server, "/api/query/big?id=1", &[]).await;
    assert_eq!(told.0, 401);
}
