//! Revocations: by subject and by token, on every gateway, and nobody else.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::{
    SECRET, ann, fetched, guarded, handshake, is_served, now, opened, status, with_secret,
};
use crate::{
    support::{Nats, NatsOptions, Options, Producer, Server, Socket, sqlite3, wait_until},
    wire::{CARE, CARE_TABLES},
};

const GRACE: Duration = Duration::from_secs(5);

fn token(sub: &str, jti: &str) -> String {
    ann(json!({ "sub": sub, "jti": jti, "iat": now() }))
}

pub(super) async fn revoke(server: &Server, by: &str, body: Json) -> (u16, Json) {
    let request = reqwest::Client::new()
        .post(server.url("/api/revoke"))
        .header("token", by);
    let answer = request.json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn an_operator_ends_the_sockets_of_a_subject_and_his_tokens_are_refused() {
    let server = with_secret("operator = { role = \"admin\" }");
    let operator = ann(json!({ "sub": "root", "role": ["nurse", "admin"] }));
    let (one, two, bob) = (token("ann", "1"), token("ann", "2"), token("bob", "3"));
    let mut listening = opened(&server, &[("token", &one)]).await;
    let mut other = opened(&server, &[("token", &two)]).await;
    let mut innocent = opened(&server, &[("token", &bob)]).await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    // The lane writes to all of them.
    for socket in [&mut listening, &mut other, &mut innocent] {
        socket.next_of("patient").await;
    }
    let (code, _) = revoke(&server, &operator, json!({ "jti": "2" })).await;
    let revoked = Instant::now();
    assert_eq!(code, 202);
    let closed = other.closed().await;
    assert_eq!(
        (closed.code, &*closed.reason),
        (4401, "the token was revoked")
    );
    assert!(revoked.elapsed() < GRACE);
    is_served(&mut listening).await;
    assert_eq!(
        revoke(&server, &operator, json!({ "sub": "ann" })).await.0,
        202
    );
    assert_eq!(listening.closed().await.code, 4401);
    for token in [&one, &two] {
        let told = fetched(&server, "/api/query/patient", &[("token", token)]).await;
        assert_eq!(told, (401, "token_revoked".into()));
        assert_eq!(
            status(&server, "/socket/all/", &[("token", token)]).await,
            401
        );
    }
    is_served(&mut innocent).await;
    // What is issued later is something new, but not what only says so.
    let early = ann(json!({ "sub": "ann", "iat": now() + 30 }));
    let told = fetched(&server, "/api/query/patient", &[("token", &early)]).await;
    assert_eq!(told, (401, "token_invalid".into()));
    let over = now();
    let later = wait_until("the next second", async || {
        (now() > over).then(|| ann(json!({ "sub": "ann", "iat": now() })))
    });
    let later = later.await;
    is_served(&mut opened(&server, &[("token", &later)]).await).await;
    assert_eq!(server.counted("revocations_total").await, 2);
}

/// A21: what came after it is for whoever has a right to it now.
#[tokio::test]
async fn a_cursor_gives_nobody_a_right() {
    let server = with_secret("operator = { role = \"admin\" }");
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    let (old, bob) = (token("ann", "1"), token("bob", "2"));
    let mut listening = opened(&server, &[("token", &old)]).await;
    let write = |age| {
        let text = format!("UPDATE patient SET age = {age} WHERE id = 1");
        sqlite3(&server.database(), &text);
    };
    write(1);
    let seen = listening.next_of("patient").await;
    let since = seen["cursor"].as_str().unwrap();
    write(2);
    listening.next_of("patient").await;
    let (code, _) = revoke(&server, &operator, json!({ "sub": "ann" })).await;
    assert_eq!(code, 202);
    assert_eq!(listening.closed().await.code, 4401);
    let brings: [(&[(&str, &str)], &str); 2] = [
        (&[("token", &old)], "token_revoked"),
        (&[], "token_missing"),
    ];
    for (headers, error) in brings {
        let path = format!("/socket/all/?since={since}");
        assert_eq!(status(&server, &path, headers).await, 401);
        let path = format!("/api/stream?since={since}");
        let told = fetched(&server, &path, headers).await;
        assert_eq!(told, (401, error.into()));
    }
    let streamed = [("token", old.as_str()), ("last-event-id", since)];
    let told = fetched(&server, "/api/stream", &streamed).await;
    assert_eq!(told, (401, "token_revoked".into()));
    let mut hello = json!({ "type": "sys:hello", "rid": 1, "since": since, "token": old });
    for error in ["token_revoked", "token_missing"] {
        let mut socket = server.socket("hello=1").await;
        socket.send(hello.clone()).await;
        assert_eq!(socket.next().await["error"], error);
        let end = socket.next_or_close().await;
        assert_eq!(end.unwrap_err().code, 4401, "{error}");
        hello.as_object_mut().unwrap().remove("token");
    }
    // Who has a right to it may have it from wherever he likes.
    let path = format!("/socket/all/?since={since}");
    let mut other = Socket::request(handshake(&server, &path, &[("token", &bob)])).await;
    assert_eq!(other.next_of("patient").await["data"]["age"], 2);
}

#[tokio::test]
async fn who_is_no_operator_revokes_nobody() {
    let server = with_secret("operator = { role = \"admin\" }");
    let nurse = ann(json!({ "role": "nurse" }));
    let told = revoke(&server, &nurse, json!({ "sub": "ann" })).await;
    assert_eq!((told.0, &told.1["error"]), (403, &json!("forbidden")));
    assert_eq!(revoke(&server, "", json!({ "sub": "ann" })).await.0, 401);
    let operator = ann(json!({ "role": "admin" }));
    for body in [
        json!({}),
        json!({ "sub": 1.5 }),
        json!({ "sub": "a", "jti": "b" }),
        json!({ "jti": "b", "until": now() - 1 }),
        json!({ "jti": "b", "until": "tomorrow" }),
        json!([]),
    ] {
        assert_eq!(
            revoke(&server, &operator, body.clone()).await.0,
            400,
            "{body}"
        );
    }
    is_served(&mut opened(&server, &[("token", &nurse)]).await).await;
    // Where nobody is one, nobody is: not even who comes from this machine.
    let server = with_secret("");
    assert_eq!(
        revoke(&server, &operator, json!({ "sub": "ann" })).await.0,
        403
    );
    let open = crate::wire::care();
    assert_eq!(revoke(&open, "", json!({ "sub": "ann" })).await.0, 403);
}

#[tokio::test]
async fn what_is_revoked_until_its_end_is_over_within_the_leeway_too() {
    let server = guarded(&format!(
        "key = \"{SECRET}\"\nleeway_ms = 30000\noperator = {{ role = \"admin\" }}"
    ));
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    let end = now() + 1;
    let token = ann(json!({ "sub": "eve", "jti": "1", "exp": end }));
    let body = json!({ "jti": "1", "until": end });
    assert_eq!(revoke(&server, &operator, body).await.0, 202);
    wait_until("its end", async || (now() > end).then_some(())).await;
    let told = fetched(&server, "/api/query/patient", &[("token", &token)]).await;
    assert_eq!(told, (401, "token_revoked".into()));
    // One that holds by the leeway alone can be revoked by its end.
    let past = now() - 5;
    let token = ann(json!({ "sub": "mal", "jti": "2", "exp": past }));
    let mut socket = opened(&server, &[("token", &token)]).await;
    is_served(&mut socket).await;
    let body = json!({ "jti": "2", "until": past });
    assert_eq!(revoke(&server, &operator, body).await.0, 202);
    assert_eq!(socket.closed().await.code, 4401);
    let told = revoke(
        &server,
        &operator,
        json!({ "jti": "3", "until": now() - 40 }),
    )
    .await;
    assert_eq!((told.0, &told.1["error"]), (400, &json!("bad_param")));
}

#[tokio::test]
async fn a_stream_of_events_and_a_socket_that_renewed_its_token_are_ended_too() {
    let server = with_secret("operator = { role = \"admin\" }");
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    let (one, two) = (token("ann", "1"), token("ann", "2"));
    let asked = reqwest::Client::new()
        .get(server.url("/api/stream"))
        .header("token", &one);
    let mut stream = asked.send().await.unwrap();
    stream.chunk().await.unwrap().unwrap();
    let mut socket = opened(&server, &[("token", &one)]).await;
    let renewed = socket
        .ask(json!({ "type": "sys:auth", "rid": 1, "token": two }))
        .await;
    assert_eq!(renewed["type"], "sys:ok");
    // It is no longer the first token's.
    assert_eq!(
        revoke(&server, &operator, json!({ "jti": "1" })).await.0,
        202
    );
    is_served(&mut socket).await;
    let ended = crate::support::in_time("the end of the stream", async {
        while stream.chunk().await.unwrap().is_some() {}
    });
    ended.await;
    let again = socket
        .ask(json!({ "type": "sys:auth", "rid": 2, "token": one }))
        .await;
    assert_eq!(again["error"], "token_revoked");
    assert_eq!(
        revoke(&server, &operator, json!({ "jti": "2" })).await.0,
        202
    );
    assert_eq!(socket.closed().await.code, 4401);
}

#[tokio::test]
async fn over_nats_every_gateway_ends_them_whoever_asks() {
    let nats = Nats::with(NatsOptions::default());
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("care.db");
    let conn = rusqlite::Connection::open(&database).unwrap();
    conn.execute_batch(CARE_TABLES).unwrap();
    let config = format!(
        "[database]\nurl = \"sqlite:{}\"\n[bus]\nurl = \"{}\"\n[auth]\nkey = \"{SECRET}\"\noperator = {{ role = \"admin\" }}\n{CARE}",
        database.display(),
        nats.url()
    );
    let _producer = Producer::start_in(&config, Vec::new());
    let gateway = || {
        Server::with(Options {
            config: Some(config.clone()),
            ..Options::default()
        })
    };
    let gateways = [gateway(), gateway()];
    let (one, two) = (token("ann", "1"), token("ann", "2"));
    let mut sockets = Vec::new();
    for server in &gateways {
        for token in [&one, &two] {
            sockets.push((token == &one, opened(server, &[("token", token)]).await));
        }
    }
    for (_, socket) in &mut sockets {
        is_served(socket).await;
    }
    // An application says it on the subject itself.
    let client = async_nats::connect(nats.url()).await.unwrap();
    let told = Instant::now();
    for body in ["no JSON", "{}", "{\"jti\":\"1\"}"] {
        client
            .publish("rowcast.control.revoke", body.into())
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
    for (is_one, socket) in &mut sockets {
        if *is_one {
            assert_eq!(socket.closed().await.code, 4401);
        } else {
            is_served(socket).await;
        }
    }
    assert!(told.elapsed() < GRACE, "{:?}", told.elapsed());
    // One gateway is asked over HTTP, and all do it.
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    assert_eq!(
        revoke(&gateways[0], &operator, json!({ "sub": "ann" }))
            .await
            .0,
        202
    );
    for (is_one, socket) in &mut sockets {
        if !*is_one {
            assert_eq!(socket.closed().await.code, 4401);
        }
    }
    for server in &gateways {
        let told = fetched(server, "/api/query/patient", &[("token", &two)]).await;
        assert_eq!(told, (401, "token_revoked".into()));
    }
}
