mod auth;

use std::time::Duration;

use super::{load::load_from, *};
use crate::topic::Push;

const FILE: &str = "rowcast.toml";

fn defaults() -> Config {
    load_from(None, &[], &Overrides::default()).unwrap()
}

fn with_file(text: &str) -> Result<Config, ConfigError> {
    load_from(Some((FILE, text)), &[], &Overrides::default())
}

fn with_variable(name: &str, text: &str) -> Result<Config, ConfigError> {
    load_from(None, &[(name, text)], &Overrides::default())
}

/// What a person reads; never more than three lines.
fn refused(result: Result<Config, ConfigError>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(text.lines().count() <= 3, "{text}");
    text
}

#[test]
fn the_example_says_what_the_documentation_of_the_settings_says() {
    let config = defaults();
    let server = &config.server;
    assert_eq!(server.listen.to_string(), "127.0.0.1:8888");
    assert_eq!(server.allowed_origins, [""; 0]);
    assert_eq!(server.ping_interval, Duration::from_secs(25));
    assert_eq!(server.pong_timeout, Duration::from_secs(10));
    assert_eq!(server.hello_timeout, Duration::from_secs(10));
    assert_eq!(server.tick_interval, Duration::from_secs(5));
    assert_eq!(server.write_timeout, Duration::from_secs(10));
    assert_eq!(server.shutdown_grace, Duration::from_secs(10));
    assert_eq!(server.max_message_bytes, crate::protocol::MAX_MESSAGE_BYTES);
    assert_eq!((server.queries_running, server.queries_queued), (2, 8));
    assert_eq!(server.ring_max_bytes, 64 * 1024 * 1024);
    assert_eq!(server.max_connections, 10_000);
    assert_eq!(server.spare_connections, 2_000);
    assert_eq!(server.max_connections_per_address, 100);
    assert_eq!(server.accepts_per_second, 500);
    assert_eq!((server.max_head_bytes, server.max_headers), (8192, 64));
    assert_eq!(server.max_connections_per_identity, 20);
    assert!(!server.compression);
    assert_eq!(server.head_timeout, Duration::from_secs(10));
    assert_eq!(server.language, Language::Zh);
    let limits = &config.limits;
    let rates = (limits.messages_per_second, limits.messages_burst);
    assert_eq!(rates, (20, 40));
    let rates = (limits.controls_per_second, limits.controls_burst);
    assert_eq!(rates, (10, 20));
    assert_eq!(limits.max_fragments, 64);
    let rates = (limits.requests_per_second, limits.requests_burst);
    assert_eq!(rates, (50, 200));
    let json = crate::protocol::JsonLimits::default();
    assert_eq!(limits.json_depth, json.depth);
    assert_eq!(limits.json_keys, json.keys);
    assert_eq!(limits.json_string_bytes, json.string_bytes);
    assert_eq!(limits.token_bytes, json.token_bytes);
    assert_eq!(limits.topics_per_socket, 128);
    let running = (limits.requests_running, limits.writes_running);
    assert_eq!((running, limits.reads_waiting), ((256, 256), 1024));
    let database = &config.database;
    assert_eq!(database.url.to_string(), "sqlite:rowcast.db");
    assert_eq!(database.poll_interval, Duration::from_millis(25));
    assert_eq!(database.changelog_keep, Duration::from_mins(10));
    assert_eq!(database.changelog_max_rows, 100_000);
    assert_eq!(database.query_timeout, Duration::from_secs(3));
    assert_eq!(database.read_connections, 5);
    assert_eq!(config.bus.keep, Duration::from_hours(24));
    assert_eq!(config.bus.max_bytes, 1024 * 1024 * 1024);
    assert_eq!(config.bus_path(), Path::new("rowcast.db-bus"));
    let auth = &config.auth;
    assert!(!auth.anonymous && !auth.judges() && !auth.token_in_url);
    assert_eq!(auth.leeway, Duration::from_secs(30));
    assert_eq!(auth.keep_revoked, Duration::from_hours(24 * 30));
    assert_eq!(
        (config.log.level.as_str(), config.log.format),
        ("info", LogFormat::Text)
    );
}

