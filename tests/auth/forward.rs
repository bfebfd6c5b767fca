//! Forward authentication: an endpoint of the user's says who somebody is.

use std::time::Instant;

use serde_json::json;

use super::{
    SECRET, ann, closed_page,
    endpoint::{Answer, Endpoint},
    fetched, guarded, handshake, is_served,
    lives::LIFE,
    now, opened, status,
};
use crate::{
    support::{Options, Server, Socket, wait_until},
    wire::{CARE, CARE_TABLES},
};

const QUERY: &str = "/api/query/patient";

fn asking(endpoint: &Endpoint, more: &str) -> Server {
    guarded(&format!(
        "forward_url = \"{}\"\nleeway_ms = 0\n{more}",
        endpoint.url()
    ))
}

fn own(server: &Server) -> String {
    format!("http://{}", server.address())
}

#[tokio::test]
async fn the_endpoint_is_asked_with_what_the_handshake_brought_and_what_it_says_counts() {
    let endpoint = Endpoint::new(json!({ "sub": 7, "role": "nurse" })).await;
    let server = asking(&endpoint, "");
    let own = own(&server);
    let headers = [
        ("cookie", "sessionid=abc; csrftoken=x"),
        ("origin", &*own),
        ("user-agent", "nobody asks"),
    ];
    let request = handshake(&server, "/socket/all/?types=patient", &headers);
    is_served(&mut Socket::request(request).await).await;
    let asked = endpoint.asked().pop().unwrap().to_ascii_lowercase();
    for line in [
        "get / http/1.1",
        "cookie: sessionid=abc; csrftoken=x",
        &format!("origin: {own}"),
        "x-forwarded-uri: /socket/all/",
        "accept: application/json",
    ] {
        assert!(asked.lines().any(|asked| asked == line), "{line}: {asked}");
    }
    assert!(
        !asked.contains("nobody asks") && !asked.contains("types="),
        "{asked}"
    );
    for (name, value) in [
        ("token", "opaque-1"),
        ("authorization", "Bearer opaque-2"),
        ("authorization", "Basic YTpi"),
    ] {
        is_served(&mut opened(&server, &[(name, value)]).await).await;
        let asked = endpoint.asked().pop().unwrap();
        let line = format!("{name}: {value}");
        assert!(asked.lines().any(|asked| asked == line), "{line}: {asked}");
        assert_eq!(fetched(&server, QUERY, &[(name, value)]).await.0, 200);
    }
    // In a hello there are no headers.
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": "opaque-3" });
    assert_eq!(socket.ask(hello).await["type"], "sys:welcome");
    let asked = endpoint.asked().pop().unwrap();
    assert!(asked.contains("authorization: Bearer opaque-3"), "{asked}");
}

#[tokio::test]
async fn who_brings_nothing_is_not_asked_about_and_cookies_of_strangers_are_not_passed_on() {
    let endpoint = Endpoint::new(json!({ "sub": "ann" })).await;
    let server = asking(&endpoint, "");
    assert_eq!(status(&server, "/socket/all/", &[]).await, 401);
    assert_eq!(
        status(&server, "/socket/all/", &[("cookie", "sessionid=abc")]).await,
        401
    );
    assert_eq!(
        fetched(&server, QUERY, &[("cookie", "sessionid=abc")])
            .await
            .0,
        401
    );
    let headers = [
        ("cookie", "sessionid=abc"),
        ("origin", "https://evil.example"),
    ];
    assert_eq!(fetched(&server, QUERY, &headers).await.0, 401);
    assert_eq!(opened(&server, &headers).await.closed().await.code, 4403);
    assert_eq!(endpoint.asked(), [""; 0]);
    let headers = [
        ("cookie", "sessionid=abc"),
        ("sec-fetch-site", "same-origin"),
    ];
    assert_eq!(fetched(&server, QUERY, &headers).await.0, 200);
}

