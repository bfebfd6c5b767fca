//! Direct queries: request ids, one row by its key, pages, filters and orders.

use serde_json::{Value as Json, json};

use super::{care, ids, members};
use crate::support::Server;

#[tokio::test]
async fn a_rid_comes_back_as_it_was_and_a_request_without_one_gets_a_reply_without_one() {
    let server = care();
    let mut socket = server.socket("").await;
    let long = "号".repeat(64);
    for rid in [
        json!(7),
        json!(0),
        json!(-9_007_199_254_740_993_i64),
        json!(""),
        json!("a\"b\\"),
        json!(long),
    ] {
        let reply = socket.ask(json!({ "type": "patient", "rid": rid })).await;
        assert_eq!(
            members(&reply),
            ["type", "rid", "op", "data", "cursor", "page"]
        );
        assert_eq!(reply["rid"], rid);
    }
    socket.send(json!({ "type": "patient" })).await;
    assert!(socket.next().await.get("rid").is_none());
    for rid in [
        json!(1.5),
        json!("x".repeat(65)),
        json!([]),
        json!({}),
        json!(true),
    ] {
        socket.send(json!({ "type": "patient", "rid": rid })).await;
        let answer = socket.next().await;
        assert_eq!(
            (&answer["code"], &answer["error"]),
            (&json!(400), &json!("bad_param")),
            "{rid}"
        );
        assert!(answer.get("rid").is_none(), "{answer}");
    }
}

#[tokio::test]
async fn an_id_may_be_a_number_or_its_text_and_an_unknown_one_finds_nothing() {
    let server = care();
    let mut socket = server.socket("").await;
    for id in [
        json!(2),
        json!("2"),
        json!({ "id": 2 }),
        json!({ "id": "2" }),
    ] {
        let reply = socket
            .ask(json!({ "type": "patient", "rid": 1, "id": id }))
            .await;
        let row = json!({ "id": 2, "name": "李建国", "ward": "3", "age": 82, "left_at": null });
        assert_eq!(reply["data"], json!([row]), "{id}");
        assert_eq!(
            members(&reply),
            ["type", "rid", "op", "data", "cursor"],
            "one row has no page"
        );
    }
    // 5 is in the table, but not in the view.
    for id in [
        json!(99),
        json!("x"),
        json!(5),
        json!("2; DROP TABLE patient"),
    ] {
        let reply = socket
            .ask(json!({ "type": "patient", "rid": 1, "id": id }))
            .await;
        assert_eq!(reply["data"], json!([]), "{id}");
    }
    socket.send(json!({ "type": "patient", "id": null })).await;
    assert_eq!(
        socket.next().await["data"].as_array().unwrap().len(),
        2,
        "null is no id"
    );
}

#[tokio::test]
async fn a_composite_key_is_an_object_of_exactly_its_columns() {
    let server = care();
    let mut socket = server.socket("").await;
    for id in [
        json!({ "bed": "3-1", "day": 8 }),
        json!({ "day": "8", "bed": "3-1" }),
    ] {
        let reply = socket
            .ask(json!({ "type": "stay", "rid": 1, "id": id }))
            .await;
        assert_eq!(
            reply["data"],
            json!([{ "bed": "3-1", "day": 8, "note": "晚" }]),
            "{id}"
        );
    }
    for id in [
        json!(8),
        json!({ "day": 8 }),
        json!({ "day": 8, "note": "晚" }),
        json!({}),
        json!([8]),
        json!({ "day": 8, "bed": "3-1", "note": "晚" }),
        json!({ "day": null, "bed": "3-1" }),
        json!(true),
    ] {
        let answer = socket
            .ask(json!({ "type": "stay", "rid": 1, "id": id }))
            .await;
        assert_eq!(answer["error"], "bad_param", "{id}");
    }
}

