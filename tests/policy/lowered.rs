//! Whoever comes to have less than before while something is on its way to him: behind the answer to his new token
//! there is nothing of what is not his any more, whether it is replayed, pushed, or was asked for before.

use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::home::{Home, cook, doctor, nurse};
use crate::support::{Raw, Server, Socket, in_time, raw::TEXT, wait_until};

/// Stands in every diagnosis, and in every name of ward 2; the ids there begin with [`AWAY`]. A doctor sees them, and
/// a nurse of ward 1 does not.
const HIDDEN: &str = "HIDDEN";
const AWAY: &str = "888000";

/// Rows of either ward that are replayed: more bytes than the kernel holds for somebody who does not read, and several
/// reads of the bus.
const ROWS: u64 = 2_000;

/// So many patients, in turns of ward 1, with the ids 1001 and on, and of ward 2.
fn patients(rows: u64) -> String {
    format!(
        "INSERT INTO patient SELECT CASE ward WHEN '1' THEN 1000 ELSE {AWAY}000 END + n, 'oak', ward, name,
             repeat('x', 2000), '{HIDDEN}'
         FROM generate_series(1, {rows}) n, (VALUES ('1', 'Ann'), ('2', '{HIDDEN}')) w (ward, name) ORDER BY n, ward"
    )
}

/// Fails where a text tells a nurse of ward 1 what is not his.
#[track_caller]
fn is_his(text: &str) {
    // Not the number alone, which a time may hold.
    let away = format!("\"id\":{AWAY}");
    let told = [HIDDEN, &away, "diagnosis"].map(|what| text.contains(what));
    assert_eq!(told, [false; 3], "{text}");
}

fn auth(rid: u64, token: &str) -> Json {
    json!({ "type": "sys:auth", "rid": rid, "token": token })
}

async fn is_ready(gateway: &Server) {
    wait_until("the gateway to be ready", async || {
        (gateway.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_goes_on_within_the_rights_that_are_left() {
    let home = Home::open().await;
    let mut first = home.socket(&doctor(), "types=patient").await;
    home.database
        .sql("UPDATE patient SET bed = 'x' WHERE id = 1");
    let event = first.next_of("patient").await;
    let since = event["cursor"].as_str().unwrap().to_owned();
    home.database.sql(&patients(ROWS));
    let last = json!(888_000_000 + ROWS);
    first
        .next_where("the last row", |frame| frame["key"]["id"] == last)
        .await;
    // It keeps hardly anything, and has read nothing for anybody yet: what was missed is read from the bus.
    let gateway = home.another("ring_max_bytes = 65536\nping_interval_ms = 600000");
    is_ready(&gateway).await;
    let path = format!("/socket/all/?since={since}&types=patient");
    let (mut raw, _) = Raw::ask(&gateway, &path, &format!("token: {}\r\n", doctor())).await;
    // It takes one frame and then nothing before the bus stands still: so the replay does, too, when it has gone some
    // of the way.
    assert!(raw.next_text().await.contains("1001"));
    home.nats.stop();
    let nurse = auth(1, &nurse()).to_string();
    raw.frame(TEXT, nurse.as_bytes()).await;
    while !is_answer(&raw.next_text().await) {}
    home.nats.cont();
    let reset = raw.next_text().await;
    assert!(reset.contains("\"reason\":\"scope\""), "{reset}");
    let mut rows = 0;
    loop {
        let text = raw.next_text().await;
        is_his(&text);
        if text.contains("sys:caught_up") {
            break;
        }
        rows += u64::from(text.contains("\"op\":\"insert\""));
    }
    assert!(0 < rows && rows < ROWS, "{rows} rows behind the answer");
}

/// Whether a frame says that a token was taken.
fn is_answer(text: &str) -> bool {
    text.contains("\"sys:ok\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_stays_within_the_rights_of_the_moment() {
    let home = Home::open().await;
    home.database.sql(&patients(2));
    let mut socket = home.socket(&doctor(), "types=patient").await;
    let stop = CancellationToken::new();
    let (_stops, database) = (stop.clone().drop_guard(), home.database);
    std::thread::spawn(move || {
        while !stop.is_cancelled() {
            database.sql("UPDATE patient SET bed = 'y' WHERE id IN (1001, 888000001)");
        }
    });
    // Fewer than one may say at once.
    for round in 0..10 {
        // As a doctor again: rows of both wards come.
        let away = |frame: &Json| {
            frame["key"]["id"] == 888_000_001 && frame["data"]["diagnosis"] == HIDDEN
        };
        socket.next_where("a row of the other ward", away).await;
        socket.send(auth(round, &nurse())).await;
        while !is_answer(&in_time("an answer", socket.next_text()).await) {}
        let reset = socket.next().await;
        assert_eq!(reset["reason"], "scope", "{reset}");
        for _ in 0..10 {
            let text = in_time("a row of one's own", socket.next_text()).await;
            assert!(text.contains("1001"), "{text}");
            is_his(&text);
        }
        socket.ask(auth(round, &doctor())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_runs_is_answered_within_the_rights_that_are_left() {
    // What is asked waits for a lock for as long as that takes.
    let patience = "ROWCAST__DATABASE__QUERY_TIMEOUT_MS";
    let home = Home::plagued(vec![(patience.into(), "60000".into())]).await;
    home.database.sql(&patients(2));
    let all = json!({"type": "patient", "rid": "all", "params": {"all": true}});
    let hidden =
        json!({"type": "patient", "rid": "hidden", "params": {"filter": {"diagnosis": HIDDEN}}});
    let row = json!({"type": "patient", "rid": "row", "id": 888_000_001_u32});
    let nurses = home.socket(&doctor(), "types=visit").await;
    let cooks = home.socket(&doctor(), "types=visit").await;
    home.database
        .sql("BEGIN; LOCK patient IN ACCESS EXCLUSIVE MODE");
    let mut sockets = [nurses, cooks];
    for socket in &mut sockets {
        socket
            .send_together([all.clone(), hidden.clone(), row.clone()])
            .await;
    }
    // Of each socket two run, and one waits behind them.
    wait_until("the queries to run", async || {
        let waiting = "SELECT count(*) >= 2 FROM pg_locks JOIN pg_database d ON d.oid = database \
             WHERE NOT granted AND datname = current_database()";
        (home.database.one(waiting) == "t").then_some(())
    })
    .await;
    for (socket, token) in sockets.iter_mut().zip([nurse(), cook()]) {
        let ok = socket.ask(auth(1, &token)).await;
        assert_eq!(ok["type"], "sys:ok", "{ok}");
    }
    home.database.sql("ROLLBACK");
    let [mut nurses, mut cooks] = sockets;
    for _ in 0..3 {
        let answer = replied(&mut nurses).await;
        match answer["rid"].as_str().unwrap() {
            "all" => assert_eq!(answer["data"].as_array().unwrap().len(), 4, "{answer}"),
            "hidden" => assert_eq!(answer["error"], "bad_param", "{answer}"),
            _ => assert_eq!(answer["data"], json!([]), "{answer}"),
        }
        let answer = replied(&mut cooks).await;
        assert_eq!(answer["error"], "unknown_type", "{answer}");
    }
}

/// The next answer to one of the queries.
async fn replied(socket: &mut Socket) -> Json {
    let answer = socket
        .next_where("an answer", |frame| frame["rid"].is_string())
        .await;
    let text = answer.to_string();
    if !text.contains("\"hidden\"") {
        is_his(&text);
    }
    answer
}
