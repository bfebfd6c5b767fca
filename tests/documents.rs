//! Documents and code say the same: every frame in docs/protocol.md is one that the code reads or
//! writes, every setting and every metric is explained, and nothing is explained that is not there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use bytes::Bytes;
use rowcast::{
    event::{self, Body, ChangeData, Delivery, Event, Op},
    metrics::Metrics,
    position::Position,
    protocol::{self, ErrorCode, Failure, JsonLimits, Language, Page, Request, ResetReason, Rid},
    row::Rows,
    status::Stage,
    topic::{Topics, is_topic_name},
};
use serde_json::{Map, Value as Json, json};

use crate::tidy::{files, quoted, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// The code blocks of a document: what stands behind the three backticks, and the text.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some((kind.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some((_, body))) => *body += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block is not closed");
    found
}

/// The JSON objects of docs/protocol.md of one kind: `client`, `server`, `event`, `publish`.
fn examples(kind: &str) -> Vec<Map<String, Json>> {
    let blocks = blocks(&read("docs/protocol.md"));
    let wanted = blocks
        .iter()
        .filter(|(info, _)| info == &format!("json {kind}"));
    let values = wanted.flat_map(|(_, text)| {
        let objects = serde_json::Deserializer::from_str(text).into_iter();
        objects.map(move |object| object.unwrap_or_else(|err| panic!("{err} in\n{text}")))
    });
    let values: Vec<_> = values.collect();
    assert!(!values.is_empty(), "docs/protocol.md shows no {kind}");
    values
}

// === the wire ===

#[test]
fn every_json_block_says_what_it_is_and_is_json() {
    let kinds = ["client", "server", "event", "publish", "answer"];
    for (info, text) in blocks(&read("docs/protocol.md")) {
        let Some(kind) = info.strip_prefix("json") else {
            continue;
        };
        assert!(
            kinds.contains(&kind.trim()),
            "a block is called {info:?}:\n{text}"
        );
        for value in serde_json::Deserializer::from_str(&text).into_iter::<Json>() {
            assert!(value.is_ok(), "{value:?} in\n{text}");
        }
    }
}

#[test]
fn every_frame_of_a_client_is_read() {
    for frame in examples("client") {
        let text = Json::from(frame).to_string();
        let read = Request::parse(&text, &JsonLimits::default());
        assert!(read.is_ok(), "{text}: {read:?}");
    }
}

fn members(frame: &str) -> BTreeSet<String> {
    let frame: Map<String, Json> = serde_json::from_str(frame).unwrap();
    frame.keys().cloned().collect()
}

/// The kind of a server's frame: its `type` where that is the protocol's, else its shape.
fn kind(frame: &Map<String, Json>) -> &str {
    match frame["type"].as_str().unwrap() {
        session if session.starts_with("sys:") => session,
        topic => {
            assert!(is_topic_name(topic), "{topic} is no topic");
            match frame["op"].as_str().unwrap() {
                "replace" if frame.contains_key("ts") => "page",
                "replace" => "reply",
                _ => "event",
            }
        }
    }
}

/// For each kind of frame the members that the code can write.
fn written() -> BTreeMap<&'static str, BTreeSet<String>> {
    let cursor: Position = "k3:1".parse().unwrap();
    let rid = Some(Rid::Number(1));
    let rid = rid.as_ref();
    let page = Page {
        number: None,
        size: 1,
        total: 1,
        next: None,
    };
    let key = || Some(event::raw(&json!({})));
    let change = Event {
        id: "s:1.0/t".into(),
        source: "/s".into(),
        topic: "t".into(),
        subject: None,
        at_ms: 0,
        tx: Some("x".into()),
        xid: Some(1),
        body: Body::Change {
            checkpoint: "s:1.0".parse().unwrap(),
            data: ChangeData {
                key: key(),
                old_key: key(),
                unchanged: vec!["c".into()],
                too_large: true,
                ..ChangeData::whole(Op::Update)
            },
        },
    };
    let delivery = Delivery {
        position: cursor.clone(),
        event: Some(change),
    };
    let mut failure = Failure::param("x").to(rid.cloned());
    failure.retry_after_ms = Some(1);
    let rows = Rows::default();
    let reply = protocol::reply(
        "t",
        rid,
        &rows,
        Some(&page),
        Some(&cursor),
        (false, Some(1)),
    );
    let frames = [
        ("reply", reply.concat()),
        ("page", protocol::page_push("t", &rows, &page, &cursor, 0)),
        ("event", protocol::event(&delivery).unwrap()),
        (
            "sys:welcome",
            protocol::welcome(rid, &cursor, true, 1, (1, 1), Some(&Topics::default())),
        ),
        ("sys:ok", protocol::ok(rid, &cursor)),
        ("sys:caught_up", protocol::caught_up(&cursor)),
        ("sys:tick", protocol::tick(&cursor)),
        (
            "sys:reset",
            protocol::reset(ResetReason::Epoch, &cursor, [0, 1]),
        ),
        ("sys:drain", protocol::drain([0, 1])),
        ("sys:error", protocol::error(&failure, Language::En)),
        ("sys:pong", protocol::pong(rid)),
    ];
    frames.map(|(kind, frame)| (kind, members(&frame))).into()
}