#[tokio::test]
async fn a_page_is_numbered_sized_and_ordered_as_asked() {
    let server = care();
    let mut socket = server.socket("").await;
    let mut page = async |params: Json| {
        let reply = socket
            .ask(json!({ "type": "patient", "rid": 1, "params": params }))
            .await;
        (ids(&reply), reply["page"].clone())
    };
    let (rows, about) = page(json!({})).await;
    assert_eq!(
        (rows, &about["number"], &about["size"], &about["total"]),
        (vec![1, 2], &json!(1), &json!(2), &json!(4))
    );
    let (rows, about) = page(json!({ "page": 2 })).await;
    assert_eq!(
        (rows, &about["number"], &about["next"]),
        (vec![3, 4], &json!(2), &Json::Null)
    );
    let (rows, about) = page(json!({ "page": 9 })).await;
    assert_eq!(
        (rows, &about["total"], &about["next"]),
        (vec![], &json!(4), &Json::Null)
    );
    assert_eq!(
        page(json!({ "size": 4, "order": "age" })).await.0,
        [4, 2, 1, 3]
    );
    assert_eq!(
        page(json!({ "size": 4, "order": "age DESC" })).await.0,
        [3, 1, 2, 4]
    );
    assert_eq!(
        page(json!({ "size": 4, "order": ["ward desc", "age asc"] }))
            .await
            .0,
        [3, 2, 1, 4]
    );
    assert_eq!(
        page(json!({ "size": 3, "page": 2, "order": "id desc" }))
            .await
            .0,
        [1]
    );
}

#[tokio::test]
async fn a_filter_means_what_sql_means_by_it() {
    let server = care();
    let mut socket = server.socket("").await;
    for (filter, found) in [
        (json!({ "ward": "3" }), vec![1, 2]),
        (json!({ "ward": 3 }), vec![1, 2]),
        (json!({ "ward": null }), vec![4]),
        (json!({ "ward": ["3", null] }), vec![1, 2, 4]),
        (json!({ "id": [1, "3", 99] }), vec![1, 3]),
        (json!({ "id": [] }), vec![]),
        (json!({ "age": { "eq": 91 } }), vec![3]),
        (json!({ "age": { "eq": null } }), vec![4]),
        (json!({ "age": { "eq": [82, 86] } }), vec![1, 2]),
        (json!({ "age": { "ne": 91 } }), vec![1, 2]),
        (json!({ "age": { "ne": null } }), vec![1, 2, 3]),
        (json!({ "age": { "lt": 86 } }), vec![2]),
        (json!({ "age": { "lte": 86 } }), vec![1, 2]),
        (json!({ "age": { "gt": 86 } }), vec![3]),
        (json!({ "age": { "gte": 86 } }), vec![1, 3]),
        (json!({ "age": { "gte": 82, "lt": 91 } }), vec![1, 2]),
        (json!({ "name": { "like": "%桂%" } }), vec![3]),
        (json!({ "ward": "5", "age": { "gt": 1 } }), vec![3]),
        (json!({ "name": "' OR 1 = 1 --" }), vec![]),
        // The view's own condition holds whatever the client says.
        (json!({ "left_at": { "ne": null } }), vec![]),
        (json!({}), vec![1, 2, 3, 4]),
    ] {
        let params = json!({ "size": 4, "filter": filter });
        let reply = socket
            .ask(json!({ "type": "patient", "rid": 1, "params": params }))
            .await;
        assert_eq!(ids(&reply), found, "{filter}");
        assert_eq!(reply["page"]["total"], found.len(), "{filter}");
    }
}

