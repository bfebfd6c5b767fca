//! Twice the same house: once its neighbours are few and quiet, once they are many, and write in the same
//! transactions. What its people are told is the same, byte for byte, but for what SECURITY.md says: cursors,
//! which count events, and times.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

use super::home::{Home, cook, doctor, is_innocent, nurse};
use crate::support::{Socket, in_time};

/// What happens to one's own rows, and what else happens in the same transaction where neighbours are busy.
const STEPS: &[(&str, &str)] = &[
    (
        "UPDATE patient SET bed = 'b2' WHERE id = 2",
        "UPDATE patient SET bed = 'CANARY' || id WHERE id > 777000000",
    ),
    (
        "UPDATE patient SET bed = 'b3' WHERE id IN (1, 2)",
        "INSERT INTO patient VALUES (777009001, 'CANARY-elm', '1', 'Ann', 'b3', 'flu')",
    ),
    (
        "INSERT INTO visit VALUES (7, 'oak', 'Eve', NULL)",
        "DELETE FROM visit WHERE id > 777000000",
    ),
    (
        "UPDATE patient SET ward = '2' WHERE id = 2",
        "UPDATE patient SET ward = 'CANARY' WHERE id BETWEEN 777001000 AND 777001040",
    ),
    (
        "DELETE FROM patient WHERE id = 1",
        "UPDATE patient SET id = id + 5000 WHERE id BETWEEN 777001050 AND 777001060",
    ),
    (
        "SELECT pg_logical_emit_message(true, 'rowcast:notice', '\"for all\"')",
        "DELETE FROM patient WHERE id = 777009001",
    ),
    (
        "INSERT INTO patient VALUES (5, 'oak', '1', 'Fay', NULL, NULL)",
        "INSERT INTO visit VALUES (777009002, 'CANARY-elm', 'Eve', NULL)",
    ),
];

/// Everything somebody may send that is answered with something of the database.
fn questions() -> Vec<Json> {
    let patient = |params: Json| json!({"type": "patient", "params": params});
    vec![
        json!({"type": "patient"}),
        json!({"type": "visit"}),
        json!({"type": "patient", "id": 2}),
        json!({"type": "patient", "id": 777_001_001}),
        json!({"type": "patient", "id": "no number"}),
        json!({"type": "nothing"}),
        patient(json!({"all": true})),
        patient(json!({"size": 1})),
        patient(json!({"size": 1, "page": 2, "order": "name desc"})),
        patient(json!({"size": 2, "page": 40})),
        patient(json!({"filter": {"ward": "1"}})),
        patient(json!({"filter": {"name": {"like": "%n%"}}})),
        patient(json!({"filter": {"id": {"gt": 777_000_000}}})),
        patient(json!({"filter": {"tenant": "CANARY-elm"}})),
        patient(json!({"filter": {"diagnosis": "flu"}})),
        patient(json!({"order": "tenant"})),
        patient(json!({"after": "no continuation"})),
        json!({"type": "sys:subscribe", "types": {"patient": {"filter": {"tenant": "x"}}}}),
        json!({"type": "sys:hello", "topics": true}),
    ]
}

/// A frame without what may differ; groups are numbered as they come.
fn bare(text: &str, groups: &mut HashMap<String, usize>) -> String {
    let mut frame: Json = serde_json::from_str(text).unwrap();
    let members = frame.as_object_mut().unwrap();
    for counted in ["cursor", "ts", "exact", "replay"] {
        members.shift_remove(counted);
    }
    if let Some(Json::String(tx)) = members.get_mut("tx") {
        let next = groups.len();
        *tx = groups.entry(tx.clone()).or_insert(next).to_string();
    }
    frame.to_string()
}

/// What a socket is sent of events, up to the notice that ends them, and then as answers.
async fn told(socket: &mut Socket) -> Vec<String> {
    let (mut told, mut groups) = (Vec::new(), HashMap::new());
    let mut keep = |text: &str| told.push(bare(text, &mut groups));
    loop {
        let text = in_time("an event", socket.next_text()).await;
        keep(&text);
        if text.contains("the end") {
            break;
        }
    }
    for (mut question, rid) in questions().into_iter().zip(1..) {
        question["rid"] = rid.into();
        socket.send(question).await;
        loop {
            let text = in_time("an answer", socket.next_text()).await;
            if text.contains("sys:tick") {
                continue;
            }
            keep(&text);
            if text.contains(&format!("\"rid\":{rid},")) {
                break;
            }
        }
    }
    told
}

/// All that the people of `oak` are told in one of the two worlds.
async fn world(busy: bool) -> Vec<String> {
    let open = "[[topics]]\ntype = \"notice\"\n";
    let home = Home::on(crate::support::postgres::database(), open, Vec::new()).await;
    if busy {
        home.database.sql(
            "INSERT INTO patient SELECT 777001000 + n, 'CANARY-elm', '1', 'Ann', 'a', 'flu' FROM generate_series(1, 300) n;
             INSERT INTO visit SELECT 777001000 + n, 'CANARY-elm', 'Dan', NULL FROM generate_series(1, 300) n;
             ANALYZE",
        );
    }
    let people = [nurse(), doctor(), cook()];
    let mut sockets = Vec::new();
    for token in &people {
        let mut socket = home.socket(token, "").await;
        assert_eq!(
            socket.ask(json!({"type": "sys:ping", "rid": 0})).await["type"],
            "sys:pong"
        );
        sockets.push(socket);
    }
    let stream = reqwest::Client::new().get(home.gateway.url("/api/stream"));
    let mut stream = stream.bearer_auth(nurse()).send().await.unwrap();
    for (own, others) in STEPS {
        let also = if busy { others } else { "SELECT 1" };
        home.database.sql(&format!("BEGIN; {own}; {also}; COMMIT"));
    }
    home.database
        .sql("SELECT pg_logical_emit_message(true, 'rowcast:notice', '\"the end\"')");
    let mut all = Vec::new();
    for socket in &mut sockets {
        all.extend(told(socket).await);
    }
    let mut text = String::new();
    while !text.contains("the end") {
        let piece = in_time("a piece", stream.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let mut groups = HashMap::new();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    all.extend(data.map(|frame| bare(frame, &mut groups)));
    let client = reqwest::Client::new();
    for token in &people {
        for path in [
            "/api/query/patient",
            "/api/query/patient?size=1&order=-name",
            "/api/query/patient?id=777001001",
            "/api/query/visit?all=1",
            "/api/query/nothing",
            "/api/topics",
            "/api/types",
            "/api/pipeline",
            "/api/dead_letters",
        ] {
            let asked = client.get(home.gateway.url(path)).bearer_auth(token);
            let answer = in_time("an answer", asked.send()).await.unwrap();
            let mut headers = answer.headers().clone();
            // As long as its cursor.
            headers.remove("content-length");
            headers.remove("date");
            let status = answer.status();
            let body = answer.text().await.unwrap();
            let body = match path.starts_with("/api/types") {
                true => body,
                false => bare(&body, &mut groups),
            };
            all.push(format!("{path} {status} {headers:?} {body}"));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_neighbours_have_and_do_changes_nothing_of_what_one_is_told_but_cursors() {
    let (quiet, busy) = (world(false).await, world(true).await);
    for (quiet, busy) in quiet.iter().zip(&busy) {
        assert_eq!(quiet, busy);
        is_innocent("a busy neighbour", busy);
    }
    assert_eq!(quiet.len(), busy.len());
    let groups = busy.iter().filter(|text| text.contains("\"tx\""));
    assert!(groups.count() > 10, "events are compared with their groups");
}
