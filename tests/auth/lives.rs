//! How long a socket may go on: until its token is over, wherever it stands then, unless it brings a new
//! one of the same subject.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;

use super::{SECRET, ann, closed_page, fetched, is_served, now, opened, with_secret};
use crate::{
    support::{
        Raw, Server, Socket,
        frames::{CLOSE, TEXT},
        in_time, sqlite3, wait_until,
    },
    wire::{CARE, CARE_TABLES},
};

/// How long a socket may be heard after its end.
const GRACE: Duration = Duration::from_secs(5);

/// The seconds for which the tokens of these tests are good: long enough to open a socket with on a machine
/// that stands still now and then, and short enough to wait for.
pub(super) const LIFE: u64 = 6;

/// A token that is over in so many seconds, and when that is.
pub(super) fn soon(seconds: u64) -> (String, Instant) {
    // A token's seconds are whole, and those of the clock are not.
    let end = now() + seconds;
    let left = std::time::UNIX_EPOCH + Duration::from_secs(end);
    // First, or a thread that stands still between the two clocks has the end too late.
    let begun = Instant::now();
    let left = left.duration_since(std::time::SystemTime::now()).unwrap();
    (ann(json!({ "exp": end })), begun + left)
}

pub(super) fn is_in_time(end: Instant) {
    let now = Instant::now();
    assert!(now >= end, "closed {:?} before its end", end - now);
    assert!(now < end + GRACE, "closed {:?} after its end", now - end);
}

/// Changes a row of the care home again and again, until the folder is gone.
fn busy(server: &Server) -> Writer {
    let database = server.database();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = stop.clone();
    let thread = std::thread::spawn(move || {
        let conn = rusqlite::Connection::open(database).unwrap();
        conn.busy_timeout(Duration::from_secs(5)).unwrap();
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            let _ = conn.execute("UPDATE patient SET age = age + 1 WHERE id = 1", []);
            std::thread::park_timeout(Duration::from_millis(3));
        }
    });
    Writer(stop, Some(thread))
}

struct Writer(
    std::sync::Arc<std::sync::atomic::AtomicBool>,
    Option<std::thread::JoinHandle<()>>,
);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

#[tokio::test]
async fn a_socket_that_only_listens_is_closed_when_its_token_is_over() {
    let server = with_secret("");
    let writer = busy(&server);
    let (token, end) = soon(LIFE);
    let mut socket = opened(&server, &[("token", &token)]).await;
    // The lane writes to it.
    socket.next_of("patient").await;
    let closed = socket.closed().await;
    is_in_time(end);
    let reason = "the token has expired: reconnect with a new one and your cursor";
    assert_eq!((closed.code, &*closed.reason), (4401, reason));
    // It is over for good: also for who comes anew.
    assert_eq!(
        closed_page(&server, "/socket/all/", &[("token", &token)])
            .await
            .code,
        4401
    );
    drop(writer);
}

