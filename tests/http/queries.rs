//! `/api/topics` and `/api/query/{type}`.

use serde_json::{Value as Json, json};

use crate::{
    support::sqlite3,
    wire::{care, ids, members},
};

#[tokio::test]
async fn the_topics_say_their_key_columns_push_and_schema() {
    let server = care();
    let (code, body) = server.get("/api/topics").await;
    assert_eq!(code, 200);
    let topics = body["topics"].as_array().unwrap();
    let names: Vec<_> = topics
        .iter()
        .map(|topic| topic["type"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["patient", "board", "stay", "notice"]);
    let [patient, board, stay, notice] = &topics[..] else {
        panic!("{body}")
    };
    assert_eq!(
        (&patient["push"], &patient["key"], &patient["columns"]),
        (
            &json!("row"),
            &json!(["id"]),
            &json!(["id", "name", "ward", "age", "left_at"])
        )
    );
    assert_eq!(
        (
            &patient["page_size"],
            &patient["max_page_size"],
            &patient["max_rows"]
        ),
        (&json!(2), &json!(4), &json!(5))
    );
    assert_eq!(
        (&board["push"], &board["columns"]),
        (&json!("page"), &json!(["id", "name"]))
    );
    assert_eq!(board["order"], json!(["name desc"]));
    assert_eq!(stay["key"], json!(["day", "bed"]));
    assert!(notice["schema"].is_null() && notice["table"].is_null());
    let schema = &patient["schema"];
    assert_eq!(
        schema["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    assert_eq!(
        (&schema["title"], &schema["type"]),
        (&json!("patient"), &json!("object"))
    );
    assert_eq!(schema["properties"]["name"], json!({ "type": ["string"] }));
    assert_eq!(
        schema["properties"]["age"],
        json!({ "type": ["integer", "string", "null"] })
    );
    assert_eq!(schema["required"], patient["columns"]);
}

#[tokio::test]
async fn a_column_added_later_is_in_the_schema_without_a_restart() {
    let server = care();
    sqlite3(
        &server.database(),
        "ALTER TABLE patient ADD COLUMN bed TEXT",
    );
    let (_, body) = server.get("/api/topics").await;
    assert_eq!(body["topics"][0]["columns"][5], "bed");
    assert_eq!(
        body["topics"][1]["columns"],
        json!(["id", "name"]),
        "its columns are listed"
    );
}

#[tokio::test]
async fn a_query_over_http_is_the_reply_frame_of_the_socket() {
    let server = care();
    let mut socket = server.socket("").await;
    for (question, frame) in [
        ("patient", json!({})),
        (
            "patient?page=2&size=3&order=age%20desc",
            json!({ "params": { "page": 2, "size": 3, "order": "age desc" } }),
        ),
        (
            "patient?order=ward,age%20desc&size=4",
            json!({ "params": { "order": ["ward", "age desc"], "size": 4 } }),
        ),
        ("patient?id=2", json!({ "id": 2 })),
        ("patient?id=99", json!({ "id": 99 })),
        (
            "patient?filter[ward]=3&filter[age][gte]=82&filter[age][lt]=86",
            json!({ "params": { "filter": { "ward": "3", "age": { "gte": 82, "lt": 86 } } } }),
        ),
        (
            "patient?filter[age]=82&filter[age]=91",
            json!({ "params": { "filter": { "age": [82, 91] } } }),
        ),
        (
            "patient?filter[ward]=null",
            json!({ "params": { "filter": { "ward": null } } }),
        ),
        (
            "patient?filter%5Bname%5D%5Blike%5D=%25%E6%A1%82%25",
            json!({ "params": { "filter": { "name": { "like": "%桂%" } } } }),
        ),
        (
            "stay?key[bed]=3-1&key[day]=8",
            json!({ "id": { "bed": "3-1", "day": 8 } }),
        ),
        ("board", json!({})),
    ] {
        let (code, over_http) = server.get(&format!("/api/query/{question}")).await;
        let mut frame = frame;
        frame["type"] = question.split('?').next().unwrap().into();
        socket.send(frame).await;
        assert_eq!((code, over_http), (200, socket.next().await), "{question}");
    }
}

#[tokio::test]
async fn a_whole_view_over_http_is_one_answer_and_after_goes_on() {
    let server = care();
    let (_, all) = server.get("/api/query/patient?all=1").await;
    assert_eq!(ids(&all), [1, 2, 3, 4]);
    assert_eq!(members(&all), ["type", "op", "data", "cursor"]);
    let (_, first) = server
        .get("/api/query/patient?size=3&order=id%20desc")
        .await;
    let next = first["page"]["next"].as_str().unwrap();
    let (_, second) = server
        .get(&format!("/api/query/patient?after={next}"))
        .await;
    assert_eq!((ids(&first), ids(&second)), (vec![4, 3, 2], vec![1]));
    assert!(second["page"]["number"].is_null());
}

#[tokio::test]
async fn a_query_that_cannot_be_answered_says_why_in_json() {
    let server = care();
    for (question, status, slug) in [
        ("nobody", 404, "unknown_type"),
        ("%E7%8E%8B", 404, "unknown_type"),
        ("patient?page=0", 400, "bad_param"),
        ("patient?page=x", 400, "bad_param"),
        ("patient?size=5", 400, "bad_param"),
        ("patient?order=secret", 400, "bad_param"),
        ("patient?filter[secret]=1", 400, "bad_param"),
        ("patient?filter[age][near]=1", 400, "bad_param"),
        ("patient?id=1&page=1", 400, "bad_param"),
        ("patient?id=1&key[id]=1", 400, "bad_param"),
        ("stay?id=8", 400, "bad_param"),
        ("patient?after=zz", 400, "bad_param"),
        ("notice", 400, "bad_param"),
    ] {
        let (code, body) = server.get(&format!("/api/query/{question}")).await;
        assert_eq!(
            (code, &body["code"], &body["error"]),
            (status, &json!(status), &json!(slug)),
            "{question}"
        );
        assert_eq!(members(&body)[..3], ["code", "error", "msg"]);
        assert!(!body.to_string().contains("secret"), "{body}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_is_no_topic() {
    let server = care();
    for (code, body) in [
        server.get("/api/query/%ff").await,
        server.post("/api/topics/%ff/refresh", Json::Null).await,
    ] {
        assert_eq!((code, &body["error"]), (404, &json!("unknown_type")));
    }
}
