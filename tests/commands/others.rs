//! `query`, `check`, `init` and `remove`.

use serde_json::{Value as Json, json};

use super::failed;
use crate::{
    support::{Folder, Python, Server, python, sqlite3},
    wire::{CARE, CARE_TABLES, care, ids, members},
};

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
    assert_eq!(ran.code, 64);
    for word in [
        "FAILED  topics:",
        "did you mean \"patients\"?",
        "rowcast init",
    ] {
        assert!(ran.stdout.contains(word), "{word}: {ran:?}");
    }
}

#[test]
fn check_sees_that_the_folder_admits_no_wal_and_no_bus() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let folder = Folder::with(CARE, CARE_TABLES);
    // Where nobody else may look into the build's folder, the program must come along.
    std::fs::copy(crate::support::server::BINARY, folder.path("rowcast")).unwrap();
    let readable = std::fs::Permissions::from_mode(0o555);
    std::fs::set_permissions(folder.path("."), readable).unwrap();
    let mut check = std::process::Command::new(folder.path("rowcast"));
    check.arg("check").current_dir(folder.path("."));
    // Root may write anywhere.
    if std::fs::write(folder.path("probe"), "").is_ok() {
        check.uid(65534).gid(65534);
    }
    // The copy may for a moment still be open in a process that another test is about to start.
    let ran = loop {
        match check.output() {
            Err(err) if err.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
            ran => break ran.unwrap(),
        }
    };
    let said = String::from_utf8_lossy(&ran.stdout);
    let writable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path("."), writable).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(
        said.contains("FAILED  database:") && said.contains("may write it and its folder"),
        "{said}"
    );
}

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
