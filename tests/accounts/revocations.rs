//! Revocations on the shipped accounts: one gateway is asked, all of them do it, and one that may not tell the
//! others does not say that it has.

use serde_json::{Value as Json, json};

use super::{Site, ready, without};
use crate::{
    auth::{
        issuer::{SECRET, hs256, now},
        opened,
    },
    support::{Nats, Server, nats::shipped, wait_until},
};

/// A site whose gateways judge tokens.
fn guarded(nats: Nats) -> Site {
    let mut site = Site::new(nats);
    site.bus = format!("[auth]\nkey = \"{SECRET}\"\noperator = {{ role = \"admin\" }}\n");
    site
}

/// Two gateways that listen for revocations.
async fn gateways(site: &Site) -> [Server; 2] {
    let gateways = [site.gateway(), site.gateway()];
    wait_until("both to listen", async || {
        let told = super::wire::get(&site.nats.monitor(), "/connz?subs=1");
        (told.matches("\"rowcast.control.revoke\"").count() == 2).then_some(())
    })
    .await;
    gateways
}

async fn revoke(server: &Server, body: Json) -> (u16, Json) {
    let operator = hs256(&json!({ "sub": "root", "role": "admin", "exp": now() + 60 }));
    let asked = reqwest::Client::new().post(server.url("/api/revoke"));
    let answer = asked.header("token", operator).json(&body).send().await;
    let answer = answer.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn status(server: &Server, token: &str) -> u16 {
    let asked = reqwest::Client::new().get(server.url("/api/topics"));
    let answer = asked.header("token", token).send().await.unwrap();
    answer.status().as_u16()
}

fn ann() -> String {
    hs256(&json!({ "sub": "ann", "jti": "1", "exp": now() + 60 }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_gateway_is_asked_to_revoke_is_over_on_the_other() {
    let site = guarded(Nats::with(shipped()));
    let producer = site.producer();
    ready(&producer).await;
    let gateways = gateways(&site).await;
    let ann = ann();
    let mut socket = opened(&gateways[1], &[("token", &ann)]).await;
    assert_eq!(
        socket.ask(json!({ "type": "sys:ping", "rid": 1 })).await["type"],
        "sys:pong"
    );
    let (code, told) = revoke(&gateways[0], json!({ "sub": "ann" })).await;
    assert_eq!(code, 202, "{told}");
    assert_eq!(socket.closed().await.code, 4401);
    for gateway in &gateways {
        assert_eq!(status(gateway, &ann).await, 401);
        assert!(!gateway.log().contains("may not"), "{}", gateway.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_may_not_tell_the_others_says_so() {
    let (nats, _folder) = without(&["\"rowcast.control.revoke\""]);
    let site = guarded(nats);
    let producer = site.producer();
    ready(&producer).await;
    let gateways = gateways(&site).await;
    let ann = ann();
    let (code, told) = revoke(&gateways[0], json!({ "sub": "ann" })).await;
    assert_eq!((code, &told["error"]), (503, &json!("bus_unavailable")));
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.contains("on this gateway alone: repeat it"),
        "{told}"
    );
    // It holds as far as it can.
    assert_eq!(status(&gateways[0], &ann).await, 401);
    assert_eq!(status(&gateways[1], &ann).await, 200);
    let named = "may not publish to \"rowcast.control.revoke\"";
    wait_until("the log to say so", async || {
        let log = gateways[0].log().replace('\\', "");
        log.contains(named).then_some(())
    })
    .await;
}
