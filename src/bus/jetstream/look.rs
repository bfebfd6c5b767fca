//! What the stream's leader knows: how far the producer has come, and what readers may see.

use std::collections::HashMap;

use async_nats::jetstream::{ErrorCode, stream::RawMessageErrorKind};

use super::{
    super::{Head, ReadError},
    Failure, JetStreamBus, Role,
    record::{Kind, Record, Stored},
    stream::silent,
};
use crate::position::{Check, Checkpoint, Epoch, Position};

/// Looks at the stream until two answers belong together.
const TRIES: usize = 5;

/// Nothing is wrong with a bus but that no producer has been there yet.
#[derive(Debug, thiserror::Error)]
pub enum OnlyNew {
    /// There is a stream, and nothing in it.
    #[error("no change producer has declared an epoch on this bus yet; start `rowcast produce`")]
    NoProducer,
    /// There is no stream.
    #[error(
        "the stream {0} does not exist on the NATS server; start `rowcast produce`, or create it \
         from nats/stream.json"
    )]
    NoStream(String),
}

/// The stream at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    /// When the stream was created, in Unix nanoseconds.
    pub created_ns: i128,
    /// The first sequence still there; one after the last where nothing is.
    pub stream_first: u64,
    /// The last sequence given.
    pub stream_last: u64,
    /// The epoch declared last.
    pub epoch: Epoch,
    /// Where it was declared; 0 where that is not retained any more.
    pub begins: u64,
    /// How far the source has been read.
    pub checkpoint: Option<Checkpoint>,
    /// The last offset that readers may see: none of a transaction whose last part is missing.
    pub visible: u64,
    /// Of the message there, where it was seen.
    pub check: Option<Check>,
    /// The topics' fingerprints, as declared.
    pub topics: HashMap<String, String>,
}

impl Look {
    /// The first offset of the epoch that is retained.
    pub fn first(&self) -> u64 {
        self.stream_first.max(self.begins + 1)
    }

    /// As the bus's head.
    pub fn head(&self) -> Head {
        Head {
            position: Position::new(self.epoch.clone(), self.visible).checked(self.check),
            stored: self.stream_last,
            first: self.first(),
            checkpoint: self.checkpoint.clone(),
        }
    }
}

/// The sequences that the stream holds, and since when it exists.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// As [`Look::created_ns`].
    pub created_ns: i128,
    /// As [`Look::stream_first`].
    pub first: u64,
    /// As [`Look::stream_last`].
    pub last: u64,
}

impl JetStreamBus {
    /// Whether an error says only that no producer has been on this bus yet, which a server in
    /// order says, too. Every other one says that something is wrong or out of reach.
    pub fn is_only_new(err: &ReadError) -> bool {
        match err {
            ReadError::Unavailable(err) => err.is::<OnlyNew>(),
            _ => false,
        }
    }

    /// The epoch as the producer's last record names it, for which nothing else need be readable;
    /// none where it cannot be told.
    pub(super) async fn declared_epoch(&self) -> Option<Epoch> {
        if self.role != Role::Command {
            return None;
        }
        let client = self.connection.client().ok()?;
        let (stream, state) = (&self.names.stream, &self.names.state);
        let subject = format!("$JS.API.DIRECT.GET.{stream}.{state}");
        let answer = client.request(subject, "".into()).await.ok()?;
        let record: Record = serde_json::from_slice(&answer.payload).ok()?;
        Epoch::parse(&record.epoch).ok()
    }

    /// Asks the leader for the newest state.
    pub(super) async fn look(&self) -> Result<Look, ReadError> {
        self.ready().await.map_err(ReadError::Unavailable)?;
        let generation = self.connection.generation();
        let looked = tokio::select! {
            looked = self.try_look() => looked,
            () = self.connection.lost(generation) => Err("the connection to NATS was lost".into()),
        };
        match looked {
            Ok(Some(look)) => {
                self.know(&look);
                Ok(look)
            }
            Ok(None) => Err(ReadError::Unavailable(OnlyNew::NoProducer.into())),
            Err(err) => {
                // Perhaps the stream is gone: the next look finds out.
                self.unready().await;
                Err(ReadError::Unavailable(err))
            }
        }
    }

