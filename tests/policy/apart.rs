//! Whom no lane can write to, through TLS or as Server-Sent Events, hears what everybody else hears, also when
//! others' rows change all the time between.

use futures_util::StreamExt;
use rustls::version::TLS13;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{
    home::{Home, is_innocent, nurse, token},
    scene::{END, NURSE, STEPS, brief, to_the_end},
};
use crate::{
    edge::tls::{certify, client, dial_to},
    support::{Authority, in_time, wait_until},
};

/// What is between two steps: rows of the other house, and of no ward of hers.
const BETWEEN: &str = "
    DO $$ BEGIN FOR n IN 1..20 LOOP
        UPDATE patient SET bed = 'CANARY' || n WHERE id = 777000101;
        UPDATE patient SET bed = n::text WHERE id = 3;
    END LOOP; END $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_tls_and_as_server_sent_events_a_nurse_hears_the_same() {
    let home = Home::open().await;
    let authority = Authority::new("ours");
    let files = [authority.path("used.crt"), authority.path("used.key")];
    certify(&authority, &files);
    let [cert, key] = files.each_ref().map(|file| file.display().to_string());
    let secured = home.another(&format!("tls_cert = \"{cert}\"\ntls_key = \"{key}\""));
    let connector = client(&authority, &[&TLS13], &[]);
    let mut through_tls: WebSocketStream<_> = wait_until("a gateway", async || {
        let stream = dial_to(secured.address(), &connector).await.ok()?;
        let mut request = "wss://localhost/socket/all/".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("token", nurse().parse().unwrap());
        Some(client_async(request, stream).await.ok()?.0)
    })
    .await;
    let mut plain = home.socket(&nurse(), "").await;
    let mut of_nobody = home.socket(&token(serde_json::json!({})), "").await;
    let stream = reqwest::Client::new()
        .get(home.gateway.url("/api/stream"))
        .bearer_auth(nurse());
    let mut stream = stream.send().await.unwrap();
    for step in STEPS {
        home.database.sql(BETWEEN);
        home.database.sql(&format!("BEGIN; {step}; COMMIT"));
    }
    home.database.sql(END);
    let heard = to_the_end(&mut plain).await;
    assert_eq!(brief(&heard), NURSE);
    let mut same = Vec::new();
    while !same
        .last()
        .is_some_and(|text: &String| text.contains("The End"))
    {
        let message = in_time("a frame", through_tls.next()).await;
        if let Message::Text(text) = message.unwrap().unwrap() {
            same.push(text.to_string());
        }
    }
    assert_eq!(same, heard);
    let mut text = String::new();
    while !text.contains("The End") {
        let piece = in_time("a piece", stream.chunk()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    is_innocent("Server-Sent Events", &text);
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter(|frame| !frame.contains("\"sys:"));
    assert_eq!(events.collect::<Vec<_>>(), heard);
    // Who may see none of it hears what concerns everybody, and is current all the same.
    let question = serde_json::json!({ "type": "visit", "rid": 1, "params": { "all": true } });
    let reply = of_nobody.ask(question).await;
    assert_eq!(reply["data"], serde_json::json!([]), "{reply}");
}
