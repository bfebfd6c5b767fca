//! Reads that several ask for at once are read once. Who asks while the same read is running shares
//! the next one: a read never begins before it was asked for, so that everybody sees his own writes.
//! Nobody waits for long for a slow one: then the next begins beside it.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    protocol::{self, Failure, Params, Select},
    row::Value,
    store::Snapshot,
    topic::{Claims, Topic},
};

/// Who waits for a read. The rows are shared.
pub type Reply = oneshot::Sender<Result<Arc<Snapshot>, Failure>>;

/// What one read answers: who may see the same rows asks for the same. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Key(Arc<Asked>);

#[derive(Debug)]
struct Asked {
    /// Of all the rest, which may be long.
    hash: u64,
    /// Of the topic as its reader sees it.
    rows: u64,
    topic: Arc<str>,
    seen: Option<Seen>,
    select: Select,
    placed: bool,
}

/// What one may see of a guarded topic and another not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    columns: Vec<String>,
    claims: Option<Claims>,
}

/// How long a read may have been running for others to wait for its end.
const PATIENCE: Duration = Duration::from_millis(100);

/// Like reads that run beside one another at the most: one slow page is not to have all connections.
const MAX_READERS: usize = 2;

/// The reads under way, and who waits. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<HashMap<Key, Reads>>>);

/// Like reads.
#[derive(Debug)]
struct Reads {
    /// For the next one.
    waiting: Vec<Reply>,
    /// How many are running, or about to.
    readers: usize,
    /// When the last of them was called for.
    since: Instant,
}

impl Key {
    /// The key of a read; `placed` says whether its place in the stream is asked for.
    pub fn of(topic: &Topic, select: Select, placed: bool) -> Self {
        static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut asked = Asked {
            hash: 0,
            rows: 0,
            topic: topic.name.clone(),
            seen: topic.view.as_ref().map(|view| Seen {
                columns: view.columns.clone(),
                claims: view.policy.as_ref().map(|policy| policy.claims().clone()),
            }),
            select,
            placed,
        };
        asked.hash = STATE.hash_one(&asked);
        asked.rows = STATE.hash_one((&asked.topic, &asked.seen));
        Self(Arc::new(asked))
    }

    /// A number of the topic as its reader sees it, whatever is selected: of nothing else but by a chance of one in 2^64.
    pub fn rows(&self) -> u64 {
        self.0.rows
    }

    /// What is selected.
    pub fn select(&self) -> &Select {
        &self.0.select
    }

    /// Whether the place in the stream is asked for.
    pub fn placed(&self) -> bool {
        self.0.placed
    }
}

impl Reads {
    fn new() -> Self {
        Self {
            waiting: Vec::new(),
            readers: 0,
            since: Instant::now(),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let (one, another) = (&*self.0, &*other.0);
        Arc::ptr_eq(&self.0, &other.0)
            || (one.hash == another.hash
                && one.topic == another.topic
                && one.seen == another.seen
                && one.placed == another.placed
                && is_same(&one.select, &another.select))
    }
}

impl Eq for Key {}

/// Whether two ask for the same, a number that is none and either zero included, which `==` takes for something else.
fn is_same(one: &Select, another: &Select) -> bool {
    let usual = |select: &Select| match select {
        Select::Id(protocol::Key::One(Value::Integer(_))) => true,
        Select::Page(params) => *params == Params::default(),
        _ => false,
    };
    match usual(one) || usual(another) {
        true => one == another,
        // All that tells one request from another is in its debug form.
        false => format!("{one:?}") == format!("{another:?}"),
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            hash: _,
            rows: _,
            topic,
            seen,
            select,
            placed,
        } = self;
        (topic, seen, placed).hash(state);
        match select {
            // What is asked for most often costs least.
            Select::Id(protocol::Key::One(Value::Integer(id))) => id.hash(state),
            Select::Page(params) if *params == Params::default() => {}
            other => {
                let _never_fails = write!(Hashed(state), "{other:?}");
            }
        }
    }
}

/// Hashes what is written.
struct Hashed<'a, H>(&'a mut H);

impl<H: Hasher> Write for Hashed<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Shared {
    /// Waits for the next read of this key; returns whether the caller must see to it.
    pub fn join(&self, key: &Key, reply: Reply) -> bool {
        let mut reads = self.lock();
        let reads = reads.entry(key.clone()).or_insert_with(Reads::new);
        reads.waiting.push(reply);
        let slow = reads.readers < MAX_READERS && reads.since.elapsed() > PATIENCE;
        let called = reads.readers == 0 || slow;
        if called {
            reads.readers += 1;
            reads.since = Instant::now();
        }
        called
    }

    /// Those who wait for the read that begins now; `None` where nobody does, and this reader is
    /// done.
    pub fn begin(&self, key: &Key) -> Option<Vec<Reply>> {
        let mut all = self.lock();
        let reads = all.get_mut(key)?;
        // Nothing is read for who has gone.
        reads.waiting.retain(|reply| !reply.is_closed());
        if !reads.waiting.is_empty() {
            reads.since = Instant::now();
            return Some(std::mem::take(&mut reads.waiting));
        }
        reads.readers -= 1;
        if reads.readers == 0 {
            all.remove(key);
        }
        None
    }

