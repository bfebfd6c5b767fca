//! PostgreSQL → NATS JetStream → gateways, as processes that are killed, frozen and cut off.
//! Every client sees every change once, in commit order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value as Json, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::support::{STANDSTILL, Socket, postgres::Database, stack::Stack, wait_until};

const TOPICS: &str = "
[[topics]]
type = \"t\"
table = \"t\"
push = \"row\"
[[topics]]
type = \"log\"
table = \"log\"
push = \"row\"
";

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO t VALUES (1, 0);
CREATE TABLE log (id bigint PRIMARY KEY, text text);
";

// === a writer that numbers its transactions ===

/// Numbers every transaction, through whatever happens to the database.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<u64>,
}

impl Writer {
    fn start(database: &Database) -> Self {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (flag, count, url) = (stop.clone(), written.clone(), database.url());
        let task = tokio::spawn(async move {
            let mut client = None;
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            loop {
                pace.tick().await;
                let connected: &tokio_postgres::Client = match &client {
                    Some(client) => client,
                    None => {
                        let opened = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
                        let Ok((opened, driver)) = opened else {
                            continue;
                        };
                        tokio::spawn(driver);
                        client.insert(opened)
                    }
                };
                let sql = "BEGIN; UPDATE t SET n = n + 1 WHERE id = 1;
                     INSERT INTO log SELECT n, md5(n::text) FROM t WHERE id = 1; COMMIT";
                if flag.load(Ordering::Acquire) {
                    let row = connected
                        .query_one("SELECT n FROM t WHERE id = 1", &[])
                        .await;
                    if let Ok(row) = row {
                        return u64::try_from(row.get::<_, i64>(0)).unwrap();
                    }
                    client = None;
                } else {
                    // A commit whose answer was lost may have happened: the row itself numbers.
                    match connected.batch_execute(sql).await {
                        Ok(()) => drop(count.fetch_add(1, Ordering::AcqRel)),
                        Err(_) => client = None,
                    }
                }
            }
        });
        Self {
            stop,
            written,
            task,
        }
    }

    /// Waits for `more` further commits.
    async fn goes_on(&self, more: u64) {
        let from = self.written.load(Ordering::Acquire);
        wait_until("further commits", async || {
            (self.written.load(Ordering::Acquire) >= from + more).then_some(())
        })
        .await;
    }

    /// Stops, and says what the last number is.
    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.task.await.unwrap()
    }
}

// === a client that resumes on whichever gateway answers ===

#[derive(Debug, Default)]
struct Seen {
    n: u64,
    row: u64,
    cursor: String,
    resumes: u64,
    resets: u64,
}

impl Seen {
    fn take(&mut self, text: &str) {
        let frame: Json = serde_json::from_str(text).unwrap();
        match frame["type"].as_str() {
            Some("t") => {
                let n = frame["data"]["n"].as_u64().unwrap();
                assert!(
                    self.n == 0 || n == self.n + 1,
                    "{n} after {}: {frame}",
                    self.n
                );
                self.n = n;
            }
            Some("log") => {
                let row = frame["data"]["id"].as_u64().unwrap();
                assert!(
                    self.row == 0 || row == self.row + 1,
                    "{row} after {}",
                    self.row
                );
                self.row = row;
            }
            Some("sys:reset") => self.resets += 1,
            Some("sys:caught_up") => {}
            _ => panic!("unexpected: {frame}"),
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
    }
}

/// A client that reads until it has seen the number in `last`, on one gateway and then another.
async fn client(addresses: Vec<String>, mut first: usize, last: Arc<AtomicU64>) -> Seen {
    let mut seen = Seen::default();
    let done = |seen: &Seen| {
        let last = last.load(Ordering::Acquire);
        last > 0 && seen.n == last && seen.row == last
    };
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while !done(&seen) {
        pace.tick().await;
        let address = &addresses[first % addresses.len()];
        first += 1;
        let since = match &*seen.cursor {
            "" => String::new(),
            cursor => format!("&since={cursor}"),
        };
        let url = format!("ws://{address}/socket/all/?types=t,log{since}");
        let opened = tokio::time::timeout(Duration::from_secs(2), connect_async(url)).await;
        let Ok(Ok((mut socket, _))) = opened else {
            continue;
        };
        seen.resumes += 1;
        while !done(&seen) {
            let quiet = Duration::from_millis(500);
            match tokio::time::timeout(quiet, socket.next()).await {
                // Nothing for a while: look whether this was all.
                Err(_) => {}
                Ok(Some(Ok(Message::Text(text)))) => seen.take(&text),
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(_) => break,
            }
        }
    }
    seen
}

/// Writers and clients over a stack, and what the clients must have seen in the end.
struct Run {
    writer: Writer,
    last: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Seen>>,
}

impl Run {
    async fn start(stack: &Stack, clients: usize) -> Self {
        let last = Arc::new(AtomicU64::new(0));
        let addresses = stack.addresses();
        let clients = (0..clients)
            .map(|index| tokio::spawn(client(addresses.clone(), index, last.clone())))
            .collect();
        let writer = Writer::start(&stack.database);
        writer.goes_on(20).await;
        Self {
            writer,
            last,
            clients,
        }
    }

