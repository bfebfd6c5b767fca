//! The clients of one connection, one after another. A client survives its server, but not everything that comes
//! from it: it panics over a carriage return in a header, tells nobody, and answers nothing any more. So whenever
//! one has ended there is another, for ever.

use std::{sync::Arc, time::Duration};

use async_nats::{ConnectOptions, Event, ServerAddr};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use super::connect::{Link, REQUEST_TIMEOUT, note, pause};

/// A client that has lived so long did not end for what the one before it ended for.
const CALM: Duration = Duration::from_secs(10);

/// However many have ended lately, the pause before another one is no longer than after so many attempts, 160 ms: each
/// ended for another message, and not for a server that is to be spared.
const SWIFT: usize = 4;

/// Makes the clients of one connection.
pub struct Lives {
    /// How each connects, but for who hears its events.
    pub options: ConnectOptions,
    /// Where to.
    pub servers: Vec<ServerAddr>,
    /// What is known of the connection. Whoever uses it holds the other end.
    pub told: watch::Sender<Link>,
}

/// Something that is dropped with the client.
pub type Ended = oneshot::Receiver<()>;

impl Lives {
    /// Makes a client, which begins to connect.
    pub async fn begin(self: &Arc<Self>) -> Result<Ended, async_nats::ConnectError> {
        let (alive, ended) = oneshot::channel::<()>();
        // Held by what holds the client, a client would hold itself.
        let lives = Arc::downgrade(self);
        let options = self.options.clone().event_callback(move |event: Event| {
            if let Some(lives) = lives.upgrade().filter(|_| !alive.is_closed()) {
                note(&lives.told, event);
            }
            std::future::ready(())
        });
        let client = async_nats::connect_with_options(&self.servers[..], options).await?;
        let mut context = async_nats::jetstream::new(client.clone());
        context.set_timeout(REQUEST_TIMEOUT);
        self.told
            .send_modify(|link| link.client = Some((client, context)));
        Ok(ended)
    }

    /// Makes another client whenever one has ended, until nobody uses the connection any more.
    pub async fn go_on(self: Arc<Self>, mut ended: Ended) {
        let mut short = 0;
        loop {
            let began = Instant::now();
            tokio::select! {
                () = self.told.closed() => return,
                // It is only ever dropped.
                _ = &mut ended => {}
            }
            if began.elapsed() > CALM {
                short = 0;
            }
            if short == 0 {
                tracing::warn!(
                    "the client of NATS has ended over what it was sent: another one is made, and messages that \
                     cannot be read are read by themselves"
                );
            }
            self.told.send_modify(|link| {
                link.connected = false;
                link.client = None;
                link.error = Some("the client has ended, and another one is made".to_owned());
            });
            ended = loop {
                short += 1;
                tokio::select! {
                    () = self.told.closed() => return,
                    () = tokio::time::sleep(pause(short.min(SWIFT))) => {}
                }
                match self.begin().await {
                    Ok(ended) => break ended,
                    Err(err) => self
                        .told
                        .send_modify(|link| link.error = Some(err.to_string())),
                }
            };
        }
    }
}
