//! Clients behind proxies: who is believed about them, and what each of them may take.

use tokio::io::AsyncWriteExt;

use super::{connect, handshake, heard_on, request, say, tuned};
use crate::support::{Folder, Server, in_time, wait_until};

/// A gateway to which this machine is a proxy, and where each address may have two connections.
fn behind_a_proxy() -> Server {
    tuned(
        "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\nmax_connections_per_address = 2\n\
         operator_listen = \"127.0.0.1:0\"",
    )
}

/// A socket that stays open, as a proxy asks for it, or the status that it is refused with.
async fn socket(server: &Server, forwarded: &str) -> Result<tokio::net::TcpStream, u16> {
    let mut stream = connect(server.address()).await;
    let headers = format!("Host: localhost\r\n{forwarded}");
    stream
        .write_all(&handshake("/socket/all/", &headers))
        .await
        .unwrap();
    let answer = heard_on(&mut stream).await;
    match answer.status {
        101 => Ok(stream),
        status => {
            assert_eq!(answer.error(), "overloaded", "{}", answer.head);
            assert_eq!(
                answer.header("retry-after").as_deref(),
                Some("5"),
                "{}",
                answer.head
            );
            Err(status)
        }
    }
}

#[tokio::test]
async fn a_client_behind_a_proxy_has_its_own_share_and_no_more() {
    let server = behind_a_proxy();
    let mut sockets = Vec::new();
    for forwarded in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        // What a client says of itself stands before what the proxies say of it.
        "X-Forwarded-For: 198.51.100.7, 192.0.2.1\r\n",
        "X-Forwarded-For: 192.0.2.2, 10.9.9.9\r\n",
        "X-Forwarded-For: 192.0.2.2:4711\r\n",
        "Forwarded: for=\"[2001:db8::1]:1\";proto=https\r\n",
        "X-Forwarded-For: 2001:db8::2\r\n",
    ] {
        sockets.push(socket(&server, forwarded).await.unwrap());
    }
    for forwarded in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "X-Forwarded-For: 10.1.1.1, 203.0.113.5, 192.0.2.1, 10.9.9.9\r\n",
        "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-For: 192.0.2.2\r\n",
        "X-Forwarded-For: ::ffff:192.0.2.2\r\n",
        "X-Forwarded-For: 2001:db8::3\r\n",
        "Forwarded: for=203.0.113.5, for=192.0.2.1;by=10.0.0.1\r\n",
        "Forwarded: for=203.0.113.5\r\nX-Forwarded-For: 192.0.2.1\r\n",
    ] {
        assert_eq!(
            socket(&server, forwarded).await.err(),
            Some(503),
            "{forwarded}"
        );
    }
    // One that waits for events takes a place, too; a page and its files take it for as long as they last.
    let stream = request(
        "GET /api/stream",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n",
    );
    assert_eq!(say(server.address(), &stream).await.status, 503);
    let page = request(
        "GET /api/topics",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n",
    );
    assert_eq!(say(server.address(), &page).await.status, 503);
    let page = request(
        "GET /api/topics",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.9\r\n",
    );
    for _ in 0..5 {
        assert_eq!(say(server.address(), &page).await.status, 200);
    }
    assert!(
        server
            .counted("connections_refused_total{kind=\"address\"}")
            .await
            == 9
    );
    sockets.remove(0);
    wait_until("the place of a socket that has gone", async || {
        socket(&server, "X-Forwarded-For: 192.0.2.1\r\n").await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_stream_behind_a_proxy_holds_its_place_until_it_ends() {
    let server = behind_a_proxy();
    let ask = "GET /api/stream HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(server.address()).await;
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head);
        in_time("a head", read).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        streams.push(stream);
    }
    let forwarded = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(socket(&server, forwarded).await.err(), Some(503));
    // A browser's stream of events comes back by itself where it is told so in the stream.
    let source = "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nAccept: text/event-stream\r\n";
    let answer = say(server.address(), &request("GET /api/stream", source)).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let told = String::from_utf8_lossy(&answer.body);
    assert!(
        told.starts_with("retry: ") && told.ends_with("\n\n"),
        "{told}"
    );
    streams.clear();
    wait_until("the places of streams that have gone", async || {
        socket(&server, forwarded).await.ok()
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_the_proxys_own_and_this_machine_has_no_bound() {
    let server = behind_a_proxy();
    let mut sockets = Vec::new();
    for forwarded in [
        "",
        "X-Forwarded-For: unknown\r\n",
        "X-Forwarded-For: 192.0.2.1, evil\r\n",
        "X-Forwarded-For: 192.0.2.1,\r\n",
        "X-Forwarded-For: 127.0.0.1\r\n",
        "Forwarded: for=_hidden\r\n",
    ] {
        sockets.push(socket(&server, forwarded).await.unwrap());
    }
}

#[tokio::test]
async fn a_client_within_the_networks_does_not_come_out_of_its_bound_by_what_it_writes() {
    let server = behind_a_proxy();
    let mut sockets = Vec::new();
    for forwarded in [
        "X-Forwarded-For: 10.7.7.7\r\n",
        "X-Forwarded-For: 10.1.1.1, 10.7.7.7\r\n",
    ] {
        sockets.push(socket(&server, forwarded).await.unwrap());
    }
    for forwarded in [
        "X-Forwarded-For: 127.0.0.1, 10.7.7.7\r\n",
        "X-Forwarded-For: 10.1.1.2, 10.7.7.7\r\n",
        "X-Forwarded-For: evil, 10.7.7.7\r\n",
        "X-Forwarded-For: 10.1.1.3\r\nX-Forwarded-For: 10.7.7.7\r\n",
        "Forwarded: for=_hidden, for=10.7.7.7\r\n",
    ] {
        let refused = socket(&server, forwarded).await.err();
        assert_eq!(refused, Some(503), "{forwarded}");
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let server = tuned("trusted_proxies = [\"10.0.0.0/8\"]\nmax_connections_per_address = 1");
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let socket = socket(&server, "X-Forwarded-For: 192.0.2.1\r\n").await;
        sockets.push(socket.unwrap());
    }
}

#[tokio::test]
async fn a_proxy_says_whether_a_page_came_protected_and_no_other_host() {
    let server =
        super::open("trusted_proxies = [\"127.0.0.1\"]\nallowed_hosts = [\"care.example\"]");
    let address = server.address().replace("0.0.0.0", "127.0.0.1");
    for (told, origin, admitted) in [
        ("X-Forwarded-Proto: https", "https://care.example", true),
        ("X-Forwarded-Proto: https", "http://care.example", false),
        ("X-Forwarded-Proto: http", "http://care.example", true),
        ("X-Forwarded-Proto: http", "https://care.example", false),
        (
            "Forwarded: for=192.0.2.1;proto=https",
            "http://care.example",
            false,
        ),
        ("X-Forwarded-Proto: gopher", "http://care.example", true),
        ("X-A: 1", "http://care.example", true),
        ("X-A: 1", "https://care.example", true),
        (
            "X-Forwarded-Host: evil.example",
            "https://evil.example",
            false,
        ),
        (
            "Forwarded: host=evil.example;proto=https",
            "https://evil.example",
            false,
        ),
    ] {
        let headers = format!("Host: care.example\r\nOrigin: {origin}\r\n{told}\r\n");
        let answer = say(&address, &handshake("/socket/all/", &headers)).await;
        let expected = (!admitted).then_some(4403);
        assert_eq!(
            (answer.status, answer.close_code()),
            (101, expected),
            "{headers}"
        );
        let asked = request("GET /api/topics", &headers);
        let readable = say(&address, &asked)
            .await
            .header("access-control-allow-origin");
        assert_eq!(readable.is_some(), admitted, "{headers}");
    }
}

#[test]
fn a_list_with_something_else_in_it_is_refused() {
    let folder = Folder::new();
    for (line, told) in [
        ("trusted_proxies = [\"10.0.0.1/8\"]", "is no network"),
        ("trusted_proxies = [\"nginx\"]", "is no network"),
        ("allowed_hosts = [\"https://a\"]", "is no host"),
        ("allowed_origins = [\"https://吉.example\"]", "xn--"),
    ] {
        folder.write("rowcast.toml", &format!("[server]\n{line}\n"));
        let ran = folder.run(&["check"]);
        let key = line.split(' ').next().unwrap();
        assert_eq!(ran.code, 64, "{ran:?}");
        for part in ["rowcast.toml", key, told] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    }
}
