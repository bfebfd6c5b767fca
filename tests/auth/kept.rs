//! Who was revoked stays out: a gateway that was killed, or was cut off, knows it when it is back, and lets in
//! who was given something new since.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    stream::{DiscardPolicy, Info},
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{SECRET, ann, fetched, is_served, now, opened, revoked::revoke, with_secret};
use crate::{
    support::{Folder, Nats, NatsOptions, Options, Producer, Server, nats::free_port, wait_until},
    wire::{CARE, CARE_TABLES},
};

/// As long as a socket may go on after its gateway is back.
const GRACE: Duration = Duration::from_secs(5);

/// The longest pause before it connects again.
const RECONNECT: Duration = Duration::from_secs(1);

/// Revocations that the stream holds at the most.
const MAX_KEPT: usize = 100_000;

const OPERATOR: &str = "operator = { role = \"admin\" }";

fn operator() -> String {
    ann(json!({ "sub": "root", "role": "admin" }))
}

fn token(sub: &str, jti: &str) -> String {
    ann(json!({ "sub": sub, "jti": jti, "iat": now(), "exp": now() + 600 }))
}

/// A token of the next second, which is not of the one in which something was revoked.
async fn later(sub: &str) -> String {
    let over = now();
    wait_until("the next second", async || {
        (now() > over).then(|| token(sub, "new"))
    })
    .await
}

async fn seen(server: &Server, token: &str) -> (u16, serde_json::Value) {
    fetched(server, "/api/query/patient", &[("token", token)]).await
}

async fn logs(server: &Server, text: &str) {
    wait_until(text, async || server.log().contains(text).then_some(())).await;
}

/// The care home on NATS, and a producer that follows it.
struct Home {
    nats: Nats,
    js: jetstream::Context,
    folder: Folder,
    producer: Option<Producer>,
}

impl Home {
    async fn new() -> Self {
        let folder = Folder::new();
        folder.sql("care.db", CARE_TABLES);
        let nats = Nats::with(NatsOptions::default());
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut home = Self {
            nats,
            js: jetstream::new(client),
            folder,
            producer: None,
        };
        home.produce("");
        home
    }

    /// With more lines for `[auth]`.
    fn config(&self, nats: &str, more: &str) -> String {
        let database = self.folder.path("care.db");
        format!(
            "[database]\nurl = \"sqlite:{}\"\n[bus]\nurl = \"{nats}\"\n[auth]\nkey = \"{SECRET}\"\n\
             leeway_ms = 0\n{OPERATOR}\n{more}\n{CARE}",
            database.display(),
        )
    }

    fn produce(&mut self, more: &str) {
        self.producer = None;
        self.producer = Some(Producer::start(&self.config(&self.nats.url(), more)));
    }

    fn options(&self, nats: &str) -> Options {
        Options {
            config: Some(self.config(nats, "")),
            ..Options::default()
        }
    }

    fn gateway(&self) -> Server {
        Server::with(self.options(&self.nats.url()))
    }

    /// The stream of revocations, as soon as it is there.
    async fn stream(&self) -> Info {
        wait_until("the stream of revocations", async || {
            let found = self.js.get_stream("ROWCAST_REVOKED").await.ok();
            found.map(|stream| stream.cached_info().clone())
        })
        .await
    }

    /// Says it on the subject, and waits until it is kept.
    async fn say(&self, body: &str) {
        let sent = self
            .js
            .publish("rowcast.control.revoke", body.to_owned().into());
        sent.await.unwrap().await.unwrap();
    }
}

/// A way to NATS that can be cut.
struct Way {
    address: SocketAddr,
    cut: Arc<watch::Sender<bool>>,
}

