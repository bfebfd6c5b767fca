//! The configuration: built-in defaults ← `rowcast.toml` ← environment ← flags, and what each
//! setting means. The defaults are `rowcast.example.toml` itself, built into the binary, so that
//! the example can never tell another story.

mod auth;
mod error;
mod limits;
mod load;
mod masked;
mod monitor;
mod network;
mod values;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

pub use auth::{Auth, Secret};
pub use error::{ConfigError, Origin};
pub use limits::Limits;
pub use load::{DEFAULT_FILE, Overrides, database, load};
pub use masked::masked;
pub use values::{BusUrl, DatabaseUrl, Listen, Servers};

use crate::{
    http::{AllowedHosts, Proxies},
    protocol::Language,
    topic::{BadTopic, TopicSpec},
};
use monitor::maybe_monitor;
use network::{hosts, origins, proxies};
use values::{filter, maybe_listen, maybe_path, millis, name, prefix, within};

/// The configuration of one process, complete and each value within its bounds.
///
/// What only the database can tell, such as whether a topic's columns exist, is checked later by
/// [`crate::topic::Topic::resolve`]; [`Config::bad_topic`] reports it in the same form.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[server]`: sockets and HTTP.
    pub server: Server,
    /// `[limits]`: what clients may ask.
    pub limits: Limits,
    /// `[database]`: where rows come from.
    pub database: Database,
    /// `[bus]`: where events are kept.
    pub bus: Bus,
    /// `[produce]`: the change producer's own.
    pub produce: Produce,
    /// `[auth]`: who may connect. With nothing to judge by a loopback listener admits everybody.
    pub auth: Auth,
    /// `[log]`: what is written to standard error.
    pub log: Log,
    /// `[[topics]]`, in the order of the file.
    pub topics: Vec<TopicSpec>,
    /// Whether nobody has configured topics, so that `topics` are the demo's.
    #[serde(skip)]
    pub topics_are_demo: bool,
    /// The file that was read, if any.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// Where each key of `[server]` was written last.
    #[serde(skip)]
    written: BTreeMap<String, Origin>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Address and port; port 0 takes a free one. Default `127.0.0.1:8888`: a first run must not
    /// open a database to the network.
    pub listen: Listen,
    /// Where operators look: `/metrics`, `/api/pipeline`, `/api/dead_letters`, and why `/readyz` says no.
    /// Default none: on a loopback `listen` they are served there, on any other one, and behind a proxy,
    /// nowhere, for what went wrong and what nobody understood is not for everybody. The same as `listen`
    /// serves them there.
    #[serde(deserialize_with = "maybe_listen")]
    pub operator_listen: Option<Listen>,
    /// The certificate with its chain, in PEM: then `listen` speaks TLS, and nothing else. Default none: a
    /// proxy does that, or nobody needs to.
    #[serde(deserialize_with = "maybe_path")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, in PEM, without a passphrase.
    #[serde(deserialize_with = "maybe_path")]
    pub tls_key: Option<PathBuf>,
    /// Proxies that are believed about the address and the scheme of those for whom they ask. Default
    /// nobody: everybody can write a header. With any, a loopback `listen` is one that others reach.
    #[serde(deserialize_with = "proxies")]
    pub trusted_proxies: Proxies,
    /// Names in `Host` that are answered. Default none: a loopback `listen` answers to those of this machine
    /// alone, so that no page can have its own name resolve to it. Any other one answers to all; but where
    /// somebody without a token may connect to addresses, names without a dot, those of local networks and the
    /// machine's own, for the same reason. With any, a loopback `listen` is
    /// one that others reach.
    #[serde(deserialize_with = "hosts")]
    pub allowed_hosts: AllowedHosts,
    /// Origins that may connect besides the own host: `scheme://host[:port]` in lower case, or
    /// `*` alone. Default none: a page of another origin could otherwise read with the cookies
    /// of whoever opens it.
    #[serde(deserialize_with = "origins")]
    pub allowed_origins: Vec<String>,
    /// Between two pings, in ms. Default 25,000: the idle timeouts of common proxies are 30 s
    /// and 60 s.
    #[serde(
        rename = "ping_interval_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub ping_interval: Duration,
    /// From a ping to the close with 4408, in ms. Default 10,000: longer than a phone needs to
    /// change from Wi-Fi to mobile data.
    #[serde(
        rename = "pong_timeout_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub pong_timeout: Duration,
    /// From opening with `hello=1` to the close with 4401, in ms. Default 10,000: a hello is
    /// sent by a program, not by a person.
    #[serde(
        rename = "hello_timeout_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub hello_timeout: Duration,
    /// Between two `sys:tick`, in ms. Default 5,000: how old "current" may be on a screen.
    #[serde(
        rename = "tick_interval_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub tick_interval: Duration,
    /// How long a socket may take no byte before it is closed with 4008, in ms. Default 10,000:
    /// it costs no memory meanwhile, and can resume, but its task and descriptor are wanted back. An
    /// answer over HTTP does cost memory, and whoever takes no byte of it for so long is cut off.
    #[serde(
        rename = "write_timeout_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub write_timeout: Duration,
    /// From the signal to the exit at the latest, in ms. Default 10,000: what `docker stop` gives
    /// before it kills.
    #[serde(
        rename = "shutdown_grace_ms",
        deserialize_with = "millis::<0, 3_600_000, _>"
    )]
    pub shutdown_grace: Duration,
    /// The longest message of a client, and body of a request, in bytes. Default 64 KiB: a query is a
    /// few hundred bytes.
    #[serde(deserialize_with = "within::<1_024, 262_144, _, _>")]
    pub max_message_bytes: usize,
    /// Queries of one socket that run at once. Default 2: a page and the detail beside it.
    #[serde(deserialize_with = "within::<1, 1_000, _, _>")]
    pub queries_running: usize,
    /// Queries of one socket that wait. Default 8: a page that opens asks for a handful; more is
    /// a loop gone wild, and is told so with 429.
    #[serde(deserialize_with = "within::<0, 1_000, _, _>")]
    pub queries_queued: usize,
    /// Bytes of recent frames kept for all sessions together. Default 64 MiB: about five minutes
    /// of 1,000 pushes/s of 200 bytes, longer than a deploy, so that a reconnect storm is served
    /// from memory.
    #[serde(deserialize_with = "within::<65_536, 68_719_476_736, _, _>")]
    pub ring_max_bytes: usize,
    /// Sockets open at once; the next is closed with 1013. Default 10,000: some 40 MB of idle
    /// sockets, and below the descriptor limit of a service with its usual 16,384.
    #[serde(deserialize_with = "within::<1, 10_000_000, _, _>")]
    pub max_connections: usize,
    /// TCP connections beyond those: requests, and who has sent nothing yet. Default 2,000: a page
    /// makes a handful of requests and lets go of them.
    #[serde(deserialize_with = "within::<1, 10_000_000, _, _>")]
    pub spare_connections: usize,
    /// TCP connections of one address; this machine's own are not counted. Default 100: a household with windows
    /// on all of its machines. Behind a proxy that is not among `trusted_proxies`, or in a company's network,
    /// everybody has one address, and it must be raised.
    #[serde(deserialize_with = "within::<1, 10_000_000, _, _>")]
    pub max_connections_per_address: usize,
    /// Sockets, and streams of events, of one identity: by its `sub`, or by its `jti` where it has none.
    /// Default 20: somebody with windows on a few machines has less. Who is anonymous, and who has
    /// neither, is not counted.
    #[serde(deserialize_with = "within::<1, 10_000_000, _, _>")]
    pub max_connections_per_identity: usize,
    /// TCP connections that come in a second, once as many as `max_connections` have come at once, with a reserve for
    /// networks that have not come lately; this machine's own, and those of `trusted_proxies`, are not counted. Default 500: who were there when the process ended are back
    /// within seconds, and who comes and goes all the time costs a part of one core.
    #[serde(deserialize_with = "within::<1, 1_000_000, _, _>")]
    pub accepts_per_second: u32,
    /// From being accepted, or from the last answer, to the whole head of a request, in ms. Default
    /// 10,000: a head is one packet, and a lost one is sent again within seconds.
    #[serde(
        rename = "head_timeout_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub head_timeout: Duration,
    /// The longest head of a request, in bytes. Default 8 KiB: a browser's has one. Cookies of others on the same
    /// host are in it, and where a single sign-on sets long ones it must be raised.
    #[serde(deserialize_with = "within::<8_192, 1_048_576, _, _>")]
    pub max_head_bytes: usize,
    /// The most headers of a request. Default 64: a browser sends twenty, and a proxy adds ten.
    #[serde(deserialize_with = "within::<32, 1_000, _, _>")]
    pub max_headers: usize,
    /// From the head of a request to the end of its body, in ms. Default 10,000, as for the head.
    #[serde(
        rename = "body_timeout_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub body_timeout: Duration,
    /// Whether sockets that offer permessage-deflate get events and replies compressed. Default no: it
    /// spares bandwidth, not processor time, and a secret beside what an attacker chooses can be guessed
    /// from the length.
    pub compression: bool,
    /// Language of `msg` texts. Default Chinese, as in the tutorial.
    pub language: Language,
}

