//! What a session waits for, and what it does then: while it stands in the lane, whatever comes up
//! has it take its place back first.

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
        let due = self.due();
        let (seat, stands) = (&self.seat, self.stands);
        let returned = async {
            match seat {
                Some(seat) => seat.returned().await,
                None => std::future::pending().await,
            }
        };
        let revoked = self.rights.revoked();
        let is_granted = revoked.is_some();
        let revoked = async {
            match revoked {
                Some(revoked) => revoked.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.gateway.stop.cancelled() => Woken::Stop,
            () = revoked, if is_granted => Woken::Revoked,
            // Before what the client sends: a flood of it must not keep answers waiting.
            answer = self.running.next() => Woken::Answer(answer),
            () = tokio::time::sleep_until(due) => Woken::Due,
            inbound = self.wire.recv() => Woken::Said(inbound),
            () = returned, if stands => Woken::Returned,
            Ok(()) = ring.changed(), if !stands => Woken::Grown,
        }
    }

    pub(super) async fn handle(&mut self, woken: Woken) -> Result<(), End> {
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
    pub(super) fn stand(&mut self) {
        let busy = !(self.running.is_empty() && self.queued.is_empty() && self.held.is_empty());
        let waits = busy || self.silent || self.is_owed_pages() || !self.confines.drawn;
        let (Some(seq), false) = (self.seq, waits) else {
            return;
        };
        let Some((stream, agreed)) = self.wire.idle_stream() else {
            return;
        };
        let lanes = &self.gateway.lanes;
        let seat = self
            .seat
            .get_or_insert_with(|| lanes.seat(stream.clone(), agreed));
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
