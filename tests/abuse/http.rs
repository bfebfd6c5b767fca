//! A27, A28, A34: requests that write, and pages that nobody should see. tests/http/origins.rs has the whole
//! of CORS; here is who may not write, and what is never told.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    inputs::{naughty, parsing},
    stage::{Stage, answer},
    told::{Told, status},
};
use crate::support::in_time;

/// Every path that writes.
const WRITES: [&str; 3] = ["/api/events", "/chat/update/info/", "/chat/update/record/"];

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn what_must_not_be_written_is_refused_and_what_must_not_be_seen_is_not_there() {
    // The demo, for it has the tutorial's views; `notice` is no topic of it.
    let mut stage = Stage::of(crate::support::Server::start())
        .await
        .quiet("patient");
    methods(&mut stage).await;
    kinds(&mut stage).await;
    bodies(&mut stage).await;
    foreign(&mut stage).await;
    hidden(&mut stage).await;
    endless(&mut stage).await;
    stage.end().await;
}

async fn methods(stage: &mut Stage) {
    let host = "Host: localhost\r\nConnection: close\r\n";
    for method in ["GET", "PUT", "DELETE", "PATCH", "VIEW", "TRACE", "PROPFIND"] {
        for path in WRITES
            .into_iter()
            .chain(["/api/topics/all_patient_page_data/refresh"])
        {
            let sent = format!("{method} {path} HTTP/1.1\r\n{host}\r\n");
            stage
                .request("A27", sent.as_bytes(), &[status(405, "method_not_allowed")])
                .await;
        }
        if method != "GET" {
            for path in [
                "/api/query/patient",
                "/api/topics",
                "/healthz",
                "/metrics",
                "/api/stream",
            ] {
                let sent = format!("{method} {path} HTTP/1.1\r\n{host}\r\n");
                stage
                    .request("A27", sent.as_bytes(), &[status(405, "method_not_allowed")])
                    .await;
            }
        }
    }
}

async fn kinds(stage: &mut Stage) {
    let event = br#"{"type":"patient","data":1}"#;
    let unsupported = status(415, "unsupported_media_type");
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "application/jsonp",
        "application/json, text/plain",
        "json",
        "",
        "*/*",
        "application/json\u{b}",
        "text/plain; application/json",
        "application/xml",
    ] {
        let kind = format!("Content-Type: {kind}\r\n");
        for path in WRITES {
            let expected = [unsupported.clone(), status(400, "")];
            stage
                .request("A27", &post(path, &kind, event), &expected)
                .await;
        }
    }
    // What is compressed is not inflated.
    let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xabV*\xa9,HU\xb2R\nvu\xf1\x05\0";
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let headers = format!("{JSON}Content-Encoding: {encoding}\r\n");
        for path in WRITES {
            stage
                .request(
                    "A27",
                    &post(path, &headers, gzip),
                    std::slice::from_ref(&unsupported),
                )
                .await;
        }
    }
}

async fn bodies(stage: &mut Stage) {
    let refused = [
        status(400, "bad_json"),
        status(400, "bad_param"),
        status(404, "unknown_type"),
        // What could be read in two ways, or what nobody stores.
        status(400, "duplicate_key"),
        status(400, "nul_not_allowed"),
        status(400, "number_range"),
        status(400, "too_deep"),
    ];
    for test in parsing() {
        for path in WRITES {
            // An empty body asks the tutorial's views for a row that they make up themselves.
            let made_up = test.bytes.is_empty() && path != "/api/events";
            let empty_object = path != "/api/events"
                && std::str::from_utf8(&test.bytes)
                    .is_ok_and(|text| text.split_whitespace().collect::<String>() == "{}");
            if made_up || empty_object {
                continue;
            }
            stage
                .request("A27", &post(path, JSON, &test.bytes), &refused)
                .await;
        }
    }
    for text in naughty() {
        let event = serde_json::json!({ "type": text, "data": text }).to_string();
        let unknown = [status(404, "unknown_type")];
        stage
            .request(
                "A27",
                &post("/api/events", JSON, event.as_bytes()),
                &unknown,
            )
            .await;
        let row = serde_json::json!({ (text.clone()): 1 }).to_string();
        let bad = [status(400, "bad_param")];
        stage
            .request(
                "A27",
                &post("/chat/update/info/", JSON, row.as_bytes()),
                &bad,
            )
            .await;
    }
    for length in [65_537, 100_000, 1 << 20, 8 << 20] {
        let body = format!("\"{}\"", "x".repeat(length - 2));
        for path in WRITES {
            let large = [status(413, "payload_too_large")];
            stage
                .request("A27", &post(path, JSON, body.as_bytes()), &large)
                .await;
        }
    }
    // Announced, and begun; or in chunks, as many as it takes.
    for path in WRITES {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{JSON}");
        let announced = format!(
            "{head}Content-Length: 99999999999\r\n\r\n{}",
            "x".repeat(70_000)
        );
        stage
            .request(
                "A27",
                announced.as_bytes(),
                &[status(413, "payload_too_large")],
            )
            .await;
        let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{}",
            chunk.repeat(20)
        );
        stage
            .request(
                "A27",
                chunked.as_bytes(),
                &[status(413, "payload_too_large")],
            )
            .await;
        for broken in [
            "zz\r\n",
            "-1\r\nx\r\n",
            "fffffffffffffffff\r\n",
            "1;\u{0}\r\nx\r\n",
            "5\r\nabc\r\n0\r\n\r\n",
        ] {
            let sent = format!("{head}Transfer-Encoding: chunked\r\n\r\n{broken}");
            let mut stream = TcpStream::connect(stage.server.address()).await.unwrap();
            let _ = stream.write_all(sent.as_bytes()).await;
            let _ = stream.shutdown().await;
            let (told, _) = answer(&mut stream).await;
            stage.note(
                "A27",
                &sent,
                &[told],
                &[status(400, "bad_json"), status(400, ""), Told::Cut],
            );
        }
    }
}