#[tokio::test]
async fn what_the_endpoint_refuses_is_refused_and_what_it_cannot_say_is_not_known() {
    let endpoint = Endpoint::new("").await;
    let server = asking(&endpoint, "");
    let elsewhere = Endpoint::new(json!({ "sub": "ann" })).await;
    for (answer, code, error, close) in [
        (Answer::Body(401, String::new()), 401, "token_invalid", 4401),
        (
            Answer::Body(403, "{\"sub\":\"ann\"}".into()),
            401,
            "token_invalid",
            4401,
        ),
        (
            Answer::Body(200, json!({ "sub": "ann", "exp": now() - 1 }).to_string()),
            401,
            "token_expired",
            4401,
        ),
        (
            Answer::Body(200, json!({ "sub": "ann", "exp": "never" }).to_string()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::Body(200, json!({ "sub": null }).to_string()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::Body(200, "[]".into()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::Body(200, String::new()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::Body(200, "\"ann\"".into()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::Body(404, "{}".into()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::Body(500, "{}".into()),
            503,
            "auth_unavailable",
            1013,
        ),
        (
            Answer::To(elsewhere.url().to_owned()),
            503,
            "auth_unavailable",
            1013,
        ),
        (Answer::Endless, 503, "auth_unavailable", 1013),
    ] {
        endpoint.answers(answer);
        let told = fetched(&server, QUERY, &[("token", "opaque")]).await;
        assert_eq!(told, (code, error.into()));
        assert_eq!(
            status(&server, "/socket/all/", &[("token", "opaque")]).await,
            code
        );
        let closed = closed_page(&server, "/socket/all/", &[("token", "opaque")]).await;
        assert_eq!(closed.code, close, "{error}");
    }
    assert_eq!(elsewhere.asked(), [""; 0], "a redirect leads nowhere");
    // An EventSource would give up for good.
    let asked = reqwest::Client::new().get(server.url("/api/stream"));
    let asked = asked
        .header("accept", "text/event-stream")
        .header("token", "opaque");
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().starts_with("retry: "));
    let asked = reqwest::Client::new()
        .get(server.url(QUERY))
        .header("token", "opaque");
    assert_eq!(asked.send().await.unwrap().headers()["retry-after"], "5");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_delays_nobody_else_and_nobody_for_ever() {
    let endpoint = Endpoint::new("").await;
    endpoint.answers(Answer::Silence);
    let server = asking(&endpoint, &format!("key = \"{SECRET}\""));
    // Who waits has as long as the endpoint has; on a machine that stands still for so long nobody is before
    // him, so it is tried again.
    wait_until("others to be served while somebody waits", async || {
        let begun = Instant::now();
        let waiting = async {
            let told = fetched(&server, QUERY, &[("token", "opaque")]).await;
            assert_eq!(told, (503, "auth_unavailable".into()));
            begun.elapsed()
        };
        let others = async {
            is_served(&mut opened(&server, &[("token", &ann(json!({})))]).await).await;
            begun.elapsed()
        };
        let (waited, served) = tokio::join!(waiting, others);
        (served < waited).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_ends_ends_the_socket_and_signed_tokens_are_not_asked_about() {
    let endpoint = Endpoint::new("").await;
    let server = asking(&endpoint, &format!("key = \"{SECRET}\""));
    let session = json!({ "sub": "ann", "exp": now() + LIFE });
    endpoint.answers(Answer::Body(200, session.to_string()));
    let mut socket = opened(&server, &[("token", "opaque")]).await;
    is_served(&mut socket).await;
    assert_eq!(socket.closed().await.code, 4401);
    let before = endpoint.asked().len();
    is_served(&mut opened(&server, &[("token", &ann(json!({})))]).await).await;
    let expired = ann(json!({ "exp": 1 }));
    assert_eq!(
        status(&server, "/socket/all/", &[("token", &expired)]).await,
        401
    );
    assert_eq!(endpoint.asked().len(), before);
}

#[tokio::test]
async fn a_page_whose_cookies_say_nothing_waits_for_the_hello_or_is_nobody_in_particular() {
    let endpoint = Endpoint::new("").await;
    endpoint.answers(Answer::Body(401, String::new()));
    let server = asking(&endpoint, "");
    let origin = own(&server);
    let headers = [("cookie", "theme=dark"), ("origin", &*origin)];
    let mut socket = Socket::request(handshake(&server, "/socket/all/?hello=1", &headers)).await;
    endpoint.answers(Answer::Body(200, "{\"sub\":\"ann\"}".into()));
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": "opaque" });
    assert_eq!(socket.ask(hello).await["type"], "sys:welcome");
    endpoint.answers(Answer::Body(401, String::new()));
    let server = asking(&endpoint, "anonymous = true");
    let origin = own(&server);
    let headers = [("cookie", "theme=dark"), ("origin", &*origin)];
    is_served(&mut opened(&server, &headers).await).await;
    assert_eq!(
        status(&server, "/socket/all/", &[("token", "opaque")]).await,
        401
    );
}

#[tokio::test]
async fn a_token_that_no_header_can_hold_is_none() {
    let endpoint = Endpoint::new(json!({ "sub": "ann" })).await;
    let server = asking(&endpoint, "token_in_url = true");
    for token in ["a\nb", "a\r\nx-role: admin", "a\u{1}", "\u{7f}"] {
        let mut socket = server.socket("hello=1").await;
        let hello = json!({ "type": "sys:hello", "rid": 1, "token": token });
        assert_eq!(
            socket.ask(hello).await["error"],
            "token_invalid",
            "{token:?}"
        );
        assert_eq!(socket.closed().await.code, 4401);
    }
    for token in ["a%0Ab", "a%00b", "%7F"] {
        let told = fetched(&server, &format!("{QUERY}?token={token}"), &[]).await;
        assert_eq!(told, (401, "token_invalid".into()), "{token}");
    }
    assert_eq!(endpoint.asked(), [""; 0]);
}

#[tokio::test]
async fn who_somebody_is_is_asked_past_every_proxy() {
    let (endpoint, proxy) = (
        Endpoint::new(json!({ "sub": "ann" })).await,
        Endpoint::new(json!({ "sub": "eve", "role": "admin" })).await,
    );
    let variables = ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"];
    let mut env: Vec<(String, String)> = Vec::new();
    env.extend(variables.map(|name| (name.into(), proxy.url().into())));
    env.extend(["no_proxy", "NO_PROXY"].map(|name| (name.into(), String::new())));
    let server = Server::with(Options {
        config: Some(format!(
            "[auth]\nforward_url = \"{}\"\n{CARE}",
            endpoint.url()
        )),
        database: Some(CARE_TABLES.into()),
        env,
        ..Options::default()
    });
    assert_eq!(fetched(&server, QUERY, &[("token", "opaque")]).await.0, 200);
    assert_eq!((endpoint.asked().len(), proxy.asked().len()), (1, 0));
}

/// Questions of one address at once.
const OF_ONE: usize = 8;

/// A gateway behind a proxy that asks an endpoint, which answers to nobody who brings a wrong token.
async fn besieged() -> (Endpoint, Server) {
    let endpoint = Endpoint::new("").await;
    let known = json!({ "sub": "ann" }).to_string();
    endpoint.answers(Answer::SilenceTo("wrong", known));
    let server = guarded(&format!(
        "forward_url = \"{}\"\n[server]\ntrusted_proxies = [\"127.0.0.1\"]",
        endpoint.url()
    ));
    (endpoint, server)
}

/// Somebody at an address that nobody else has is let in while all that is under way is the attackers'. None where
/// they do not wait any more, as on a machine that stood still: to be tried again.
async fn is_let_in(endpoint: &Endpoint, server: &Server, attackers: usize) -> Option<()> {
    let all = attackers * OF_ONE;
    wait_until("the attack", async || {
        (endpoint.at_once() >= all).then_some(())
    })
    .await;
    for _ in 0..20 {
        let headers = [("token", "right"), ("x-forwarded-for", "198.51.100.200")];
        assert_eq!(fetched(server, QUERY, &headers).await.0, 200);
    }
    // Some of them may be over here, and there not yet.
    assert!(endpoint.most_at_once() <= all + OF_ONE / 2);
    (endpoint.at_once() >= all).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_that_bring_wrong_tokens_wait_for_themselves_and_lock_nobody_out() {
    for attackers in [1, 7] {
        wait_until("others to be let in while wrong tokens wait", async || {
            let (endpoint, server) = besieged().await;
            let (mut attack, client) = (tokio::task::JoinSet::new(), reqwest::Client::new());
            for n in 0..attackers * 30 {
                let asked = client
                    .get(server.url(QUERY))
                    .header("token", format!("wrong-{n}"))
                    .header("x-forwarded-for", format!("198.51.100.{}", n % attackers));
                attack.spawn(asked.send());
            }
            let let_in = is_let_in(&endpoint, &server, attackers).await;
            attack.abort_all();
            let_in
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_come_over_open_sockets_wait_for_those_of_their_address_too() {
    wait_until("another to be let in while they wait", async || {
        let (endpoint, server) = besieged().await;
        let from = ("x-forwarded-for", "198.51.100.7");
        let mut attackers = Vec::new();
        for n in 0..15 {
            // One half says who it is first, the other one goes on as somebody else.
            let (path, kind, token) = match n % 2 {
                0 => ("/socket/all/?hello=1", "sys:hello", None),
                _ => ("/socket/all/", "sys:auth", Some(("token", "right"))),
            };
            let headers: Vec<_> = [from].into_iter().chain(token).collect();
            let socket = Socket::request(handshake(&server, path, &headers)).await;
            let wrong = json!({ "type": kind, "rid": 1, "token": format!("wrong-{n}") });
            attackers.push((socket, wrong));
        }
        for (socket, wrong) in &mut attackers {
            socket.send(wrong.clone()).await;
        }
        is_let_in(&endpoint, &server, 1).await
    })
    .await;
}
