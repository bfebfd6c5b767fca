//! Clients that ask and take nothing of what they get: they are cut off, and nothing of theirs stays behind.

use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::counted;
use crate::support::{Server, in_time, wait_until};

/// More rows than the kernel takes for a client that does not read: some 16 MB.
pub(super) const BIG: &str = "
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
    INSERT INTO big SELECT i, printf('%.*c', 8000, 'a') FROM n;";

/// Time to read them all, also on a machine that stands still now and then.
pub(super) const ALL_THE_TIME: &str = "[database]\nquery_timeout_ms = 30000\n";

const TOPICS: &str = "[[topics]]\ntype = \"big\"\ntable = \"big\"\n[[topics]]\ntype = \"notice\"\n";

fn big(settings: &str) -> Server {
    Server::configured(&format!("{settings}\n{ALL_THE_TIME}{TOPICS}"), BIG)
}

/// Asks for something, and never reads.
pub(super) async fn unread(server: &Server, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(server.address().parse().unwrap()).await;
    let mut stream = stream.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // It is answered.
    in_time("an answer", stream.peek(&mut [0])).await.unwrap();
    stream
}

/// Waits until nobody is connected but who asks for that.
async fn alone(server: &Server) {
    wait_until("the others to be cut off", async || {
        (server.counted("connections").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut_off_and_his_place_is_free_again() {
    let server = big("[server]\nwrite_timeout_ms = 4000\n[limits]\nrequests_running = 2");
    // The rows are in memory until he takes them: that is what the place is for. On a machine that stands
    // still for so long they are cut off before anybody asks.
    let clients = wait_until("a refusal", async || {
        let mut clients = Vec::new();
        for _ in 0..2 {
            clients.push(unread(&server, "/api/query/big?all=true").await);
        }
        (server.get("/api/query/big?size=1").await.0 == 429).then_some(clients)
    })
    .await;
    alone(&server).await;
    assert!(counted(&server, "answers").await >= 2);
    assert_eq!(server.get("/api/query/big?size=1").await.0, 200);
    drop(clients);
}

#[tokio::test]
async fn the_same_holds_for_requests_that_are_sent_without_waiting_for_an_answer() {
    let server = big("[server]\nwrite_timeout_ms = 500");
    let mut client = unread(&server, "/rowcast.js").await;
    let request = b"GET /rowcast.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(10);
    while client.write_all(&request).await.is_ok() {}
    alone(&server).await;
    assert_eq!(counted(&server, "answers").await, 1);
}

#[tokio::test]
async fn a_stream_of_events_that_nobody_takes_leaves_no_connection_behind() {
    let server = big("[server]\nwrite_timeout_ms = 500");
    let client = unread(&server, "/api/stream").await;
    wait_until("the stream", async || {
        (server.counted("sessions").await == 1).then_some(())
    })
    .await;
    let event = json!({ "type": "notice", "data": "x".repeat(60_000) });
    wait_until("the session's end", async || {
        assert_eq!(server.post("/api/events", event.clone()).await.0, 202);
        (server.counted("sessions").await == 0).then_some(())
    })
    .await;
    alone(&server).await;
    drop(client);
}

#[tokio::test]
async fn who_reads_slowly_gets_all_of_it() {
    let server = big("[server]\nwrite_timeout_ms = 4000");
    let mut answer = reqwest::get(server.url("/api/query/big?all=true"))
        .await
        .unwrap();
    let (mut bytes, begun) = (0, std::time::Instant::now());
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(100));
    while let Some(piece) = answer.chunk().await.unwrap() {
        bytes += piece.len();
        // As long as there is much to come, and longer than the server has patience with who takes nothing.
        if begun.elapsed() < std::time::Duration::from_secs(10) {
            pause.tick().await;
        }
    }
    assert!(bytes > 16_000_000, "{bytes}");
}
