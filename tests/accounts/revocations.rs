//! Revocations on the shipped accounts: one gateway is asked, all of them do it, one that starts again knows of
//! it, and one that may not tell the others does not say that it has.

use serde_json::{Value as Json, json};

use super::{Site, ready, wire::Wire, without};
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
    site.bus =
        format!("[auth]\nkey = \"{SECRET}\"\nleeway_ms = 0\noperator = {{ role = \"admin\" }}\n");
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

/// Waits until a log says something.
async fn says(log: impl Fn() -> String, text: &str) {
    let said = async || log().replace('\\', "").contains(text).then_some(());
    wait_until(text, said).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_started_again_knows_what_the_operator_has_revoked() {
    let site = guarded(Nats::with(shipped()));
    let producer = site.producer();
    ready(&producer).await;
    let [mut gateway, _other] = gateways(&site).await;
    let ann = ann();
    gateway.kill();
    // By hand, with the proof that it is kept.
    let operator = site.client("operator").await;
    let js = async_nats::jetstream::new(operator.clone());
    let said = js.publish("rowcast.control.revoke", "{\"sub\":\"ann\"}".into());
    let kept = said.await.unwrap().await.unwrap();
    assert_eq!((&*kept.stream, kept.sequence), ("ROWCAST_REVOKED", 1));
    gateway.restart();
    assert_eq!(status(&gateway, &ann).await, 401);
    let (over, later) = (now(), json!({ "sub": "ann", "exp": now() + 600 }));
    let later = wait_until("the next second", async || {
        let mut claims = later.clone();
        claims["iat"] = now().into();
        (now() > over).then(|| hs256(&claims))
    });
    assert_eq!(status(&gateway, &later.await).await, 200);
    // He sees what is kept, and takes nothing of it back.
    let get = "$JS.API.STREAM.MSG.GET.ROWCAST_REVOKED";
    let found = operator.request(get, "{\"seq\":1}".into()).await.unwrap();
    let found: Json = serde_json::from_slice(&found.payload).unwrap();
    assert_eq!(found["message"]["subject"], "rowcast.control.revoke");
    let mut config = js.get_stream("ROWCAST_REVOKED").await.unwrap();
    let mut config = config.info().await.unwrap().config.clone();
    (config.deny_delete, config.deny_purge) = (false, false);
    assert!(js.update_stream(config).await.is_err());
    let checked = site.run("gateway", &["check"]);
    let said = "bus: revocations are kept\n";
    assert!(checked.stdout.contains(said), "{}", checked.stdout);
    let warned = checked.stdout.contains("warning bus");
    assert!(!warned, "{}", checked.stdout);
    assert!(!gateway.log().contains("may not"), "{}", gateway.log());
    assert!(!producer.log().contains("may not"), "{}", producer.log());
}

/// An older nats/server.conf: nobody may make the stream, or read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_permissions_of_the_stream_all_goes_on_as_before_and_they_are_named() {
    let (nats, _folder) = without(&["ROWCAST_REVOKED"]);
    let site = guarded(nats);
    let producer = site.producer();
    ready(&producer).await;
    let gateways = gateways(&site).await;
    for text in [
        "revocations are not kept",
        "may not publish to \"$JS.API.STREAM.INFO.ROWCAST_REVOKED\"",
    ] {
        says(|| producer.log(), text).await;
        says(|| gateways[0].log(), text).await;
    }
    let ann = ann();
    let mut socket = opened(&gateways[1], &[("token", &ann)]).await;
    let asked = socket.ask(json!({ "type": "sys:ping", "rid": 1 })).await;
    assert_eq!(asked["type"], "sys:pong");
    let (code, told) = revoke(&gateways[0], json!({ "sub": "ann" })).await;
    assert_eq!(code, 202, "{told}");
    assert_eq!(socket.closed().await.code, 4401);
    let checked = site.run("gateway", &["check"]);
    let said = "warning bus: revocations are not kept";
    assert!(checked.stdout.contains(said), "{}", checked.stdout);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
}

