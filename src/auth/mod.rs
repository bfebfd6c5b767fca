//! Who may connect. What somebody brings, a token or a session's cookie, comes out as an [`Identity`] or as
//! [`Refused`]: judged by keys of the configuration or of an issuer, by tokens that stand in the
//! configuration, or by asking an endpoint of the user's.
//!
//! Nothing that a token says is believed, or acted on, before its signature is verified. The one exception
//! is the name of a key that is not known: then the issuer's own address, and no other, is asked whether
//! there is a new one, twice a minute at the most, unless the token names another issuer, and is refused.

mod algorithm;
mod announcement;
mod answers;
mod claims;
mod fetch;
mod fixed;
mod forward;
mod grants;
mod jwks;
mod jwt;
mod key;
mod presented;
mod published;
mod revoked;
mod shares;
mod url;

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value as Json};
use tokio::sync::{Mutex, mpsc};

pub use algorithm::Algorithm;
pub use announcement::Announcement;
pub use claims::Rules;
pub use fixed::FixedToken;
pub use grants::Grant;
pub use key::{BadKey, Key};
pub use presented::{Handshake, Presented};
pub use revoked::Revocation;
pub use url::HttpUrl;

use crate::{
    identity::Identity,
    metrics::Metrics,
    protocol::{CloseReason, ErrorCode, Failure},
};
use fixed::Fixed;
use forward::Forward;
use grants::Grants;
use jwks::Jwks;
use jwt::{Judged, Jwt};
use revoked::Revoked;

/// When who could not be judged may try again.
pub const RETRY_AFTER_MS: u32 = 5000;

/// What is judged, and by what.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Who brings nothing is let in as nobody in particular.
    pub anonymous: bool,
    /// Keys of the configuration.
    pub keys: Vec<Key>,
    /// Where the issuer publishes his.
    pub jwks_url: Option<HttpUrl>,
    /// The algorithms that are allowed.
    pub algorithms: Vec<Algorithm>,
    /// What tokens must claim.
    pub rules: Rules,
    /// Tokens of the configuration.
    pub tokens: Vec<FixedToken>,
    /// The endpoint that is asked.
    pub forward_url: Option<HttpUrl>,
    /// How long its answer is kept for whoever brings the same; none is where that is zero.
    pub forward_cache: Duration,
    /// Claims that make somebody an operator; nobody is one where there are none.
    pub operator: Map<String, Json>,
    /// Claims with which somebody may publish, beside operators.
    pub publish: Map<String, Json>,
    /// The most bytes of a token. What is in one is a few hundred.
    pub token_bytes: usize,
    /// How long a revocation is kept: as long as a token may live.
    pub keep_revoked: Duration,
}

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum BadAuth {
    /// An https address, and no authority that could vouch for it.
    #[error(
        "the system has no trusted certificates, without which nothing can be asked over https; SSL_CERT_FILE names a file of some"
    )]
    Roots,
    /// The library of HTTP cannot be used.
    #[error("nothing can be asked over HTTP: {0}")]
    Client(String),
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// He brought nothing.
    Missing,
    /// What he brought is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// It is not right, and this is what is wrong with it, for the operator alone.
    Invalid(&'static str),
    /// It cannot be judged now.
    Unavailable,
}

/// Who somebody is, or why he is nobody.
pub type Admission = Result<Identity, Refused>;

/// The judge. Cloning shares it.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    anonymous: bool,
    fixed: Fixed,
    jwt: Jwt,
    forward: Option<Forward>,
    operator: Map<String, Json>,
    publish: Map<String, Json>,
    token_bytes: usize,
    revoked: Revoked,
    grants: Grants,
    metrics: Metrics,
    announce: mpsc::Sender<Announcement>,
    announced: Mutex<mpsc::Receiver<Announcement>>,
}

/// What can be said at once.
enum Step {
    Admission(Admission),
    /// Nothing before the issuer's keys are read again.
    Keys,
    /// Nothing before the endpoint has been asked.
    Ask,
}

impl Auth {
    /// Judges by these settings; by none of them everybody is let in, and tokens are not looked at.
    ///
    /// # Errors
    /// [`BadAuth`] where others cannot be asked.
    pub fn new(settings: Settings, metrics: Metrics) -> Result<Self, BadAuth> {
        let jwks = settings.jwks_url.map(|url| Jwks::new(url, metrics.clone()));
        let leeway = settings.rules.leeway;
        let keep = settings.forward_cache;
        let forward = settings.forward_url;
        let forward = forward.map(|url| Forward::new(url, leeway, keep, metrics.clone()));
        let (announce, announced) = mpsc::channel(announcement::WAITING);
        Ok(Self(Arc::new(Inner {
            anonymous: settings.anonymous,
            fixed: Fixed::new(settings.tokens),
            jwt: Jwt {
                keys: settings.keys,
                jwks: jwks.transpose()?,
                algorithms: settings.algorithms,
                rules: settings.rules,
            },
            forward: forward.transpose()?,
            operator: settings.operator,
            publish: settings.publish,
            token_bytes: settings.token_bytes,
            revoked: Revoked::new(settings.keep_revoked, leeway, metrics.clone()),
            grants: Grants::default(),
            metrics,
            announce,
            announced: Mutex::new(announced),
        })))
    }

    /// Whether tokens are judged at all.
    pub fn judges(&self) -> bool {
        let inner = &self.0;
        inner.jwt.has_keys() || !inner.fixed.is_empty() || inner.forward.is_some()
    }

    /// Whether an endpoint may be asked, so that it must be known what the request has brought.
    pub fn asks(&self) -> bool {
        self.0.forward.is_some()
    }

