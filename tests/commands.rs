//! Every command: what it prints, and the code it ends with.

use std::process::Command;

use serde_json::{Value as Json, json};

use crate::{
    support::{Folder, Python, Ran, Server, python, sqlite3},
    wire::{CARE, CARE_TABLES, care, ids, members},
};

/// Asserts that a command failed as it should: with this code, these words, and nothing that only
/// a programmer could read.
#[track_caller]
fn failed(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word} is not in: {ran:?}");
    }
    let lower = ran.stderr.to_lowercase();
    for word in ["backtrace", "panicked", "src/"] {
        assert!(!lower.contains(word), "{ran:?}");
    }
}

fn serve(folder: &Folder) -> Ran {
    folder.run(&["serve", "--listen", "127.0.0.1:0"])
}

// === serve ===

#[test]
fn help_and_version_are_for_people_and_end_with_0() {
    let folder = Folder::new();
    let help = folder.run(&["--help"]);
    assert_eq!((help.code, &*help.stderr), (0, ""));
    for word in [
        "serve",
        "query",
        "check",
        "init",
        "remove",
        "--listen",
        "--config",
        "--database",
        "Examples",
        "64",
    ] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    assert!(
        help.stdout.lines().all(|line| line.chars().count() <= 100),
        "{}",
        help.stdout
    );
    for command in ["serve", "query", "check", "init", "remove"] {
        let help = folder.run(&[command, "--help"]);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("Usage: rowcast"), "{}", help.stdout);
    }
    let version = folder.run(&["--version"]);
    assert_eq!(
        version.stdout.trim(),
        concat!("rowcast ", env!("CARGO_PKG_VERSION"))
    );
    assert!(
        std::fs::read_dir(folder.path("."))
            .unwrap()
            .next()
            .is_none(),
        "nothing was made"
    );
}

#[test]
fn wrong_usage_ends_with_64_and_names_the_nearest() {
    let folder = Folder::new();
    failed(&folder.run(&["sevre"]), 64, &["sevre", "serve"]);
    failed(&folder.run(&["--lisen", "x"]), 64, &["--listen"]);
    failed(
        &folder.run(&["check", "--listen", "127.0.0.1:0"]),
        64,
        &["--listen"],
    );
    failed(
        &folder.run(&["serve", "--listen", "nowhere"]),
        64,
        &["--listen", "server.listen"],
    );
    failed(
        &folder.run(&["serve", "--database", "mysql://u:secret@h/db"]),
        64,
        &["--database", "database.url", "sqlite:"],
    );
}

#[test]
fn a_bad_configuration_ends_with_64_and_names_file_key_allowed_and_nearest() {
    for (config, words) in [
        (
            "[servr]\n",
            &["rowcast.toml", "servr", "did you mean \"server\"?"][..],
        ),
        (
            "[server]\nlisten_on = \"x\"\n",
            &["server.listen_on", "allowed:", "did you mean \"listen\"?"],
        ),
        (
            "[server]\nmax_connections = \"many\"\n",
            &["server.max_connections", "a whole number"],
        ),
        (
            "[server]\nmax_connections = 0\n",
            &["server.max_connections", "1 to 10000000"],
        ),
        (
            "[server]\nlanguage = \"zhh\"\n",
            &["server.language", "did you mean \"zh\"?", "en"],
        ),
        (
            "[server]\nallowed_origins = [\"care.example\"]\n",
            &["server.allowed_origins", "scheme://host"],
        ),
        (
            "[log]\nlevel = \"inof\"\n",
            &["log.level", "did you mean \"info\"?"],
        ),
        ("[bus]\nurl = \"nats://h\"\n", &["bus.url", "embedded:"]),
        (
            "[[topics]]\ntype = \"a\"\npush = \"pages\"\n",
            &["topics[0].push", "did you mean \"page\"?", "row"],
        ),
        (
            "[[topics]]\ntable = \"a\"\n",
            &["topics[0]", "\"type\" is missing"],
        ),
        (
            "[[topics]]\ntype = \"a\"\nordre_by = []\n",
            &["topics[0].ordre_by", "did you mean \"order_by\"?"],
        ),
        ("x = [\n", &["rowcast.toml:1:"]),
    ] {
        let folder = Folder::with(config, CARE_TABLES);
        for command in ["serve", "check", "query", "remove"] {
            let args: &[&str] = if command == "query" {
                &["query", "patient"]
            } else {
                &[command]
            };
            failed(&folder.run(args), 64, words);
        }
    }
    let folder = Folder::new();
    failed(
        &folder.run(&["--config", "none.toml"]),
        64,
        &["none.toml", "cannot be read"],
    );
    let ran = folder.run_with(&["serve"], &[("ROWCAST__SERVER__MAX_CONECTIONS", "5")]);
    failed(
        &ran,
        64,
        &["ROWCAST__SERVER__MAX_CONECTIONS", "max_connections"],
    );
}

