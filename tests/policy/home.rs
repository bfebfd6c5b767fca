//! The care home of docs/policy.md, with tables and topics as they stand there: house `oak`, whose people
//! listen, and another, every text of which says so.

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{
    Nats, Options, Producer, Server, Socket, in_time,
    postgres::{self, Database},
    wait_until,
};

/// What the tokens are signed with.
const SECRET: &str = "a secret of the tests, of 32 bytes and more";

/// Stands in every text of the other house, and is what nobody of `oak` may ever be sent.
pub const CANARY: &str = "CANARY";

/// Begins every key of the other house's rows.
pub const KEY: &str = "777000";

/// Rows of both houses: `oak` has two patients in ward 1 and one in ward 2.
const ROWS: &str = "
    INSERT INTO patient VALUES (1, 'oak', '1', 'Ann', 'a', 'flu'), (2, 'oak', '1', 'Bob', 'b', 'cold'),
        (3, 'oak', '2', 'Cleo', 'c', 'flu'),
        (777000101, 'CANARY-elm', '1', 'CANARY-name', 'CANARY-bed', 'CANARY-diagnosis'),
        (777000102, 'CANARY-elm', 'CANARY-ward', 'CANARY-2', NULL, NULL),
        (500, 'CANARY-elm', '1', 'CANARY-3', 'CANARY-bed', 'CANARY-diagnosis');
    INSERT INTO visit VALUES (1, 'oak', 'Dan', NULL), (777000201, 'CANARY-elm', 'CANARY-visitor', NULL);";

/// The whole stack, on the tables of the document.
pub struct Home {
    /// Where the rows are.
    pub database: Database,
    /// The bus.
    pub nats: Nats,
    /// The gateway.
    pub gateway: Server,
    config: String,
    _producer: Producer,
}

/// The first block of that kind in the document.
fn block(kind: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("```{kind}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

impl Home {
    /// Everything, and the rows.
    pub async fn open() -> Self {
        Self::plagued(Vec::new()).await
    }

    /// The same with environment variables for the gateway.
    pub async fn plagued(env: Vec<(String, String)>) -> Self {
        Self::on(postgres::database(), "", env).await
    }

    /// The same in a database of the caller's, with more topics beside those of the document.
    pub async fn on(database: Database, topics: &str, env: Vec<(String, String)>) -> Self {
        let nats = Nats::start();
        database.sql(&block("sql"));
        database.sql(ROWS);
        let config = format!(
            "[database]\nurl = \"{}\"\nslot = \"slot_{}\"\nheartbeat_interval_ms = 500\n\
             [bus]\nurl = \"{}\"\n[auth]\nkey = \"{SECRET}\"\npublish = {{ tenant = \"oak\" }}\n{}{topics}",
            database.url(),
            database.name(),
            nats.url(),
            block("toml")
        );
        let producer = Producer::start(&config);
        wait_until("a producer", async || {
            producer.is_ready().await.then_some(())
        })
        .await;
        let gateway = gateway(&config, env);
        let home = Self {
            database,
            nats,
            gateway,
            config,
            _producer: producer,
        };
        // Until then replies may say that they are not exact.
        let mut first = home.socket(&doctor(), "").await;
        let ready = first.ask(json!({"type": "visit", "rid": 1}));
        assert_eq!(in_time("a first reply", ready).await["op"], "replace");
        home
    }

    /// One more gateway, with more settings of the server.
    pub fn another(&self, server: &str) -> Server {
        gateway(&format!("[server]\n{server}\n{}", self.config), Vec::new())
    }

    /// A socket of whoever has this token.
    pub async fn socket(&self, token: &str, parameters: &str) -> Socket {
        connect(&self.gateway, token, parameters).await
    }

    /// The body of an HTTP answer, and its status.
    pub async fn http(&self, token: &str, method: &str, path: &str, body: Json) -> (u16, String) {
        let client = reqwest::Client::new();
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = client
            .request(method, self.gateway.url(path))
            .bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = in_time("an answer", request.send()).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

fn gateway(config: &str, env: Vec<(String, String)>) -> Server {
    Server::with(Options {
        config: Some(config.into()),
        env,
        ..Options::default()
    })
}

/// A socket to a gateway of whoever has this token.
pub async fn connect(gateway: &Server, token: &str, parameters: &str) -> Socket {
    let url = format!("ws://{}/socket/all/?{parameters}", gateway.address());
    let mut request = url.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("token", token.parse().unwrap());
    Socket::request(request).await
}

/// A token with these claims, good for an hour.
pub fn token(claims: Json) -> String {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut all = json!({ "sub": "somebody", "exp": now + 3600 });
    let members = all.as_object_mut().unwrap();
    members.extend(claims.as_object().unwrap().clone());
    encode(
        &Header::default(),
        &all,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap()
}

/// Sees ward 1 of `oak`, without diagnoses.
pub fn nurse() -> String {
    token(json!({ "tenant": "oak", "wards": ["1"], "role": "nurse" }))
}

/// Sees all of `oak`.
pub fn doctor() -> String {
    token(json!({ "tenant": "oak", "wards": ["1", "2"], "role": ["guest", "doctor"] }))
}

/// Sees the visits of `oak`, and no patients.
pub fn cook() -> String {
    token(json!({ "tenant": "oak", "wards": ["1", "2"], "role": "cook" }))
}

/// Sees the other house.
pub fn stranger() -> String {
    token(json!({ "tenant": "CANARY-elm", "wards": ["1", "CANARY-ward"], "role": "doctor" }))
}

/// Fails where a text tells of the other house: also in a continuation, which is written in hexadecimal.
#[track_caller]
pub fn is_innocent(what: &str, text: &str) {
    assert!(!betrays(text), "{what}: {text}");
}

/// Whether a text does.
pub fn betrays(text: &str) -> bool {
    let hidden: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let key: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Within other digits it is a time of day.
    let mut keys = text.match_indices(KEY);
    keys.any(|(at, _)| !text[..at].ends_with(|before: char| before.is_ascii_digit()))
        || [CANARY, &hidden, &key]
            .iter()
            .any(|told| text.contains(told))
}