/// A gateway that may look at the stream and not follow it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_may_not_follow_the_stream_says_so_and_hears_what_is_revoked() {
    let (nats, _folder) = without(&["$JS.API.CONSUMER.MSG.NEXT.ROWCAST_REVOKED"]);
    let site = guarded(nats);
    let producer = site.producer();
    ready(&producer).await;
    let operator = site.client("operator").await;
    let js = async_nats::jetstream::new(operator);
    let said = js.publish("rowcast.control.revoke", "{\"sub\":\"bob\"}".into());
    said.await.unwrap().await.unwrap();
    let gateways = gateways(&site).await;
    let named = "may not publish to \"$JS.API.CONSUMER.MSG.NEXT.ROWCAST_REVOKED.*\"";
    says(|| gateways[0].log(), named).await;
    let ann = ann();
    let (code, told) = revoke(&gateways[0], json!({ "sub": "ann" })).await;
    assert_eq!(code, 202, "{told}");
    wait_until("the other to have heard it", async || {
        (status(&gateways[1], &ann).await == 401).then_some(())
    })
    .await;
}

/// Of what an operator may write above a revocation: the client ends its connection for the one, itself for the other.
const UNREADABLE: [&[u8]; 2] = [
    b"NATS/1.0\r\nname: M\xfcller\r\n\r\n",
    b"NATS/1.0\r\nX: a\rb\r\n\r\n",
];

fn token(sub: &str) -> String {
    hs256(&json!({ "sub": sub, "exp": now() + 600 }))
}

