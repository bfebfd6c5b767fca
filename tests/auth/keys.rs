//! The keys that an issuer publishes: new ones are found, old ones stay while he is away, and nobody can make
//! a gateway ask him again and again.

use serde_json::{Value as Json, json};

use super::{
    closed_page,
    endpoint::{Answer, Endpoint},
    fetched, guarded, is_served,
    issuer::{Pair, now},
    opened,
};
use crate::support::{STANDSTILL, Server, wait_until};

const ISSUER: &str = "https://issuer.example";
const QUERY: &str = "/api/query/patient";

fn following(issuer: &Endpoint) -> Server {
    guarded(&format!(
        "jwks_url = \"{}\"\nissuer = \"{ISSUER}\"",
        issuer.url()
    ))
}

fn token(pair: &Pair, kid: &str) -> String {
    let claims = json!({ "sub": "ann", "exp": now() + 600, "iss": ISSUER });
    pair.sign(Some(kid), &claims)
}

fn set(keys: &[Json]) -> String {
    json!({ "keys": keys }).to_string()
}

async fn read(server: &Server, outcome: &str) -> u64 {
    server
        .counted(&format!("key_reads_total{{kind=\"{outcome}\"}}"))
        .await
}

#[tokio::test]
async fn keys_that_are_not_known_are_asked_for_once_in_a_while_whoever_names_them() {
    let (old, new) = (Pair::ed(), Pair::ec());
    let issuer = Endpoint::new(set(&[old.named("one")])).await;
    let server = following(&issuer);
    wait_until("the keys", async || {
        (read(&server, "ok").await >= 1).then_some(())
    })
    .await;
    is_served(&mut opened(&server, &[("token", &token(old, "one"))]).await).await;
    issuer.answers(Answer::Body(
        200,
        set(&[old.named("one"), new.named("two")]),
    ));
    for n in 0..50 {
        let stranger = token(Pair::stranger(), &format!("unknown-{n}"));
        let told = fetched(&server, QUERY, &[("token", &stranger)]).await;
        assert_eq!(told, (401, "token_invalid".into()));
    }
    assert_eq!(issuer.asked().len(), 1, "it was read a moment ago");
    is_served(&mut opened(&server, &[("token", &token(old, "one"))]).await).await;
}

#[tokio::test]
async fn who_names_another_issuer_is_not_tried_on_this_ones_keys_and_has_nobody_asked() {
    let (own, other) = (Pair::ed(), Pair::stranger());
    let of = |pair: &Pair, kid: &str, iss: Json| {
        let mut claims = json!({ "sub": "ann", "exp": now() + 60, "iss": iss });
        if claims["iss"].is_null() {
            claims.as_object_mut().unwrap().remove("iss");
        }
        pair.sign(Some(kid), &claims)
    };
    let others = [
        json!("https://evil.example"),
        json!(format!("{ISSUER}/")),
        json!(ISSUER.to_uppercase()),
        json!([ISSUER]),
        json!(null),
    ];
    let issuer = Endpoint::new(set(&[own.named("one")])).await;
    let server = following(&issuer);
    is_served(&mut opened(&server, &[("token", &token(own, "one"))]).await).await;
    let mut refused = 0;
    for iss in &others {
        for (pair, kid) in [(own, "one"), (own, "new"), (other, "one"), (other, "new")] {
            let token = of(pair, kid, iss.clone());
            let told = fetched(&server, QUERY, &[("token", &token)]).await;
            assert_eq!(told, (401, "token_invalid".into()), "{iss} {kid}");
            refused += 1;
        }
    }
    let counted = server.counted("auth_refused_total{kind=\"issuer\"}").await;
    assert_eq!((counted, issuer.asked().len()), (refused, 1));

    // Where this one's keys are not known yet, and he may be asked, his tokens wait for him, and others do not.
    let silent = Endpoint::new("").await;
    silent.answers(Answer::Silence);
    let server = following(&silent);
    wait_until("the question", async || {
        (silent.asked().len() == 1).then_some(())
    })
    .await;
    for iss in &others {
        let token = of(own, "new", iss.clone());
        let told = fetched(&server, QUERY, &[("token", &token)]).await;
        assert_eq!(told, (401, "token_invalid".into()), "{iss}");
    }
    let told = fetched(&server, QUERY, &[("token", &token(own, "new"))]).await;
    assert_eq!(told, (503, "auth_unavailable".into()));
}

