//! The promises of docs/operations.md, held by the checker: while four programs write as they like
//! and processes are killed, naive clients hold exactly what was committed, wherever they cut and
//! resume, and every reply is exactly what its place in the stream says.

use std::time::Duration;

use crate::checker::{Plan, Setup, seed, time};

/// A longer check is many runs, each on new processes, with seeds of its own.
const RUN: Duration = Duration::from_secs(60);

async fn check(setup: Setup) {
    let (mut seed, mut left) = (seed(), time());
    while !left.is_zero() {
        let run = left.min(RUN);
        println!("ROWCAST_SEED={seed}");
        let report = Plan::of(setup, seed, run).run().await;
        report.is_clean();
        (seed, left) = (seed + 1, left - run);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn clients_hold_what_was_committed_while_a_gateway_on_sqlite_is_killed() {
    check(Setup::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn clients_hold_what_was_committed_while_producers_and_gateways_on_nats_are_killed() {
    check(Setup::Postgres).await;
}