    /// Judges what somebody brings, where that can be said at once.
    pub fn judge_now(&self, presented: &Presented) -> Option<Admission> {
        match self.step(presented) {
            Step::Admission(admission) => Some(self.standing(admission)),
            Step::Keys | Step::Ask => None,
        }
    }

    /// Judges what somebody brings, and takes some seconds for it where others must be asked.
    ///
    /// # Errors
    /// [`Refused`]
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn judge(&self, presented: &Presented) -> Admission {
        let mut step = self.step(presented);
        if let (Step::Keys, Some(jwks)) = (&step, &self.0.jwt.jwks) {
            jwks.learn().await;
            step = self.step(presented);
        }
        let admission = match (step, &self.0.forward) {
            (Step::Admission(admission), _) => admission,
            (Step::Ask, Some(forward)) => {
                let asked = forward.ask(presented).await;
                match asked {
                    // A page sends all of its cookies, whether they say who it is or not.
                    Err(Refused::Invalid(_)) if presented.token.is_none() => self.nobody(),
                    asked => asked,
                }
            }
            // The issuer does not answer, or has something else to do.
            (Step::Keys | Step::Ask, _) => Err(Refused::Unavailable),
        };
        self.standing(admission)
    }

    /// Lets somebody in who was judged, until it is dropped; none for who has no name that could be
    /// revoked.
    pub fn grant(&self, identity: &Identity) -> Option<Grant> {
        let grant = self.0.grants.give(identity)?;
        // What was revoked meanwhile has not found him.
        if self.0.revoked.covers(identity) {
            grant.over().cancel();
        }
        Some(grant)
    }

    /// Whether somebody may do what operators do.
    pub fn is_operator(&self, identity: &Identity) -> bool {
        has(identity, &self.0.operator)
    }

    /// Whether somebody may publish events. Where nobody is judged everybody may; where it is not said who
    /// may, and nobody need say who he is, too.
    pub fn may_publish(&self, identity: &Identity) -> bool {
        let inner = &self.0;
        let everybody = !self.judges() || (inner.anonymous && inner.publish.is_empty());
        everybody || has(identity, &inner.publish) || self.is_operator(identity)
    }

    /// Keeps the issuer's keys up to date, for ever; returns where there is none.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn follow_keys(&self) {
        if let Some(jwks) = &self.0.jwt.jwks {
            jwks.follow().await;
        }
    }

    fn step(&self, presented: &Presented) -> Step {
        let inner = &self.0;
        if !self.judges() {
            return Step::Admission(Ok(Identity::anonymous()));
        }
        let Some(token) = &presented.token else {
            let asks = inner.forward.is_some();
            let brings = &presented.handshake;
            let brings = brings.cookie.is_some() || brings.authorization.is_some();
            return match asks && brings {
                true => Step::Ask,
                false => Step::Admission(self.nobody()),
            };
        };
        if token.len() > inner.token_bytes {
            return Step::Admission(Err(Refused::Invalid("too_long")));
        }
        if let Some(admission) = inner.fixed.judge(token, inner.jwt.rules.leeway) {
            return Step::Admission(admission);
        }
        if inner.jwt.has_keys() && (jwt::is_jwt(token) || inner.forward.is_none()) {
            return match inner.jwt.judge(token) {
                Judged::Done(admission) => Step::Admission(admission),
                Judged::KeyUnknown => Step::Keys,
            };
        }
        match inner.forward {
            Some(_) => Step::Ask,
            None => Step::Admission(Err(Refused::Invalid("unknown"))),
        }
    }

    fn nobody(&self) -> Admission {
        match self.0.anonymous {
            true => Ok(Identity::anonymous()),
            false => Err(Refused::Missing),
        }
    }

    /// A admission, unless what it rests on was revoked.
    fn standing(&self, admission: Admission) -> Admission {
        let identity = admission?;
        match self.0.revoked.covers(&identity) {
            true => Err(Refused::Revoked),
            false => Ok(identity),
        }
    }
}

/// Whether somebody has all of these claims, if they are any; of one that is a list one must be it.
fn has(identity: &Identity, wanted: &Map<String, Json>) -> bool {
    let claims = |(name, value): (&String, &Json)| match identity.claim(name) {
        Some(Json::Array(all)) => all.contains(value),
        claim => claim == Some(value),
    };
    !wanted.is_empty() && wanted.iter().all(claims)
}

impl Refused {
    /// What is told.
    pub fn failure(self) -> Failure {
        match self {
            Self::Missing => ErrorCode::TokenMissing.into(),
            Self::Expired => ErrorCode::TokenExpired.into(),
            Self::Revoked => ErrorCode::TokenRevoked.into(),
            Self::Invalid(_) => ErrorCode::TokenInvalid.into(),
            Self::Unavailable => Failure {
                retry_after_ms: Some(RETRY_AFTER_MS),
                ..ErrorCode::AuthUnavailable.into()
            },
        }
    }

    /// How a socket is closed for it.
    pub fn close(self) -> CloseReason {
        match self {
            Self::Missing => CloseReason::TokenMissing,
            Self::Expired => CloseReason::TokenExpired,
            Self::Revoked => CloseReason::TokenRevoked,
            Self::Invalid(_) => CloseReason::TokenInvalid,
            Self::Unavailable => CloseReason::AuthUnavailable,
        }
    }

    /// The metric's label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Invalid(what) => what,
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("judges", &self.judges())
            .field("anonymous", &self.0.anonymous)
            .finish_non_exhaustive()
    }
}
