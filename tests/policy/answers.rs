//! Whatever is asked, by whatever way: the rows and columns that are one's own, and what is not there and what
//! is another's are answered in the same bytes.

use serde_json::{Value as Json, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest},
};

use super::home::{CANARY, Home, cook, doctor, is_innocent, nurse, stranger, token};
use crate::support::{Socket, in_time, wait_until};

async fn reply(socket: &mut Socket, frame: Json) -> String {
    socket.send(frame.clone()).await;
    loop {
        let text = in_time("an answer", socket.next_text()).await;
        let answer: Json = serde_json::from_str(&text).unwrap();
        if answer["rid"] == frame["rid"] {
            return text;
        }
    }
}

/// A reply but for its cursor, which heartbeats move, and whether that could be told in time, which no row
/// has anything to do with.
fn still(reply: &str) -> String {
    let mut reply: Json = serde_json::from_str(reply).unwrap();
    for moves in ["cursor", "exact"] {
        reply.as_object_mut().unwrap().shift_remove(moves);
    }
    reply.to_string()
}

fn names(reply: &str) -> Vec<String> {
    let reply: Json = serde_json::from_str(reply).unwrap();
    let rows = reply["data"]
        .as_array()
        .unwrap_or_else(|| panic!("{reply}"));
    rows.iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_finds_what_is_ones_own() {
    let home = Home::open().await;
    let mut other = home.socket(&stranger(), "").await;
    let page =
        json!({"type": "patient", "rid": 1, "params": {"size": 1, "order": ["diagnosis", "name"]}});
    let theirs: Json = serde_json::from_str(&reply(&mut other, page).await).unwrap();
    assert_eq!(theirs["page"]["total"], 3);
    let after = theirs["page"]["next"].as_str().unwrap();
    let mut nurse_socket = home.socket(&nurse(), "").await;
    let mut doctor_socket = home.socket(&doctor(), "").await;
    for (what, params, nurse_sees, doctor_sees) in [
        (
            "page",
            json!({}),
            Some(&["Ann", "Bob"][..]),
            &["Ann", "Bob", "Cleo"][..],
        ),
        (
            "all",
            json!({"all": true}),
            Some(&["Ann", "Bob"]),
            &["Ann", "Bob", "Cleo"],
        ),
        (
            "size",
            json!({"size": 1, "page": 2}),
            Some(&["Bob"]),
            &["Bob"],
        ),
        (
            "far page",
            json!({"size": 1, "page": 3}),
            Some(&[]),
            &["Cleo"],
        ),
        (
            "order",
            json!({"order": "name desc"}),
            Some(&["Bob", "Ann"]),
            &["Cleo", "Bob", "Ann"],
        ),
        (
            "filter",
            json!({"filter": {"ward": ["1", "2", "CANARY-ward"]}}),
            Some(&["Ann", "Bob"]),
            &["Ann", "Bob", "Cleo"],
        ),
        (
            "their name",
            json!({"filter": {"name": {"like": "C%"}}}),
            Some(&[]),
            &["Cleo"],
        ),
        (
            "their key",
            json!({"filter": {"id": {"gt": 400}}}),
            Some(&[]),
            &[],
        ),
        (
            "hidden filter",
            json!({"filter": {"diagnosis": "flu"}}),
            None,
            &["Ann", "Cleo"],
        ),
        (
            "hidden tenant",
            json!({"filter": {"tenant": "CANARY-elm"}}),
            None,
            &[],
        ),
        (
            "hidden order",
            json!({"order": "diagnosis"}),
            None,
            &["Bob", "Ann", "Cleo"],
        ),
        (
            "their continuation",
            json!({ "after": after }),
            None,
            &["Bob", "Ann", "Cleo"],
        ),
    ] {
        let ask = |rid: u64| json!({"type": "patient", "rid": rid, "params": params});
        let of_nurse = reply(&mut nurse_socket, ask(2)).await;
        let of_doctor = reply(&mut doctor_socket, ask(3)).await;
        is_innocent(what, &of_nurse);
        is_innocent(what, &of_doctor);
        match nurse_sees {
            Some(nurse_sees) => assert_eq!(names(&of_nurse), nurse_sees, "{what}"),
            None => assert!(of_nurse.contains("bad_param"), "{what}: {of_nurse}"),
        }
        if what == "their continuation" {
            // It names a place in an order, which is as good as another.
            assert!(
                names(&of_doctor)
                    .iter()
                    .all(|name| doctor_sees.contains(&name.as_str()))
            );
        } else {
            assert_eq!(names(&of_doctor), doctor_sees, "{what}");
        }
        assert!(
            !of_nurse.contains("diagnosis\":") && !of_nurse.contains("tenant\":"),
            "{of_nurse}"
        );
        let told: Json = serde_json::from_str(&of_nurse).unwrap();
        if what == "size" {
            assert_eq!(told["page"]["total"], 2);
        }
    }
    // With nobody's wards there is nothing.
    let nobody = token(json!({"tenant": "oak", "role": "doctor", "wards": {"1": true}}));
    let mut socket = home.socket(&nobody, "").await;
    assert_eq!(
        names(&reply(&mut socket, json!({"type": "patient", "rid": 1})).await),
        [""; 0]
    );
    for path in [
        "",
        "?all=1",
        "?size=1",
        "?filter[ward]=1",
        "?order=name",
        "?id=1",
    ] {
        let (status, body) = home
            .http(
                &nurse(),
                "GET",
                &format!("/api/query/patient{path}"),
                Json::Null,
            )
            .await;
        assert_eq!(status, 200, "{body}");
        is_innocent(path, &body);
        assert!(
            body.contains("Ann") && !body.contains("Cleo"),
            "{path}: {body}"
        );
    }
    for path in ["/api/topics", "/api/types", "/api/types?lang=schema"] {
        let (status, body) = home.http(&nurse(), "GET", path, Json::Null).await;
        assert!(
            status == 200 && body.contains("ward") && !body.contains("diagnosis"),
            "{body}"
        );
        let (_, body) = home.http(&cook(), "GET", path, Json::Null).await;
        assert!(body.contains("visitor") && !body.contains("ward"), "{body}");
        is_innocent(path, &body);
    }
}

/// The same question twice, on sockets: of what is another's, and of what is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_anothers_and_what_is_not_there_are_answered_alike() {
    let home = Home::open().await;
    let swap = |frame: &Json, pairs: &[(&str, &str)]| {
        let text = pairs
            .iter()
            .fold(frame.to_string(), |text, (a, b)| text.replace(a, b));
        serde_json::from_str::<Json>(&text).unwrap()
    };
    let absent = [
        ("777000101", "888000101"),
        ("diagnosis", "nosuchone"),
        ("tenant", "absent"),
    ];
    for frame in [
        json!({"type": "patient", "rid": 1, "id": 777000101}),
        json!({"type": "patient", "rid": 1, "id": {"id": 777000101}}),
        json!({"type": "patient", "rid": 1, "params": {"filter": {"id": 777000101}}}),
        json!({"type": "patient", "rid": 1, "params": {"filter": {"diagnosis": "flu"}}}),
        json!({"type": "patient", "rid": 1, "params": {"filter": {"tenant": {"like": "C%"}}}}),
        json!({"type": "patient", "rid": 1, "params": {"order": "diagnosis desc"}}),
        json!({"type": "patient", "rid": 1, "params": {"order": ["name", "tenant"]}}),
        json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"diagnosis": "flu"}}}}),
        json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"tenant": "CANARY-elm"}}}}),
    ] {
        let mut socket = home.socket(&nurse(), "").await;
        let theirs = reply(&mut socket, frame.clone()).await;
        let nobodys = reply(&mut socket, swap(&frame, &absent)).await;
        assert_eq!(still(&theirs), still(&nobodys), "{frame}");
    }
    for frame in [
        json!({"type": "patient", "rid": 1}),
        json!({"type": "patient", "rid": 1, "id": 1}),
        json!({"type": "patient", "rid": 1, "params": {"all": true}}),
        json!({"type": "patient", "rid": 1, "params": {"order": "nosuchone"}}),
        json!({"type": "sys:subscribe", "rid": 1, "types": ["patient"]}),
        json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"ward": "1"}}}}),
        json!({"type": "sys:unsubscribe", "rid": 1, "types": ["patient"]}),
        json!({"type": "sys:hello", "rid": 1, "types": ["patient"]}),
        json!({"type": "sys:hello", "rid": 1, "topics": true}),
    ] {
        let mut answers = Vec::new();
        for name in ["patient", "nosuchone"] {
            let mut socket = home.socket(&cook(), "").await;
            answers.push(reply(&mut socket, swap(&frame, &[("patient", name)])).await);
        }
        assert_eq!(still(&answers[0]), still(&answers[1]), "{frame}");
        assert!(!answers[0].contains("patient"), "{}", answers[0]);
    }
    for (method, path, body) in [
        ("GET", "/api/query/patient", Json::Null),
        ("GET", "/api/query/patient?id=1", Json::Null),
        ("GET", "/api/query/patient?order=nosuchone", Json::Null),
        ("POST", "/api/topics/patient/refresh", Json::Null),
        ("POST", "/api/events", json!({"type": "patient", "data": 1})),
        ("GET", "/api/stream?types=patient", Json::Null),
        ("GET", "/api/stream?types=visit,patient", Json::Null),
    ] {
        let mut answers = Vec::new();
        for name in ["patient", "nosuchone"] {
            let body = swap(&body, &[("patient", name)]);
            let path = path.replace("patient", name);
            answers.push(home.http(&cook(), method, &path, body).await);
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert!(answers[0].0 >= 400, "{:?}", answers[0]);
    }
}

