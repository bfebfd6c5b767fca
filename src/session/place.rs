//! What a session waits for, and what it does then: while it stands in the lane, whatever comes up
//! has it take its place back first.

use std::future::poll_fn;

use futures_util::future::OptionFuture;
use tokio::sync::watch;

use super::{
    Answer, End, Session,
    lane::Stand,
    wire::{Data, Inbound},
};
use crate::protocol::CloseReason;

/// What a session was woken by.
pub(super) enum Woken {
    /// The process stops.
    Stop,
    /// What was granted is revoked.
    Revoked,
    /// A query was read.
    Answer(Answer),
    /// A clock.
    Due,
    /// The client.
    Said(Inbound),
    /// The lane has given the place back.
    Returned,
    /// There is more in the ring.
    Grown,
}

impl Session {
    /// Waits until there is something to do. Cancel safe.
    pub(super) async fn wait(&mut self, ring: &mut watch::Receiver<u64>) -> Woken {
        // The lanes wake everybody behind this look who is to see it.
        if self.gateway.stop.is_cancelled() {
            return Woken::Stop;
        }
        let due = self.due();
        // As much as a socket costs while it waits is here: what few have is boxed, what excludes each other
        // is one future, and what needs no room between two polls has none.
        let seat = self.seat.as_ref().filter(|_| self.stands);
        let onward = async {
            match seat {
                Some(seat) => {
                    seat.returned().await;
                    Some(Woken::Returned)
                }
                None => ring.changed().await.ok().map(|()| Woken::Grown),
            }
        };
        let stops = &self.gateway.stop;
        let revoked = self.rights.revoked();
        let revoked = OptionFuture::from(revoked.map(|revoked| Box::pin(revoked.cancelled())));
        let (asks, wire) = (&mut self.asks, &mut self.wire);
        tokio::select! {
            biased;
            Some(()) = revoked => Woken::Revoked,
            // Before what the client sends: a flood of it must not keep answers waiting.
            answer = poll_fn(|context| asks.poll_next(context)) => Woken::Answer(answer),
            () = tokio::time::sleep_until(due) => Woken::Due,
            inbound = poll_fn(|context| wire.poll_recv(context)) => Woken::Said(inbound),
            Some(woken) = onward => match stops.is_cancelled() {
                true => Woken::Stop,
                false => woken,
            },
        }
    }

    /// Does what comes up, and then goes on along the stream; for as long as queries are under way, whatever
    /// comes up next as well.
    pub(super) async fn attend(
        &mut self,
        mut woken: Woken,
        ring: &mut watch::Receiver<u64>,
    ) -> Result<(), End> {
        loop {
            self.handle(woken).await?;
            self.settle(ring).await?;
            if self.asks.are_done() {
                return Ok(());
            }
            woken = self.wait(ring).await;
        }
    }

    /// Goes on along the stream, and leaves it to the lane from there if it can.
    pub(super) async fn settle(&mut self, ring: &mut watch::Receiver<u64>) -> Result<(), End> {
        if self.stands {
            return Ok(());
        }
        ring.borrow_and_update();
        self.stand_at_once();
        if !self.stands {
            self.entitled_to(None).await?;
            self.stand();
        }
        Ok(())
    }

    /// Nothing is to be asked of whose rights have no end, nor sent to who is up to date: so it is with nearly
    /// everybody who has just come.
    pub(super) fn stand_at_once(&mut self) {
        if self.rights.are_endless() {
            self.stand();
        }
    }

    async fn handle(&mut self, woken: Woken) -> Result<(), End> {
        if let Woken::Said(Inbound::Pong) = woken {
            // It needs nothing, and least of all the place in the lane.
            self.clocks.pong = None;
            return Ok(());
        }
        self.take_place()?;
        // Whatever came: nothing more is done for who has no right to it.
        self.entitled_to(Some(woken)).await
    }

    /// Does what comes up.
    pub(super) async fn act(&mut self, woken: Woken) -> Result<(), End> {
        match woken {
            Woken::Stop => Err(self.leave().await),
            Woken::Answer(answer) => self.answered(answer).await,
            Woken::Due => self.tick().await,
            Woken::Said(inbound) => self.inbound(inbound).await,
            Woken::Returned | Woken::Grown | Woken::Revoked => Ok(()),
        }
    }

    async fn inbound(&mut self, inbound: Inbound) -> Result<(), End> {
        // Whatever came, the client is there.
        self.clocks.pong = None;
        match self.wire.attend(inbound).await? {
            Some(Data::Text(text)) => self.request(&text).await,
            Some(Data::Binary(_)) => Err(End::Close(CloseReason::Binary)),
            None => Ok(()),
        }
    }

    /// Has the lane go on, where nothing but the stream is left to be sent.
    fn stand(&mut self) {
        let waits =
            !self.asks.are_done() || self.silent || self.is_owed_pages() || self.confines.untold;
        let (Some(seq), false) = (self.seq, waits) else {
            return;
        };
        let (lanes, wire) = (&self.gateway.lanes, &self.wire);
        if !wire.is_idle() || (wire.tcp().is_none() && !lanes.look_up()) {
            return;
        }
        let seat = self
            .seat
            .get_or_insert_with(|| lanes.seat(wire.tcp().cloned(), wire.agreed()));
        let stand = Stand {
            seq,
            cursor: self.cursor.clone(),
            interests: std::mem::take(&mut self.interests),
            seen: std::mem::take(&mut self.seen),
            unsent: bytes::Bytes::new(),
            broken: false,
        };
        match seat.stand(stand) {
            None => self.stands = true,
            // There is more already.
            Some(stand) => self.go_on_from(stand),
        }
    }

    /// Takes the place back from the lane, where it has it.
    fn take_place(&mut self) -> Result<(), End> {
        if !std::mem::take(&mut self.stands) {
            return Ok(());
        }
        let stand = self.seat.as_ref().and_then(|seat| seat.take());
        if let Some(mut stand) = stand {
            let broken = stand.broken;
            self.wire.go_on(std::mem::take(&mut stand.unsent));
            self.go_on_from(stand);
            if broken {
                return Err(End::Gone);
            }
        }
        Ok(())
    }

    fn go_on_from(&mut self, stand: Stand) {
        self.seq = Some(stand.seq);
        self.cursor = stand.cursor;
        self.interests = stand.interests;
        self.seen = stand.seen;
    }
}