#[test]
fn every_frame_of_the_server_is_written_and_every_one_written_is_shown() {
    let written = written();
    let mut shown: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let examples = examples("server");
    for frame in &examples {
        let kind = kind(frame);
        let can = written
            .get(kind)
            .unwrap_or_else(|| panic!("no code writes {kind}"));
        for member in frame.keys() {
            assert!(can.contains(member), "{kind} has no member {member}");
        }
        shown.entry(kind).or_default().extend(frame.keys().cloned());
    }
    for (kind, can) in &written {
        assert_eq!(
            shown.get(kind),
            Some(can),
            "docs/protocol.md does not show all of {kind}"
        );
    }
}

#[test]
fn the_shown_errors_are_those_of_the_catalogue() {
    for frame in examples("server")
        .iter()
        .filter(|frame| kind(frame) == "sys:error")
    {
        let slug = frame["error"].as_str().unwrap();
        let code = codes().into_iter().find(|code| code.slug() == slug);
        let code = code.unwrap_or_else(|| panic!("no error is called {slug}"));
        assert_eq!(frame["code"], code.status());
        let texts = [Language::Zh, Language::En].map(|language| code.message(language));
        assert!(texts.contains(&frame["msg"].as_str().unwrap()), "{frame:?}");
    }
}

#[test]
fn every_event_of_the_bus_is_read() {
    for example in examples("event") {
        let text = Json::from(example).to_string();
        let event = Event::from_json(&text, true).unwrap();
        let members = |text: &str| {
            let text = Bytes::from(text.to_owned());
            serde_json::from_slice::<Json>(&text).unwrap()
        };
        assert_eq!(
            members(&event.to_json()),
            members(&text),
            "the code writes it otherwise"
        );
    }
    for example in examples("publish") {
        let text = Json::from(example).to_string();
        assert!(
            Event::from_application(&text, "fresh".into(), 0).is_ok(),
            "{text}"
        );
    }
}

