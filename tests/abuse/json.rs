//! A12 to A15, A32: what is no JSON, what is JSON and no request, and requests whose values no database
//! could hold. JSONTestSuite and the Big List of Naughty Strings go through every place that takes a text.

use serde_json::{Value as Json, json};

use super::{
    inputs::{naughty, parsing},
    stage::Stage,
    told::{Told, bad_json, bad_param, closed, error, framed, status, unknown_type},
};
use crate::support::{Raw, raw::TEXT};

#[tokio::test]
async fn what_is_no_json_or_no_request_is_answered_with_its_error_and_the_socket_stays() {
    let mut stage = Stage::care().await;
    suite(&mut stage).await;
    malformed(&mut stage).await;
    members(&mut stage).await;
    ids(&mut stage).await;
    rids(&mut stage).await;
    strings(&mut stage).await;
    strikes(&mut stage).await;
    stage.end().await;
}

// === A12 ===

/// JSONTestSuite, each text by itself and as a member that nobody reads.
async fn suite(stage: &mut Stage) {
    for test in parsing() {
        let text = std::str::from_utf8(&test.bytes);
        let kind = test.name.split('_').next().unwrap_or_default();
        let object = text.is_ok_and(|text| text.trim_start().starts_with('{'));
        let whole: &[Told] = match (text, kind) {
            (Err(_), _) => &[closed(1007)],
            _ if TO_COME.contains(&&*test.name) => continue,
            // An object without a type is one of a type that nobody knows.
            (Ok(_), "y") if object => &[unknown_type()],
            (Ok(_), "i") if object => &[unknown_type(), bad_json()],
            (Ok(_), _) => &[bad_json()],
        };
        stage.ask("A12", &test.bytes, whole).await;
        let member: &[Told] = match (text, kind) {
            (Err(_), _) => &[closed(1007)],
            (Ok(_), "y") => &[Told::Reply],
            (Ok(_), "i") => &[Told::Reply, bad_json(), number_range(), too_deep()],
            (Ok(_), _) => &[bad_json()],
        };
        let sent = [
            &b"{\"type\":\"patient\",\"id\":1,\"nobody\":"[..],
            &test.bytes,
            b"}",
        ]
        .concat();
        stage.ask("A12", &sent, member).await;
    }
}

/// JSON that is refused for what it says: [`strict`].
const TO_COME: [&str; 4] = [
    "y_object_duplicated_key",
    "y_object_duplicated_key_and_value",
    "y_object_escaped_null_in_key",
    "y_string_null_escape",
];

async fn malformed(stage: &mut Stage) {
    for text in [
        "",
        " ",
        "\n",
        "\u{feff}{}",
        "{",
        "}",
        "{}{}",
        "{},",
        "[]",
        "[{}]",
        "\"x\"",
        "1",
        "-",
        "null",
        "true",
        "NaN",
        "Infinity",
        "{\"type\":NaN}",
        "{\"type\":-Infinity}",
        "{\"type\":01}",
        "{\"type\":1e400}",
        "{\"type\":-1e400}",
        "{\"type\":0x10}",
        "{\"type\":'patient'}",
        "{type:\"patient\"}",
        "{\"type\":\"patient\",}",
        "{\"type\":\"patient\"}//",
        "/**/{\"type\":\"patient\"}",
        "{\"type\":\"pat\nient\"}",
        "{\"type\":\"\\ud800\"}",
        "{\"type\":\"\\udc00\\ud800\"}",
        "{\"type\":\"\\u12\"}",
        "{\"type\":\"\\x41\"}",
        "{\"type\" \"patient\"}",
        "{\"type\":\"patient\" \"id\":1}",
        "type=patient",
        "<patient/>",
        "GET / HTTP/1.1",
        "{\"type\":\"patient\"}\u{0}",
        "\u{0}",
        "ping",
        "close",
        "undefined",
        "{\"type\":undefined}",
        "{{}}",
        "\u{2028}{}",
        "\u{a0}{}",
        "{\"type\":\"patient\",\"id\":1}{\"type\":\"patient\",\"id\":1}",
    ] {
        stage.ask("A12", text, &[bad_json()]).await;
    }
    for (open, times) in [
        ("[", 20),
        ("[", 10_000),
        ("{\"a\":", 10_000),
        ("[{\"a\":", 5_000),
        ("{", 60_000),
    ] {
        stage.ask("A12", open.repeat(times), &[bad_json()]).await;
        let nested = format!("{{\"type\":\"patient\",\"x\":{}", open.repeat(times));
        stage.ask("A12", &nested, &[bad_json()]).await;
    }
    let spaces = format!(
        "{}{{\"type\":\"patient\",\"id\":1}}{}",
        " ".repeat(30_000),
        "\n".repeat(30_000)
    );
    stage.ask("A12", &spaces, &[Told::Reply]).await;
    for text in ["\"".repeat(65_536), "\\".repeat(65_536), "9".repeat(65_536)] {
        stage.ask("A12", &text, &[bad_json()]).await;
    }
}

