//! What a request that somebody may make must not bring about: consumers that deliver where he may not publish,
//! headers that have the server do more than store, a body that means another stream than the subject.

use async_nats::Client;
use serde_json::{Value as Json, json};

use super::{
    Site, client, ready,
    replies::{ANSWERS, answer, keeps, kept, streams},
    wire::{Wire, get},
};
use crate::support::{Nats, Server, nats::shipped, wait_until};

/// A minute in nanoseconds, and some: consumers of which nobody takes anything stay.
const LONG: u64 = 600_000_000_000;

/// The server's code in the answer to a request; none where it did what it was asked.
async fn refusal(client: &Client, subject: &str, body: Json) -> Option<u64> {
    let answer = client.request(subject.to_owned(), body.to_string().into());
    let answer: Json = serde_json::from_slice(&answer.await.unwrap().payload).unwrap();
    answer["error"]["err_code"].as_u64()
}

/// Has a consumer made that delivers to a subject; why it was not.
async fn push(gateway: &Client, stream: &str, name: &str, to: &str) -> Option<u64> {
    let config = json!({
        "name": name, "ack_policy": "none", "inactive_threshold": LONG, "deliver_subject": to
    });
    let subject = format!("$JS.API.CONSUMER.CREATE.{stream}.{name}");
    let made = json!({"stream_name": stream, "config": config});
    refusal(gateway, &subject, made).await
}

/// How many messages a consumer has delivered.
async fn delivered(operator: &Client, stream: &str, name: &str) -> u64 {
    let subject = format!("$JS.API.CONSUMER.INFO.{stream}.{name}");
    let info = answer(operator, &subject, String::new()).await;
    info["delivered"]["consumer_seq"].as_u64().unwrap()
}

