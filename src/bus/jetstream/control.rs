//! What passes over NATS beside the stream: applications' own events on their way in, and the
//! control subjects, which nobody keeps.

use std::collections::HashSet;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::{
    super::{PublishError, Published},
    Failure, JetStreamBus,
    batch::{Outgoing, Refused},
    outgoing::{self, HEADER_BYTES},
    record::{ID, id_check},
};
use crate::{
    event::{Batch, MAX_EVENT_BYTES},
    position::Position,
};

impl JetStreamBus {
    /// Stores applications' events. Several are stored in one piece, unless one of them was
    /// known already: then each on its own.
    pub(super) async fn publish_applications(
        &self,
        batch: Batch,
    ) -> Result<Published, PublishError> {
        let unavailable = |err: Failure| PublishError::Unavailable(err);
        let ready = self.ready().await.map_err(unavailable)?;
        let max_bytes = MAX_EVENT_BYTES.min(ready.max_payload.saturating_sub(HEADER_BYTES));
        let mut ids = HashSet::new();
        let mut messages = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            let payload = event.to_json();
            if payload.len() > max_bytes {
                return Err(PublishError::TooLarge {
                    bytes: payload.len(),
                });
            }
            if ids.insert(&event.id) {
                messages.push(outgoing::application(&self.names, event, payload));
            }
        }
        let last = messages.last().and_then(|last| last.headers.get(ID));
        let check = last.map(|id| id_check(id.as_str()));
        let permit = self.applications.acquire().await;
        let permit = permit.map_err(|err| unavailable(err.into()))?;
        let stored = self.store_applications(messages).await;
        drop(permit);
        let (offset, stored) = match stored {
            Ok(stored) => stored,
            Err(err) => {
                self.unready().await;
                return Err(unavailable(err));
            }
        };
        let epoch = match self.known() {
            Some(known) => known.epoch,
            // Who only publishes may read no changes, only what is declared.
            None => match self.declared_epoch().await {
                Some(epoch) => epoch,
                None => {
                    let looked = self.look().await;
                    looked.map_err(|err| unavailable(err.into()))?.epoch
                }
            },
        };
        Ok(Published {
            position: Position::new(epoch, offset).checked(check),
            stored,
        })
    }

    /// Returns the sequence of the last, and how many were new.
    async fn store_applications(&self, messages: Vec<Outgoing>) -> Result<(u64, usize), Failure> {
        let count = messages.len();
        if count > 1 && count <= super::batch::MAX_MESSAGES {
            match self.store(messages.clone(), None).await {
                Ok(ack) => return Ok((ack.seq, count)),
                Err(Refused::Unknown(err)) => return Err(err),
                Err(Refused::Known | Refused::Mismatch) => {}
            }
        }
        let (mut last, mut stored) = (0, 0);
        for message in messages {
            match self.store(vec![message], None).await {
                Ok(ack) => {
                    last = ack.seq;
                    stored += usize::from(!ack.duplicate);
                }
                Err(Refused::Unknown(err)) => return Err(err),
                Err(Refused::Known | Refused::Mismatch) => {
                    return Err("the stream refuses the event".into());
                }
            }
        }
        Ok((last, stored))
    }

    /// Sends to `<prefix>.control.<suffix>`, to whoever listens now.
    ///
    /// # Errors
    /// Where there is no connection. Whether anybody heard it is never known.
    pub async fn publish_control(&self, suffix: &str, body: Bytes) -> Result<(), Failure> {
        let client = self.connection.client()?;
        let subject = format!("{}.control.{suffix}", self.names.prefix);
        client.publish(subject, body).await?;
        Ok(())
    }

    /// What is sent to `<prefix>.control.>` from now on, each with what follows `control.` in
    /// its subject. It goes on over reconnections; what was sent meanwhile is lost.
    ///
    /// # Errors
    /// Where there is no connection yet.
    pub async fn control(
        &self,
    ) -> Result<impl Stream<Item = (String, Bytes)> + Send + Unpin + 'static, Failure> {
        let client = self.connection.client()?;
        let begin = format!("{}.control.", self.names.prefix);
        let messages = client.subscribe(format!("{begin}>")).await?;
        client.flush().await?;
        Ok(messages.map(move |message| {
            let subject = message.subject.as_str();
            let suffix = subject.strip_prefix(&begin).unwrap_or(subject).to_owned();
            (suffix, message.payload)
        }))
    }

    /// What is sent to `<prefix>.control.<suffix>` alone, as [`Self::control`].
    ///
    /// # Errors
    /// Where there is no connection yet.
    pub async fn control_on(
        &self,
        suffix: &str,
    ) -> Result<impl Stream<Item = Bytes> + Send + Unpin + 'static, Failure> {
        let client = self.connection.client()?;
        let subject = format!("{}.control.{suffix}", self.names.prefix);
        let messages = client.subscribe(subject).await?;
        client.flush().await?;
        Ok(messages.map(|message| message.payload))
    }
}
