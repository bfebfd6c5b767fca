//! How often one asker may ask without a socket.

use std::time::Instant;

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value as Json, json};

use super::counted;
use crate::{
    auth::{
        issuer::{self, SECRET},
        opened,
    },
    support::{Options, Server, in_time, stack::Stack, wait_until},
    wire::{CARE, CARE_TABLES},
};

/// A gateway to which this machine is a proxy, where three requests at once are answered, and then one a second.
fn paced() -> Server {
    serving("[server]\ntrusted_proxies = [\"127.0.0.1\"]\noperator_listen = \"127.0.0.1:0\"")
}

fn serving(server: &str) -> Server {
    let config = format!(
        "{server}\n[limits]\nrequests_per_second = 1\nrequests_burst = 3\n\
         [auth]\nkey = \"{SECRET}\"\nanonymous = true\noperator = {{ role = \"admin\" }}\n{CARE}"
    );
    Server::with(Options {
        config: Some(config),
        database: Some(CARE_TABLES.into()),
        ..Options::default()
    })
}

/// What is asked, and by whom.
#[derive(Clone, Copy)]
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    from: &'a str,
    token: Option<&'a str>,
}

/// A query of somebody who is nobody in particular.
fn query(from: &str) -> Asked<'_> {
    Asked {
        method: "GET",
        path: "/api/query/patient?id=1",
        from,
        token: None,
    }
}

async fn say(server: &Server, asked: Asked<'_>) -> Response {
    let method: Method = asked.method.parse().unwrap();
    let mut request = Client::new()
        .request(method, server.url(asked.path))
        .header("x-forwarded-for", asked.from);
    if let Some(token) = asked.token {
        request = request.header("token", token);
    }
    if asked.method == "POST" {
        request = request.json(&json!({ "type": "patient", "data": 1 }));
    }
    in_time("an answer", request.send()).await.unwrap()
}

/// Asks until that is too often, which it is soon: one that was answered is followed at once by another.
async fn refused(server: &Server, asked: Asked<'_>) -> (usize, Response) {
    for answered in 0..50 {
        let answer = say(server, asked).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return (answered, answer);
        }
        assert!(answer.status().is_success(), "{answer:?}");
    }
    panic!("fifty requests were answered");
}

