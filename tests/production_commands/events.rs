//! Definitions that change, messages that are no events, and every type of a column.

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::support::{Socket, in_time, values, wait_until};

use super::{Site, TABLE, TOPIC};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_defined_otherwise_is_read_again_by_its_followers() {
    let topics = |least: i32| {
        format!("{TOPIC}where = \"n >= {least}\"\n[[topics]]\ntype = \"same\"\ntable = \"t\"\n")
    };
    let site = Site::new(TABLE);
    site.database.sql("ALTER TABLE t REPLICA IDENTITY FULL");
    let mut producer = site.producer(&topics(0)).await;
    let gateway = site.gateway(&topics(0));
    let mut socket = gateway.socket("").await;
    site.database.sql("UPDATE t SET n = 1");
    assert_eq!(socket.next().await["type"], "t");
    assert_eq!(socket.next().await["type"], "same");
    producer.kill();
    let _producer = site.producer(&topics(5)).await;
    let told = socket.next().await;
    assert_eq!(
        (&told["type"], &told["op"]),
        (&json!("t"), &json!("reload")),
        "{told}"
    );
    // Told once, and only of what is another; the new definition is judged by.
    site.database.sql("UPDATE t SET n = 2");
    assert_eq!(socket.next().await["type"], "same");
    site.database.sql("UPDATE t SET n = 5");
    let told = socket.next().await;
    assert_eq!(
        (&told["type"], &told["data"]["n"]),
        (&json!("t"), &json!(5)),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_no_event_is_a_dead_letter_once_and_stops_nobody() {
    let site = Site::new(TABLE);
    let _producer = site.producer(TOPIC).await;
    let gateways = [site.gateway(TOPIC), site.gateway(TOPIC)];
    let mut sockets = Vec::new();
    for gateway in &gateways {
        sockets.push(gateway.socket("").await);
    }
    let client = async_nats::connect(site.nats.url()).await.unwrap();
    let mut letters = client.subscribe("rowcast.dlq.>").await.unwrap();
    client.flush().await.unwrap();
    let stream = async_nats::jetstream::new(client);
    let send = async |headers: HeaderMap, payload: &str| {
        let payload = payload.to_owned().into();
        let sent = stream.publish_with_headers("rowcast.event.t", headers, payload);
        sent.await.unwrap().await.unwrap();
    };
    let poison = [
        "no JSON at all",
        "{\"type\":\"other\",\"data\":1}",
        "{\"data\":1}",
    ];
    for payload in poison {
        send(HeaderMap::new(), payload).await;
    }
    send(HeaderMap::new(), "{\"type\":\"t\",\"data\":{\"n\":1}}").await;
    let cloud = json!({
        "specversion": "1.0", "type": "t", "id": "7", "source": "/lab", "subject": "s",
        "datacontenttype": "application/json", "data": {"n": 2},
    });
    send(HeaderMap::new(), &cloud.to_string()).await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-type", "t"),
        ("ce-id", "8"),
        ("ce-source", "/lab"),
        ("content-type", "application/json"),
    ] {
        headers.insert(name, value);
    }
    send(headers, "{\"n\":3}").await;
    for socket in &mut sockets {
        for n in 1..=3 {
            let told = socket.next().await;
            assert_eq!(
                (&told["op"], &told["data"]),
                (&json!("event"), &json!({"n": n}))
            );
        }
    }
    for gateway in &gateways {
        wait_until("both to have seen the poison", async || {
            (gateway.counted("dead_letters_total").await == 3).then_some(())
        })
        .await;
    }
    // A bare subscriber hears each gateway; the stream keeps what the first one said.
    for _ in 0..poison.len() * gateways.len() {
        let letter = in_time("a dead letter", letters.next()).await.unwrap();
        assert_eq!(letter.subject.as_str(), "rowcast.dlq.t");
        assert!(
            poison
                .iter()
                .any(|payload| letter.payload == payload.as_bytes())
        );
        assert!(letter.headers.unwrap().get("Rowcast-Reason").is_some());
    }
    let kept = wait_until("the dead letters' stream", async || {
        stream.get_stream("ROWCAST_DLQ").await.ok()
    })
    .await;
    assert_eq!(kept.get_info().await.unwrap().state.messages, 3);
}

#[derive(Deserialize)]
struct Frame {
    data: Option<Box<RawValue>>,
    op: Option<String>,
}

/// The `data` of a frame as it stands, for JSON's numbers know more than a `f64`.
async fn data(socket: &mut Socket, op: &str) -> String {
    loop {
        let text = socket.next_text().await;
        let frame: Frame = serde_json::from_str(&text).unwrap();
        if frame.op.as_deref() == Some(op) {
            return frame.data.expect("data").get().to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_and_a_query_tell_every_type_alike() {
    let topics = "[[topics]]\ntype = \"row\"\ntable = \"v\"\n
        [[topics]]\ntype = \"page\"\ntable = \"v\"\npush = \"page\"\n";
    let (table, insert) = values::table("v");
    let site = Site::new(&table);
    let _producer = site.producer(topics).await;
    let gateway = site.gateway(topics);
    let mut rows = gateway.socket("types=row").await;
    let mut pages = gateway.socket("types=page").await;
    site.database.sql(&insert);
    let columns = values::VALUES.iter().enumerate();
    let told: Vec<String> = columns
        .map(|(n, (.., json))| format!("\"v{n}\":{json}"))
        .collect();
    let expected = format!("{{\"id\":1,{}}}", told.join(","));
    let page = data(&mut pages, "replace").await;
    assert_eq!(page, format!("[{expected}]"));
    assert_eq!(data(&mut rows, "insert").await, expected);
    rows.send(json!({"type": "row", "rid": 1, "id": 1})).await;
    assert_eq!(data(&mut rows, "replace").await, format!("[{expected}]"));
    pages.send(json!({"type": "page", "rid": 1})).await;
    assert_eq!(data(&mut pages, "replace").await, format!("[{expected}]"));
    // An update that leaves all but the key of the row as it was tells it whole again.
    site.database.sql("UPDATE v SET id = 2");
    let moved = expected.replacen("\"id\":1", "\"id\":2", 1);
    let mut told = data(&mut rows, "update").await;
    if told != moved {
        told = data(&mut rows, "update").await;
    }
    assert_eq!(told, moved);
}
