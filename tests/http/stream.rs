//! `/api/stream`: Server-Sent Events, as `curl` and `EventSource` read them.

use std::collections::HashSet;

use serde_json::{Value as Json, json};

use crate::{
    support::{Server, in_time, sqlite3},
    wire::{CARE, CARE_TABLES, care},
};

/// One event as a browser takes it apart.
#[derive(Debug, Default, PartialEq)]
struct Event {
    id: Option<String>,
    data: Option<Json>,
}

struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    async fn open(server: &Server, parameters: &str, last: Option<&str>) -> Self {
        let path = format!("/api/stream?{parameters}");
        let mut request = reqwest::Client::new().get(server.url(&path));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = in_time("an answer", request.send()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event, comments left out; none where the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let mut found = Event::default();
                for line in event.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => found.id = Some(id.to_owned()),
                        Some(("data", data)) => found.data = serde_json::from_str(data).unwrap(),
                        Some(("retry", ms)) => assert!(ms.parse::<u32>().is_ok()),
                        _ => assert_eq!(line, ":"),
                    }
                }
                self.text = rest.to_owned();
                if found != Event::default() {
                    return Some(found);
                }
            }
            let piece = in_time("a piece", self.response.chunk()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// The next event that has data.
    async fn any_frame(&mut self) -> (Option<String>, Json) {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if let Some(data) = event.data {
                return (event.id, data);
            }
        }
    }

    /// The next that is no tick, which comes when it is due.
    async fn frame(&mut self) -> (Option<String>, Json) {
        loop {
            let (id, data) = self.any_frame().await;
            if data["type"] != "sys:tick" {
                return (id, data);
            }
        }
    }
}

#[tokio::test]
async fn a_stream_carries_the_frames_of_a_socket_with_their_cursors() {
    let server = care();
    let mut stream = Stream::open(&server, "types=patient", None).await;
    let begin = stream.next().await.unwrap();
    assert!(begin.data.is_none(), "{begin:?}");
    let begin = begin.id.expect("where the stream begins");
    let mut socket = server.socket("types=patient").await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET name = '行' || char(10) || '2' WHERE id = 1",
    );
    let frame = socket.next().await;
    let (id, event) = stream.frame().await;
    assert_eq!(event, frame);
    assert_eq!(id.as_deref(), frame["cursor"].as_str());

    // Who comes back gets what he missed, whatever the URL says.
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 5 WHERE id = 2",
    );
    let missed = socket.next().await;
    drop(stream);
    let parameters = format!("types=patient&since={begin}");
    let mut again = Stream::open(&server, &parameters, id.as_deref()).await;
    assert_eq!(again.frame().await.1, missed);
    let (id, caught_up) = again.frame().await;
    assert_eq!(caught_up["type"], "sys:caught_up");
    assert_eq!(id.as_deref(), caught_up["cursor"].as_str());
    let mut from_url = Stream::open(&server, &parameters, None).await;
    assert_eq!(from_url.frame().await.1, frame);
    assert_eq!(from_url.frame().await.1, missed);
}

#[tokio::test]
async fn a_query_over_http_begins_a_stream() {
    let server = care();
    let (_, reply) = server.get("/api/query/patient?all=true").await;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 7 WHERE id = 3",
    );
    let since = reply["cursor"].as_str().unwrap();
    let mut stream = Stream::open(&server, &format!("types=patient&since={since}"), None).await;
    let event = loop {
        // The replay may be over before the change comes.
        let (_, frame) = stream.frame().await;
        if frame["type"] == "patient" {
            break frame;
        }
    };
    assert_eq!(
        (&event["key"], &event["data"]["age"]),
        (&json!({"id": 3}), &json!(7))
    );
}

