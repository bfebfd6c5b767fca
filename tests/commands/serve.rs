//! `rowcast serve`: what starts, and what keeps it from starting.

use std::process::Command;

use super::failed;
use crate::{
    support::{Folder, Ran, Server, sqlite3},
    wire::{CARE, CARE_TABLES, care},
};

fn serve(folder: &Folder) -> Ran {
    folder.run(&["serve", "--listen", "127.0.0.1:0"])
}

#[test]
fn help_and_version_are_for_people_and_end_with_0() {
    let folder = Folder::new();
    let help = folder.run(&["--help"]);
    assert_eq!((help.code, &*help.stderr), (0, ""));
    for word in [
        "serve",
        "produce",
        "publish",
        "tail",
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
    for command in [
        "serve", "produce", "publish", "tail", "query", "check", "init", "remove",
    ] {
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
        ("[bus]\nurl = \"amqp://h\"\n", &["bus.url", "embedded:"]),
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
        (
            "table = \"xyz\"",
            &["topics[0].table", "bed, patient, stay"],
        ),
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
        ("where = \"a = 1\"", &["topics[0].where", "table"]),
        ("order_by = [\"a\"]", &["topics[0].order_by", "table"]),
        (
            "table = \"bed\"\nkey = [\"floor\", \"door\"]",
            &["topics[0].key", "\"door\" may be NULL"],
        ),
        (
            "table = \"overview\"",
            &["topics[0].table", "views cannot be watched"],
        ),
        (
            "table = \"patient\"\n[[topics]]\ntype = \"t\"",
            &["type", "declared twice"],
        ),
    ] {
        let tables = format!(
            "{CARE_TABLES}
             CREATE TABLE bed (id INTEGER PRIMARY KEY, floor NOT NULL, door, UNIQUE (floor, door));
             CREATE VIEW overview AS SELECT * FROM bed;"
        );
        let folder = Folder::with(&format!("[[topics]]\ntype = \"t\"\n{topic}\n"), &tables);
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
fn a_condition_on_texts_in_utf_16_is_refused() {
    let config = "[[topics]]\ntype = \"t\"\ntable = \"t\"\nwhere = \"name > 'a'\"\n";
    let tables = "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)";
    let folder = Folder::with(config, tables);
    let said = ["rowcast.toml", "topics[0].where", "UTF-16"];
    failed(&serve(&folder), 64, &said);
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
