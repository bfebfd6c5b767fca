//! Requests without a socket, and what all askers have together: reads of the database, and writes.

use std::{collections::BTreeSet, time::Instant};

use futures_util::future::join_all;
use serde_json::{Value as Json, json};

use super::{
    answers::{ALL_THE_TIME, BIG, unread},
    counted, limited,
};
use crate::support::{Options, Server, in_time, stack::Stack, wait_until};

/// A query on this is never done within 300 ms: the pattern nearly fits at each place of each text.
const HEAVY: &str = "
    CREATE TABLE big (id INTEGER PRIMARY KEY, text TEXT);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO big SELECT i, printf('%.*c', 1000, 'a') FROM n;";

fn heavy(limits: &str) -> Server {
    let config = format!(
        "[limits]\n{limits}\n[database]\nquery_timeout_ms = 300\n[[topics]]\ntype = \"big\"\ntable = \"big\"\n"
    );
    Server::configured(&config, HEAVY)
}

/// A query that no other is like.
fn pattern(number: usize) -> String {
    format!("%{}b{number}", "a".repeat(200))
}

/// Asks so many at once; the status, what `Retry-After` says, and the answer of each.
async fn ask(server: &Server, count: usize) -> Vec<(u16, Option<String>, Json)> {
    let client = reqwest::Client::new();
    let asking = (0..count).map(|number| {
        let url = server.url(&format!(
            "/api/query/big?filter[text][like]={}",
            pattern(number)
        ));
        let asked = client.get(url.replace('%', "%25")).send();
        async {
            let answer = asked.await.unwrap();
            let wait = answer.headers().get("retry-after");
            let wait = wait.map(|wait| wait.to_str().unwrap().to_owned());
            (answer.status().as_u16(), wait, answer.json().await.unwrap())
        }
    });
    join_all(asking).await
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_queries_over_http_run_as_the_setting_says_and_the_next_is_told_to_come_again() {
    let server = heavy("requests_running = 3");
    let answers = ask(&server, 3).await;
    assert!(
        answers.iter().all(|(code, _, _)| *code == 504),
        "{answers:?}"
    );
    // At the same time these are too many, however many of them the machine lets come later.
    let answers = ask(&server, 20).await;
    let refused: Vec<_> = answers.iter().filter(|(code, _, _)| *code == 429).collect();
    assert!((1..20).contains(&refused.len()), "{answers:?}");
    for (_, wait, answer) in &refused {
        assert_eq!(wait.as_deref(), Some("1"));
        assert_eq!(answer["error"], "too_many_requests");
    }
    let refused = refused.len() as u64;
    assert_eq!(counted(&server, "requests").await, refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_all_places_are_taken_everybody_is_told_to_come_again_and_a_socket_is_answered() {
    const PLACES: usize = 3;
    // Whoever takes his time keeps his place for as long.
    let config = format!(
        "[server]\nwrite_timeout_ms = 600000\n[limits]\nrequests_running = {PLACES}\n{ALL_THE_TIME}\
         [[topics]]\ntype = \"big\"\ntable = \"big\"\n"
    );
    let server = Server::configured(&config, BIG);
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(unread(&server, "/api/query/big?all=true").await);
    }
    for asked in 1..=10 {
        let (code, answer) = server.get("/api/query/big?size=1").await;
        assert_eq!(
            (code, &answer["error"]),
            (429, &json!("too_many_requests")),
            "{answer}"
        );
        assert_eq!(counted(&server, "requests").await, asked);
    }
    // Rows by their key have their own places, and a socket its own bounds.
    assert_eq!(server.get("/api/query/big?id=1").await.0, 200);
    let mut socket = server.socket("").await;
    let answer = socket
        .ask(json!({ "type": "big", "rid": 1, "id": 1 }))
        .await;
    assert_eq!(answer["data"][0]["id"], 1, "{answer}");
    held.pop();
    wait_until("a place", async || {
        (server.get("/api/query/big?size=1").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_are_bounded_over_all_who_ask() {
    let server = heavy("requests_running = 1000\nreads_waiting = 1");
    let begun = Instant::now();
    let answers = ask(&server, 100).await;
    let refused = answers.iter().filter(|(code, _, _)| *code == 429);
    let (refused, counted) = (refused.count(), counted(&server, "reads").await);
    // Two run, one is about to and one waits; every 300 ms two of them end, and as many may come.
    let turns = usize::try_from(begun.elapsed().as_millis() / 300).unwrap() + 1;
    let least = 100_usize.saturating_sub(4 + 4 * turns).max(1);
    assert!((least..99).contains(&refused), "{refused}, {turns} turns");
    assert_eq!(counted, refused as u64);
    // The socket's answer is the same.
    let (answers, told) = tokio::join!(ask(&server, 100), async {
        let mut socket = server.socket("").await;
        let mut told = BTreeSet::new();
        for rid in 0..10 {
            let filter = json!({ "text": { "like": pattern(1000 + rid) } });
            let query = json!({ "type": "big", "rid": rid, "params": { "filter": filter } });
            told.insert(socket.ask(query).await["code"].as_u64().unwrap());
        }
        told
    });
    assert_eq!(answers.len(), 100);
    assert!(told.is_subset(&[429, 504].into()), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_or_refused_with_when_to_come_again_and_never_both() {
    let server = limited("writes_running = 1");
    let mut socket = server.socket("types=notice").await;
    let client = reqwest::Client::new();
    let publish = |number: u64| {
        let event = json!({ "type": "notice", "data": number });
        let sent = client.post(server.url("/api/events")).json(&event).send();
        async move {
            let answer = sent.await.unwrap();
            let wait = answer.headers().contains_key("retry-after");
            (number, answer.status().as_u16(), wait)
        }
    };
    let mut stored = BTreeSet::new();
    let mut refused = 0;
    for round in 0..10 {
        for (number, code, wait) in join_all((0..20).map(|n| publish(round * 20 + n))).await {
            match code {
                202 => drop(stored.insert(number)),
                code => {
                    assert_eq!((code, wait), (429, true));
                    refused += 1;
                }
            }
        }
    }
    assert!(!stored.is_empty() && refused > 0, "{stored:?}");
    assert_eq!(counted(&server, "writes").await, refused);
    let (_, last, _) = publish(1000).await;
    assert_eq!(last, 202);
    let mut got = BTreeSet::new();
    loop {
        match socket.next().await["data"].as_u64().unwrap() {
            1000 => break,
            number => assert!(got.insert(number), "{number} came twice"),
        }
    }
    assert_eq!(got, stored, "what was acknowledged, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demos_views_write_within_the_same_bound() {
    let server = Server::with(Options {
        env: vec![("ROWCAST__LIMITS__WRITES_RUNNING".into(), "1".into())],
        ..Options::default()
    });
    let client = reqwest::Client::new();
    let mut codes = BTreeSet::new();
    for _ in 0..10 {
        let posts = (0..20).map(|_| client.post(server.url("/chat/update/info/")).send());
        for answer in join_all(posts).await {
            codes.insert(answer.unwrap().status().as_u16());
        }
    }
    assert_eq!(codes, [200, 429].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_over_nats_have_the_same_bound_and_each_is_answered_once() {
    let topics = "[limits]\nrequests_running = 1\n[[topics]]\ntype = \"t\"\ntable = \"t\"\n";
    let tables =
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100);";
    let stack = Stack::new(topics, tables, 1);
    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let ask = |id: u32| {
        let body = json!({ "id": id }).to_string();
        client.request("rowcast.query.t", body.into())
    };
    wait_until("the first answer", async || ask(1).await.ok()).await;
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..20 {
        for (id, answer) in (1..).zip(in_time("answers", join_all((1..=50).map(&ask))).await) {
            let answer = answer.unwrap();
            let frame: Json = serde_json::from_slice(&answer.payload).unwrap();
            if frame["type"] == "t" {
                assert_eq!(frame["data"], json!([{ "id": id }]));
                answered += 1;
                continue;
            }
            let headers = answer.headers.unwrap();
            assert_eq!(
                headers.get("Nats-Service-Error-Code").unwrap().as_str(),
                "429"
            );
            assert!(frame["retry_after_ms"].as_u64().unwrap() > 0, "{frame}");
            refused += 1;
        }
    }
    assert!(
        answered >= 20 && refused > 0,
        "{answered} answered, {refused} refused"
    );
    assert_eq!(counted(&stack.gateways[0], "requests").await, refused);
}
