//! The names that a listener answers to: a page whose own name was made to resolve to this machine is
//! told from one of this machine's by its `Host` alone.

use super::{Answer, CARE, CARE_TABLES, handshake, open, request, say, tuned};
use crate::support::{Options, Server};

/// What is asked under a name, in every way that there is.
const TARGETS: [&str; 9] = [
    "GET /",
    "GET /rowcast.js",
    "GET /api/topics",
    "GET /api/query/patient",
    "GET /api/stream",
    "GET /metrics",
    "GET /api/pipeline",
    "POST /api/topics/board/refresh",
    "OPTIONS /api/events",
];

/// Those of them that are not for clients.
const OF_OPERATORS: [&str; 2] = ["GET /metrics", "GET /api/pipeline"];

async fn sockets(server: &Server, host: &str) -> Vec<Answer> {
    let mut answers = Vec::new();
    for path in ["/socket/all/", "/chat/socket/"] {
        let headers = format!("Host: {host}\r\n");
        answers.push(say(server.address(), &handshake(path, &headers)).await);
        // Of the same host, as the browser sees it.
        let headers = format!(
            "Host: {host}\r\nOrigin: http://{}\r\n",
            host.to_ascii_lowercase()
        );
        answers.push(say(server.address(), &handshake(path, &headers)).await);
    }
    answers
}

/// Holds every way to ask for something under a name against what is expected.
async fn holds(server: &Server, host: &str, admitted: bool) {
    for answer in sockets(server, host).await {
        assert_eq!(
            answer.status,
            if admitted { 101 } else { 421 },
            "{host}: {}",
            answer.head
        );
        assert_eq!(answer.close_code(), None, "{host}");
    }
    let headers = format!("Host: {host}\r\n");
    for target in TARGETS {
        // A stream of events has no end.
        if admitted && target == "GET /api/stream" {
            continue;
        }
        let answer = say(server.address(), &request(target, &headers)).await;
        match admitted {
            // What is for operators is elsewhere where others come.
            true => assert!(
                (200..300).contains(&answer.status)
                    || (answer.status == 404 && OF_OPERATORS.contains(&target)),
                "{host} {target}: {}",
                answer.head
            ),
            false => assert_eq!(
                (answer.status, &*answer.error()),
                (421, "misdirected"),
                "{host} {target}: {}",
                answer.head
            ),
        }
    }
    for (path, told) in [("/healthz", "alive"), ("/readyz", "ready")] {
        let answer = say(server.address(), &request(&format!("GET {path}"), &headers)).await;
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(
            (answer.status, body.contains(told)),
            (200, true),
            "{host} {path}"
        );
    }
}

#[tokio::test]
async fn a_loopback_listener_answers_to_the_names_of_this_machine_alone() {
    let server = tuned("");
    for host in [
        "localhost",
        "localhost:8888",
        "LOCALHOST",
        "127.0.0.1:1",
        "127.3.2.1",
        "[::1]:8888",
    ] {
        holds(&server, host, true).await;
    }
    for host in [
        "evil.example",
        "evil.example:8888",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:127.0.0.1",
        "localhost@evil.example",
        "192.0.2.1",
        "0.0.0.0",
        "127.1",
        "2130706433",
        "[::]",
        "[::ffff:127.0.0.1]",
        "localhost.",
        "localhost:",
        "localhost:x",
        "",
        "*",
    ] {
        holds(&server, host, false).await;
    }
    assert!(server.counted("errors_total{kind=\"misdirected\"}").await > 0);
}

#[tokio::test]
async fn a_listener_answers_to_the_names_that_it_was_given() {
    let server = tuned("allowed_hosts = [\"care.example.org\", \"b.example:8443\"]");
    for host in [
        "care.example.org",
        "Care.Example.org:1",
        "b.example:8443",
        "localhost",
    ] {
        holds(&server, host, true).await;
    }
    for host in [
        "b.example",
        "b.example:844",
        "x.care.example.org",
        "care.example.org.evil",
    ] {
        holds(&server, host, false).await;
    }
    let server = tuned("allowed_hosts = [\"*\"]");
    holds(&server, "anybody.example", true).await;
}

#[tokio::test]
async fn where_nobody_says_who_he_is_no_page_can_have_its_own_name_resolve_to_the_server() {
    let server = open("");
    // As a browser in the same network, or a program beside it, asks for it.
    for host in [
        "gateway",
        "gateway:8888",
        "localhost:8888",
        "192.0.2.1:8888",
        "[2001:db8::1]:8888",
        "buero.local",
        "care.home.arpa:8888",
        "rowcast.default.svc.cluster.local",
    ] {
        holds(&server, host, true).await;
    }
    for host in [
        "rebound.evil.example:8888",
        "192.0.2.1.evil.example",
        "localhost.evil.example",
        "gateway.evil.example",
        "gateway.",
        "local.evil",
    ] {
        holds(&server, host, false).await;
    }
    server.logged("server.allowed_hosts");
}

#[tokio::test]
async fn a_listener_that_others_reach_answers_to_every_name_until_it_is_given_some() {
    let server = Server::with(Options {
        config: Some(format!(
            "[auth]\nkey = \"a secret of the tests, of more than 32 bytes\"\n{CARE}"
        )),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    });
    let asked = request("GET /api/topics", "Host: care.example.org\r\n");
    assert_eq!(say(server.address(), &asked).await.error(), "token_missing");
    assert!(!server.log().contains("server.allowed_hosts"));
    let server = open("allowed_hosts = [\"care.example.org\"]");
    for (host, status) in [
        ("care.example.org", 101),
        ("localhost", 421),
        ("192.0.2.1", 421),
    ] {
        for answer in sockets(&server, host).await {
            assert_eq!(answer.status, status, "{host}");
        }
    }
}

#[tokio::test]
async fn a_target_that_names_another_host_is_not_answered() {
    let server = tuned("");
    for (target, status) in [
        ("http://localhost/api/topics", 200),
        ("http://evil.example/api/topics", 421),
        ("http://localhost@evil.example/api/topics", 421),
    ] {
        let asked = request(&format!("GET {target}"), "Host: localhost\r\n");
        let answer = say(server.address(), &asked).await;
        assert_eq!(answer.status, status, "{target}: {}", answer.head);
    }
}
