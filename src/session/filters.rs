//! What a socket takes: which topics, and of each which rows. Filters are compiled once for all
//! sockets that set the same, against a description of the table that is asked for once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::OnceCell;

use crate::{
    predicate::{BadFilter, Predicate, Verdict},
    protocol::{Condition, Encoded, ErrorCode, Failure, Interest},
    query::Queries,
    ring::{Frame, Ring},
    topic::{Push, Table, Topic, Topics},
};

/// Filters that are kept in mind before those are forgotten that no socket has any more.
const MIN_KNOWN: usize = 64;

/// What is wrong where a socket chooses more topics than it may.
pub const TOO_MANY_TOPICS: &str = "types: too many for one socket";

/// A filter as compiled for one description of its topic's table.
#[derive(Debug)]
pub struct Filter {
    conditions: Vec<Condition>,
    predicate: Predicate,
    table: Arc<Table>,
}

/// A table's description, asked for once, and the filters compiled for it.
#[derive(Debug)]
struct Shape {
    /// [`Ring::reloads`] when it was asked for: a greater number means that it may be out of date.
    reloads: u64,
    table: Arc<OnceCell<Arc<Table>>>,
    known: HashMap<String, Weak<Filter>>,
    /// How many are known when those that nobody has are forgotten.
    sweep: usize,
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
        let cell = self.cell(&topic.name);
        let table = cell
            .get_or_try_init(|| async {
                let table = self.queries.describe(topic.clone()).await?;
                Ok::<_, Failure>(Arc::new(table))
            })
            .await?;
        let text = format!("{conditions:?}");
        if let Some(known) = self.known(&topic.name, &text, table) {
            return Ok(known);
        }
        let predicate = Predicate::of_filter(&conditions, view, table).map_err(told)?;
        let filter = Arc::new(Filter {
            conditions,
            predicate,
            table: table.clone(),
        });
        self.remember(&topic.name, text, &filter);
        Ok(filter)
    }

    fn cell(&self, topic: &Arc<str>) -> Arc<OnceCell<Arc<Table>>> {
        let reloads = self.ring.reloads(topic);
        let mut shapes = self.lock();
        let fresh = |shape: &&mut Shape| shape.reloads >= reloads;
        if let Some(shape) = shapes.get_mut(topic).filter(fresh) {
            return shape.table.clone();
        }
        let shape = Shape {
            reloads,
            table: Arc::default(),
            known: HashMap::new(),
            sweep: MIN_KNOWN,
        };
        let table = shape.table.clone();
        shapes.insert(topic.clone(), shape);
        table
    }

    fn known(&self, topic: &str, text: &str, table: &Arc<Table>) -> Option<Arc<Filter>> {
        let shapes = self.lock();
        let filter = shapes.get(topic)?.known.get(text)?.upgrade();
        filter.filter(|filter| Arc::ptr_eq(&filter.table, table))
    }

    fn remember(&self, topic: &str, text: String, filter: &Arc<Filter>) {
        let mut shapes = self.lock();
        let Some(shape) = shapes.get_mut(topic) else {
            return;
        };
        if shape.known.len() >= shape.sweep {
            shape.known.retain(|_, filter| filter.strong_count() > 0);
            shape.sweep = MIN_KNOWN.max(shape.known.len() * 2);
        }
        shape.known.insert(text, Arc::downgrade(filter));
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

/// Which topics a socket takes, and of each which rows. Nothing on the heap for who takes all.
#[derive(Debug, Default)]
pub struct Interests(Option<Box<Choice>>);

#[derive(Debug, Default)]
struct Choice {
    /// Only these topics; all where none.
    only: Option<HashSet<Arc<str>>>,
    filters: HashMap<Arc<str>, Arc<Filter>>,
}

/// Topics named by a client, with their filters compiled.
pub type Named = Vec<(Arc<str>, Option<Arc<Filter>>)>;

impl Interests {
    /// These topics, or all, without filters.
    pub fn new(only: Option<HashSet<Arc<str>>>) -> Self {
        let choice = only.map(|only| Choice {
            only: Some(only),
            filters: HashMap::new(),
        });
        Self(choice.map(Box::new))
    }

    /// Exactly these topics.
    pub fn exactly(named: Named) -> Self {
        let mut interests = Self::new(Some(HashSet::new()));
        interests.add(named);
        interests
    }

    /// These, too, each with the filter given or none. Who takes all topics goes on doing so.
    pub fn add(&mut self, named: Named) {
        let choice = self.0.get_or_insert_default();
        for (topic, filter) in named {
            if let Some(only) = &mut choice.only {
                only.insert(topic.clone());
            }
            match filter {
                Some(filter) => drop(choice.filters.insert(topic, filter)),
                None => drop(choice.filters.remove(&topic)),
            }
        }
    }

    /// These no more.
    pub fn remove(&mut self, types: &[String], topics: &Topics) {
        let all = || topics.iter().map(|topic| topic.name.clone()).collect();
        let choice = self.0.get_or_insert_default();
        let only = choice.only.get_or_insert_with(all);
        only.retain(|name| !types.iter().any(|gone| **gone == **name));
        choice.filters.retain(|name, _| only.contains(name));
    }

    /// Whether with these, too, no more than `most` topics are chosen, and have filters.
    fn admits(&self, more: &[Interest], most: usize) -> bool {
        if more.len() > most {
            return false;
        }
        let Some(choice) = &self.0 else {
            return true;
        };
        let is_other = |topic: &&Arc<str>| more.iter().all(|interest| *interest.topic != ***topic);
        let chosen = choice.only.iter().flatten().filter(is_other).count();
        let filtered = choice.filters.keys().filter(is_other).count();
        let more_filtered = more.iter().filter(|interest| !interest.filter.is_empty());
        chosen + more.len() <= most && filtered + more_filtered.count() <= most
    }

    /// Whether events of a topic are taken.
    pub fn takes(&self, topic: &str) -> bool {
        let only = self.0.as_ref().and_then(|choice| choice.only.as_ref());
        only.is_none_or(|only| only.contains(topic))
    }

    /// Whether every event is taken, and as it is.
    pub fn takes_all(&self) -> bool {
        let all = |choice: &Choice| choice.only.is_none() && choice.filters.is_empty();
        self.0.as_deref().is_none_or(all)
    }

    /// Whether events of a topic go through a filter.
    pub fn filters(&self, topic: &str) -> bool {
        self.filter(topic).is_some()
    }

    fn filter(&self, topic: &str) -> Option<&Arc<Filter>> {
        self.0.as_ref()?.filters.get(topic)
    }

    /// The form in which this socket gets a frame, and its text; `None` for one that it does not
    /// get.
    pub fn form(&self, frame: &Frame) -> Option<(Verdict, Encoded)> {
        if !self.takes(&frame.topic) {
            return None;
        }
        let filter = self.filter(&frame.topic);
        let verdict = filter.map_or(Verdict::Pass, |filter| {
            frame.judged(&filter.predicate, &filter.table)
        });
        Some((verdict, frame.form(verdict)?))
    }

    /// Compiles a topic's filter anew, if there is one: the topic's table may be another now.
    ///
    /// A filter that does not fit the table any more is gone, and every row is sent: its client has
    /// been told to query again, and is told why it cannot. While the database cannot be asked the
    /// old filter stays.
    pub async fn refresh(&mut self, gateway: &super::Gateway, topic: &str) {
        let Some(filters) = self.0.as_mut().map(|choice| &mut choice.filters) else {
            return;
        };
        let Some(filter) = filters.get_mut(topic) else {
            return;
        };
        let Some(topic) = gateway.topics.get(topic) else {
            return;
        };
        let conditions = filter.conditions.clone();
        match gateway.filters.compile(topic, conditions).await {
            Ok(fresh) => *filter = fresh,
            Err(failure) if failure.code == ErrorCode::BadParam => {
                filters.remove(&topic.name);
            }
            Err(_) => {}
        }
    }

    /// Compiles all filters anew.
    pub async fn refresh_all(&mut self, gateway: &super::Gateway) {
        let filters = self.0.iter().flat_map(|choice| choice.filters.keys());
        let filtered: Vec<Arc<str>> = filters.cloned().collect();
        for topic in filtered {
            self.refresh(gateway, &topic).await;
        }
    }
}

impl super::Gateway {
    /// The topics that a client names beside those that it has, with their filters compiled.
    ///
    /// # Errors
    /// The [`Failure`] to answer with.
    pub(super) async fn named(
        &self,
        interests: Vec<Interest>,
        beside: &Interests,
    ) -> Result<Named, Failure> {
        if !beside.admits(&interests, self.config.max_topics) {
            self.metrics.limited("topics");
            return Err(Failure::param(TOO_MANY_TOPICS));
        }
        let mut named = Vec::with_capacity(interests.len());
        for interest in interests {
            let topic = self.topics.get(&interest.topic);
            let topic = topic.ok_or(ErrorCode::UnknownType)?;
            let filter = match interest.filter.is_empty() {
                true => None,
                false => Some(self.filters.compile(topic, interest.filter).await?),
            };
            named.push((topic.name.clone(), filter));
        }
        Ok(named)
    }
}
