//! Many who come back at once, where an endpoint is asked who they are: how many questions that costs, and
//! how long an answer holds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use super::{
    SECRET, ann,
    endpoint::{Answer, Endpoint},
    fetched, guarded,
    lives::LIFE,
    now,
    revoked::revoke,
    status,
};
use crate::support::{STANDSTILL, Server, wait_until};

const QUERY: &str = "/api/query/patient";

/// Who comes back: several times as many as may be asked about at once.
const CROWD: usize = 300;

fn asking(endpoint: &Endpoint, more: &str) -> Server {
    let url = endpoint.url();
    // The crowd has one name, some of it may not be gone when it comes again, and whoever waits for something asks
    // again and again.
    let most = 10 * CROWD;
    let server = format!(
        "[server]\nmax_connections_per_identity = {most}\n[limits]\nrequests_burst = 1000000"
    );
    guarded(&format!(
        "forward_url = \"{url}\"\nleeway_ms = 0\n{more}\n{server}"
    ))
}

async fn asks(server: &Server, token: &str) -> (u16, Json) {
    fetched(server, QUERY, &[("token", token)]).await
}

/// How long somebody waits for his turn to be asked about before he is told to come again, and less than that.
const TURN: Duration = Duration::from_millis(1500);

/// So many handshakes at once, while the endpoint holds its answers back until `full`: all are let in. Returns
/// how many questions were asked. On a machine that stands still until somebody has waited for too long the
/// crowd comes again.
async fn crowd(server: &Server, endpoint: &Endpoint, full: usize) -> usize {
    loop {
        let (asked, begun) = (endpoint.asked().len(), Instant::now());
        let statuses = handshakes(server, endpoint, full).await;
        if statuses.iter().all(|status| *status == 101) {
            return endpoint.asked().len() - asked;
        }
        let took = begun.elapsed();
        assert!(took > TURN, "{statuses:?} after {took:?}");
    }
}

/// The statuses of so many handshakes at once.
async fn handshakes(server: &Server, endpoint: &Endpoint, full: usize) -> Vec<u16> {
    let gate = Arc::new(Semaphore::new(0));
    let body = json!({ "sub": "ann" }).to_string();
    endpoint.answers(Answer::Held(gate.clone(), 200, body));
    let handshakes = (0..CROWD).map(|_| status(server, "/socket/all/", &[("token", "opaque")]));
    let let_go = async {
        wait_until("the questions", async || {
            (endpoint.at_once() == full).then_some(())
        })
        .await;
        gate.close();
    };
    let (statuses, ()) = tokio::join!(join_all(handshakes), let_go);
    statuses
}

#[tokio::test]
async fn a_storm_asks_a_bounded_number_of_questions_at_once_and_all_are_let_in() {
    let endpoint = Endpoint::new("").await;
    let server = asking(&endpoint, "");
    let asked = crowd(&server, &endpoint, 64).await;
    assert_eq!(endpoint.most_at_once(), 64);
    assert_eq!(asked, CROWD, "each is asked about");
}

#[tokio::test]
async fn with_a_cache_a_storm_of_one_who_comes_back_is_one_question() {
    let endpoint = Endpoint::new("").await;
    let server = asking(&endpoint, "forward_cache_ms = 60000");
    assert_eq!(crowd(&server, &endpoint, 1).await, 1);
    let before = endpoint.asked().len();
    // Another path, and somebody else, are other questions.
    assert_eq!(asks(&server, "opaque").await.0, 200);
    assert_eq!(asks(&server, "opaque").await.0, 200);
    assert_eq!(endpoint.asked().len(), before + 1);
    endpoint.answers(Answer::Body(401, String::new()));
    assert_eq!(asks(&server, "other").await.0, 401);
    assert_eq!(asks(&server, "opaque").await.0, 200);
    assert_eq!(endpoint.asked().len(), before + 2);
}

#[tokio::test]
async fn an_answer_is_kept_so_long_and_a_refusal_not_at_all() {
    let endpoint = Endpoint::new(json!({ "sub": "ann" })).await;
    let server = asking(&endpoint, "forward_cache_ms = 2000");
    let begun = Instant::now();
    assert_eq!(asks(&server, "opaque").await.0, 200);
    endpoint.answers(Answer::Body(401, String::new()));
    wait_until("the endpoint to be asked again", async || {
        (asks(&server, "opaque").await.0 == 401).then_some(())
    })
    .await;
    let kept = begun.elapsed();
    let bounds = Duration::from_secs(2)..Duration::from_secs(4) + STANDSTILL;
    assert!(bounds.contains(&kept), "{kept:?}");
    assert_eq!(endpoint.asked().len(), 2);
    // He has signed in.
    endpoint.answers(Answer::Body(200, json!({ "sub": "ann" }).to_string()));
    assert_eq!(asks(&server, "opaque").await.0, 200);
    // Of whom nobody could say anything is asked again, too.
    endpoint.answers(Answer::Body(500, String::new()));
    assert_eq!(asks(&server, "other").await.0, 503);
    endpoint.answers(Answer::Body(200, json!({ "sub": "bob" }).to_string()));
    assert_eq!(asks(&server, "other").await.0, 200);
}

#[tokio::test]
async fn an_answer_that_is_kept_ends_with_what_it_grants_and_with_a_revocation() {
    let endpoint = Endpoint::new("").await;
    let more =
        format!("forward_cache_ms = 60000\nkey = \"{SECRET}\"\noperator = {{ role = \"admin\" }}");
    let server = asking(&endpoint, &more);
    let session = json!({ "sub": "ann", "exp": now() + LIFE });
    endpoint.answers(Answer::Body(200, session.to_string()));
    assert_eq!(asks(&server, "opaque").await.0, 200);
    endpoint.answers(Answer::Body(200, json!({ "sub": "ann" }).to_string()));
    wait_until("the end of the session", async || {
        let (status, why) = asks(&server, "opaque").await;
        // What was asked for just before the end is not answered behind it.
        let over = status == 401 && why == "token_expired";
        assert!(status == 200 || over, "{status} {why}");
        (endpoint.asked().len() == 2 && status == 200).then_some(())
    })
    .await;
    let operator = ann(json!({ "sub": "root", "role": "admin" }));
    assert_eq!(
        revoke(&server, &operator, json!({ "sub": "ann" })).await.0,
        202
    );
    let told = asks(&server, "opaque").await;
    assert_eq!(told, (401, "token_revoked".into()));
    assert_eq!(endpoint.asked().len(), 2);
}
