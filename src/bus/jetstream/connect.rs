//! The connection to NATS: made in the background, remade for ever, and never louder than one
//! text that says why there is none.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, jetstream::Context};
use tokio::sync::watch;

use super::{
    Failure, JetStreamConfig, Role,
    denied::{Denied, Refusal, Refusals},
    lives::Lives,
};

/// How long a request to the server may take. A server that stands still is told of within 6 s:
/// this, and the missed heartbeats before it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between two attempts: a server that is back is found within two seconds.
const MAX_PAUSE: Duration = Duration::from_millis(1000);

/// What is known of the connection.
#[derive(Debug, Clone, Default)]
pub struct Link {
    /// The client, and JetStream's API over it; none between two clients.
    pub client: Option<(Client, Context)>,
    /// Whether the client is connected.
    pub connected: bool,
    /// Grows with every connection made: what was learnt of the server before may be wrong since.
    generation: u64,
    /// Why there is no connection, as far as that is known.
    pub error: Option<String>,
    /// What this user may not do, of what was tried over this connection.
    refusals: Refusals,
}

/// A connection to NATS that is there or not.
#[derive(Debug, Clone)]
pub struct Connection {
    link: watch::Receiver<Link>,
    servers: Arc<str>,
}

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file of the configuration cannot be read.
    #[error("the file {path} cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The configuration cannot be used.
    #[error("the connection to NATS cannot be set up: {0}")]
    Setup(String),
}

impl Connection {
    /// Begins to connect, and returns at once.
    pub async fn open(config: &JetStreamConfig, role: Role) -> Result<Self, ConnectError> {
        let user = config.servers.split(',').find_map(user);
        let inbox = inbox_of(&config.servers, role);
        let mut options = ConnectOptions::new()
            .name(&config.name)
            .custom_inbox_prefix(inbox)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(Duration::from_secs(3))
            .request_timeout(Some(REQUEST_TIMEOUT))
            .ping_interval(Duration::from_secs(5))
            .reconnect_delay_callback(pause);
        if let Some(path) = &config.credentials {
            let text = std::fs::read_to_string(path).map_err(|source| ConnectError::File {
                path: path.clone(),
                source,
            })?;
            options = options
                .credentials(&text)
                .map_err(|err| ConnectError::Setup(err.to_string()))?;
        }
        let pair = config.client_certificate.iter();
        let files = pair.flat_map(|(certificate, key)| [certificate, key]);
        for path in files.chain(&config.ca) {
            // The client would tell it only with every attempt to connect.
            std::fs::File::open(path).map_err(|source| ConnectError::File {
                path: path.clone(),
                source,
            })?;
        }
        if let Some(path) = &config.ca {
            options = options.add_root_certificates(path.clone());
        }
        if let Some((certificate, key)) = &config.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        // The client itself ignores who a URL names.
        options = match user {
            Some((user, Some(password))) => options.user_and_password(user, password),
            Some((token, None)) => options.token(token),
            None => options,
        };
        let servers = config.servers.split(',').map(str::trim);
        let servers: Result<Vec<ServerAddr>, _> = servers.map(str::parse).collect();
        let shown = shown(&config.servers);
        let setup = |err: &dyn fmt::Display| ConnectError::Setup(err.to_string());
        let (told, link) = watch::channel(Link::default());
        let lives = Arc::new(Lives {
            options,
            servers: servers.map_err(|err| setup(&err))?,
            told,
        });
        let ended = lives.begin().await.map_err(|err| setup(&err))?;
        tokio::spawn(lives.go_on(ended));
        Ok(Self {
            link,
            servers: shown.into(),
        })
    }

    /// The client, while there is a connection: what is sent without one would wait, and arrive
    /// when nobody expects it any more. It may end with what it is sent, and all subscriptions over it: ask for it
    /// again whenever one of them does.
    pub fn client(&self) -> Result<Client, Failure> {
        self.connected(|(client, _)| client.clone())
    }

    /// JetStream's API, while there is a connection; as [`Self::client`].
    pub fn jetstream(&self) -> Result<Context, Failure> {
        self.connected(|(_, context)| context.clone())
    }

    fn connected<T>(&self, take: impl FnOnce(&(Client, Context)) -> T) -> Result<T, Failure> {
        let link = self.link.borrow();
        if let Some(client) = link.client.as_ref().filter(|_| link.connected) {
            return Ok(take(client));
        }
        let servers = &self.servers;
        Err(match &link.error {
            Some(error) => format!("not connected to NATS at {servers}: {error}").into(),
            None => format!("not connected to NATS at {servers}").into(),
        })
    }

    /// The servers, without users and passwords.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// Grows with every connection made.
    pub fn generation(&self) -> u64 {
        self.link.borrow().generation
    }

    /// The permissions that were found missing lately.
    pub fn denied(&self) -> Option<Denied> {
        self.link.borrow().refusals.lately()
    }

