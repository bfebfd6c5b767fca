//! Clients' filters, compiled once for all sockets that set the same, against a description of the table
//! that is asked for once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use super::scopes::{Scope, ScopeKey};
use crate::{
    predicate::{BadFilter, Predicate},
    protocol::{Condition, Failure},
    query::Queries,
    ring::Ring,
    topic::{Push, Table, Topic},
};

/// Filters that are kept in mind before those are forgotten that no socket has any more.
const MIN_KNOWN: usize = 64;

/// What is wrong where a socket chooses more topics than it may.
pub const TOO_MANY_TOPICS: &str = "types: too many for one socket";

/// What is wrong where a socket names topics that do not exist for its client.
pub const NO_SUCH_TOPICS: &str = "types: topics that this server has";

/// A filter as compiled for one description of its topic's table.
#[derive(Debug)]
pub struct Filter {
    /// As the client wrote it.
    pub(super) conditions: Vec<Condition>,
    /// What it holds for.
    pub(super) predicate: Predicate,
    /// What it was compiled for.
    pub(super) table: Arc<Table>,
}

/// A table that is being described, or was: all who wait for it wait for the same answer.
type Described = Shared<BoxFuture<'static, Result<Arc<Table>, Failure>>>;

/// A table's description, asked for once, and the filters compiled for it.
#[derive(Debug)]
struct Shape {
    /// [`Ring::reloads`] when it was asked for: a greater number means that it may be out of date.
    reloads: u64,
    table: Described,
    /// By the columns that may be named, and the conditions.
    known: Known<(Vec<String>, String), Filter>,
    scopes: Known<ScopeKey, Scope>,
}

/// What was compiled, for as long as anybody has it.
#[derive(Debug)]
struct Known<K, T> {
    all: HashMap<K, Weak<T>>,
    /// How many are known when those that nobody has are forgotten.
    sweep: usize,
}

impl<K: Eq + Hash, T> Known<K, T> {
    fn get(&self, key: &K) -> Option<Arc<T>> {
        self.all.get(key)?.upgrade()
    }

    fn keep(&mut self, key: K, one: &Arc<T>) {
        if self.all.len() >= self.sweep {
            self.all.retain(|_, known| known.strong_count() > 0);
            self.sweep = MIN_KNOWN.max(self.all.len() * 2);
        }
        self.all.insert(key, Arc::downgrade(one));
    }
}

impl<K, T> Default for Known<K, T> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            sweep: MIN_KNOWN,
        }
    }
}

/// The filters of all sockets of a gateway.
#[derive(Debug)]
pub struct Filters {
    ring: Ring,
    queries: Queries,
    shapes: Mutex<HashMap<Arc<str>, Shape>>,
}

impl Filters {
    /// No filters yet, for topics whose events come through this ring.
    pub fn new(ring: Ring, queries: Queries) -> Self {
        Self {
            ring,
            queries,
            shapes: Mutex::default(),
        }
    }

    /// Compiles a filter for the topic's table as it is now. The database is asked only the first
    /// time, and after a reload of the topic.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn compile(
        &self,
        topic: &Arc<Topic>,
        conditions: Vec<Condition>,
    ) -> Result<Arc<Filter>, Failure> {
        let Some(view) = topic.view.as_ref().filter(|_| topic.push == Push::Row) else {
            let detail = "types: a filter needs a topic that pushes rows";
            return Err(Failure::param(detail));
        };
        let table = self.table(topic).await?;
        let key = (view.columns.clone(), format!("{conditions:?}"));
        let known = self
            .of(&topic.name, |shape| shape.known.get(&key))
            .flatten();
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.table, &table)) {
            return Ok(known);
        }
        let predicate = Predicate::of_filter(&conditions, view, &table).map_err(told)?;
        let filter = Arc::new(Filter {
            conditions,
            predicate,
            table,
        });
        self.of(&topic.name, |shape| shape.known.keep(key, &filter));
        Ok(filter)
    }

    /// The topic's table, which is described once for all until a reload of the topic passes.
    pub(super) async fn table(&self, topic: &Arc<Topic>) -> Result<Arc<Table>, Failure> {
        let described = self.described(topic);
        let was_known = described.peek().is_some();
        let found = described.clone().await;
        if found.is_ok() && !was_known {
            // Whoever asked: a session may have stopped for want of it.
            self.ring.wake();
        }
        if found.is_err() {
            // Who comes next asks anew.
            self.of(&topic.name, |shape| {
                if shape.table.ptr_eq(&described) {
                    shape.table = self.describe(topic);
                }
            });
        }
        found
    }

    /// The topic's table, where it is described as it is now. Nothing is asked.
    pub(super) fn known_table(&self, topic: &Arc<Topic>) -> Option<Arc<Table>> {
        self.described(topic).peek()?.clone().ok()
    }

    /// A scope that was compiled for this description of the table.
    pub(super) fn known_scope(
        &self,
        topic: &str,
        key: &ScopeKey,
        table: Option<&Arc<Table>>,
    ) -> Option<Arc<Scope>> {
        let known = self.of(topic, |shape| shape.scopes.get(key)).flatten()?;
        let same = match (known.policy(), table) {
            (Some((_, known)), Some(table)) => Arc::ptr_eq(known, table),
            (None, None) => true,
            _ => false,
        };
        same.then_some(known)
    }

    /// Keeps a scope for as long as anybody has it.
    pub(super) fn remember_scope(&self, topic: &str, key: ScopeKey, scope: &Arc<Scope>) {
        self.of(topic, |shape| shape.scopes.keep(key, scope));
    }

    /// What is done with a topic's shape, where one is known.
    fn of<T>(&self, topic: &str, then: impl FnOnce(&mut Shape) -> T) -> Option<T> {
        self.lock().get_mut(topic).map(then)
    }

    fn described(&self, topic: &Arc<Topic>) -> Described {
        let reloads = self.ring.reloads(&topic.name);
        let mut shapes = self.lock();
        let fresh = |shape: &&Shape| shape.reloads >= reloads;
        if let Some(shape) = shapes.get(&topic.name).filter(fresh) {
            return shape.table.clone();
        }
        let shape = Shape {
            reloads,
            table: self.describe(topic),
            known: Known::default(),
            scopes: Known::default(),
        };
        let table = shape.table.clone();
        shapes.insert(topic.name.clone(), shape);
        table
    }

    /// Asks as soon as somebody waits for the answer.
    fn describe(&self, topic: &Arc<Topic>) -> Described {
        let (queries, topic) = (self.queries.clone(), topic.clone());
        let asked = async move { queries.describe(topic).await.map(Arc::new) };
        asked.boxed().shared()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Shape>> {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn told(bad: BadFilter) -> Failure {
    Failure::param(match bad {
        BadFilter::Column => "filter: the topic's own columns",
        BadFilter::Value => "filter: a value of the column's type",
        BadFilter::Test => "filter: a test that can be judged without the database",
    })
}
