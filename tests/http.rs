//! HTTP: the API, the tutorial's trigger views, CORS and the headers.

mod files;
mod origins;
mod pipeline;
mod queries;
mod stream;
mod writes;

use reqwest::{Client, Method, header::HeaderMap};
use serde_json::Value as Json;

use crate::support::Server;

/// A request with headers; the status, the headers and the body.
async fn request(
    server: &Server,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> (u16, HeaderMap, String) {
    let mut request = Client::new().request(method, server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body.to_owned());
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.text().await.unwrap())
}

/// A `POST` of text with a content type; the status and the JSON answer.
pub async fn post(server: &Server, path: &str, kind: &str, body: &str) -> (u16, Json) {
    let headers = [("content-type", kind)];
    let headers = if kind.is_empty() {
        &[]
    } else {
        headers.as_slice()
    };
    let (status, _, text) = request(server, Method::POST, path, headers, Some(body)).await;
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}")),
    )
}
