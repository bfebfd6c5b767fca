//! What a socket may choose, and what its filters may say.

use serde_json::{Value as Json, json};

use super::{counted, limited};
use crate::{support::sqlite3, wire::care};

/// A filter on `column` with so many conditions in all.
fn conditions(count: usize) -> Json {
    let columns = ["id", "name", "ward", "age", "left_at"];
    let tests = ["eq", "ne", "lt", "lte", "gt", "gte"];
    let mut filter = json!({});
    let mut left = count;
    for column in columns {
        for test in tests {
            if left > 0 {
                filter[column][test] = json!(5);
                left -= 1;
            }
        }
    }
    assert_eq!(left, 0);
    filter
}

#[tokio::test]
async fn a_socket_may_choose_as_many_topics_as_the_setting_says_and_not_one_more() {
    let server = limited("topics_per_socket = 2");
    let choose =
        |kind: &str, rid: u32, types: Json| json!({ "type": kind, "rid": rid, "types": types });
    let mut socket = server.socket("types=patient,stay").await;
    let same = choose("sys:subscribe", 1, json!(["patient", "stay"]));
    assert_eq!(socket.ask(same).await["type"], "sys:ok");
    let answer = socket
        .ask(choose("sys:subscribe", 2, json!(["notice"])))
        .await;
    assert_eq!(
        (&answer["code"], &answer["error"]),
        (&json!(400), &json!("bad_param"))
    );
    // It is not half done: what was refused is not taken.
    let none = json!({ "type": "notice", "data": 1 });
    assert_eq!(server.post("/api/events", none).await.0, 202);
    sqlite3(
        &server.database(),
        "INSERT INTO stay VALUES ('3-1', 9, '晚')",
    );
    assert_eq!(socket.next().await["type"], "stay");
    assert_eq!(
        socket
            .ask(choose("sys:unsubscribe", 3, json!(["stay"])))
            .await["type"],
        "sys:ok"
    );
    assert_eq!(
        socket
            .ask(choose("sys:subscribe", 4, json!(["notice"])))
            .await["type"],
        "sys:ok"
    );
    let last = json!({ "type": "notice", "data": 2 });
    assert_eq!(server.post("/api/events", last).await.0, 202);
    assert_eq!(socket.next_of("notice").await["data"], 2);

    let three = json!(["patient", "stay", "notice"]);
    for kind in ["sys:hello", "sys:subscribe", "sys:unsubscribe"] {
        let mut socket = server.socket("").await;
        let answer = socket.ask(choose(kind, 1, three.clone())).await;
        assert_eq!(answer["error"], "bad_param", "{kind}");
        let two = socket
            .ask(choose(kind, 2, json!(["patient", "stay"])))
            .await;
        assert_ne!(two["type"], "sys:error", "{kind}: {two}");
    }
    let (code, _) = server.get("/api/stream?types=patient,stay,notice").await;
    assert_eq!(code, 400);
    assert_eq!(counted(&server, "topics").await, 5);
}

#[tokio::test]
async fn filters_are_counted_on_a_socket_that_takes_all_topics_too() {
    let server = limited("topics_per_socket = 1");
    let filter = |topic: &str, rid: u32| {
        let filter = json!({ "filter": { "note": "x" } });
        let filter = if topic == "stay" {
            filter
        } else {
            json!({ "filter": { "age": 5 } })
        };
        json!({ "type": "sys:subscribe", "rid": rid, "types": { topic: filter } })
    };
    let mut socket = server.socket("").await;
    assert_eq!(socket.ask(filter("patient", 1)).await["type"], "sys:ok");
    assert_eq!(
        socket.ask(filter("patient", 2)).await["type"],
        "sys:ok",
        "the same anew"
    );
    assert_eq!(socket.ask(filter("stay", 3)).await["code"], 400);
    // Taken back, it makes room.
    let plain = json!({ "type": "sys:subscribe", "rid": 4, "types": { "patient": {} } });
    assert_eq!(socket.ask(plain).await["type"], "sys:ok");
    assert_eq!(socket.ask(filter("stay", 5)).await["type"], "sys:ok");
}

#[tokio::test]
async fn what_a_filter_may_say_is_bounded_in_queries_and_subscriptions_alike() {
    let server = care();
    let list = |count: usize| json!({ "id": vec![1; count] });
    let like = |length: usize| json!({ "name": { "like": "%".repeat(length) } });
    let columns = |count: usize| {
        let columns = (0..count).map(|n| (format!("c{n}"), json!(1)));
        Json::Object(columns.collect())
    };
    for (at, beyond) in [
        (list(256), list(257)),
        (like(256), like(257)),
        (conditions(30), columns(65)),
    ] {
        let mut socket = server.socket("").await;
        for (filter, taken) in [(at, true), (beyond, false)] {
            let query = json!({ "type": "patient", "rid": 1, "params": { "filter": filter } });
            let answer = socket.ask(query).await;
            assert_eq!(answer["type"] == "patient", taken, "{answer}");
            let types = json!({ "patient": { "filter": filter } });
            let subscribe = json!({ "type": "sys:subscribe", "rid": 2, "types": types });
            let answer = socket.ask(subscribe).await;
            assert_eq!(answer["type"] == "sys:ok", taken, "{answer}");
        }
    }
}

#[tokio::test]
async fn conditions_are_counted_and_not_only_the_columns_that_they_are_on() {
    let server = care();
    let mut socket = server.socket("").await;
    // Eleven columns with six conditions each, of which this topic has none.
    let tests = json!({ "eq": 1, "ne": 1, "lt": 1, "lte": 1, "gt": 1, "gte": 1 });
    let filter = (0..11).map(|n| (format!("c{n}"), tests.clone()));
    let filter = Json::Object(filter.collect());
    let query = json!({ "type": "patient", "rid": 1, "params": { "filter": filter } });
    let answer = socket.ask(query).await;
    assert_eq!(answer["detail"], "params.filter: at most 64 conditions");
}

#[tokio::test]
async fn a_place_in_a_list_that_was_made_up_has_the_bounds_of_a_request() {
    let server = care();
    let mut socket = server.socket("").await;
    let token = |filter: Json, last: Json| {
        let parts = json!(["patient", 2, [["id", false]], filter, last]).to_string();
        let hex = parts.bytes().map(|byte| format!("{byte:02x}"));
        hex.collect::<String>()
    };
    let condition = |count: usize| Json::from(vec![json!(["age", "gte", 0]); count]);
    for (rid, token, slug) in [
        (1, token(condition(64), json!([1])), ""),
        (2, token(condition(65), json!([1])), "bad_param"),
        (
            3,
            token(json!([["id", "in", vec![1; 256]]]), json!([1])),
            "",
        ),
        (
            4,
            token(json!([["id", "in", vec![1; 257]]]), json!([1])),
            "bad_param",
        ),
        (
            5,
            token(json!([["name", "eq", "\0"]]), json!([1])),
            "nul_not_allowed",
        ),
    ] {
        let query = json!({ "type": "patient", "rid": rid, "params": { "after": token } });
        let answer = socket.ask(query).await;
        assert_eq!(
            answer["error"].as_str().unwrap_or_default(),
            slug,
            "{rid}: {answer}"
        );
    }
}