/// Waits until all of these are refused.
async fn refused(gateway: &Server, subs: &[String]) {
    for sub in subs {
        wait_until(sub, async || {
            (status(gateway, &token(sub)).await == 401).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_whose_headers_cannot_be_read_holds_like_the_others_and_stops_no_gateway() {
    let site = guarded(Nats::with(shipped()));
    let producer = site.producer();
    ready(&producer).await;
    let mut operator = Wire::open(&site.nats, "operator");
    let mut all = Vec::new();
    let mut revoke = |above: Option<&[u8]>| {
        let sub = format!("sub{}", all.len());
        let body = json!({ "sub": sub }).to_string();
        let subject = "rowcast.control.revoke";
        let refused = match above {
            Some(above) => operator.publish_under(subject, above, &body),
            None => operator.publish(subject, &body),
        };
        assert_eq!(refused, None);
        all.push(sub);
        all.clone()
    };
    for above in UNREADABLE {
        revoke(None);
        revoke(Some(above));
    }
    let before = revoke(None);
    let mut gateway = site.gateway();
    for sub in &before {
        assert_eq!(status(&gateway, &token(sub)).await, 401, "{sub}");
    }
    assert_eq!(status(&gateway, &token("nobody")).await, 200);
    // And those that come while it listens, or does not.
    for above in UNREADABLE {
        refused(&gateway, &revoke(Some(above))).await;
        refused(&gateway, &revoke(None)).await;
    }
    gateway.kill();
    let all = revoke(Some(UNREADABLE[1]));
    gateway.restart();
    for sub in &all {
        assert_eq!(status(&gateway, &token(sub)).await, 401, "{sub}");
    }
    assert_eq!(status(&gateway, &token("nobody")).await, 200);
    assert!(!gateway.log().contains("may not"), "{}", gateway.log());
}

/// An older nats/server.conf.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_permission_to_read_such_a_one_those_before_it_hold_and_it_is_named() {
    let (nats, _folder) = without(&["$JS.API.STREAM.MSG.GET.ROWCAST_REVOKED"]);
    let site = guarded(nats);
    let producer = site.producer();
    ready(&producer).await;
    let mut operator = Wire::open(&site.nats, "operator");
    let subject = "rowcast.control.revoke";
    assert_eq!(operator.publish(subject, "{\"sub\":\"ann\"}"), None);
    let refused = operator.publish_under(subject, UNREADABLE[0], "{\"sub\":\"bob\"}");
    assert_eq!(refused, None);
    let gateway = site.gateway();
    let named = "may not publish to \"$JS.API.STREAM.MSG.GET.ROWCAST_REVOKED\"";
    says(|| gateway.log(), named).await;
    says(|| gateway.log(), "revocations are not kept").await;
    assert_eq!(status(&gateway, &token("ann")).await, 401);
    assert_eq!(status(&gateway, &token("cid")).await, 200);
}

/// A producer needs none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_the_permissions_that_a_gateway_lacks_to_read_messages_by_themselves() {
    let streams = ["ROWCAST_REVOKED", "ROWCAST_DLQ"];
    let gets = streams.map(|stream| format!("\"$JS.API.STREAM.MSG.GET.{stream}\""));
    let (nats, _folder) = without(&[&gets[0], &gets[1]]);
    let site = guarded(nats);
    let producer = site.producer();
    ready(&producer).await;
    let lines = |text: &str| -> Vec<String> {
        let warnings = text.lines().filter(|line| line.starts_with("warning bus"));
        warnings.map(str::to_owned).collect()
    };
    let checked = site.run("gateway", &["check"]);
    let warned = lines(&checked.stdout);
    for get in &gets {
        let named = format!("may not publish to {get}");
        let one = warned.iter().find(|line| line.contains(&named));
        let one = one.unwrap_or_else(|| panic!("{named}: {}", checked.stdout));
        assert!(
            one.contains("give a gateway's user that permission"),
            "{one}"
        );
    }
    assert_eq!((warned.len(), checked.code), (2, 0), "{}", checked.stdout);
    let checked = site.run("producer", &["check"]);
    assert_eq!(lines(&checked.stdout), [""; 0], "{}", checked.stdout);
    // Each by itself, and the import without the permission.
    let import = format!(
        "{{ service: {{ account: ROWCAST, subject: {} }} }}",
        gets[0]
    );
    let (nats, _folder) = without(&[&import]);
    let site = Site { nats, ..site };
    drop(producer);
    let producer = site.producer();
    ready(&producer).await;
    let checked = site.run("gateway", &["check"]);
    let warned = lines(&checked.stdout);
    assert_eq!(warned.len(), 1, "{}", checked.stdout);
    assert!(
        warned[0].contains("whose headers cannot be read"),
        "{}",
        checked.stdout
    );
}

/// As in one account for all, where somebody may delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hole_before_a_revocation_whose_headers_cannot_be_read_hides_none_behind_it() {
    const HOLE: u64 = 70;
    let site = guarded(Nats::start());
    let js = async_nats::jetstream::new(site.client("operator").await);
    let config: async_nats::jetstream::stream::Config =
        serde_json::from_str(&super::definition("revocations.json")).unwrap();
    let made = js.create_stream(async_nats::jetstream::stream::Config {
        deny_delete: false,
        ..config
    });
    let stream = made.await.unwrap();
    let mut operator = Wire::open(&site.nats, "operator");
    let subject = "rowcast.control.revoke";
    assert_eq!(operator.publish(subject, "{\"sub\":\"ann\"}"), None);
    for _ in 0..HOLE {
        assert_eq!(operator.publish(subject, "{\"sub\":\"none\"}"), None);
    }
    let refused = operator.publish_under(subject, UNREADABLE[0], "{\"sub\":\"bob\"}");
    assert_eq!(refused, None);
    assert_eq!(operator.publish(subject, "{\"sub\":\"cid\"}"), None);
    for seq in 2..HOLE + 2 {
        stream.delete_message(seq).await.unwrap();
    }
    let producer = site.producer();
    ready(&producer).await;
    let gateway = site.gateway();
    for sub in ["ann", "bob", "cid"] {
        assert_eq!(status(&gateway, &token(sub)).await, 401, "{sub}");
    }
    assert_eq!(status(&gateway, &token("none")).await, 200);
}
