//! Where answers go. Whoever asks chooses it, and NATS does not look whether he may publish there: nobody gets
//! written what he may not write himself, and what he may is stored and acknowledged as it always was.

use std::{collections::BTreeMap, fs};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value as Json, json};

use super::{Site, USERS, client, definition, publishes, ready, wire::Wire};
use crate::support::{Nats, in_time, nats::shipped, wait_until};

/// Subjects to be answered to: all that a stream keeps, and what would touch one.
pub const ANSWERS: [&str; 7] = [
    "rowcast.change.t",
    "rowcast.change.sys.state",
    "rowcast.event.t",
    "rowcast.dlq.t",
    "rowcast.control.revoke",
    "$JS.API.STREAM.PURGE.ROWCAST_DLQ",
    "$JS.API.STREAM.UPDATE.ROWCAST",
];

const STREAMS: [(&str, &str); 3] = [
    ("ROWCAST", "stream.json"),
    ("ROWCAST_DLQ", "dead_letters.json"),
    ("ROWCAST_REVOKED", "revocations.json"),
];

/// The shipped server with its streams, and nobody else.
pub async fn streams() -> (Nats, Client) {
    let nats = Nats::with(shipped());
    let operator = client(&nats, "operator").await;
    for (name, file) in STREAMS {
        let subject = format!("$JS.API.STREAM.CREATE.{name}");
        answer(&operator, &subject, definition(file)).await;
    }
    (nats, operator)
}

/// The answer to a request of JetStream's, which is no error.
pub async fn answer(client: &Client, subject: &str, body: String) -> Json {
    let answer = client.request(subject.to_owned(), body.into()).await;
    let answer: Json = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert_eq!(answer["error"], Json::Null, "{subject}: {answer}");
    answer
}

/// How many messages each subject has in the streams.
pub async fn kept(operator: &Client) -> BTreeMap<String, u64> {
    let mut kept = BTreeMap::new();
    for (name, _) in STREAMS {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        let info = answer(
            operator,
            &subject,
            json!({"subjects_filter": ">"}).to_string(),
        )
        .await;
        for (subject, count) in info["state"]["subjects"].as_object().into_iter().flatten() {
            kept.insert(format!("{name} {subject}"), count.as_u64().unwrap());
        }
    }
    kept
}

/// The stream that keeps a subject.
pub fn keeps(subject: &str) -> Option<&'static str> {
    match subject.split('.').take(3).collect::<Vec<_>>()[..] {
        ["rowcast", "change" | "event", _] => Some("ROWCAST"),
        ["rowcast", "dlq", _] => Some("ROWCAST_DLQ"),
        ["rowcast", "control", "revoke"] => Some("ROWCAST_REVOKED"),
        _ => None,
    }
}

/// A body with which something is answered and nothing is done.
fn body(subject: &str) -> &'static str {
    match subject {
        get if get.contains(".GET.") => "{\"seq\":1}",
        next if next.contains(".NEXT.") => "{\"batch\":1,\"no_wait\":true}",
        info if info.contains("INFO") || info.contains(".NAMES") => "",
        _ => "{",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_has_an_answer_written_where_he_may_not_publish() {
    let (nats, operator) = streams().await;
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    let mut write = |subject: &str| {
        if let Some(stream) = keeps(subject) {
            *written.entry(format!("{stream} {subject}")).or_default() += 1;
        }
    };
    // Something to be answered with that would pass for a change.
    let mut forging = HeaderMap::new();
    forging.insert("Rowcast-Epoch", "e0");
    let gateway = client(&nats, "gateway").await;
    let event = gateway.publish_with_headers("rowcast.event.t", forging, "{}".into());
    event.await.unwrap();
    gateway.flush().await.unwrap();
    write("rowcast.event.t");
    for stream in ["ROWCAST", "ROWCAST_REVOKED"] {
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.c");
        let config =
            json!({"name": "c", "ack_policy": "none", "inactive_threshold": 600_000_000_000_u64});
        let made = json!({"stream_name": stream, "config": config});
        answer(&gateway, &subject, made.to_string()).await;
    }
    for user in USERS {
        let mut wire = Wire::open(&nats, user);
        let mays = publishes(user);
        for inbox in ANSWERS.into_iter().filter(|inbox| !mays.contains(inbox)) {
            for subject in mays {
                assert_eq!(wire.ask(subject, inbox, body(subject)), None);
                write(subject);
            }
        }
    }
    // What comes late comes before this.
    for _ in 0..2 {
        let before = kept(&operator).await;
        let last = Wire::open(&nats, "application").ask("rowcast.event.t", "_INBOX.x", "?");
        assert_eq!(last, None);
        write("rowcast.event.t");
        wait_until("the last", async || {
            let now = kept(&operator).await;
            (now["ROWCAST rowcast.event.t"] > before["ROWCAST rowcast.event.t"]).then_some(())
        })
        .await;
    }
    for (subject, count) in &written {
        wait_until(&format!("{count} of {subject}"), async || {
            (kept(&operator).await.get(subject) >= Some(count)).then_some(())
        })
        .await;
    }
    assert_eq!(kept(&operator).await, written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_application_publishes_is_stored_as_it_is_and_acknowledged() {
    let (nats, _operator) = streams().await;
    let (application, gateway) = (
        client(&nats, "application").await,
        client(&nats, "gateway").await,
    );
    let send = async |headers: &[(&str, &str)]| {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, *value);
        }
        let sent = application.request_with_headers("rowcast.event.note", all, "{}".into());
        let answer = sent.await.unwrap().payload;
        serde_json::from_slice::<Json>(&answer).unwrap()
    };
    let first = send(&[("Nats-Msg-Id", "7"), ("ce-type", "note")]).await;
    assert_eq!(
        (&first["stream"], &first["seq"]),
        (&json!("ROWCAST"), &json!(1))
    );
    let again = send(&[("Nats-Msg-Id", "7")]).await;
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&json!(1), &json!(true))
    );
    let refused = send(&[("Nats-Expected-Last-Sequence", "41")]).await;
    assert_eq!(refused["error"]["err_code"], 10071, "{refused}");
    // Without asking for anything.
    let said = application.publish("rowcast.event.note", "2".into());
    said.await.unwrap();
    application.flush().await.unwrap();
    let get = async |seq: u64| {
        let ask = json!({ "seq": seq }).to_string();
        let there = gateway.request("$JS.API.DIRECT.GET.ROWCAST", ask.into());
        let there = there.await.unwrap();
        there.status.is_none().then_some(there)
    };
    let stored = wait_until("the second", async || get(2).await).await;
    assert_eq!(stored.payload, Bytes::from("2"));
    let stored = get(1).await.unwrap();
    let headers = stored.headers.unwrap();
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    let theirs = [
        "Nats-Sequence",
        "Nats-Stream",
        "Nats-Subject",
        "Nats-Time-Stamp",
    ];
    names.retain(|name| !theirs.contains(&name.as_str()));
    assert_eq!(names, ["Nats-Msg-Id", "ce-type"]);
    assert_eq!(
        headers.get("Nats-Subject").unwrap().as_str(),
        "rowcast.event.note"
    );
}