/// How a handshake is refused.
async fn refused(home: &Home, token: &str, parameters: &str) -> (u16, Vec<u8>) {
    let url = format!("ws://{}/socket/all/?{parameters}", home.gateway.address());
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("token", token.parse().unwrap());
    match in_time("a handshake", connect_async(request)).await {
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            (answer.status().as_u16(), body)
        }
        other => panic!("{parameters}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_for_what_is_not_ones_own_is_refused_like_one_for_what_is_not_there() {
    let home = Home::open().await;
    for types in ["patient", "visit,patient", "patient,patient"] {
        let theirs = refused(&home, &cook(), &format!("types={types}")).await;
        let absent = types.replace("patient", "nosuchone");
        let nobodys = refused(&home, &cook(), &format!("types={absent}")).await;
        assert_eq!(theirs, nobodys, "{types}");
        assert_eq!(theirs.0, 400, "{types}");
    }
    home.socket(&nurse(), "types=patient").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_nats_who_asks_is_nobody_or_whom_his_token_names() {
    let home = Home::open().await;
    let client = async_nats::connect(home.nats.url()).await.unwrap();
    let ask = async |topic: &str, body: Json, token: Option<String>| {
        let mut headers = async_nats::HeaderMap::new();
        if let Some(token) = token {
            headers.insert("Rowcast-Token", token.as_str());
        }
        let subject = format!("rowcast.query.{topic}");
        // It listens a moment after it is ready.
        wait_until("an answer", async || {
            let (subject, headers) = (subject.clone(), headers.clone());
            let asked = client.request_with_headers(subject, headers, body.to_string().into());
            let answer = in_time("an answer", asked).await.ok()?;
            String::from_utf8(answer.payload.to_vec()).ok()
        })
        .await
    };
    let own = ask("patient", json!({"params": {"all": true}}), Some(nurse())).await;
    assert_eq!(names(&own), ["Ann", "Bob"]);
    assert!(!own.contains("flu"), "{own}");
    let theirs = ask("patient", json!({"id": 777000101}), Some(nurse())).await;
    is_innocent("an id", &theirs);
    for token in [None, Some(cook())] {
        let refused = ask("patient", json!({}), token.clone()).await;
        let absent = ask("nosuchone", json!({}), token).await;
        assert_eq!(refused, absent);
        assert!(refused.contains("unknown_type"), "{refused}");
    }
    let none = ask("visit", json!({}), None).await;
    assert!(
        none.contains("\"data\":[]"),
        "no claim is no tenant: {none}"
    );
    let wrong = ask("visit", json!({}), Some("no token".into())).await;
    assert!(
        wrong.contains("\"code\":401") && !wrong.contains(CANARY),
        "{wrong}"
    );
}