/// The eleventh malformed message within a minute closes the socket, whatever is wrong with them.
async fn strikes(stage: &mut Stage) {
    for text in ["{", "", "[]", "\"x\"", "{\"a\":1e400}", "\u{feff}{}"] {
        let mut raw = Raw::open(&stage.server, "/socket/all/?types=notice").await;
        for _ in 0..11 {
            raw.frame(TEXT, text.as_bytes()).await;
        }
        let mut told = Vec::new();
        while let Some((opcode, payload)) = raw.next().await {
            told.push(match opcode {
                0x8 => Told::Closed(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
                _ => Told::text(&payload),
            });
            if opcode == 0x8 {
                break;
            }
        }
        let mut expected = vec![bad_json(); 10];
        expected.push(closed(4400));
        stage.note_all("A12", text, &told, &expected);
    }
}

// === A13 ===

/// Names that are something in JavaScript are nothing here, and two spellings are two names.
async fn members(stage: &mut Stage) {
    let names = [
        "__proto__",
        "constructor",
        "prototype",
        "toString",
        "hasOwnProperty",
        "__defineGetter__",
        "valueOf",
        "Type",
        "TYPE",
        "ty\u{200b}pe",
        "typе",
        "tуpe",
        "ｔｙｐｅ",
        "t\u{ff}ype",
        "type ",
        " type",
        "é",
        "e\u{301}",
    ];
    for name in names {
        let unread = json!({ "type": "patient", "id": 1, name: { "admin": true } });
        stage.ask("A13", unread.to_string(), &[Told::Reply]).await;
        let untyped = json!({ name: "patient", "id": 1 });
        stage
            .ask("A13", untyped.to_string(), &[unknown_type()])
            .await;
        let topic = json!({ "type": name });
        stage.ask("A13", topic.to_string(), &[unknown_type()]).await;
        for params in [
            json!({ "filter": { name: 1 } }),
            json!({ "order": name }),
            json!({ "filter": { "name": { name: 1 } } }),
        ] {
            let query = json!({ "type": "patient", "params": params });
            stage.ask("A13", query.to_string(), &[bad_param()]).await;
        }
        let unread = json!({ "type": "patient", "params": { name: 1 } });
        stage.ask("A13", unread.to_string(), &[Told::Reply]).await;
        let key = json!({ "type": "patient", "id": { name: 1 } });
        stage.ask("A13", key.to_string(), &[bad_param()]).await;
        for kind in ["sys:subscribe", "sys:unsubscribe", "sys:hello"] {
            let named = json!({ "type": kind, "types": [name] });
            let unknown = [unknown_type(), bad_param(), framed("sys:ok")];
            let expected = match kind {
                // To take away what nobody has is no mistake.
                "sys:unsubscribe" => &unknown[1..],
                _ => &unknown[..2],
            };
            stage.ask("A13", named.to_string(), expected).await;
        }
    }
    for kind in [
        "sys:",
        "sys:nothing",
        "SYS:ping",
        "sys:ping ",
        "sys:error",
        "sys:reset",
        "sys:welcome",
        "sys:tick",
        "sys:ok",
    ] {
        stage
            .ask(
                "A13",
                json!({ "type": kind }).to_string(),
                &[unknown_type()],
            )
            .await;
    }
    for kind in [
        json!(1),
        json!(null),
        json!(true),
        json!([]),
        json!({}),
        json!(["patient"]),
        json!({ "type": "patient" }),
    ] {
        stage
            .ask(
                "A13",
                json!({ "type": kind, "id": 1 }).to_string(),
                &[bad_param()],
            )
            .await;
    }
}

// === A14 ===

async fn ids(stage: &mut Stage) {
    for id in [
        "1",
        "0",
        "-0",
        "-1",
        "1.0",
        "1e0",
        "1E+2",
        "1e3",
        "2147483648",
        "9007199254740991",
        "-9007199254740991",
        "\"1\"",
        "\"01\"",
        "\"-0\"",
        "\"9223372036854775807\"",
        "\"9223372036854775808\"",
        "\"1e3\"",
        "\"\"",
        "\" 1\"",
        "\"abc\"",
        "\"1;DROP TABLE patient\"",
        "0.5",
        "1e-400",
        "null",
        "{\"id\":1}",
        "{\"id\":\"1\"}",
    ] {
        let text = format!("{{\"type\":\"patient\",\"id\":{id}}}");
        stage.ask("A14", &text, &[Told::Reply]).await;
    }
    for id in [
        "true",
        "false",
        "[]",
        "[1]",
        "{}",
        "{\"ID\":1}",
        "{\"id\":1,\"name\":\"x\"}",
        "{\"id\":null}",
        "{\"id\":[1]}",
        "{\"id\":{}}",
        "{\"id\":true}",
        "{\"__proto__\":1}",
        "{\"rowid\":1}",
        "{\"\":1}",
    ] {
        let text = format!("{{\"type\":\"patient\",\"id\":{id}}}");
        stage.ask("A14", &text, &[bad_param()]).await;
    }
    for id in [
        "1e400", "-1e400", "01", "+1", ".5", "1.", "1e", "0x1", "1_000", "١", "１",
    ] {
        let text = format!("{{\"type\":\"patient\",\"id\":{id}}}");
        stage.ask("A14", &text, &[bad_json()]).await;
    }
    // The same on every other place for a number.
    for number in [
        "-1",
        "0",
        "0.5",
        "1.5",
        "1e3",
        "4294967296",
        "\"1\"",
        "\"abc\"",
        "true",
        "[]",
        "{}",
        "[1]",
    ] {
        for place in ["page", "size"] {
            let text = format!("{{\"type\":\"patient\",\"params\":{{\"{place}\":{number}}}}}");
            stage.ask("A14", &text, &[bad_param()]).await;
        }
    }
}

// === A32 ===

/// An id of a request's own comes back as it is, or is refused. Two of a kind are two requests: each has
/// its answer (docs/protocol.md §1.1), so there is nothing to refuse in a repetition.
async fn rids(stage: &mut Stage) {
    let long = "x".repeat(64);
    let wide = "😀".repeat(64);
    for rid in [
        json!(1),
        json!(0),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(""),
        json!("a"),
        json!(long),
        json!(wide),
        json!("\"\\\u{7f}\r\n\u{2028}"),
        json!("__proto__"),
        json!("<script>"),
        json!("\u{202e}"),
        json!("null"),
    ] {
        for question in [
            json!({ "type": "patient", "rid": rid, "id": 1 }),
            json!({ "type": "nobody", "rid": rid }),
            json!({ "type": "sys:ping", "rid": rid }),
        ] {
            let answer = stage
                .ask(
                    "A32",
                    question.to_string(),
                    &[Told::Reply, unknown_type(), framed("sys:pong")],
                )
                .await;
            let answer: Json = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["rid"], rid, "{answer}");
        }
    }
    let over = "x".repeat(65);
    let much = "x".repeat(10_240);
    for rid in [
        json!(1.5),
        json!(0.0),
        json!(true),
        json!(false),
        json!([]),
        json!([1]),
        json!({}),
        json!({ "a": 1 }),
        json!(over),
        json!(much),
        json!("😀".repeat(65)),
    ] {
        for kind in ["patient", "sys:ping", "nobody"] {
            let question = json!({ "type": kind, "rid": rid });
            let answer = stage.ask("A32", question.to_string(), &[bad_param()]).await;
            assert!(!answer.contains("\"rid\":"), "{answer}");
        }
    }
    for _ in 0..3 {
        stage
            .ask(
                "A32",
                r#"{"type":"patient","rid":7,"id":1}"#,
                &[Told::Reply],
            )
            .await;
        stage
            .ask(
                "A32",
                r#"{"type":"patient","rid":null,"id":1}"#,
                &[Told::Reply],
            )
            .await;
    }
}

