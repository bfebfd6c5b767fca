//! HTTP: the API, the tutorial's trigger views, CORS and the headers.

use reqwest::{Client, Method, StatusCode, header::HeaderMap};
use serde_json::{Value as Json, json};

use crate::{
    support::{Options, Server, sqlite3},
    wire::{CARE, CARE_TABLES, care, ids, members},
};

/// A request with headers; the status, the headers and the body.
async fn request(
    server: &Server,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> (u16, HeaderMap, String) {
    let mut request = Client::new().request(method, server.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body.to_owned());
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    (status, headers, answer.text().await.unwrap())
}

/// A `POST` of text with a content type; the status and the JSON answer.
async fn post(server: &Server, path: &str, kind: &str, body: &str) -> (u16, Json) {
    let headers = [("content-type", kind)];
    let headers = if kind.is_empty() {
        &[]
    } else {
        headers.as_slice()
    };
    let (status, _, text) = request(server, Method::POST, path, headers, Some(body)).await;
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}")),
    )
}

fn listed(headers: &HeaderMap, name: &str) -> Vec<String> {
    let text = headers
        .get(name)
        .map_or("", |value| value.to_str().unwrap());
    let names = text.split(',').map(|name| name.trim().to_owned());
    let mut names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    names.sort();
    names
}

// === the API ===

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

// === what holds for all paths ===

