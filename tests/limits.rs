//! What one client may ask, and all of them together: at the bound everything works, one beyond is told
//! so, it is counted, and the others do not notice.

mod answers;
mod flood;
mod frames;
mod json;
mod pace;
mod rates;
mod requests;
mod topics;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::{
    support::{Server, Socket},
    wire::{CARE, CARE_TABLES},
};

/// A gateway on the care home with these `[limits]`.
fn limited(limits: &str) -> Server {
    Server::configured(&format!("[limits]\n{limits}\n{CARE}"), CARE_TABLES)
}

/// Both paths: what holds for frames holds for the echo, too.
const PATHS: [&str; 2] = ["/socket/all/", "/chat/socket/"];

/// How often a limit was come to.
async fn counted(server: &Server, limit: &str) -> u64 {
    let metric = format!("limited_total{{kind=\"{limit}\"}}");
    server.counted(&metric).await
}

/// The next `count` answers by their `rid`, none of which may come twice.
async fn answers(socket: &mut Socket, count: usize) -> BTreeMap<u64, Json> {
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        let answer = socket.next().await;
        let rid = answer["rid"].as_u64().unwrap();
        let twice = answers.insert(rid, answer);
        assert!(twice.is_none(), "answered twice: {twice:?}");
    }
    answers
}