    /// A reader that was called for will not come: tells all who wait.
    pub fn refuse(&self, key: &Key, failure: &Failure) {
        while let Some(waiting) = self.begin(key) {
            for reply in waiting {
                // An asker that has gone needs no answer.
                let _ = reply.send(Err(failure.clone()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Reads>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::ErrorCode,
        topic::{Affinity, Collation, Column, Kind, Table},
    };

    fn key() -> Key {
        let topic = Topic::resolve(&serde_json::from_str(r#"{"type":"t"}"#).unwrap(), None);
        Key::of(&topic.unwrap(), Select::Page(Params::default()), true)
    }

    /// Somebody who joins the next read, and goes on waiting; returns whether he must see to it.
    fn joins(shared: &Shared, key: &Key) -> bool {
        let (reply, answer) = oneshot::channel();
        std::mem::forget(answer);
        shared.join(key, reply)
    }

    #[test]
    fn who_asks_while_a_read_runs_waits_for_the_next() {
        let (shared, key) = (Shared::default(), key());
        assert!(joins(&shared, &key));
        assert!(!joins(&shared, &key));
        assert_eq!(shared.begin(&key).unwrap().len(), 2);
        // The read has begun: the next ones share another.
        assert!(!joins(&shared, &key));
        assert!(!joins(&shared, &key));
        assert_eq!(shared.begin(&key).unwrap().len(), 2);
        assert!(shared.begin(&key).is_none());
        assert!(joins(&shared, &key));
    }

    #[test]
    fn nobody_waits_for_the_end_of_a_slow_read() {
        let (shared, key) = (Shared::default(), key());
        assert!(joins(&shared, &key));
        shared.begin(&key).unwrap();
        shared.lock().get_mut(&key).unwrap().since = Instant::now() - PATIENCE * 2;
        assert!(joins(&shared, &key), "a second reader");
        assert!(!joins(&shared, &key), "which has only been called");
        assert_eq!(shared.begin(&key).unwrap().len(), 2);
        assert!(shared.begin(&key).is_none(), "the first reader");
        assert!(shared.begin(&key).is_none(), "the second");
        assert!(shared.lock().is_empty());
    }

    #[test]
    fn nothing_is_read_for_who_has_gone() {
        let (shared, key) = (Shared::default(), key());
        assert!(shared.join(&key, oneshot::channel().0));
        assert!(shared.begin(&key).is_none());
        assert!(shared.lock().is_empty());
    }

    #[test]
    fn a_number_that_is_none_is_the_same_and_the_two_zeros_are_not() {
        let of = |number| {
            let select = Select::Id(protocol::Key::One(Value::Real(number)));
            Key::of(&guarded(), select, true)
        };
        assert_eq!(of(f64::NAN), of(f64::NAN));
        assert_ne!(of(0.0), of(-0.0));
        let key = of(f64::NAN);
        let shared = Shared::default();
        assert!(joins(&shared, &key));
        assert_eq!(shared.begin(&key).unwrap().len(), 1);
        assert!(shared.begin(&key).is_none());
        assert!(shared.lock().is_empty());
    }

    #[test]
    fn a_refusal_is_told_to_all_who_wait() {
        let (shared, key) = (Shared::default(), key());
        let (one, mut told) = oneshot::channel();
        assert!(shared.join(&key, one));
        shared.refuse(&key, &ErrorCode::TooManyRequests.into());
        assert!(told.try_recv().unwrap().is_err());
        assert!(shared.lock().is_empty());
    }

    #[test]
    fn who_may_not_see_the_same_shares_no_read() {
        let topic = |ward: Option<&str>, columns: &[&str]| {
            let mut topic = guarded();
            let view = topic.view.as_mut().unwrap();
            view.columns = columns.iter().map(|name| (*name).to_owned()).collect();
            let claims = ward.map(|ward| ("ward".into(), ward.into()));
            let policy = view.policy.as_ref().unwrap();
            view.policy = Some(policy.with(Claims::new(claims.into_iter().collect())));
            topic
        };
        let select = Select::Page(Params::default());
        let of = |ward, columns: &[&str]| Key::of(&topic(ward, columns), select.clone(), true);
        assert_eq!(of(Some("1"), &["id"]), of(Some("1"), &["id"]));
        let all = [
            of(Some("1"), &["id"]),
            of(Some("2"), &["id"]),
            of(None, &["id"]),
            of(Some("1"), &["id", "name"]),
            of(Some("1"), &[]),
        ];
        let distinct: std::collections::HashSet<&Key> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    fn guarded() -> Topic {
        let column = |name: &str| Column {
            name: name.into(),
            declared: "text".into(),
            affinity: Affinity::Blob,
            kind: Some(Kind::Text),
            collation: Collation::Binary,
            not_null: true,
        };
        let table = Table {
            name: "t".into(),
            columns: ["id", "name", "ward"].map(column).into(),
            primary_key: vec!["id".into()],
            unique: Vec::new(),
            displaces: false,
        };
        let spec = r#"{"type":"t","table":"t","policy":"ward = token.ward"}"#;
        Topic::resolve(&serde_json::from_str(spec).unwrap(), Some(&table)).unwrap()
    }
}
