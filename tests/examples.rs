//! The scripts of examples/ as somebody runs them who has just read their first lines.

use std::process::{Command, Output};

use serde_json::{Value as Json, json};

use crate::support::{Nats, Server};

/// Runs a script of examples/ with one environment variable.
fn example(program: &str, arguments: &[&str], (name, value): (&str, &str)) -> Output {
    Command::new(program)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(arguments)
        .env(name, value)
        .output()
        .unwrap()
}

fn answer(output: &Output) -> Json {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn publish_over_http_reaches_a_socket() {
    let server = Server::start();
    let mut socket = server.socket("").await;
    let gateway = ("ROWCAST_URL", &*server.url(""));
    let curl = Command::new("curl").arg("--version").output();
    curl.expect("this test needs curl: apt-get install -y curl");
    let script = "examples/publish.sh";
    assert_eq!(answer(&example("sh", &[script], gateway))["code"], 202);
    let told = socket.next_of("all_patient_page_data").await;
    assert_eq!(told["data"], "更新数据了,个人信息");
    answer(&example("sh", &[script, "visit", "{\"floor\":3}"], gateway));
    let told = socket.next_of("visit").await;
    assert_eq!(
        (&told["op"], &told["data"]),
        (&json!("event"), &json!({ "floor": 3 }))
    );
    let refused = example("sh", &[script, "nobody"], gateway);
    assert!(!refused.status.success(), "{refused:?}");
}

#[tokio::test]
async fn publish_over_nats_says_where_it_is_stored_or_that_it_is_not() {
    let nats = Nats::start();
    let url = nats.url();
    let python = |arguments: &[&str]| {
        let script = [&["examples/publish.py"], arguments].concat();
        example("python3", &script, ("NATS_URL", &url))
    };
    let alone = python(&[]);
    assert!(
        !alone.status.success() && String::from_utf8_lossy(&alone.stderr).contains("no stream"),
        "{alone:?}"
    );
    let client = async_nats::connect(&url).await.unwrap();
    let context = async_nats::jetstream::new(client);
    let config = async_nats::jetstream::stream::Config {
        name: "ROWCAST".into(),
        subjects: vec!["rowcast.event.>".into()],
        ..Default::default()
    };
    let stream = context.create_stream(config).await.unwrap();
    let stored = json!({ "stream": "ROWCAST", "seq": 1 });
    assert_eq!(answer(&python(&["visit", "{\"楼层\":3}"])), stored);
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), "rowcast.event.visit");
    assert_eq!(
        serde_json::from_slice::<Json>(&message.payload).unwrap(),
        json!({ "type": "visit", "data": { "楼层": 3 } })
    );
}
