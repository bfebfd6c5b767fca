//! A02, A04, A05, A31, A33: requests for a socket before it is one. What a matrix of them is answered is told by
//! a few rules that stand beside it.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    stage::{CANARY, Stage, answer, request},
    told::{Told, status},
};
use crate::support::Raw;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A request for a socket, line by line.
fn lines(path: &str, more: &[&str]) -> Vec<u8> {
    let mut text = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for line in more {
        text += line;
        text += "\r\n";
    }
    (text + "\r\n").into_bytes()
}

fn upgraded() -> [Told; 1] {
    [status(101, "")]
}

#[tokio::test]
async fn requests_before_the_upgrade_are_answered_as_the_rfcs_say() {
    let mut stage = Stage::care().await;
    matrix(&mut stage).await;
    methods(&mut stage).await;
    smuggled(&mut stage).await;
    heads(&mut stage).await;
    origins(&mut stage).await;
    other_protocols(&mut stage).await;
    parameters(&mut stage).await;
    stage.end().await;
}

// === A04 ===

async fn matrix(stage: &mut Stage) {
    let upgrades = [
        "websocket",
        "WebSocket",
        "h2c, websocket",
        "",
        "h2c",
        "websockets",
    ];
    let connections = ["Upgrade", "keep-alive, upgrade", "", "close"];
    let versions = ["13", "", "8", "13, 8", "013"];
    let keys = [
        KEY,
        "",
        "c2hvcnQ=",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZ===",
        "dGhlIHNhbXBsZSBub25-_w==",
    ];
    for upgrade in upgrades {
        for connection in connections {
            for version in versions {
                for key in keys {
                    let mut text = "GET /socket/all/ HTTP/1.1\r\nHost: localhost\r\n".to_owned();
                    for (name, value) in [
                        ("Upgrade", upgrade),
                        ("Connection", connection),
                        ("Sec-WebSocket-Version", version),
                        ("Sec-WebSocket-Key", key),
                    ] {
                        if !value.is_empty() {
                            text += &format!("{name}: {value}\r\n");
                        }
                    }
                    text += "\r\n";
                    let tokens = |list: &str, token: &str| {
                        list.split(',')
                            .any(|one| one.trim().eq_ignore_ascii_case(token))
                    };
                    let asks = tokens(upgrade, "websocket")
                        && tokens(connection, "upgrade")
                        && version == "13";
                    let expected = match (asks, key == KEY) {
                        (false, _) => status(426, "upgrade_required"),
                        (true, false) => status(400, "bad_param"),
                        (true, true) => status(101, ""),
                    };
                    let told = stage
                        .request("A04", text.as_bytes(), std::slice::from_ref(&expected))
                        .await;
                    let needed = told
                        .to_ascii_lowercase()
                        .contains("sec-websocket-version: 13");
                    assert_eq!(
                        needed,
                        expected == status(426, "upgrade_required"),
                        "{told}"
                    );
                }
            }
        }
    }
}

