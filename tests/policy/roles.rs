//! Columns by role, where no row is judged: also on SQLite.

use serde_json::json;

use super::home::{connect, token};
use crate::support::{Server, sqlite3};

const CONFIG: &str = "
[auth]
key = \"a secret of the tests, of 32 bytes and more\"
[[topics]]
type = \"patient\"
table = \"patient\"
order_by = [\"secret\", \"name\"]
role = \"token.job\"
[topics.columns_by_role]
nurse = [\"name\"]
porter = [\"bed\", \"name\"]
doctor = [\"*\"]
";

const TABLE: &str = "
CREATE TABLE patient (id INTEGER PRIMARY KEY, name TEXT, bed TEXT, secret TEXT);
INSERT INTO patient VALUES (1, 'Ann', 'a', 'z'), (2, 'Bob', 'b', 'y');
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_sees_its_columns_in_replies_and_in_events() {
    let server = Server::configured(CONFIG, TABLE);
    let mut sockets = Vec::new();
    for (job, row, event) in [
        (
            json!("nurse"),
            json!({"id": 1, "name": "Ann"}),
            json!({"id": 1, "name": "Eve"}),
        ),
        (
            json!(["porter", "nurse"]),
            json!({"id": 1, "name": "Ann", "bed": "a"}),
            json!({"id": 1, "name": "Eve", "bed": "a"}),
        ),
        (
            json!("doctor"),
            json!({"id": 2, "name": "Bob", "bed": "b", "secret": "y"}),
            json!({"id": 1, "name": "Eve", "bed": "a", "secret": "z"}),
        ),
    ] {
        let mut socket = connect(&server, &token(json!({ "job": job })), "").await;
        // Who does not see what the topic is ordered by gets the rest of its order.
        let page = socket
            .ask(json!({"type": "patient", "rid": 1, "params": {"size": 1}}))
            .await;
        assert_eq!(page["data"][0], row, "{page}");
        sockets.push((socket, event));
    }
    sqlite3(
        &server.database(),
        "UPDATE patient SET name = 'Eve' WHERE id = 1",
    );
    for (socket, event) in &mut sockets {
        assert_eq!(socket.next_of("patient").await["data"], *event);
    }
    // Nothing that a nurse sees has changed: she is told that something has, and not what.
    sqlite3(
        &server.database(),
        "UPDATE patient SET secret = 'CANARY' WHERE id = 1",
    );
    let told = sockets[0].0.next_of("patient").await;
    assert_eq!(told["data"], json!({"id": 1, "name": "Eve"}), "{told}");
    sqlite3(&server.database(), "DELETE FROM patient WHERE id = 1");
    assert_eq!(sockets[0].0.next_of("patient").await["op"], "delete");
    let mut cook = connect(
        &server,
        &token(json!({"job": "cook", "role": "doctor"})),
        "",
    )
    .await;
    let refused = cook.ask(json!({"type": "patient", "rid": 1})).await;
    assert_eq!(refused["error"], "unknown_type");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_one_role_may_set_is_not_lent_to_another() {
    let server = Server::configured(CONFIG, TABLE);
    let filter = json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"secret": "z"}}}});
    let mut doctor = connect(&server, &token(json!({"job": "doctor"})), "").await;
    assert_eq!(doctor.ask(filter.clone()).await["type"], "sys:ok");
    let mut nurse = connect(&server, &token(json!({"job": "nurse"})), "").await;
    assert_eq!(nurse.ask(filter).await["error"], "bad_param");
    let query = json!({"type": "patient", "rid": 2, "params": {"filter": {"secret": "z"}}});
    assert_eq!(doctor.ask(query.clone()).await["op"], "replace");
    assert_eq!(nurse.ask(query).await["error"], "bad_param");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_over_columns_that_somebody_does_not_see_is_not_shown_to_him() {
    let topic = |name: &str, condition: &str, more: &str| {
        format!(
            "[[topics]]\ntype = \"{name}\"\ntable = \"patient\"\nwhere = \"{condition}\"\n{more}\n"
        )
    };
    let roles = "columns_by_role = { nurse = [\"name\"], doctor = [\"*\"] }";
    let config = [
        "[auth]\nkey = \"a secret of the tests, of 32 bytes and more\"\n",
        &topic("both", "SECRET <> 'CANARY' AND name IS NOT NULL", roles),
        &topic("named", "name <> 'x'", roles),
        &topic("listed", "bed <> 'CANARY'", "columns = [\"id\", \"name\"]"),
        &topic("whole", "bed <> 'y'", ""),
    ]
    .concat();
    let server = Server::configured(&config, TABLE);
    let told = async |role: &str| {
        let asked = reqwest::Client::new()
            .get(server.url("/api/topics"))
            .header("token", token(json!({ "role": role })));
        let text = asked.send().await.unwrap().text().await.unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        let all = answer["topics"].as_array().unwrap().iter();
        let conditions: Vec<_> = all.map(|topic| topic["where"].clone()).collect();
        (conditions, text.contains("CANARY"))
    };
    let (named, whole) = (json!("name <> 'x'"), json!("bed <> 'y'"));
    let both = json!("SECRET <> 'CANARY' AND name IS NOT NULL");
    let null = serde_json::Value::Null;
    let nurse = vec![null.clone(), named.clone(), null.clone(), whole.clone()];
    assert_eq!(told("nurse").await, (nurse, false));
    assert_eq!(told("doctor").await, (vec![both, named, null, whole], true));
}