/// `[database]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The database. Default `sqlite:rowcast.db`, created with the demo on the first run.
    pub url: DatabaseUrl,
    /// Between two looks for changes by other processes that the file system did not announce, in
    /// ms. Default 25: a look wakes a processor, which costs more than the look, and forty of
    /// them a second stay under a hundredth of a core. Announced changes are seen at once.
    #[serde(
        rename = "poll_interval_ms",
        deserialize_with = "millis::<1, 60_000, _>"
    )]
    pub poll_interval: Duration,
    /// How long published entries stay in the changelog, in ms. Default 600,000: ten minutes to
    /// look at it when something seems wrong; what clients resume from is the bus.
    #[serde(
        rename = "changelog_keep_ms",
        deserialize_with = "millis::<0, 2_592_000_000, _>"
    )]
    pub changelog_keep: Duration,
    /// Published entries kept at the most. Default 100,000: a few MB in the user's file.
    #[serde(deserialize_with = "within::<1_000, 1_000_000_000, _, _>")]
    pub changelog_max_rows: u64,
    /// The longest direct query, in ms; then it is interrupted, and answered with a 504. Default
    /// 3,000: a reader that stays open keeps the WAL from shrinking.
    #[serde(
        rename = "query_timeout_ms",
        deserialize_with = "millis::<10, 600_000, _>"
    )]
    pub query_timeout: Duration,
    /// PostgreSQL: the replication slot, which holds what was not yet published. Default `rowcast`:
    /// one deployment a database.
    #[serde(deserialize_with = "name")]
    pub slot: String,
    /// PostgreSQL: the publication, which says what tables are followed. Default `rowcast`.
    #[serde(deserialize_with = "name")]
    pub publication: String,
    /// PostgreSQL: whether slot and publication are created and altered by us. Default true; with
    /// false somebody else must, and `check` says what is missing.
    pub manage: bool,
    /// PostgreSQL: between two heartbeats through the slot, in ms. Default 5,000: an idle database
    /// lets go of its WAL, and a connection that died in silence is noticed after three of them.
    #[serde(
        rename = "heartbeat_interval_ms",
        deserialize_with = "millis::<100, 3_600_000, _>"
    )]
    pub heartbeat_interval: Duration,
    /// PostgreSQL: how long the active producer may be silent before one that stands by ends its
    /// connection and takes over, in ms. Default 10,000: longer than a pause of the scheduler or
    /// of a virtual machine's snapshot, shorter than PostgreSQL's own 60 s.
    #[serde(
        rename = "takeover_ms",
        deserialize_with = "millis::<1_000, 3_600_000, _>"
    )]
    pub takeover: Duration,
    /// Connections for direct queries, of which two are kept for what is quick. Default 5: a query is
    /// processor time, not waiting, so more than the processor's cores bring little but turns for more who ask at once.
    #[serde(deserialize_with = "within::<3, 64, _, _>")]
    pub read_connections: usize,
}

