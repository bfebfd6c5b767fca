//! A09, A24, A25, and what is left of A23: much of what is right, from one socket or from many connections.
//! The counts are bounded; what they show is that each has its answer, and that nothing is kept.

use serde_json::{Value as Json, json};

use super::{
    stage::Stage,
    told::{Told, bad_param, closed, error, framed},
};
use crate::support::{
    Options, Raw, Server,
    frames::{CLOSE, FIN, PING, PONG, close_payload, frame},
    in_time,
    raw::TEXT,
};

/// Texts for which a pattern takes long, a table for the witness, and one to write to.
const TABLES: &str = "
    CREATE TABLE patient (id INTEGER PRIMARY KEY, name TEXT);
    INSERT INTO patient VALUES (1, 'x');
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
    INSERT INTO big SELECT i, printf('%.*c', 1000, 'a') FROM n;";

const TOPICS: &str = "
[[topics]]
type = \"patient\"
table = \"patient\"
[[topics]]
type = \"big\"
table = \"big\"
[[topics]]
type = \"notice\"
[database]
query_timeout_ms = 1000
read_connections = 4
";

#[tokio::test]
async fn a_flood_of_what_is_right_is_answered_or_refused_and_leaves_nothing_behind() {
    let server = Server::with(Options {
        config: Some(TOPICS.into()),
        database: Some(TABLES.into()),
        ..Options::default()
    });
    let mut stage = Stage::of(server).await;
    control_frames(&mut stage).await;
    queries(&mut stage).await;
    subscriptions(&mut stage).await;
    connections(&mut stage).await;
    stage.end().await;
}

// === A09 ===

async fn control_frames(stage: &mut Stage) {
    // A few are what a client may send.
    let few: Vec<u8> = (0..10).flat_map(|n| frame(FIN | PING, &[n])).collect();
    let told = stage.stream("/socket/all/", &few).await;
    let pongs: Vec<Told> = (0..10).map(|n| Told::Pong(vec![n])).collect();
    stage.note_all("A09", "ten pings", &told, &pongs);
    for (what, one) in [("closes", frame(FIN | CLOSE, &close_payload(1000, b"")))] {
        let told = stage.stream("/socket/all/", &one.repeat(1_000)).await;
        stage.note_all("A09", what, &told, &[closed(1000)]);
    }
    for path in ["/socket/all/", "/chat/socket/"] {
        for one in [frame(FIN | PING, &[b'x'; 125]), frame(FIN | PONG, b"")] {
            let told = stage.stream(path, &one.repeat(10_000)).await;
            flooded(stage, path, &told);
        }
    }
}

/// Some pongs, and a close.
fn flooded(stage: &mut Stage, path: &str, told: &[Told]) {
    let others: Vec<Told> = told
        .iter()
        .filter(|told| !matches!(told, Told::Pong(_)))
        .cloned()
        .collect();
    stage.note_all("A09", path, &others, &[closed(1008)]);
}

// === A24 ===

/// A hundred at once of one socket: two run, eight wait, and all the others are told to come later. What
/// takes too long is given up.
async fn queries(stage: &mut Stage) {
    for round in 0..2 {
        let mut raw = Raw::open(&stage.server, "/socket/all/?types=notice").await;
        let pattern = format!("%{}b", "a".repeat(200));
        for rid in 0..100 {
            let question = json!({ "type": "big", "rid": rid, "params": { "filter": { "text": { "like": format!("{pattern}{round}{rid}") } } } });
            raw.frame(TEXT, question.to_string().as_bytes()).await;
        }
        let mut seen = [false; 100];
        let mut refused = 0;
        for _ in 0..100 {
            let answer = raw.next_text().await;
            let told = Told::text(answer.as_bytes());
            let answer: Json = serde_json::from_str(&answer).unwrap();
            let rid = usize::try_from(answer["rid"].as_u64().unwrap()).unwrap();
            assert!(
                !std::mem::replace(&mut seen[rid], true),
                "answered twice: {answer}"
            );
            refused += usize::from(told == error(429, "too_many_requests"));
            let expected = [
                error(429, "too_many_requests"),
                error(504, "query_timeout"),
                Told::Reply,
            ];
            stage.note("A24", &answer.to_string(), &[told], &expected);
        }
        assert!(refused >= 80, "only {refused} of 100 were refused");
    }
    for filter in [
        json!({ "text": { "pg_sleep": 10 } }),
        json!({ "pg_sleep(10)": 1 }),
        json!({ "text": { "like": "%a".repeat(200) } }),
    ] {
        let question = json!({ "type": "big", "params": { "filter": filter } });
        stage.ask("A24", question.to_string(), &[bad_param()]).await;
    }
}

// === A23 ===

/// Filters that are all different.
async fn subscriptions(stage: &mut Stage) {
    let before = stage.rss_kib();
    for n in 0..400 {
        let wanted: Vec<i64> = (n..n + 200).collect();
        let subscription = json!({ "type": "sys:subscribe", "types": { "patient": { "filter": { "id": wanted } } } });
        stage
            .ask("A23", subscription.to_string(), &[framed("sys:ok")])
            .await;
    }
    assert!(
        stage.rss_kib() < before + 16 * 1024,
        "filters that nobody has are kept"
    );
}

// === A25 ===

/// More connections than there is room for: the rest is told so before anything else, and the room is back
/// when they have gone.
async fn connections(stage: &mut Stage) {
    let server = Server::with(Options {
        config: Some(format!(
            "{TOPICS}\n[server]\nmax_connections = 60\nspare_connections = 20\n"
        )),
        database: Some(TABLES.into()),
        ..Options::default()
    });
    for _ in 0..3 {
        let mut sockets = Vec::new();
        let (mut opened, mut full) = (0, 0);
        for _ in 0..200 {
            let (mut raw, head) = Raw::ask(&server, "/socket/all/", "").await;
            let told = match Told::answer(&head) {
                Told::Status(101, _) => {
                    raw.bytes(&frame(FIN | PING, b"?")).await;
                    match raw.next().await {
                        Some((0xa, _)) => Told::Pong(Vec::new()),
                        Some((0x8, code)) => {
                            Told::Closed(code.first_chunk().map(|c| u16::from_be_bytes(*c)))
                        }
                        other => panic!("{other:?}"),
                    }
                }
                other => other,
            };
            opened += usize::from(told == Told::Pong(Vec::new()));
            full += usize::from(told == Told::Status(503, String::new()));
            if told == Told::Status(503, String::new()) {
                assert!(
                    head.to_ascii_lowercase().contains("retry-after: "),
                    "{head}"
                );
            }
            // Of those for whom there is no room only some at once are told so.
            let expected = [
                Told::Pong(Vec::new()),
                closed(1013),
                Told::Status(503, String::new()),
                Told::Cut,
            ];
            stage.note("A25", &head, &[told], &expected);
            sockets.push(raw);
        }
        assert!(
            opened == 60 && full > 0,
            "{opened} opened, {full} found no room"
        );
        drop(sockets);
        let back = crate::support::wait_until("the room to be back", async || {
            (server.get("/healthz").await.0 == 200 && server.counted("connections").await <= 2)
                .then_some(())
        });
        in_time("the room", back).await;
    }
}
