//! Revocations between gateways, and from one start to the next. On NATS the stream of revocations keeps
//! them, and every gateway reads it; the embedded bus keeps them in its own file. A gateway lets nobody in
//! before it knows of those that are kept.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::loops::Loops;
use crate::{
    auth::{Announcement, Auth, Revocation},
    bus::{
        KeptRevocation,
        embedded::EmbeddedBus,
        jetstream::{JetStreamBus, REVOKE, Told, Untold},
    },
    metrics::Part,
};

/// The most bytes of a revocation.
const MAX_REVOCATION_BYTES: usize = 4 * 1024;

/// Revocations on their way to the stream at once.
const UNDER_WAY: usize = 64;

/// The pause before the control subject is listened to again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What a gateway knows of the revocations that are kept on NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Knowledge {
    /// Nothing yet, and why where something is in the way.
    None(Option<String>),
    /// All of them; while it is cut off, all until then.
    All,
    /// That none are kept: it knows those only that it hears.
    Nowhere,
}

/// What a revocation holds by that is told to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// It was said now.
    New,
    /// It may be known, or it is told another time by the stream.
    Old,
}

/// Takes in what the bus's file keeps, and keeps there what is revoked from now on.
///
/// # Errors
/// Where the file cannot be read.
pub(super) async fn in_file(bus: &EmbeddedBus, auth: &Auth, loops: &Loops) -> anyhow::Result<()> {
    let kept = bus.revocations().await;
    let kept = kept.context("what was revoked cannot be read")?;
    let count = take_in(auth, &kept, News::Old);
    if count > 0 {
        info!(revocations = count, "knows what was revoked before");
    }
    let (bus, auth) = (bus.clone(), auth.clone());
    let stop = loops.stops.fanout.clone();
    loops.spawn("revocations", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep_in_file(bus, auth) => {}
        }
    });
    Ok(())
}

async fn keep_in_file(bus: EmbeddedBus, auth: Auth) {
    let mut asked = auth.announced().await;
    while let Some(announcement) = asked.recv().await {
        let Announcement {
            revocation,
            at,
            kept,
        } = announcement;
        let until = auth.holds_until(&revocation, at);
        let body = body(&revocation);
        match bus
            .keep_revocation(KeptRevocation { at, body }, until)
            .await
        {
            // Who asked may have gone.
            Ok(()) => drop(kept.send(())),
            Err(err) => {
                warn!(error = %err, "a revocation holds until this process ends: repeat it");
            }
        }
    }
}

/// Follows the revocations on NATS; returns when this gateway knows of those that are kept, or that none
/// are, and hears every other. They should be kept as long as `keep`.
pub(super) async fn on_nats(bus: &JetStreamBus, auth: &Auth, loops: &Loops, keep: Duration) {
    let (tell, mut known) = watch::channel(Knowledge::None(None));
    let stop = loops.stops.fanout.clone();
    // Where none are kept, nobody else would tell what is said from now on.
    let heard = listen(bus).await;
    let passing = pass_on(
        (bus.clone(), auth.clone()),
        heard,
        known.clone(),
        stop.clone(),
    );
    loops.spawn("revocations", passing);
    loops.spawn(
        "kept revocations",
        read(bus.clone(), auth.clone(), tell, stop),
    );
    loop {
        match &*known.borrow_and_update() {
            Knowledge::None(None) => {}
            Knowledge::None(Some(reason)) => loops.health.down(Part::Bus, reason),
            Knowledge::All => break,
            Knowledge::Nowhere => return,
        }
        if known.changed().await.is_err() {
            // The reader has failed, and with it the process.
            std::future::pending::<()>().await;
        }
    }
    if let Ok(Some(kept)) = bus.keeps_revocations().await
        && kept < keep
    {
        warn!(
            kept_ms = kept.as_millis(),
            "revocations are kept for less than auth.keep_revoked_ms: give the producer the same configuration"
        );
    }
}

