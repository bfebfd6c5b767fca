//! A17, A18: names that want to be subjects, patterns, paths or markup, and values that want to be headers or
//! lines of a log; on PostgreSQL and NATS, where a subject and a header are what they would harm. Whatever
//! a client names, nothing is published but below our prefix, and every subject's last word is a topic's.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use serde_json::{Value as Json, json};

use super::{
    inputs::{is_name, naughty},
    stage::{CANARY, Stage},
    told::{Told, bad_param, error, framed, status, unknown_type},
};
use crate::{
    support::{Nats, NatsOptions, Options, Producer, Server, postgres::database, wait_until},
    wire::CARE,
};

const TABLES: &str = "
    CREATE TABLE patient (id int PRIMARY KEY, name text NOT NULL, ward text, age int, left_at text);
    INSERT INTO patient VALUES (1, '王秀英', '3', 86, NULL);
    CREATE TABLE stay (bed text, day int, note text, PRIMARY KEY (day, bed));";

/// No topic's, and never to be part of a subject.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "*",
        ">",
        "a.b",
        "a.>",
        "a.*",
        ".",
        "..",
        "../patient",
        "patient.",
        ".patient",
        "patient.*",
        "$SYS.x",
        "$SYS.>",
        "$JS.API.STREAM.DELETE.ROWCAST",
        "$JS.API.STREAM.PURGE.ROWCAST",
        "$JS.ACK.x",
        "$SRV.PING",
        "_INBOX.x",
        "_INBOX.>",
        "rowcast.change.patient",
        "change.patient",
        "sys.state",
        "rowcast.control.mark",
        " ",
        "patient ",
        " patient",
        "pa tient",
        "patient\t",
        "patient\r\n",
        "x 0\r\nPUB evt.y 2\r\nhi",
        "x\r\nPUB rowcast.change.patient 2\r\n{}",
        "patient\u{0}",
        "\u{0}",
        "",
        "😀",
        "患者",
        "pаtient",
        "ｐａｔｉｅｎｔ",
        "patient\u{200b}",
        "patient\u{202e}",
        "chat_all_data",
        "PATIENT",
        "Patient",
        "patient/",
        "/patient",
        "patient%2F",
        "%2e%2e",
        "patient%00",
        "patient?x",
        "patient#x",
        "<script>alert(1)</script>",
        "__proto__",
        "constructor",
        "-",
        "_",
        "sys",
        "sys:reset",
        "sys:error",
        "sys_state",
        "null",
        "undefined",
        "true",
        "0",
        "\\",
        "'",
        "\"",
        "\u{1b}]0;title\u{7}",
        "\u{1b}[31m",
        "\u{2028}",
        "\u{85}",
        "\u{7f}",
        "\u{feff}patient",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(64));
    names.push("x".repeat(65));
    names.push("x".repeat(300));
    names.push("x.".repeat(5_000));
    names.push("患".repeat(22));
    names.extend(naughty());
    names
}

#[tokio::test]
async fn no_name_becomes_a_subject_and_no_value_a_header_or_a_line() {
    let database = database();
    database.sql(TABLES);
    let nats = Nats::with(NatsOptions::default());
    let config = format!(
        "[log]\nlevel = \"debug\"\n[database]\nurl = \"{}\"\nslot = \"{}\"\n[bus]\nurl = \"{}\"\n{CARE}",
        database.url(),
        database.name(),
        nats.url()
    );
    let _producer = Producer::start(&config);
    let server = Server::with(Options {
        config: Some(config),
        ..Options::default()
    });
    let published = Published::on(&nats).await;
    let mut stage = Stage::of(server).await.quiet("patient");
    for name in names() {
        on_sockets(&mut stage, &name).await;
        over_http(&mut stage, &name).await;
    }
    values(&mut stage).await;
    published.are_ours(&nats).await;
    stage.end().await;
}

async fn on_sockets(stage: &mut Stage, name: &str) {
    let wrong = match is_name(name) {
        true => unknown_type(),
        false => bad_param(),
    };
    let taken_away = match is_name(name) {
        // To take away what nobody has is no mistake.
        true => framed("sys:ok"),
        false => bad_param(),
    };
    for (question, expected) in [
        (json!({ "type": name }), unknown_type()),
        (json!({ "type": name, "id": 1 }), unknown_type()),
        (
            json!({ "type": "sys:subscribe", "types": [name] }),
            wrong.clone(),
        ),
        (
            json!({ "type": "sys:subscribe", "types": { name: {} } }),
            wrong.clone(),
        ),
        (
            json!({ "type": "sys:hello", "types": ["patient", name] }),
            wrong,
        ),
        (
            json!({ "type": "sys:unsubscribe", "types": [name] }),
            taken_away,
        ),
    ] {
        // No text may hold that, a name or not.
        let expected = match name.contains('\0') {
            true => error(400, "nul_not_allowed"),
            false => expected,
        };
        stage.ask("A17", question.to_string(), &[expected]).await;
    }
}

async fn over_http(stage: &mut Stage, name: &str) {
    let coded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let coded = coded.replace('+', "%20");
    let close = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    // Without a name these are other paths.
    let path = match name {
        "" => [status(404, "not_found"), status(404, "unknown_type")],
        _ => [status(404, "unknown_type"), status(404, "unknown_type")],
    };
    // A head has its bounds.
    let long = coded.len() > 4_000;
    if !long {
        let sent = format!("GET /api/query/{coded} {close}\r\n");
        stage.request("A17", sent.as_bytes(), &path).await;
        let sent = format!("POST /api/topics/{coded}/refresh {close}Content-Length: 0\r\n\r\n");
        stage.request("A17", sent.as_bytes(), &path).await;
        let sent = format!("GET /api/stream?types={coded} {close}\r\n");
        stage
            .request("A17", sent.as_bytes(), &[status(400, "bad_param")])
            .await;
    }
    let event = json!({ "type": name, "data": 1 });
    post(stage, "A17", &event, unknown_type()).await;
}