#[tokio::test]
async fn the_page_after_a_replay_has_its_cursor_as_its_id() {
    let server = care();
    let (_, reply) = server.get("/api/query/board").await;
    let since = reply["cursor"].as_str().unwrap();
    for _ in 0..2 {
        let mut stream = Stream::open(&server, &format!("types=board&since={since}"), None).await;
        let page = loop {
            let (id, frame) = stream.frame().await;
            assert_eq!(id.as_deref(), frame["cursor"].as_str(), "{frame}");
            if frame["type"] == "board" {
                break frame;
            }
        };
        assert_eq!(page["data"].as_array().unwrap().len(), 2);
        // What is read once is kept; after a change it is read again.
        let event = json!({ "type": "notice" });
        server.post("/api/events", event).await;
    }
}

#[tokio::test]
async fn an_idle_stream_moves_its_cursor_and_is_told_that_it_is_current() {
    let config = format!("[server]\ntick_interval_ms = 100\n{CARE}");
    let server = Server::configured(&config, CARE_TABLES);
    let mut stream = Stream::open(&server, "types=notice", None).await;
    let begin = stream.next().await.unwrap().id;
    sqlite3(
        &server.database(),
        "UPDATE patient SET age = 7 WHERE id = 3",
    );
    loop {
        let (id, frame) = stream.any_frame().await;
        assert_eq!(frame, json!({ "type": "sys:tick", "cursor": id }));
        if id != begin {
            break;
        }
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_is_refused_with_a_reason() {
    let server = care();
    for (parameters, last) in [
        ("types=nonsense", None),
        ("since=nonsense", None),
        ("hello=1", None),
        ("", Some("nonsense")),
    ] {
        let url = server.url(&format!("/api/stream?{parameters}"));
        let mut request = reqwest::Client::new().get(url);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 400, "{parameters} {last:?}");
        let body: Json = answer.json().await.unwrap();
        assert_eq!(body["error"], "bad_param", "{body}");
    }
    let request = reqwest::Client::new().get(server.url("/api/stream"));
    let answer = request.header("origin", "https://evil.example").send();
    assert_eq!(answer.await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams_after_their_last_events() {
    let mut server = care();
    let mut stream = Stream::open(&server, "types=patient", None).await;
    stream.next().await.unwrap();
    let mut witness = server.socket("types=patient").await;
    let event = json!({ "type": "patient", "data": "last" });
    assert_eq!(server.post("/api/events", event).await.0, 202);
    // What nobody could be sent within a second is theirs when they resume.
    witness.next_of("patient").await;
    server.signal("TERM");
    let mut told = Vec::new();
    while let Some(event) = stream.next().await {
        told.extend(event.data.filter(|frame| frame["type"] != "sys:tick"));
    }
    assert_eq!(told[0]["data"], "last");
    assert_eq!(told[1]["type"], "sys:drain");
    assert_eq!(told.len(), 2);
    assert_eq!(server.ended().code(), Some(0));
}

#[tokio::test]
async fn an_event_source_comes_back_to_a_full_server() {
    let config = format!("[server]\nmax_connections = 1\n{CARE}");
    let server = Server::configured(&config, CARE_TABLES);
    let mut only = server.socket("").await;
    // It has its place when it is served, which is a moment after its handshake is answered.
    only.ask(json!({ "type": "sys:ping", "rid": 1 })).await;
    let ask = || reqwest::Client::new().get(server.url("/api/stream"));
    let answer = ask().send().await.unwrap();
    assert_eq!(answer.status(), 429);
    // It would never ask again if it were told so.
    let mut waits = HashSet::new();
    for _ in 0..20 {
        let answer = ask().header("accept", "text/event-stream").send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let told = answer.text().await.unwrap();
        let wait = told
            .strip_prefix("retry: ")
            .and_then(|told| told.strip_suffix("\n\n"));
        let wait: u32 = wait.unwrap_or_else(|| panic!("{told}")).parse().unwrap();
        assert!((5000..=7500).contains(&wait), "{wait}");
        waits.insert(wait);
    }
    assert!(waits.len() > 1, "all of them come at once again: {waits:?}");
}
