//! No secret comes out: wherever one can stand there is one that cannot be mistaken, everything is made to
//! work and to fail, and all that was said is searched for it.

mod outputs;

use std::path::PathBuf;

use rowcast::{
    bus::jetstream::JetStreamConfig,
    cli,
    config::{self, Overrides},
    postgres::Address,
    store::postgres::PostgresStoreConfig,
};

use crate::support::{Folder, Ran};

/// What every secret begins with.
pub const CANARY: &str = "kanarie-";

/// Fails where a text has a secret in it.
#[track_caller]
pub fn hides(what: &str, text: &str) {
    let lower = text.to_lowercase();
    let Some(at) = lower.find(CANARY) else {
        return;
    };
    let from = lower.floor_char_boundary(at.saturating_sub(300));
    let to = lower.ceil_char_boundary((at + 100).min(lower.len()));
    panic!("{what} shows a secret: …{}…", &lower[from..to]);
}

#[track_caller]
pub fn hides_all(what: &str, ran: &Ran) {
    hides(what, &ran.stdout);
    hides(what, &ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

/// URLs that are wrong in all the ways in which somebody gets them wrong.
const DATABASES: [&str; 20] = [
    "kanarie-alone",
    "care:kanarie-1@h/db",
    "http://care:kanarie-1@h/db",
    "mysql://care:kanarie-1@h/db",
    "postgre://care:kanarie-1@h/db",
    "postgres:care:kanarie-1@h/db",
    "postgres:/care:kanarie-1@h/db",
    "postgres://:kanarie-1@h/db",
    "postgres://care:kanarie-1@h:port/db",
    "postgres://care:kanarie-1@h:0/db",
    "postgres://care:kanarie-1@h:99999/db",
    "postgres://care:kanarie-a/kanarie-b@h/db",
    "postgres://care:kanarie-a@kanarie-b@h:x/db",
    "postgres://care:kanarie-a#kanarie-b@h/db",
    "postgres://care:kanarie-a?kanarie-b@h/db",
    "postgres://care:kanarie-%zz@h/db",
    "postgres://care:kanarie-1@[h/db",
    "postgres://care@h/db?password=kanarie-1&port=x",
    "postgres://care@h/db?sslmode=kanarie-1",
    "postgres://care@h/db?kanarie-1=kanarie-2",
];

const BUSES: [&str; 14] = [
    "kanarie-alone",
    "embedded:kanarie-1",
    "kafka://care:kanarie-1@h",
    "http://care:kanarie-1@h",
    "nats:care:kanarie-1@h",
    "nats:/care:kanarie-1@h",
    "nats://care:kanarie-1@",
    "nats://care:kanarie-1@h/x",
    "nats://care:kanarie-1@h?x",
    "nats://care:kanarie-a,kanarie-b@h",
    "nats://care:kanarie-1@h,other",
    "nats://kanarie-token@h x",
    "tls://care:kanarie-1@h:4222/",
    "nats://care:kanarie-1@h:port",
];

#[test]
fn a_configuration_that_is_refused_is_not_repeated() {
    let folder = Folder::new();
    folder.sql("rowcast.db", "CREATE TABLE t (id INTEGER PRIMARY KEY)");
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let ran = folder.run_with(args, env);
        hides_all(&format!("{args:?} {env:?}"), &ran);
        ran
    };
    // `check` takes any command's configuration, and where that is right says why nobody answers.
    let bad: [(&str, &str, &[&str]); 2] =
        [("database", "DATABASE", &DATABASES), ("bus", "BUS", &BUSES)];
    for (section, variable, urls) in bad {
        for url in urls {
            folder.write("rowcast.toml", "");
            let flag = format!("--{section}");
            let flagged = run(&["check", &flag, *url], &[]);
            let name = format!("ROWCAST__{variable}__URL");
            let set = run(&["check"], &[(name.as_str(), *url)]);
            folder.write("rowcast.toml", &format!("[{section}]\nurl = \"{url}\"\n"));
            let written = run(&["check"], &[]);
            let codes = [flagged.code, set.code, written.code];
            // The last of the servers is one that could be: its port is the client's to refuse.
            assert!(
                codes.iter().all(|code| [1, 64].contains(code)),
                "{url}: {codes:?}"
            );
        }
    }
    for text in [
        "[database]\nurl = \"postgres://care:kanarie-1@h/db\n",
        "[database]\nurl = postgres://care:kanarie-1@h/db\n",
        "[database]\nurl = [\"kanarie-1\"]\n",
        "[database]\npassword = \"kanarie-1\"\n",
        "[bus]\npasword = \"kanarie-1\"\nurl = \"embedded:\"\n",
        "[bus]\nurl = \"nats://a:kanarie-1@h\"\nurl = \"nats://a:kanarie-2@h\"\n",
        "[bus]\nmonitor = \"http://care:kanarie-1@h:8222\"\n",
        "[bus]\nmonitor = \"http://h:8222/?token=kanarie-1\"\n",
        "[bus]\nprefix = \"kanarie-1 2\"\n",
        "[server]\nallowed_origins = [\"https://care:kanarie-1@h\"]\n",
        "[server]\nlisten = \"kanarie-1\"\n",
        "[server]\nlanguage = \"kanarie-longer-than-a-word\"\n",
        "[server]\nqueries_running = \"kanarie-1\"\n",
        "[log]\nlevel = \"kanarie-longer-than-a-word\"\n",
        "[log]\nlevel = \"info,x=postgres://care:kanarie-1@h\"\n",
        "[log]\nformat = \"postgres://care:kanarie-1@h\"\n",
        "[auth]\nanonymous = \"kanarie-1\"\n",
        "kanarie-1",
        "database = \"kanarie-1\"\n",
        "[[topics]]\ntype = \"t\"\npush = \"kanarie-longer-than-a-word\"\n",
    ] {
        folder.write("rowcast.toml", text);
        let ran = run(&["check"], &[]);
        assert_eq!(ran.code, 64, "{text}: {ran:?}");
    }
}

#[test]
fn a_command_line_that_is_refused_is_repeated_without_its_secrets() {
    let folder = Folder::new();
    let nobody = format!(
        "http://care:kanarie-1@127.0.0.1:{}",
        crate::support::nats::free_port()
    );
    let with_token = format!("{nobody}/?token=kanarie-2");
    let cases: [&[&str]; 16] = [
        &["postgres://care:kanarie-1@h/db"],
        &["--databse", "postgres://care:kanarie-1@h/db"],
        &["--databse=postgres://care:kanarie-1@h/db"],
        &["check", "nats://care:kanarie-1@h"],
        &["--database"],
        &["--database", "postgres://care:kanarie-1@h/db", "--nonsense"],
        &["publish", "note", "{\"password\":\"kanarie-1\""],
        &["publish", "note", "kanarie-1"],
        &["publish", "note", "{\"p\":\"kanarie-1\"}", "--url", &nobody],
        &[
            "publish",
            "note",
            "{\"p\":\"kanarie-1\"}",
            "--url",
            &with_token,
        ],
        &["tail", "--url", &nobody],
        &["tail", "--url", &with_token],
        &["tail", "--since", "postgres://care:kanarie-1@h/db"],
        &["query", "t", "--filter", "{\"ssn\":\"kanarie-1\""],
        &["query", "t", "--params", "kanarie-1"],
        &["types", "--lang", "postgres://care:kanarie-1@h/db"],
    ];
    for args in cases {
        let ran = folder.run(args);
        assert!([1, 64].contains(&ran.code), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
        hides_all(&format!("{args:?}"), &ran);
    }
}

#[test]
fn what_is_shown_for_programmers_has_no_secret_either() {
    let database = "postgres://care:kanarie-1@h/db";
    let bus = "nats://care:kanarie-2@h,nats://kanarie-token@h";
    let folder = Folder::new();
    let text = format!("[database]\nurl = \"{database}\"\n[bus]\nurl = \"{bus}\"\n");
    folder.write("rowcast.toml", &text);
    let file = folder.path("rowcast.toml");
    let flags = Overrides {
        database: Some(database.into()),
        bus: Some(bus.into()),
        ..Overrides::default()
    };
    let loaded = config::load(Some(&file), &flags).unwrap();
    let address = Address::parse(database).unwrap();
    let line = [
        "rowcast",
        "--database",
        database,
        "--bus",
        bus,
        "publish",
        "t",
        "{\"p\":\"kanarie-3\"}",
    ];
    let url = ["--url", "http://care:kanarie-4@h/?token=kanarie-5"];
    let bus = JetStreamConfig {
        servers: bus.into(),
        credentials: Some(PathBuf::from("/etc/rowcast/bus.creds")),
        ..JetStreamConfig::default()
    };
    let store = PostgresStoreConfig {
        address: address.clone(),
        connections: 1,
        timeout: std::time::Duration::from_secs(1),
    };
    let published = cli::parse(line.iter().chain(&url)).unwrap();
    let tailed = cli::parse(["rowcast", "tail"].iter().chain(&url)).unwrap();
    for shown in [
        format!("{loaded:?}"),
        format!("{flags:?}"),
        format!("{address:?} {address}"),
        format!("{published:?}"),
        format!("{tailed:?}"),
        format!("{:?}", published.overrides()),
        format!("{bus:#?}"),
        format!("{store:?}"),
    ] {
        assert!(shown.len() > 10);
        hides("Debug", &shown);
    }
}
