//! How many connections one identity may have: up to the bound everything works, one beyond is told so in the
//! way that he can read, and neither his own others nor anybody else's are touched.

use serde_json::{Value as Json, json};

use super::{
    SECRET, ann,
    answers::{BIG, BIG_TOPIC, NO_END, unread},
    closed_page, fetched, handshake, is_served,
    lives::LIFE,
    opened, status,
};
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

#[tokio::test]
async fn the_queries_of_one_identity_over_http_leave_room_for_those_of_others() {
    const PLACES: usize = 3;
    let limits =
        format!("[limits]\nrequests_running = 5\nrequests_per_identity = {PLACES}\n{NO_END}");
    let auth = format!("[auth]\nkey = \"{SECRET}\"\n");
    let server = Server::configured(&format!("{limits}{auth}{BIG_TOPIC}"), BIG);
    let (greedy, other) = (ann(json!({})), ann(json!({ "sub": "bob" })));
    // Whoever takes his time with an answer keeps his place for as long.
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(unread(&server, "/api/query/big?all=true", &greedy).await);
    }
    let one = "/api/query/big?id=1";
    for asked in 1..=7 {
        let told = fetched(&server, one, &[("token", &greedy)]).await;
        assert_eq!(told, (429, "too_many_requests".into()));
        let refused = "limited_total{kind=\"asker\"}";
        assert_eq!(server.counted(refused).await, asked);
        if asked == 4 {
            assert_eq!(fetched(&server, one, &[("token", &other)]).await.0, 200);
        }
    }
    drop(held);
    wait_until("his places", async || {
        let (code, _) = fetched(&server, one, &[("token", &greedy)]).await;
        (code == 200).then_some(())
    })
    .await;
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
    assert!(answer.text().await.unwrap().starts_with("retry: "));
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
    let soon = ann(json!({ "exp": super::now() + LIFE }));
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
