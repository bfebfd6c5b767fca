//! Revocations on NATS. A stream of their own keeps what is said on `<prefix>.control.revoke`; each gateway
//! reads it from its beginning when it starts and whenever its connection is a new one, and then goes on
//! with what comes. What a revocation says is nothing to the bus.

use std::time::{Duration, SystemTime};

use async_nats::{
    HeaderMap,
    jetstream::{
        ErrorCode,
        context::GetStreamErrorKind,
        stream::{Config, Info},
    },
};
use bytes::Bytes;
use tokio::time::timeout;

use super::{
    super::KeptRevocation,
    Failure, JetStreamBus,
    batch::{Outgoing, Refused},
    connect::jittered,
    denied::NO_ANSWER,
    pull::Pull,
    record::Stored,
    stream::silent,
};

/// The control subject of revocations.
pub const REVOKE: &str = "revoke";

/// The stream's definition, for the prefix `rowcast`. It keeps as many as a gateway holds in memory.
const DEFINITION: &str = include_str!("../../../nats/revocations.json");

/// Revocations told at once.
const AT_ONCE: usize = 500;

/// How long the stream may hesitate while it has more: what it had may be too old by now.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many errors at one place what stands there is read by itself.
const IN_VAIN: u32 = 2;

/// The pause after an error.
const PAUSE: Duration = Duration::from_millis(200);

/// The pause before a stream that is not there is looked for again: a producer of this version may have
/// made it meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Revocations of the stream, in its order.
#[derive(Debug, Default)]
pub struct Told {
    /// Those that follow the ones told before, or the first of the stream.
    pub revocations: Vec<KeptRevocation>,
    /// Whether all are told by these that the stream held when it was opened.
    pub whole: bool,
}

