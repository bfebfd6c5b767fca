//! PostgreSQL is away: who listens is served what can be judged, in order, and hears the rest when it is back.
//! Whose sockets are new waits for it no more than others.

use async_nats::jetstream;
use serde_json::{Value as Json, json};

use super::home::{Home, connect, doctor, is_innocent, nurse};
use crate::support::{Server, Socket, in_time, postgres::Cluster, wait_until};

/// Topics of everybody's, beside those of the document.
const OPEN: &str = "[[topics]]\ntype = \"notice\"\n[[topics]]\ntype = \"menu\"\ntable = \"menu\"\n";

const MENU: &str = "CREATE TABLE menu (id int PRIMARY KEY, dish text)";

async fn home(cluster: &Cluster) -> Home {
    let database = cluster.database();
    database.sql(MENU);
    Home::on(database, OPEN, Vec::new()).await
}

/// What a socket is sent of topics, in short, up to the notice of that text.
async fn up_to(socket: &mut Socket, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let text = in_time(last, socket.next_text()).await;
        is_innocent("while the database is away", &text);
        let frame: Json = serde_json::from_str(&text).unwrap();
        let word = |member: &str| frame[member].as_str().unwrap_or_default().to_owned();
        match word("type").as_str() {
            "notice" => heard.push(word("data")),
            "patient" | "menu" => {
                heard.push(format!(
                    "{} {} {}",
                    word("type"),
                    word("op"),
                    frame["key"]["id"]
                ));
            }
            _ => continue,
        }
        if heard.last().is_some_and(|heard| heard == last) {
            return heard;
        }
    }
}

