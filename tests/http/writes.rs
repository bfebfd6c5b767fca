//! Events, refreshes, the tutorial's trigger views, and how the process is.

use serde_json::{Value as Json, json};

use super::post;
use crate::{
    support::{Server, sqlite3},
    wire::care,
};

#[tokio::test]
async fn the_tutorials_own_event_is_pushed_to_the_group() {
    let server = Server::start();
    let mut socket = server.socket("").await;
    let text = r#"{"type":"all_patient_page_data","data":"更新数据了,个人信息"}"#;
    let (code, answer) = post(&server, "/api/events", "application/json", text).await;
    assert_eq!((code, &answer["code"]), (202, &json!(202)));
    let event = socket.next().await;
    assert_eq!(
        (
            &event["type"],
            &event["op"],
            &event["data"],
            &event["cursor"]
        ),
        (
            &json!("all_patient_page_data"),
            &json!("event"),
            &json!("更新数据了,个人信息"),
            &answer["cursor"]
        )
    );
}

#[tokio::test]
async fn an_event_with_the_id_of_an_earlier_one_stores_nothing_and_gets_its_cursor() {
    let server = care();
    let mut socket = server.socket("").await;
    let event = |data: u32| json!({ "type": "notice", "id": "order-7", "data": data });
    let (_, first) = server.post("/api/events", event(1)).await;
    let (code, second) = server.post("/api/events", event(2)).await;
    assert_eq!((code, &second["cursor"]), (202, &first["cursor"]));
    server
        .post("/api/events", json!({ "type": "notice", "data": "after" }))
        .await;
    assert_eq!(socket.next().await["data"], 1);
    assert_eq!(socket.next().await["data"], "after");
}

