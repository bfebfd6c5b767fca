//! TLS without a proxy: sockets, requests and streams through it, certificates that change, and such as
//! cannot be used.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::{CARE, CARE_TABLES, connect, request, say};
use crate::support::{Authority, Folder, Options, Server, in_time, wait_until};

/// A gateway with a certificate of this authority for `localhost`, and where its files are.
fn secured(authority: &Authority, settings: &str) -> (Server, [std::path::PathBuf; 2]) {
    let files = [authority.path("used.crt"), authority.path("used.key")];
    certify(authority, &files);
    let [cert, key] = files.each_ref().map(|file| file.display().to_string());
    let config = format!(
        "[auth]\nanonymous = true\n[server]\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n{settings}\n{CARE}"
    );
    let server = Server::with(Options {
        config: Some(config),
        database: Some(CARE_TABLES.into()),
        ..Options::default()
    });
    (server, files)
}

/// Writes a new certificate and its key.
pub fn certify(authority: &Authority, [cert, key]: &[std::path::PathBuf; 2]) {
    let (text, secret) = authority.sign("DNS:localhost");
    fs::write(key, secret).unwrap();
    fs::write(cert, text).unwrap();
}

/// A client that trusts this authority alone.
pub fn client(
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocols: &[&str],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    TlsConnector::from(Arc::new(config))
}

/// A connection through TLS to an address.
pub async fn dial_to(
    address: &str,
    connector: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    connector.connect(name, connect(address).await).await
}

async fn dial(server: &Server, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    dial_to(server.address(), connector).await
}

async fn socket(
    server: &Server,
    connector: &TlsConnector,
) -> WebSocketStream<TlsStream<TcpStream>> {
    let stream = dial(server, connector).await.unwrap();
    client_async("wss://localhost/socket/all/", stream)
        .await
        .unwrap()
        .0
}

