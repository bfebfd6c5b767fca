//! A client that comes back gets exactly what it missed, or is told that it cannot.

use std::{fs, process::Command, time::Duration};

use serde_json::{Value as Json, json};

use crate::support::{
    Follower, Options, Python, Server, Socket,
    follower::{BEAT, BEAT_TOPIC, brief, serve, topics},
    sqlite3, wait_for,
};

const PEOPLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);
    INSERT INTO t VALUES (1, 0), (2, 0), (3, 0);";

/// Topics on `t`: row by row, and as a page.
const TOPICS: &str = "[[topics]]\ntype = \"t\"\ntable = \"t\"\npush = \"row\"\n
[[topics]]\ntype = \"page\"\ntable = \"t\"\npush = \"page\"\n";

fn cursor(frame: &Json) -> String {
    frame["cursor"].as_str().unwrap().to_owned()
}

/// Everything that comes up to `sys:caught_up`, that included.
async fn replay(socket: &mut Socket) -> Vec<Json> {
    let mut frames = Vec::new();
    loop {
        let frame = socket.next().await;
        let over = frame["type"] == "sys:caught_up";
        frames.push(frame);
        if over {
            return frames;
        }
    }
}

/// The position of a cursor, which is nobody's business but a test's.
fn offset(cursor: &str) -> u64 {
    let place = cursor.split_once(':').unwrap().1;
    place.split('-').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_returning_socket_gets_what_it_missed_and_then_fresh_pages() {
    let server = Server::configured(&format!("{TOPICS}{BEAT_TOPIC}"), &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    let since = cursor(&seen[0]);
    let missed = follower
        .after(&[
            "INSERT INTO t VALUES (4, 4)",
            "DELETE FROM t WHERE id = 2",
            "UPDATE t SET n = 9",
        ])
        .await;
    let mut socket = server.socket(&format!("since={since}")).await;
    let frames = replay(&mut socket).await;
    let replayed: Vec<Json> = frames
        .iter()
        .filter(|frame| frame["type"] == "t")
        .cloned()
        .collect();
    assert_eq!(replayed, missed, "the same frames, byte by byte");
    assert!(frames.iter().all(|frame| frame["type"] != "page"));
    let page = socket.next().await;
    assert_eq!(
        (&page["type"], &page["op"]),
        (&json!("page"), &json!("replace"))
    );
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    assert_eq!(page["rid"], Json::Null);
    // From its own last cursor it gets nothing again.
    let since = cursor(&page);
    let mut socket = server.socket(&format!("since={since}&types=t")).await;
    assert_eq!(socket.next().await["type"], "sys:caught_up");
    follower.after(&["UPDATE t SET n = 10 WHERE id = 1"]).await;
    assert_eq!(socket.next().await["data"]["n"], 10);
}

#[tokio::test]
async fn what_was_written_while_rowcast_was_down_is_caught_up_after_a_restart() {
    let mut server = Server::configured(
        &(topics(&[("t", "")]) + "[server]\nring_max_bytes = 65536\n"),
        &format!("{BEAT}{PEOPLE}"),
    );
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    let since = cursor(&seen[0]);
    // More than the ring holds, so that it comes from the bus.
    let fill = "WITH RECURSIVE k(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM k WHERE i < 3009)
        INSERT INTO t SELECT i, i FROM k";
    let missed = follower.after(&[fill]).await;
    assert_eq!(missed.len(), 3000);
    for ended in ["TERM", "KILL"] {
        server.signal(ended);
        server.ended();
        follower.writer.run(&[
            "UPDATE t SET n = n + 1 WHERE id = 2",
            "BEGIN",
            "DELETE FROM t WHERE id = 3",
            "INSERT INTO t VALUES (3, 33)",
            "COMMIT",
        ]);
        server.restart();
        let mut socket = server.socket(&format!("since={since}&types=t")).await;
        let frames = replay(&mut socket).await;
        assert_eq!(&frames[..3000], &missed);
        let down = brief(&frames[3000..frames.len() - 1]);
        let round = if ended == "TERM" { 1 } else { 2 };
        assert_eq!(down.len(), 2 * round, "{down:?}");
        assert_eq!(down[down.len() - 2], "update 2");
        assert!(down[down.len() - 1].ends_with(" 3"));
        let offsets: Vec<u64> = frames.iter().map(|frame| offset(&cursor(frame))).collect();
        assert!(offsets.is_sorted());
    }
}

/// Opens with a cursor and expects one reset, and after it the life as usual.
async fn resets(server: &Server, since: &str, reason: &str) {
    let mut socket = server.socket(&format!("since={since}&types=t")).await;
    let reset = socket.next().await;
    assert_eq!(reset["type"], "sys:reset", "{reset}");
    assert_eq!(reset["reason"], reason);
    assert!(reset["after_ms"][1].as_u64().unwrap() >= 1);
    // From the cursor of the reset there is nothing to reset.
    let mut again = server
        .socket(&format!("since={}&types=t", cursor(&reset)))
        .await;
    assert_eq!(again.next().await["type"], "sys:caught_up");
    let n = rand();
    sqlite3(
        &server.database(),
        &format!("UPDATE t SET n = {n} WHERE id = 1"),
    );
    for socket in [&mut socket, &mut again] {
        let event = socket.next().await;
        assert_eq!(event["data"]["n"], n, "{event}");
    }
}

fn rand() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test]
async fn a_foreign_or_future_cursor_is_answered_by_one_reset() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    let since = cursor(&seen[0]);
    let epoch = since.split_once(':').unwrap().0;
    resets(&server, "k3:41", "epoch").await;
    resets(&server, "zzzz:0", "epoch").await;
    resets(&server, &format!("{epoch}:99999999"), "ahead").await;
}

