//! Marks: how a read learns that the stream has come past all that it saw. A message is put into
//! the database's log after the read; when the change producer meets it, all that was committed
//! before it is on the bus. One mark serves all reads that were waiting when it was set.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{horizon::Settled, position::Position, row, store::Store};

/// How long the stream may take to come past what a read saw, before its reply says
/// `"exact":false`.
pub const SETTLE: Duration = Duration::from_millis(250);

/// The same while somebody answers marks: then all is there, and slow.
pub const SETTLE_SLOW: Duration = Duration::from_secs(1);

/// For how long after an answer the next one is thought to come.
const HEARD: Duration = Duration::from_secs(5);

/// How long none is tried after one could not be set: a standby never takes one.
const FAILED_PAUSE: Duration = Duration::from_millis(500);

/// Marks that are on their way; of more, the oldest is given up.
const MAX_SENT: usize = 1024;

/// Sets marks and hears of their answers. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Marks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
    /// What the names of this process's marks begin with, so that no other's are taken for ours.
    prefix: String,
}

#[derive(Debug, Default)]
struct State {
    /// Reads that wait for a mark that is not set yet.
    waiting: Vec<oneshot::Sender<Settled>>,
    /// Marks on their way, by name.
    sent: HashMap<Arc<str>, Sent>,
    counter: u64,
    /// When the last of our marks was answered.
    heard: Option<Instant>,
}

/// A mark on its way. Its own transaction and its place in the stream are told by two that do not
/// wait for each other.
#[derive(Debug)]
struct Sent {
    since: Instant,
    waiting: Vec<oneshot::Sender<Settled>>,
    xid: Option<u64>,
    position: Option<Position>,
}

impl Default for Marks {
    fn default() -> Self {
        let mut bytes = [0_u8; 8];
        // Without randomness two gateways would hear each other's answers, which say too much
        // only if both count alike: the readers' timeout bounds even that.
        let _ = getrandom::fill(&mut bytes);
        Self(Arc::new(Shared {
            state: Mutex::default(),
            wake: Notify::new(),
            prefix: row::hex(&bytes)[2..].to_owned(),
        }))
    }
}

impl Marks {
    /// How far the stream must come to hold all that was visible before this call; `None` where
    /// nobody says so within [`SETTLE`], or [`SETTLE_SLOW`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&self) -> Option<Settled> {
        let (sender, settled) = oneshot::channel();
        let limit = {
            let mut state = self.lock();
            state.waiting.push(sender);
            let heard = state.heard.is_some_and(|at| at.elapsed() < HEARD);
            if heard { SETTLE_SLOW } else { SETTLE }
        };
        self.0.wake.notify_one();
        let settled = tokio::time::timeout(limit, settled).await;
        settled.ok()?.ok()
    }

    /// The producer has met a mark: all before it stands at or before `position`.
    pub fn answered(&self, name: &str, position: Position) {
        let mut state = self.lock();
        if let Some(sent) = state.sent.get_mut(name) {
            sent.position = Some(position);
            state.heard = Some(Instant::now());
        }
        state.finish(name);
    }

    /// Sets a mark whenever reads wait for one: one at a time, so that those that come meanwhile
    /// share the next. Runs for ever.
    pub(super) async fn serve(&self, store: impl Store) {
        let mut failed: Option<Instant> = None;
        loop {
            self.0.wake.notified().await;
            if failed.is_some_and(|at| at.elapsed() < FAILED_PAUSE) {
                // They are told at once.
                self.lock().waiting.clear();
                continue;
            }
            let Some(name) = self.next() else { continue };
            match store.mark(&name).await {
                Ok(xid) => {
                    failed = None;
                    let mut state = self.lock();
                    if let Some(sent) = state.sent.get_mut(&name) {
                        sent.xid = Some(xid);
                    }
                    state.finish(&name);
                }
                Err(err) => {
                    tracing::debug!(error = %err, "no mark can be set");
                    failed = Some(Instant::now());
                    self.lock().sent.remove(&name);
                }
            }
        }
    }

    /// The name of the next mark, for which all that wait now will wait; `None` where nobody does.
    fn next(&self) -> Option<Arc<str>> {
        let mut state = self.lock();
        let waiting = std::mem::take(&mut state.waiting);
        if waiting.is_empty() {
            return None;
        }
        let now = Instant::now();
        state.sent.retain(|_, sent| now - sent.since < SETTLE_SLOW);
        if state.sent.len() >= MAX_SENT {
            state.sent.clear();
        }
        state.counter += 1;
        let name: Arc<str> = format!("{}-{}", self.0.prefix, state.counter).into();
        let sent = Sent {
            since: now,
            waiting,
            xid: None,
            position: None,
        };
        state.sent.insert(name.clone(), sent);
        Some(name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells the readers of a mark once all is known of it.
    fn finish(&mut self, name: &str) {
        let known = |sent: &Sent| Some((sent.xid?, sent.position.clone()?));
        let Some((xid, position)) = self.sent.get(name).and_then(known) else {
            return;
        };
        let waiting = self.sent.remove(name).map(|sent| sent.waiting);
        for reader in waiting.into_iter().flatten() {
            // A reader that has gone needs no answer.
            let _ = reader.send(Settled {
                position: position.clone(),
                xid,
            });
        }
    }
}