/// What is said on the control subject from now on.
async fn listen(bus: &JetStreamBus) -> impl Stream<Item = Bytes> + Send + Unpin + 'static {
    loop {
        match bus.control_on(REVOKE).await {
            Ok(heard) => return heard,
            Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

/// Has what is revoked here kept, or where nothing keeps it told to the others; and takes in what is said on
/// the subject. What the stream keeps is told by it, too, with its time; but this is there at once, and
/// without it.
async fn pass_on(
    (bus, auth): (JetStreamBus, Auth),
    heard: impl Stream<Item = Bytes> + Send + Unpin + 'static,
    known: watch::Receiver<Knowledge>,
    stop: CancellationToken,
) {
    let mut heard = heard.boxed();
    let mut asked = auth.announced().await;
    let mut under_way = FuturesUnordered::new();
    // NATS does not say whether anybody has heard something that nobody keeps, nor to whom it refuses it. So
    // whoever asked is told that all know when this gateway has heard it itself, as one of them.
    let mut told: Vec<(Bytes, oneshot::Sender<()>)> = Vec::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            Some(Announcement { revocation, kept, .. }) = asked.recv(), if under_way.len() < UNDER_WAY => {
                let body = body(&revocation);
                if *known.borrow() != Knowledge::Nowhere {
                    under_way.push(keep(bus.clone(), body, kept));
                    continue;
                }
                // Each is awaited by a request; there are no more than those.
                told.retain(|(_, kept)| !kept.is_closed());
                match bus.publish_control(REVOKE, body.clone()).await {
                    Ok(()) => told.push((body, kept)),
                    Err(err) => warn!(error = %err, "a revocation holds on this gateway alone: repeat it"),
                }
            }
            body = heard.next() => match body {
                Some(body) => {
                    let news = match *known.borrow() {
                        Knowledge::Nowhere => News::New,
                        _ => News::Old,
                    };
                    let revocation = KeptRevocation { at: SystemTime::now(), body };
                    if take_in(&auth, std::slice::from_ref(&revocation), news) == 0 {
                        warn!("what was told on the control subject revoke is no revocation, or one of tokens that are over");
                    }
                    for (_, kept) in told.extract_if(.., |(sent, _)| *sent == revocation.body) {
                        // Who has gone meanwhile need not be told.
                        let _ = kept.send(());
                    }
                }
                None => heard = listen(&bus).await.boxed(),
            },
        }
    }
}

/// Has the stream keep a revocation.
async fn keep(bus: JetStreamBus, body: Bytes, kept: oneshot::Sender<()>) {
    match bus.keep_revocation(body).await {
        // Who asked may have gone.
        Ok(()) => drop(kept.send(())),
        Err(err) => warn!(error = %err, "a revocation holds on this gateway alone: repeat it"),
    }
}

/// Takes in what the stream keeps, from its beginning at the start and after each new connection, and then
/// what comes.
async fn read(
    bus: JetStreamBus,
    auth: Auth,
    tell: watch::Sender<Knowledge>,
    stop: CancellationToken,
) {
    let mut kept = bus.revocations();
    let (mut whole, mut count) = (false, 0);
    // What the log was told last: to read it all anew is nothing new.
    let (mut warned, mut known) = (String::new(), None);
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = kept.next() => next,
        };
        match next {
            Ok(Told {
                revocations,
                whole: ends,
            }) => {
                let news = if whole { News::New } else { News::Old };
                count += take_in(&auth, &revocations, news);
                if ends {
                    whole = true;
                    if known.replace(count) != Some(count) {
                        info!(revocations = count, "knows what was revoked before");
                    }
                    tell.send_replace(Knowledge::All);
                }
            }
            Err(err) => {
                (whole, count) = (false, 0);
                let text = err.to_string();
                debug!(error = %text, "the revocations are read anew");
                match err {
                    Untold::Nowhere(_) => {
                        if warned != text {
                            warn!(
                                error = %text,
                                "revocations are not kept: a gateway that starts, or was cut off from NATS, \
                                 does not know of those before. `rowcast produce` of this version makes \
                                 the stream, and this NATS user must be let read it: nats/README.md"
                            );
                        }
                        warned = text;
                        tell.send_replace(Knowledge::Nowhere);
                    }
                    Untold::Unavailable(_) => {
                        // Who is cut off goes on with what he knows.
                        tell.send_if_modified(|known| {
                            let reason = Knowledge::None(Some(text));
                            let news = matches!(known, Knowledge::None(_)) && *known != reason;
                            if news {
                                *known = reason;
                            }
                            news
                        });
                    }
                }
            }
        }
    }
}

/// Takes revocations in; returns how many of them are any that hold still.
fn take_in(auth: &Auth, kept: &[KeptRevocation], news: News) -> usize {
    let mut count = 0;
    for KeptRevocation { at, body } in kept {
        let Some(revocation) = understood(auth, body) else {
            continue;
        };
        count += 1;
        match news {
            News::New => auth.revoke(&revocation, *at),
            News::Old => auth.hold(&revocation, *at),
        }
    }
    count
}

fn understood(auth: &Auth, body: &[u8]) -> Option<Revocation> {
    let fits = body.len() <= MAX_REVOCATION_BYTES;
    let body = fits.then(|| serde_json::from_slice(body).ok())??;
    auth.revocation(&body).ok()
}

fn body(revocation: &Revocation) -> Bytes {
    Bytes::from(revocation.to_json().to_string())
}
