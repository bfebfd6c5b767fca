//! SIGKILL, again and again: nothing is lost, nothing comes twice, and the order is kept.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::support::{
    Follower, Server, Socket,
    follower::{BEAT, brief, read, serve, topics},
};

const KILLS: u32 = 200;

/// Numbers every transaction: in the one row of `t`, and in a row of `log` of its own. Ends when
/// it is told to, and says how far it came.
const WRITER: &str = "
import random, select, sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
n = 0
while not select.select([sys.stdin], [], [], random.random() / 200)[0]:
    n += 1
    db.execute('BEGIN IMMEDIATE')
    db.execute('UPDATE t SET n = n + 1 WHERE id = 1')
    db.execute('INSERT INTO log SELECT n, hex(randomblob(20)) FROM t WHERE id = 1')
    db.execute('COMMIT')
print(n)";

/// What the client has seen, and how it goes on.
struct Seen {
    /// The last number of `t`.
    n: u64,
    /// The last row of `log`.
    row: u64,
    cursor: String,
    frames: u64,
}

impl Seen {
    fn take(&mut self, text: &str) {
        let frame: Json = serde_json::from_str(text).unwrap();
        if let Some(cursor) = frame["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
        match frame["type"].as_str() {
            Some("t") => {
                assert_eq!(frame["op"], "update");
                let n = frame["data"]["n"].as_u64().unwrap();
                assert!(n > self.n, "{n} after {}", self.n);
                self.n = n;
            }
            Some("log") => {
                assert_eq!(frame["op"], "insert");
                let row = frame["data"]["id"].as_u64().unwrap();
                assert_eq!(row, self.row + 1, "{row} after {}", self.row);
                self.row = row;
                self.frames += 1;
            }
            Some("sys:caught_up") => {}
            _ => panic!("unexpected: {frame}"),
        }
    }

    /// Reads until `until`, or until the socket breaks.
    async fn read(&mut self, socket: &mut Socket, until: Instant) {
        loop {
            match tokio::time::timeout_at(until.into(), socket.next_or_close()).await {
                Ok(Ok(text)) => self.take(&text),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

/// A random number below `limit`.
fn random(limit: u64) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
        % limit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_of_the_gateway_lose_nothing_and_repeat_nothing() {
    let sql = format!(
        "{BEAT}CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 0);
         CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT);"
    );
    let config = topics(&[("t", ""), ("log", "")]);
    let mut server = Server::configured(&config, &sql);
    let mut seen = Seen {
        n: 0,
        row: 0,
        cursor: String::new(),
        frames: 0,
    };
    let mut socket = server.socket("types=t,log").await;
    let mut writer = Command::new("python3")
        .args(["-c", WRITER])
        .arg(server.database())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The first frame gives the first cursor.
    seen.take(&socket.next_text().await);
    let start = Instant::now();
    let mut kills = 0;
    while kills < KILLS {
        let life = Duration::from_micros(random(60_000));
        seen.read(&mut socket, Instant::now() + life).await;
        server.kill();
        kills += 1;
        // What had reached the client before it died counts.
        let end = Instant::now() + Duration::from_secs(5);
        seen.read(&mut socket, end).await;
        if random(4) == 0 && kills < KILLS {
            // Also while it starts.
            server.attempt(Duration::from_micros(random(80_000)));
            kills += 1;
        }
        server.restart();
        socket = server
            .socket(&format!("types=t,log&since={}", seen.cursor))
            .await;
    }
    writeln!(writer.stdin.take().unwrap()).unwrap();
    let output = writer.wait_with_output().unwrap();
    assert!(output.status.success(), "no write may fail");
    let written: u64 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    while seen.row < written || seen.n < written {
        seen.take(&socket.next_text().await);
    }
    println!(
        "{kills} kills in {:.1} s; {written} transactions, {} rows seen once each",
        start.elapsed().as_secs_f64(),
        seen.frames
    );
    assert_eq!(seen.frames, written);
    assert!(start.elapsed() < Duration::from_secs(240));
}

/// A transaction over many rows that never ends by itself.
const UNDECIDED: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
db.execute('PRAGMA cache_size = 1')
db.execute('BEGIN IMMEDIATE')
db.execute('UPDATE t SET n = -1')
db.executemany('INSERT INTO t VALUES (?, -1)', [(k,) for k in range(1000, 4000)])
print('written', flush=True)
sys.stdin.read()";

#[tokio::test]
async fn a_writer_killed_within_its_transaction_leaves_no_trace() {
    let server = serve(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 0), (2, 0)",
        "",
    );
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    for round in 1..=10 {
        let mut writer = Command::new("python3")
            .args(["-c", UNDECIDED])
            .arg(server.database())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(writer.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "written");
        writer.kill().unwrap();
        writer.wait().unwrap();
        let events = follower
            .after(&[&format!("UPDATE t SET n = {round} WHERE id = 1")])
            .await;
        assert_eq!(brief(&events), ["update 1"]);
        follower.agrees_with(&server.database());
    }
}

/// Moves a unit from one row to another, as fast as it can.
const TRANSFERS: &str = "
import random, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
while True:
    a, b = random.sample(range(1, 11), 2)
    db.execute('BEGIN IMMEDIATE')
    db.execute('UPDATE t SET n = n - 1 WHERE id = ?', (a,))
    db.execute('UPDATE t SET n = n + 1 WHERE id = ?', (b,))
    db.execute('COMMIT')";

#[tokio::test]
async fn writers_killed_anywhere_leave_whole_transactions_only() {
    let server = serve(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);
         INSERT INTO t VALUES (1,9),(2,9),(3,9),(4,9),(5,9),(6,9),(7,9),(8,9),(9,9),(10,9)",
        "",
    );
    let mut follower = Follower::of(&server, "t", &["id"]).await;
    for _ in 0..15 {
        let mut writer = Command::new("python3")
            .args(["-c", TRANSFERS])
            .arg(server.database())
            .spawn()
            .unwrap();
        // Killed some events after it began.
        let few = 20 + random(60);
        for _ in 0..few {
            let frame = follower.socket.next().await;
            follower.view.apply(&frame);
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        follower.sync().await;
        follower.agrees_with(&server.database());
        let sum: i64 = read(&server.database(), "SELECT sum(n) AS n FROM t")[0]["n"]
            .as_i64()
            .unwrap();
        assert_eq!(sum, 90);
    }
}
