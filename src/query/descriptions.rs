//! Descriptions of tables for those who only look at them: whoever asks while a table is being described waits
//! for that one, so that nobody has the database asked more than one question at a time by asking often.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use super::Queries;
use crate::{
    protocol::Failure,
    topic::{Table, Topic},
};

type Described = BoxFuture<'static, Result<Arc<Table>, Failure>>;

/// The descriptions under way. Cloning shares it.
#[derive(Clone, Default)]
pub struct Descriptions(Arc<Mutex<HashMap<Arc<str>, WeakShared<Described>>>>);

impl fmt::Debug for Descriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Descriptions")
    }
}

impl Queries {
    /// The topic's table as it was at most a read ago: as [`Self::describe`], for who decides nothing by it.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn described(&self, topic: &Arc<Topic>) -> Result<Arc<Table>, Failure> {
        self.under_way(topic).await
    }

    fn under_way(&self, topic: &Arc<Topic>) -> Shared<Described> {
        // Nothing in here panics half way through a change.
        let all = self.0.descriptions.0.lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&topic.name).and_then(WeakShared::upgrade);
        if let Some(known) = known.filter(|known| known.peek().is_none()) {
            return known;
        }
        let (queries, asked) = (self.clone(), topic.clone());
        let described = async move { queries.describe(asked).await.map(Arc::new) };
        let described = described.boxed().shared();
        let weak = described.downgrade();
        all.extend(weak.map(|weak| (topic.name.clone(), weak)));
        described
    }
}
