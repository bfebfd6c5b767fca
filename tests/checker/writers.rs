//! Programs that write and know nothing of Rowcast. Each transaction takes the next number; some
//! write many rows, some displace rows or change keys, some are rolled back.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_postgres::{Client, NoTls};

use super::{random::Random, rows::KEYS};
use crate::support::postgres::Database;

/// How many write at once.
pub const WRITERS: u64 = 4;

/// The tables in SQLite. `seq` holds the last number.
pub const SQLITE: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, slot INTEGER UNIQUE, grp INTEGER, v INTEGER NOT NULL);
     CREATE TABLE u (id INTEGER PRIMARY KEY, slot INTEGER, grp INTEGER, v INTEGER NOT NULL);
     CREATE TABLE log (id INTEGER PRIMARY KEY, grp INTEGER, v INTEGER NOT NULL);
     CREATE TABLE seq (n INTEGER); INSERT INTO seq VALUES (0);";

/// The tables in PostgreSQL. A sequence does not make writers wait for one another, so that
/// numbers do not follow the order of commits there.
pub const POSTGRES: &str =
    "CREATE TABLE t (id int PRIMARY KEY, slot int UNIQUE, grp int, v bigint NOT NULL);
     CREATE TABLE u (id int PRIMARY KEY, slot int, grp int, v bigint NOT NULL);
     ALTER TABLE u REPLICA IDENTITY FULL;
     CREATE TABLE log (id bigint PRIMARY KEY, grp int, v bigint NOT NULL);
     CREATE SEQUENCE numbers;";