async fn methods(stage: &mut Stage) {
    let good = String::from_utf8(lines("/socket/all/", &[])).unwrap();
    for method in [
        "POST", "PUT", "DELETE", "PATCH", "VIEW", "TRACE", "get", "GETS",
    ] {
        let sent = good.replacen("GET", method, 1);
        let refused = [status(405, "method_not_allowed")];
        stage.request("A04", sent.as_bytes(), &refused).await;
    }
    let sent = good.replacen("GET", "HEAD", 1);
    stage
        .request("A04", sent.as_bytes(), &[status(426, "")])
        .await;
    for version in [
        "HTTP/1.0",
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/3.0",
        "http/1.1",
        "HTTP/1.1 ",
        "WS/1.1",
        "",
    ] {
        let sent = good.replacen("HTTP/1.1", version, 1);
        let expected = match version {
            "HTTP/1.0" => status(426, "upgrade_required"),
            _ => status(400, ""),
        };
        stage.request("A04", sent.as_bytes(), &[expected]).await;
    }
    let bodies = [
        (&["Content-Length: 0"][..], status(101, "")),
        (&["Content-Length: 4"], status(400, "bad_param")),
        (&["Content-Length: 00"], status(400, "bad_param")),
        (&["Transfer-Encoding: chunked"], status(400, "bad_param")),
        (&["Content-Length: -1"], status(400, "")),
        (&["Content-Length: +4"], status(400, "")),
        (&["Content-Length: 4, 4"], status(400, "")),
        (&["Content-Length: 99999999999999999999"], status(400, "")),
        (&["Content-Length: 4", "Content-Length: 5"], status(400, "")),
        (&["Transfer-Encoding: identity"], status(400, "")),
        (&["Transfer-Encoding: chunked, identity"], status(400, "")),
        (&["Transfer-Encoding: xchunked"], status(400, "")),
        (&["Transfer-Encoding : chunked"], status(400, "")),
        (&[" folded: line"], status(400, "")),
        (&["No colon"], status(400, "")),
        (&[": no name"], status(400, "")),
        (&["Spaced Name: 1"], status(400, "")),
        (&["N\u{0}ul: 1"], status(400, "")),
        (&["Nul: \u{0}"], status(400, "")),
        (&["Return: a\rb"], status(400, "")),
        (&["Über: 1"], status(400, "")),
        (&["Latin: ü"], status(101, "")),
        (&["Host: evil.example"], status(400, "bad_param")),
        (&["Sec-WebSocket-Version: 13"], status(400, "bad_param")),
        (
            &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
            status(400, "bad_param"),
        ),
    ];
    for (more, expected) in bodies {
        stage
            .request("A04", &lines("/socket/all/", more), &[expected])
            .await;
    }
    for target in ["socket/all/", "/socket/all/ x", "\\", "", "*", "/\u{0}"] {
        let sent = good.replacen("/socket/all/", target, 1);
        let (told, _) = request(stage.server.address(), sent.as_bytes()).await;
        let refused = matches!(told, Told::Status(400 | 404 | 405 | 426, _));
        let told = if refused { status(400, "") } else { told };
        stage.note("A04", &sent, &[told], &[status(400, "")]);
    }
}

