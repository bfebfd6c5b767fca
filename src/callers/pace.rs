//! How often each may ask without a socket: by who he is, or else by where he comes from.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{asker::Asker, buckets::Buckets, rate::Rate};
use crate::identity::Identity;

/// What is left of it to each. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Mutex<Buckets>>);

impl Pace {
    /// Each may ask so often.
    pub fn new(rate: Rate) -> Self {
        Self(Arc::new(Mutex::new(Buckets::new(rate))))
    }

    /// Takes one request of somebody. Who is not counted ([`Asker::of`]) has no pace.
    ///
    /// # Errors
    /// How long he is to wait.
    pub fn take(&self, identity: &Identity, from: Option<IpAddr>) -> Result<(), Duration> {
        let Some(asker) = Asker::of(identity, from) else {
            return Ok(());
        };
        // Nothing in here panics half way through a change.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(&asker, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn identity(claims: Json) -> Identity {
        Identity::new(claims.as_object().unwrap().clone(), None)
    }

    /// How many of ten requests are answered at once.
    fn asked(pace: &Pace, identity: &Identity, from: Option<&str>) -> usize {
        let from = from.map(|from| from.parse().unwrap());
        let asked = (0..10).filter(|_| pace.take(identity, from).is_ok());
        asked.count()
    }

    #[test]
    fn everybody_has_a_pace_of_his_own_wherever_he_comes_from() {
        let pace = Pace::new(Rate {
            per_second: 1,
            burst: 3,
        });
        let nobody = Identity::anonymous();
        let ann = identity(json!({ "sub": "ann" }));
        assert_eq!(asked(&pace, &ann, Some("192.0.2.1")), 3);
        assert_eq!(asked(&pace, &ann, Some("127.0.0.1")), 0);
        assert_eq!(asked(&pace, &identity(json!({ "jti": "ann" })), None), 3);
        // By address where nothing says who it is.
        assert_eq!(asked(&pace, &nobody, Some("192.0.2.1")), 3);
        let nameless = identity(json!({ "ward": "3" }));
        assert_eq!(asked(&pace, &nameless, Some("::ffff:192.0.2.1")), 0);
        assert_eq!(asked(&pace, &nobody, Some("2001:db8:1:2::1")), 3);
        assert_eq!(asked(&pace, &nobody, Some("2001:db8:1:2:ffff::1")), 0);
        for uncounted in [Some("127.0.0.1"), Some("::1"), None] {
            assert_eq!(asked(&pace, &nobody, uncounted), 10);
        }
    }
}