#[tokio::test]
async fn a_cloud_event_is_taken_as_one() {
    let server = care();
    let mut socket = server.socket("").await;
    let event = json!({
        "specversion": "1.0", "id": "a1", "source": "/care/app", "type": "patient", "subject": "1",
        "time": "2020-01-01T00:00:00Z", "datacontenttype": "application/json", "data": { "x": [1, 2] },
    });
    let kind = "application/cloudevents+json; charset=utf-8";
    let (code, _) = post(&server, "/api/events", kind, &event.to_string()).await;
    assert_eq!(code, 202);
    let pushed = socket.next().await;
    assert_eq!(
        (&pushed["type"], &pushed["op"], &pushed["data"]),
        (&json!("patient"), &json!("event"), &event["data"])
    );
    let ts = jiff::Timestamp::from_millisecond(pushed["ts"].as_i64().unwrap()).unwrap();
    assert!(
        ts > "2021-01-01T00:00:00Z".parse().unwrap(),
        "the time stored, not the event's own"
    );
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_nothing_is_pushed() {
    let server = care();
    let mut socket = server.socket("").await;
    let json = "application/json";
    let (over, most) = (
        format!("\"{}\"", "x".repeat(65_535)),
        format!("\"{}\"", "x".repeat(65_000)),
    );
    for (kind, body, status, slug) in [
        (json, "", 400, "bad_json"),
        (json, "{", 400, "bad_json"),
        (json, "[]", 400, "bad_json"),
        (json, "\"x\"", 400, "bad_json"),
        (json, "{}", 400, "bad_param"),
        (json, r#"{"type":5}"#, 400, "bad_param"),
        (json, r#"{"type":"notice","id":[]}"#, 400, "bad_param"),
        (json, r#"{"type":"notice","id":""}"#, 400, "bad_param"),
        (
            json,
            r#"{"type":"notice","specversion":"0.3"}"#,
            400,
            "bad_param",
        ),
        (json, r#"{"type":"nobody"}"#, 404, "unknown_type"),
        (json, r#"{"type":"sys:reset"}"#, 404, "unknown_type"),
        (json, &over, 413, "payload_too_large"),
        (json, &most, 400, "bad_json"),
        (
            "text/plain",
            r#"{"type":"notice"}"#,
            415,
            "unsupported_media_type",
        ),
        (
            "application/x-www-form-urlencoded",
            "type=notice",
            415,
            "unsupported_media_type",
        ),
        ("", r#"{"type":"notice"}"#, 415, "unsupported_media_type"),
    ] {
        let (code, answer) = post(&server, "/api/events", kind, body).await;
        let shown: String = body.chars().take(40).collect();
        assert_eq!(
            (code, &answer["code"], &answer["error"]),
            (status, &json!(status), &json!(slug)),
            "{kind} {shown}"
        );
    }
    server
        .post("/api/events", json!({ "type": "notice", "data": "first" }))
        .await;
    assert_eq!(socket.next().await["data"], "first");
}

#[tokio::test]
async fn a_refresh_pushes_a_page_and_is_refused_where_there_is_none() {
    let server = care();
    let mut socket = server.socket("types=board").await;
    let (code, answer) = server.post("/api/topics/board/refresh", Json::Null).await;
    assert_eq!((code, answer), (202, json!({ "code": 202 })));
    let page = socket.next().await;
    assert_eq!(
        (&page["type"], &page["op"], &page["page"]["total"]),
        (&json!("board"), &json!("replace"), &json!(5))
    );
    for (topic, status, slug) in [
        ("patient", 400, "bad_param"),
        ("notice", 400, "bad_param"),
        ("nobody", 404, "unknown_type"),
    ] {
        let (code, answer) = server
            .post(&format!("/api/topics/{topic}/refresh"), Json::Null)
            .await;
        assert_eq!((code, &answer["error"]), (status, &json!(slug)), "{topic}");
    }
}

#[tokio::test]
async fn the_tutorials_views_insert_and_the_push_follows_from_the_database() {
    let server = Server::start();
    let mut socket = server.socket("").await;
    for (path, body, row, page, seen) in [
        (
            "/chat/update/info/",
            json!({ "name": "白素贞", "age": 77 }),
            "patient",
            "all_patient_page_data",
            ("name", "白素贞"),
        ),
        (
            "/chat/update/record/",
            json!({ "patient_id": 2, "visitor": "许仙" }),
            "visit",
            "all_active_visit_data",
            ("visitor", "许仙"),
        ),
        (
            "/chat/update/info/",
            Json::Null,
            "patient",
            "all_patient_page_data",
            ("left_at", ""),
        ),
        (
            "/chat/update/record/",
            Json::Null,
            "visit",
            "all_active_visit_data",
            ("relation", "亲属"),
        ),
    ] {
        let (code, answer) = server.post(path, body).await;
        assert_eq!(
            (code, answer),
            (200, json!({ "code": 200, "msg": "更新数据成功" })),
            "{path}"
        );
        let event = socket.next_of(row).await;
        assert_eq!(event["op"], "insert");
        assert_eq!(event["data"][seen.0].as_str().unwrap_or(""), seen.1);
        let id = &event["key"]["id"];
        let page = socket.next_of(page).await;
        assert!(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .any(|row| row["id"] == *id),
            "{page}"
        );
    }
    let rows = sqlite3(
        &server.database(),
        "SELECT count(*) FROM patient WHERE name = '白素贞'",
    );
    assert_eq!(rows.trim(), "1");
    for (body, status, slug) in [
        ("{\"nobody\":1}", 400, "bad_param"),
        ("{\"name\":null}", 400, "bad_param"),
        ("{\"name\":{}}", 400, "bad_param"),
        ("{\"id\":1}", 400, "bad_param"),
        ("[]", 400, "bad_json"),
        ("{", 400, "bad_json"),
    ] {
        let (code, answer) = post(&server, "/chat/update/info/", "application/json", body).await;
        assert_eq!((code, &answer["error"]), (status, &json!(slug)), "{body}");
    }
    let (code, _) = care().post("/chat/update/info/", Json::Null).await;
    assert_eq!(code, 404, "the demo's views are the demo's");
}

#[tokio::test]
async fn a_table_that_is_away_makes_its_own_topic_unready_and_no_other() {
    let server = care();
    sqlite3(&server.database(), "ALTER TABLE stay RENAME TO away");
    let (code, body) = server.get("/api/query/stay").await;
    assert_eq!((code, &body["error"]), (503, &json!("db_unavailable")));
    assert_eq!(server.get("/readyz").await.0, 200);
    assert_eq!(server.get("/api/query/patient").await.0, 200);
}

#[tokio::test]
async fn health_and_readiness_have_reasons() {
    let server = care();
    assert_eq!(
        server.get("/healthz").await,
        (200, json!({ "status": "alive" }))
    );
    assert_eq!(
        server.get("/readyz").await,
        (200, json!({ "status": "ready" }))
    );
    std::fs::rename(server.database(), server.folder().join("away.db")).unwrap();
    let missing = crate::support::wait_until("a missing database to be noticed", async || {
        let _ = server.get("/api/query/patient").await;
        let (code, body) = server.get("/readyz").await;
        (code == 503).then_some(body)
    });
    let body = missing.await;
    assert_eq!(body["status"], "not_ready");
    assert!(
        body["missing"]
            .as_object()
            .unwrap()
            .values()
            .all(Json::is_string),
        "{body}"
    );
    assert_eq!(server.get("/healthz").await.0, 200);
    std::fs::rename(server.folder().join("away.db"), server.database()).unwrap();
    crate::support::wait_until("everything to be back", async || {
        let _ = server.get("/api/query/patient").await;
        (server.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}
