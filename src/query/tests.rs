//! What waits for a turn, and what does not.

use std::future::pending;

use serde_json::json;

use super::*;
use crate::{
    row::Rows,
    topic::{Affinity, Collation, Column},
};

/// What waits for a turn that does not come is not answered by then.
const SOON: Duration = Duration::from_secs(1);

/// A database that says the first page of `slow` took long, and that there was not enough time for that of `late`, and
/// that never ends anything but first pages and rows by their key.
#[derive(Clone)]
struct Paced;

impl Store for Paced {
    async fn snapshot(&self, topic: Arc<Topic>, select: Select) -> Result<Snapshot, StoreError> {
        let is_row = matches!(select, Select::Id(_));
        match (&*topic.name, is_row || is_first_page(&select)) {
            (_, false) => pending().await,
            ("late", _) if !is_row => Err(StoreError::Timeout),
            (name, _) => Ok(Snapshot {
                horizon: None,
                settled: None,
                rows: Rows::default(),
                page: None,
                took: if name == "slow" { SOON } else { Duration::ZERO },
            }),
        }
    }

    async fn describe(&self, _: Arc<Topic>) -> Result<Table, StoreError> {
        pending().await
    }

    async fn mark(&self, _: &str) -> Result<u64, StoreError> {
        pending().await
    }
}

fn topic(name: &str) -> Arc<Topic> {
    let id = Column {
        name: "id".into(),
        declared: "integer".into(),
        affinity: Affinity::Integer,
        kind: None,
        collation: Collation::Binary,
        not_null: true,
    };
    let table = Table {
        name: "t".into(),
        columns: vec![id],
        primary_key: vec!["id".into()],
        unique: Vec::new(),
        displaces: false,
    };
    let spec = serde_json::from_value(json!({ "type": name, "table": "t" })).unwrap();
    Arc::new(Topic::resolve(&spec, Some(&table)).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_first_page_needs_no_turn_where_it_was_quick_before() {
    let metrics = Metrics::default();
    let limits = QueryLimits {
        timeout: Duration::from_secs(3600),
        waiting: 100,
        requests: 100,
        connections: 3,
    };
    let (queries, inbox) = channel(limits, metrics.clone());
    let running = tokio::spawn(run(Paced, inbox, Health::default(), metrics));
    let ask = |name: &str, select: Select| {
        let read = queries.snapshot(None, topic(name), select);
        tokio::time::timeout(SOON, async { read.await.is_ok() })
    };
    let first = || Select::Page(Params::default());
    assert_eq!(ask("quick", first()).await, Ok(true));
    assert_eq!(ask("slow", first()).await, Ok(true));
    assert_eq!(ask("late", first()).await, Ok(false));

    // The only place among the turns is taken for good.
    let second = Select::Page(Params {
        page: Some(2),
        ..Params::default()
    });
    assert!(ask("quick", second).await.is_err());
    assert_eq!(ask("quick", first()).await, Ok(true));
    for waits in ["slow", "late", "new"] {
        assert!(ask(waits, first()).await.is_err(), "{waits}");
        let row = Select::Id(crate::protocol::Key::One(crate::row::Value::Integer(1)));
        assert_eq!(ask(waits, row).await, Ok(true), "{waits}");
    }
    running.abort();
}