#[tokio::test]
async fn who_asks_too_often_over_http_is_told_when_to_come_again_and_nobody_else_is() {
    let server = paced();
    let greedy = query("192.0.2.1");
    let (answered, answer) = refused(&server, greedy).await;
    assert!(answered >= 3, "{answered}");
    assert_eq!(answer.headers()["retry-after"], "1");
    let body: Json = answer.json().await.unwrap();
    assert_eq!(body["error"], "too_many_requests", "{body}");
    let wait = body["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1001).contains(&wait), "{body}");
    assert!(counted(&server, "pace").await >= 1);
    let other = say(&server, query("192.0.2.2")).await;
    assert_eq!(other.status(), 200);
    wait_until("an answer", async || {
        let answer = say(&server, greedy).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    // What needs neither the database nor the bus is not counted.
    for _ in 0..20 {
        let page = Asked {
            path: "/rowcast.js",
            ..greedy
        };
        assert_eq!(say(&server, page).await.status(), 200);
    }
}

#[tokio::test]
async fn all_that_reaches_database_or_bus_counts_together() {
    let server = paced();
    let all = [
        ("GET", "/api/query/patient?id=1"),
        ("GET", "/api/query/patient?size=nonsense"),
        ("GET", "/api/query/none"),
        ("GET", "/api/topics"),
        ("GET", "/api/types"),
        ("POST", "/api/events"),
        ("POST", "/api/topics/patient/refresh"),
        ("GET", "/api/stream"),
        ("POST", "/api/revoke"),
    ];
    for (number, (method, path)) in all.into_iter().enumerate() {
        let from = format!("192.0.2.{number}");
        refused(&server, query(&from)).await;
        let refused = wait_until(path, async || {
            let asked = Asked {
                method,
                path,
                ..query(&from)
            };
            let answer = say(&server, asked).await;
            (answer.status() == StatusCode::TOO_MANY_REQUESTS).then_some(())
        });
        refused.await;
    }
}

#[tokio::test]
async fn an_operator_has_a_pace_as_anybody_has() {
    // On a listener that shows him what is his, which is one that no proxy brings others to.
    let server = serving("");
    for path in ["/api/pipeline", "/api/dead_letters"] {
        let root = json!({ "sub": path, "role": "admin", "exp": issuer::now() + 600 });
        let token = issuer::hs256(&root);
        let asked = Asked {
            path,
            token: Some(&token),
            ..query("127.0.0.1")
        };
        let (answered, _) = refused(&server, asked).await;
        assert!(answered >= 3, "{answered}");
    }
}

/// How a stream of events begins for a browser, or what it is told instead.
async fn stream(server: &Server, from: &str) -> String {
    let asked = Client::new()
        .get(server.url("/api/stream"))
        .header("accept", "text/event-stream")
        .header("x-forwarded-for", from)
        .send();
    let mut answer = in_time("an answer", asked).await.unwrap();
    assert_eq!(answer.status(), 200, "{answer:?}");
    let told = in_time("what is told", answer.chunk()).await.unwrap();
    String::from_utf8(told.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_browsers_stream_that_comes_too_early_comes_back_and_not_all_of_a_ward_do_at_once() {
    let server = paced();
    let refused = wait_until("a stream that comes too early", async || {
        let told = stream(&server, "192.0.2.1").await;
        (!told.contains("retry: 2000")).then_some(told)
    });
    let told = refused.await;
    assert!(
        told.starts_with("retry: ") && told.ends_with("\n\n"),
        "{told}"
    );
    assert!(counted(&server, "pace").await >= 1);
    assert!(stream(&server, "192.0.2.2").await.contains("retry: 2000"));
}

#[tokio::test]
async fn a_ward_whose_streams_all_come_back_through_one_address_is_not_too_fast() {
    let config = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\noperator_listen = \"127.0.0.1:0\"\n\
         max_connections_per_address = 1000\n[auth]\nanonymous = true\n{CARE}"
    );
    let server = Server::configured(&config, CARE_TABLES);
    // As many as one address may have by default, and each of them once more.
    for _ in 0..2 * 100 {
        let told = stream(&server, "192.0.2.1").await;
        assert!(told.contains("retry: 2000"), "{told}");
    }
    assert_eq!(counted(&server, "pace").await, 0);
}

#[tokio::test]
async fn an_identity_has_its_pace_wherever_it_asks_from_and_whatever_its_token() {
    let server = paced();
    let ann = |jti: usize| {
        issuer::hs256(&json!({ "sub": "ann", "jti": jti, "exp": issuer::now() + 600 }))
    };
    let mut answered = 0;
    let came_too_early = (0..50).map(async |number| {
        let (token, from) = (ann(number), format!("192.0.2.{number}"));
        let asked = Asked {
            token: Some(&token),
            ..query(&from)
        };
        say(&server, asked).await.status() == StatusCode::TOO_MANY_REQUESTS
    });
    let mut refused = false;
    for asked in came_too_early {
        refused = asked.await;
        if refused {
            break;
        }
        answered += 1;
    }
    assert!(refused && answered >= 3, "{answered}");
    let bob = issuer::hs256(&json!({ "sub": "bob", "exp": issuer::now() + 600 }));
    let asked = Asked {
        token: Some(&bob),
        ..query("192.0.2.1")
    };
    assert_eq!(say(&server, asked).await.status(), 200);
    // Her sockets are not touched.
    let headers = [("token", &*ann(0)), ("x-forwarded-for", "192.0.2.1")];
    let mut socket = opened(&server, &headers).await;
    for rid in 0..10 {
        let query = json!({ "type": "patient", "rid": rid, "id": 1 });
        assert_eq!(socket.ask(query).await["op"], "replace");
    }
}

#[tokio::test]
async fn a_thousand_requests_at_once_of_one_address_are_answered_or_refused_and_nobody_else_is() {
    let config = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\noperator_listen = \"127.0.0.1:0\"\n\
         [auth]\nanonymous = true\n{CARE}"
    );
    let server = Server::configured(&config, CARE_TABLES);
    let (client, begun) = (Client::new(), Instant::now());
    let mut answers = [0, 0];
    for _ in 0..1000 {
        let asked = client
            .get(server.url("/api/query/patient?id=1"))
            .header("x-forwarded-for", "192.0.2.1");
        match in_time("an answer", asked.send()).await.unwrap().status() {
            StatusCode::OK => answers[0] += 1,
            StatusCode::TOO_MANY_REQUESTS => answers[1] += 1,
            other => panic!("{other}"),
        }
    }
    let most = 200 + 50 * (begun.elapsed().as_secs() + 1);
    assert!((200..=most).contains(&answers[0]), "{answers:?}");
    assert_eq!(counted(&server, "pace").await, answers[1]);
    let other = say(&server, query("192.0.2.2")).await;
    assert_eq!(other.status(), 200);
}

#[tokio::test]
async fn this_machine_may_ask_as_often_as_it_likes_for_nobody_in_particular() {
    let server = serving("");
    for _ in 0..20 {
        let answer = say(&server, query("192.0.2.1")).await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(counted(&server, "pace").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_over_nats_has_its_pace_and_who_is_nobody_in_particular_has_none() {
    let config = format!(
        "[limits]\nrequests_per_second = 1\nrequests_burst = 3\n\
         [auth]\nkey = \"{SECRET}\"\nanonymous = true\n[[topics]]\ntype = \"t\"\ntable = \"t\"\n"
    );
    let tables = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1);";
    let stack = Stack::new(&config, tables, 1);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let ask = async |token: Option<&str>| -> Json {
        let mut headers = async_nats::HeaderMap::new();
        if let Some(token) = token {
            headers.insert("Rowcast-Token", token);
        }
        let asked = client.request_with_headers("rowcast.query.t", headers, "{\"id\":1}".into());
        let answer = in_time("an answer", asked).await;
        answer.map_or(Json::Null, |answer| {
            serde_json::from_slice(&answer.payload).unwrap()
        })
    };
    wait_until("the first answer", async || {
        (ask(None).await["type"] == "t").then_some(())
    })
    .await;
    for _ in 0..20 {
        assert_eq!(ask(None).await["type"], "t");
    }
    let ann = issuer::hs256(&json!({ "sub": "ann", "exp": issuer::now() + 600 }));
    let answer = wait_until("a refusal", async || {
        let answer = ask(Some(&ann)).await;
        (answer["type"] == "sys:error").then_some(answer)
    })
    .await;
    assert_eq!(answer["error"], "too_many_requests", "{answer}");
    assert!(answer["retry_after_ms"].as_u64().unwrap() > 0, "{answer}");
    assert!(counted(&stack.gateways[0], "pace").await >= 1);
}