    /// Stops writing, and waits until every client has seen the last number.
    async fn finish(self) -> (u64, Vec<Seen>) {
        let last = self.writer.finish().await;
        self.last.store(last, Ordering::Release);
        let mut seen = Vec::new();
        for client in self.clients {
            let client = tokio::time::timeout(Duration::from_secs(60), client);
            seen.push(
                client
                    .await
                    .expect("a client waits for the last number")
                    .unwrap(),
            );
        }
        for client in &seen {
            assert_eq!((client.n, client.row), (last, last));
            assert_eq!(client.resets, 0, "{client:?}");
        }
        (last, seen)
    }
}

// === the tests ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_change_reaches_the_sockets_of_every_gateway() {
    let stack = Stack::new(TOPICS, TABLES, 2);
    let mut sockets: Vec<Socket> = Vec::new();
    for gateway in &stack.gateways {
        sockets.push(gateway.socket("").await);
    }
    stack.database.sql("UPDATE t SET n = 41 WHERE id = 1");
    let mut told = Vec::new();
    for socket in &mut sockets {
        told.push(socket.next().await);
    }
    assert_eq!(told[0]["op"], "update");
    assert_eq!(told[0]["data"], json!({"id": 1, "n": 41}));
    assert_eq!(told[0], told[1]);
    let reply = sockets[1]
        .ask(json!({"type": "t", "rid": 1, "id": 1}))
        .await;
    assert_eq!(reply["data"], json!([{"id": 1, "n": 41}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_sees_each_number_once_in_order_whatever_is_killed() {
    let mut stack = Stack::new(TOPICS, TABLES, 2);
    stack.produce();
    let run = Run::start(&stack, 4).await;
    let mut kills = 0;
    let rounds = if std::env::var_os("ROWCAST_LONG").is_some() {
        100
    } else {
        3
    };
    for round in 0..rounds {
        for part in 0..5 {
            match (part + round) % 5 {
                0 => {
                    stack.producers[0].kill();
                    run.writer.goes_on(20).await;
                    stack.producers[0].restart();
                }
                1 => {
                    stack.nats.kill();
                    run.writer.goes_on(20).await;
                    stack.nats.restart();
                }
                2 => {
                    stack.gateways[round % 2].kill();
                    run.writer.goes_on(20).await;
                    stack.gateways[round % 2].restart();
                }
                3 => {
                    stack.cluster.kill();
                    stack.cluster.start();
                }
                _ => {
                    stack.producers[1].kill();
                    run.writer.goes_on(20).await;
                    stack.producers[1].restart();
                }
            }
            kills += 1;
            run.writer.goes_on(50).await;
        }
    }
    let (last, seen) = run.finish().await;
    let resumes: u64 = seen.iter().map(|client| client.resumes).sum();
    eprintln!(
        "{kills} kills of producers, nats-server, gateways and PostgreSQL: {last} numbered \
         transactions, {} clients of 2 gateways saw each once, in order; {resumes} connections",
        seen.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_stands_by_takes_over_from_one_that_died_within_three_seconds() {
    let mut stack = Stack::new(TOPICS, TABLES, 1);
    stack.produce();
    let mut socket = stack.gateways[0].socket("types=t").await;
    stack.database.sql("UPDATE t SET n = 1");
    assert_eq!(socket.next().await["data"]["n"], 1);
    stack.producers[0].kill();
    let died = Instant::now();
    stack.database.sql("UPDATE t SET n = 2");
    assert_eq!(socket.next().await["data"]["n"], 2);
    assert!(
        died.elapsed() < Duration::from_secs(3) + STANDSTILL,
        "{:?}",
        died.elapsed()
    );
    eprintln!("taken over after {:?}", died.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_producer_is_replaced_and_stores_nothing_when_it_wakes() {
    let mut stack = Stack::with(TOPICS, TABLES, 1, "takeover_ms = 2000");
    stack.produce();
    let run = Run::start(&stack, 2).await;
    for round in 0..2 {
        let frozen = &stack.producers[round % 2];
        wait_until("the producer to be the active one", async || {
            frozen.is_ready().await.then_some(())
        })
        .await;
        frozen.signal("STOP");
        let other = &stack.producers[(round + 1) % 2];
        wait_until("the other producer to take over", async || {
            other.is_ready().await.then_some(())
        })
        .await;
        run.writer.goes_on(50).await;
        frozen.signal("CONT");
        run.writer.goes_on(50).await;
        wait_until("the producer that woke up to stand by", async || {
            (!frozen.is_ready().await).then_some(())
        })
        .await;
        assert!(other.is_ready().await);
    }
    let (last, _) = run.finish().await;
    assert!(last > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_bus_delays_and_loses_nothing() {
    let stack = Stack::new(TOPICS, TABLES, 2);
    let run = Run::start(&stack, 2).await;
    stack.nats.stop();
    wait_until("the gateways to say that the bus is away", async || {
        let mut down = true;
        for gateway in &stack.gateways {
            down &= gateway.get("/readyz").await.0 == 503;
        }
        down.then_some(())
    })
    .await;
    run.writer.goes_on(50).await;
    stack.nats.cont();
    run.writer.goes_on(50).await;
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_lives_without_database_and_bus_and_begins_by_itself() {
    let mut stack = Stack::new(TOPICS, TABLES, 0);
    stack.cluster.kill();
    stack.nats.kill();
    // The start waits some seconds before it announces the port, and then goes on waiting.
    stack.serve();
    let gateway = &stack.gateways[0];
    let (status, said) = gateway.get("/readyz").await;
    assert_eq!(status, 503, "{said}");
    assert_eq!(gateway.get("/healthz").await.0, 200);
    let (status, said) = gateway.get("/api/query/t").await;
    assert_eq!(
        (status, &said["error"]),
        (503, &json!("starting")),
        "{said}"
    );
    // A browser's EventSource would never ask again if it were told so.
    let stream = reqwest::Client::new().get(gateway.url("/api/stream"));
    let answer = stream.header("accept", "text/event-stream").send();
    let told = answer.await.unwrap().text().await.unwrap();
    assert!(
        told.starts_with("retry: 1") && told.ends_with("\n\n"),
        "{told}"
    );
    stack.cluster.start();
    stack.nats.restart();
    wait_until("the gateway to be ready", async || {
        (stack.gateways[0].get("/readyz").await.0 == 200).then_some(())
    })
    .await;
    let mut socket = stack.gateways[0].socket("types=t").await;
    stack.database.sql("UPDATE t SET n = 7");
    assert_eq!(socket.next().await["data"]["n"], 7);
    // One line a change of state, not one a try.
    let lines = stack.gateways[0].log().lines().count();
    assert!(lines < 60, "{}", stack.gateways[0].log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_queries_are_refused_and_events_go_on() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let gateway = &stack.gateways[0];
    let mut socket = gateway.socket("").await;
    stack.cluster.kill();
    let start = Instant::now();
    let refused = socket.ask(json!({"type": "t", "rid": 1})).await;
    assert_eq!(refused["code"], 503, "{refused}");
    assert!(start.elapsed() < Duration::from_secs(5) + STANDSTILL);
    let (status, _) = gateway
        .post("/api/events", json!({"type": "t", "data": 5}))
        .await;
    assert_eq!(status, 202);
    assert_eq!(socket.next_of("t").await["data"], 5);
    stack.cluster.start();
    wait_until("queries to be answered again", async || {
        (gateway.get("/api/query/t").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_emitted_in_a_transaction_takes_its_place_among_its_changes() {
    let stack = Stack::new(TOPICS, TABLES, 1);
    let mut socket = stack.gateways[0].socket("").await;
    stack.database.sql(
        "BEGIN; UPDATE t SET n = 1;
         SELECT pg_logical_emit_message(true, 'rowcast:log', '{\"note\": \"between\"}');
         INSERT INTO log VALUES (5, 'x'); COMMIT;
         BEGIN; SELECT pg_logical_emit_message(true, 'rowcast:log', '\"never\"'); ROLLBACK;
         UPDATE t SET n = 2;",
    );
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(socket.next().await);
    }
    let brief: Vec<_> = told
        .iter()
        .map(|frame| (&frame["type"], &frame["op"]))
        .collect();
    assert_eq!(
        brief,
        [
            (&json!("t"), &json!("update")),
            (&json!("log"), &json!("event")),
            (&json!("log"), &json!("insert")),
            (&json!("t"), &json!("update")),
        ]
    );
    assert_eq!(told[1]["data"], json!({"note": "between"}));
    assert_eq!(told[0]["tx"], told[1]["tx"]);
    assert_eq!(told[0]["tx"], told[2]["tx"]);
    assert!(told[3]["tx"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_asked_of_one_gateway_reaches_the_sockets_of_all() {
    let topics = "[[topics]]\ntype = \"page\"\ntable = \"t\"\npush = \"page\"\n";
    let stack = Stack::new(topics, TABLES, 2);
    let mut sockets = Vec::new();
    for gateway in &stack.gateways {
        sockets.push(gateway.socket("").await);
    }
    let (status, _) = stack.gateways[0]
        .post("/api/topics/page/refresh", Json::Null)
        .await;
    assert_eq!(status, 202);
    for socket in &mut sockets {
        let page = socket.next().await;
        assert_eq!(page["data"], json!([{"id": 1, "n": 0}]), "{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_that_come_one_after_the_other_are_few_reads_and_the_last_is_seen() {
    let topics = "[[topics]]\ntype = \"page\"\ntable = \"t\"\npush = \"page\"\n";
    let stack = Stack::new(topics, TABLES, 1);
    let gateway = &stack.gateways[0];
    let mut socket = gateway.socket("").await;
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let mut told = client.subscribe("rowcast.control.refresh").await.unwrap();
    client.flush().await.unwrap();
    let before = gateway.counted("pages_read_total").await;
    let begun = Instant::now();
    let mut asked = 0;
    for _ in 0..300 {
        asked = rowcast::clock::now_ms();
        let (status, _) = gateway.post("/api/topics/page/refresh", Json::Null).await;
        assert_eq!(status, 202);
    }
    let seen = |page: &Json| page["ts"].as_i64().is_some_and(|at| at >= asked);
    socket.next_where("a page of the last", seen).await;
    let read = gateway.counted("pages_read_total").await - before;
    client.flush().await.unwrap();
    let mut messages = 0;
    while told.next().now_or_never().flatten().is_some() {
        messages += 1;
    }
    // One in 40 ms, and one that was due before.
    let most = u64::try_from(begun.elapsed().as_millis()).unwrap() / 40 + 2;
    assert!(read <= most, "{read} reads, at the most {most}");
    let few = 1..=most;
    assert!(
        few.contains(&messages),
        "{messages} messages, at the most {most}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_are_asked_over_nats_and_one_gateway_answers() {
    let stack = Stack::new(TOPICS, TABLES, 2);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let ask = async |subject: &str, body: &str| {
        let (subject, body) = (subject.to_owned(), body.to_owned());
        wait_until("an answer", async || {
            let asked = client.request(subject.clone(), body.clone().into()).await;
            asked.ok()
        })
        .await
    };
    let reply = ask("rowcast.query.t", "{\"id\":1}").await;
    let frame: Json = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(frame["data"], json!([{"id": 1, "n": 0}]), "{frame}");
    for (subject, body, code) in [
        ("rowcast.query.nothing", "", "404"),
        ("rowcast.query.t", "[]", "400"),
        ("rowcast.query.t", "{\"id\":1,\"id\":2}", "400"),
        ("rowcast.query.t", "{\"id\":{}}", "400"),
    ] {
        let refused = ask(subject, body).await;
        let headers = refused.headers.unwrap();
        assert_eq!(
            headers.get("Nats-Service-Error-Code").unwrap().as_str(),
            code
        );
        let frame: Json = serde_json::from_slice(&refused.payload).unwrap();
        assert_eq!(frame["type"], "sys:error");
    }
    // Who may not write into the stream must not have a gateway or a producer do it.
    let into = "rowcast.event.log";
    for subject in ["rowcast.query.t", "rowcast.control.status"] {
        let sent = client.publish_with_reply(subject, into, "{\"id\":1}".into());
        sent.await.unwrap();
    }
    ask("rowcast.query.t", "{\"id\":1}").await;
    let report = ask("rowcast.control.status", "").await;
    assert!(String::from_utf8_lossy(&report.payload).contains("stages"));
    let context = async_nats::jetstream::new(client.clone());
    let stream = context.get_stream("ROWCAST").await.unwrap();
    let stored = stream.get_last_raw_message_by_subject(into).await;
    assert!(stored.is_err(), "{stored:?}");
    let found = ask("$SRV.PING.rowcast", "").await;
    assert!(String::from_utf8_lossy(&found.payload).contains("rowcast"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_ready_and_ticks_only_while_a_producer_is_heard() {
    let mut stack = Stack::new(TOPICS, TABLES, 1);
    let mut socket = stack.gateways[0].socket("hello=1").await;
    socket.send(json!({"type": "sys:hello"})).await;
    socket.next_of("sys:tick").await;
    stack.producers[0].kill();
    wait_until("the gateway to miss the producer", async || {
        let (status, said) = stack.gateways[0].get("/readyz").await;
        (status == 503 && said["missing"]["source"].is_string()).then_some(())
    })
    .await;
    // A tick that was due before may be on its way.
    while !socket.silent_for(Duration::from_secs(6)).await {}
    stack.producers[0].restart();
    socket.next_of("sys:tick").await;
    assert_eq!(stack.gateways[0].get("/readyz").await.0, 200);
    // Nor without the bus, long before its silence is that of the producer.
    stack.nats.kill();
    wait_until("the gateway to miss the bus", async || {
        let (_, said) = stack.gateways[0].get("/readyz").await;
        said["missing"]["bus"].is_string().then_some(())
    })
    .await;
    while !socket.silent_for(Duration::from_millis(100)).await {}
    let (_, said) = stack.gateways[0].get("/readyz").await;
    assert!(said["missing"]["source"].is_null(), "{said}");
    assert!(socket.silent_for(Duration::from_secs(6)).await);
    stack.nats.restart();
    socket.next_of("sys:tick").await;
}