async fn post(stage: &mut Stage, class: &'static str, event: &Json, expected: Told) -> String {
    let body = event.to_string();
    let sent = format!(
        "POST /api/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let expected = match expected {
        Told::Error(code, slug) => status(code, &slug),
        other => other,
    };
    stage.request(class, sent.as_bytes(), &[expected]).await
}

/// A18: values of events on their way into headers and back out to everybody, as data.
async fn values(stage: &mut Stage) {
    let mut witness = stage.server.socket("types=notice").await;
    let mut texts: Vec<String> = [
        "a b",
        "a+b",
        "a%20b",
        "a%2Bb",
        "a\r\nNats-Expected-Stream: OTHER",
        "a\r\n\r\n",
        "a\nb",
        "a\u{0}b",
        "\u{1b}]0;owned\u{7}",
        "\u{1b}[2J",
        "\u{2028}\u{2029}",
        "a: b",
        "é",
        "患者",
        "😀",
        "\u{202e}",
        "\u{feff}",
        "Nats-Rollup: all",
        "%",
        "%%",
        "%0d%0a",
        "$JS.API",
        " ",
        "\t",
        "\\",
        "2026-11-29T12:00:00.000000Z  INFO forged",
        "a\r\n2026-11-29T12:00:00.000000Z ERROR forged",
    ]
    .map(str::to_owned)
    .into();
    texts.push("x".repeat(256));
    texts.push("\u{1}".repeat(256));
    for (number, text) in texts.iter().enumerate() {
        let data = json!({ "n": number, "text": text });
        let event = json!({ "type": "notice", "id": text, "source": text, "subject": text, "data": data, text: text });
        post(stage, "A18", &event, status(202, "")).await;
        // Each is an event of its own: none was taken for another's repetition.
        let pushed = witness.next_of("notice").await;
        assert_eq!(pushed["data"], data, "{text:?}");
    }
    for id in [
        json!(""),
        json!("x".repeat(257)),
        json!(null),
        json!([]),
        json!({}),
        json!(true),
    ] {
        let expected = match id {
            Json::Null => continue,
            _ => bad_param(),
        };
        post(
            stage,
            "A18",
            &json!({ "type": "notice", "id": id }),
            expected,
        )
        .await;
    }
    // Headers of requests that end in our log or answers, if anywhere.
    for value in [
        "\u{1b}[31m",
        "%0d%0aSet-Cookie: x=1",
        "a\tb",
        "\"}{\"",
        "<script>",
        "é",
        CANARY,
    ] {
        for name in [
            "User-Agent",
            "Referer",
            "X-Forwarded-For",
            "X-Request-Id",
            "token",
            "Accept-Language",
            "Last-Event-ID",
        ] {
            let sent = format!(
                "GET /api/query/patient?id=1 HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\nConnection: close\r\n\r\n"
            );
            // A control character is none that a header may have.
            let expected = match value.contains('\u{1b}') {
                true => status(400, ""),
                false => status(200, ""),
            };
            let told = stage.request("A18", sent.as_bytes(), &[expected]).await;
            assert!(
                !told.contains("Set-Cookie") && !told.contains(CANARY),
                "{told}"
            );
        }
    }
    let long = format!(
        "GET /api/query/patient?id=1 HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    stage
        .request("A18", long.as_bytes(), &[status(431, "")])
        .await;
}

/// All subjects that were published to.
struct Published {
    client: async_nats::Client,
    subjects: Arc<Mutex<Vec<String>>>,
}

impl Published {
    async fn on(nats: &Nats) -> Self {
        let client = async_nats::connect(nats.url()).await.unwrap();
        let mut all = client.subscribe(">").await.unwrap();
        client.flush().await.unwrap();
        let subjects = Arc::new(Mutex::new(Vec::new()));
        let seen = subjects.clone();
        tokio::spawn(async move {
            while let Some(message) = all.next().await {
                seen.lock().unwrap().push(message.subject.to_string());
            }
        });
        Self { client, subjects }
    }

    async fn are_ours(&self, nats: &Nats) {
        // What came before this has been seen when this is.
        let fence = format!("fence.{}", nats.url().len());
        self.client.publish(fence.clone(), "".into()).await.unwrap();
        self.client.flush().await.unwrap();
        wait_until("the fence", async || {
            self.subjects.lock().unwrap().contains(&fence).then_some(())
        })
        .await;
        let known = [
            "rowcast.event.notice",
            "rowcast.change.sys.state",
            "rowcast.control.mark",
            "rowcast.control.status",
        ];
        for subject in self.subjects.lock().unwrap().iter() {
            let api = ["$JS.API.", "$JS.EVENT.", "$SRV.", "_INBOX"];
            let ours = known.contains(&&**subject)
                || *subject == fence
                || api.iter().any(|prefix| subject.starts_with(prefix));
            let deleting = ["DELETE", "PURGE", "RESTORE"]
                .iter()
                .any(|word| subject.contains(word));
            assert!(ours && !deleting, "somebody published to {subject:?}");
        }
    }
}