#[test]
fn every_stage_shown_is_one_that_is_told() {
    let blocks = blocks(&read("docs/protocol.md"));
    let answers = blocks.iter().filter(|(info, _)| info == "json answer");
    let mut answers = answers.filter_map(|(_, text)| serde_json::from_str::<Json>(text).ok());
    let report = answers.find(|answer| answer["stages"].is_array()).unwrap();
    let stages = report["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 4);
    for shown in stages {
        let stage: Stage = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(serde_json::to_value(stage).unwrap(), *shown);
    }
}

/// Every [`ErrorCode`].
fn codes() -> Vec<ErrorCode> {
    use ErrorCode::{
        AuthUnavailable, BadJson, BadParam, BusUnavailable, DbUnavailable, DuplicateKey, Forbidden,
        Internal, MethodNotAllowed, Misdirected, NotFound, NulNotAllowed, NumberRange, Overloaded,
        PayloadTooLarge, QueryTimeout, RequestTimeout, Starting, TokenExpired, TokenInvalid,
        TokenMissing, TokenRevoked, TooDeep, TooManyRequests, UnknownType, UnsupportedMediaType,
        UpgradeRequired,
    };
    let all = vec![
        AuthUnavailable,
        BadJson,
        BadParam,
        BusUnavailable,
        DbUnavailable,
        DuplicateKey,
        Forbidden,
        Internal,
        MethodNotAllowed,
        Misdirected,
        NotFound,
        NulNotAllowed,
        NumberRange,
        Overloaded,
        PayloadTooLarge,
        QueryTimeout,
        RequestTimeout,
        TokenExpired,
        TokenInvalid,
        TokenMissing,
        TokenRevoked,
        TooDeep,
        TooManyRequests,
        Starting,
        UnknownType,
        UnsupportedMediaType,
        UpgradeRequired,
    ];
    let source = read("src/protocol/catalogue.rs");
    let slugs = source
        .split("pub fn slug")
        .nth(1)
        .unwrap()
        .split("pub fn")
        .next()
        .unwrap();
    assert_eq!(
        slugs.matches("=> \"").count(),
        all.len(),
        "this list lacks a code"
    );
    all
}

/// The codes with which the server closes sockets.
fn closes() -> Vec<String> {
    let source = read("src/protocol/catalogue.rs");
    let body = source.split("impl CloseReason").nth(1).unwrap();
    let body = body.split("pub fn text").next().unwrap();
    let codes = body.split("=> ").skip(1);
    let codes: Vec<String> = codes.map(|rest| rest.chars().take(4).collect()).collect();
    assert!(
        codes.iter().all(|code| code.parse::<u16>().is_ok()),
        "{codes:?}"
    );
    codes
}

#[test]
fn every_error_and_every_close_is_explained() {
    for document in ["docs/protocol.md", "docs/operations.md"] {
        let text = read(document);
        let words: BTreeSet<&str> = quoted(&text).into_iter().collect();
        for code in codes() {
            let slug = code.slug();
            assert!(words.contains(slug), "{document} does not explain `{slug}`");
        }
        for close in closes() {
            assert!(
                words.contains(close.as_str()),
                "{document} does not explain `{close}`"
            );
        }
    }
}

// === settings and metrics ===

/// `server.listen`, `topics.type`, … of rowcast.example.toml, those in comments too.
fn settings() -> BTreeSet<String> {
    let text = read("rowcast.example.toml");
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let bare = line.trim_start_matches("# ");
        if bare.starts_with('[') && bare.ends_with(']') {
            section = bare.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = bare.split_once(" = ") {
            let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if is_key && !key.is_empty() {
                found.insert(format!("{section}.{key}"));
            }
        }
    }
    // The keys of a topic are listed in a comment before the first one.
    let list = text.split("All keys of a topic:\n#\n").nth(1).unwrap();
    for line in list.lines().take_while(|line| line.starts_with("#   ")) {
        let key = line.trim_start_matches("#   ").split(' ').next().unwrap();
        found.insert(format!("topics.{key}"));
    }
    found
}

#[test]
fn every_setting_is_explained_and_nothing_that_is_none() {
    let text = read("docs/operations.md");
    let sections = [
        "server", "limits", "database", "bus", "produce", "auth", "log", "topics",
    ];
    let explained: BTreeSet<String> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| quoted(line).first().map(|name| (*name).to_owned()))
        .filter(|name| {
            let section = name.split_once('.').map(|(section, _)| section);
            section.is_some_and(|section| sections.contains(&section))
        })
        .collect();
    assert_eq!(explained, settings());
}

#[test]
fn every_metric_is_explained_and_nothing_that_is_none() {
    let metrics = Metrics::default();
    metrics.query("ok");
    metrics.reset("epoch");
    metrics.close(1012, "");
    metrics.error("bad_json");
    metrics.inexact("late");
    metrics.refused_connection("total");
    metrics.limited("messages");
    metrics.auth.refused("expired");
    metrics.auth.looked_for_keys(true);
    let exposed = metrics.to_text();
    let names: BTreeSet<String> = exposed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect();
    let text = read("docs/operations.md");
    let explained: BTreeSet<String> = quoted(&text)
        .into_iter()
        .filter(|word| word.starts_with("rowcast_") && !word.contains('.'))
        .map(str::to_owned)
        .collect();
    assert_eq!(explained, names);
}

// === the two READMEs, and the whole tree ===

#[test]
fn both_readmes_have_the_same_sections_and_blocks() {
    let shape = |path: &str| {
        let text = read(path);
        let mut fenced = false;
        let mut levels = Vec::new();
        for line in text.lines() {
            fenced ^= line.starts_with("```");
            let level = line.bytes().take_while(|b| *b == b'#').count();
            if !fenced && level > 0 && line[level..].starts_with(' ') {
                levels.push(level);
            }
        }
        let kinds: Vec<String> = blocks(&text).into_iter().map(|(kind, _)| kind).collect();
        (levels, kinds)
    };
    assert_eq!(shape("README.md"), shape("README.zh-CN.md"));
}

#[test]
fn links_within_the_tree_lead_somewhere() {
    for path in files(".")
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "md"))
    {
        let text = fs::read_to_string(path).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap();
            let outside = target.is_empty() || target.contains("://");
            let there = outside || path.parent().unwrap().join(target).exists();
            assert!(there, "{} links to {target}", path.display());
        }
    }
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // Written so that this file does not find itself.
    let folders = [
        concat!("/ho", "me/"),
        concat!("/ro", "ot/"),
        concat!("/Us", "ers/"),
        concat!("/wo", "rk/"),
    ];
    for path in files(".") {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for folder in folders {
            assert!(!text.contains(folder), "{} names {folder}", path.display());
        }
    }
}
