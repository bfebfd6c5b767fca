//! The test of the tests: the product with a fault built in (src/sabotage.rs), and the checker, or the care home of
//! tests/policy, which must find it. `cargo test --features sabotage --test sabotage`

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed
#![allow(dead_code, unused_imports)] // what only other tests need

#[path = "checker/mod.rs"]
mod checker;
#[path = "policy/home.rs"]
mod home;
#[path = "policy/scene.rs"]
mod scene;
mod support;

use std::time::Duration;

use serde_json::Value as Json;

use checker::{
    Plan, Setup,
    judge::Class::{
        self, Crosstalk, Divergence, Duplicate, FalseReset, Loss, Reorder, Stale, Torn,
    },
    seed,
};

/// Runs of which one must catch a fault: on a machine that stands still there may be nothing to catch in one.
const RUNS: u64 = 3;

/// Runs the checker on a product with this fault; something of these classes must be found.
async fn catches(fault: &'static str, plan: Plan, classes: &[Class]) {
    let mut missed = String::new();
    for run in 0..RUNS {
        let plan = Plan {
            sabotage: Some(fault),
            patience: Duration::from_secs(8),
            seed: plan.seed + run,
            ..plan.clone()
        };
        println!("ROWCAST_SEED={}", plan.seed);
        let report = plan.run().await;
        println!("{fault}: {}: {:?}", report.line, report.verdict.classes());
        let found = report.verdict.classes();
        if classes.iter().any(|class| found.contains_key(class)) {
            return;
        }
        missed += &format!("{}\n", report.verdict);
    }
    panic!("{fault} was not caught as {classes:?}\n{missed}");
}

/// A short run on SQLite, in which nothing is killed.
fn sqlite(seconds: u64) -> Plan {
    Plan {
        clients: 6,
        kills: None,
        ..Plan::of(Setup::Sqlite, seed(), Duration::from_secs(seconds))
    }
}

/// The same on PostgreSQL and NATS.
fn postgres(seconds: u64) -> Plan {
    Plan {
        setup: Setup::Postgres,
        ..sqlite(seconds)
    }
}

/// The bus is lost with the first kill.
fn lost(seconds: u64) -> Plan {
    Plan {
        kills: Some(Duration::from_secs(3)),
        lose_bus: true,
        ..sqlite(seconds)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_change_confirmed_before_it_is_stored_is_caught() {
    let plan = Plan {
        kills: Some(Duration::from_secs(2)),
        ..postgres(9)
    };
    catches("confirm-early", plan, &[Loss, FalseReset]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_reply_before_its_position_is_caught() {
    catches("reply-before-position", sqlite(6), &[Stale]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_event_left_out_is_caught() {
    catches("skip-event", sqlite(5), &[Loss]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn two_events_that_changed_places_are_caught() {
    catches("swap-two", sqlite(5), &[Reorder]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_torn_transaction_is_caught() {
    catches("tear-transaction", postgres(6), &[Torn]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_cursor_off_by_one_is_caught() {
    catches("cursor-off-by-one", sqlite(6), &[Loss, Duplicate]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_epoch_used_again_is_caught() {
    catches("reuse-epoch", lost(8), &[Divergence]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_reply_to_the_group_is_caught() {
    catches("reply-to-group", sqlite(5), &[Crosstalk]).await;
}

/// The scenes of the faults are as such no reason to complain.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_a_fault_nothing_is_caught() {
    lost(8).run().await.is_clean();
}

/// What comes of the care home with this fault, to a nurse: whether she hears what she must, and whether
/// events and replies keep the other house to themselves.
async fn nurse_of(fault: Option<&str>) -> (bool, bool, bool) {
    let fault = fault.map(|fault| ("ROWCAST_SABOTAGE".to_owned(), fault.to_owned()));
    let home = home::Home::plagued(fault.into_iter().collect()).await;
    let mut socket = home.socket(&home::nurse(), "").await;
    let path = "/api/query/patient";
    let (_, reply) = home.http(&home::nurse(), "GET", path, Json::Null).await;
    for step in scene::STEPS {
        home.database.sql(&format!("BEGIN; {step}; COMMIT"));
    }
    home.database.sql(scene::END);
    let heard = scene::to_the_end(&mut socket).await;
    (
        scene::brief(&heard) == scene::NURSE,
        !home::betrays(&heard.concat()),
        !home::betrays(&reply),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_row_that_left_and_was_kept_is_caught() {
    assert_eq!(nurse_of(Some("keep-left")).await, (false, true, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_event_of_another_house_is_caught() {
    assert_eq!(nurse_of(Some("show-others")).await, (false, false, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_reply_with_rows_of_another_house_is_caught() {
    assert_eq!(nurse_of(Some("answer-others")).await, (true, true, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn without_a_fault_each_house_keeps_to_itself() {
    assert_eq!(nurse_of(None).await, (true, true, true));
}
