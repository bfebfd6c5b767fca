//! The places of a session's replies in its stream: each is sent where everything that its read had seen has
//! been sent, and nothing that it had not.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Ask, End, Held, MAX_TRIES, Session, inexact::Inexact, stream::Walk};
use crate::{
    clock::now_ms,
    protocol::{self, Select},
    ring::{Cut, Place},
    sabotage::{self, Fault},
};

/// Bytes of rows in one part of an `all` reply.
const PART_BYTES: usize = 48 * 1024;

/// Where a held reply goes.
enum Placed {
    At(Place),
    Anywhere(Inexact),
    Wait,
    Again,
}

impl Session {
    /// Sends the held replies in the order of their places; returns whether it could.
    pub(super) async fn release(&mut self) -> Result<bool, End> {
        let now = Instant::now();
        if let [alone] = self.asks.held() {
            return match self.place(alone, now) {
                Placed::Wait => Ok(false),
                placed => self.release_alone(placed, now).await,
            };
        }
        let mut places = Vec::new();
        for held in self.asks.held() {
            match self.place(held, now) {
                Placed::Wait => return Ok(false),
                placed => places.push(placed),
            }
        }
        let held = self.asks.work().held.drain(..);
        let mut replies: Vec<(Placed, Held)> = places.into_iter().zip(held).collect();
        // Those without a place of their own go first, where the cursor stands.
        replies.sort_by_key(|(placed, _)| match placed {
            Placed::At(place) => place.seq,
            _ => 0,
        });
        // Not those of a reply that goes before them, or may never come.
        let pages = replies
            .iter()
            .filter(|(placed, held)| matches!(placed, Placed::At(_)) && held.ask.wants_page());
        let superseded: Vec<Arc<str>> =
            pages.map(|(_, held)| held.ask.topic.name.clone()).collect();
        for (placed, held) in replies {
            self.send_held(placed, held, &superseded, now).await?;
        }
        Ok(self.asks.held().is_empty())
    }

    /// The same for one, as nearly always.
    async fn release_alone(&mut self, placed: Placed, now: Instant) -> Result<bool, End> {
        if let Some(held) = self.asks.work().held.pop() {
            let name = held.ask.topic.name.clone();
            let superseded = match placed {
                Placed::At(_) if held.ask.wants_page() => std::slice::from_ref(&name),
                _ => &[],
            };
            self.send_held(placed, held, superseded, now).await?;
        }
        Ok(self.asks.held().is_empty())
    }

    /// Sends a held reply in its place, if that can be reached now.
    async fn send_held(
        &mut self,
        placed: Placed,
        held: Held,
        superseded: &[Arc<str>],
        now: Instant,
    ) -> Result<(), End> {
        match placed {
            Placed::Anywhere(why) => self.reply(held, Err(why)).await,
            Placed::Again | Placed::Wait => {
                self.ask_again(held.ask);
                Ok(())
            }
            // Sabotage: what the read had seen follows it.
            Placed::At(_) if sabotage::active(Fault::ReplyBeforePosition) => {
                self.reply(held, Ok(())).await
            }
            Placed::At(place) => match self.walk(Some(&place), superseded).await? {
                Walk::There => self.reply(held, Ok(())).await,
                // The client was told to reset on the way, which does not happen for ever.
                Walk::Beyond if held.ask.tries < MAX_TRIES => {
                    self.ask_again(held.ask);
                    Ok(())
                }
                Walk::Beyond => self.reply(held, Err(Inexact::Unseen)).await,
                Walk::Stuck if held.until > now => {
                    self.asks.work().held.push(held);
                    Ok(())
                }
                Walk::Stuck => self.reply(held, Err(Inexact::Late)).await,
            },
        }
    }

    fn place(&self, held: &Held, now: Instant) -> Placed {
        let Some(horizon) = &held.snapshot.horizon else {
            return Placed::Anywhere(Inexact::Unknown);
        };
        let (topic, settled) = (&held.ask.topic.name, held.snapshot.settled.as_ref());
        let ring = &self.gateway.ring;
        let cut = match ring.cut(topic, horizon, settled) {
            // What came before the ring began again is not known to have been seen.
            Cut::At(_) if ring.restarts() != held.ask.restarts => Cut::Fallen,
            cut => cut,
        };
        match cut {
            Cut::At(place) => Placed::At(place),
            Cut::Wait if held.until > now => Placed::Wait,
            Cut::Fallen if held.ask.tries < MAX_TRIES => Placed::Again,
            Cut::Wait => Placed::Anywhere(Inexact::Late),
            Cut::Fallen => Placed::Anywhere(Inexact::Unseen),
            Cut::Unknown => Placed::Anywhere(Inexact::Unknown),
        }
    }

    fn ask_again(&mut self, ask: Ask) {
        self.asks.work().queued.push_front(Ask {
            tries: ask.tries.saturating_add(1),
            ..ask
        });
    }

    async fn reply(&mut self, held: Held, exact: Result<(), Inexact>) -> Result<(), End> {
        let (ask, snapshot) = (held.ask, held.snapshot);
        let parts = matches!(ask.select, Select::All(_)).then_some(PART_BYTES);
        let name = &ask.topic.name;
        let frames = match (&snapshot.page, ask.fresh_page) {
            (Some(page), true) => {
                vec![protocol::page_push(
                    name,
                    &snapshot.rows,
                    page,
                    &self.cursor,
                    now_ms(),
                )]
            }
            (page, _) => protocol::reply(
                name,
                ask.rid.as_ref(),
                &snapshot.rows,
                page.as_ref(),
                Some(&self.cursor),
                (exact.is_ok(), parts),
            ),
        };
        if let (Err(why), false) = (exact, ask.fresh_page) {
            self.gateway.metrics.inexact(why.as_str());
        }
        if let Some(horizon) = snapshot.horizon.as_ref().filter(|_| ask.wants_page()) {
            self.seen.insert(name.clone(), horizon.clone());
        }
        self.wire.stand(&self.cursor);
        for frame in frames {
            if sabotage::active(Fault::ReplyToGroup) {
                let text = frame.clone();
                self.gateway.ring.append_page(name.clone(), None, |_| text);
            }
            self.wire.send(frame).await?;
        }
        Ok(())
    }
}
