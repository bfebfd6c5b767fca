//! Marks and their answers, which pass beside the stream: `<prefix>.control.mark`, kept by nobody.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};

use super::{JetStreamBus, stream::silent};
use crate::position::Position;

/// What follows `control.` in the subject.
const MARK: &str = "mark";

/// The pause before the answers are listened to again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// An answer: all that was in the log before the mark stands at or before the cursor.
#[derive(Serialize, Deserialize)]
struct Answer {
    mark: String,
    cursor: String,
}

type Heard = Pin<Box<dyn Stream<Item = (String, Bytes)> + Send>>;

impl JetStreamBus {
    /// Tells that what these marks stand for is on the bus.
    pub(super) async fn tell_marks(&self, marks: &[Arc<str>], position: &Position) {
        for mark in marks {
            let answer = Answer {
                mark: mark.to_string(),
                cursor: position.to_string(),
            };
            let text = serde_json::to_string(&answer).expect("two texts always have a JSON form");
            let sent = self.publish_control(MARK, text.into()).await;
            if let Err(err) = sent.map_err(silent) {
                tracing::debug!(error = %err, "a mark could not be answered");
            }
        }
    }

    /// As [`super::super::Bus::answer`]: only who knows what the stream holds of his may say so.
    pub(super) async fn answer_marks(&self, marks: &[Arc<str>]) -> bool {
        let writer = self.writer.lock().await;
        let generation = self.connection.generation();
        let position = writer.as_ref().and_then(|claim| claim.certain(generation));
        let Some(position) = position else {
            return false;
        };
        self.tell_marks(marks, &position).await;
        true
    }

    /// As [`super::super::Bus::marks`], over reconnections.
    pub(super) fn answered_marks(
        &self,
    ) -> impl Stream<Item = (Arc<str>, Position)> + Send + Unpin + 'static {
        let state: (JetStreamBus, Option<Heard>) = (self.clone(), None);
        Box::pin(futures_util::stream::unfold(
            state,
            |(bus, mut heard)| async move {
                loop {
                    let next = match &mut heard {
                        Some(heard) => heard.next().await,
                        None => None,
                    };
                    match next {
                        Some((suffix, body)) => {
                            if let Some(answer) = read(&suffix, &body) {
                                return Some((answer, (bus, heard)));
                            }
                        }
                        None => {
                            heard = bus
                                .control()
                                .await
                                .ok()
                                .map(|heard| Box::pin(heard) as Heard);
                            if heard.is_none() {
                                tokio::time::sleep(RETRY_PAUSE).await;
                            }
                        }
                    }
                }
            },
        ))
    }
}

fn read(suffix: &str, body: &[u8]) -> Option<(Arc<str>, Position)> {
    let answer: Answer = (suffix == MARK).then(|| serde_json::from_slice(body).ok())??;
    Some((answer.mark.into(), answer.cursor.parse().ok()?))
}
