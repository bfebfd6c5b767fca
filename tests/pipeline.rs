//! The pipeline at a glance, of all processes on one NATS: who is up, who stands by, and who was
//! killed; and the dead letters.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use crate::support::{Server, stack::Stack, wait_until};

const TOPICS: &str = "
[[topics]]
type = \"t\"
table = \"t\"
";

const TABLES: &str = "
CREATE TABLE t (id int PRIMARY KEY, n bigint NOT NULL);
INSERT INTO t VALUES (1, 0);
";

async fn report(gateway: &Server) -> Json {
    let (code, body) = gateway.get("/api/pipeline").await;
    assert_eq!(code, 200, "{body}");
    body
}

/// The states of a stage, by process.
fn states(report: &Json, name: &str) -> BTreeMap<String, String> {
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let stages = report["stages"].as_array().unwrap().iter();
    let stages = stages.filter(|stage| stage["stage"] == name);
    stages
        .map(|stage| (text(&stage["process"]), text(&stage["state"])))
        .collect()
}

/// Waits until the processes of a stage are as told.
async fn shown(gateway: &Server, name: &str, expected: &[(&str, &str)]) -> Json {
    let expected = expected.iter();
    let expected = expected.map(|(process, state)| ((*process).to_owned(), (*state).to_owned()));
    let expected: BTreeMap<_, _> = expected.collect();
    wait_until(&format!("{name} to be {expected:?}"), async || {
        let report = report(gateway).await;
        (states(&report, name) == expected).then_some(report)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_gateway_shows_every_process_and_who_was_killed_is_silent() {
    let mut stack = Stack::new(TOPICS, TABLES, 2);
    stack.produce();
    let addresses = stack.addresses();
    let (one, two) = (&*addresses[0], &*addresses[1]);
    let producers: Vec<_> = stack
        .producers
        .iter()
        .map(|p| p.address().to_owned())
        .collect();
    let (active, other) = (&*producers[0], &*producers[1]);
    shown(&stack.gateways[0], "gateway", &[(one, "up"), (two, "up")]).await;
    let both = [(active, "up"), (other, "standby")];
    let before = shown(&stack.gateways[0], "source", &both).await;
    assert_eq!(states(&before, "relay"), states(&before, "source"));
    assert_eq!(states(&before, "bus"), [(one.into(), "up".into())].into());
    let (_, text) = stack.gateways[1].get("/api/pipeline").await;
    assert!(
        !text.to_string().contains("postgres:"),
        "no password: {text}"
    );

    let mut socket = stack.gateways[1].socket("").await;
    stack.database.sql("UPDATE t SET n = 1");
    socket.next_of("t").await;
    let after = wait_until("the change to be counted everywhere", async || {
        let report = report(&stack.gateways[0]).await;
        let stages = report["stages"].as_array().unwrap().clone();
        let of = |name: &str, process: &str| {
            let mut found = stages.iter();
            found
                .find(|stage| stage["stage"] == name && stage["process"] == process)
                .cloned()
        };
        let source = of("source", active)?;
        let gateway = of("gateway", two)?;
        let passed = source["total"] == 1 && gateway["pushed"] == 1 && gateway["sockets"] == 1;
        passed.then_some((source, of("relay", active)?, gateway, report.clone()))
    });
    let (source, relay, gateway, whole) = after.await;
    assert!(
        source["what"].as_str().unwrap().starts_with("postgres "),
        "{source}"
    );
    assert_eq!(relay["total"], 1);
    for stage in [&source, &relay, &gateway] {
        assert!(
            stage["lag_ms"].is_i64() && stage["position"].is_string(),
            "{stage}"
        );
    }
    let epoch = whole["epoch"].as_str().unwrap();
    assert!(gateway["position"].as_str().unwrap().starts_with(epoch));

    stack.gateways[1].kill();
    shown(
        &stack.gateways[0],
        "gateway",
        &[(one, "up"), (two, "silent")],
    )
    .await;
    stack.gateways[1].restart();
    // Under its name it takes its own place.
    shown(&stack.gateways[0], "gateway", &[(one, "up"), (two, "up")]).await;
    stack.producers[0].kill();
    let taken = [(active, "silent"), (other, "up")];
    shown(&stack.gateways[0], "source", &taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_shown_with_their_reasons_and_incidents_are_bounded() {
    let mut stack = Stack::new(TOPICS, TABLES, 2);
    let js = async_nats::connect(stack.nats.url()).await.unwrap();
    let js = async_nats::jetstream::new(js);
    let publish = async |subject: &str, body: Vec<u8>| {
        let sent = js.publish(subject.to_owned(), body.into()).await;
        sent.unwrap().await.unwrap().sequence
    };
    let (_, none) = stack.gateways[0].get("/api/dead_letters").await;
    assert_eq!(
        none,
        json!({ "dead_letters": [], "total": 0, "kept": true })
    );
    let long = "王".repeat(5000);
    publish("rowcast.event.t", b"<img onerror>".to_vec()).await;
    publish("rowcast.event.t", long.clone().into()).await;
    let of = publish("rowcast.event.foreign", b"a\xffb".to_vec()).await;
    for gateway in &stack.gateways {
        let whole = wait_until("the dead letters", async || {
            let (code, body) = gateway.get("/api/dead_letters").await;
            (code == 200 && body["total"] == 3).then_some(body)
        })
        .await;
        let letters = whole["dead_letters"].as_array().unwrap();
        assert_eq!(letters.len(), 3, "newest first: {whole}");
        let newest = &letters[0];
        assert!(newest["at"].as_i64() > Some(1_700_000_000_000), "{newest}");
        let mut newest = newest.clone();
        newest["at"] = json!(0);
        assert_eq!(
            newest,
            json!({
                "seq": 3, "at": 0, "subject": "rowcast.event.foreign", "type": "foreign",
                "reason": "the type is not configured", "of": of, "size": 3, "text": "a\u{fffd}b",
            })
        );
        assert_eq!(letters[1]["text"], long[..3 * 2000]);
        assert_eq!(letters[1]["size"], 15_000);
        assert_eq!(letters[2]["text"], "<img onerror>");
        assert_eq!(letters[2]["reason"], "not a JSON object");
        let (_, newest) = gateway.get("/api/dead_letters?limit=1").await;
        assert_eq!(newest["dead_letters"][0]["seq"], 3);
        assert_eq!(
            (
                newest["dead_letters"].as_array().unwrap().len(),
                &newest["total"]
            ),
            (1, &json!(3))
        );
    }
    for n in 0..150 {
        publish(&format!("rowcast.event.foreign{n}"), b"x".to_vec()).await;
        publish("rowcast.event.same", b"x".to_vec()).await;
    }
    let incidents = wait_until("the last of them", async || {
        let report = report(&stack.gateways[0]).await;
        let told = report["incidents"].as_array().unwrap();
        let last = |one: &Json| one["what"] == "rowcast.event.foreign149";
        told.iter().any(last).then(|| told.clone())
    })
    .await;
    assert!(incidents.len() <= 100, "{}", incidents.len());
    let seqs: Vec<_> = incidents
        .iter()
        .map(|one| one["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    assert!(
        incidents
            .iter()
            .all(|one| one["kind"] == "dead_letter" && one["text"] == "the type is not configured")
    );
    assert!(
        incidents.iter().any(|one| one["n"].as_u64() > Some(1)),
        "{incidents:?}"
    );
    // One more follows the last of them.
    wait_until("all to be counted", async || {
        let counted = stack.gateways[0].counted("dead_letters_total").await;
        (counted == 303).then_some(())
    })
    .await;

    // Without the bus the rest is still shown, and what was wrong is kept.
    stack.nats.kill();
    let gateway = &stack.gateways[0];
    let here = gateway.address();
    let gone = shown(gateway, "bus", &[(here, "down")]).await;
    assert_eq!(states(&gone, "gateway")[here], "up", "{gone}");
    let (code, refused) = gateway.get("/api/dead_letters").await;
    assert_eq!((code, &refused["error"]), (503, &json!("bus_unavailable")));
    stack.nats.restart();
    let gateway = &stack.gateways[0];
    let back = shown(gateway, "bus", &[(here, "up")]).await;
    let mut stages = back["stages"].as_array().unwrap().iter();
    let bus = stages.find(|stage| stage["stage"] == "bus").unwrap();
    assert_eq!(bus["error"]["over"], true, "{bus}");
    wait_until("the dead letters", async || {
        let (code, body) = gateway.get("/api/dead_letters?limit=200").await;
        (code == 200 && body["dead_letters"].as_array().unwrap().len() == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_producer_the_gateway_says_what_it_misses() {
    let mut stack = Stack::new(TOPICS, TABLES, 1);
    let producer = stack.producers[0].address().to_owned();
    shown(&stack.gateways[0], "source", &[(&producer, "up")]).await;
    stack.producers.clear();
    shown(&stack.gateways[0], "source", &[(&producer, "silent")]).await;
    stack.gateways[0].kill();
    // One that has never heard of a producer.
    stack.serve();
    let gateway = &stack.gateways[1];
    let report = shown(gateway, "source", &[(gateway.address(), "silent")]).await;
    let source = &report["stages"][0];
    assert_eq!(
        (&source["stage"], &source["total"]),
        (&json!("source"), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_is_silent_and_delays_the_report_of_nobody() {
    let stack = Stack::new(TOPICS, TABLES, 2);
    let addresses = stack.addresses();
    let (one, two) = (&*addresses[0], &*addresses[1]);
    let gateway = &stack.gateways[0];
    shown(gateway, "gateway", &[(one, "up"), (two, "up")]).await;
    // It waits for the others for 300 ms, and before that for its turn. That the machine stood still once says
    // nothing: of five the quickest is judged.
    let quick = async || {
        let mut told = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            let report = report(gateway).await;
            told.push((begun.elapsed(), report));
            if told[told.len() - 1].0 < Duration::from_secs(2) {
                break;
            }
        }
        let (took, report) = told.pop().unwrap();
        assert!(took < Duration::from_secs(2), "{took:?}");
        report
    };
    stack.gateways[1].signal("STOP");
    wait_until("the frozen gateway to be silent", async || {
        (states(&quick().await, "gateway")[two] == "silent").then_some(())
    })
    .await;
    stack.gateways[1].signal("CONT");
    shown(gateway, "gateway", &[(one, "up"), (two, "up")]).await;
    stack.nats.stop();
    wait_until("the frozen bus to be down", async || {
        let report = quick().await;
        let down = states(&report, "bus")[one] == "down";
        (down && states(&report, "gateway")[one] == "up").then_some(())
    })
    .await;
    stack.nats.cont();
    shown(gateway, "gateway", &[(one, "up"), (two, "up")]).await;
    shown(gateway, "bus", &[(one, "up")]).await;
}