/// One writer of a SQLite file. Notes both tables within its transactions, and tells them once
/// they are committed.
const PYTHON: &str = "
import json, random, sqlite3, sys, time
path, number, seed, keys, end = sys.argv[1], *map(int, sys.argv[2:5]), time.time() + float(sys.argv[5])
r = random.Random(seed * 1000 + number)
db = sqlite3.connect(path, isolation_level=None, timeout=60)
if number % 2: db.execute('PRAGMA recursive_triggers = ON')
db.execute('PRAGMA synchronous = ' + r.choice(['OFF', 'NORMAL', 'FULL']))
key = lambda: r.randint(1, keys)
slot = lambda: r.choice([None, r.randint(1, 70)])
grp = lambda: r.choice([None, 0, 1, 2, 3, 4])
def act(v):
    op = r.randint(0, 12)
    if op <= 2: db.execute('UPDATE t SET v = ?, grp = ? WHERE id = ?', (v, grp(), key()))
    elif op == 3:
        a = key(); db.execute('UPDATE t SET v = ? WHERE id BETWEEN ? AND ?', (v, a, a + r.randint(2, 15)))
    elif op <= 5: db.execute('INSERT OR REPLACE INTO t VALUES (?, ?, ?, ?)', (key(), slot(), grp(), v))
    elif op == 6: db.execute('DELETE FROM t WHERE id = ?', (key(),))
    elif op == 7: db.execute('UPDATE OR REPLACE t SET id = ?, v = ? WHERE id = ?', (key(), v, key()))
    elif op == 8: db.execute('UPDATE OR REPLACE t SET slot = ?, v = ? WHERE id = ?', (slot(), v, key()))
    elif op == 9: db.execute('INSERT INTO t VALUES (?, NULL, 0, ?) ON CONFLICT (id) DO UPDATE SET v = excluded.v', (key(), v))
    elif op == 10: db.execute('DELETE FROM u WHERE id % 7 = ?', (r.randint(0, 6),))
    else: db.execute('INSERT OR REPLACE INTO u VALUES (?, ?, ?, ?)', (key() // 2, slot(), grp(), v))
note = lambda table: db.execute('SELECT id, slot, grp, v FROM ' + table).fetchall()
while time.time() < end:
    db.execute('BEGIN IMMEDIATE')
    v = db.execute('UPDATE seq SET n = n + 1 RETURNING n').fetchone()[0]
    db.execute('INSERT INTO log VALUES (?, ?, ?)', (v, number, v))
    for _ in range(r.choice([1, 1, 1, 2, 5, 20])): act(v)
    held = json.dumps({'n': v, 't': note('t'), 'u': note('u')})
    if r.random() < 0.05: db.execute('ROLLBACK')
    else: db.execute('COMMIT'); print(held)
    time.sleep(r.random() * r.choice([0.005, 0.02, 0.05]))";

/// The last transaction of all, after the writers have ended: it writes one row of `t`, and then
/// its number, so that who has seen that has seen all.
const LAST: &str = "BEGIN IMMEDIATE; UPDATE seq SET n = n + 1;
    INSERT INTO t SELECT 1, NULL, 1, n FROM seq WHERE true
        ON CONFLICT (id) DO UPDATE SET v = excluded.v;
    INSERT INTO log SELECT n, 9, n FROM seq; COMMIT";

/// The writers of a SQLite file.
pub struct Processes {
    children: Vec<Child>,
    logs: Vec<PathBuf>,
    database: PathBuf,
}

impl Processes {
    /// Starts them for a time.
    pub fn start(database: &Path, logs: &Path, seed: u64, time: Duration) -> Self {
        let (mut children, mut files) = (Vec::new(), Vec::new());
        for number in 0..WRITERS {
            let log = logs.join(format!("writer-{number}"));
            let child = Command::new("python3")
                .args(["-c", PYTHON])
                .arg(database)
                .args([number, seed % 1_000_000, KEYS as u64].map(|given| given.to_string()))
                .arg(time.as_secs_f64().to_string())
                .stdout(Stdio::from(File::create(&log).unwrap()))
                .spawn()
                .expect("this test needs python3: apt-get install -y python3");
            children.push(child);
            files.push(log);
        }
        Self {
            children,
            logs: files,
            database: database.to_owned(),
        }
    }

    /// Waits until they have ended, and writes the last transaction; returns its number and the
    /// files in which all was noted.
    pub fn finish(mut self) -> (u64, Vec<PathBuf>) {
        for child in &mut self.children {
            assert!(child.wait().unwrap().success(), "a writer failed");
        }
        let conn = rusqlite::Connection::open(&self.database).unwrap();
        conn.busy_timeout(crate::support::DEADLINE).unwrap();
        conn.execute_batch(LAST).unwrap();
        let number = conn.query_row("SELECT n FROM seq", [], |row| row.get::<_, i64>(0));
        let note = |table: &str| {
            let sql = format!("SELECT json_group_array(json_array(id, slot, grp, v)) FROM {table}");
            let text: String = conn.query_row(&sql, [], |row| row.get(0)).unwrap();
            text
        };
        let number = number.unwrap() as u64;
        let line = format!(
            "{{\"n\":{number},\"t\":{},\"u\":{}}}\n",
            note("t"),
            note("u")
        );
        let log = self.logs[0].with_file_name("writer-last");
        std::fs::write(&log, line).unwrap();
        self.logs.push(log);
        (number, self.logs.clone())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The writers of a PostgreSQL.
pub struct Tasks {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    url: String,
}

impl Tasks {
    /// Starts them.
    pub fn start(database: &Database, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = database.url();
        let tasks = (0..WRITERS).map(|number| {
            let (stop, url) = (stop.clone(), url.clone());
            tokio::spawn(async move {
                let client = connect(&url).await;
                let mut random = Random::of(seed, 100 + number);
                while !stop.load(Ordering::Acquire) {
                    transaction(&client, &mut random, number).await;
                    let pace = [5, 20, 50][random.below(3) as usize];
                    pause(random.millis(0, pace)).await;
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            url,
        }
    }

    /// Ends them, and writes the last transaction; returns its number.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.unwrap();
        }
        let client = connect(&self.url).await;
        let number = next_number(&client).await;
        let sql = format!(
            "BEGIN; INSERT INTO t VALUES (1, NULL, 1, {number})
                ON CONFLICT (id) DO UPDATE SET v = excluded.v;
             INSERT INTO log VALUES ({number}, 9, {number}); COMMIT"
        );
        client.batch_execute(&sql).await.unwrap();
        number
    }
}

async fn connect(url: &str) -> Client {
    let (client, driver) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(driver);
    // Writers that lock one another's rows in turn are part of the game, waiting for it is not.
    let quick = "SET deadlock_timeout = '20ms'";
    client.batch_execute(quick).await.unwrap();
    client
}

async fn next_number(client: &Client) -> u64 {
    let row = client.query_one("SELECT nextval('numbers')", &[]).await;
    row.unwrap().get::<_, i64>(0) as u64
}

/// A writer's own pace: nothing waits for it.
pub async fn pause(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

/// One transaction; one that PostgreSQL refuses, such as a deadlock's victim, is rolled back.
async fn transaction(client: &Client, random: &mut Random, number: u64) {
    let v = next_number(client).await;
    let mut statements = vec![format!("INSERT INTO log VALUES ({v}, {number}, {v})")];
    for _ in 0..random.one(&[1, 1, 1, 2, 5, 20]) {
        let at = random.below(statements.len() as u64 + 1) as usize;
        statements.insert(at, statement(random, v));
    }
    let end = if random.chance(5) {
        "ROLLBACK"
    } else {
        "COMMIT"
    };
    if random.chance(70) {
        let all = format!("BEGIN; {}; {end}", statements.join("; "));
        if client.batch_execute(&all).await.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        return;
    }
    // Statement by statement, so that others begin and end meanwhile.
    client.batch_execute("BEGIN").await.unwrap();
    for statement in statements {
        if client.batch_execute(&statement).await.is_err() {
            break;
        }
        if random.chance(20) {
            pause(random.millis(0, 20)).await;
        }
    }
    // The COMMIT of a transaction that has failed is a rollback.
    client.batch_execute(end).await.unwrap();
}

fn statement(random: &mut Random, v: u64) -> String {
    let key = |random: &mut Random| random.between(1, KEYS);
    let null = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    let (id, other) = (key(random), key(random));
    let slot = null(random.chance(50).then(|| random.between(1, 400)));
    let grp = null(random.chance(83).then(|| random.between(0, 4)));
    match random.below(13) {
        0..3 => format!("UPDATE t SET v = {v}, grp = {grp} WHERE id = {id}"),
        3 => {
            let end = id + random.between(2, 15);
            format!("UPDATE t SET v = {v} WHERE id BETWEEN {id} AND {end}")
        }
        4 | 5 => format!(
            "DELETE FROM t WHERE slot = {slot} AND id <> {id};
             INSERT INTO t VALUES ({id}, {slot}, {grp}, {v}) ON CONFLICT (id) DO UPDATE
                SET slot = excluded.slot, grp = excluded.grp, v = excluded.v"
        ),
        6 => format!("DELETE FROM t WHERE id = {id}"),
        7 => format!(
            "DELETE FROM t WHERE id = {other} AND id <> {id};
             UPDATE t SET id = {other}, v = {v} WHERE id = {id}"
        ),
        8 => format!(
            "UPDATE t SET slot = {slot}, v = {v} WHERE id = {id}
                AND NOT EXISTS (SELECT FROM t WHERE slot = {slot})"
        ),
        9 => format!(
            "INSERT INTO t VALUES ({id}, NULL, 0, {v}) ON CONFLICT (id) DO UPDATE SET v = excluded.v"
        ),
        10 if random.chance(10) => "TRUNCATE u".to_owned(),
        10 => format!("DELETE FROM u WHERE id % 7 = {}", id % 7),
        _ => format!(
            "INSERT INTO u VALUES ({}, {slot}, {grp}, {v}) ON CONFLICT (id) DO UPDATE
                SET slot = excluded.slot, grp = excluded.grp, v = excluded.v",
            id / 2
        ),
    }
}
