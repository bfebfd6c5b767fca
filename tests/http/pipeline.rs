//! The pipeline at a glance, of one process with the embedded bus.

use serde_json::{Value as Json, json};

use crate::{
    support::{Raw, Server, Socket, sqlite3, wait_until},
    wire::{CARE, CARE_TABLES, care, members},
};

/// The report of now.
async fn report(server: &Server) -> Json {
    let (code, body) = server.get("/api/pipeline").await;
    assert_eq!(code, 200, "{body}");
    body
}

/// A stage of a report.
fn stage<'a>(report: &'a Json, name: &str) -> &'a Json {
    let mut stages = report["stages"].as_array().unwrap().iter();
    let found = stages.find(|stage| stage["stage"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {report}"))
}

/// Waits for an incident of a kind, to something.
async fn incident(server: &Server, kind: &str, what: &str) -> Json {
    wait_until(kind, async || {
        let report = report(server).await;
        let mut told = report["incidents"].as_array().unwrap().iter();
        let found = told.find(|one| one["kind"] == kind && one["what"] == what);
        found.cloned()
    })
    .await
}

#[tokio::test]
async fn every_stage_says_how_far_it_has_come() {
    let server = care();
    let mut socket = server.socket("").await;
    let before = report(&server).await;
    assert_eq!(before["gateway"], server.address());
    let stages = before["stages"].as_array().unwrap();
    let names: Vec<_> = stages.iter().map(|stage| &stage["stage"]).collect();
    assert_eq!(names, ["source", "relay", "bus", "gateway"]);
    for stage in stages {
        assert_eq!(
            (&stage["process"], &stage["state"], &stage["error"]),
            (&json!(server.address()), &json!("up"), &Json::Null),
            "{stage}"
        );
    }
    assert_eq!(stage(&before, "source")["what"], "sqlite rowcast.db");
    assert!(stage(&before, "source")["lag_ms"].is_null(), "{before}");
    let bus = stage(&before, "bus");
    assert_eq!(
        (&bus["what"], &bus["durability"]),
        (&json!("embedded rowcast.db-bus"), &json!("fsynced"))
    );
    for n in 1..=3 {
        let name = format!("UPDATE patient SET name = '{n}' WHERE id = 1");
        sqlite3(&server.database(), &name);
        socket.next_of("patient").await;
    }
    let (code, _) = server.get("/api/query/patient").await;
    assert_eq!(code, 200);
    let total = |report: &Json, name| stage(report, name)["total"].as_u64().unwrap();
    // A push is on its way before it is counted everywhere.
    let after = wait_until("the totals to grow", async || {
        let report = report(&server).await;
        (total(&report, "gateway") >= total(&before, "gateway") + 6).then_some(report)
    })
    .await;
    assert_eq!(total(&after, "source"), total(&before, "source") + 3);
    // Each change is a row's and a page's.
    assert_eq!(total(&after, "relay"), total(&before, "relay") + 6);
    for name in ["source", "relay", "gateway"] {
        let lag = stage(&after, name)["lag_ms"].as_i64();
        assert!(lag.is_some_and(|lag| (0..60_000).contains(&lag)), "{after}");
    }
    let cursor = stage(&after, "bus")["position"].as_str().unwrap();
    let epoch = after["epoch"].as_str().unwrap();
    assert!(cursor.starts_with(&format!("{epoch}:")), "{after}");
    let gateway = stage(&after, "gateway");
    assert_eq!(gateway["sockets"], 1);
    assert_eq!(gateway["behind"], 0);
    assert!(gateway["pushed"].as_u64() >= Some(3), "{gateway}");
    assert!(gateway["queries"].as_u64() >= Some(1), "{gateway}");
    assert!(gateway["started"].as_i64() <= before["at"].as_i64());
}

#[tokio::test]
async fn a_reset_and_a_close_are_told_as_incidents() {
    let server = care();
    let mut lost = server.socket("since=k3:41").await;
    assert_eq!(lost.next_of("sys:reset").await["reason"], "epoch");
    let reset = incident(&server, "reset", "epoch").await;
    assert_eq!(
        members(&reset),
        ["seq", "at", "process", "kind", "what", "n", "text"]
    );
    assert_eq!(reset["process"], server.address());
    let (most, mut sockets) = (3, Vec::new());
    for _ in 0..most {
        let mut socket = server.socket("").await;
        let bytes = tokio_tungstenite::tungstenite::Message::binary(vec![1]);
        socket.send_message(bytes).await;
        assert_eq!(socket.closed().await.code, 1003);
        sockets.push(socket);
    }
    let close = incident(&server, "close", "1003").await;
    assert!(close["seq"].as_u64() > reset["seq"].as_u64());
    let closes = wait_until("all closes", async || {
        let report = report(&server).await;
        let told = report["incidents"].as_array().unwrap().iter();
        let closes = told.filter(|one| one["kind"] == "close");
        let n: u64 = closes.map(|one| one["n"].as_u64().unwrap()).sum();
        (n == most).then_some(n)
    });
    closes.await;
    assert_eq!(server.counted("closes_total{kind=\"1003\"}").await, most);
}

#[tokio::test]
async fn what_was_wrong_with_a_part_is_kept_when_it_is_over() {
    let server = care();
    let moved = server.folder().join("away.db");
    std::fs::rename(server.database(), &moved).unwrap();
    let ask = async || {
        let _ = server.get("/api/query/patient").await;
        report(&server).await
    };
    let down = wait_until("the parts to be down", async || {
        let report = ask().await;
        let is_down = |name| stage(&report, name)["state"] == "down";
        (is_down("source") && is_down("gateway")).then_some(report)
    })
    .await;
    let error = &stage(&down, "gateway")["error"];
    assert!(
        error["text"].is_string() && error["over"].is_null(),
        "{down}"
    );
    assert!(error["at"].as_i64() <= down["at"].as_i64());
    std::fs::rename(moved, server.database()).unwrap();
    let up = wait_until("the parts to be up", async || {
        let report = ask().await;
        let is_up = |name| stage(&report, name)["state"] == "up";
        (is_up("source") && is_up("gateway")).then_some(report)
    })
    .await;
    for name in ["source", "gateway"] {
        let error = &stage(&up, name)["error"];
        assert!(error["text"].is_string(), "{up}");
        assert_eq!(error["over"], true, "{up}");
    }
    for part in ["source", "store"] {
        let down = incident(&server, "down", part).await;
        let up = incident(&server, "up", part).await;
        assert!(down["seq"].as_u64() < up["seq"].as_u64());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_fell_behind_is_told_and_counted_until_it_has_caught_up() {
    let config = format!(
        "[server]\nring_max_bytes = 65536\nwrite_timeout_ms = 120000\nping_interval_ms = 120000\n{CARE}"
    );
    let server = Server::configured(&config, CARE_TABLES);
    let mut quick = server.socket("types=notice").await;
    let mut stuck = Raw::open(&server, "/socket/all/?types=notice").await;
    let note = json!({ "type": "notice", "data": "x".repeat(60_000) });
    let publish = async |quick: &mut Socket| {
        assert_eq!(server.post("/api/events", note.clone()).await.0, 202);
        quick.next_of("notice").await;
    };
    // As much as the kernel takes, and more.
    for _ in 0..150 {
        publish(&mut quick).await;
    }
    // It reads on, or the server would never notice that the ring has moved on.
    while server.counted("sessions_behind").await == 0 {
        stuck.next_text().await;
    }
    let seen = report(&server).await;
    let gateway = stage(&seen, "gateway");
    assert_eq!(
        (&gateway["sockets"], &gateway["behind"]),
        (&json!(2), &json!(1))
    );
    incident(&server, "slow", "ring").await;
    drop(stuck);
    wait_until("nobody to be behind", async || {
        let report = report(&server).await;
        let gateway = stage(&report, "gateway");
        (gateway["behind"] == 0 && gateway["sockets"] == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_it_is_gathered_once_a_second() {
    let server = care();
    let begun = std::time::Instant::now();
    let asks = (0..60).map(|_| report(&server));
    let reports = futures_util::future::join_all(asks).await;
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    let at: std::collections::BTreeSet<_> = reports.iter().map(|one| one["at"].as_i64()).collect();
    assert!(at.len() <= 2 + seconds, "{at:?} in {seconds} s");
    let first = at.first().copied().flatten().unwrap();
    let next = wait_until("another report", async || {
        let at = report(&server).await["at"].as_i64().unwrap();
        (at > first).then_some(at)
    })
    .await;
    assert!(next >= first + 900, "{}", next - first);
}

#[tokio::test]
async fn on_an_embedded_bus_nothing_is_a_dead_letter() {
    let server = care();
    let none = json!({ "dead_letters": [], "total": 0, "kept": false });
    for query in ["", "?limit=1", "?limit=200&other=1"] {
        let path = format!("/api/dead_letters{query}");
        assert_eq!(server.get(&path).await, (200, none.clone()), "{path}");
    }
    for limit in ["0", "201", "-1", "x", "", "1.5", "99999999999999999999"] {
        let (code, body) = server
            .get(&format!("/api/dead_letters?limit={limit}"))
            .await;
        assert_eq!(
            (code, &body["error"]),
            (400, &json!("bad_param")),
            "{limit}"
        );
    }
}