async fn notice(home: &Home, text: &str) {
    let event = json!({ "type": "notice", "data": text });
    let (status, body) = home.http(&nurse(), "POST", "/api/events", event).await;
    assert_eq!(status, 202, "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_come_while_the_database_is_away_wait_for_nothing() {
    let cluster = Cluster::own(&[]);
    let home = home(&cluster).await;
    let mut first = home.socket(&doctor(), "").await;
    let pong = first.ask(json!({"type": "sys:hello", "rid": 1})).await;
    let since = format!("since={}", pong["cursor"].as_str().unwrap());
    // Nobody has come to this one before.
    let gateway = home.another("");
    is_ready(&gateway).await;
    home.database.sql("INSERT INTO menu VALUES (1, 'soup')");
    home.database
        .sql("UPDATE patient SET bed = 'x' WHERE id IN (1, 3, 777000101)");
    home.database.sql("INSERT INTO menu VALUES (2, 'rice')");
    while first.next_of("menu").await["key"]["id"] != 2 {}
    notice(&home, "all written").await;
    // Whatever is to come has come to both.
    for of in [&home.gateway, &gateway] {
        up_to(&mut connect(of, &nurse(), &since).await, "all written").await;
    }
    let unseen = home.another("");
    is_ready(&unseen).await;
    cluster.freeze();
    for gateway in [&gateway, &unseen] {
        let open = format!("types=menu,notice&{since}");
        let mut some = connect(gateway, &nurse(), &open).await;
        let all = ["menu insert 1", "menu insert 2", "all written"];
        assert_eq!(up_to(&mut some, "all written").await, all);
        let mut everything = connect(gateway, &nurse(), &since).await;
        let all = [all[0], "patient update 1", all[1], all[2]];
        assert_eq!(up_to(&mut everything, "all written").await, all);
        let mut live = connect(gateway, &nurse(), "").await;
        for socket in [&mut some, &mut everything, &mut live] {
            assert_eq!(
                socket.ask(json!({"type": "sys:ping", "rid": 9})).await["type"],
                "sys:pong"
            );
        }
        let last = format!("live on {}", gateway.address());
        notice(&home, &last).await;
        for socket in [&mut some, &mut everything, &mut live] {
            assert_eq!(up_to(socket, &last).await.last(), Some(&last));
        }
    }
    cluster.thaw();
}

/// Puts events as the producer's on the bus, which is frozen with its database.
async fn published(home: &Home, number: u32, data: Json) {
    let client = async_nats::connect(home.nats.url()).await.unwrap();
    let context = jetstream::new(client);
    let stream = context.get_stream("ROWCAST").await.unwrap();
    let subject = "rowcast.change.patient";
    let last = stream.get_last_raw_message_by_subject(subject).await;
    let mut event: Json = serde_json::from_slice(&last.unwrap().payload).unwrap();
    let id = event["id"].as_str().unwrap().to_owned();
    let (history, _) = id.split_once(':').unwrap();
    event["id"] = format!("{history}:fffffffff{number:03x}.0/patient").into();
    event["data"] = data;
    let members = event.as_object_mut().unwrap();
    members.shift_remove("subject");
    members.shift_remove("tx");
    let sent = context.publish(subject, event.to_string().into()).await;
    let stored = sent.unwrap().into_future();
    in_time("an acknowledgement", stored).await.unwrap();
}

fn row(id: u64, tenant: &str, name: &str) -> Json {
    let image = json!({
        "id": id, "tenant": tenant, "ward": "1", "name": name, "bed": null, "diagnosis": null
    });
    json!({ "op": "update", "key": { "id": id }, "row": image, "old": image })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_takes_a_topic_whose_table_may_be_another_waits_for_its_description() {
    let cluster = Cluster::own(&[]);
    let home = home(&cluster).await;
    let mut taker = home.socket(&nurse(), "types=patient,notice").await;
    home.database
        .sql("UPDATE patient SET bed = 'x' WHERE id = 1");
    assert_eq!(taker.next_of("patient").await["key"]["id"], 1);
    let mut open = home.socket(&nurse(), "types=notice").await;
    let hello = json!({"type": "sys:hello", "rid": 1});
    let cursor = open.ask(hello).await["cursor"].as_str().unwrap().to_owned();
    // Keeps next to nothing in memory.
    let small = home.another("ring_max_bytes = 65536");
    is_ready(&small).await;
    cluster.freeze();
    notice(&home, "a").await;
    published(&home, 1, json!({ "op": "reload" })).await;
    notice(&home, "b").await;
    published(&home, 2, row(777_000_101, "CANARY-elm", "CANARY")).await;
    published(&home, 3, row(1, "oak", "Anna")).await;
    let long = "c".repeat(2000);
    for _ in 0..60 {
        notice(&home, &long).await;
    }
    notice(&home, "d").await;
    let mut all = vec!["a", "b"];
    all.extend([long.as_str(); 60]);
    all.push("d");
    assert_eq!(up_to(&mut open, "d").await, all);
    let mut takers = vec![taker];
    for gateway in [&home.gateway, &small] {
        let since = format!("since={cursor}");
        let mut again = connect(gateway, &nurse(), &format!("types=notice&{since}")).await;
        assert_eq!(up_to(&mut again, "d").await, all);
        takers.push(connect(gateway, &nurse(), &format!("types=patient,notice&{since}")).await);
        let mut latest = connect(gateway, &nurse(), "hello=1&types=patient,notice").await;
        let hello = json!({"type": "sys:hello", "rid": 1, "mode": "latest", "since": cursor});
        latest.send(hello).await;
        takers.push(latest);
    }
    for socket in &mut takers {
        assert_eq!(up_to(socket, "b").await, ["a", "patient reload null", "b"]);
        // It is held, and lives: what a client asks is answered.
        socket.send(json!({"type": "sys:ping", "rid": 2})).await;
        loop {
            let text = in_time("a pong", socket.next_text()).await;
            if text.contains("sys:pong") {
                break;
            }
            // Nothing passes a row that nobody can judge.
            assert!(text.contains("sys:tick"), "{text}");
        }
    }
    cluster.thaw();
    let mut rest = vec!["patient update 1"];
    rest.extend([long.as_str(); 60]);
    rest.push("d");
    for socket in &mut takers {
        assert_eq!(up_to(socket, "d").await, rest);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ask_for_the_list_of_topics_the_database_is_asked_once() {
    let cluster = Cluster::own(&[]);
    let settings = [
        ("ROWCAST__LIMITS__READS_WAITING", "16"),
        // All of them are one nurse's.
        ("ROWCAST__LIMITS__REQUESTS_BURST", "1000"),
        // However long it takes all of them to come.
        ("ROWCAST__DATABASE__QUERY_TIMEOUT_MS", "60000"),
    ];
    let database = cluster.database();
    database.sql(MENU);
    let settings = settings.map(|(name, value)| (name.into(), value.into()));
    let home = Home::on(database, OPEN, settings.into()).await;
    let gateway = &home.gateway;
    cluster.freeze();
    let client = reqwest::Client::new();
    let ask = |path: &str| tokio::spawn(client.get(gateway.url(path)).bearer_auth(nurse()).send());
    // More than wait and are asked at once.
    let asked: Vec<_> = (0..180)
        .map(|n| ask(["/api/topics", "/api/types"][n % 2]))
        .collect();
    wait_until("all who ask", async || {
        (gateway.counted("connections").await >= 180).then_some(())
    })
    .await;
    cluster.thaw();
    for answer in asked {
        let answer = in_time("an answer", answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let body = answer.text().await.unwrap();
        assert!(body.contains("dish") && body.contains("ward"), "{body}");
    }
    assert_eq!(gateway.counted("limited_total{limit=\"reads\"}").await, 0);
}

/// A gateway that nobody has come to before.
async fn is_ready(gateway: &Server) {
    wait_until("a gateway", async || {
        (gateway.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}