/// An account without streams of its own would have JetStream answer that there are none, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_answered_once() {
    let (nats, _operator) = streams().await;
    for user in USERS {
        let client = client(&nats, user).await;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        let asked = client.publish_with_reply("$JS.API.STREAM.INFO.ROWCAST", inbox, Bytes::new());
        asked.await.unwrap();
        let first = in_time("the answer", answers.next()).await.unwrap();
        let first: Json = serde_json::from_slice(&first.payload).unwrap();
        assert_eq!(first["config"]["name"], "ROWCAST", "{user}: {first}");
        // Another one would have come before this.
        answer(&client, "$JS.API.STREAM.INFO.ROWCAST", String::new()).await;
        assert!(answers.next().now_or_never().is_none(), "{user}");
    }
}

/// As somebody may have configured it: nothing but the gateway stands between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_one_account_for_all_a_gateway_answers_on_no_subject_of_ours() {
    let site = Site::new(Nats::start());
    let producer = site.producer();
    ready(&producer).await;
    let gateway = site.gateway();
    // It answers.
    let asking = site.client("application").await;
    wait_until("an answer", async || {
        let answer = asking.request("rowcast.query.t", "".into()).await;
        answer.is_ok().then_some(())
    })
    .await;
    let before = site.stored().await;
    let mut asking = Wire::open(&site.nats, "application");
    let inboxes = [
        "rowcast.change.t",
        "rowcast.control.revoke",
        "$JS.API.STREAM.PURGE.ROWCAST",
    ];
    for inbox in inboxes {
        assert_eq!(asking.ask("rowcast.query.t", inbox, ""), None);
    }
    wait_until("the gateway to refuse", async || {
        let log = gateway.log();
        let refused = log.matches("its reply subject is one of our own").count();
        (refused == inboxes.len()).then_some(())
    })
    .await;
    assert_eq!(site.stored().await, before);
}

#[test]
fn an_account_imports_what_its_user_may_publish_and_nothing_else() {
    let text = fs::read_to_string(shipped().config.unwrap()).unwrap();
    let (_, accounts) = text.split_once("accounts {").unwrap();
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    for user in USERS {
        let name = format!("  {}S: {{", user.to_uppercase());
        let (_, account) = accounts.split_once(&name).unwrap();
        let (account, _) = account.split_once("\n  }\n").unwrap();
        let (_, publish) = account.split_once("publish: [").unwrap();
        let (publish, _) = publish.split_once("\n          ]").unwrap();
        let publish: Vec<String> = publish
            .lines()
            .filter(|line| !line.contains('#'))
            .filter_map(quoted)
            .collect();
        let (_, imports) = account.split_once("imports: [").unwrap();
        let services = imports.lines().filter(|line| line.contains("service:"));
        let imports: Vec<String> = services.filter_map(quoted).collect();
        for import in &imports {
            // Of this one see everybody_is_answered_once.
            let known = publish.contains(import) || import == "$JS.API.INFO";
            assert!(known, "{user}: {import}");
        }
        // The others' requests stay in the account, and reach whoever exports them.
        for subject in publish.iter().filter(|subject| subject.starts_with("$JS.")) {
            assert!(imports.contains(subject), "{user}: {subject}");
        }
        assert!(!account.contains("jetstream"), "{user}");
    }
    let (_, streams) = accounts.split_once("  ROWCAST: {").unwrap();
    let (streams, _) = streams.split_once("\n  }\n").unwrap();
    assert!(!streams.contains("users"), "{streams}");
}