/// The server delivers where somebody listens to that very subject, and streams listen to `rowcast.change.>`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_delivers_nothing_where_its_maker_may_not_publish() {
    const CYCLE: u64 = 10081;
    let (nats, operator) = streams().await;
    let gateway = client(&nats, "gateway").await;
    let others = [
        "rowcast.event.other",
        "rowcast.control.mark",
        "$JS.API.STREAM.DELETE.ROWCAST",
        "$JS.API.STREAM.DELETE.ROWCAST_REVOKED",
        "$JS.API.CONSUMER.CREATE.ROWCAST_DLQ.c",
        "$SYS.REQ.SERVER.PING",
        "_INBOX_PRODUCER.a",
    ];
    let (mut made, mut silent) = (0, Vec::new());
    for stream in ["ROWCAST", "ROWCAST_REVOKED"] {
        for to in ANSWERS.into_iter().chain(others) {
            made += 1;
            let name = format!("d{made}");
            let refused = push(&gateway, stream, &name, to).await;
            if keeps(to) == Some(stream) {
                assert_eq!(refused, Some(CYCLE), "{stream} {to}");
                continue;
            }
            assert_eq!(refused, None, "{stream} {to}");
            // There it may publish.
            if to != "rowcast.control.revoke" {
                silent.push((stream, name, to));
            }
        }
    }
    // It delivers where somebody listens, so the others would have had time to.
    let create = "$JS.API.CONSUMER.CREATE.ROWCAST.c";
    let config = json!({"name": "c", "ack_policy": "none", "inactive_threshold": LONG});
    let made = json!({"stream_name": "ROWCAST", "config": config});
    assert_eq!(refusal(&gateway, create, made).await, None);
    let loud = "$JS.API.CONSUMER.MSG.NEXT.ROWCAST.c";
    for stream in ["ROWCAST", "ROWCAST_REVOKED"] {
        assert_eq!(push(&gateway, stream, "loud", loud).await, None);
    }
    for subject in ["rowcast.event.t", "rowcast.control.revoke"] {
        answer(&gateway, subject, "{}".into()).await;
    }
    for stream in ["ROWCAST", "ROWCAST_REVOKED"] {
        wait_until("a delivery", async || {
            (delivered(&operator, stream, "loud").await > 0).then_some(())
        })
        .await;
    }
    for (stream, name, to) in silent {
        assert_eq!(
            delivered(&operator, stream, &name).await,
            0,
            "{stream} {to}"
        );
    }
    let kept = kept(&operator).await;
    assert_eq!(kept.get("ROWCAST rowcast.event.t"), Some(&1), "{kept:?}");
    let streams: Vec<&String> = kept
        .keys()
        .filter(|key| key.starts_with("ROWCAST "))
        .collect();
    assert_eq!(streams, ["ROWCAST rowcast.event.t"]);
    assert!(
        !kept.keys().any(|key| key.starts_with("ROWCAST_DLQ")),
        "{kept:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_header_has_the_server_do_what_its_sender_may_not() {
    let (nats, operator) = streams().await;
    let publishes = [
        ("application", "rowcast.event.t"),
        ("gateway", "rowcast.event.t"),
        ("gateway", "rowcast.dlq.t"),
        ("gateway", "rowcast.control.revoke"),
        ("operator", "rowcast.control.revoke"),
    ];
    for (user, subject) in publishes {
        let client = client(&nats, user).await;
        answer(&client, subject, "{}".into()).await;
    }
    let before = kept(&operator).await;
    // To remove what is there, or itself later; to be stored again, later and elsewhere; to count.
    let refused: [(&[(&str, &str)], u64); 6] = [
        (&[("Nats-Rollup", "all")], 10111),
        (&[("Nats-Rollup", "sub")], 10111),
        (&[("Nats-TTL", "1s")], 10166),
        (
            &[
                ("Nats-Schedule", "@every 1s"),
                ("Nats-Schedule-Target", "rowcast.change.t"),
            ],
            10188,
        ),
        (&[("Nats-Incr", "1")], 10168),
        (&[("Nats-Expected-Last-Sequence", "4711")], 10071),
    ];
    for (user, subject) in publishes {
        let sending = client(&nats, user).await;
        for (headers, code) in refused {
            let mut all = async_nats::HeaderMap::new();
            for (name, value) in headers {
                all.insert(*name, *value);
            }
            let sent = sending
                .request_with_headers(subject, all, "{}".into())
                .await;
            let answer: Json = serde_json::from_slice(&sent.unwrap().payload).unwrap();
            assert_eq!(
                answer["error"]["err_code"], code,
                "{user} {subject} {headers:?}"
            );
        }
        // Nor has it told there how the message went.
        let mut wire = Wire::open(&nats, user);
        let mays = super::publishes(user);
        for to in ANSWERS.into_iter().filter(|to| !mays.contains(to)) {
            for only in ["", "Nats-Trace-Only: true\r\n"] {
                let above = format!("NATS/1.0\r\nNats-Trace-Dest: {to}\r\n{only}\r\n");
                let said = wire.publish_under(subject, above.as_bytes(), "{}");
                let said = said.unwrap_or_default();
                assert!(
                    said.contains("Permissions Violation"),
                    "{user} {to}: {said:?}"
                );
            }
        }
    }
    let after = kept(&operator).await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_one_stream_reaches_no_other() {
    let (nats, operator) = streams().await;
    let gateway = client(&nats, "gateway").await;
    let producer = client(&nats, "producer").await;
    let before = kept(&operator).await;
    let consumer = |stream: &str, more: Json| {
        let mut config = json!({"name": "c", "ack_policy": "none"});
        let members = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(members);
        json!({"stream_name": stream, "config": config})
    };
    let create = "$JS.API.CONSUMER.CREATE.ROWCAST.c";
    for (body, code) in [
        (consumer("ROWCAST_DLQ", json!({})), 10056),
        (consumer("ROWCAST", json!({"durable_name": "d"})), 10017),
    ] {
        let refused = refusal(&gateway, create, body.clone()).await;
        assert_eq!(refused, Some(code), "{body}");
    }
    let definition = |file: &str, more: Json| {
        let mut definition: Json = serde_json::from_str(&super::definition(file)).unwrap();
        let members = more.as_object().unwrap().clone();
        definition.as_object_mut().unwrap().extend(members);
        definition
    };
    for who in [&producer, &operator] {
        for (stream, file, more, code) in [
            // Another one than the subject says.
            ("ROWCAST_REVOKED", "stream.json", json!({}), 10056),
            // What another one keeps.
            (
                "ROWCAST_REVOKED",
                "revocations.json",
                json!({"subjects": ["rowcast.change.>"]}),
                10065,
            ),
            // What NATS lets nobody take back.
            (
                "ROWCAST_REVOKED",
                "revocations.json",
                json!({"deny_purge": false}),
                10052,
            ),
            (
                "ROWCAST_REVOKED",
                "revocations.json",
                json!({"deny_delete": false}),
                10052,
            ),
            (
                "ROWCAST",
                "stream.json",
                json!({"deny_purge": false}),
                10052,
            ),
            (
                "ROWCAST",
                "stream.json",
                json!({"deny_delete": false}),
                10052,
            ),
        ] {
            let subject = format!("$JS.API.STREAM.UPDATE.{stream}");
            let refused = refusal(who, &subject, definition(file, more.clone())).await;
            assert_eq!(refused, Some(code), "{stream} {more}");
        }
    }
    assert_eq!(kept(&operator).await, before);
}

/// What the client of NATS ends itself for.
const RETURN: &[u8] = b"NATS/1.0\r\nX: a\rb\r\n\r\n";

/// The connection of that name that is there now, if it listens to `subject`.
fn connection(nats: &Nats, name: &str, subject: &str) -> Option<u64> {
    let told: Json = serde_json::from_str(&get(&nats.monitor(), "/connz?subs=1")).unwrap();
    let all = told["connections"].as_array().unwrap();
    let one = all.iter().find(|one| one["name"] == name)?;
    let listens = one["subscriptions_list"].as_array()?;
    listens
        .iter()
        .any(|to| to == subject)
        .then(|| one["cid"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_so_that_it_cannot_be_read_ends_no_connection_but_the_one_for_queries() {
    let site = Site::new(Nats::with(shipped()));
    let producer = site.producer();
    ready(&producer).await;
    let _gateway = site.gateway();
    let listening = async |name: &str, subject: &str, but: Option<u64>| {
        wait_until("a connection that listens", async || {
            connection(&site.nats, name, subject).filter(|found| Some(*found) != but)
        })
        .await
    };
    let (bus, queries) = ("rowcast gateway", "rowcast gateway, queries");
    let before = listening(bus, "rowcast.control.>", None).await;
    let mut application = Wire::open(&site.nats, "application");
    let mut last = listening(queries, "rowcast.query.*", None).await;
    // For one the connection is ended, for the other the client itself.
    let unreadable = [&b"NATS/1.0\r\nname: M\xfcller\r\n\r\n"[..], RETURN];
    for headers in unreadable.into_iter().cycle().take(4) {
        assert_eq!(
            application.publish_under("rowcast.query.t", headers, ""),
            None
        );
        last = listening(queries, "rowcast.query.*", Some(last)).await;
    }
    let asking = client(&site.nats, "application").await;
    let answer = asking.request("rowcast.query.t", "{\"id\":1}".into()).await;
    let answer: Json = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert_eq!(answer["data"][0]["id"], 1, "{answer}");
    assert_eq!(listening(bus, "rowcast.control.>", None).await, before);
}

/// Neither the gateway that hears it, nor one that starts while the stream keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_over_which_the_client_ends_itself_ends_no_gateway() {
    let site = Site::new(Nats::with(shipped()));
    let producer = site.producer();
    ready(&producer).await;
    let mut gateway = site.gateway();
    let (mut notes, mut page) = (
        gateway.socket("types=t,note").await,
        gateway.socket("types=page").await,
    );
    site.database.sql("UPDATE t SET n = 1");
    let before = notes.next_of("t").await["cursor"].clone();
    let mut application = Wire::open(&site.nats, "application");
    let mut operator = Wire::open(&site.nats, "operator");
    page.next_of("page").await;
    for round in 0..3 {
        let event = json!({"type": "note", "data": round}).to_string();
        let refused = application.publish_under("rowcast.event.note", RETURN, &event);
        assert_eq!(refused, None);
        assert_eq!(notes.next_of("note").await["data"], round);
        site.database
            .sql(&format!("UPDATE t SET n = {}", 10 + round));
        assert_eq!(notes.next_of("t").await["data"]["n"], 10 + round);
        page.next_of("page").await;
    }
    // What it had listened to before, it listens to again.
    let mut asked = Wire::open(&site.nats, "operator");
    let listening = async |but: Option<u64>| {
        wait_until("all who listen to the control subjects", async || {
            let told = get(&site.nats.monitor(), "/connz?subs=1");
            let found = connection(&site.nats, "rowcast gateway", "rowcast.control.>");
            let all = told.matches("\"rowcast.control.\\u003e\"").count() == 2;
            found.filter(|found| all && Some(*found) != but)
        })
        .await
    };
    let old = listening(None).await;
    assert_eq!(
        asked.publish("rowcast.control.refresh", "{\"type\":\"page\"}"),
        None
    );
    page.next_of("page").await;
    // The same on a control subject, which nobody keeps.
    let refused = operator.publish_under("rowcast.control.refresh", RETURN, "{}");
    assert_eq!(refused, None);
    listening(Some(old)).await;
    site.database.sql("UPDATE t SET n = 20");
    assert_eq!(notes.next_of("t").await["data"]["n"], 20);
    // Who starts later reads past them, and ends no more than one client over each.
    gateway.kill();
    gateway.restart();
    let since = format!("types=t,note&since={}", before.as_str().unwrap());
    let panics = |gateway: &Server| gateway.log().matches("panicked").count();
    let mut ended = Vec::new();
    for _ in 0..3 {
        let mut late = gateway.socket(&since).await;
        for round in 0..3 {
            assert_eq!(late.next_of("note").await["data"], round);
            assert_eq!(late.next_of("t").await["data"]["n"], 10 + round);
        }
        assert_eq!(late.next_of("t").await["data"]["n"], 20);
        ended.push(panics(&gateway));
    }
    assert_eq!(ended[0], ended[2], "{}", gateway.log());
}