/// A page of somebody else writes nothing, whatever it calls itself; nor is it told that it may read.
async fn foreign(stage: &mut Stage) {
    let event = br#"{"type":"patient","data":1}"#;
    for origin in [
        "http://evil.example",
        "null",
        "https://care.example.evil.example",
        "http://care.example:81",
        "http://localhost.evil.example",
        "file://",
    ] {
        for path in WRITES
            .into_iter()
            .chain(["/api/topics/all_patient_page_data/refresh"])
        {
            let headers = format!("{JSON}Origin: {origin}\r\n");
            let told = stage
                .request(
                    "A28",
                    &post(path, &headers, event),
                    &[status(403, "forbidden")],
                )
                .await;
            let told = told.to_ascii_lowercase();
            assert!(
                !told.contains(&format!("access-control-allow-origin: {origin}")),
                "{told}"
            );
            for asked in ["POST", "DELETE", "VIEW"] {
                let preflight = format!(
                    "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: {origin}\r\n\
                     Access-Control-Request-Method: {asked}\r\nAccess-Control-Request-Headers: token\r\n\r\n"
                );
                let told = stage
                    .request("A28", preflight.as_bytes(), &[status(200, "")])
                    .await;
                let told = told.to_ascii_lowercase();
                let allowed = told.contains("access-control-allow-origin")
                    || told.contains("access-control-allow-credentials");
                assert!(!allowed, "{told}");
            }
        }
    }
}

/// Nothing of the machine, of other programs' usual pages, or of the files beside us.
async fn hidden(stage: &mut Stage) {
    let close = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut paths: Vec<String> = [
        "/debug",
        "/debug/pprof",
        "/debug/vars",
        "/admin",
        "/admin/",
        "/server-status",
        "/actuator",
        "/actuator/env",
        "/varz",
        "/connz",
        "/jsz",
        "/healthz/",
        "/.env",
        "/.git/config",
        "/rowcast.toml",
        "/rowcast.db",
        "/rowcast.db-bus",
        "/etc/passwd",
        "/../../etc/passwd",
        "/console/../../rowcast.toml",
        "/console/..%2f..%2frowcast.toml",
        "/console/%2e%2e/%2e%2e/etc/passwd",
        "/console/....//rowcast.toml",
        "/console/rowcast.toml%00.js",
        "/console/",
        "//etc/passwd",
        "/%00",
        "/%ff",
        "/%",
        "/api",
        "/api/",
        "/api/query",
        "/api/query/",
        "/api/topics/",
        "/api/events/x",
        "/socket",
        "/socket/all",
        "/socket/all/x",
        "/chat/socket",
        "/api/query/patient/x",
        "/cgi-bin/test",
        "/wp-login.php",
        "/robots.txt.bak",
    ]
    .map(str::to_owned)
    .into();
    paths.push(format!("/{}", "a/".repeat(2_000)));
    for path in paths {
        let expected = [
            status(404, "not_found"),
            status(404, "unknown_type"),
            status(400, ""),
        ];
        let told = stage
            .request("A34", format!("GET {path} {close}").as_bytes(), &expected)
            .await;
        for secret in ["root:", "sqlite", "[server]", "src/", "panicked"] {
            assert!(!told.contains(secret), "{path}: {told}");
        }
    }
}

/// Bodies that come too slowly, or never end: each has its time.
async fn endless(stage: &mut Stage) {
    let mut crowd = tokio::task::JoinSet::new();
    for path in WRITES {
        for _ in 0..5 {
            let address = stage.server.address().to_owned();
            crowd.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut pace = tokio::time::interval(Duration::from_millis(500));
                let mut told = Vec::new();
                let mut buffer = [0; 1024];
                loop {
                    tokio::select! {
                        read = stream.read(&mut buffer) => match read {
                            Ok(0) | Err(_) => return told,
                            Ok(count) => {
                                told.extend(&buffer[..count]);
                                return told;
                            }
                        },
                        _ = pace.tick() => {
                            let _ = stream.write_all(b"1\r\n \r\n").await;
                        }
                    }
                }
            });
        }
    }
    while let Some(told) = in_time("an endless body's end", crowd.join_next()).await {
        let told = Told::answer(&String::from_utf8_lossy(&told.unwrap()));
        let told = match told {
            Told::Status(code, _) => status(code, ""),
            other => other,
        };
        stage.note("A27", "a body that never ends", &[told], &[status(408, "")]);
    }
}