#[test]
fn a_topic_that_does_not_fit_the_database_ends_with_64_and_names_the_nearest() {
    for (topic, words) in [
        (
            "table = \"patiens\"",
            &["topics[0].table", "patiens", "did you mean \"patient\"?"][..],
        ),
        ("table = \"xyz\"", &["topics[0].table", "patient, stay"]),
        (
            "table = \"patient\"\ncolumns = [\"id\", \"nam\"]",
            &["topics[0].columns", "did you mean \"name\"?"],
        ),
        (
            "table = \"patient\"\ncolumns = [\"name\"]",
            &["topics[0].key", "\"id\" must be among"],
        ),
        (
            "table = \"patient\"\norder_by = [\"agee\"]",
            &["topics[0].order_by", "did you mean \"age\"?"],
        ),
        (
            "table = \"patient\"\nkey = [\"name\"]",
            &["topics[0].key", "UNIQUE"],
        ),
        (
            "table = \"patient\"\npage_size = 0",
            &["topics[0].page_size"],
        ),
        ("push = \"page\"", &["topics[0].push", "table"]),
        (
            "table = \"patient\"\n[[topics]]\ntype = \"t\"",
            &["type", "declared twice"],
        ),
    ] {
        let folder = Folder::with(&format!("[[topics]]\ntype = \"t\"\n{topic}\n"), CARE_TABLES);
        failed(&serve(&folder), 64, &[words, &["rowcast.toml"]].concat());
    }
    let folder = Folder::with("[[topics]]\ntype = \"a b\"\n", CARE_TABLES);
    failed(&serve(&folder), 64, &["topics[0].type", "A-Z a-z 0-9 _ -"]);
}

#[test]
fn a_condition_outside_the_subset_ends_with_64_and_says_where() {
    for (condition, place) in [
        ("age > 80 AND lower(name) = 'x'", "1:14"),
        ("name LIKE 'a%'", "1:6"),
        ("ag = 1", "1:1"),
        ("age = (SELECT 1)", "1:8"),
        ("age > 80 extra", "1:10"),
        ("age >", "1:6"),
    ] {
        let config =
            format!("[[topics]]\ntype = \"t\"\ntable = \"patient\"\nwhere = \"{condition}\"\n");
        let folder = Folder::with(&config, CARE_TABLES);
        failed(
            &serve(&folder),
            64,
            &["rowcast.toml", "topics[0].where", place],
        );
    }
}

#[test]
fn a_taken_port_is_named_together_with_listen() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = Folder::with(CARE, CARE_TABLES);
    failed(
        &folder.run(&["--listen", &address]),
        1,
        &[&address, "--listen"],
    );
    let fresh = Folder::new();
    failed(
        &fresh.run(&["--listen", &address]),
        1,
        &[&address, "--listen"],
    );
    assert!(!fresh.path("rowcast.db").exists(), "nothing was made");
}

