//! What is shown to clients, and what to operators alone.

use serde_json::json;

use super::{Answer, open, request, say, tuned};
use crate::support::{Folder, Options, Server, nats::free_port, wait_until};

const OPERATORS: [&str; 3] = ["/metrics", "/api/pipeline", "/api/dead_letters"];

async fn get(address: &str, path: &str) -> Answer {
    say(
        address,
        &request(&format!("GET {path}"), "Host: localhost\r\n"),
    )
    .await
}

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// Puts the database away, and waits until a listener knows.
async fn unready(server: &Server, address: &str) -> serde_json::Value {
    std::fs::rename(server.database(), server.folder().join("away.db")).unwrap();
    wait_until("a missing database to be noticed", async || {
        get(server.address(), "/api/query/patient").await;
        let answer = get(address, "/readyz").await;
        (answer.status == 503).then(|| json(&answer))
    })
    .await
}

#[tokio::test]
async fn with_a_listener_for_operators_clients_see_nothing_of_how_the_process_is() {
    let server = tuned("operator_listen = \"127.0.0.1:0\"");
    let (public, operator) = (server.address(), server.operator());
    for path in OPERATORS {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
            let asked = request(&format!("{method} {path}"), "Host: localhost\r\n");
            assert_eq!(say(public, &asked).await.status, 404, "{method} {path}");
        }
        assert_eq!(get(public, &format!("{path}?limit=1")).await.status, 404);
        assert_eq!(get(public, &format!("{path}/")).await.status, 404);
        assert_eq!(get(public, &path.replace('i', "%69")).await.status, 404);
        assert_eq!(get(operator, path).await.status, 200, "{path}");
    }
    for (path, told) in [("/healthz", "alive"), ("/readyz", "ready")] {
        for address in [public, operator] {
            let answer = get(address, path).await;
            assert_eq!(
                (answer.status, json(&answer)),
                (200, json!({ "status": told }))
            );
        }
    }
    assert_eq!(get(public, "/api/topics").await.status, 200);
    server.socket("").await;
}

#[tokio::test]
async fn why_a_process_is_not_ready_is_told_to_operators_alone() {
    let server = tuned("operator_listen = \"127.0.0.1:0\"");
    let told = unready(&server, server.operator()).await;
    assert!(
        told["missing"]
            .as_object()
            .is_some_and(|missing| !missing.is_empty()),
        "{told}"
    );
    let answer = get(server.address(), "/readyz").await;
    let body = json!({ "status": "not_ready" });
    assert_eq!((answer.status, json(&answer)), (503, body));
}

#[tokio::test]
async fn the_listener_for_operators_serves_nothing_else() {
    let server = tuned("operator_listen = \"127.0.0.1:0\"");
    for path in [
        "/",
        "/rowcast.js",
        "/api/topics",
        "/api/query/patient",
        "/api/stream",
        "/console/console.js",
    ] {
        let answer = get(server.operator(), path).await;
        assert_eq!(
            (answer.status, &*answer.error()),
            (404, "not_found"),
            "{path}"
        );
    }
    for path in ["/socket/all/", "/chat/socket/"] {
        let asked = super::handshake(path, "Host: localhost\r\nConnection: close\r\n");
        assert_eq!(say(server.operator(), &asked).await.status, 404, "{path}");
    }
    let written = request(
        "POST /api/events",
        "Host: localhost\r\nContent-Length: 0\r\n",
    );
    assert_eq!(say(server.operator(), &written).await.status, 404);
    // A page that was made to be of this machine learns nothing here either, nor does one that may connect.
    let rebound = request("GET /metrics", "Host: evil.example\r\n");
    assert_eq!(say(server.operator(), &rebound).await.status, 421);
    let page = request(
        "GET /api/pipeline",
        "Host: localhost\r\nOrigin: http://localhost:3000\r\n",
    );
    let answer = say(server.operator(), &page).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_listener_that_others_reach_shows_nothing_to_operators_until_it_is_told_where() {
    let server = open("");
    for path in OPERATORS {
        assert_eq!(get(server.address(), path).await.status, 404, "{path}");
    }
    server.logged("server.operator_listen");
    let told = unready(&server, server.address()).await;
    assert_eq!(told, json!({ "status": "not_ready" }));

    // Two free ports would be two.
    let address = format!("0.0.0.0:{}", free_port());
    let repeated = Server::with(Options {
        config: Some("[auth]\nanonymous = true\n".into()),
        listen: Some(address.clone()),
        env: vec![("ROWCAST__SERVER__OPERATOR_LISTEN".into(), address)],
        ..Options::default()
    });
    for path in OPERATORS {
        assert_eq!(get(repeated.address(), path).await.status, 200, "{path}");
    }
}

#[test]
fn a_port_for_operators_that_is_taken_is_told_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let address = taken.local_addr().unwrap();
    folder.write(
        "rowcast.toml",
        &format!("[server]\noperator_listen = \"{address}\"\n"),
    );
    let ran = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let said = format!("{address} is taken");
    assert!(ran.stderr.contains(&said), "{ran:?}");
    assert!(ran.stderr.contains("server.operator_listen"), "{ran:?}");
}
