//! What a request may bring: how long, of what kind, and in what time.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

use super::{connect, heard_on, request, say, tuned};

/// Paths that take a JSON body, and the answer to a good one.
const PATHS: [&str; 1] = ["/api/events"];

const GOOD: &str = r#"{"type":"notice","data":1}"#;

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("Host: localhost\r\n{headers}Content-Length: {length}\r\n");
    [request(&format!("POST {path}"), &head), body.to_vec()].concat()
}

fn of_length(length: usize) -> Vec<u8> {
    let frame = r#"{"type":"notice","data":""}"#.len();
    format!(
        r#"{{"type":"notice","data":"{}"}}"#,
        "x".repeat(length - frame)
    )
    .into_bytes()
}

/// In chunks of so many bytes.
fn chunked(path: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head =
        "Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let mut bytes = request(&format!("POST {path}"), head);
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn a_body_is_json_that_is_not_too_long_and_says_so() {
    let server = tuned("");
    let json = "Content-Type: application/json\r\n";
    let gzip = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for path in PATHS {
        let mut cases = vec![
            (post(path, json, GOOD.as_bytes()), 202, ""),
            (post(path, json, &of_length(65_536)), 202, ""),
            (
                post(path, json, &of_length(65_537)),
                413,
                "payload_too_large",
            ),
            (chunked(path, &of_length(65_536), 4096), 202, ""),
            (chunked(path, &of_length(65_536), 1), 202, ""),
            (
                chunked(path, &of_length(65_537), 1000),
                413,
                "payload_too_large",
            ),
            (
                post(path, json, &of_length(1_000_000)),
                413,
                "payload_too_large",
            ),
            (post(path, json, b""), 400, "bad_json"),
            (
                post(path, json, b"{\"type\":\"notice\",\xff}"),
                400,
                "bad_json",
            ),
            (
                post(path, "", GOOD.as_bytes()),
                415,
                "unsupported_media_type",
            ),
        ];
        for kind in [
            "text/plain",
            "text/json",
            "application/jsonp",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/octet-stream",
            "json",
            "",
            "*/*",
            "application/*",
            "application/xml",
            "application/json2",
            "text/plain; application/json",
            "application /json",
        ] {
            let kind = format!("Content-Type: {kind}\r\n");
            cases.push((
                post(path, &kind, GOOD.as_bytes()),
                415,
                "unsupported_media_type",
            ));
        }
        for kind in [
            "application/json; charset=utf-8",
            "Application/JSON",
            "application/cloudevents+json",
        ] {
            let kind = format!("Content-Type: {kind}\r\n");
            cases.push((post(path, &kind, GOOD.as_bytes()), 202, ""));
        }
        for coding in [
            "gzip",
            "deflate",
            "br",
            "zstd",
            "GZIP",
            "gzip, gzip",
            "identity",
            "",
        ] {
            let headers = format!("{json}Content-Encoding: {coding}\r\n");
            cases.push((post(path, &headers, &gzip), 415, "unsupported_media_type"));
        }
        for (bytes, status, error) in cases {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            let answer = say(server.address(), &bytes).await;
            assert_eq!(
                (answer.status, &*answer.error()),
                (status, error),
                "{shown}"
            );
        }
    }
}

#[tokio::test]
async fn another_method_or_page_gets_nothing_in_whatever_it_brings() {
    let server = tuned("");
    for path in ["/api/events", "/api/topics/board/refresh"] {
        for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "VIEW", "TRACE"] {
            let bytes = request(&format!("{method} {path}"), "Host: localhost\r\n");
            assert_eq!(
                say(server.address(), &bytes).await.status,
                405,
                "{method} {path}"
            );
        }
        for kind in [
            "application/json",
            "text/plain",
            "application/x-www-form-urlencoded",
        ] {
            let headers = format!("Origin: https://evil.example\r\nContent-Type: {kind}\r\n");
            let answer = say(server.address(), &post(path, &headers, GOOD.as_bytes())).await;
            assert_eq!(
                (answer.status, &*answer.error()),
                (403, "forbidden"),
                "{path} {kind}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_at_the_limit_and_at_the_deadline() {
    let server = tuned("max_message_bytes = 2048");
    let head = "Host: localhost\r\nContent-Type: application/json\r\n";
    let chunks = request(
        "POST /api/events",
        &format!("{head}Transfer-Encoding: chunked\r\n"),
    );
    let mut stream = connect(server.address()).await;
    stream.write_all(&chunks).await.unwrap();
    let endless = tokio::spawn(async move {
        let chunk = [b"400\r\n".to_vec(), vec![b' '; 1024], b"\r\n".to_vec()].concat();
        let (mut reader, mut writer) = stream.into_split();
        let writing = async { while writer.write_all(&chunk).await.is_ok() {} };
        let reading = async {
            let mut told = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut told).await;
            told
        };
        tokio::select! {
            told = reading => told,
            () = writing => Vec::new(),
        }
    });
    let told = crate::support::in_time("an end", endless).await.unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(
        told.is_empty() || told.starts_with("HTTP/1.1 413 "),
        "{told}"
    );
    assert_eq!(
        server
            .counted("errors_total{kind=\"payload_too_large\"}")
            .await,
        1
    );

    let server = tuned("body_timeout_ms = 700");
    for begun in [
        request("POST /api/events", &format!("{head}Content-Length: 50\r\n")),
        [chunks.clone(), b"5\r\n{\"typ\r\n".to_vec()].concat(),
        [chunks, b"10000".to_vec()].concat(),
    ] {
        let start = Instant::now();
        let mut stream = connect(server.address()).await;
        stream.write_all(&begun).await.unwrap();
        let answer = heard_on(&mut stream).await;
        assert_eq!((answer.status, &*answer.error()), (408, "request_timeout"));
        let took = start.elapsed();
        let most = Duration::from_millis(700) * 8;
        assert!(
            took >= Duration::from_millis(700) && took < most,
            "{took:?}"
        );
    }
}

#[tokio::test]
async fn a_head_has_so_many_bytes_and_headers_as_it_may() {
    let server = tuned("max_head_bytes = 8192\nmax_headers = 40");
    let many = |count: usize| {
        (0..count)
            .map(|at| format!("X-{at}: 1\r\n"))
            .collect::<String>()
    };
    for (headers, status) in [
        (many(36), 200),
        (many(41), 431),
        (format!("X: {}\r\n", "x".repeat(7000)), 200),
        (format!("X: {}\r\n", "x".repeat(9000)), 431),
        (many(5000), 431),
        (format!("{}: x\r\n", "x".repeat(9000)), 431),
    ] {
        let bytes = request("GET /api/topics", &format!("Host: localhost\r\n{headers}"));
        let answer = say(server.address(), &bytes).await;
        assert_eq!(answer.status, status, "{} bytes", bytes.len());
    }
}
