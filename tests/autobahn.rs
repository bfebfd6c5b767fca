//! Autobahn|Testsuite against the connection of a session. `./tests/run` calls this where the testsuite can
//! be had; with ROWCAST_LONG all of its groups.

use std::process::Command;

use bytes::Bytes;
use rowcast::session::{Socket, deflate::Agreed, mirror};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tungstenite::handshake::derive_accept_key;

/// The largest message of the testsuite.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Answers a handshake, and mirrors what comes then.
async fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut head = Vec::new();
    let end = loop {
        if stream.read_buf(&mut head).await.unwrap() == 0 {
            return;
        }
        let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(end) = end {
            break end + 4;
        }
    };
    let leftover = Bytes::from(head.split_off(end));
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.unwrap().1.as_bytes());
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let offers = lines.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
    let agreed = Agreed::among(offers.map(|(_, offer)| offer));
    let extension = agreed.map_or_else(String::new, |agreed| {
        format!("Sec-WebSocket-Extensions: {}\r\n", agreed.answer())
    });
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    mirror(
        Socket::tcp(stream, leftover).compressed(agreed),
        MESSAGE_BYTES,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Autobahn|Testsuite: ./tests/run"]
async fn the_testsuite_finds_every_case_as_it_should_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    let run = move || {
        let mut run = Command::new("python3");
        run.args(["tests/autobahn/run.py", "--url", &url]);
        if std::env::var_os("ROWCAST_LONG").is_some() {
            run.arg("--long");
        }
        run.status().unwrap()
    };
    let status = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(status.success(), "{status}");
}