#[tokio::test]
async fn a_wrong_path_or_method_is_told_in_json() {
    let server = care();
    for (method, path, status, slug) in [
        (Method::GET, "/nothing", 404, "not_found"),
        (Method::GET, "/console/nothing.js", 404, "not_found"),
        (Method::GET, "/console/..%2fconfig", 404, "not_found"),
        (Method::POST, "/api/topics", 405, "method_not_allowed"),
        (Method::GET, "/api/events", 405, "method_not_allowed"),
        (
            Method::DELETE,
            "/api/query/patient",
            405,
            "method_not_allowed",
        ),
        (Method::GET, "/chat/update/info/", 405, "method_not_allowed"),
        (Method::PUT, "/", 405, "method_not_allowed"),
    ] {
        let (code, headers, text) = request(&server, method.clone(), path, &[], None).await;
        let body: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (code, &body["code"], &body["error"]),
            (status, &json!(status), &json!(slug)),
            "{method} {path}"
        );
        assert_eq!(headers["content-type"], "application/json; charset=utf-8");
        assert_eq!(
            status == 405,
            headers.contains_key("allow"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn the_console_is_served_with_a_policy_that_admits_nothing_foreign() {
    let server = care();
    let (code, headers, page) = request(&server, Method::GET, "/", &[], None).await;
    assert_eq!(
        (code, &headers["content-type"]),
        (200, &"text/html; charset=utf-8".parse().unwrap())
    );
    let policy = headers["content-security-policy"].to_str().unwrap();
    for rule in [
        "default-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let files = page.split('"').filter(|part| part.starts_with("/console/"));
    for file in files {
        let (code, ..) = request(&server, Method::GET, file, &[], None).await;
        assert_eq!(code, 200, "{file}");
    }
    let (code, headers, _) = request(&server, Method::GET, "/api/topics", &[], None).await;
    assert_eq!(
        (code, headers["cache-control"].to_str().unwrap()),
        (200, "no-store")
    );
}

// === CORS ===

/// A browser's question before it sends a request of another origin.
async fn preflight(server: &Server, origin: &str) -> HeaderMap {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,token"),
    ];
    let (code, headers, _) = request(server, Method::OPTIONS, "/api/events", &headers, None).await;
    assert!(StatusCode::from_u16(code).unwrap().is_success(), "{code}");
    headers
}

#[tokio::test]
async fn a_preflight_names_exactly_the_tutorials_methods_and_headers() {
    let server = care();
    let headers = preflight(&server, "http://localhost:5173").await;
    assert_eq!(
        listed(&headers, "access-control-allow-methods"),
        ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "VIEW"]
    );
    assert_eq!(
        listed(&headers, "access-control-allow-headers"),
        [
            "accept-encoding",
            "authorization",
            "content-type",
            "dnt",
            "origin",
            "pragma",
            "token",
            "user-agent",
            "x-csrftoken",
            "x-requested-with",
            "x_filename",
            "xmlhttprequest",
        ]
    );
    assert_eq!(
        headers["access-control-allow-origin"],
        "http://localhost:5173"
    );
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert!(
        listed(&headers, "vary")
            .iter()
            .any(|name| name.eq_ignore_ascii_case("origin"))
    );
}

#[tokio::test]
async fn only_allowed_origins_may_read_answers() {
    let server = Server::configured(
        &format!("[server]\nallowed_origins = [\"https://care.example\"]\n{CARE}"),
        CARE_TABLES,
    );
    let own = format!("http://{}", server.address());
    for (origin, allowed) in [
        (&*own, true),
        ("https://care.example", true),
        ("http://127.0.0.1:3000", true),
        ("https://evil.example", false),
        ("https://care.example.evil", false),
        ("null", false),
    ] {
        let preflighted = preflight(&server, origin).await;
        let (_, got, _) = request(
            &server,
            Method::GET,
            "/api/topics",
            &[("origin", origin)],
            None,
        )
        .await;
        for headers in [preflighted, got] {
            let told = headers
                .get("access-control-allow-origin")
                .map(|value| value.to_str().unwrap());
            assert_eq!(told, allowed.then_some(origin));
        }
    }
}

#[tokio::test]
async fn everybody_may_be_let_in_but_then_without_credentials() {
    let server = Server::configured(
        &format!("[server]\nallowed_origins = [\"*\"]\n{CARE}"),
        CARE_TABLES,
    );
    let headers = preflight(&server, "https://anybody.example").await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(!headers.contains_key("access-control-allow-credentials"));
    assert_eq!(listed(&headers, "access-control-allow-headers").len(), 12);
    let headers = [
        ("origin", "https://anybody.example"),
        ("content-type", "application/json"),
    ];
    let (code, ..) = request(
        &server,
        Method::POST,
        "/api/events",
        &headers,
        Some(r#"{"type":"notice"}"#),
    )
    .await;
    assert_eq!(code, 202);
}

#[tokio::test]
async fn a_write_of_a_foreign_page_is_refused_and_does_nothing() {
    let server = Server::start();
    let rows = || sqlite3(&server.database(), "SELECT count(*) FROM patient");
    let before = rows();
    for (path, body) in [
        ("/chat/update/info/", ""),
        ("/api/events", r#"{"type":"patient","data":"evil"}"#),
        ("/api/topics/all_patient_page_data/refresh", ""),
    ] {
        let headers = [
            ("origin", "https://evil.example"),
            ("content-type", "application/json"),
        ];
        let (code, _, text) = request(&server, Method::POST, path, &headers, Some(body)).await;
        let answer: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (code, &answer["code"], &answer["error"]),
            (403, &json!(403), &json!("forbidden")),
            "{path}"
        );
    }
    assert_eq!(rows(), before);
    let headers = [
        ("origin", "http://localhost:1"),
        ("content-type", "application/json"),
    ];
    let (code, ..) = request(
        &server,
        Method::POST,
        "/chat/update/info/",
        &headers,
        Some("{}"),
    )
    .await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn a_listener_that_others_reach_admits_no_loopback_pages() {
    let server = Server::with(Options {
        config: Some(format!("[auth]\nanonymous = true\n{CARE}")),
        database: Some(CARE_TABLES.into()),
        listen: Some("0.0.0.0:0".into()),
        ..Options::default()
    });
    let local = server.url("").replace("0.0.0.0", "127.0.0.1");
    let topics = format!("{local}/api/topics");
    let from = async |origin: &str| {
        let answer = Client::new()
            .get(&topics)
            .header("origin", origin)
            .send()
            .await
            .unwrap();
        answer.headers().contains_key("access-control-allow-origin")
    };
    assert!(from(&local).await, "the own host");
    assert!(!from("http://localhost:5173").await);
}
