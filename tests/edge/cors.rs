//! What a browser is told before and after a request of another origin.

use super::{Answer, request, say, tuned};
use crate::support::Server;

const METHODS: [&str; 12] = [
    "DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "VIEW", "HEAD", "TRACE", "CONNECT",
    "PROPFIND", "post",
];

const HEADERS: [&str; 9] = [
    "token",
    "content-type,token",
    "authorization",
    "x-csrftoken, x-requested-with",
    "x-evil",
    "*",
    "cookie",
    "host",
    "content-type,x-evil",
];

const ORIGINS: [(&str, bool); 9] = [
    ("https://care.example", true),
    ("http://localhost:3000", true),
    ("http://127.0.0.1", true),
    ("null", false),
    ("*", false),
    ("https://evil.example", false),
    ("https://care.example.evil", false),
    ("http://care.example", false),
    ("https://Care.example", false),
];

async fn preflight(
    server: &Server,
    path: &str,
    origin: &str,
    method: &str,
    headers: &str,
) -> Answer {
    let asked = format!(
        "Host: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n\
         Access-Control-Request-Headers: {headers}\r\nAccess-Control-Request-Private-Network: true\r\n"
    );
    say(
        server.address(),
        &request(&format!("OPTIONS {path}"), &asked),
    )
    .await
}

fn told(answer: &Answer, name: &str) -> Option<String> {
    answer.header(&format!("access-control-{name}"))
}

#[tokio::test]
async fn every_preflight_names_the_same_few_and_no_stranger() {
    let server = tuned("allowed_origins = [\"https://care.example\"]");
    let mut count = 0;
    for path in [
        "/api/events",
        "/api/query/patient",
        "/api/stream",
        "/nothing",
    ] {
        for (origin, admitted) in ORIGINS {
            for (method, headers) in METHODS
                .map(|method| (method, "token"))
                .into_iter()
                .chain(HEADERS.map(|headers| ("POST", headers)))
            {
                let answer = preflight(&server, path, origin, method, headers).await;
                let shown = format!("{path} {origin} {method} {headers}\n{}", answer.head);
                assert_eq!(answer.status, 200, "{shown}");
                let origin = admitted.then(|| origin.to_owned());
                assert_eq!(told(&answer, "allow-origin"), origin, "{shown}");
                let credentials = admitted.then(|| "true".to_owned());
                assert_eq!(told(&answer, "allow-credentials"), credentials, "{shown}");
                let allowed = told(&answer, "allow-headers").unwrap();
                let named: Vec<_> = allowed.split(',').map(str::trim).collect();
                assert_eq!(named.len(), 12, "{shown}");
                assert!(
                    !named
                        .iter()
                        .any(|name| ["*", "x-evil", "cookie"].contains(name))
                );
                assert!(!told(&answer, "allow-methods").unwrap().contains("trace"));
                assert_eq!(told(&answer, "allow-private-network"), None, "{shown}");
                assert!(answer.header("vary").unwrap().contains("origin"), "{shown}");
                count += 1;
            }
        }
    }
    assert!(count >= 700, "{count} preflights");
}

#[tokio::test]
async fn an_answer_is_readable_for_admitted_origins_alone_and_caches_are_told() {
    let server = tuned("allowed_origins = [\"https://care.example\"]");
    for target in [
        "GET /api/topics",
        "GET /api/query/nobody",
        "GET /nothing",
        "PUT /api/topics",
    ] {
        for (origin, admitted) in ORIGINS {
            let headers = format!("Host: localhost\r\nOrigin: {origin}\r\n");
            let answer = say(server.address(), &request(target, &headers)).await;
            let shown = format!("{target} {origin}\n{}", answer.head);
            let origin = admitted.then(|| origin.to_owned());
            assert_eq!(told(&answer, "allow-origin"), origin, "{shown}");
            let credentials = admitted.then(|| "true".to_owned());
            assert_eq!(told(&answer, "allow-credentials"), credentials, "{shown}");
            assert!(answer.header("vary").unwrap().contains("origin"), "{shown}");
        }
        // One without an origin may be kept for one with.
        let answer = say(server.address(), &request(target, "Host: localhost\r\n")).await;
        assert!(
            answer.header("vary").unwrap().contains("origin"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn everybody_is_let_in_by_a_star_and_never_with_credentials() {
    let server = tuned("allowed_origins = [\"*\"]");
    for (origin, _) in ORIGINS {
        for method in METHODS {
            let answer = preflight(&server, "/api/events", origin, method, "token").await;
            assert_eq!(
                told(&answer, "allow-origin").as_deref(),
                Some("*"),
                "{}",
                answer.head
            );
            assert_eq!(told(&answer, "allow-credentials"), None, "{}", answer.head);
            assert_eq!(told(&answer, "allow-private-network"), None);
        }
    }
}
