//! Requests that two servers might read in two ways.

use super::{UPGRADE, say, tuned};

/// What would be answered if what stands in it were a request of its own.
const SMUGGLED: &str = "GET /rowcast.js HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_refused_and_ends_its_connection() {
    let server = tuned("");
    let json = "Host: localhost\r\nContent-Type: application/json";
    let refresh = "POST /api/topics/board/refresh HTTP/1.1\r\nHost: localhost";
    let mut cases: Vec<String> = vec![
        format!("{refresh}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nContent-Length: 5\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: 5, 5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: +5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: -5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: 5 5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: 0x5\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length: 18446744073709551616\r\n\r\n12345"),
        format!("{refresh}\r\nContent-Length : 5\r\n\r\n12345"),
        format!("{refresh}\r\n Content-Length: 5\r\n\r\n12345"),
        format!("{refresh}\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nTransfer-Encoding: identity\r\n\r\n"),
        format!("{refresh}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{refresh}\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\nHost: localhost\n\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\n\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nX: 1\nY: 2\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\rX: 1\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345".into(),
        "HEAD /api/topics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nOrigin: null\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: localhost\r\nX\0: 1\r\n\r\n".into(),
        "GET /api/topics HTTP/1.1\r\nHost: local\0host\r\n\r\n".into(),
        "GET /api/topics HTTP/2.0\r\nHost: localhost\r\n\r\n".into(),
        "GET /api/topics\r\n\r\n".into(),
        "GET  /api/topics HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "GET /api/ topics HTTP/1.1\r\nHost: localhost\r\n\r\n".into(),
        "\0".into(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".into(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
        format!("POST /api/events HTTP/1.1\r\n{json}\nContent-Length: 2\r\n\r\n{{}}"),
    ];
    let handshake = format!("GET /socket/all/ HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}");
    cases.extend([
        format!("{handshake}\r\n").replace("\r\n", "\n"),
        format!("{handshake}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{handshake}Content-Length: 5\r\n\r\n12345"),
        format!("{handshake}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{handshake}Host: evil.example\r\n\r\n"),
        format!("{handshake}Origin: null\r\nOrigin: null\r\n\r\n"),
    ]);
    // Behind a request that is as it should be, too.
    let before = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let later: Vec<_> = cases.iter().map(|case| format!("{before}{case}")).collect();
    for case in cases.iter().chain(&later) {
        // What is smuggled comes last: no answer to it may be among those that are given.
        let answer = say(server.address(), format!("{case}{SMUGGLED}").as_bytes()).await;
        let all = answer.head.clone() + &String::from_utf8_lossy(&answer.body);
        let statuses: Vec<_> = all.matches("HTTP/1.1 ").collect();
        // Who speaks another protocol could not read an answer of this one.
        let other = case.contains("PRI *") && !all.contains("{\"topics\"");
        assert!(all.contains("HTTP/1.1 400 ") || other, "{case:?}\n{all}");
        assert!(statuses.len() <= 2, "{case:?}\n{all}");
        assert!(!all.contains("text/javascript"), "{case:?}\n{all}");
    }
    assert_eq!(server.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn a_handshake_of_http_1_0_and_one_for_another_version_end_their_connection() {
    let server = tuned("");
    let good = format!("GET /socket/all/ HTTP/1.1\r\nHost: localhost\r\n{UPGRADE}\r\n");
    for case in [
        good.replace("HTTP/1.1", "HTTP/1.0"),
        good.replace(": 13", ": 8"),
        good.replace(": websocket", ": h2c"),
    ] {
        let answer = say(server.address(), format!("{case}{SMUGGLED}").as_bytes()).await;
        assert_eq!(
            (answer.status, &*answer.error()),
            (426, "upgrade_required"),
            "{case}"
        );
        let version = answer.header("sec-websocket-version");
        assert_eq!(version.as_deref(), Some("13"), "{case}");
    }
}

#[tokio::test]
async fn requests_that_follow_each_other_are_each_answered() {
    let server = tuned("");
    let publish = r#"{"type":"notice","data":"\n\n"}"#;
    let one = format!(
        "POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{publish}",
        publish.len()
    );
    let last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = say(
        server.address(),
        format!("\r\n{one}{one}\r\n{one}{last}").as_bytes(),
    )
    .await;
    let all = answer.head.clone() + &String::from_utf8_lossy(&answer.body);
    assert_eq!(all.matches("HTTP/1.1 202 ").count(), 3, "{all}");
    assert_eq!(all.matches("HTTP/1.1 200 ").count(), 1, "{all}");
}
