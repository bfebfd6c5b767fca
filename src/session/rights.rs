//! Who is connected, and for how long: a token in the hello, a new one in its place, and the end of what
//! was granted, after which nothing is written any more. As long as it stands it is one of the connections that
//! he may have.

use std::time::SystemTime;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CONNECTIONS, End, Gateway, Session, entrance::crowded, place::Woken};
use crate::{
    auth::{Auth, Grant, Presented, Refused},
    callers::{Crowded, Share},
    identity::Identity,
    protocol::{self, CloseReason, ErrorCode, Failure, Rid, Token},
};

/// What a session was granted, and until when.
#[derive(Debug, Default)]
pub struct Rights {
    /// When it is over by itself.
    pub until: Option<Instant>,
    /// By which it can be revoked.
    grant: Option<Box<Grant>>,
    /// As which the session counts among his connections.
    pub share: Share,
    /// Who it is must be said in the hello.
    pub owes_token: bool,
}

impl Rights {
    /// What follows from being let in as somebody.
    pub fn of(auth: &Auth, identity: &Identity) -> Self {
        Self {
            until: identity.until().and_then(instant),
            grant: auth.grant(identity).map(Box::new),
            ..Self::default()
        }
    }

    /// Waits until they are over, and says why; for ever where nothing ends them.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn end(&self) -> Refused {
        over(self.until, self.revoked().cloned()).await
    }

    /// Told when it is revoked; never for who cannot be.
    pub fn revoked(&self) -> Option<&CancellationToken> {
        self.grant.as_ref().map(|grant| grant.over())
    }

    /// Whether there is nothing that could end them.
    pub fn are_endless(&self) -> bool {
        self.until.is_none() && self.grant.is_none()
    }

    /// Why they are over, if they are.
    fn over(&self) -> Option<Refused> {
        if self.revoked().is_some_and(CancellationToken::is_cancelled) {
            return Some(Refused::Revoked);
        }
        let over = self.until.is_some_and(|until| until <= Instant::now());
        over.then_some(Refused::Expired)
    }
}

impl Session {
    /// Takes note of who is connected, in place of who was. From here on everything is judged by what is
    /// known of him now.
    pub(super) fn identify(&mut self, identity: Identity) {
        // The old grant stands until the new one does: a subject that is revoked now is told.
        self.rights = Rights {
            share: std::mem::take(&mut self.rights.share),
            ..Rights::of(&self.gateway.auth, &identity)
        };
        let scopes = self.gateway.scopes(&identity);
        self.interests.confine(scopes);
        self.identity = identity;
    }

    /// Refuses to go on where the rights are over.
    fn entitled(&self) -> Result<(), End> {
        match self.rights.over() {
            Some(why) => Err(self.gateway.ends(why)),
            None => Ok(()),
        }
    }

    /// Goes on along the stream as [`Self::advance`] does, or does what [`Self::act`] does, until that is done
    /// or the rights are over: whatever it waits for, and however much there is to be sent. The place must
    /// have been taken back from the lane.
    pub(super) async fn entitled_to(&mut self, woken: Option<Woken>) -> Result<(), End> {
        if self.rights.are_endless() {
            return self.go(woken).await;
        }
        let over = over(self.rights.until, self.rights.revoked().cloned());
        tokio::select! {
            biased;
            why = over => Err(self.gateway.ends(why)),
            done = self.go(woken) => done,
        }
    }

    async fn go(&mut self, woken: Option<Woken>) -> Result<(), End> {
        match woken {
            None => self.advance().await,
            Some(woken) => self.act(woken).await,
        }
    }

    /// The token of a hello. A socket that was let in only to say who it is is closed without one.
    pub(super) async fn introduced(
        &mut self,
        rid: Option<&Rid>,
        token: Option<Token>,
    ) -> Result<Introduced, End> {
        let auth = &self.gateway.auth;
        let Some(token) = token.filter(|_| auth.judges()) else {
            return match self.rights.owes_token {
                true => Err(self.turned_away(rid, Refused::Missing).await),
                false => Ok(Introduced::Yes),
            };
        };
        if !self.silent {
            // What was pushed to nobody in particular cannot be taken back.
            let failure = Failure::param("token: in the handshake, or on a socket with hello=1");
            self.fail(failure.to(rid.cloned())).await?;
            return Ok(Introduced::No);
        }
        let admission = auth.judge(&self.presented(token)).await;
        match admission {
            Ok(identity) if self.may_become(&identity) => match self.go_on_as(identity) {
                Ok(()) => Ok(Introduced::Yes),
                Err(Crowded) => {
                    self.fail(crowded().to(rid.cloned())).await?;
                    Err(End::Close(CloseReason::TooManyConnections))
                }
            },
            Ok(_) => {
                self.fail(other_subject().to(rid.cloned())).await?;
                Ok(Introduced::No)
            }
            Err(refused) => Err(self.turned_away(rid, refused).await),
        }
    }

