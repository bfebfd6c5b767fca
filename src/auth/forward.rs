//! Forward authentication: an HTTP endpoint of the user's is asked who it is that comes, with what he has
//! brought. So sessions of Django and tokens that only their issuer can read work as they are.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use reqwest::{
    Client,
    header::{ACCEPT, AUTHORIZATION, COOKIE, HeaderName, HeaderValue, ORIGIN},
};
use serde_json::{Map, Value as Json};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};

use super::{
    Admission, BadAuth, HttpUrl, Presented, Refused,
    answers::{Answers, Question},
    claims,
    fetch::{self, NoAnswer, PATIENCE},
    shares::Shares,
};
use crate::metrics::Metrics;

/// Questions under way at once.
const AT_ONCE: usize = 64;

/// Questions that wait for one of those to end, the next being refused at once: as many as an endpoint that
/// takes 40 ms answers within [`LONGEST_WAIT`].
const WAITING: usize = 4096;

/// How long each of those waits: half of [`PATIENCE`]. A question that is asked when its time is nearly over
/// costs the endpoint as much as any other, and is in vain.
const LONGEST_WAIT: Duration = Duration::from_millis(2500);

/// Bytes of an answer at the most: claims are a few hundred.
const MAX_BYTES: usize = 16 * 1024;

/// The path that is asked for, as proxies say it that do the same.
const PATH: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The tutorial's own header.
const TOKEN: HeaderName = HeaderName::from_static("token");

/// Who is asked, and what was said a moment ago.
#[derive(Debug)]
pub struct Forward {
    endpoint: Arc<Endpoint>,
    /// None where everybody is asked about each time.
    answers: Option<Answers>,
}

#[derive(Debug)]
struct Endpoint {
    url: HttpUrl,
    client: Client,
    /// Places of all that are under way or wait.
    places: Semaphore,
    room: Semaphore,
    shares: Shares,
    leeway: Duration,
    metrics: Metrics,
}

impl Forward {
    /// An endpoint; what it says holds for so long beyond the `exp` that it names. An answer is `keep`t for
    /// whoever brings the very same, and for no time where everybody is to be asked about.
    ///
    /// # Errors
    /// [`BadAuth`] where nothing can be asked.
    pub fn new(
        url: HttpUrl,
        leeway: Duration,
        keep: Duration,
        metrics: Metrics,
    ) -> Result<Self, BadAuth> {
        let endpoint = Endpoint {
            client: fetch::client(&url)?,
            url,
            places: Semaphore::new(AT_ONCE + WAITING),
            room: Semaphore::new(AT_ONCE),
            shares: Shares::default(),
            leeway,
            metrics,
        };
        Ok(Self {
            endpoint: Arc::new(endpoint),
            answers: (!keep.is_zero()).then(|| Answers::new(keep)),
        })
    }

    /// Asks who it is, or says what was answered a moment ago.
    ///
    /// # Errors
    /// [`Refused::Invalid`] where the endpoint says so, with a 401 or a 403; [`Refused::Unavailable`] for
    /// every other answer that is no claims, for none within some seconds, and where too many wait.
    ///
    /// # Cancel safety
    /// Cancel safe: the endpoint may have been asked in vain.
    pub async fn ask(&self, presented: &Presented) -> Admission {
        let is_text = |token: &String| HeaderValue::from_str(token).is_ok();
        if !presented.token.as_ref().is_none_or(is_text) {
            // It cannot be asked about, and nobody has issued it.
            return Err(Refused::Invalid("malformed"));
        }
        let Some(answers) = &self.answers else {
            return self.endpoint.ask(presented).await;
        };
        let ask = || {
            let (endpoint, presented) = (self.endpoint.clone(), presented.clone());
            // A task of its own: one that nobody waits for any more would keep its place for ever.
            let asked = tokio::spawn(async move { endpoint.ask(&presented).await });
            asked
                .map(|told| told.unwrap_or(Err(Refused::Unavailable)))
                .boxed()
        };
        answers.to(Question::of(presented), ask).await
    }
}

impl Endpoint {
    async fn ask(&self, presented: &Presented) -> Admission {
        let end = Instant::now() + PATIENCE;
        let room = async {
            // Who waits for his own share has no place among those who wait for all.
            let share = self.shares.take(presented.from).await;
            let place = self.places.try_acquire().ok()?;
            Some((share, place, self.room.acquire().await.ok()?))
        };
        // No word in the log: where there are too many, there would be too many lines.
        let Ok(Some(_held)) = timeout(LONGEST_WAIT, room).await else {
            self.metrics.limited("forward");
            return Err(Refused::Unavailable);
        };
        let asked = SystemTime::now();
        let answer = timeout_at(end, self.answer(presented)).await;
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
                tracing::warn!(url = %self.url, "an answer is of no use: its exp is no number of seconds, or its sub or jti no text of 1 to 512 bytes and no integer");
                Err(Refused::Unavailable)
            }
        }
    }

    async fn answer(&self, presented: &Presented) -> Result<Map<String, Json>, NoAnswer> {
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_any_more_gives_its_place_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let url = HttpUrl::parse(&url).unwrap();
        let keep = Duration::from_secs(60);
        let forward = Forward::new(url, keep, keep, Metrics::default()).unwrap();
        let forward = Arc::new(forward);
        let asking = forward.clone();
        let presented = Presented::token("opaque".into(), None);
        let asker = tokio::spawn(async move { asking.ask(&presented).await });
        let asked = listener.accept().await.unwrap();
        let room = &forward.endpoint.room;
        assert_eq!(room.available_permits(), AT_ONCE - 1);
        asker.abort();
        assert!(asker.await.unwrap_err().is_cancelled());
        drop(asked);
        let free = async {
            while room.available_permits() < AT_ONCE {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, free).await.unwrap();
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_told_so_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let url = HttpUrl::parse(&url).unwrap();
        let metrics = Metrics::default();
        let never = Duration::ZERO;
        let forward = Forward::new(url, never, never, metrics.clone()).unwrap();
        let forward = Arc::new(forward);
        let ask = |number: usize| {
            let (forward, presented) =
                (forward.clone(), Presented::token(number.to_string(), None));
            tokio::spawn(async move { forward.ask(&presented).await })
        };
        // The kernel accepts, and nobody answers.
        let waiting: Vec<_> = (0..AT_ONCE + WAITING).map(ask).collect();
        while forward.endpoint.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let begun = Instant::now();
        let told = ask(0).await.unwrap();
        assert_eq!(told.map(drop), Err(Refused::Unavailable));
        assert!(begun.elapsed() < PATIENCE / 2);
        let counted = "rowcast_limited_total{kind=\"forward\"} 1";
        assert!(metrics.to_text().contains(counted));
        // Who has gone leaves the place to the next.
        waiting.iter().for_each(|one| one.abort());
        while forward.endpoint.places.available_permits() < AT_ONCE + WAITING {
            tokio::task::yield_now().await;
        }
    }
}
