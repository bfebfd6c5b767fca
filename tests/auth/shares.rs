//! How many connections one identity may have: up to the bound everything works, one beyond is told so in the
//! way that he can read, and neither his own others nor anybody else's are touched.

use futures_util::future::join_all;
use serde_json::{Value as Json, json};

use super::{SECRET, ann, closed_page, fetched, handshake, is_served, opened, status};
use crate::{
    support::{Raw, Server, Socket, sqlite3, wait_until},
    wire::{CARE, CARE_TABLES},
};

/// Two connections each.
fn two_each(auth: &str) -> Server {
    Server::configured(
        &format!(
            "[server]\nmax_connections_per_identity = 2\n[auth]\nkey = \"{SECRET}\"\nleeway_ms = 0\n{auth}\n{CARE}"
        ),
        CARE_TABLES,
    )
}

/// A query on this takes longer than it may: the pattern nearly fits at each place of each text.
const HEAVY: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO big SELECT i, printf('%.*c', 1000, 'a') FROM n;";

#[tokio::test(flavor = "multi_thread")]
async fn the_queries_of_one_identity_over_http_leave_room_for_those_of_others() {
    let limits = "[limits]\nrequests_running = 5\nrequests_per_identity = 3\n[database]\nquery_timeout_ms = 1000";
    let config = format!(
        "{limits}\n[auth]\nkey = \"{SECRET}\"\n[[topics]]\ntype = \"big\"\ntable = \"big\"\n"
    );
    let server = Server::configured(&config, HEAVY);
    let greedy = ann(json!({}));
    let asked: Vec<String> = (0..10)
        .map(|number| {
            let pattern = format!("%25{}b{number}", "a".repeat(200));
            format!("/api/query/big?filter[text][like]={pattern}")
        })
        .collect();
    let headers = [("token", &*greedy)];
    let asking = join_all(asked.iter().map(|path| fetched(&server, path, &headers)));
    let other = ann(json!({ "sub": "bob" }));
    let others = async {
        let refused = "limited_total{kind=\"asker\"}";
        wait_until("refusals", async || {
            (server.counted(refused).await == 7).then_some(())
        })
        .await;
        fetched(&server, "/api/query/big?id=1", &[("token", &other)]).await
    };
    let (answers, (code, _)) = tokio::join!(asking, others);
    assert_eq!(code, 200);
    let refused = answers.iter().filter(|(code, _)| *code == 429);
    assert_eq!(refused.count(), 7, "{answers:?}");
}

/// How often the limit was come to.
async fn counted(server: &Server) -> u64 {
    server.counted("limited_total{kind=\"identity\"}").await
}

fn hello(rid: u64, token: &str) -> Json {
    json!({ "type": "sys:hello", "rid": rid, "token": token })
}

