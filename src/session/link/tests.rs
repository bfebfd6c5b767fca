use std::task::{Wake, Waker};

use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LIMITS: Limits = Limits {
    message_bytes: 1024,
    fragments: 8,
};

#[tokio::test]
async fn who_read_from_the_stream_before_is_not_kept_alive_by_it() {
    struct Http;
    impl Wake for Http {
        fn wake(self: Arc<Self>) {}
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let http = Arc::new(Http);
    let waker = Waker::from(http.clone());
    let mut buffer = [0; 16];
    let mut buffer = ReadBuf::new(&mut buffer);
    let context = &mut Context::from_waker(&waker);
    let read = Pin::new(&mut stream).poll_read(context, &mut buffer);
    assert!(read.is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&http), 2, "the stream has it");
    let mut link = Link::new(Socket::tcp(stream, Bytes::new()), LIMITS);
    assert!(link.recv().now_or_never().is_none());
    assert_eq!(Arc::strong_count(&http), 1);
}

#[tokio::test]
async fn a_client_that_sends_many_frames_at_once_leaves_others_their_turn() {
    const COUNT: usize = 5000;
    let pong = [0x8a, 0x80, 0, 0, 0, 0];
    let (mut client, stream) = tokio::io::duplex(COUNT * pong.len());
    client.write_all(&pong.repeat(COUNT)).await.unwrap();
    let mut link = Link::new(Socket::other(stream, Bytes::new()), LIMITS);
    let (told, mut seen) = tokio::sync::watch::channel(0);
    let reading = tokio::spawn(async move {
        for count in 1..=COUNT {
            assert!(matches!(
                link.recv().await,
                Received::Message(Message::Pong)
            ));
            told.send_replace(count);
        }
    });
    seen.changed().await.unwrap();
    let first = *seen.borrow();
    assert!(first < COUNT / 10, "{first} frames in one turn");
    reading.await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_no_tcp_carries_the_same_frames() {
    // Less than a frame at once, in either direction.
    let (mut client, stream) = tokio::io::duplex(7);
    let leftover = Bytes::from_static(b"\x89\x80\0\0\0\0\x81");
    let mut link = Link::new(Socket::other(stream, leftover), LIMITS);
    assert!(link.tcp().is_none() && link.is_idle());
    let said = b"\x85\0\0\0\0hello\x8a\x80\0\0\0\0".to_vec();
    let frames = [vec![b'a'; 100], vec![b'b'; 100]];
    let talk = tokio::spawn(async move {
        client.write_all(&said).await.unwrap();
        let mut got = vec![0; 200];
        client.read_exact(&mut got).await.unwrap();
        got
    });
    assert!(
        matches!(link.recv().await, Received::Message(Message::Ping(payload)) if payload.is_empty())
    );
    assert!(matches!(link.recv().await, Received::Message(Message::Text(text)) if text == "hello"));
    assert!(matches!(
        link.recv().await,
        Received::Message(Message::Pong)
    ));
    for frame in &frames {
        link.push(Bytes::from(frame.clone()));
    }
    link.flush().await.unwrap();
    assert_eq!(link.queued_bytes(), 0);
    assert_eq!(talk.await.unwrap(), frames.concat());
    assert!(matches!(link.recv().await, Received::End));
}

#[tokio::test]
async fn what_is_thrown_away_leaves_the_rest_of_a_frame_that_was_begun() {
    let (mut client, stream) = tokio::io::duplex(7);
    let mut link = Link::new(Socket::other(stream, Bytes::new()), LIMITS);
    for frame in [b"first frame", b"second one.", b"and a third"] {
        link.push(Bytes::from_static(frame));
    }
    // As much as there is room for.
    assert!(link.flush().now_or_never().is_none());
    link.forget();
    link.push(Bytes::from_static(b"close"));
    let talk = tokio::spawn(async move {
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        got
    });
    link.flush().await.unwrap();
    assert_eq!(link.queued_bytes(), 0);
    drop(link);
    assert_eq!(talk.await.unwrap(), b"first frameclose");
    // What the lane has begun is gone on with.
    let (mut client, stream) = tokio::io::duplex(64);
    let mut link = Link::new(Socket::other(stream, Bytes::new()), LIMITS);
    link.go_on(Bytes::from_static(b"me"));
    link.push(Bytes::from_static(b"another"));
    link.forget();
    link.push(Bytes::from_static(b"close"));
    link.flush().await.unwrap();
    let mut got = [0; 7];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"meclose");
    assert_eq!(link.queued_bytes(), 0);
}
