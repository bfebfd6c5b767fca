//! Forward authentication: an HTTP endpoint of the user's is asked who it is that comes, with what he has
//! brought. So sessions of Django and tokens that only their issuer can read work as they are.

use std::time::{Duration, SystemTime};

use reqwest::{
    Client,
    header::{ACCEPT, AUTHORIZATION, COOKIE, HeaderName, ORIGIN},
};
use serde_json::{Map, Value as Json};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    BadAuth, HttpUrl, Presented, Refused, claims,
    fetch::{self, NoAnswer, PATIENCE},
};
use crate::identity::Identity;

/// Questions under way at once; more wait, as long as a question may take.
const AT_ONCE: usize = 64;

/// Bytes of an answer at the most: claims are a few hundred.
const MAX_BYTES: usize = 16 * 1024;

/// The path that is asked for, as proxies say it that do the same.
const PATH: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The tutorial's own header.
const TOKEN: HeaderName = HeaderName::from_static("token");

/// The endpoint.
#[derive(Debug)]
pub struct Forward {
    url: HttpUrl,
    client: Client,
    room: Semaphore,
    leeway: Duration,
}

impl Forward {
    /// An endpoint; what it says holds for so long beyond the `exp` that it names.
    ///
    /// # Errors
    /// [`BadAuth`] where nothing can be asked.
    pub fn new(url: HttpUrl, leeway: Duration) -> Result<Self, BadAuth> {
        Ok(Self {
            client: fetch::client(&url)?,
            url,
            room: Semaphore::new(AT_ONCE),
            leeway,
        })
    }

    /// Asks who it is.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the endpoint says so, with a 401 or a 403; [`Refused::Unavailable`] for
    /// every other answer that is no claims, and for none within some seconds.
    ///
    /// # Cancel safety
    /// Cancel safe: the endpoint may have been asked in vain.
    pub async fn ask(&self, presented: &Presented) -> Result<Identity, Refused> {
        let asked = SystemTime::now();
        let answer = timeout(PATIENCE, self.answer(presented)).await;
        let answer = answer.unwrap_or_else(|_| Err(NoAnswer::Failed("no answer in time".into())));
        let claims = answer.map_err(|err| match err {
            NoAnswer::Status(401 | 403) => Refused::Invalid("refused"),
            err => {
                tracing::warn!(url = %self.url, error = %err, "who somebody is cannot be asked");
                Refused::Unavailable
            }
        })?;
        match claims::trusted(claims, self.leeway, SystemTime::now()) {
            // What it says, it says now.
            Ok(identity) => Ok(identity.issued_at(asked)),
            Err(Refused::Expired) => Err(Refused::Expired),
            Err(_) => {
                tracing::warn!(url = %self.url, "the exp of an answer is no number of seconds");
                Err(Refused::Unavailable)
            }
        }
    }

    async fn answer(&self, presented: &Presented) -> Result<Map<String, Json>, NoAnswer> {
        let room = self.room.acquire().await;
        let _room = room.map_err(|err| NoAnswer::Failed(err.to_string()))?;
        let mut request = self.client.get(self.url.inner());
        request = request.header(ACCEPT, "application/json");
        let headers = &presented.handshake;
        let mut brought = false;
        for (name, value) in [
            (TOKEN, &headers.token),
            (AUTHORIZATION, &headers.authorization),
            (COOKIE, &headers.cookie),
            (ORIGIN, &headers.origin),
            (PATH, &headers.path),
        ] {
            if let Some(value) = value {
                brought |= name == TOKEN || name == AUTHORIZATION;
                request = request.header(name, &value[..]);
            }
        }
        // It came in another way, in which nobody expects one over HTTP.
        if let Some(token) = presented.token.as_ref().filter(|_| !brought) {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(fetch::failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(NoAnswer::Status(status.as_u16()));
        }
        let body = fetch::body(response, MAX_BYTES).await?;
        serde_json::from_slice(&body).map_err(|_| NoAnswer::Content("it is no JSON object"))
    }
}
