//! Who may publish: to see a topic is not to say something on it.

use serde_json::{Value as Json, json};

use super::{CARE, CARE_TABLES, SECRET, ann, guarded, is_served, opened, with_secret};
use crate::support::{Folder, Server};

const WRITERS: &str = "publish = { role = \"writer\" }\noperator = { role = \"admin\" }";

/// The status and the error with which somebody's event is answered.
async fn published(server: &Server, token: Option<&str>) -> (u16, Json) {
    let event = json!({ "type": "notice", "id": "order-1", "data": 1 });
    let mut request = reqwest::Client::new().post(server.url("/api/events"));
    if let Some(token) = token {
        request = request.header("token", token);
    }
    let answer = request.json(&event).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Json = answer.json().await.unwrap();
    (status, body["error"].clone())
}

#[tokio::test]
async fn with_sign_in_operators_publish_and_those_who_are_named_and_nobody_else() {
    let none = "operator = { role = \"admin\" }";
    for (settings, role, expected) in [
        (WRITERS, json!("writer"), 202),
        (WRITERS, json!(["nurse", "writer"]), 202),
        (WRITERS, json!("admin"), 202),
        (WRITERS, json!("nurse"), 403),
        (WRITERS, json!(null), 403),
        (none, json!("admin"), 202),
        (none, json!("writer"), 403),
        ("", json!("admin"), 403),
    ] {
        let server = with_secret(settings);
        let token = ann(json!({ "role": role }));
        let told = published(&server, Some(&token)).await;
        assert_eq!(told.0, expected, "{settings} {role}");
        if expected == 403 {
            assert_eq!(told.1, "forbidden");
        }
        assert_eq!(published(&server, None).await.0, 401);
    }
}

/// The status with which somebody's wish is answered that a topic's page be read again.
async fn refreshed(server: &Server, topic: &str, token: &str) -> u16 {
    let url = server.url(&format!("/api/topics/{topic}/refresh"));
    let asked = reqwest::Client::new().post(url).header("token", token);
    asked.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn who_may_not_publish_has_no_page_read_again_for_everybody() {
    let server = with_secret(WRITERS);
    for (role, status, absent) in [
        ("writer", 202, 404),
        ("admin", 202, 404),
        ("nurse", 403, 403),
    ] {
        let token = ann(json!({ "role": role }));
        assert_eq!(refreshed(&server, "board", &token).await, status, "{role}");
        // Nor is told whether there is a topic of that name.
        assert_eq!(
            refreshed(&server, "nothing", &token).await,
            absent,
            "{role}"
        );
    }
}

#[tokio::test]
async fn what_was_refused_is_nowhere_and_takes_nobodys_id() {
    let server = with_secret(WRITERS);
    let (nurse, writer) = (
        ann(json!({ "role": "nurse" })),
        ann(json!({ "role": "writer" })),
    );
    let mut socket = opened(&server, &[("token", &nurse)]).await;
    is_served(&mut socket).await;
    assert_eq!(published(&server, Some(&nurse)).await.0, 403);
    assert_eq!(published(&server, Some(&writer)).await.0, 202);
    assert_eq!(socket.next_of("notice").await["data"], 1);
    // Nor is told whether there is a topic of that name.
    let event = json!({ "type": "nothing", "data": 1 });
    let request = reqwest::Client::new().post(server.url("/api/events"));
    let answer = request.header("token", &nurse).json(&event).send().await;
    assert_eq!(answer.unwrap().status(), 403);
}

#[tokio::test]
async fn where_nobody_need_say_who_he_is_everybody_publishes_unless_it_is_said_who_may() {
    let open = guarded(&format!("key = \"{SECRET}\"\nanonymous = true"));
    assert_eq!(published(&open, None).await.0, 202);
    let named = guarded(&format!("key = \"{SECRET}\"\nanonymous = true\n{WRITERS}"));
    assert_eq!(published(&named, None).await, (403, "forbidden".into()));
    let writer = ann(json!({ "role": "writer" }));
    assert_eq!(published(&named, Some(&writer)).await.0, 202);
    let unjudged = Server::configured(CARE, CARE_TABLES);
    assert_eq!(published(&unjudged, None).await.0, 202);
}

#[test]
fn who_may_publish_is_not_said_where_nobody_is_told_apart() {
    let folder = Folder::new();
    folder.write("rowcast.toml", "[auth]\npublish = { role = \"writer\" }\n");
    let ran = folder.run(&["check"]);
    assert_eq!(ran.code, 64, "{ran:?}");
    assert!(ran.stderr.contains("auth.publish"), "{ran:?}");
}
