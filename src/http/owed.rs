//! What a connection still owes its client: the answers of which not everything is with the kernel, what each
//! of them keeps until then, and until when it may be sent.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use axum::response::Response;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Auth, Grant, Refused},
    callers::{Portion, Share},
    identity::Identity,
};

/// How long an answer may still be on its way when the rights of who asked for it have ended: who reads it
/// gets a whole one, and the silence after it comes well within 5 s (docs/protocol.md §5).
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How one connection stands, for all who serve it.
#[derive(Default)]
pub struct Owed {
    /// The first request's head is there.
    asked: AtomicBool,
    /// Its client takes nothing at the moment, and something is to be written.
    stalled: AtomicBool,
    /// At most two of them: while one is being written, the next may wait for its turn.
    answers: Mutex<Vec<Answer>>,
}

/// An answer that is not all written.
struct Answer {
    /// Its body has another one: without that, all of it is in buffers, or beyond.
    body: Body,
    /// Resolves when it may not be sent any longer.
    over: Option<BoxFuture<'static, ()>>,
    _kept: (Option<Portion>, Option<Place>),
}

/// Held by the body of an answer as long as that is not over.
pub type Body = Arc<()>;

/// A place among the queries that run, in the extensions of an answer: kept until that is written.
#[derive(Debug, Clone)]
pub struct Place {
    _kept: Arc<(OwnedSemaphorePermit, Share)>,
}

/// For how long who asked may be answered, in the extensions of an answer; none for who may for ever.
#[derive(Debug, Clone)]
pub struct Warrant(Arc<Rights>);

#[derive(Debug)]
struct Rights {
    until: Option<Instant>,
    grant: Option<Grant>,
}

impl Owed {
    /// Takes note that something was asked for.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether anything was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Takes note of whether the client takes what is written.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Keeps what belongs to an answer until it is written; its body must hold what is returned.
    pub fn keep(&self, response: &mut Response, portion: Option<Portion>) -> Option<Body> {
        let extensions = response.extensions_mut();
        let (warrant, place) = (extensions.remove::<Warrant>(), extensions.remove::<Place>());
        if warrant.is_none() && place.is_none() && portion.is_none() {
            return None;
        }
        let body = Body::default();
        self.lock().push(Answer {
            body: body.clone(),
            over: warrant.map(|warrant| warrant.over_for_good().boxed()),
            _kept: (portion, place),
        });
        Some(body)
    }

    /// Lets go of what is written, after a turn in which all was written that could be; resolves when
    /// something is left that may not be sent any longer.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut answers = self.lock();
        if !self.stalled.load(Ordering::Relaxed) {
            answers.retain(|answer| Arc::strong_count(&answer.body) > 1);
        }
        let mut ends = answers.iter_mut().filter_map(|answer| answer.over.as_mut());
        match ends.any(|over| over.poll_unpin(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Nothing will be written any more.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answer>> {
        // Nothing in here panics half way through a change.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Keeps a place for as long as an answer is under way.
    pub fn keep(response: &mut Response, place: (OwnedSemaphorePermit, Share)) {
        let kept = Arc::new(place);
        response.extensions_mut().insert(Self { _kept: kept });
    }
}

impl Warrant {
    /// For how long somebody may be answered; none for ever.
    pub fn of(auth: &Auth, identity: &Identity) -> Option<Self> {
        let rights = Rights {
            until: identity.until().and_then(instant),
            grant: auth.grant(identity),
        };
        let ends = rights.until.is_some() || rights.grant.is_some();
        ends.then(|| Self(Arc::new(rights)))
    }

    /// Why he may not any longer, if so.
    pub fn over(&self) -> Option<Refused> {
        if self.revoked().is_some_and(CancellationToken::is_cancelled) {
            return Some(Refused::Revoked);
        }
        let over = self.0.until.is_some_and(|until| until <= Instant::now());
        over.then_some(Refused::Expired)
    }

    /// Waits until nothing that was under way may be sent any longer.
    async fn over_for_good(self) {
        let revoked = async {
            match self.revoked() {
                Some(revoked) => revoked.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let expired = async {
            match self.0.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = revoked => {}
            () = expired => {}
        }
        sleep(LAST_WORDS).await;
    }

    fn revoked(&self) -> Option<&CancellationToken> {
        self.0.grant.as_ref().map(Grant::over)
    }
}

/// The time of the clock that waits are measured by; none where it is too far away.
fn instant(time: SystemTime) -> Option<Instant> {
    let left = time.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}