#[tokio::test]
async fn a_cursor_older_than_what_is_kept_is_told_so() {
    let config = topics(&[("t", "")])
        + "[server]\nring_max_bytes = 65536\n[bus]\nmax_bytes = 1048576\nkeep_ms = 1000\n";
    let mut server = Server::configured(&config, &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    let since = cursor(&seen[0]);
    // The bus forgets a step after every second in which something was published.
    let fill = "WITH RECURSIVE k(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM k WHERE i < 1009)
        INSERT OR REPLACE INTO t SELECT i, i FROM k";
    follower.after(&[fill]).await;
    let bus = server.folder().join("rowcast.db-bus");
    let mut writer = Python::on(&server.database());
    wait_for("the bus to forget", || {
        writer.run(&["UPDATE beat SET n = n + 1000"]);
        let first = sqlite3(
            &bus,
            "PRAGMA busy_timeout = 5000; SELECT min(offset) FROM event",
        );
        let first: u64 = first.lines().last()?.trim().parse().ok()?;
        (first > offset(&since) + 1).then_some(())
    });
    // Until the ring has moved on as well: a restart begins with what the bus holds.
    server.kill();
    server.restart();
    resets(&server, &since, "trimmed").await;
}

/// Ends the gateway, so that its files can be exchanged.
fn stop(server: &mut Server) {
    server.signal("TERM");
    server.ended();
}

/// Copies the database with all that has been written, as a backup does.
fn copy(server: &Server, name: &str) -> std::path::PathBuf {
    let path = server.folder().join(name);
    let _ = fs::remove_file(&path);
    sqlite3(
        &server.database(),
        &format!("VACUUM INTO '{}'", path.display()),
    );
    path
}

/// Puts another file into the database's place.
fn put(server: &Server, path: &std::path::Path) {
    for name in ["-wal", "-shm"] {
        let _ = fs::remove_file(server.folder().join(format!("rowcast.db{name}")));
    }
    fs::rename(path, server.database()).unwrap();
}

#[tokio::test]
async fn a_database_restored_while_rowcast_is_down_begins_a_new_epoch() {
    let update = |n: u32, id: u32| format!("UPDATE t SET n = {n} WHERE id = {id}");
    // What is written to the restored copy: nothing, fewer, as many, the same rows in the same
    // order but for the values, and more.
    let histories: [&[(u32, u32)]; 5] = [
        &[],
        &[(50, 1)],
        &[(50, 1), (51, 2), (52, 1)],
        &[(60, 1), (61, 1), (62, 2)],
        &[(50, 2), (51, 2), (52, 2), (53, 2), (54, 2)],
    ];
    for history in histories {
        let mut server = serve(PEOPLE, "");
        let mut follower = Follower::of(&server, "t", &["id"]).await;
        follower.after(&[&update(1, 1)]).await;
        let backup = copy(&server, "backup.db");
        let mut since = String::new();
        for (n, id) in [(2, 1), (3, 1), (4, 2)] {
            follower.writer.run(&[&update(n, id)]);
            let event = follower
                .socket
                .next_where("the row", |frame| frame["data"]["n"] == n)
                .await;
            since = cursor(&event);
        }
        drop(follower);
        stop(&mut server);
        put(&server, &backup);
        for (n, id) in history {
            sqlite3(&server.database(), &update(*n, *id));
        }
        server.restart();
        resets(&server, &since, "epoch").await;
    }
}

#[tokio::test]
async fn a_database_replaced_while_rowcast_runs_is_noticed_and_told() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    let other = server.folder().join("other.db");
    sqlite3(&other, &format!("{BEAT}{PEOPLE} UPDATE t SET n = 777"));
    fs::rename(&other, server.folder().join("next.db")).unwrap();
    drop(follower.writer);
    put(&server, &server.folder().join("next.db"));
    let reset = follower
        .socket
        .next_where("a reset", |frame| frame["type"] == "sys:reset")
        .await;
    assert_eq!(reset["reason"], "epoch");
    let answer = follower
        .socket
        .ask(json!({"type": "t", "rid": 1, "id": 1}))
        .await;
    assert_eq!(answer["data"][0]["n"], 777, "{answer}");
    assert_eq!(answer["exact"], Json::Null);
    sqlite3(&server.database(), "UPDATE t SET n = 778 WHERE id = 2");
    let event = follower
        .socket
        .next_where("the row", |frame| frame["type"] == "t")
        .await;
    assert_eq!(
        event["data"]["n"], 778,
        "one reset, and nothing before this"
    );
    resets(&server, &cursor(&seen[0]), "epoch").await;
}