#[tokio::test]
async fn an_idle_socket_is_closed_as_well() {
    let server = with_secret("");
    let (token, end) = soon(LIFE);
    let closed = opened(&server, &[("token", &token)]).await.closed().await;
    is_in_time(end);
    assert_eq!(closed.code, 4401);
    wait_until("nobody to be there", async || {
        (server.counted("sessions").await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_clocks_may_be_apart_by_the_leeway() {
    let server = super::guarded(&format!("key = \"{SECRET}\"\nleeway_ms = 3000"));
    let (token, end) = soon(LIFE - 3);
    let mut socket = opened(&server, &[("token", &token)]).await;
    assert_eq!(socket.closed().await.code, 4401);
    is_in_time(end + Duration::from_secs(3));
}

/// So many rows that come after a cursor that no kernel holds them; `socket` has seen them all.
async fn long_replay(server: &Server, socket: &mut Socket) -> (String, u32) {
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    let first = socket.next_of("patient").await;
    let cursor = first["cursor"].as_str().unwrap().to_owned();
    let rows = 4000;
    sqlite3(
        &server.database(),
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO stay SELECT 'b' || i, 9, printf('%.*c', 1000, 'x') FROM n"
        ),
    );
    socket
        .next_where("the last row", |frame| {
            frame["key"]["bed"] == format!("b{rows}")
        })
        .await;
    (cursor, rows)
}

#[tokio::test]
async fn a_replay_stops_where_the_token_is_over() {
    let server = with_secret("");
    let mut first = opened(&server, &[("token", &ann(json!({})))]).await;
    let (cursor, rows) = long_replay(&server, &mut first).await;
    let (token, end) = soon(LIFE);
    // It takes nothing, so that it stands in the middle of its replay when the time comes.
    let lines = format!("token: {token}\r\n");
    let path = format!("/socket/all/?since={cursor}&types=stay");
    let (mut raw, _) = Raw::ask(&server, &path, &lines).await;
    wait_until("the close", async || {
        let closed = server.counted("closes_total{kind=\"4401\"}").await;
        (closed == 1).then_some(())
    })
    .await;
    is_in_time(end);
    let frames = all_before_the_close(&mut raw).await;
    assert!(frames > 0 && frames < rows, "{frames}");
}

/// The frames that still come to a socket that has been closed with 4401; there is nothing behind the close.
async fn all_before_the_close(raw: &mut Raw) -> u32 {
    let mut frames = 0;
    while let Some((opcode, payload)) = raw.next().await {
        if opcode == CLOSE {
            assert_eq!(payload[..2], 4401_u16.to_be_bytes());
            assert!(raw.next().await.is_none(), "something behind the close");
            break;
        }
        assert_eq!(opcode, TEXT);
        frames += 1;
    }
    frames
}

#[tokio::test]
async fn a_replay_stops_where_the_token_is_revoked() {
    let server = with_secret("operator = { role = \"admin\" }");
    let mut first = opened(&server, &[("token", &ann(json!({})))]).await;
    let (cursor, rows) = long_replay(&server, &mut first).await;
    let token = ann(json!({ "jti": "1" }));
    let lines = format!("token: {token}\r\n");
    let path = format!("/socket/all/?since={cursor}&types=stay");
    // It takes one frame and then nothing, so that it stands in the middle of its replay.
    let (mut raw, _) = Raw::ask(&server, &path, &lines).await;
    assert_eq!(raw.next().await.unwrap().0, TEXT);
    let begun = Instant::now();
    revoked(&server, "1").await;
    wait_until("the close", async || {
        let closed = server.counted("closes_total{kind=\"4401\"}").await;
        (closed == 1).then_some(())
    })
    .await;
    assert!(begun.elapsed() < GRACE, "{:?}", begun.elapsed());
    let frames = all_before_the_close(&mut raw).await;
    assert!(frames < rows, "{frames}");
    // The other token of the same subject goes on.
    is_served(&mut first).await;
}

#[tokio::test]
async fn a_query_that_runs_when_the_token_is_revoked_is_not_answered() {
    let server = slow("operator = { role = \"admin\" }");
    let token = ann(json!({ "jti": "1" }));
    let mut socket = opened(&server, &[("token", &token)]).await;
    is_served(&mut socket).await;
    socket
        .send(json!({ "type": "slow", "rid": 1, "id": 1 }))
        .await;
    // What was said before it is answered, so that it is under way.
    socket.send(json!({ "type": "sys:ping", "rid": 2 })).await;
    assert_eq!(socket.next().await["type"], "sys:pong");
    let begun = Instant::now();
    revoked(&server, "1").await;
    assert_eq!(socket.next_or_close().await.unwrap_err().code, 4401);
    assert!(begun.elapsed() < GRACE, "{:?}", begun.elapsed());
}

/// An operator revokes a token.
async fn revoked(server: &Server, jti: &str) {
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    let asked = reqwest::Client::new().post(server.url("/api/revoke"));
    let asked = asked.header("token", operator).json(&json!({ "jti": jti }));
    assert_eq!(asked.send().await.unwrap().status(), 202);
}

#[tokio::test]
async fn a_replay_that_is_read_ends_with_the_close_and_nothing_is_behind_it() {
    // One after the other, faster than those that are gone may be noticed.
    let server = with_secret("[server]\nmax_connections_per_identity = 10000");
    let writer = busy(&server);
    let (token, end) = soon(LIFE);
    // From the beginning, again and again: there is always something to replay.
    let mut cursor = String::new();
    loop {
        let since = if cursor.is_empty() {
            String::new()
        } else {
            format!("since={cursor}")
        };
        let path = format!("/socket/all/?{since}");
        let request = super::handshake(&server, &path, &[("token", &token)]);
        // Early enough that it is let in, also where the machine stands still.
        if Instant::now() + Duration::from_secs(3) > end {
            let mut socket = Socket::request(request).await;
            assert_eq!(socket.closed().await.code, 4401);
            is_in_time(end);
            break;
        }
        let mut socket = Socket::request(request).await;
        let frame = socket.next_of("patient").await;
        if cursor.is_empty() {
            cursor = frame["cursor"].as_str().unwrap().to_owned();
        }
    }
    drop(writer);
}

/// A gateway with a topic whose queries take a minute.
fn slow(auth: &str) -> Server {
    let slow = "
[database]
query_timeout_ms = 60000
[[topics]]
type = \"slow\"
query = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000000) SELECT 1 AS id, count(*) AS n FROM n, patient WHERE patient.id = 1\"
watch = [\"patient\"]
key = [\"id\"]
";
    Server::configured(
        &format!("[auth]\nkey = \"{SECRET}\"\nleeway_ms = 0\n{auth}\n{slow}{CARE}"),
        // Or the page of the slow query, read at the start, would hold up the source.
        &format!("PRAGMA journal_mode = WAL; {CARE_TABLES}"),
    )
}

#[tokio::test]
async fn a_query_that_runs_when_the_token_is_over_is_not_answered() {
    let server = slow("");
    let (token, end) = soon(LIFE);
    let mut socket = opened(&server, &[("token", &token)]).await;
    socket
        .send(json!({ "type": "slow", "rid": 1, "id": 1 }))
        .await;
    let closed = socket.next_or_close().await;
    is_in_time(end);
    assert_eq!(closed.unwrap_err().code, 4401);
}

#[tokio::test]
async fn a_stream_of_events_ends_when_its_token_is_over() {
    let server = with_secret("");
    let writer = busy(&server);
    let (token, end) = soon(LIFE);
    let asked = reqwest::Client::new()
        .get(server.url("/api/stream"))
        .header("token", &token);
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = Box::pin(futures_util::stream::unfold(
        answer,
        |mut answer| async move {
            let piece = answer.chunk().await.unwrap()?;
            Some((piece, answer))
        },
    ));
    let all = in_time("the end of the stream", async {
        let mut bytes = 0;
        while let Some(piece) = body.next().await {
            bytes += piece.len();
        }
        bytes
    });
    assert!(all.await > 0);
    is_in_time(end);
    assert_eq!(
        fetched(&server, "/api/stream", &[("token", &token)])
            .await
            .0,
        401
    );
    drop(writer);
}

#[tokio::test]
async fn a_new_token_of_the_same_subject_takes_the_place_of_the_old_one() {
    let server = with_secret("");
    let writer = busy(&server);
    let (token, end) = soon(LIFE);
    let mut socket = opened(&server, &[("token", &token)]).await;
    let auth = |rid: u64, token: &str| json!({ "type": "sys:auth", "rid": rid, "token": token });
    let nameless = super::issuer::hs256(&json!({ "exp": now() + 600, "jti": "ann" }));
    // What is refused changes nothing.
    for (rid, token, error) in [
        (1, "x".to_owned(), "token_invalid"),
        (2, ann(json!({ "exp": 1 })), "token_expired"),
        (3, ann(json!({ "sub": "bob" })), "forbidden"),
        (4, nameless, "forbidden"),
    ] {
        let answer = socket.ask(auth(rid, &token)).await;
        assert_eq!(answer["error"], error, "{answer}");
    }
    let answer = socket.ask(json!({ "type": "sys:auth", "rid": 5 })).await;
    assert_eq!(answer["error"], "bad_param");
    is_served(&mut socket).await;
    let (longer, later) = soon(3 * LIFE);
    assert_eq!(socket.ask(auth(6, &longer)).await["type"], "sys:ok");
    socket
        .next_where("something after the first token's end", |_| {
            Instant::now() > end + Duration::from_millis(500)
        })
        .await;
    is_served(&mut socket).await;
    assert_eq!(socket.closed().await.code, 4401);
    is_in_time(later);
    drop(writer);
}

#[tokio::test]
async fn a_token_that_is_refused_in_place_of_another_does_not_put_its_end_off() {
    let server = with_secret("");
    let (token, end) = soon(LIFE);
    let mut socket = opened(&server, &[("token", &token)]).await;
    let bob = ann(json!({ "sub": "bob", "exp": now() + 600 }));
    let answer = socket
        .ask(json!({ "type": "sys:auth", "rid": 1, "token": bob }))
        .await;
    assert_eq!(answer["error"], "forbidden");
    assert_eq!(socket.closed().await.code, 4401);
    is_in_time(end);
}
