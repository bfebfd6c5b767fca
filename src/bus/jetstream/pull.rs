//! A consumer of this process's own, pulled by hand: the client's ordered consumer begins at the
//! first message of all when it is made again before it has seen one.

use std::time::Duration;

use async_nats::{
    Client, Message, Subscriber,
    jetstream::consumer::{AckPolicy, DeliverPolicy, pull::Config},
};
use futures_util::{FutureExt, StreamExt};

use super::{
    Failure, JetStreamBus,
    denied::NO_ANSWER,
    record::{Stored, random_name, subject},
    stream::silent,
};

/// Messages asked for at once.
const BATCH: usize = 500;

/// How long one request stands.
const EXPIRES: Duration = Duration::from_secs(30);

/// How often the server shows that it lives while there is nothing to tell.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Silence after which the server is asked anew: two heartbeats and some.
const SILENCE: Duration = Duration::from_millis(2500);

/// When the server forgets the consumer of a process that has gone.
const FORGET: Duration = Duration::from_secs(30);

/// Messages of a stream from one place on.
#[derive(Debug)]
pub struct Pull {
    client: Client,
    answers: Subscriber,
    inbox: String,
    stream: String,
    /// The consumer's.
    name: String,
    subject: String,
    /// Messages asked for and not come yet.
    due: usize,
    /// The connection over which it was made.
    generation: u64,
}

/// A message, and how many follow it in the stream.
pub type Pulled = (Stored, u64);

impl Pull {
    /// Follows a stream from `from` on.
    pub async fn open(bus: &JetStreamBus, stream: &str, from: u64) -> Result<Self, Failure> {
        let jetstream = bus.connection.jetstream()?;
        let generation = bus.connection.generation();
        let client = bus.connection.client()?;
        let name = random_name("gateway-");
        let config = Config {
            name: Some(name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: from,
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGET,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        let made = jetstream.create_consumer_on_stream(config, stream);
        made.await.map_err(silent)?;
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await?;
        Ok(Self {
            client,
            answers,
            inbox,
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            stream: stream.to_owned(),
            name,
            due: 0,
            generation,
        })
    }

    /// The next message, however long it takes.
    pub async fn next(&mut self, bus: &JetStreamBus) -> Result<Pulled, Failure> {
        loop {
            self.ask().await?;
            let answer = tokio::select! {
                biased;
                answer = tokio::time::timeout(SILENCE, self.answers.next()) => answer,
                () = bus.connection.renewed(self.generation) => {
                    return Err("the connection is a new one".into());
                }
            };
            let answer = answer.map_err(|_| NO_ANSWER)?;
            let answer = answer.ok_or("the connection was closed")?;
            if let Some(pulled) = self.understand(answer)? {
                return Ok(pulled);
            }
        }
    }

    /// A message that has come already.
    pub fn ready(&mut self) -> Result<Option<Pulled>, Failure> {
        while let Some(Some(answer)) = self.answers.next().now_or_never() {
            if let Some(pulled) = self.understand(answer)? {
                return Ok(Some(pulled));
            }
        }
        Ok(None)
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        if self.due > BATCH / 2 {
            return Ok(());
        }
        let ask = serde_json::json!({
            "batch": BATCH,
            "expires": nanos(EXPIRES),
            "idle_heartbeat": nanos(HEARTBEAT),
        });
        self.client
            .publish_with_reply(
                self.subject.clone(),
                self.inbox.clone(),
                ask.to_string().into(),
            )
            .await?;
        self.due += BATCH;
        Ok(())
    }

    /// A message, or what the server says instead.
    fn understand(&mut self, answer: Message) -> Result<Option<Pulled>, Failure> {
        // What has a place is a message, whatever status its publisher may have written above it.
        let reply = answer.reply.as_deref();
        let place = reply.and_then(|reply| place(reply, &self.stream, &self.name));
        if let Some((seq, at_ns, pending)) = place {
            self.due = self.due.saturating_sub(1);
            let stored = Stored {
                seq,
                at_ns,
                subject: subject(&answer.subject),
                headers: answer.headers.unwrap_or_default(),
                payload: answer.payload,
            };
            return Ok(Some((stored, pending)));
        }
        if *answer.subject != *self.inbox {
            // Somebody had it sent here: it is neither of this consumer nor an answer.
            return Ok(None);
        }
        match answer.status.map(|status| status.as_u16()) {
            None => Ok(None),
            Some(100) => Ok(None),
            // A request has stood long enough; what it did not get is not due any more.
            Some(408) => {
                let left = answer
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get("Nats-Pending-Messages"));
                let left = left.and_then(|left| left.as_str().parse().ok());
                self.due = self.due.saturating_sub(left.unwrap_or(BATCH));
                Ok(None)
            }
            Some(status) => {
                let text = answer.description.unwrap_or_default();
                Err(format!("the NATS server answers {status} {text}").into())
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sequence, time in Unix nanoseconds and messages that follow, from the subject by which a
/// message of this stream and consumer would be acknowledged (NATS ADR-15).
fn place(reply: &str, stream: &str, consumer: &str) -> Option<(u64, i128, u64)> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    // Stream, consumer, deliveries, sequence, the consumer's, time, pending; before them in the
    // longer form the domain and the account.
    let tokens = match tokens.len() {
        7 => &tokens[..],
        9.. => &tokens[2..],
        _ => return None,
    };
    if tokens[..2] != [stream, consumer] {
        return None;
    }
    Some((
        tokens[3].parse().ok()?,
        tokens[5].parse().ok()?,
        tokens[6].parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_place_are_read() {
        let short = "$JS.ACK.S.C.1.17.3.1790000000000000001.4";
        let place = |reply| place(reply, "S", "C");
        assert_eq!(place(short), Some((17, 1_790_000_000_000_000_001, 4)));
        let long = "$JS.ACK._.hash.S.C.1.17.3.1790000000000000001.4.tok";
        assert_eq!(place(long), Some((17, 1_790_000_000_000_000_001, 4)));
        assert_eq!(place("_INBOX.x"), None);
        // Of another stream, and of another consumer.
        assert_eq!(place("$JS.ACK.T.C.1.17.3.1790000000000000001.4"), None);
        assert_eq!(
            place("$JS.ACK._.hash.S.D.1.17.3.1790000000000000001.4"),
            None
        );
    }
}