    async fn try_look(&self) -> Result<Option<Look>, Failure> {
        for _ in 0..TRIES {
            let Some(change) = self.last_of(&self.names.changes).await? else {
                return Ok(None);
            };
            let state = self.last_of(&self.names.state).await?;
            let extent = self.extent().await?;
            let epoch = change.epoch().ok_or("a change without its epoch")?;
            let record = state.as_ref().and_then(Stored::record);
            if record.as_ref().is_some_and(|r| r.epoch != epoch.as_str()) {
                // An epoch was declared between the two answers.
                continue;
            }
            let begins = match (&record, &state) {
                (Some(record), Some(state)) if record.kind == Kind::Epoch => state.seq,
                (Some(record), _) => record.begins.unwrap_or(0),
                _ => 0,
            };
            // What readers may see ends before a transaction whose last part is missing.
            let (visible, checkpoint) = match change.more() {
                None => (extent.last, change.checkpoint()),
                Some(before) => {
                    let begun = self.next_of(&self.names.changes, before + 1).await?;
                    let begun = begun.map_or(before + 1, |message| message.seq);
                    let earlier = match before {
                        0 => None,
                        before => self.at(before).await?,
                    };
                    let earlier = earlier.and_then(|message| message.checkpoint());
                    (begun.max(begins + 1) - 1, earlier)
                }
            };
            let newest = [Some(&change), state.as_ref()].into_iter().flatten();
            let newest = newest.filter(|message| message.seq == visible);
            let newest = newest.map(|message| message.position(&epoch)).next();
            return Ok(Some(Look {
                created_ns: extent.created_ns,
                stream_first: extent.first,
                stream_last: extent.last,
                epoch,
                begins,
                checkpoint,
                visible,
                check: newest.and_then(|position| position.check),
                topics: record.map_or_else(HashMap::new, |r| r.topics.into_iter().collect()),
            }));
        }
        Err("epochs are being declared one after another".into())
    }

    /// The last message of a subject, from the leader.
    pub(super) async fn last_of(&self, subject: &str) -> Result<Option<Stored>, Failure> {
        let jetstream = self.connection.jetstream()?;
        let stream = jetstream.get_stream_no_info(&self.names.stream).await;
        let stream = stream.map_err(silent)?;
        let found = stream.get_last_raw_message_by_subject(subject).await;
        found_or_none(found.map_err(|err| (no_message(&err.kind()), silent(err))))
    }

    /// The first message of a subject at or after a sequence.
    async fn next_of(&self, subject: &str, from: u64) -> Result<Option<Stored>, Failure> {
        let jetstream = self.connection.jetstream()?;
        let stream = jetstream.get_stream_no_info(&self.names.stream).await;
        let stream = stream.map_err(silent)?;
        let found = stream
            .raw_message_builder()
            .sequence(from)
            .next_by_subject(subject)
            .send()
            .await;
        found_or_none(found.map_err(|err| (no_message(&err.kind()), silent(err))))
    }

    /// What the stream holds.
    pub(super) async fn extent(&self) -> Result<Extent, Failure> {
        let jetstream = self.connection.jetstream()?;
        let stream = jetstream.get_stream_no_info(&self.names.stream).await;
        let stream = stream.map_err(silent)?;
        let info = stream.get_info().await.map_err(silent)?;
        Ok(Extent {
            created_ns: info.created.unix_timestamp_nanos(),
            first: info.state.first_sequence.max(1),
            last: info.state.last_sequence,
        })
    }
}

fn no_message(kind: &RawMessageErrorKind) -> bool {
    match kind {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(err) => err.error_code() == ErrorCode::NO_MESSAGE_FOUND,
        _ => false,
    }
}

fn found_or_none(
    found: Result<async_nats::jetstream::message::StreamMessage, (bool, Failure)>,
) -> Result<Option<Stored>, Failure> {
    match found {
        Ok(message) => Ok(Some(message.into())),
        Err((true, _)) => Ok(None),
        Err((false, err)) => Err(err),
    }
}
