//! The headers of every answer, and which pages may read it.

use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use serde_json::{Value as Json, json};

use super::request;
use crate::{
    support::{Options, Server, sqlite3},
    wire::{CARE, CARE_TABLES, care},
};

fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let text = headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap());
    let names = text.split(',').map(|name| name.trim().to_owned());
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_wrong_path_or_method_is_told_in_json() {
    let server = care();
    for (method, path, status, slug) in [
        (Method::GET, "/nothing", 404, "not_found"),
        (Method::GET, "/console/nothing.js", 404, "not_found"),
        (Method::GET, "/console/..%2fconfig", 404, "not_found"),
        (Method::POST, "/api/topics", 405, "method_not_allowed"),
        (Method::GET, "/api/events", 405, "method_not_allowed"),
        (
            Method::DELETE,
            "/api/query/patient",
            405,
            "method_not_allowed",
        ),
        (Method::GET, "/chat/update/info/", 405, "method_not_allowed"),
        (Method::PUT, "/", 405, "method_not_allowed"),
    ] {
        let (code, headers, text) = request(&server, method.clone(), path, &[], None).await;
        let body: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (code, &body["code"], &body["error"]),
            (status, &json!(status), &json!(slug)),
            "{method} {path}"
        );
        assert_eq!(headers["content-type"], "application/json; charset=utf-8");
        assert_eq!(
            status == 405,
            headers.contains_key("allow"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn the_console_is_served_with_a_policy_that_admits_nothing_foreign() {
    let server = care();
    let (code, headers, page) = request(&server, Method::GET, "/", &[], None).await;
    assert_eq!(
        (code, &headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    let policy = headers["content-security-policy"].to_str().unwrap();
    for rule in [
        "default-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let files = page.split('"').filter(|part| part.starts_with("/console/"));
    for file in files {
        let (code, ..) = request(&server, Method::GET, file, &[], None).await;
        assert_eq!(code, 200, "{file}");
    }
    let (code, headers, _) = request(&server, Method::GET, "/api/topics", &[], None).await;
    assert_eq!(
        (code, headers["cache-control"].to_str().unwrap()),
        (200, "no-store")
    );
}

/// A browser's question before it sends a request of another origin.
async fn preflight(server: &Server, origin: &str) -> HeaderMap {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,token"),
    ];
    let (code, headers, _) = request(server, Method::OPTIONS, "/api/events", &headers, None).await;
    assert!(StatusCode::from_u16(code).unwrap().is_success(), "{code}");
    headers
}

#[tokio::test]
async fn a_preflight_names_exactly_the_tutorials_methods_and_headers() {
    let server = care();
    let headers = preflight(&server, "http://localhost:5173").await;
    assert_eq!(
        listed(&headers, "access-control-allow-methods"),
        ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "VIEW"]
    );
    assert_eq!(
        listed(&headers, "access-control-allow-headers"),
        [
            "accept-encoding",
            "authorization",
            "content-type",
            "dnt",
            "origin",
            "pragma",
            "token",
            "user-agent",
            "x-csrftoken",
            "x-requested-with",
            "x_filename",
            "xmlhttprequest",
        ]
    );
    assert_eq!(
        headers["access-control-allow-origin"],
        "http://localhost:5173"
    );
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert!(
        listed(&headers, "vary")
            .iter()
            .any(|name| name.eq_ignore_ascii_case("origin"))
    );
}

#[tokio::test]
async fn only_allowed_origins_may_read_answers() {
    let server = Server::configured(
        &format!("[server]\nallowed_origins = [\"https://care.example\"]\n{CARE}"),
        CARE_TABLES,
    );
    let own = format!("http://{}", server.address());
    for (origin, allowed) in [
        (&*own, true),
        ("https://care.example", true),
        ("http://127.0.0.1:3000", true),
        ("https://evil.example", false),
        ("https://care.example.evil", false),
        ("null", false),
    ] {
        let preflighted = preflight(&server, origin).await;
        let (_, got, _) = request(
            &server,
            Method::GET,
            "/api/topics",
            &[("origin", origin)],
            None,
        )
        .await;
        for headers in [preflighted, got] {
            let told = headers
                .get("access-control-allow-origin")
                .map(|value| value.to_str().unwrap());
            assert_eq!(told, allowed.then_some(origin));
        }
    }
}

#[tokio::test]
async fn everybody_may_be_let_in_but_then_without_credentials() {
    let server = Server::configured(
        &format!("[server]\nallowed_origins = [\"*\"]\n{CARE}"),
        CARE_TABLES,
    );
    let headers = preflight(&server, "https://anybody.example").await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(!headers.contains_key("access-control-allow-credentials"));
    assert_eq!(listed(&headers, "access-control-allow-headers").len(), 12);
    let headers = [
        ("origin", "https://anybody.example"),
        ("content-type", "application/json"),
    ];
    let (code, ..) = request(
        &server,
        Method::POST,
        "/api/events",
        &headers,
        Some(r#"{"type":"notice"}"#),
    )
    .await;
    assert_eq!(code, 202);
}

#[tokio::test]
async fn a_write_of_a_foreign_page_is_refused_and_does_nothing() {
    let server = Server::start();
    let rows = || sqlite3(&server.database(), "SELECT count(*) FROM patient");
    let before = rows();
    for (path, body) in [
        ("/chat/update/info/", ""),
        ("/api/events", r#"{"type":"patient","data":"evil"}"#),
        ("/api/topics/all_patient_page_data/refresh", ""),
    ] {
        let headers = [
            ("origin", "https://evil.example"),
            ("content-type", "application/json"),
        ];
        let (code, _, text) = request(&server, Method::POST, path, &headers, Some(body)).await;
        let answer: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (code, &answer["code"], &answer["error"]),
            (403, &json!(403), &json!("forbidden")),
            "{path}"
        );
    }
    assert_eq!(rows(), before);
    let headers = [
        ("origin", "http://localhost:1"),
        ("content-type", "application/json"),
    ];
    let (code, ..) = request(
        &server,
        Method::POST,
        "/chat/update/info/",
        &headers,
        Some("{}"),
    )
    .await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_listener_that_others_reach_admits_no_loopback_pages() {
    let server = Server::with(Options {
        config: Some(format!("[auth]\nanonymous = true\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    });
    let local = server.url("").replace("0.0.0.0", "127.0.0.1");
    let topics = format!("{local}/api/topics");
    let from = async |origin: &str| {
        let answer = Client::new()
            .get(&topics)
            .header("origin", origin)
            .send()
            .await
            .unwrap();
        answer.headers().contains_key("access-control-allow-origin")
    };
    assert!(from(&local).await, "the own host");
    assert!(!from("http://localhost:5173").await);
}