async fn next(socket: &mut WebSocketStream<TlsStream<TcpStream>>) -> Json {
    loop {
        let message = in_time("a frame", socket.next()).await.unwrap().unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn fetch(server: &Server, connector: &TlsConnector, target: &str) -> String {
    let mut stream = dial(server, connector).await.unwrap();
    stream
        .write_all(&request(target, "Host: localhost\r\n"))
        .await
        .unwrap();
    let mut all = String::new();
    in_time("an answer", stream.read_to_string(&mut all))
        .await
        .unwrap();
    all
}

#[tokio::test]
async fn sockets_and_requests_go_through_tls_1_2_and_1_3() {
    let authority = Authority::new("ours");
    let (server, _) = secured(&authority, "");
    for version in [&TLS12, &TLS13] {
        let connector = client(&authority, &[version], &["http/1.1"]);
        let stream = dial(&server, &connector).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut one = socket(&server, &connector).await;
        let mut two = socket(&server, &client(&authority, &[version], &[])).await;
        let question = json!({ "type": "patient", "rid": 7, "id": 1 }).to_string();
        one.send(Message::text(question)).await.unwrap();
        let reply = next(&mut one).await;
        assert_eq!(
            (&reply["rid"], &reply["data"][0]["id"]),
            (&json!(7), &json!(1))
        );
        // More than the buffers between here and there hold at once.
        let text = "白".repeat(15_000);
        let frame = json!({ "type": "notice", "data": text }).to_string();
        let head = format!(
            "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            frame.len()
        );
        for _ in 0..20 {
            let mut stream = dial(&server, &connector).await.unwrap();
            stream
                .write_all(&request("POST /api/events", &head))
                .await
                .unwrap();
            stream.write_all(frame.as_bytes()).await.unwrap();
            let mut all = String::new();
            in_time("an answer", stream.read_to_string(&mut all))
                .await
                .unwrap();
            assert!(all.starts_with("HTTP/1.1 202 "), "{all}");
        }
        for socket in [&mut one, &mut two] {
            for _ in 0..20 {
                assert_eq!(next(socket).await["data"], json!(text));
            }
            socket.close(None).await.unwrap();
        }
        let page = fetch(&server, &connector, "GET /").await;
        assert!(
            page.starts_with("HTTP/1.1 200 ") && page.contains("<html"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn no_other_protocol_is_agreed_on_and_what_is_no_tls_gets_nothing() {
    let authority = Authority::new("ours");
    let (server, _) = secured(&authority, "");
    let only_h2 = client(&authority, &[&TLS13], &["h2"]);
    assert!(dial(&server, &only_h2).await.is_err());
    let both = client(&authority, &[&TLS13], &["h2", "http/1.1"]);
    let stream = dial(&server, &both).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let stranger = client(&Authority::new("other"), &[&TLS13], &[]);
    assert!(dial(&server, &stranger).await.is_err());
    let plain = say(
        server.address(),
        &request("GET /healthz", "Host: localhost\r\n"),
    )
    .await;
    assert_eq!(plain.status, 0, "{}", plain.head);
    // The old ones, by another's hand: what is agreed on there would be taken for an answer.
    let old = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x01"
        .iter()
        .chain(&[7; 32]);
    let old: Vec<u8> = old
        .chain(b"\x00\x00\x04\x00\x2f\x00\xff\x01\x00")
        .copied()
        .collect();
    let answer = say(server.address(), &old).await;
    assert!(!answer.head.starts_with('\u{16}'), "{:?}", answer.head);
    let connector = client(&authority, &[&TLS13], &[]);
    let metrics = fetch(&server, &connector, "GET /metrics").await;
    let refused = metrics
        .lines()
        .find(|line| line.contains("connections_refused_total{kind=\"tls\"}"));
    assert!(refused.is_some(), "{metrics}");
}

#[tokio::test]
async fn the_deadline_of_a_head_holds_for_the_agreement_on_tls_as_well() {
    let authority = Authority::new("ours");
    let (server, _) = secured(&authority, "head_timeout_ms = 700");
    let within = |start: Instant| {
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(650) && took < Duration::from_millis(5600),
            "{took:?}"
        );
    };
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let start = Instant::now();
        let mut silent = connect(server.address()).await;
        silent.write_all(begun).await.unwrap();
        let mut all = Vec::new();
        let _ = in_time("an end", silent.read_to_end(&mut all)).await;
        within(start);
    }
    let connector = client(&authority, &[&TLS13], &[]);
    // On a machine that stands still the deadline may pass before TLS is agreed on.
    let (start, mut silent) = wait_until("an agreement in time", async || {
        let start = Instant::now();
        Some((start, dial(&server, &connector).await.ok()?))
    })
    .await;
    let mut all = Vec::new();
    let _ = in_time("an end", silent.read_to_end(&mut all)).await;
    within(start);
}

#[tokio::test]
async fn only_pages_that_came_protected_are_of_the_same_host() {
    let authority = Authority::new("ours");
    let (server, _) = secured(&authority, "allowed_hosts = [\"care.example\"]");
    let connector = client(&authority, &[&TLS13], &[]);
    for (origin, admitted) in [
        ("https://care.example", true),
        ("http://care.example", false),
    ] {
        let headers = format!("Host: care.example\r\nOrigin: {origin}\r\nContent-Length: 0\r\n");
        let mut stream = dial(&server, &connector).await.unwrap();
        let asked = request("POST /api/topics/board/refresh", &headers);
        stream.write_all(&asked).await.unwrap();
        let mut all = String::new();
        in_time("an answer", stream.read_to_string(&mut all))
            .await
            .unwrap();
        let expected = if admitted {
            "HTTP/1.1 202 "
        } else {
            "HTTP/1.1 403 "
        };
        assert!(all.starts_with(expected), "{origin}: {all}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_used_and_a_broken_one_is_not() {
    let authority = Authority::new("ours");
    let (server, files) = secured(&authority, "");
    let connector = client(&authority, &[&TLS13], &[]);
    let serial = async || {
        let stream = dial(&server, &connector).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = serial().await;
    let mut open = socket(&server, &connector).await;
    fs::write(&files[0], "no certificate").unwrap();
    wait_until("the log to say so", async || {
        assert_eq!(serial().await, first);
        server
            .log()
            .contains("there is no certificate in it")
            .then_some(())
    })
    .await;
    certify(&authority, &files);
    wait_until("the new certificate", async || {
        (serial().await != first).then_some(())
    })
    .await;
    // Who is connected stays so.
    open.send(Message::text(r#"{"type":"sys:ping","rid":1}"#))
        .await
        .unwrap();
    assert_eq!(next(&mut open).await["type"], "sys:pong");
}

#[tokio::test]
async fn a_gateway_that_stops_tells_its_sockets_through_tls() {
    let authority = Authority::new("ours");
    let (mut server, _) = secured(&authority, "");
    let mut socket = socket(&server, &client(&authority, &[&TLS13], &[])).await;
    server.signal("TERM");
    let code = loop {
        match in_time("a close", socket.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => break u16::from(frame.code),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1012);
    assert!(server.ended().success());
}

#[test]
fn a_certificate_or_key_that_cannot_be_used_is_told_at_the_start() {
    let authority = Authority::new("ours");
    let (cert, key) = authority.sign("DNS:localhost");
    let (_, other) = authority.sign("DNS:localhost");
    let folder = Folder::new();
    for (name, text) in [
        ("good.crt", &cert),
        ("good.key", &key),
        ("other.key", &other),
    ] {
        folder.write(name, text);
    }
    folder.write("empty", "");
    folder.write(
        "broken.crt",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    folder.write("torn.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    for (cert, key, wrong, told) in [
        (
            "nowhere.crt",
            "good.key",
            "server.tls_cert",
            "nowhere.crt cannot be used",
        ),
        (
            "empty",
            "good.key",
            "server.tls_cert",
            "there is no certificate in it",
        ),
        (
            "good.key",
            "good.key",
            "server.tls_cert",
            "there is no certificate in it",
        ),
        (
            "torn.crt",
            "good.key",
            "server.tls_cert",
            "torn.crt cannot be used",
        ),
        ("broken.crt", "good.key", "server.tls_", "cannot be used"),
        (
            "good.crt",
            "nowhere.key",
            "server.tls_key",
            "nowhere.key cannot be used",
        ),
        (
            "good.crt",
            "empty",
            "server.tls_key",
            "there is no key in it",
        ),
        (
            "good.crt",
            "good.crt",
            "server.tls_key",
            "there is no key in it",
        ),
        (
            "good.crt",
            "other.key",
            "server.tls_key",
            "the key of another certificate",
        ),
        (
            "good.crt",
            "",
            "server.tls_cert",
            "server.tls_key is not set",
        ),
        (
            "",
            "good.key",
            "server.tls_key",
            "server.tls_cert is not set",
        ),
    ] {
        let config = format!("[server]\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n");
        folder.write("rowcast.toml", &config);
        let ran = folder.run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(ran.code, 64, "{cert} {key}: {ran:?}");
        for part in ["rowcast.toml", wrong, told] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
        assert!(!ran.stderr.contains("PRIVATE"), "{ran:?}");
    }
}
