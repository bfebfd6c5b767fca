//! All that whole processes say: logs in both forms at the highest level, answers, metrics, reports.

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{
    Folder, Nats, NatsOptions, Options, Producer, Server, Socket,
    nats::free_port,
    postgres::{Cluster, Database},
    wait_until,
};

use super::{hides, hides_all};

/// What a browser brings along, each with a secret.
const HEADERS: [(&str, &str); 5] = [
    ("token", "kanarie-header"),
    ("authorization", "Bearer kanarie-bearer"),
    ("cookie", "sessionid=kanarie-cookie; token=kanarie-cookie"),
    (
        "sec-websocket-protocol",
        "rowcast.v1, bearer.kanarie-subprotocol",
    ),
    ("x-forwarded-for", "kanarie-forwarded"),
];

/// Environment variables of a process, which are nobody's business.
fn environment() -> Vec<(String, String)> {
    [
        "PGPASSWORD",
        "DATABASE_URL",
        "NATS_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
    ]
    .map(|name| (name.to_owned(), "kanarie-environment".to_owned()))
    .to_vec()
}

/// Everything that an operator, or a stranger, can ask of a process.
async fn asked(address: &str) {
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/api/pipeline",
        "/api/topics",
    ] {
        let answer = reqwest::get(format!("http://{address}{path}"))
            .await
            .unwrap();
        let head = format!("{:?}", answer.headers());
        hides(path, &(head + &answer.text().await.unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_browsers_bring_along_stays_with_them() {
    for format in ["text", "json"] {
        let mut server = Server::with(Options {
            config: Some(format!("[log]\nlevel = \"trace\"\nformat = \"{format}\"\n")),
            env: environment(),
            ..Options::default()
        });
        requests(&server).await;
        sockets(&server).await;
        // What an application publishes is for those who are sent it.
        let secret = json!({"type": "patient", "data": {"diagnosis": "kanarie-payload"}});
        let (status, _) = server.post("/api/events", secret).await;
        assert_eq!(status, 202);
        asked(server.address()).await;
        server.signal("TERM");
        server.ended();
        server.logged("a socket opens");
        server.logged("stopped");
        hides("the log", &server.log());
    }
}

async fn requests(server: &Server) {
    let client = reqwest::Client::new();
    let paths = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/nothing",
        "/kanarie-path",
        "/rowcast.js",
        "/socket/all/",
        "/socket/kanarie-path/",
        "/api/topics",
        "/api/topics/kanarie-type/refresh",
        "/api/query/patient",
        "/api/query/all_patient_page_data",
        "/api/query/kanarie-type",
        "/chat/update/info/",
        "/chat/socket/",
        "/api/pipeline",
        "/api/dead_letters",
        "/api/types",
        "/api/events",
        "/api/stream",
    ];
    let queries = [
        "token=kanarie-query&since=kanarie-since",
        "access_token=kanarie-query&filter=kanarie-filter&types=kanarie-type",
        "filter[name]=kanarie-name&since=x",
        "filter[name][kanarie-op]=1&filter[kanarie-column]=1&since=x",
        "id=kanarie-id&since=x",
        "order=kanarie-order&page=kanarie-page&after=kanarie-after&since=x",
        "lang=kanarie-lang&limit=kanarie-limit&hello=kanarie-hello",
    ];
    for path in paths {
        for query in queries {
            for method in ["GET", "POST", "DELETE", "KANARIE"] {
                let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
                let url = format!("{}?{query}", server.url(path));
                let mut request = client.request(method.clone(), url);
                for (name, value) in HEADERS {
                    request = request.header(name, value);
                }
                if method == "POST" {
                    request = request.body("{\"type\":\"kanarie-type\",\"data\":kanarie-body}");
                    request = request.header("content-type", "application/json");
                }
                let answer = request.send().await.unwrap();
                // A stream goes on for ever.
                let streams = path == "/api/stream" && answer.status().is_success();
                let mut said = format!("{} {:?}", answer.status(), answer.headers());
                if !streams {
                    said += &answer.text().await.unwrap();
                }
                hides(&format!("{method} {path}?{query}"), &said);
            }
        }
    }
    for body in [
        json!("kanarie-body"),
        json!({"type": "kanarie-type", "data": 1}),
        json!({"type": 5, "data": "kanarie-body"}),
        json!({"type": "patient", "id": {"x": "kanarie-body"}, "data": 1}),
        json!({"specversion": "kanarie-body", "type": "patient", "data": 1}),
    ] {
        let (status, answer) = server.post("/api/events", body.clone()).await;
        assert!(status >= 400, "{body}");
        hides(&format!("POST {body}"), &answer.to_string());
    }
}

async fn sockets(server: &Server) {
    let frames = [
        "kanarie-text".to_owned(),
        "{\"type\":\"kanarie-type\"".to_owned(),
        json!({"type": "kanarie-type"}).to_string(),
        json!({"type": "sys:kanarie-type"}).to_string(),
        json!({"type": "sys:hello", "token": "kanarie-token"}).to_string(),
        json!({"type": "sys:hello", "since": "kanarie-since"}).to_string(),
        json!({"type": "sys:auth", "token": "kanarie-token"}).to_string(),
        json!({"type": "sys:subscribe", "types": {"patient": {"filter": {"kanarie-c": 1}}}})
            .to_string(),
        json!({"type": "patient", "id": "kanarie-id"}).to_string(),
        json!({"type": "patient", "id": {"kanarie-id": 1}}).to_string(),
        json!({"type": "patient", "params": {"order": ["kanarie-order"]}}).to_string(),
        json!({"type": "patient", "params": {"filter": {"name": {"kanarie-op": 1}}}}).to_string(),
        json!({"type": "patient", "params": {"after": "kanarie-after"}}).to_string(),
        json!({"type": "patient", "params": {"kanarie-param": 1}}).to_string(),
    ];
    for frame in frames {
        let url = format!("ws://{}/socket/all/?token=kanarie-query", server.address());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in HEADERS.iter().filter(|(name, _)| !name.starts_with("sec-")) {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let mut socket = Socket::request(request).await;
        socket.send_text(&frame).await;
        socket
            .send(json!({"type": "sys:ping", "rid": "the end"}))
            .await;
        loop {
            match socket.next_or_close().await {
                Ok(text) => {
                    hides(&frame, &text);
                    if text.contains("the end") {
                        break;
                    }
                }
                Err(closed) => {
                    hides(&frame, &closed.reason);
                    break;
                }
            }
        }
    }
    // The handshake with a subprotocol is answered without the token in it.
    let headers = HEADERS
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .concat();
    for path in [
        "/socket/all/",
        "/socket/all/?since=kanarie-since&token=kanarie-query",
    ] {
        let (_, head) = crate::support::Raw::ask(server, path, &headers).await;
        hides(path, &head);
    }
}

// === databases and buses ===

/// A PostgreSQL and a NATS that ask for passwords.
struct Guarded {
    cluster: Cluster,
    database: Database,
    nats: Nats,
}

impl Guarded {
    fn new() -> Self {
        let cluster = Cluster::own(&[]);
        let database = cluster.database();
        database.sql(
            "CREATE ROLE care LOGIN SUPERUSER PASSWORD 'kanarie-database';
             CREATE TABLE t (id int PRIMARY KEY, name text, age int);
             ALTER TABLE t REPLICA IDENTITY FULL;
             INSERT INTO t VALUES (1, 'Anna', 80)",
        );
        cluster.write(
            "pg_hba.conf",
            "host all postgres 127.0.0.1/32 trust\nhost all care 127.0.0.1/32 scram-sha-256\n",
        );
        database.sql("SELECT pg_reload_conf()");
        let nats = Nats::with(NatsOptions {
            extra: "authorization { user: care, password: kanarie-nats }\n".into(),
            ..NatsOptions::default()
        });
        Self {
            cluster,
            database,
            nats,
        }
    }

    /// A `rowcast.toml` with these passwords.
    fn config(&self, database: &str, bus: &str, format: &str) -> String {
        let url = self.database.url();
        format!(
            "[database]\nurl = \"{}\"\nheartbeat_interval_ms = 500\n[bus]\nurl = \"{}\"\n\
             [log]\nlevel = \"trace\"\nformat = \"{format}\"\n\
             [[topics]]\ntype = \"t\"\ntable = \"t\"\nwhere = \"age > 70\"\n[[topics]]\ntype = \"note\"\n",
            url.replace("postgres@", &format!("care:{database}@")),
            self.nats.url_of("care", bus),
        )
    }

    fn right(&self, format: &str) -> String {
        self.config("kanarie-database", "kanarie-nats", format)
    }
}

fn gateway(config: String) -> Server {
    Server::with(Options {
        config: Some(config),
        env: environment(),
        ..Options::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_shows_a_password_or_a_row_while_it_works_and_while_it_does_not() {
    let mut site = Guarded::new();
    let producer = Producer::start_in(&site.right("text"), environment());
    wait_until("a producer", async || {
        producer.is_ready().await.then_some(())
    })
    .await;
    let gateways = ["text", "json"].map(|format| gateway(site.right(format)));
    let mut socket = gateways[0].socket("").await;
    site.database.sql("UPDATE t SET name = 'kanarie-row'");
    assert_eq!(socket.next_of("t").await["data"]["name"], "kanarie-row");
    let reply = socket.ask(json!({"type": "t", "rid": 1})).await;
    assert_eq!(reply["data"][0]["name"], "kanarie-row");
    // What cannot be understood, on the bus and in the database.
    let client =
        async_nats::ConnectOptions::with_user_and_password("care".into(), "kanarie-nats".into());
    let client = client.connect(site.nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client.clone());
    let letters = [
        json!("kanarie-letter"),
        json!({"type": "kanarie-type", "data": 1}),
        json!({"type": "note", "data": 1, "id": ["kanarie-id"]}),
        json!({"type": "note", "data": 1, "specversion": "kanarie-version"}),
    ];
    for letter in &letters {
        let sent = stream.publish("rowcast.event.note", letter.to_string().into());
        sent.await.unwrap().await.unwrap();
    }
    for gateway in &gateways {
        wait_until("the dead letters", async || {
            let count = gateway.counted("dead_letters_total").await;
            (count == letters.len() as u64).then_some(())
        })
        .await;
    }
    site.database
        .sql("SELECT pg_logical_emit_message(true, 'rowcast:note', 'kanarie-nonsense')");
    for ask in [
        "kanarie-query",
        "{\"id\":\"kanarie-id\"}",
        "{\"params\":{\"order\":[\"kanarie\"]}}",
    ] {
        let answer = client.request("rowcast.query.t", ask.into()).await.unwrap();
        hides(ask, &format!("{:?} {:?}", answer.headers, answer.payload));
    }
    let refused = gateways[1]
        .get("/api/query/t?filter[age]=kanarie-age")
        .await;
    hides("a refused query", &refused.1.to_string());
    everybody(&gateways, &producer).await;
    commands(&site);
    // Both go away, one after the other, and what is missing is told.
    site.nats.kill();
    for gateway in &gateways {
        down(gateway, "bus").await;
    }
    everybody(&gateways, &producer).await;
    site.cluster.stop();
    for gateway in &gateways {
        wait_until("a query to fail", async || {
            let (status, told) = gateway.get("/api/query/t").await;
            hides("a query that fails", &told.to_string());
            (status == 503).then_some(())
        })
        .await;
    }
    everybody(&gateways, &producer).await;
    for log in gateways.iter().map(Server::log).chain([producer.log()]) {
        assert!(log.contains("down"), "{log}");
        hides("a log", &log);
    }
}

async fn everybody(gateways: &[Server], producer: &Producer) {
    for gateway in gateways {
        asked(gateway.address()).await;
    }
    asked(producer.address()).await;
}

async fn down(gateway: &Server, part: &str) {
    wait_until("what is missing", async || {
        let (status, told) = gateway.get("/readyz").await;
        (status == 503 && told.to_string().contains(part)).then_some(())
    })
    .await;
}

/// Each command that ends, with the right passwords.
fn commands(site: &Guarded) {
    let folder = Folder::new();
    folder.write("rowcast.toml", &site.right("text"));
    let data = "{\"p\":\"kanarie-payload\"}";
    for args in [
        &["check"][..],
        &["publish", "note", data],
        &["types"],
        &["query", "t"],
    ] {
        let mut ran = folder.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        if args[0] == "query" {
            // The rows are what was asked for.
            ran.stdout.clear();
        }
        hides_all(&format!("{args:?}"), &ran);
    }
    let url = site
        .database
        .url()
        .replace("postgres@", "care:kanarie-database@");
    let written = folder.run(&["init", "--database", &url, "--config", "new.toml"]);
    assert_eq!(written.code, 0, "{written:?}");
    hides_all("init", &written);
    let file = std::fs::read_to_string(folder.path("new.toml")).unwrap();
    assert!(file.contains("postgres://care@"), "{file}");
    hides("what init writes", &file);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_shows_the_password_that_is_refused() {
    let site = Guarded::new();
    let folder = Folder::new();
    let wrong = site.config("kanarie-wrong", "kanarie-wrong", "text");
    let port = free_port();
    let away = |text: String| {
        let postgres = site.database.url();
        let postgres = postgres
            .split(['@', '/'])
            .find(|part| part.starts_with("127."))
            .unwrap();
        let nats = site.nats.url().replace("nats://", "");
        let nobody = format!("127.0.0.1:{port}");
        text.replace(postgres, &nobody).replace(&nats, &nobody)
    };
    let secure = site
        .right("text")
        .replace("sslmode=disable", "sslmode=verify-full");
    let secure = secure.replace("nats://", "tls://");
    let credentials = site
        .right("text")
        .replace("[log]", "credentials = \"bus.creds\"\n[log]");
    // Each waits some seconds for who does not answer: side by side.
    let lost = away(site.right("text"));
    std::thread::scope(|threads| {
        for config in [&wrong, &lost, &secure, &credentials] {
            threads.spawn(move || fail(config));
        }
    });
    let url = site
        .database
        .url()
        .replace("postgres@", "care:kanarie-wrong@");
    hides_all(
        "init",
        &folder.run(&["init", "--database", &url, "--config", "new.toml"]),
    );
    for (config, format) in [(&wrong, "text"), (&lost, "json")] {
        let config = config.replace("\"text\"", &format!("\"{format}\""));
        let producer = Producer::start_in(&config, environment());
        let gateway = gateway(config.clone());
        for address in [producer.address(), gateway.address()] {
            let missing = reqwest::get(format!("http://{address}/readyz"))
                .await
                .unwrap();
            let missing: Json = missing.json().await.unwrap();
            assert!(missing.to_string().contains("store"), "{missing}");
            hides("/readyz", &missing.to_string());
            asked(address).await;
        }
        for log in [producer.log(), gateway.log()] {
            assert!(log.contains("down"), "{log}");
            hides("a log", &log);
        }
    }
}

/// Runs every command that has something to complain of.
fn fail(config: &str) {
    let folder = Folder::new();
    folder.write("rowcast.toml", config);
    folder.write(
        "bus.creds",
        "-----BEGIN NATS USER JWT-----\nkanarie-jwt\n------END NATS USER JWT------\n\
         -----BEGIN USER NKEY SEED-----\nkanarie-seed\n------END USER NKEY SEED------\n",
    );
    let data = "{\"p\":\"kanarie-payload\"}";
    let mut failed = 0;
    for args in [
        &["check"][..],
        &["query", "t"],
        &["types"],
        &["remove"],
        &["publish", "note", data],
        &["tail"],
    ] {
        let mut ran = folder.run_with(args, &[("PGPASSWORD", "kanarie-environment")]);
        failed += i32::from(ran.code != 0);
        if ran.code == 0 && args[0] == "query" {
            // With the right password for the database the rows are what was asked for.
            ran.stdout.clear();
        }
        hides_all(&format!("{args:?} {config}"), &ran);
    }
    assert!(failed >= 3, "{failed} failed of {config}");
}