#[tokio::test]
async fn a_wrong_parameter_is_a_400_that_says_which_and_repeats_nothing() {
    let server = care();
    let mut socket = server.socket("").await;
    for (params, names) in [
        (json!({ "size": 5 }), "params.size"),
        (json!({ "size": 0 }), "params.size"),
        (json!({ "size": "2" }), "params.size"),
        (json!({ "page": 0 }), "params.page"),
        (json!({ "page": 1.5 }), "params.page"),
        (json!({ "order": "secret" }), "params.order"),
        (json!({ "order": "id sideways" }), "params.order"),
        (json!({ "order": "id; DROP TABLE patient" }), "params.order"),
        (json!({ "order": 1 }), "params.order"),
        (json!({ "filter": { "secret": 1 } }), "params.filter"),
        (
            json!({ "filter": { "id\" = 1 OR \"id": 1 } }),
            "params.filter",
        ),
        (json!({ "filter": [] }), "params.filter"),
        (
            json!({ "filter": { "age": { "near": 1 } } }),
            "params.filter",
        ),
        (
            json!({ "filter": { "age": { "lt": null } } }),
            "params.filter",
        ),
        (
            json!({ "filter": { "name": { "like": 1 } } }),
            "params.filter",
        ),
        (
            json!({ "filter": { "name": { "like": "%".repeat(257) } } }),
            "params.filter",
        ),
        (json!({ "filter": { "age": [[1]] } }), "params.filter"),
        (json!({ "after": "nonsense" }), "params.after"),
        (json!({ "after": 1 }), "params.after"),
        (json!({ "all": 1 }), "params.all"),
        (json!({ "all": true, "page": 1 }), "params.all"),
        (json!([]), "params"),
        (json!("x"), "params"),
    ] {
        let answer = socket
            .ask(json!({ "type": "patient", "rid": "r", "params": params }))
            .await;
        assert_eq!(
            members(&answer),
            ["type", "rid", "code", "error", "msg", "detail"],
            "{params}"
        );
        assert_eq!(
            (&answer["code"], &answer["error"]),
            (&json!(400), &json!("bad_param")),
            "{params}"
        );
        assert!(
            answer["detail"].as_str().unwrap().starts_with(names),
            "{answer}"
        );
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
    // A column that the topic does not show is no column of it.
    let hidden = json!({ "type": "board", "rid": 1, "params": { "filter": { "ward": "3" } } });
    assert_eq!(socket.ask(hidden).await["error"], "bad_param");
    let both = json!({ "type": "patient", "rid": 1, "id": 1, "params": {} });
    assert_eq!(socket.ask(both).await["error"], "bad_param");
    let no_table = json!({ "type": "notice", "rid": 1 });
    assert_eq!(socket.ask(no_table).await["error"], "bad_param");
}

#[tokio::test]
async fn a_reply_reaches_the_asker_alone() {
    let server = care();
    let (mut asker, mut other) = (server.socket("").await, server.socket("").await);
    for id in 1..=3 {
        asker
            .ask(json!({ "type": "patient", "rid": id, "id": id }))
            .await;
    }
    // What is published afterwards is the first thing that the other sees.
    server
        .post("/api/events", json!({ "type": "notice", "data": 1 }))
        .await;
    assert_eq!(other.next().await["op"], "event");
}

#[tokio::test]
async fn values_are_encoded_by_storage_class() {
    let server = Server::configured(
        "[[topics]]\ntype = \"t\"\ntable = \"t\"",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v);
         INSERT INTO t (v) VALUES (9007199254740991), (9007199254740992), (-9007199254740992), (1.5),
            (1e999), ('1.50'), (x'00ff'), (NULL), ('{\"a\":1}'), (''), ('a' || char(0) || 'b'), (2.0);",
    );
    let mut socket = server.socket("").await;
    let reply = socket.ask(json!({ "type": "t", "rid": 1 })).await;
    let values: Vec<&Json> = reply["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["v"])
        .collect();
    let expected = json!([
        9_007_199_254_740_991_i64,
        "9007199254740992",
        "-9007199254740992",
        1.5,
        "Infinity",
        "1.50",
        "\\x00ff",
        null,
        "{\"a\":1}",
        "",
        "a\u{0}b",
        2.0,
    ]);
    assert_eq!(json!(values), expected);
    // The stream says the same of every row.
    crate::support::sqlite3(&server.database(), "UPDATE t SET v = v");
    for row in reply["data"].as_array().unwrap() {
        let event = socket
            .next_where("an update", |event| event["key"]["id"] == row["id"])
            .await;
        assert_eq!(&event["data"], row);
    }
}

#[tokio::test]
async fn a_key_of_bytes_or_of_a_large_number_is_asked_for_as_it_was_sent() {
    let server = Server::configured(
        "[[topics]]\ntype = \"b\"\ntable = \"b\"\norder_by = [\"left at desc\"]\n",
        "CREATE TABLE b (id PRIMARY KEY NOT NULL, \"left at\" TEXT);
         INSERT INTO b VALUES (x'00ff', 'a'), (9007199254740993, 'b'), ('7', 'c'), (8, 'd');",
    );
    let mut socket = server.socket("").await;
    let all = socket.ask(json!({ "type": "b", "rid": 0 })).await;
    for row in all["data"].as_array().unwrap() {
        let one = socket
            .ask(json!({ "type": "b", "rid": 1, "id": row["id"] }))
            .await;
        assert_eq!(one["data"], json!([row]), "{one}");
        let filter = json!({ "filter": { "id": row["id"] }, "order": "left at" });
        let found = socket
            .ask(json!({ "type": "b", "rid": 2, "params": filter }))
            .await;
        assert_eq!(found["data"], json!([row]), "{found}");
        let filter = json!({ "filter": { "id": { "ne": row["id"] } } });
        let others = socket
            .ask(json!({ "type": "b", "rid": 3, "params": filter }))
            .await;
        assert_eq!(others["data"].as_array().unwrap().len(), 3, "{others}");
    }
}
