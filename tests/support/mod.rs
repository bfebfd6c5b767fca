//! What every test stands on: a gateway of its own on a free port in a folder of its own, a
//! WebSocket client that keeps what it saw, and writers that are other processes. Every wait has
//! a deadline and names what it waited for.

pub mod authority;
pub mod client;
pub mod command;
pub mod django;
pub mod follower;
pub mod frames;
pub mod nats;
pub mod postgres;
pub mod producer;
pub mod raw;
pub mod server;
pub mod stack;
pub mod values;
pub mod writer;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub use authority::Authority;
pub use client::{Closed, Socket};
pub use command::{Folder, Ran};
pub use django::Project;
pub use follower::Follower;
pub use nats::{Nats, NatsOptions};
pub use producer::Producer;
pub use raw::Raw;
pub use server::{Options, Server};
pub use writer::{Python, python, sqlite3};

/// How long anything may take before a test gives up: far longer than it does, for CI is slow.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long the machine may stand still, on top of whatever time is promised: CI's does now and then.
pub const STANDSTILL: Duration = Duration::from_secs(5);

/// Asks again and again until there is an answer.
///
/// # Panics
/// After [`DEADLINE`], with what was waited for.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// As [`wait_for`], asking with a future.
pub async fn wait_until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    loop {
        looks.tick().await;
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
    }
}

/// Waits for a future, but not for ever.
///
/// # Panics
/// After [`DEADLINE`], with what was waited for.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
