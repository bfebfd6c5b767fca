//! Topics that a URL names before it is known who asks: they are judged by who that turns out to be, and
//! nobody learns before which there are.

use serde_json::{Value as Json, json};

use super::{CARE, CARE_TABLES, SECRET, ann, status};
use crate::support::{Server, Socket, sqlite3};

/// A topic for doctors, beside those of the care home.
fn server(more: &str) -> Server {
    let records = "[[topics]]\ntype = \"records\"\ntable = \"patient\"\npush = \"row\"\n\
                   columns_by_role = { doctor = [\"*\"] }\n";
    let config = format!("[auth]\nkey = \"{SECRET}\"\nleeway_ms = 0\n{more}\n{records}{CARE}");
    Server::configured(&config, CARE_TABLES)
}

async fn hello(socket: &mut Socket, role: Option<&str>) -> Json {
    let mut hello = json!({ "type": "sys:hello", "rid": 1 });
    if let Some(role) = role {
        hello["token"] = ann(json!({ "role": role })).into();
    }
    socket.ask(hello).await
}

#[tokio::test]
async fn a_stranger_is_not_told_which_topics_there_are() {
    let server = server("");
    for name in ["records", "patient", "nothing"] {
        let mut socket = server.socket(&format!("hello=1&types={name}")).await;
        let told = hello(&mut socket, None).await;
        assert_eq!(told["error"], "token_missing", "{name}");
        for path in [
            format!("/socket/all/?types={name}"),
            format!("/api/stream?types={name}"),
        ] {
            assert_eq!(status(&server, &path, &[]).await, 401, "{path}");
        }
    }
    let path = "/socket/all/?hello=1&types=no%20name";
    assert_eq!(status(&server, path, &[]).await, 401);
}

#[tokio::test]
async fn who_says_in_the_hello_who_he_is_gets_the_topics_that_are_his() {
    for more in ["", "anonymous = true"] {
        let server = server(more);
        let mut socket = server.socket("hello=1&types=records").await;
        let welcome = hello(&mut socket, Some("doctor")).await;
        assert_eq!(welcome["type"], "sys:welcome", "{welcome}");
        sqlite3(
            &server.database(),
            "UPDATE patient SET age = 5 WHERE id = 1",
        );
        assert_eq!(socket.next_of("records").await["key"]["id"], 1);

        // What is another's and what there is not are told alike, and nothing of either is sent.
        let mut told = Vec::new();
        for name in ["records", "nothing"] {
            let mut socket = server.socket(&format!("hello=1&types={name}")).await;
            let answer = hello(&mut socket, Some("nurse")).await;
            assert_eq!(answer["error"], "bad_param", "{answer}");
            told.push(answer);
            let named = json!({
                "type": "sys:hello", "rid": 2, "types": ["patient"],
                "token": ann(json!({ "role": "nurse" })),
            });
            assert_eq!(socket.ask(named).await["type"], "sys:welcome");
        }
        assert_eq!(told[0], told[1]);
    }
}

#[tokio::test]
async fn who_may_stay_nobody_gets_what_is_everybodys() {
    let server = server("anonymous = true");
    let mut socket = server.socket("hello=1&types=patient").await;
    assert_eq!(hello(&mut socket, None).await["type"], "sys:welcome");
    let mut told = Vec::new();
    for name in ["records", "nothing"] {
        let mut socket = server.socket(&format!("hello=1&types={name}")).await;
        told.push(hello(&mut socket, None).await);
        let path = format!("/socket/all/?types={name}");
        assert_eq!(status(&server, &path, &[]).await, 400);
    }
    assert_eq!(told[0]["error"], "bad_param");
    assert_eq!(told[0], told[1]);
}
