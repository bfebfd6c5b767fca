//! The tables by which guarded topics' rows are judged are described before anybody needs them: when the gateway
//! starts, and as soon as one may be another than before. So no socket waits for a database that is away, but
//! where a table was altered just before.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Gateway, filters::Filters};
use crate::topic::{Topic, Topics};

/// The pause before a table is asked for again that could not be described; it grows with every time, up to so
/// many of them.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const MAX_RETRY_PAUSES: u32 = 10;

/// After so many failures the log says so.
const FAILURES_TOLD: u32 = 5;

impl Filters {
    /// Describes the tables that are not, of topics whose rows are judged. One that cannot be is left.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn describe_guarded(&self, topics: &Topics) {
        // What became of each can be looked up.
        let _ = join_all(self.unknown(topics).map(|topic| self.table(topic))).await;
    }

    /// Those of the topics whose rows are judged of which no table is known.
    fn unknown<'a>(&self, topics: &'a Topics) -> impl Iterator<Item = &'a Arc<Topic>> {
        judged(topics).filter(|topic| self.known_table(topic).is_none())
    }
}

fn judged(topics: &Topics) -> impl Iterator<Item = &Arc<Topic>> {
    topics.iter().filter(|topic| {
        let view = topic.view.as_ref();
        view.is_some_and(|view| view.policy.is_some())
    })
}

/// Keeps them described until `stop` is cancelled or where there are none.
pub async fn keep_described(gateway: Arc<Gateway>, stop: CancellationToken) {
    let (filters, topics) = (&gateway.filters, &gateway.topics);
    let mut grown = gateway.ring.watch();
    let mut failures = 0_u32;
    while judged(topics).next().is_some() {
        grown.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => return,
            () = filters.describe_guarded(topics) => {}
        }
        let missing = filters.unknown(topics).count();
        failures = if missing == 0 { 0 } else { failures + 1 };
        if failures == FAILURES_TOLD {
            let topics: Vec<&str> = filters.unknown(topics).map(|topic| &*topic.name).collect();
            tracing::warn!(
                ?topics,
                "the tables of guarded topics cannot be described: who takes one waits at its next row"
            );
        }
        let pause = RETRY_PAUSE * failures.min(MAX_RETRY_PAUSES);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = grown.changed(), if missing == 0 => if changed.is_err() { return },
            () = tokio::time::sleep(pause), if missing > 0 => {}
        }
    }
}