/// Waits until somebody may have so many connections more: one that was closed a moment ago may still be there.
async fn has_room(server: &Server, token: &str, count: usize) {
    let lines = format!("token: {token}\r\n");
    wait_until("room", async || {
        let mut opened = Vec::new();
        for _ in 0..count {
            opened.push(Raw::ask(server, "/socket/all/", &lines).await);
        }
        let mut heads = opened.iter().map(|(_, head)| head);
        heads
            .all(|head| head.starts_with("HTTP/1.1 101 "))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_connection_too_many_is_refused_and_the_others_go_on() {
    let server = two_each("");
    let token = ann(json!({}));
    let mut first = opened(&server, &[("token", &token)]).await;
    // Another token of the same subject is the same identity.
    let mut second = opened(&server, &[("token", &ann(json!({ "jti": "2" })))]).await;
    let lines = format!("token: {token}\r\n");
    let (_, head) = Raw::ask(&server, "/socket/all/", &lines).await;
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert!(
        head.to_ascii_lowercase().contains("\r\nretry-after: 5\r\n"),
        "{head}"
    );
    assert_eq!(counted(&server).await, 1);
    // A page can read a close alone.
    let closed = closed_page(&server, "/socket/all/", &[("token", &token)]).await;
    let reason = "too many connections of this identity: close some, or reconnect later";
    assert_eq!((closed.code, &*closed.reason), (4429, reason));
    assert_eq!(counted(&server).await, 2);
    // What is wrong with a request is said first, and takes no room.
    let wrong = status(&server, "/socket/all/?types=none", &[("token", &token)]).await;
    assert_eq!(wrong, 400);
    let bob = ann(json!({ "sub": "bob" }));
    is_served(&mut opened(&server, &[("token", &bob)]).await).await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    for socket in [&mut first, &mut second] {
        socket.next_of("patient").await;
        is_served(socket).await;
    }
    // Requests are no connections of his.
    for _ in 0..3 {
        let (code, _) = fetched(&server, "/api/query/patient", &[("token", &token)]).await;
        assert_eq!(code, 200);
    }
    drop(first);
    has_room(&server, &token, 1).await;
    drop(second);
    has_room(&server, &token, 2).await;
}

#[tokio::test]
async fn sockets_echoes_and_streams_count_together() {
    let server = two_each("");
    let token = ann(json!({}));
    let headers = [("token", &*token)];
    let stream = reqwest::Client::new()
        .get(server.url("/api/stream"))
        .header("token", &token);
    let stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let mut echo = Socket::request(handshake(&server, "/chat/socket/", &headers)).await;
    echo.send_text("x").await;
    echo.next_text().await;
    for path in ["/socket/all/", "/chat/socket/"] {
        assert_eq!(status(&server, path, &headers).await, 429, "{path}");
        let closed = closed_page(&server, path, &headers).await;
        assert_eq!(closed.code, 4429, "{path}");
    }
    let told = fetched(&server, "/api/stream", &headers).await;
    assert_eq!(told, (429, "too_many_requests".into()));
    // An EventSource would give up for good.
    let asked = reqwest::Client::new()
        .get(server.url("/api/stream"))
        .header("token", &token)
        .header("accept", "text/event-stream");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), "retry: 5000\n\n");
    assert_eq!(counted(&server).await, 6);
    drop(stream);
    has_room(&server, &token, 1).await;
    drop(echo);
    has_room(&server, &token, 2).await;
}

#[tokio::test]
async fn who_says_in_the_hello_who_he_is_counts_from_then_on() {
    let server = two_each("anonymous = true");
    let token = ann(json!({}));
    let mut named = Vec::new();
    for rid in 0..2 {
        let mut socket = server.socket("hello=1").await;
        assert_eq!(socket.ask(hello(rid, &token)).await["type"], "sys:welcome");
        named.push(socket);
    }
    let mut late = server.socket("hello=1").await;
    let answer = late.ask(hello(7, &token)).await;
    assert_eq!(answer["error"], "too_many_requests", "{answer}");
    assert_eq!(answer["retry_after_ms"], 5000);
    let closed = late.closed().await;
    assert_eq!(closed.code, 4429, "{closed:?}");
    assert_eq!(counted(&server).await, 1);
    assert_eq!(
        status(&server, "/socket/all/", &[("token", &token)]).await,
        429
    );
    // Nobody in particular is not counted, however many they are.
    let mut nobody = Vec::new();
    for _ in 0..5 {
        nobody.push(server.socket("").await);
    }
    for socket in named.iter_mut().chain(&mut nobody) {
        is_served(socket).await;
    }
    named.pop();
    wait_until("room for a hello", async || {
        let mut socket = server.socket("hello=1").await;
        let answer = socket.ask(hello(8, &token)).await;
        (answer["type"] == "sys:welcome").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_hello_and_a_new_token_of_the_same_subject_are_no_further_connections() {
    let server = two_each("");
    let token = ann(json!({}));
    let mut sockets = Vec::new();
    for rid in 0..2 {
        let request = handshake(&server, "/socket/all/?hello=1", &[("token", &token)]);
        let mut socket = Socket::request(request).await;
        let again = ann(json!({ "jti": "again" }));
        assert_eq!(socket.ask(hello(rid, &again)).await["type"], "sys:welcome");
        sockets.push(socket);
    }
    for round in 0..5 {
        for socket in &mut sockets {
            let fresh = ann(json!({ "jti": round }));
            let auth = json!({ "type": "sys:auth", "rid": round, "token": fresh });
            assert_eq!(socket.ask(auth).await["type"], "sys:ok");
        }
    }
    assert_eq!(counted(&server).await, 0);
    assert_eq!(
        status(&server, "/socket/all/", &[("token", &token)]).await,
        429
    );
    sockets.pop();
    has_room(&server, &token, 1).await;
}

#[tokio::test]
async fn a_token_without_a_subject_counts_by_its_id_and_takes_its_place_along() {
    let server = two_each("");
    let of = |id: &str| super::issuer::hs256(&json!({ "exp": super::now() + 60, "jti": id }));
    let auth = |rid: u64, token: &str| json!({ "type": "sys:auth", "rid": rid, "token": token });
    let mut first = opened(&server, &[("token", &of("a"))]).await;
    let _second = opened(&server, &[("token", &of("a"))]).await;
    let full = |id: &'static str| {
        let (server, token) = (&server, of(id));
        async move { status(server, "/socket/all/", &[("token", &token)]).await == 429 }
    };
    assert!(full("a").await);
    // It goes, and its place is free.
    assert_eq!(first.ask(auth(1, &of("b"))).await["type"], "sys:ok");
    let mut third = opened(&server, &[("token", &of("a"))]).await;
    assert!(full("a").await);
    // Where there is no room for it, it stays who it was.
    let answer = first.ask(auth(2, &of("a"))).await;
    assert_eq!(answer["error"], "too_many_requests", "{answer}");
    is_served(&mut first).await;
    is_served(&mut third).await;
    let _fourth = opened(&server, &[("token", &of("b"))]).await;
    assert!(full("b").await);
    assert_eq!(counted(&server).await, 4);
    // Somebody with a subject is somebody else.
    let named = ann(json!({ "jti": "b" }));
    let answer = first.ask(auth(3, &named)).await;
    assert_eq!(answer["error"], "forbidden", "{answer}");
    is_served(&mut first).await;
    // Who has neither has no name to be counted by.
    let nameless = super::issuer::hs256(&json!({ "exp": super::now() + 60 }));
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(opened(&server, &[("token", &nameless)]).await);
    }
    for socket in &mut sockets {
        is_served(socket).await;
    }
}

#[tokio::test]
async fn whose_token_is_over_or_revoked_gives_his_place_back() {
    let server = two_each("operator = { role = \"admin\" }");
    let soon = ann(json!({ "exp": super::now() + 2 }));
    let mut over = opened(&server, &[("token", &soon)]).await;
    let mut revoked = opened(&server, &[("token", &ann(json!({ "jti": "gone" })))]).await;
    let token = ann(json!({}));
    assert_eq!(
        status(&server, "/socket/all/", &[("token", &token)]).await,
        429
    );
    let admin = ann(json!({ "sub": "root", "role": "admin" }));
    let asked = reqwest::Client::new()
        .post(server.url("/api/revoke"))
        .header("token", admin)
        .json(&json!({ "jti": "gone" }));
    assert!(asked.send().await.unwrap().status().is_success());
    assert_eq!(revoked.closed().await.code, 4401);
    assert_eq!(over.closed().await.code, 4401);
    has_room(&server, &token, 2).await;
}