    /// Waits until the server refuses something that names a stream, or has refused it lately.
    pub async fn refused(&self, stream: &str) {
        let mut link = self.link.clone();
        let refused = link.wait_for(|link| link.refusals.name(stream));
        if refused.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the connection of `generation` is lost: what was asked over it is not answered.
    pub async fn lost(&self, generation: u64) {
        let mut link = self.link.clone();
        let lost = link.wait_for(|link| !link.connected || link.generation != generation);
        if lost.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the connection is not the one of `generation` any more, and there is one.
    pub async fn renewed(&self, generation: u64) {
        let mut link = self.link.clone();
        let renewed = link.wait_for(|link| link.connected && link.generation != generation);
        if renewed.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Without users and passwords.
impl fmt::Debug for JetStreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamConfig")
            .field("servers", &shown(&self.servers))
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Servers without users and passwords.
fn shown(servers: &str) -> String {
    let shown: Vec<&str> = servers
        .split(',')
        .map(str::trim)
        .map(without_user)
        .collect();
    shown.join(",")
}

/// Where a producer's answers arrive.
pub const PRODUCER_INBOX: &str = "_INBOX_PRODUCER";

/// Where answers arrive. Not the inbox of everybody: who may subscribe to that would read what we
/// are answered. A command has the inbox of the user who runs it, as nats/server.conf names them.
pub fn inbox_of(servers: &str, role: Role) -> &'static str {
    let user = servers.split(',').find_map(user).map(|(user, _)| user);
    match (role, user.as_deref()) {
        (Role::Producer, _) | (Role::Command, Some("producer")) => PRODUCER_INBOX,
        (Role::Gateway, _) | (Role::Command, Some("gateway")) => "_INBOX_GATEWAY",
        (Role::Command, Some("operator")) => "_INBOX_OPERATOR",
        (Role::Command, _) => "_INBOX",
    }
}

/// Takes in what a client tells of its connection.
pub fn note(told: &watch::Sender<Link>, event: Event) {
    told.send_modify(|link| match event {
        Event::Connected => {
            link.connected = true;
            link.generation += 1;
            link.error = None;
            link.refusals = Refusals::default();
        }
        Event::Disconnected => {
            link.connected = false;
            link.error = None;
        }
        Event::Closed => {
            link.connected = false;
            link.error = Some("the connection was closed".to_owned());
        }
        Event::ServerError(err) => {
            let text = reason(&err.to_string());
            // While connected, this is about what was sent: mostly a permission that is missing,
            // which whoever sent it sees as silence.
            match link.refusals.take(&text) {
                Refusal::New(what) => {
                    tracing::warn!("the NATS user may not {what}: see nats/server.conf");
                }
                Refusal::Known => {}
                Refusal::None if link.connected && link.error.as_deref() != Some(text.as_str()) => {
                    tracing::warn!(error = %err, "the NATS server refuses what was sent");
                }
                Refusal::None => {}
            }
            link.error = Some(text);
        }
        Event::ClientError(err) => link.error = Some(reason(&err.to_string())),
        Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => {}
    });
}

/// A text that stays the same from attempt to attempt.
fn reason(text: &str) -> String {
    let lower = text.to_lowercase();
    if lower.contains("authorization") || lower.contains("authentication") {
        return "the server refuses these credentials".to_owned();
    }
    // The library's text for a port where nobody listens, and for a name that nobody has.
    if lower.ends_with("io error") {
        return "no server can be reached there".to_owned();
    }
    text.to_owned()
}

/// A pause before the next attempt, longer each time up to [`MAX_PAUSE`], and never the same
/// for all the gateways that lost one server.
pub fn pause(attempts: usize) -> Duration {
    if attempts <= 1 {
        return Duration::ZERO;
    }
    let exponent = u32::try_from(attempts.min(8)).unwrap_or(8);
    jittered(MAX_PAUSE.min(Duration::from_millis(10 * 2_u64.pow(exponent))))
}

/// Between half of a pause and all of it.
pub fn jittered(pause: Duration) -> Duration {
    let mut byte = [0_u8; 1];
    // Without randomness the pause is only less well spread.
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.5 + f64::from(byte[0]) / 512.0)
}

/// The user and the password of a URL, or the token that stands in their place.
fn user(url: &str) -> Option<(String, Option<String>)> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (user, _) = rest.rsplit_once('@')?;
    Some(match user.split_once(':') {
        Some((user, password)) => (decoded(user), Some(decoded(password))),
        None => (decoded(user), None),
    })
}

/// A text of a URL with its `%xx` resolved.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let hex = others
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (rest, _) = match byte.filter(|_| *first == b'%') {
            Some(byte) => (&others[2..], bytes.push(byte)),
            None => (others, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A URL without user and password.
fn without_user(url: &str) -> &str {
    match url.split_once("://") {
        Some((_, rest)) => rest.rsplit_once('@').map_or(rest, |(_, host)| host),
        None => url.rsplit_once('@').map_or(url, |(_, host)| host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_user("nats://a:b@host:4222"), "host:4222");
        assert_eq!(without_user("tls://host"), "host");
        assert_eq!(without_user("a:b@host"), "host");
    }

    #[test]
    fn a_url_names_a_user() {
        let both = Some(("a".to_owned(), Some("p@s:".to_owned())));
        assert_eq!(user("nats://a:p%40s:@host:4222"), both);
        assert_eq!(user("nats://token@host"), Some(("token".to_owned(), None)));
        assert_eq!(user("tls://host"), None);
    }

    #[test]
    fn pauses_grow_to_a_second() {
        assert_eq!(pause(1), Duration::ZERO);
        assert!(pause(2) <= Duration::from_millis(40));
        assert!(pause(99) >= Duration::from_millis(500) && pause(99) <= MAX_PAUSE);
    }
}
