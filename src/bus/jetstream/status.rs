//! How the processes on one NATS are: whoever asks on `<prefix>.control.status` is answered by all
//! of them, each for itself.

use std::{pin::Pin, time::Duration};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::{Failure, JetStreamBus};
use crate::status::Report;

/// What follows `control.` in the subject.
const STATUS: &str = "status";

/// The most bytes of an answer; three stages with all their texts have less.
const MAX_REPORT_BYTES: usize = 16 * 1024;

/// The pause before requests are listened to again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

type Answers = Pin<Box<dyn Stream<Item = Report> + Send>>;

impl JetStreamBus {
    /// Answers whoever asks how this process is, for ever, over reconnections.
    ///
    /// # Cancel safety
    /// Cancel safe: an answer may be lost, and is asked for again.
    pub async fn tell_status(&self, report: impl Fn() -> Report + Send) {
        loop {
            if let Err(err) = self.tell_until_lost(&report).await {
                tracing::debug!(error = %err, "nobody can ask how this process is");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn tell_until_lost(&self, report: &(impl Fn() -> Report + Send)) -> Result<(), Failure> {
        let client = self.connection.client()?;
        let mut asked = client.subscribe(self.status_subject()).await?;
        while let Some(request) = asked.next().await {
            if let Some(inbox) = request.reply.filter(|inbox| self.may_answer(inbox)) {
                let answer = serde_json::to_vec(&report())?;
                // Who asks chooses the inbox, which may be no subject at all; and where the client has ended
                // nobody asks any more.
                let _ = client.publish(inbox, answer.into()).await;
            }
        }
        Ok(())
    }

    /// Whether an answer may be sent there. The server lets us answer wherever we are asked to:
    /// who may not write into the stream must not have us do it.
    pub fn may_answer(&self, inbox: &str) -> bool {
        let ours = inbox.strip_prefix(&*self.names.prefix);
        !inbox.starts_with('$') && !ours.is_some_and(|rest| rest.starts_with('.'))
    }

    fn status_subject(&self) -> String {
        format!("{}.control.{STATUS}", self.names.prefix)
    }

    /// As [`super::super::Bus::reports`].
    pub(super) fn asked_status(&self) -> impl Stream<Item = Report> + Send + Unpin + 'static {
        let bus = self.clone();
        let answers = async move {
            match bus.ask_status().await {
                Ok(answers) => Box::pin(answers.filter_map(understood)) as Answers,
                Err(err) => {
                    tracing::debug!(error = %err, "the other processes cannot be asked");
                    Box::pin(stream::empty())
                }
            }
        };
        Box::pin(stream::once(answers).flatten())
    }

    async fn ask_status(&self) -> Result<Subscriber, Failure> {
        let client = self.connection.client()?;
        // Always the same inbox: were the answers refused, the server would say so once and not
        // with every request.
        let inbox = self.inbox.get_or_init(|| client.new_inbox()).clone();
        let answers = client.subscribe(inbox.clone()).await?;
        let sent = client.publish_with_reply(self.status_subject(), inbox, Bytes::new());
        sent.await?;
        Ok(answers)
    }
}

async fn understood(answer: async_nats::Message) -> Option<Report> {
    let fits = answer.payload.len() <= MAX_REPORT_BYTES;
    fits.then(|| serde_json::from_slice(&answer.payload).ok())?
}