#[test]
fn a_listener_that_others_reach_needs_a_written_word() {
    let folder = Folder::with(CARE, CARE_TABLES);
    for address in ["0.0.0.0:0", "[::]:0"] {
        failed(
            &folder.run(&["--listen", address]),
            64,
            &["--listen", "auth.anonymous = true"],
        );
    }
    let server = Server::with(crate::support::Options {
        listen: Some("0.0.0.0:0".into()),
        env: vec![("ROWCAST__AUTH__ANONYMOUS".into(), "true".into())],
        ..Default::default()
    });
    assert!(server.address().starts_with("0.0.0.0:"));
}

#[test]
fn a_database_that_is_missing_or_none_is_told_plainly() {
    let folder = Folder::new();
    folder.write("rowcast.toml", CARE);
    failed(&serve(&folder), 1, &["rowcast.db"]);
    folder.write("rowcast.db", &"this is no database. ".repeat(100));
    failed(&serve(&folder), 1, &["rowcast.db"]);
}

#[tokio::test]
async fn a_second_server_on_one_database_is_refused_and_the_first_goes_on() {
    let server = care();
    let ran =
        crate::support::command::run(server.folder(), &["serve", "--listen", "127.0.0.1:0"], &[]);
    failed(&ran, 1, &["rowcast.db"]);
    let mut socket = server.socket("").await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    assert_eq!(socket.next_of("patient").await["op"], "update");
}