#[tokio::test]
async fn an_issuer_who_is_away_at_the_start_is_no_reason_to_refuse_for_good() {
    let key = Pair::rsa();
    let issuer = Endpoint::new("").await;
    issuer.answers(Answer::Body(
        500,
        "{\"error\":\"none of your business\"}".into(),
    ));
    let server = following(&issuer);
    wait_until("the first look", async || {
        (read(&server, "failed").await >= 1).then_some(())
    })
    .await;
    let good = token(key, "one");
    let told = fetched(&server, QUERY, &[("token", &good)]).await;
    assert_eq!(told, (503, "auth_unavailable".into()));
    let closed = closed_page(&server, "/socket/all/", &[("token", &good)]).await;
    assert_eq!(closed.code, 1013, "{closed:?}");
    let mut socket = server.socket("hello=1").await;
    let hello = json!({ "type": "sys:hello", "rid": 1, "token": good });
    assert_eq!(socket.ask(hello).await["error"], "auth_unavailable");
    assert_eq!(socket.closed().await.code, 1013);
    // What cannot be his in any case is refused as ever.
    let told = fetched(&server, QUERY, &[("token", "x")]).await;
    assert_eq!(told, (401, "token_invalid".into()));
    assert!(
        !server.log().contains("none of your business"),
        "{}",
        server.log()
    );
}

#[tokio::test]
async fn an_issuer_who_takes_his_time_is_waited_for_and_not_for_ever() {
    let issuer = Endpoint::new("").await;
    issuer.answers(Answer::Silence);
    let server = following(&issuer);
    wait_until("a question", async || {
        (!issuer.asked().is_empty()).then_some(())
    })
    .await;
    let begun = std::time::Instant::now();
    let told = fetched(&server, QUERY, &[("token", &token(Pair::ed(), "one"))]).await;
    assert_eq!(told, (503, "auth_unavailable".into()));
    let most = std::time::Duration::from_secs(8) + STANDSTILL;
    assert!(begun.elapsed() < most, "{:?}", begun.elapsed());
    assert_eq!(issuer.asked().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_set_of_keys_is_none() {
    let other = Endpoint::new(set(&[Pair::ed().named("one")])).await;
    for answer in [
        Answer::Endless,
        Answer::To(other.url().to_owned()),
        Answer::Body(200, set(&[])),
        Answer::Body(200, "<html>".into()),
        Answer::Body(404, set(&[Pair::ed().named("one")])),
    ] {
        let issuer = Endpoint::new("").await;
        issuer.answers(answer);
        let server = following(&issuer);
        wait_until("the first look", async || {
            (read(&server, "failed").await >= 1).then_some(())
        })
        .await;
        let told = fetched(&server, QUERY, &[("token", &token(Pair::ed(), "one"))]).await;
        assert_eq!(told.0, 503);
    }
    assert_eq!(other.asked(), [""; 0], "a redirect leads nowhere");
}

#[tokio::test]
async fn a_new_key_is_found_by_its_first_token_and_the_old_ones_stay_while_the_issuer_is_away() {
    let (old, new) = (Pair::ed(), Pair::ec());
    let issuer = Endpoint::new(set(&[old.named("one")])).await;
    let server = following(&issuer);
    is_served(&mut opened(&server, &[("token", &token(old, "one"))]).await).await;
    issuer.answers(Answer::Body(
        200,
        set(&[old.named("one"), new.named("two")]),
    ));
    // He was asked a moment ago; after half a minute he is asked again.
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(500));
    let found = async {
        loop {
            looks.tick().await;
            let token = token(new, "two");
            if fetched(&server, QUERY, &[("token", &token)]).await.0 == 200 {
                return;
            }
        }
    };
    crate::support::in_time("the new key", found).await;
    assert_eq!(issuer.asked().len(), 2);
    issuer.answers(Answer::Silence);
    for (pair, kid) in [(old, "one"), (new, "two")] {
        is_served(&mut opened(&server, &[("token", &token(pair, kid))]).await).await;
    }
}

#[tokio::test]
async fn a_key_that_the_issuer_has_withdrawn_lets_nobody_in_any_more() {
    let (old, new) = (Pair::ed(), Pair::ec());
    let issuer = Endpoint::new(set(&[old.named("one"), new.named("two")])).await;
    let server = following(&issuer);
    let stolen = token(old, "one");
    is_served(&mut opened(&server, &[("token", &stolen)]).await).await;
    issuer.answers(Answer::Body(200, set(&[new.named("two")])));
    // He is asked again when somebody names a key that is not known, half a minute after the last time.
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(500));
    let withdrawn = async {
        loop {
            looks.tick().await;
            let stranger = token(Pair::stranger(), "three");
            fetched(&server, QUERY, &[("token", &stranger)]).await;
            if fetched(&server, QUERY, &[("token", &stolen)]).await.0 != 200 {
                return;
            }
        }
    };
    crate::support::in_time("the end of the key", withdrawn).await;
    let told = fetched(&server, QUERY, &[("token", &stolen)]).await;
    assert_eq!(told, (401, "token_invalid".into()));
    // Under its own name or under another one.
    for kid in ["one", "two"] {
        let closed = closed_page(&server, "/socket/all/", &[("token", &token(old, kid))]).await;
        assert_eq!(closed.code, 4401, "{kid}");
    }
    is_served(&mut opened(&server, &[("token", &token(new, "two"))]).await).await;
    assert_eq!(issuer.asked().len(), 2);
}
