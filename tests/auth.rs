//! Who may connect: tokens in every place and of every kind, and what becomes of the others.

mod answers;
mod echo;
pub mod endpoint;
mod forward;
pub mod issuer;
mod kept;
mod keys;
mod lives;
mod matrix;
mod presented;
mod publish;
mod revoked;
mod secrets;
mod shares;
mod storm;
mod topics;

use reqwest::StatusCode;
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{client::IntoClientRequest, handshake::client::Request};

use crate::support::{Closed, Raw, Server, Socket};
use crate::wire::{CARE, CARE_TABLES};
use issuer::{SECRET, now};

/// A gateway on the care home, with these lines in `[auth]`.
fn guarded(auth: &str) -> Server {
    Server::configured(&format!("[auth]\n{auth}\n{CARE}"), CARE_TABLES)
}

/// One that judges by the secret of the tests, without leeway.
fn with_secret(more: &str) -> Server {
    guarded(&format!("key = \"{SECRET}\"\nleeway_ms = 0\n{more}"))
}

/// A token of Ann's for a minute, with these claims changed.
fn ann(changes: Json) -> String {
    let mut claims = json!({ "sub": "ann", "exp": now() + 60 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    issuer::hs256(&claims)
}

/// A handshake with headers, on a path with parameters.
fn handshake(server: &Server, path: &str, headers: &[(&str, &str)]) -> Request {
    let url = format!("ws://{}{path}", server.address());
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// A socket that is opened with these headers.
pub async fn opened(server: &Server, headers: &[(&str, &str)]) -> Socket {
    Socket::request(handshake(server, "/socket/all/", headers)).await
}

/// The status with which a handshake with these headers is answered.
async fn status(server: &Server, path: &str, headers: &[(&str, &str)]) -> u16 {
    let lines = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let (_, head) = Raw::ask(server, path, &lines.collect::<String>()).await;
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// How a page of this server's own host is closed when it connects with these headers.
async fn closed_page(server: &Server, path: &str, headers: &[(&str, &str)]) -> Closed {
    let own = format!("http://{}", server.address());
    let mut request = handshake(server, path, headers);
    request.headers_mut().insert("origin", own.parse().unwrap());
    Socket::request(request).await.closed().await
}

/// The status and the error of a request with these headers.
async fn fetched(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, Json) {
    let mut request = reqwest::Client::new().get(server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let challenge = answer.headers().get("www-authenticate").cloned();
    if status == StatusCode::UNAUTHORIZED {
        assert_eq!(challenge.unwrap(), "Bearer");
    }
    let body: Json = answer.json().await.unwrap();
    (status.as_u16(), body["error"].clone())
}

/// Asks something, to see that the socket is one of the group.
async fn is_served(socket: &mut Socket) {
    let reply = socket
        .ask(json!({ "type": "patient", "rid": "served?", "id": 1 }))
        .await;
    assert_eq!(reply["op"], "replace", "{reply}");
}