impl Way {
    async fn to(nats: &Nats) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = nats.url().replace("nats://", "");
        let cut = Arc::new(watch::Sender::new(false));
        let told = cut.clone();
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (server, mut told) = (server.clone(), told.subscribe());
                tokio::spawn(async move {
                    if *told.borrow_and_update() {
                        return;
                    }
                    let mut there = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                        _ = told.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }
}

#[tokio::test]
async fn a_process_that_was_killed_knows_what_it_was_asked_to_revoke() {
    let mut server = with_secret(OPERATOR);
    let (one, two, bob) = (token("ann", "1"), token("eve", "2"), token("bob", "3"));
    for body in [
        json!({ "sub": "ann" }),
        json!({ "jti": "2", "until": now() + 600 }),
    ] {
        assert_eq!(revoke(&server, &operator(), body).await.0, 202);
    }
    let new = later("ann").await;
    // The second time nothing is left of the first process but the file.
    for _ in 0..2 {
        server.kill();
        server.restart();
        for token in [&one, &two] {
            assert_eq!(seen(&server, token).await, (401, "token_revoked".into()));
        }
        for token in [&bob, &new] {
            is_served(&mut opened(&server, &[("token", token)]).await).await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_kept_holds_all_the_same_and_is_not_said_to_be() {
    let server = with_secret(OPERATOR);
    let one = token("ann", "1");
    let file = server.folder().join("rowcast.db-bus");
    let other = rusqlite::Connection::open(file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (code, told) = revoke(&server, &operator(), json!({ "sub": "ann" })).await;
    assert_eq!((code, &told["error"]), (503, &json!("bus_unavailable")));
    let detail = told["detail"].as_str().unwrap();
    assert!(detail.contains("alone: repeat it"), "{told}");
    assert_eq!(seen(&server, &one).await, (401, "token_revoked".into()));
    other.execute_batch("ROLLBACK").unwrap();
    wait_until("it to be kept", async || {
        let (code, _) = revoke(&server, &operator(), json!({ "sub": "ann" })).await;
        (code == 202).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_killed_refuses_what_was_revoked_before_and_meanwhile() {
    let home = Home::new().await;
    let mut gateway = home.gateway();
    let (one, two, bob) = (token("ann", "1"), token("eve", "2"), token("bob", "3"));
    assert_eq!(
        revoke(&gateway, &operator(), json!({ "sub": "ann" }))
            .await
            .0,
        202
    );
    gateway.kill();
    // Somebody says it on the subject itself, and nonsense, too.
    for body in ["no JSON", "{}", "{\"jti\":\"2\"}"] {
        home.say(body).await;
    }
    let new = later("ann").await;
    for _ in 0..2 {
        gateway.restart();
        for token in [&one, &two] {
            assert_eq!(seen(&gateway, token).await, (401, "token_revoked".into()));
        }
        for token in [&bob, &new] {
            is_served(&mut opened(&gateway, &[("token", token)]).await).await;
        }
        gateway.kill();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_cut_off_ends_what_was_revoked_meanwhile_when_it_is_back() {
    let home = Home::new().await;
    let way = Way::to(&home.nats).await;
    let away = Server::with(home.options(&format!("nats://{}", way.address)));
    let gateway = home.gateway();
    let (mut one, bob) = (token("ann", "1"), token("bob", "3"));
    let mut socket = opened(&away, &[("token", &one)]).await;
    let mut innocent = opened(&away, &[("token", &bob)]).await;
    is_served(&mut socket).await;
    for _ in 0..2 {
        way.cut.send_replace(true);
        wait_until("it to be cut off", async || {
            (away.get("/readyz").await.0 == 503).then_some(())
        })
        .await;
        let body = json!({ "sub": "ann" });
        assert_eq!(revoke(&gateway, &operator(), body).await.0, 202);
        let new = later("ann").await;
        // It cannot know.
        is_served(&mut socket).await;
        assert_eq!(seen(&away, &one).await.0, 200);
        let mut renewed = opened(&away, &[("token", &new)]).await;
        way.cut.send_replace(false);
        let back = Instant::now();
        let closed = socket.closed().await;
        assert_eq!(
            (closed.code, &*closed.reason),
            (4401, "the token was revoked")
        );
        assert!(back.elapsed() < GRACE + RECONNECT, "{:?}", back.elapsed());
        assert_eq!(seen(&away, &one).await, (401, "token_revoked".into()));
        is_served(&mut innocent).await;
        // What was issued since is not ended by reading it all again; the next round ends it.
        is_served(&mut renewed).await;
        (socket, one) = (renewed, new);
        wait_until("it to be back", async || {
            (away.get("/readyz").await.0 == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_in_before_all_that_is_kept_is_known_and_that_has_a_bound() {
    let home = Home::new().await;
    home.stream().await;
    let client = async_nats::connect(home.nats.url()).await.unwrap();
    let one = token("ann", "1");
    for id in 0..MAX_KEPT {
        let body = format!("{{\"jti\":\"many-{id}\"}}");
        client
            .publish("rowcast.control.revoke", body.into())
            .await
            .unwrap();
    }
    let last = "{\"sub\":\"ann\"}";
    client
        .publish("rowcast.control.revoke", last.into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let state = wait_until("the last one", async || {
        let state = home.stream().await.state;
        (state.last_sequence == MAX_KEPT as u64 + 1).then_some(state)
    })
    .await;
    assert_eq!((state.messages, state.first_sequence), (MAX_KEPT as u64, 2));
    let address = format!("127.0.0.1:{}", free_port());
    let options = Options {
        listen: Some(address.clone()),
        ..home.options(&home.nats.url())
    };
    let started = tokio::task::spawn_blocking(move || Server::with(options));
    let url = format!("http://{address}/api/query/patient");
    let asked = reqwest::Client::new().get(url).header("token", &one);
    let refused = wait_until("the gateway", async || {
        let answer = asked.try_clone().unwrap().send().await.ok()?;
        let code = answer.status().as_u16();
        let told: serde_json::Value = answer.json().await.unwrap();
        assert_ne!(code, 200, "{told}");
        match told["error"].as_str().unwrap() {
            "starting" => None,
            error => Some(error.to_owned()),
        }
    })
    .await;
    assert_eq!(refused, "token_revoked");
    let gateway = started.await.unwrap();
    let known = format!("revocations={MAX_KEPT}");
    logs(&gateway, &known).await;
    let first = token("eve", "many-0");
    let second = token("eve", "many-1");
    assert_eq!(seen(&gateway, &first).await.0, 200);
    assert_eq!(seen(&gateway, &second).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_keeps_as_long_as_the_configuration_says_and_takes_nothing_that_is_large() {
    let mut home = Home::new().await;
    let config = home.stream().await.config;
    let bounds = (
        config.max_messages,
        config.max_bytes,
        config.max_message_size,
    );
    assert_eq!(bounds, (MAX_KEPT as i64, 64 << 20, 8192));
    assert_eq!(config.max_age, Duration::from_hours(30 * 24));
    assert!(config.discard == DiscardPolicy::Old && config.deny_delete && config.deny_purge);
    let large = format!("{{\"sub\":\"{}\"}}", "a".repeat(10_000));
    let sent = home.js.publish("rowcast.control.revoke", large.into());
    assert!(sent.await.unwrap().await.is_err());
    home.produce("keep_revoked_ms = 60000");
    wait_until("the producer to bring it into line", async || {
        let age = home.stream().await.config.max_age;
        (age == Duration::from_secs(60)).then_some(())
    })
    .await;
    // Who expects more is told.
    let gateway = home.gateway();
    logs(&gateway, "kept for less than").await;
    home.folder
        .write("rowcast.toml", &home.config(&home.nats.url(), ""));
    let checked = home.folder.run(&["check"]);
    assert!(
        checked.stdout.contains("kept for 60000 ms"),
        "{}",
        checked.stdout
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_stream_revocations_are_told_as_before_and_once_it_is_there_they_are_kept() {
    let home = Home::new().await;
    home.stream().await;
    wait_until("a producer", async || {
        home.producer.as_ref()?.is_ready().await.then_some(())
    })
    .await;
    home.js.delete_stream("ROWCAST_REVOKED").await.unwrap();
    let mut gateways = [home.gateway(), home.gateway()];
    for gateway in &gateways {
        logs(gateway, "there is no stream ROWCAST_REVOKED").await;
    }
    home.folder
        .write("rowcast.toml", &home.config(&home.nats.url(), ""));
    let checked = home.folder.run(&["check"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let warned = "warning bus: revocations are not kept";
    assert!(checked.stdout.contains(warned), "{}", checked.stdout);
    let one = token("ann", "1");
    let mut socket = opened(&gateways[1], &[("token", &one)]).await;
    is_served(&mut socket).await;
    let body = json!({ "sub": "ann" });
    assert_eq!(revoke(&gateways[0], &operator(), body).await.0, 202);
    assert_eq!(socket.closed().await.code, 4401);
    assert_eq!(
        seen(&gateways[1], &one).await,
        (401, "token_revoked".into())
    );
    // Another producer, of a version that makes it.
    let _other = Producer::start(&home.config(&home.nats.url(), ""));
    for gateway in &gateways {
        logs(gateway, "knows what was revoked before").await;
    }
    let two = token("eve", "2");
    let body = json!({ "jti": "2" });
    assert_eq!(revoke(&gateways[0], &operator(), body).await.0, 202);
    gateways[1].kill();
    gateways[1].restart();
    assert_eq!(
        seen(&gateways[1], &two).await,
        (401, "token_revoked".into())
    );
}
