//! Revocations while the connection over which they are read is lost.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rowcast::bus::{
    Bus,
    jetstream::{JetStreamConfig, Role},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use super::{config, connect};
use crate::{
    accounts::wire::Wire,
    support::{Nats, in_time, nats::shipped, wait_until},
};

/// A consumer of revocations is made.
const FOLLOW: &str = "CONSUMER.CREATE.ROWCAST_REVOKED";

/// One of them is asked for by itself.
const BY_ITSELF: &str = "MSG.GET.ROWCAST_REVOKED";

/// A way to the server that is cut once, where a consumer of revocations is to be made after some were read one by one.
struct Way {
    port: u16,
    /// How far that has come: 2 when it was cut.
    state: Arc<AtomicUsize>,
}

impl Way {
    async fn open(nats: &Nats) -> Self {
        let server = nats.url().replace("nats://", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(AtomicUsize::new(0));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await;
                if let Ok(server) = server {
                    tokio::spawn(pass(client, server, shared.clone()));
                }
            }
        });
        Self { port, state }
    }
}

/// Passes on what either says, until one of them ends or the way is cut.
async fn pass(client: TcpStream, server: TcpStream, state: Arc<AtomicUsize>) {
    let (mut said, mut to_client) = client.into_split();
    let (mut answered, mut to_server) = server.into_split();
    let up = async {
        // With the end of what came before: a request may come in two pieces.
        let (mut text, mut buffer) = (String::new(), vec![0; 65536]);
        while let Ok(bytes @ 1..) = said.read(&mut buffer).await {
            text += &String::from_utf8_lossy(&buffer[..bytes]);
            if text.contains(BY_ITSELF) {
                let _ = state.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst);
            }
            let follows = text.contains(FOLLOW);
            if follows
                && state
                    .compare_exchange(1, 2, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
            {
                return;
            }
            text = text.chars().rev().take(FOLLOW.len() - 1).collect();
            text = text.chars().rev().collect();
            if to_server.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        _ = copy(&mut answered, &mut to_client) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_told_though_the_connection_is_lost_while_it_is_read_by_itself() {
    let nats = Nats::with(shipped());
    let producer = JetStreamConfig {
        servers: nats.url_as("producer"),
        ..config(&nats)
    };
    let producer = connect(producer, Role::Producer).await;
    wait_until("a claim", async || producer.claim().await.ok()).await;
    let mut operator = Wire::open(&nats, "operator");
    let subject = "rowcast.control.revoke";
    let mut kept = Vec::new();
    for above in [&b"NATS/1.0\r\nX: a\rb\r\n\r\n"[..], b"NATS/1.0\r\n\r\n"] {
        let body = format!("{{\"sub\":\"{}\"}}", kept.len());
        assert_eq!(operator.publish_under(subject, above, &body), None);
        kept.push(body);
    }
    let way = Way::open(&nats).await;
    let gateway = JetStreamConfig {
        servers: format!("nats://gateway:gateway-s3cret@127.0.0.1:{}", way.port),
        ..config(&nats)
    };
    let mut revocations = connect(gateway, Role::Gateway).await.revocations();
    // Some may be told twice.
    let mut all = BTreeSet::new();
    let told = async {
        loop {
            let Ok(told) = revocations.next().await else {
                continue;
            };
            let bodies = told.revocations.into_iter().map(|one| one.body.to_vec());
            all.extend(bodies.map(|body| String::from_utf8(body).unwrap()));
            if told.whole {
                return;
            }
        }
    };
    in_time("all revocations", told).await;
    assert_eq!(all, BTreeSet::from_iter(kept));
    assert_eq!(way.state.load(Ordering::SeqCst), 2, "the way was not cut");
}