#[test]
fn the_demo_has_two_page_topics_and_two_row_topics() {
    let config = defaults();
    assert!(config.topics_are_demo);
    let topics: Vec<_> = config
        .topics
        .iter()
        .map(|t| (t.r#type.as_str(), t.table.as_deref(), t.push()))
        .collect();
    assert_eq!(
        topics,
        [
            ("all_patient_page_data", Some("patient"), Push::Page),
            ("all_active_visit_data", Some("visit"), Push::Page),
            ("patient", Some("patient"), Push::Row),
            ("visit", Some("visit"), Push::Row),
        ]
    );
    assert_eq!(config.topics[0].order_by, ["id"]);
    for visits in [&config.topics[1], &config.topics[3]] {
        assert_eq!(visits.r#where.as_deref(), Some("left_at IS NULL"));
        assert_eq!(visits.order_by, ["arrived_at desc", "id desc"]);
    }
}

#[test]
fn a_copy_of_the_example_changes_nothing() {
    let copy = with_file(include_str!("../../rowcast.example.toml")).unwrap();
    let (topics_are_demo, file) = (copy.topics_are_demo, copy.file.clone());
    assert_eq!(
        (topics_are_demo, file.as_deref()),
        (false, Some(Path::new(FILE)))
    );
    let expected = Config {
        topics_are_demo,
        file,
        written: copy.written.clone(),
        ..defaults()
    };
    assert_eq!(copy, expected);
}

#[test]
fn a_later_layer_wins() {
    let file =
        "[server]\nlisten = \"127.0.0.1:1\"\nqueries_running = 3\n[bus]\nmax_bytes = 2000000";
    let variables = [
        ("ROWCAST__SERVER__LISTEN", "127.0.0.1:2"),
        ("ROWCAST__BUS__MAX_BYTES", "3000000"),
    ];
    let flags = Overrides {
        produce_listen: None,
        listen: Some("localhost:0".into()),
        database: Some("sqlite:care.db".into()),
        bus: None,
    };
    let config = load_from(Some((FILE, file)), &variables, &flags).unwrap();
    assert_eq!(config.server.listen.to_string(), "localhost:0");
    assert_eq!(config.server.queries_running, 3);
    assert_eq!(config.server.queries_queued, 8);
    assert_eq!(config.bus.max_bytes, 3_000_000);
    assert_eq!(config.bus_path(), Path::new("care.db-bus"));
    assert!(config.topics_are_demo);
}

#[test]
fn topics_of_the_users_own_replace_the_demos() {
    let config = with_file("[[topics]]\ntype = \"notice\"").unwrap();
    assert_eq!(config.topics.len(), 1);
    assert_eq!(config.topics[0].page_size, 50);
    assert!(!config.topics_are_demo);
    let none = with_file("topics = []").unwrap();
    assert!(none.topics.is_empty() && !none.topics_are_demo);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_one() {
    let text = refused(with_file(
        "[[topics]]\ntype = \"a\"\n[[topics]]\ntype = \"b\"\npusch = \"row\"",
    ));
    let expected = "rowcast.toml: topics[1].pusch: unknown key\n  did you mean \"push\"? allowed: \
                    type, table, query, watch, key, columns, where, policy, role, columns_by_role, order_by, page_size, max_page_size, max_rows, push";
    assert_eq!(text, expected);
    let text = refused(with_file("[sever]\nlisten = \"x\""));
    assert_eq!(
        text,
        "rowcast.toml: sever: unknown key\n  did you mean \"server\"? \
         allowed: server, limits, database, bus, produce, auth, log, topics"
    );
    let text = refused(with_file("[server]\nLISTEN = \"x\""));
    assert!(
        text.starts_with("rowcast.toml: server.LISTEN: unknown key\n  did you mean \"listen\"?"),
        "{text}"
    );
    let text = refused(with_file("[auth]\nanonymus = true"));
    assert!(
        text.starts_with(
            "rowcast.toml: auth.anonymus: unknown key\n  did you mean \"anonymous\"? allowed: anonymous, key,"
        ),
        "{text}"
    );
    let text = refused(with_file("[log]\nfile = \"x\""));
    assert_eq!(
        text,
        "rowcast.toml: log.file: unknown key\n  allowed: level, format"
    );
}

#[test]
fn an_unknown_variable_is_refused_by_its_name() {
    let text = refused(with_variable("ROWCAST__SERVER__LISTN", "x"));
    assert!(
        text.starts_with(
            "environment variable ROWCAST__SERVER__LISTN: server.listn: unknown key\n  \
             did you mean \"listen\"?"
        ),
        "{text}"
    );
    let text = refused(with_variable("ROWCAST__SERVER_LISTEN", "x"));
    assert!(text.contains("did you mean \"server\"?"), "{text}");
    let text = refused(with_variable("ROWCAST__TOPICS__0__PUSH", "page"));
    assert!(text.ends_with("write them in the file"), "{text}");
    // Set by Kubernetes for a service named rowcast.
    assert!(with_variable("ROWCAST_PORT", "tcp://10.0.0.1:8888").is_ok());
}

#[test]
fn a_wrong_type_is_refused_in_the_words_of_a_configuration() {
    let cases = [
        (
            "[server]\nqueries_running = \"007\"",
            "server.queries_running: a whole number is needed, not a text",
        ),
        (
            "[server]\nqueries_running = 1.5",
            "server.queries_running: a whole number is needed, not a fraction",
        ),
        (
            "[server]\nping_interval_ms = true",
            "server.ping_interval_ms: a whole number is needed, not true or false",
        ),
        (
            "[server]\nlisten = 8888",
            "server.listen: a text in quotes is needed, not a whole number",
        ),
        (
            "[server]\nlisten.port = 1",
            "server.listen: a text in quotes is needed, not a section",
        ),
        (
            "[server]\nallowed_origins = \"*\"",
            "server.allowed_origins: a list is needed, not a text",
        ),
        (
            "[auth]\nanonymous = \"yes\"",
            "auth.anonymous: true or false is needed, not a text",
        ),
        (
            "server = 1",
            "server: a section is needed, not a whole number",
        ),
        (
            "[topics]\ntype = \"a\"",
            "topics: a list is needed, not a section",
        ),
        (
            "[[topics]]\ntable = \"a\"",
            "topics[0]: \"type\" is missing",
        ),
        (
            "[[topics]]\ntype = \"a\"\npage_size = -1",
            "topics[0].page_size: a whole number from 0 to 4294967295 is needed",
        ),
        (
            "[[topics]]\ntype = \"a\"\ncolumns = [1]",
            "topics[0].columns[0]: a text in quotes is needed, not a whole number",
        ),
        (
            "[server]\nlanguage = 1",
            "server.language: a text in quotes is needed",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(
            refused(with_file(file)),
            format!("rowcast.toml: {expected}")
        );
    }
    let text = refused(with_variable("ROWCAST__SERVER__QUERIES_RUNNING", "two"));
    assert!(
        text.ends_with("a whole number is needed, not a text"),
        "{text}"
    );
}

#[test]
fn a_wrong_value_is_refused_with_what_is_allowed() {
    let cases = [
        (
            "[server]\nqueries_running = 0",
            "server.queries_running: 0 is not allowed; 1 to 1000 are",
        ),
        (
            "[database]\npoll_interval_ms = -4",
            "database.poll_interval_ms: -4 is not allowed; 1 to 60000 are",
        ),
        (
            "[server]\nlisten = \"8888\"",
            "server.listen: an address and a port are needed, such as \"127.0.0.1:8888\"",
        ),
        (
            "[server]\nlanguage = \"eng\"",
            "server.language: \"eng\" is not allowed\n  did you mean \"en\"? allowed: zh, en",
        ),
        (
            "[[topics]]\ntype = \"a\"\npush = \"pages\"",
            "topics[0].push: \"pages\" is not allowed\n  did you mean \"page\"? allowed: row, page",
        ),
        (
            "[log]\nformat = \"xml\"",
            "log.format: \"xml\" is not allowed\n  allowed: text, json",
        ),
        (
            "[log]\nlevel = \"inof\"",
            "log.level: \"inof\" is no filter: error, warn, info, debug or trace is, or \"info,rowcast=debug\"; did you mean \"info\"?",
        ),
        (
            "[server]\nallowed_origins = [\"https://a.example/\"]",
            "server.allowed_origins: \"https://a.example/\" is no origin: \"scheme://host\" or \"scheme://host:port\" is, without a path; [\"*\"] alone stands for all",
        ),
    ];
    for (file, expected) in cases {
        assert_eq!(
            refused(with_file(file)),
            format!("rowcast.toml: {expected}")
        );
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_line_and_column() {
    let text = refused(with_file("[server]\nlisten = \"来\" x"));
    assert!(text.starts_with("rowcast.toml:2:14: "), "{text}");
    let text = refused(with_file("[log]\n[log]"));
    assert!(
        text.starts_with("rowcast.toml:2:2: duplicate key"),
        "{text}"
    );
}

#[test]
fn a_named_file_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    let err = load(Some(&missing), &Overrides::default()).unwrap_err();
    assert!(
        err.to_string().contains("missing.toml: cannot be read: "),
        "{err}"
    );
}

#[test]
fn a_listener_that_others_reach_must_be_written_down() {
    for listen in [
        "0.0.0.0:8888",
        "[::]:0",
        "192.168.1.5:80",
        "care.example.org:80",
    ] {
        let flags = Overrides {
            listen: Some(listen.into()),
            ..Overrides::default()
        };
        let text = refused(load_from(None, &[], &flags));
        assert!(
            text.starts_with(&format!("flag --listen: server.listen: on {listen} ")),
            "{text}"
        );
        assert!(text.contains("auth.anonymous = true"), "{text}");
        assert!(load_from(Some((FILE, "[auth]\nanonymous = true")), &[], &flags).is_ok());
        assert!(load_from(None, &[("ROWCAST__AUTH__ANONYMOUS", "true")], &flags).is_ok());
        assert!(load_from(None, &[("ROWCAST__AUTH__ANONYMOUS", "false")], &flags).is_err());
    }
    assert!(with_variable("ROWCAST__SERVER__LISTEN", "localhost:0").is_ok());
}

#[test]
fn origins_are_a_list_in_the_environment_too() {
    let config = with_variable(
        "ROWCAST__SERVER__ALLOWED_ORIGINS",
        "https://A.example, http://b.example:81",
    )
    .unwrap();
    assert_eq!(
        config.server.allowed_origins,
        ["https://a.example", "http://b.example:81"]
    );
    let all = with_variable("ROWCAST__SERVER__ALLOWED_ORIGINS", "*").unwrap();
    assert_eq!(all.server.allowed_origins, ["*"]);
    assert!(with_variable("ROWCAST__SERVER__ALLOWED_ORIGINS", "*,https://a.example").is_err());
}

#[test]
fn secrets_in_urls_are_never_shown() {
    let config = with_file(
        "[database]\nurl = \"postgres://rowcast:s3cret@db/care\"\n\
         [bus]\nurl = \"nats://rowcast:s3cret@bus:4222\"",
    );
    let config = config.unwrap();
    assert_eq!(
        config.database.url.to_string(),
        "postgres://rowcast:***@db:5432/care"
    );
    assert_eq!(config.bus.url.to_string(), "nats://***@bus:4222");
    assert!(!format!("{config:?}").contains("s3cret"));
    for wrong in [
        "[database]\nurl = \"slqite:s3cret\"",
        "[server]\nqueries_running = \"s3cret\"",
    ] {
        let text = refused(with_file(wrong));
        assert!(!text.contains("s3cret"), "{text}");
    }
    for (key, url) in [
        ("database", "postgres://rowcast:s3cret@db:x/care"),
        ("database", "mysql://rowcast:s3cret@db/care"),
        ("bus", "nats://rowcast:s3cret@"),
        ("bus", "amqp://rowcast:s3cret@bus"),
    ] {
        let text = refused(with_file(&format!("[{key}]\nurl = \"{url}\"")));
        assert!(
            text.starts_with(&format!("rowcast.toml: {key}.url: ")),
            "{text}"
        );
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn what_the_database_says_against_a_topic_names_file_and_key() {
    let bad = BadTopic {
        field: "order_by",
        reason: "no".into(),
    };
    let config = with_file("[[topics]]\ntype = \"a\"").unwrap();
    assert_eq!(
        config.bad_topic(0, &bad).to_string(),
        "rowcast.toml: topics[0].order_by: no"
    );
    let demo = with_file("").unwrap();
    let text = demo.bad_topic(2, &bad).to_string();
    assert!(
        text.starts_with("built-in defaults: topics[2].order_by: no\n"),
        "{text}"
    );
}
