//! Whatever happens to the rows of another house, nobody hears of it who may not see them; and whoever follows
//! holds exactly what is his own.

use serde_json::{Value as Json, json};

use super::{
    home::{Home, connect, cook, doctor, is_innocent, nurse, stranger},
    scene::{END, NURSE, STEPS, brief, to_the_end},
};
use crate::support::in_time;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_another_house_is_heard_live_or_in_replay() {
    let home = Home::open().await;
    let mut plain = home.socket(&nurse(), "").await;
    let mut some = home.socket(&nurse(), "types=patient").await;
    let mut latest = home.socket(&nurse(), "hello=1").await;
    let hello =
        json!({"type": "sys:hello", "rid": 1, "mode": "latest", "types": ["patient", "visit"]});
    let welcome = latest.ask(hello).await;
    let cursor = welcome["cursor"].as_str().unwrap().to_owned();
    let mut filtered = home.socket(&nurse(), "").await;
    let filter = json!({"type": "sys:subscribe", "rid": 1, "types": {"patient": {"filter": {"id": {"gt": 10}}}}});
    assert_eq!(filtered.ask(filter).await["type"], "sys:ok");
    let mut of_doctor = home.socket(&doctor(), "").await;
    let mut of_cook = home.socket(&cook(), "").await;
    let mut of_stranger = home.socket(&stranger(), "").await;
    let url = home.gateway.url("/api/stream");
    let stream = reqwest::Client::new()
        .get(url)
        .bearer_auth(nurse())
        .send()
        .await;
    let mut stream = stream.unwrap();
    for step in STEPS {
        home.database.sql(&format!("BEGIN; {step}; COMMIT"));
    }
    // More than the smaller of two gateways keeps in memory.
    home.database.sql(
        "DO $$ BEGIN FOR n IN 1..400 LOOP UPDATE patient SET bed = n::text WHERE id = 3; END LOOP; END $$",
    );
    let event = json!({"type": "patient", "data": "CANARY-9"});
    assert_eq!(
        home.http(&doctor(), "POST", "/api/events", event).await.0,
        202
    );
    home.database.sql(END);
    let live = to_the_end(&mut plain).await;
    let all = live.concat();
    is_innocent("live", &all);
    assert_eq!(brief(&live), NURSE);
    assert!(!all.contains("measles") && !all.contains("tenant"), "{all}");
    is_innocent("one topic", &to_the_end(&mut some).await.concat());
    is_innocent("the latest", &to_the_end(&mut latest).await.concat());
    let heard = to_the_end(&mut filtered).await;
    is_innocent("a filter", &heard.concat());
    assert!(
        brief(&heard).contains(&"patient insert 20".to_owned()),
        "{heard:?}"
    );
    let heard = to_the_end(&mut of_doctor).await;
    is_innocent("a doctor", &heard.concat());
    assert!(heard.concat().contains("measles"));
    assert!(brief(&heard).contains(&"patient update 2".to_owned()));
    // Who does not see patients hears of visits alone.
    home.database
        .sql("INSERT INTO visit VALUES (9, 'oak', 'The End', NULL)");
    let heard = to_the_end(&mut of_cook).await;
    assert_eq!(brief(&heard), ["visit truncate", "visit insert 9"]);
    // The other house hears its own, and nothing of this one.
    home.database
        .sql("INSERT INTO patient VALUES (777000999, 'CANARY-elm', '1', 'The End', NULL, NULL)");
    let heard = to_the_end(&mut of_stranger).await;
    assert!(heard.concat().contains("CANARY-4") && !heard.concat().contains("oak"));
    let mut text = String::new();
    while !text.contains("The End") {
        let piece = in_time("a piece", stream.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    is_innocent("Server-Sent Events", &text);
    // The same again for who returns: from memory, and from the bus by a gateway that keeps little.
    let since = format!("since={cursor}");
    let small = home.another("ring_max_bytes = 65536");
    for gateway in [&home.gateway, &small] {
        let mut back = connect(gateway, &nurse(), &since).await;
        let replay = to_the_end(&mut back).await;
        assert_eq!(brief(&replay), NURSE);
        assert_eq!(replay, live, "byte for byte");
        let mut back = connect(gateway, &nurse(), &format!("{since}&mode=latest")).await;
        is_innocent(
            "the latest of a replay",
            &to_the_end(&mut back).await.concat(),
        );
        let mut back = connect(gateway, &cook(), &since).await;
        let heard = to_the_end(&mut back).await;
        assert_eq!(brief(&heard), ["visit truncate", "visit insert 9"]);
    }
    let url = home.gateway.url(&format!("/api/stream?{since}"));
    let stream = reqwest::Client::new()
        .get(url)
        .bearer_auth(nurse())
        .send()
        .await;
    let (mut stream, mut text) = (stream.unwrap(), String::new());
    while !text.contains("The End") {
        let piece = in_time("a piece", stream.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    is_innocent("a stream that was resumed", &text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_change_of_the_table_the_policy_goes_on_by_what_it_is_now() {
    let home = Home::open().await;
    let mut socket = home.socket(&nurse(), "").await;
    home.database
        .sql("ALTER TABLE patient ADD COLUMN floor int");
    home.database
        .sql("UPDATE patient SET name = 'CANARY' WHERE id = 777000101");
    home.database.sql(END);
    let heard = to_the_end(&mut socket).await;
    is_innocent("an altered table", &heard.concat());
    assert!(heard.concat().contains("insert"), "{heard:?}");
    // Without the column that it names nobody sees a row.
    home.database
        .sql("ALTER TABLE patient RENAME COLUMN ward TO station");
    home.database
        .sql("UPDATE patient SET name = 'Nobody' WHERE id IN (1, 777000101)");
    let told = socket.next_of("patient").await;
    assert_eq!(told["op"], "reload", "{told}");
    let (status, body) = home
        .http(&nurse(), "GET", "/api/query/patient", Json::Null)
        .await;
    assert_eq!(status, 503, "{body}");
}