/// Why the stream of revocations tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// No stream keeps any, or this user may not read it: that is for a person to change.
    #[error("{0}")]
    Nowhere(#[source] Failure),
    /// It cannot be read now.
    #[error("the revocations cannot be read: {0}")]
    Unavailable(#[source] Failure),
}

/// A reader of the stream of revocations.
#[derive(Debug)]
pub struct Revocations {
    bus: JetStreamBus,
    pull: Option<Pull>,
    /// The last message that the stream held when it was opened, until it is told.
    due: Option<u64>,
    /// When the stream was created, and where it is read anew: its beginning, or after what could not be followed.
    begins: (i128, u64),
    /// The last message told.
    told: u64,
    /// After which message that was told the stream could not be followed, and how often.
    in_vain: (u64, u32),
    pause: Option<Duration>,
}

impl JetStreamBus {
    /// Reads the stream of revocations, from its beginning.
    pub fn revocations(&self) -> Revocations {
        Revocations {
            bus: self.clone(),
            pull: None,
            due: None,
            begins: (0, 1),
            told: 0,
            in_vain: (0, 0),
            pause: None,
        }
    }

    /// Looks whether revocations are kept, and for how long; none is for ever.
    ///
    /// # Errors
    /// [`Untold`]
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn keeps_revocations(&self) -> Result<Option<Duration>, Untold> {
        let info = tokio::select! {
            found = self.revocations_stream() => found?,
            () = self.connection.refused(&self.names.revoked_stream) => return Err(self.forbidden()),
        };
        Ok(Some(info.config.max_age).filter(|age| !age.is_zero()))
    }

    /// Whether this user may read a revocation by itself, as a gateway must where the client cannot read what stands
    /// above it; why he may not. Of a producer's user nothing is asked.
    ///
    /// # Errors
    /// Which permission is missing, or that the server does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn may_read_revocations(&self) -> Result<(), Failure> {
        match self.is_producer() {
            true => Ok(()),
            false => self.may_get(&self.names.revoked_stream).await,
        }
    }

    /// Has a revocation kept, and waits until it is. Whoever listens on the subject hears it meanwhile.
    ///
    /// # Errors
    /// Whether it is kept is not known: say it again, which does no harm.
    ///
    /// # Cancel safety
    /// Cancel safe: it may be kept.
    pub async fn keep_revocation(&self, body: Bytes) -> Result<(), Failure> {
        let message = Outgoing {
            subject: self.names.revoke.clone(),
            headers: HeaderMap::new(),
            payload: body,
        };
        match self.store(vec![message], None).await {
            Ok(_) => Ok(()),
            Err(Refused::Unknown(err)) => Err(self.reason(err)),
            Err(Refused::Known | Refused::Mismatch) => Err("the stream refuses it".into()),
        }
    }

    /// Makes sure that revocations are kept, as a producer that manages. Where that cannot be, everything
    /// else goes on, and the log says what to do.
    ///
    /// # Errors
    /// Where the server does not answer.
    pub(super) async fn ensure_revocations(&self) -> Result<(), Failure> {
        let name = &self.names.revoked_stream;
        let made = tokio::select! {
            made = self.make_revocations() => made,
            () = self.connection.refused(name) => Err(self.reason(NO_ANSWER.into())),
        };
        match made {
            Err(err) if err.to_string() == NO_ANSWER => Err(err),
            Err(err) => {
                tracing::warn!(
                    stream = name, error = %err,
                    "revocations are not kept: gateways that start do not know of those before; let the \
                     producer make the stream (nats/server.conf) and start it again, or make it from \
                     nats/revocations.json"
                );
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn make_revocations(&self) -> Result<(), Failure> {
        let jetstream = self.connection.jetstream()?;
        let base: Config = serde_json::from_str(DEFINITION)?;
        let wanted = Config {
            name: self.names.revoked_stream.clone(),
            subjects: vec![self.names.revoke.clone()],
            num_replicas: self.config.replicas,
            max_age: self.config.keep_revoked,
            duplicate_window: base.duplicate_window.min(self.config.keep_revoked),
            ..base
        };
        let stream = jetstream.get_or_create_stream(wanted.clone()).await;
        let found = stream.map_err(silent)?.cached_info().config.clone();
        if limits(&found) != limits(&wanted) {
            let config = Config {
                num_replicas: wanted.num_replicas,
                max_age: wanted.max_age,
                duplicate_window: wanted.duplicate_window,
                max_messages: wanted.max_messages,
                max_bytes: wanted.max_bytes,
                ..found
            };
            jetstream.update_stream(config).await.map_err(silent)?;
        }
        Ok(())
    }

    /// The stream as it is.
    async fn revocations_stream(&self) -> Result<Info, Untold> {
        let unavailable = Untold::Unavailable;
        let name = &self.names.revoked_stream;
        let jetstream = self.connection.jetstream().map_err(unavailable)?;
        let info = match jetstream.get_stream(name).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(err) => {
                return Err(match err.kind() {
                    GetStreamErrorKind::JetStream(ref inner)
                        if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        Untold::Nowhere(format!("there is no stream {name}").into())
                    }
                    _ => unavailable(self.reason(silent(err))),
                });
            }
        };
        if !info.config.subjects.contains(&self.names.revoke) {
            let text = format!("the stream {name} does not hold {}", self.names.revoke);
            return Err(Untold::Nowhere(text.into()));
        }
        Ok(info)
    }

    /// That the server does not let this user read the stream.
    fn forbidden(&self) -> Untold {
        let denied = self.connection.denied().map(Failure::from);
        Untold::Nowhere(denied.unwrap_or_else(|| NO_ANSWER.into()))
    }
}

impl Revocations {
    /// The next ones, as they come. After an error all of them are told again from the beginning, for what
    /// was said meanwhile has gone by; and so after each new connection. Only what stands before a message that the
    /// client could not read is told no more while the stream is the same.
    ///
    /// # Errors
    /// [`Untold`], to be called again: it waits by itself before it looks anew.
    ///
    /// # Cancel safety
    /// Not cancel safe: what was told last may be lost. Drop the reader then.
    pub async fn next(&mut self) -> Result<Told, Untold> {
        if let Some(pause) = self.pause.take() {
            let generation = self.bus.connection.generation();
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => {}
                () = self.bus.connection.renewed(generation) => {}
            }
        }
        let bus = self.bus.clone();
        let told = tokio::select! {
            told = self.try_next() => told,
            () = bus.connection.refused(&bus.names.revoked_stream) => Err(bus.forbidden()),
        };
        if let Err(err) = &told {
            if self.pull.take().is_some() && matches!(err, Untold::Unavailable(_)) {
                let times = match self.in_vain {
                    (at, times) if at == self.told => times,
                    _ => 0,
                };
                self.in_vain = (self.told, times + 1);
            }
            self.pause = Some(match err {
                Untold::Nowhere(_) => LOOK_AGAIN,
                Untold::Unavailable(_) => PAUSE,
            });
        }
        told
    }

    async fn try_next(&mut self) -> Result<Told, Untold> {
        let unavailable = |err: Failure| Untold::Unavailable(err);
        let Some(pull) = &mut self.pull else {
            return self.begin().await;
        };
        let next = pull.next(&self.bus);
        let first = match self.due {
            Some(_) => timeout(PATIENCE, next).await,
            None => Ok(next.await),
        };
        let first = first.map_err(|_| unavailable(NO_ANSWER.into()))?;
        let (mut last, _) = first.map_err(unavailable)?;
        let mut revocations = Vec::new();
        loop {
            let seq = last.seq;
            revocations.push(kept(last));
            let more = match revocations.len() < AT_ONCE {
                true => pull.ready().map_err(unavailable)?,
                false => None,
            };
            match more {
                Some((more, _)) => last = more,
                None => {
                    self.told = seq;
                    let whole = self.due.take_if(|due| *due <= seq).is_some();
                    return Ok(Told { revocations, whole });
                }
            }
        }
    }

    /// Begins to follow the stream; with what must be told before, where that cannot be followed.
    async fn begin(&mut self) -> Result<Told, Untold> {
        let bus = self.bus.clone();
        let stream = &bus.names.revoked_stream;
        let unavailable = |err: Failure| Untold::Unavailable(bus.reason(err));
        // Of the leader first: a consumer may be with a replica that is behind.
        let info = bus.revocations_stream().await?;
        let last = (info.state.messages > 0).then_some(info.state.last_sequence);
        let created = info.created.unix_timestamp_nanos();
        let (known, begins) = self.begins;
        if created != known || info.state.last_sequence + 1 < begins {
            self.begins = (created, 1);
            self.in_vain = (0, 0);
        }
        let (_, mut from) = self.begins;
        let mut revocations = Vec::new();
        let (at, times) = self.in_vain;
        let singly = times >= IN_VAIN && last.is_some_and(|last| last > at);
        if singly {
            let found = bus.one_by_one(stream, at + 1, AT_ONCE).await;
            let found = found.map_err(unavailable)?;
            tracing::warn!(
                after = at,
                messages = found.len(),
                "the connection to NATS was lost here more than once: revocations are read one by one, as one of them may have headers that are none"
            );
            from = found.last().map_or(at, |message| message.seq) + 1;
            revocations.extend(found.into_iter().map(kept));
        }
        let pull = Pull::open(&bus, stream, from).await;
        self.pull = Some(pull.map_err(unavailable)?);
        // Only now, for whatever fails before drops what was read.
        self.begins.1 = from;
        if singly {
            self.in_vain = (0, 0);
        }
        self.told = from - 1;
        self.due = last.filter(|last| *last >= from);
        let whole = self.due.is_none();
        Ok(Told { revocations, whole })
    }
}

/// What the producer holds a stream against that it finds.
fn limits(config: &Config) -> (usize, Duration, Duration, i64, i64) {
    let (age, window) = (config.max_age, config.duplicate_window);
    let (messages, bytes) = (config.max_messages, config.max_bytes);
    (config.num_replicas, age, window, messages, bytes)
}

fn kept(message: Stored) -> KeptRevocation {
    let since = u64::try_from(message.at_ns).unwrap_or(0);
    KeptRevocation {
        at: SystemTime::UNIX_EPOCH + Duration::from_nanos(since),
        body: message.payload,
    }
}