#[tokio::test]
async fn the_first_run_makes_the_demo_and_says_what_to_do() {
    let folder = Folder::new();
    let mut child = Command::new(crate::support::server::BINARY)
        .current_dir(folder.path("."))
        .args(["--listen", "127.0.0.1:0"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::BufRead;
    let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let lines: Vec<String> = lines.take(3).map(Result::unwrap).collect();
    let address = lines[0]
        .strip_prefix("listening on http://127.0.0.1:")
        .expect(&lines[0]);
    assert!(
        lines[1].contains(&format!("http://127.0.0.1:{address}/")),
        "{lines:?}"
    );
    assert!(
        lines[2].contains("rowcast.db") && lines[2].contains("update patient set"),
        "{lines:?}"
    );
    // What it says to type does what it says.
    let mut socket =
        crate::support::Socket::open(&format!("ws://127.0.0.1:{address}/socket/all/")).await;
    let typed = Command::new("sh")
        .current_dir(folder.path("."))
        .args(["-c", lines[2].trim()])
        .status();
    assert!(typed.unwrap().success(), "{}", lines[2]);
    assert_eq!(socket.next_of("patient").await["op"], "update");
    child.kill().unwrap();
    child.wait().unwrap();
}

// === query ===

#[tokio::test]
async fn query_prints_one_frame_and_nothing_else() {
    let folder = Folder::with(CARE, CARE_TABLES);
    let frame = |args: &[&str]| {
        let ran = folder.run(&[&["query"], args].concat());
        assert_eq!(ran.stdout.matches('\n').count(), 1, "{ran:?}");
        (ran.code, serde_json::from_str::<Json>(&ran.stdout).unwrap())
    };
    let (code, reply) = frame(&["patient"]);
    assert_eq!(
        (code, ids(&reply), &reply["type"]),
        (0, vec![1, 2], &json!("patient"))
    );
    assert_eq!(
        reply["exact"], false,
        "no server has ever run on this database"
    );
    assert_eq!(ids(&frame(&["patient", "--id", "3"]).1), [3]);
    assert_eq!(
        ids(&frame(&["patient", "--page", "2", "--size", "3"]).1),
        [4]
    );
    assert_eq!(
        ids(&frame(&["patient", "--order", "age desc", "--size", "1"]).1),
        [3]
    );
    assert_eq!(
        ids(&frame(&["patient", "--filter", r#"{"ward":null}"#]).1),
        [4]
    );
    assert_eq!(ids(&frame(&["patient", "--all"]).1), [1, 2, 3, 4]);
    assert_eq!(
        frame(&["stay", "--id", r#"{"day":8,"bed":"3-1"}"#]).1["data"][0]["note"],
        "晚"
    );
    for (args, status) in [
        (&["nobody"][..], 404),
        (&["patient", "--size", "9"], 400),
        (&["notice"], 400),
    ] {
        let (code, frame) = frame(args);
        assert_eq!(
            (code, &frame["type"], &frame["code"]),
            (1, &json!("sys:error"), &json!(status)),
            "{args:?}"
        );
    }
    failed(&folder.run(&["query"]), 64, &["TYPE"]);
    failed(
        &folder.run(&["query", "patient", "--filter", "{"]),
        64,
        &["--filter", "JSON"],
    );
}

#[tokio::test]
async fn query_beside_a_server_gets_the_frame_of_a_browser() {
    let server = care();
    let mut socket = server.socket("").await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 1 WHERE id = 1",
    );
    socket.next_of("patient").await;
    socket.send(json!({ "type": "patient" })).await;
    let reply = socket
        .next_where("a reply", |frame| frame["type"] == "patient")
        .await;
    let ran = crate::support::command::run(server.folder(), &["query", "patient"], &[]);
    assert_eq!(serde_json::from_str::<Json>(&ran.stdout).unwrap(), reply);
}

// === check ===

#[tokio::test]
async fn check_tells_what_is_in_place_and_changes_nothing() {
    let folder = Folder::with(CARE, CARE_TABLES);
    let before = std::fs::read(folder.path("rowcast.db")).unwrap();
    let ran = folder.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for word in [
        "ok      configuration: rowcast.toml",
        "ok      topics: 4",
        "capture:",
        "bus:",
    ] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
    assert!(!ran.stdout.contains("FAILED"), "{ran:?}");
    assert_eq!(std::fs::read(folder.path("rowcast.db")).unwrap(), before);
    assert!(!folder.path("rowcast.db-bus").exists());

    let server = care();
    let ran = crate::support::command::run(server.folder(), &["check"], &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("triggers are in place"), "{ran:?}");
    assert!(ran.stdout.contains("serves this database now"), "{ran:?}");

    let fresh = Folder::new().run(&["check"]);
    assert_eq!(fresh.code, 0, "{fresh:?}");
    assert!(
        fresh.stdout.contains("will be created with the demo"),
        "{fresh:?}"
    );
}

#[test]
fn check_fails_with_the_remedy_beside_what_is_wrong() {
    let missing = Folder::new();
    missing.write("rowcast.toml", CARE);
    let ran = missing.run(&["check"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stdout
            .contains("FAILED  database: there is no rowcast.db")
            && ran.stdout.contains("--database"),
        "{ran:?}"
    );

    let other = Folder::with(CARE, "CREATE TABLE patients (id INTEGER PRIMARY KEY)");
    let ran = other.run(&["check"]);
    assert_eq!(ran.code, 1);
    for word in [
        "FAILED  topics:",
        "did you mean \"patients\"?",
        "rowcast init",
    ] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
}

// === init ===

/// What a Django project's file holds, in short.
const SITE: &str = "
    CREATE TABLE care_patient (id integer NOT NULL PRIMARY KEY AUTOINCREMENT, name varchar(30) NOT NULL, password varchar(9));
    CREATE TABLE care_visit (id integer NOT NULL PRIMARY KEY AUTOINCREMENT,
        patient_id bigint NOT NULL REFERENCES care_patient (id) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE auth_user (id integer NOT NULL PRIMARY KEY AUTOINCREMENT, password varchar(128));
    CREATE TABLE django_session (session_key varchar(40) NOT NULL PRIMARY KEY);
    CREATE TABLE nokey (a, b);
    INSERT INTO care_patient (name, password) VALUES ('王秀英', 'hunter2');";

#[tokio::test]
async fn init_writes_a_configuration_that_serves_a_file_of_anybodys() {
    let folder = Folder::new();
    folder.sql("site.sqlite3", SITE);
    let before = std::fs::read(folder.path("site.sqlite3")).unwrap();
    std::fs::copy(folder.path("site.sqlite3"), folder.path("copy.sqlite3")).unwrap();
    let ran = folder.run(&["init", "--database", "sqlite:copy.sqlite3"]);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
    assert!(ran.stdout.contains("rowcast check"), "{ran:?}");
    assert_eq!(
        std::fs::read(folder.path("copy.sqlite3")).unwrap(),
        before,
        "init only reads"
    );
    let text = std::fs::read_to_string(folder.path("rowcast.toml")).unwrap();
    assert!(!text.contains("hunter2"), "{text}");

    let again = folder.run(&["init", "--database", "sqlite:copy.sqlite3"]);
    failed(&again, 64, &["rowcast.toml", "--force"]);
    assert_eq!(
        folder
            .run(&["init", "--force", "--database", "sqlite:copy.sqlite3"])
            .code,
        0
    );
    let check = folder.run(&["check"]);
    assert_eq!(check.code, 0, "{check:?}");

    let config = std::fs::read_to_string(folder.path("rowcast.toml")).unwrap();
    let server = Server::configured(&config.replace("copy.sqlite3", "rowcast.db"), SITE);
    let (_, topics) = server.get("/api/topics").await;
    let names: Vec<_> = topics["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|topic| topic["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["care_patient", "care_visit"],
        "what looks private is left out"
    );
    let mut socket = server.socket("").await;
    python(
        &server.database(),
        "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(\"UPDATE care_patient SET name = '李建国'\")
db.commit()",
    );
    let event = socket.next().await;
    assert_eq!(members(&event["data"]), ["id", "name"]);
    assert_eq!(event["data"]["name"], "李建国");
}

#[test]
fn init_without_a_database_says_how_to_name_one() {
    let folder = Folder::new();
    failed(&folder.run(&["init"]), 64, &["rowcast.db", "--database"]);
    assert!(!folder.path("rowcast.toml").exists() && !folder.path("rowcast.db").exists());
    folder.write("notes.txt", &"no database ".repeat(100));
    failed(
        &folder.run(&["init", "--database", "sqlite:notes.txt"]),
        1,
        &["notes.txt"],
    );
}

// === remove ===

#[tokio::test]
async fn remove_takes_everything_off_again() {
    let mut server = care();
    let database = server.database();
    let schema =
        "SELECT count(*) FROM sqlite_master WHERE name LIKE '%rowcast%' OR sql LIKE '%rowcast%'";
    assert_ne!(sqlite3(&database, schema).trim(), "0");
    let run = |server: &Server| crate::support::command::run(server.folder(), &["remove"], &[]);
    failed(&run(&server), 1, &["serves", "stop it first"]);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(0));
    let ran = run(&server);
    assert_eq!((ran.code, &*ran.stderr), (0, ""), "{ran:?}");
    assert!(
        ran.stdout.contains("removed the changelog and ") && ran.stdout.contains("rowcast.db-bus"),
        "{ran:?}"
    );
    assert_eq!(sqlite3(&database, schema).trim(), "0");
    let names =
        "SELECT group_concat(name) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name";
    assert_eq!(sqlite3(&database, names).trim(), "patient,stay");
    let mut writer = Python::on(&database);
    writer.run(&[
        "INSERT INTO patient (name) VALUES ('x')",
        "UPDATE patient SET age = 1",
        "DELETE FROM stay",
        "ALTER TABLE patient DROP COLUMN ward",
    ]);
    let again = run(&server);
    assert_eq!(again.code, 0);
    assert!(again.stdout.contains("nothing of Rowcast"), "{again:?}");
}

#[test]
fn remove_where_there_is_no_database_makes_none() {
    let folder = Folder::new();
    failed(&folder.run(&["remove"]), 1, &["rowcast.db"]);
    assert!(!folder.path("rowcast.db").exists());
}