/// Bodies whose length two readers could read differently: either it is refused, or there is one answer
/// for the request and none for what is hidden in it. That lines may end in a bare LF is left to the
/// reader by RFC 9112 §2.2.
async fn smuggled(stage: &mut Stage) {
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = hidden.len();
    let chunked = "Transfer-Encoding: chunked";
    let body = format!("0\r\n\r\n{hidden}");
    let whole = format!("{length:x}\r\n{hidden}\r\n0\r\n\r\n");
    let requests = [
        // What is hidden is the body, by its length.
        (
            vec![format!("Content-Length: {length}")],
            hidden.to_owned(),
            1,
        ),
        // And here by its chunks.
        (vec![chunked.into()], whole.clone(), 1),
        (
            vec![chunked.into(), format!("Content-Length: {}", 4)],
            whole.clone(),
            1,
        ),
        (
            vec![format!("Content-Length: {}", 4), chunked.into()],
            whole.clone(),
            1,
        ),
        (
            vec![
                format!("Content-Length: {}", body.len()),
                "Transfer-Encoding: xchunked".into(),
            ],
            body.clone(),
            1,
        ),
        (
            vec![
                format!("Content-Length: {}", body.len()),
                "Transfer-Encoding:\tidentity".into(),
            ],
            body.clone(),
            1,
        ),
        (
            vec![
                "Content-Length: 5".into(),
                format!("Content-Length: {length}"),
            ],
            hidden.to_owned(),
            1,
        ),
        (vec!["Content-Length: 0x5".into()], hidden.to_owned(), 1),
        (
            vec![format!("Content-Length:\r\n {length}")],
            hidden.to_owned(),
            1,
        ),
    ];
    for (headers, body, answers) in requests {
        let head = headers.join("\r\n");
        let sent = format!(
            "POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(stage.server.address()).await.unwrap();
        let _ = stream.write_all(sent.as_bytes()).await;
        let (first, _) = answer(&mut stream).await;
        // One more request is answered next, unless the connection is over.
        let _ = stream
            .write_all(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await;
        let (second, _) = answer(&mut stream).await;
        let right = matches!(first, Told::Status(400..=499, _))
            && matches!(second, Told::Cut | Told::Status(404, _));
        assert_eq!(answers, 1);
        let told = if right { Told::Cut } else { second };
        stage.note("A04", &sent, &[told], &[Told::Cut]);
    }
}

// === A02 ===

/// Heads of a megabyte, of ten thousand headers, and in pieces of one byte.
async fn heads(stage: &mut Stage) {
    let big = "x".repeat(1 << 20);
    let many: Vec<String> = (0..10_000).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let too_much = [status(431, ""), status(400, "")];
    let before = stage.rss_kib();
    for path in ["/socket/all/", "/healthz", "/chat/socket/"] {
        for sent in [
            lines(path, &[&format!("X: {big}")]),
            lines(path, &[&format!("{big}: x")]),
            lines(path, &[&format!("Cookie: {big}")]),
            lines(&format!("{path}?{big}"), &[]),
            lines(path, &many),
            lines(path, &many[..101]),
        ] {
            let (told, _) = request(stage.server.address(), &sent).await;
            let told = match told {
                // A target that is too long has a status of its own.
                Told::Status(414, _) => status(431, ""),
                told => told,
            };
            stage.note(
                "A02",
                &format!("{} bytes of head", sent.len()),
                &[told],
                &too_much,
            );
        }
    }
    assert!(stage.rss_kib() < before + 16 * 1024, "heads are not kept");
    for path in ["/socket/all/", "/chat/socket/"] {
        for piece in [1, 2, 3, 7] {
            let sent = lines(path, &[]);
            let mut stream = TcpStream::connect(stage.server.address()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in sent.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            let (told, _) = answer(&mut stream).await;
            stage.note("A02", &format!("pieces of {piece}"), &[told], &upgraded());
        }
    }
}

// === A05, lightly: tests/http/origins.rs has the whole of it ===

async fn origins(stage: &mut Stage) {
    let host = stage.server.address().to_owned();
    for (origin, allowed) in [
        (format!("http://{host}"), true),
        ("http://localhost:3000".into(), true),
        ("http://127.0.0.1".into(), true),
        ("http://[::1]:99".into(), true),
        ("null".into(), false),
        ("http://evil.example".into(), false),
        (format!("http://evil.example.{host}"), false),
        (format!("http://evil{host}"), false),
        (format!("http://{host}@evil.example"), false),
        (format!("http://evil.example#{host}"), false),
        (format!("http://evil.example/{host}"), false),
        (format!("ftp://{host}"), false),
        (format!("http://{host}/"), false),
        (host.clone(), false),
        ("http://localhost.evil.example".into(), false),
        ("http://127.0.0.1.evil.example".into(), false),
        ("http://127.0.0.1:80:80".into(), false),
        ("http://2130706433".into(), false),
        ("http://ⓛocalhost".into(), false),
        ("http://xn--localhost-".into(), false),
        ("file://".into(), false),
        ("".into(), false),
        ("*".into(), false),
        ("http://*".into(), false),
    ] {
        for path in ["/socket/all/", "/chat/socket/"] {
            let (mut raw, head) =
                Raw::ask(&stage.server, path, &format!("Origin: {origin}\r\n")).await;
            // A browser cannot read a refused handshake, so that one is answered, and closed.
            assert!(head.starts_with("HTTP/1.1 101 "), "{origin}: {head}");
            raw.bytes(&crate::support::frames::frame(0x89, b"?")).await;
            let told = match raw.next().await {
                Some((0xa, _)) => Told::Pong(Vec::new()),
                Some((0x8, code)) => {
                    Told::Closed(code.first_chunk().map(|c| u16::from_be_bytes(*c)))
                }
                other => panic!("{origin}: {other:?}"),
            };
            let expected = match allowed {
                true => Told::Pong(Vec::new()),
                false => Told::Closed(Some(4403)),
            };
            stage.note("A05", &origin, &[told], &[expected]);
        }
    }
    let two = ["Origin: http://localhost", "Origin: http://evil.example"];
    stage
        .request(
            "A05",
            &lines("/socket/all/", &two),
            &[status(400, "bad_param")],
        )
        .await;
}

// === A31 ===

/// HTTP/2 is not spoken here, so that its floods cannot be; what begins like it, or like TLS or any other
/// protocol, is no request.
async fn other_protocols(stage: &mut Stage) {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let resets = [&b"\0\0\x04\x03\0\0\0\0\x01"[..], b"\0\0\0\x08"]
        .concat()
        .repeat(1000);
    let continuations = b"\0\0\0\x09\0\0\0\0\x01".repeat(1000);
    let empty_data = b"\0\0\0\0\0\0\0\0\x01".repeat(1000);
    let pings = b"\0\0\x08\x06\0\0\0\0\0........".repeat(1000);
    for flood in [settings.to_vec(), resets, continuations, empty_data, pings] {
        let sent = [&preface[..], settings, &flood].concat();
        stage
            .request("A31", &sent, &[status(400, ""), Told::Cut])
            .await;
    }
    for other in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"SSH-2.0-OpenSSH_9\r\n",
        b"EHLO evil.example\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n\r\n",
        b"CONNECT {}\r\nPING\r\n\r\n",
        b"\0\0\0\x08\x04\xd2\x16\x2f\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(stage.server.address()).await.unwrap();
        let _ = stream.write_all(other).await;
        let _ = stream.shutdown().await;
        let (told, _) = answer(&mut stream).await;
        stage.note(
            "A31",
            &String::from_utf8_lossy(other),
            &[told],
            &[status(400, ""), Told::Cut],
        );
    }
    let upgrade = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n";
    stage
        .request("A31", upgrade.as_bytes(), &[status(200, "")])
        .await;
}

// === A33, and what else stands in a URL ===

async fn parameters(stage: &mut Stage) {
    for (query, expected) in [
        ("token=TOKEN", status(101, "")),
        ("access_token=TOKEN&jwt=TOKEN", status(101, "")),
        ("types=patient&TOKEN=TOKEN", status(101, "")),
        ("unknown=1", status(101, "")),
        ("types=patient,notice", status(101, "")),
        ("types=", status(400, "bad_param")),
        ("types=TOKEN", status(400, "bad_param")),
        ("types=patient,,notice", status(400, "bad_param")),
        ("types=*", status(400, "bad_param")),
        ("types=patient%00", status(400, "bad_param")),
        ("since=TOKEN", status(400, "bad_param")),
        ("since=", status(400, "bad_param")),
        ("since=a:1", status(101, "")),
        ("since=a:18446744073709551615", status(101, "")),
        ("since=a:18446744073709551616", status(400, "bad_param")),
        ("since=a:-1", status(400, "bad_param")),
        ("since=a:01", status(400, "bad_param")),
        ("since=a%3A1-zzz", status(400, "bad_param")),
        ("hello=1", status(101, "")),
        ("hello=2", status(400, "bad_param")),
        ("hello=1&since=a:1", status(400, "bad_param")),
        ("mode=latest", status(101, "")),
        ("mode=TOKEN", status(400, "bad_param")),
        ("%zz=%", status(101, "")),
        ("=&&&==", status(101, "")),
    ] {
        let path = format!("/socket/all/?{}", query.replace("TOKEN", CANARY));
        let bearer = format!("Authorization: Bearer {CANARY}");
        let more = [
            &format!("token: {CANARY}")[..],
            &bearer,
            &format!("Cookie: session={CANARY}"),
            &format!("Referer: http://x/?token={CANARY}"),
            &format!("Sec-WebSocket-Protocol: bearer.{CANARY}"),
        ];
        let told = stage
            .request("A33", &lines(&path, &more), &[expected])
            .await;
        assert!(!told.contains(CANARY), "{told}");
        let page = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{bearer}\r\nConnection: close\r\n\r\n"
        );
        let refused = [status(426, "upgrade_required")];
        let told = stage.request("A33", page.as_bytes(), &refused).await;
        assert!(!told.contains(CANARY), "{told}");
    }
}
