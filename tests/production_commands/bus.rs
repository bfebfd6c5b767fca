//! `rowcast publish` and `rowcast tail`, straight over NATS and through a gateway.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use serde_json::{Value as Json, json};

use crate::support::{DEADLINE, Folder, Server, server::BINARY, wait_for};

use super::{Site, TABLE, TOPIC, nobody, rowcast, says};

/// A `rowcast tail` that runs. Killed when dropped.
pub struct Tail {
    child: Child,
    lines: mpsc::Receiver<String>,
    _folder: Folder,
}

impl Tail {
    /// Runs it with a configuration.
    pub fn start(config: &str, args: &[&str]) -> Self {
        let folder = Folder::new();
        folder.write("rowcast.toml", config);
        let mut child = Command::new(BINARY)
            .current_dir(folder.path(""))
            .arg("tail")
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::sync_channel(1000);
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            _folder: folder,
        }
    }

    fn next(&self) -> Json {
        let line = self.lines.recv_timeout(DEADLINE).expect("a line");
        serde_json::from_str(&line).unwrap()
    }

    /// The next `data` that was told.
    pub fn data(&self) -> Json {
        self.next()["data"].take()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes, and returns the cursor.
#[track_caller]
fn publish(config: &str, args: &[&str]) -> String {
    let all: Vec<&str> = ["publish"].iter().chain(args).copied().collect();
    let ran = rowcast(config, &all);
    says(&ran, 0, &[]);
    let answer: Json = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer["code"], 202, "{answer}");
    answer["cursor"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_published_to_nats_is_seen_by_tail_and_sockets() {
    let topics = format!("{TOPIC}[[topics]]\ntype = \"note\"\n");
    let site = Site::new(TABLE);
    let config = site.config(&topics);
    let _producer = site.producer(&topics).await;
    let gateway = site.gateway(&topics);
    let mut socket = gateway.socket("types=note").await;
    let first = publish(&config, &["note", "{\"n\":1}"]);
    let seen = socket.next().await;
    assert_eq!(
        (&seen["op"], &seen["data"]),
        (&json!("event"), &json!({"n": 1}))
    );
    assert_eq!(seen["cursor"], first.as_str());
    // From a cursor on, and only what was asked for.
    let tail = Tail::start(&config, &["note", "--since", &first]);
    site.database.sql("UPDATE t SET n = 1");
    publish(&config, &["note", "2", "--id", "once"]);
    publish(&config, &["note", "2", "--id", "once"]);
    publish(&config, &["note", "3"]);
    for expected in [2, 3] {
        assert_eq!(socket.next().await["data"], expected);
        assert_eq!(tail.data(), expected);
    }
    // All of it, from the head on: whenever that is.
    let head = Tail::start(&config, &[]);
    let mut n = 10;
    let told = wait_for("tail to follow", || {
        n += 1;
        site.database.sql(&format!("UPDATE t SET n = {n}"));
        head.lines
            .recv_timeout(std::time::Duration::from_millis(200))
            .ok()
    });
    let told: Json = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["type"], &told["op"]),
        (&json!("t"), &json!("update"))
    );
    let other = rowcast(&config, &["tail", "--since", "e0000000000000:1"]);
    says(&other, 1, &["begin at the head, without --since"]);
    // What a gateway tells is the same frame.
    let through = Tail::start(
        &config,
        &["note", "--since", &first, "--url", &gateway.url("")],
    );
    let straight = Tail::start(&config, &["note", "--since", &first]);
    for _ in 0..2 {
        assert_eq!(through.next(), straight.next());
    }
}

#[test]
fn what_cannot_be_published_is_refused_with_a_reason() {
    let config = |bus: &str| {
        format!(
            "[bus]\nurl = \"{bus}\"\n{}",
            "[[topics]]\ntype = \"note\"\n"
        )
    };
    let away = config(&nobody("nats://"));
    says(
        &rowcast(&away, &["publish", "note", "{\"n\""]),
        64,
        &["JSON"],
    );
    says(&rowcast(&away, &["tail", "--since", "x"]), 64, &["cursor"]);
    for command in [&["publish", "note", "1"][..], &["tail"]] {
        says(
            &rowcast(&away, command),
            1,
            &["no server can be reached there", "nats-server"],
        );
    }
    let gone = nobody("http://");
    for command in [&["publish", "note", "1"][..], &["tail"]] {
        let ran = rowcast(
            "[[topics]]\ntype = \"note\"\n",
            &[command, &["--url", &gone]].concat(),
        );
        says(&ran, 1, &["no gateway answers at", "start `rowcast`"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_embedded_bus_both_go_through_the_gateway() {
    let config = "[[topics]]\ntype = \"note\"\n";
    let gateway = Server::configured(config, "CREATE TABLE x (id INTEGER PRIMARY KEY)");
    let mut socket = gateway.socket("").await;
    let url = gateway.url("");
    let first = publish(config, &["note", "1", "--url", &url]);
    publish(config, &["note", "2", "--id", "once", "--url", &url]);
    publish(config, &["note", "2", "--id", "once", "--url", &url]);
    publish(config, &["note", "3", "--url", &url]);
    let tail = Tail::start(config, &["note", "--since", &first, "--url", &url]);
    assert_eq!(socket.next().await["data"], 1);
    for expected in [2, 3] {
        assert_eq!(socket.next().await["data"], expected);
        assert_eq!(tail.data(), expected);
    }
    let unknown = ["publish", "nothing", "1", "--url", &url];
    says(&rowcast(config, &unknown), 1, &["refused", "404"]);
}