/// `[bus]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bus {
    /// The bus. Default `embedded:`, a file beside the database.
    pub url: BusUrl,
    /// NATS: the first word of every subject, and the streams' names in capitals. Default `rowcast`.
    #[serde(deserialize_with = "prefix")]
    pub prefix: String,
    /// NATS: a credentials file. Default none: user and password, if any, stand in the URL.
    #[serde(deserialize_with = "maybe_path")]
    pub credentials: Option<PathBuf>,
    /// NATS: a file with the certificates to trust. Default none: those of the system.
    #[serde(deserialize_with = "maybe_path")]
    pub ca: Option<PathBuf>,
    /// NATS: copies of the stream. Default 1: a single server; three servers take 3.
    #[serde(deserialize_with = "within::<1, 5, _, _>")]
    pub replicas: usize,
    /// NATS: whether the streams are created and altered by us. Default true.
    pub manage: bool,
    /// NATS: the server's monitoring URL, asked whether what it has stored is on the disk. Default
    /// none: then one server's word counts as `buffered`.
    #[serde(deserialize_with = "maybe_monitor")]
    pub monitor: Option<String>,
    /// How long events are kept for clients that resume, in ms. Default 86,400,000: a laptop
    /// closed overnight catches up in the morning.
    #[serde(
        rename = "keep_ms",
        deserialize_with = "millis::<1_000, 31_536_000_000, _>"
    )]
    pub keep: Duration,
    /// Bytes of events kept at the most; the oldest go first. Default 1 GiB: some five million
    /// events of 200 bytes, and a bound on the disk before `keep_ms` is one.
    #[serde(deserialize_with = "within::<1_048_576, 1_099_511_627_776, _, _>")]
    pub max_bytes: u64,
}

