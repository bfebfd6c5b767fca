//! Command lines, and what is made of them.

use super::*;

fn line(text: &str) -> Result<Cli, Exit> {
    let args = std::iter::once("rowcast").chain(text.split_whitespace());
    Line::try_parse_from(args)
        .and_then(settle)
        .map_err(|err| exit(&err))
}

fn query(text: &str) -> String {
    match line(text).unwrap().command {
        Command::Query(query) => query.frame().to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_command_line_is_sound() {
    Line::command().debug_assert();
}

#[test]
fn serve_is_what_happens_without_a_command() {
    for text in [
        "--listen :0 --config a.toml --database sqlite:b",
        "--listen :0 serve --config a.toml --database sqlite:b",
        "--config a.toml serve --listen :0 --database sqlite:b",
    ] {
        let cli = line(text).unwrap();
        assert_eq!(cli.common.config, Some("a.toml".into()), "{text}");
        let expected = Overrides {
            database: Some("sqlite:b".into()),
            bus: None,
            listen: Some(":0".into()),
            produce_listen: None,
        };
        assert_eq!(cli.overrides(), expected, "{text}");
    }
    assert_eq!(line("").unwrap().command, Command::Serve(Serve::default()));
}

#[test]
fn every_command_takes_the_common_flags() {
    for command in [
        "check",
        "init --force",
        "remove",
        "query patient",
        "serve",
        "produce",
        "tail",
        "publish patient 1",
        "bench -n 1",
    ] {
        let cli = line(&format!("{command} --bus embedded: --config x")).unwrap();
        assert_eq!(cli.overrides().bus.as_deref(), Some("embedded:"));
    }
}

#[test]
fn wrong_usage_is_64_and_help_is_fine() {
    for text in [
        "srve",
        "--lisen x",
        "check extra",
        "--listen :0 check",
        "query",
        "query a --page x",
        "query a --filter 1",
        "query a --id 1 --page 2",
        "query a --params {} --all",
        "types a",
        "types --lang rust",
    ] {
        assert_eq!(line(text), Err(Exit::Usage), "{text}");
    }
    for text in [
        "--help",
        "-h",
        "help",
        "help query",
        "types --help",
        "init --help",
        "--version",
    ] {
        assert_eq!(line(text), Err(Exit::Fine), "{text}");
    }
}

#[test]
fn a_query_becomes_the_frame_of_a_browser() {
    assert_eq!(query("query patient"), r#"{"type":"patient"}"#);
    assert_eq!(
        query("query patient --id -1"),
        r#"{"type":"patient","id":"-1"}"#
    );
    assert_eq!(
        query(r#"query a --id {"x":1}"#),
        r#"{"type":"a","id":{"x":1}}"#
    );
    assert_eq!(
        query(r#"query a --page 2 --size 5 --order b --order c --filter {"d":null}"#),
        r#"{"type":"a","params":{"page":2,"size":5,"order":["b","c"],"filter":{"d":null}}}"#
    );
    assert_eq!(
        query("query a --all"),
        r#"{"type":"a","params":{"all":true}}"#
    );
    assert_eq!(
        query("query a --after t"),
        r#"{"type":"a","params":{"after":"t"}}"#
    );
    assert_eq!(
        query(r#"query a --params {"size":5}"#),
        r#"{"type":"a","params":{"size":5}}"#
    );
}