    /// `sys:auth`: a new token for who is connected. Where it is refused, the old one stays.
    pub(super) async fn renewed(
        &mut self,
        rid: Option<Rid>,
        token: Option<Token>,
    ) -> Result<(), End> {
        let auth = &self.gateway.auth;
        let failure = if !auth.judges() {
            None
        } else if self.rights.owes_token {
            Some(ErrorCode::TokenMissing.into())
        } else {
            match token {
                None => Some(Failure::param("token: a string")),
                Some(token) => match auth.judge(&self.presented(token)).await {
                    Ok(identity) if self.is_same(&identity) => {
                        let before = self.identity.clone();
                        let went_on = self.go_on_as(identity);
                        self.redraw(&before);
                        went_on.err().map(|Crowded| {
                            self.gateway.metrics.limited(CONNECTIONS);
                            crowded()
                        })
                    }
                    Ok(_) => Some(other_subject()),
                    Err(refused) => {
                        self.gateway.metrics.auth.refused(refused.reason());
                        Some(refused.failure())
                    }
                },
            }
        };
        if let Some(failure) = failure {
            return self.fail(failure.to(rid)).await;
        }
        // It may have run out while the new one was judged.
        self.entitled()?;
        let frame = protocol::ok(rid.as_ref(), &self.cursor);
        self.wire.send(frame).await
    }

    /// What an endpoint is asked with, as one of the questions of where the socket comes from.
    fn presented(&self, token: Token) -> Presented {
        Presented::token(token.into_text(), self.from)
    }

    /// Says why, and closes.
    async fn turned_away(&mut self, rid: Option<&Rid>, refused: Refused) -> End {
        self.gateway.metrics.auth.refused(refused.reason());
        let failure = refused.failure().to(rid.cloned());
        match self.fail(failure).await {
            Ok(()) => End::Close(refused.close()),
            Err(end) => end,
        }
    }

    /// Goes on as somebody who may have one connection more, or whose this one is. Otherwise nothing changes.
    fn go_on_as(&mut self, identity: Identity) -> Result<(), Crowded> {
        let identities = &self.gateway.identities;
        identities.pass(&mut self.rights.share, &identity)?;
        self.identify(identity);
        Ok(())
    }

    /// Who says hello before anything was sent may be anybody, if nobody is known yet.
    fn may_become(&self, identity: &Identity) -> bool {
        self.identity.is_anonymous() || self.is_same(identity)
    }

    fn is_same(&self, identity: &Identity) -> bool {
        !self.identity.is_anonymous() && self.identity.claim("sub") == identity.claim("sub")
    }
}

impl Gateway {
    /// How a socket ends whose rights do, which is counted.
    pub(super) fn ends(&self, why: Refused) -> End {
        self.metrics.auth.refused(why.reason());
        End::Close(why.close())
    }
}

/// What becomes of a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Introduced {
    /// It goes on.
    Yes,
    /// It was answered with an error.
    No,
}

fn other_subject() -> Failure {
    Failure {
        detail: Some("token: one of the same subject"),
        ..ErrorCode::Forbidden.into()
    }
}

/// The time of the clock that waits are measured by; none where it is too far away.
fn instant(time: SystemTime) -> Option<Instant> {
    let left = time.duration_since(SystemTime::now()).unwrap_or_default();
    Instant::now().checked_add(left)
}

/// Waits for a revocation, or the end by itself.
async fn over(until: Option<Instant>, revoked: Option<CancellationToken>) -> Refused {
    tokio::select! {
        biased;
        () = cancelled(revoked) => Refused::Revoked,
        () = reached(until) => Refused::Expired,
    }
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for a revocation; for ever where there can be none.
async fn cancelled(token: Option<CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}