// === what no reader, no number and no database could hold ===

/// A12 to A15: an object in which a name stands twice, too deep for anybody's recursion, with an integer that
/// somebody has rounded already, with U+0000 in a text, or larger than a request is. The socket stays,
/// and who said it is told with which request.
#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    let mut stage = Stage::care().await;
    let twice = || error(400, "duplicate_key");
    for test in parsing()
        .iter()
        .filter(|test| TO_COME.contains(&&*test.name))
    {
        let expected = match test.name.contains("duplicated") {
            true => twice(),
            false => nul(),
        };
        let sent = [
            &b"{\"type\":\"patient\",\"id\":1,\"nobody\":"[..],
            &test.bytes,
            b"}",
        ]
        .concat();
        stage.ask("A13", &sent, &[expected]).await;
    }
    for text in [
        r#"{"type":"patient","type":"patient"}"#,
        r#"{"type":"patient","type":"nobody"}"#,
        r#"{"type":"nobody","type":"patient"}"#,
        r#"{"type":"patient","t\u0079pe":"nobody"}"#,
        r#"{"type":"patient","id":1,"id":2}"#,
        r#"{"type":"patient","params":{},"params":{"all":true}}"#,
        r#"{"type":"patient","params":{"page":1,"page":2}}"#,
        r#"{"type":"patient","params":{"filter":{"id":1,"id":2}}}"#,
        r#"{"type":"patient","params":{"filter":{"id":{"gte":1,"gte":2}}}}"#,
        r#"{"type":"sys:subscribe","types":{"patient":{},"patient":{"filter":{"id":1}}}}"#,
        r#"{"type":"sys:hello","token":"a","token":"b"}"#,
        r#"{"type":"patient","x":[{"a":1},{"b":1,"b":1}]}"#,
        r#"{"type":"patient","__proto__":1,"__proto__":2}"#,
        r#"{"type":"patient","":1,"":2}"#,
    ] {
        stage.ask("A13", text, &[twice()]).await;
    }
    for depth in [33, 100, 127, 128, 129, 200, 5_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let nested = format!(
                "{{\"type\":\"patient\",\"x\":{}{inner}{}}}",
                open.repeat(depth),
                close.repeat(depth)
            );
            stage.ask("A12", &nested, &[too_deep()]).await;
        }
    }
    for depth in [1, 10, 30] {
        let nested = format!(
            "{{\"type\":\"patient\",\"id\":1,\"x\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        );
        stage.ask("A12", &nested, &[Told::Reply]).await;
    }
    for number in [
        "9007199254740992",
        "-9007199254740992",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e20",
        "1E300",
        "-1e300",
        "99999999999999999999999",
    ] {
        let text = format!("{{\"type\":\"patient\",\"id\":{number}}}");
        stage.ask("A14", &text, &[number_range()]).await;
        let text = format!("{{\"type\":\"patient\",\"id\":{{\"id\":{number}}}}}");
        stage.ask("A14", &text, &[number_range()]).await;
        // A real of a filter is one; an integer is exact, or refused.
        let text =
            format!("{{\"type\":\"patient\",\"params\":{{\"filter\":{{\"age\":{number}}}}}}}");
        stage
            .ask("A14", &text, &[number_range(), Told::Reply])
            .await;
        let text = format!("{{\"type\":\"sys:ping\",\"rid\":{number}}}");
        // What is given back as it came need not be exact for us.
        stage
            .ask("A32", &text, &[framed("sys:pong"), bad_param()])
            .await;
    }
    for text in ["\u{0}", "a\u{0}", "\u{0}a", "a\u{0}b", "王\u{0}"] {
        for question in [
            json!({ "type": "patient", "id": text }),
            json!({ "type": "patient", "id": { "id": text } }),
            json!({ "type": "patient", "id": { (text): 1 } }),
            json!({ "type": "patient", "id": 1, "nobody": text }),
            json!({ "type": "patient", "id": 1, (text): 1 }),
            json!({ "type": "patient", "params": { "filter": { "name": text } } }),
            json!({ "type": "patient", "params": { "filter": { "name": [text] } } }),
            json!({ "type": "patient", "params": { "filter": { "name": { "like": text } } } }),
            json!({ "type": "patient", "params": { "filter": { (text): 1 } } }),
            json!({ "type": "patient", "params": { "order": text } }),
            json!({ "type": text }),
            json!({ "type": "sys:subscribe", "types": [text] }),
            json!({ "type": "sys:subscribe", "types": { "patient": { "filter": { "name": text } } } }),
            json!({ "type": "sys:hello", "token": text }),
            json!({ "type": "sys:hello", "since": text }),
            json!({ "type": "sys:auth", "token": text }),
        ] {
            stage.ask("A15", question.to_string(), &[nul()]).await;
        }
        let coded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        for query in [
            format!("id={coded}"),
            format!("filter[name]={coded}"),
            format!("filter[{coded}]=1"),
            format!("order={coded}"),
            format!("after={coded}"),
        ] {
            let sent = format!(
                "GET /api/query/patient?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            );
            stage
                .request("A15", sent.as_bytes(), &[status(400, "nul_not_allowed")])
                .await;
        }
    }
    let large = || error(413, "payload_too_large");
    for text in [
        json!({ "type": "x".repeat(60_000) }),
        json!({ "type": "patient", "id": "x".repeat(16_385) }),
        json!({ "type": "patient", ("x".repeat(16_385)): 1 }),
        json!({ "type": "sys:hello", "token": "x".repeat(4_097) }),
        json!({ "type": "sys:auth", "token": "x".repeat(60_000) }),
        (0..300).map(|n| (format!("m{n}"), json!(n))).collect(),
    ] {
        stage.ask("A12", text.to_string(), &[large()]).await;
    }
    let many: Vec<String> = (0..5_000).map(|n| format!("t{n}")).collect();
    let same = vec!["patient"; 4_000];
    for kind in ["sys:subscribe", "sys:unsubscribe", "sys:hello"] {
        for types in [json!(many), json!(same)] {
            let question = json!({ "type": kind, "types": types });
            stage.ask("A23", question.to_string(), &[bad_param()]).await;
        }
    }
    stage.end().await;
}

fn number_range() -> Told {
    error(400, "number_range")
}

fn nul() -> Told {
    error(400, "nul_not_allowed")
}

fn too_deep() -> Told {
    error(400, "too_deep")
}

// === naughty strings, everywhere ===

/// Each in every place for a text: bound where it is a value, refused where it is a name.
async fn strings(stage: &mut Stage) {
    for text in naughty() {
        let like = match text.chars().count() {
            0..=256 => Told::Reply,
            _ => bad_param(),
        };
        let rid = match text.chars().count() {
            0..=64 => Told::Reply,
            _ => bad_param(),
        };
        for (question, expected) in [
            (json!({ "type": "patient", "id": text }), Told::Reply),
            (json!({ "type": "patient", "rid": text, "id": 1 }), rid),
            (
                json!({ "type": "patient", "params": { "filter": { "name": text } } }),
                Told::Reply,
            ),
            (
                json!({ "type": "patient", "params": { "filter": { "name": [text, null] } } }),
                Told::Reply,
            ),
            (
                json!({ "type": "patient", "params": { "filter": { "name": { "like": text } } } }),
                like,
            ),
            (
                json!({ "type": "patient", "params": { "filter": { (text.clone()): 1 } } }),
                bad_param(),
            ),
            (
                json!({ "type": "patient", "params": { "order": text } }),
                bad_param(),
            ),
            (
                json!({ "type": "patient", "params": { "after": text } }),
                bad_param(),
            ),
            (json!({ "type": text }), unknown_type()),
            (json!({ "type": "sys:hello", "since": text }), bad_param()),
            (json!({ "type": "sys:hello", "mode": text }), bad_param()),
            (
                json!({ "type": "sys:subscribe", "types": { "patient": { "filter": { "name": text } } } }),
                framed("sys:ok"),
            ),
        ] {
            stage.ask("A12", question.to_string(), &[expected]).await;
        }
    }
}