#[tokio::test]
async fn a_database_restored_in_place_while_rowcast_runs_is_noticed_and_told() {
    let server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    let backup = copy(&server, "backup.db");
    follower.after(&["UPDATE t SET n = 2 WHERE id = 1"]).await;
    sqlite3(
        &server.database(),
        &format!(".restore {}", backup.display()),
    );
    let reset = follower
        .socket
        .next_where("a reset", |frame| frame["type"] == "sys:reset")
        .await;
    assert_eq!(reset["reason"], "epoch");
    follower.ask_all().await;
    follower.agrees_with(&server.database());
    follower.after(&["UPDATE t SET n = 5 WHERE id = 3"]).await;
    follower.agrees_with(&server.database());
}

#[tokio::test]
async fn a_lost_bus_file_begins_a_new_epoch() {
    let mut server = serve(PEOPLE, "");
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    let seen = follower.after(&["UPDATE t SET n = 1 WHERE id = 1"]).await;
    stop(&mut server);
    for name in ["", "-wal", "-shm", "-lock"] {
        let _ = fs::remove_file(server.folder().join(format!("rowcast.db-bus{name}")));
    }
    follower.writer.run(&["UPDATE t SET n = 2 WHERE id = 1"]);
    server.restart();
    resets(&server, &cursor(&seen[0]), "epoch").await;
}

#[tokio::test]
async fn a_gateway_that_stood_still_goes_on_where_it_was() {
    let config =
        topics(&[("t", "")]) + "[server]\nping_interval_ms = 1000\npong_timeout_ms = 1000\n";
    let server = Server::configured(&config, &format!("{BEAT}{PEOPLE}"));
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    for round in 0..3 {
        server.signal("STOP");
        for n in 0..20 {
            follower.writer.run(&[&format!(
                "UPDATE t SET n = {} WHERE id = 1",
                round * 100 + n
            )]);
        }
        follower.writer.run(&["INSERT INTO t (n) VALUES (7)"]);
        // Long enough that a pong would be overdue.
        assert!(
            follower
                .socket
                .silent_for(Duration::from_millis(1500))
                .await
        );
        server.signal("CONT");
        let events = follower.sync().await;
        assert_eq!(
            brief(&events),
            ["update 1".to_owned(), format!("insert {}", 4 + round)]
        );
        follower.agrees_with(&server.database());
    }
}

#[tokio::test]
async fn a_reader_that_falls_out_of_the_ring_is_caught_up_from_the_bus() {
    let config = topics(&[("t", "")]) + "[server]\nring_max_bytes = 65536\n";
    let sql = format!("{BEAT}CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, text TEXT);");
    let server = Server::configured(&config, &sql);
    let mut slow = server.socket("types=t").await;
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    // 20 MB: neither the ring nor the kernel's buffers hold that for a socket that does not read.
    let rows = 5000;
    let events = {
        let fill = format!(
            "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < {rows})
             INSERT INTO t SELECT i, i, hex(zeroblob(2000)) FROM k"
        );
        follower.after(&[&fill]).await
    };
    assert_eq!(events.len(), rows);
    follower
        .after(&["UPDATE t SET text = '' WHERE id = 1"])
        .await;
    for (n, event) in (1..).zip(&events) {
        let frame = slow.next().await;
        assert_eq!(&frame, event, "{n}");
    }
    let last = slow.next().await;
    assert_eq!(brief(&[last]), ["update 1"]);
}

#[tokio::test]
async fn the_demo_survives_an_exchange_of_its_database() {
    let server = Server::with(Options::default());
    let mut socket = server.socket("types=patient").await;
    let other = server.folder().join("other.db");
    let copied = Command::new("sqlite3")
        .arg(server.database())
        .arg(format!("VACUUM INTO '{}'", other.display()))
        .status();
    assert!(copied.unwrap().success());
    put(&server, &other);
    let (status, _) = server
        .post("/chat/update/info/", json!({"name": "新来的"}))
        .await;
    assert_eq!(status, 200);
    let event = socket
        .next_where("the row", |frame| frame["data"]["name"] == "新来的")
        .await;
    assert_eq!(event["op"], "insert");
}