/// `[produce]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Produce {
    /// Where `/healthz`, `/readyz` and `/metrics` are served. Default nowhere: a producer needs no
    /// open port.
    #[serde(deserialize_with = "maybe_listen")]
    pub listen: Option<Listen>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it. Default `info`: starts, stops
    /// and what needs a person; nothing per event.
    #[serde(deserialize_with = "filter")]
    pub level: String,
    /// How a line looks. Default text: it is read by people before it is read by machines.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

// === impl Config ===

impl Config {
    /// Reports what the database says against the topic at `index` as an error of the
    /// configuration, with the file and the key.
    pub fn bad_topic(&self, index: usize, bad: &BadTopic) -> ConfigError {
        let key = format!("topics[{index}].{}", bad.field);
        let error = ConfigError::new(self.topics_origin(), key, bad.reason.clone());
        match self.topics_are_demo {
            true => error.advise(
                "these are the demo's topics; for a database of your own write [[topics]], \
                 or let `rowcast init` write them",
            ),
            false => error,
        }
    }

    /// An error in a key of `[server]`, with where it was written.
    pub fn wrong_server(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let origin = self.written.get(key).cloned();
        ConfigError::new(
            origin.unwrap_or(Origin::Defaults),
            format!("server.{key}"),
            problem,
        )
    }

    /// Where the topics were written.
    fn topics_origin(&self) -> Origin {
        match &self.file {
            Some(file) if !self.topics_are_demo => Origin::File(file.clone()),
            _ => Origin::Defaults,
        }
    }

    /// The file of the embedded bus: beside the database, named `<database>-bus`. For PostgreSQL
    /// it is `rowcast-bus` in the working directory.
    pub fn bus_path(&self) -> PathBuf {
        let file = self.database.url.path();
        let mut name = file.unwrap_or(Path::new("rowcast")).as_os_str().to_owned();
        name.push("-bus");
        PathBuf::from(name)
    }
}

#[cfg(test)]
mod tests;
