//! `[limits]`: what one client, and all of them together, may ask of a process.

use serde::Deserialize;

use super::values::within;

/// `[limits]`. What `[server]` bounds already is not repeated here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Messages of one socket that are answered in a second. Default 20: a person clicks less often,
    /// and a page that opens asks for a handful. One that comes too early is told when to come again;
    /// who sends ten times as many is closed.
    #[serde(deserialize_with = "within::<1, 100_000, _, _>")]
    pub messages_per_second: u32,
    /// Messages of one socket that are answered at once after a quiet time. Default 40: a page
    /// that opens, twice.
    #[serde(deserialize_with = "within::<1, 1_000_000, _, _>")]
    pub messages_burst: u32,
    /// Pings and pongs of one socket in a second, before it is closed. Default 10: ours are answered
    /// twice a minute, and no program has a reason to ask ten times a second.
    #[serde(deserialize_with = "within::<1, 100_000, _, _>")]
    pub controls_per_second: u32,
    /// Pings and pongs of one socket at once after a quiet time. Default 20.
    #[serde(deserialize_with = "within::<1, 1_000_000, _, _>")]
    pub controls_burst: u32,
    /// Frames in which one message may come. Default 64: a kilobyte each.
    #[serde(deserialize_with = "within::<1, 65_536, _, _>")]
    pub max_fragments: usize,
    /// Objects and arrays inside one another in a request. Default 32: the deepest request of the
    /// protocol has five. At most 100, for the stack.
    #[serde(deserialize_with = "within::<6, 100, _, _>")]
    pub json_depth: usize,
    /// Members of all objects of a request. Default 256: a filter on 64 columns has less than that.
    #[serde(deserialize_with = "within::<16, 65_536, _, _>")]
    pub json_keys: usize,
    /// Bytes of one text of a request. Default 16 KiB: it is compared with a column, or stored in one.
    #[serde(deserialize_with = "within::<256, 262_144, _, _>")]
    pub json_string_bytes: usize,
    /// Bytes of a token. Default 4 KiB: with some dozen claims it has one.
    #[serde(deserialize_with = "within::<64, 65_536, _, _>")]
    pub token_bytes: usize,
    /// Topics that one socket may choose, and filters that it may set. Default 128.
    #[serde(deserialize_with = "within::<1, 10_000, _, _>")]
    pub topics_per_socket: usize,
    /// Queries over HTTP and NATS under way at once, of all askers together, and as many that are quick. Default 256: with two
    /// connections to the database, half a second of queries of 4 ms.
    #[serde(deserialize_with = "within::<1, 100_000, _, _>")]
    pub requests_running: usize,
    /// Of these for one identity, or else one address. Default 64: a quarter, so that no three together have them all.
    #[serde(deserialize_with = "within::<1, 100_000, _, _>")]
    pub requests_per_identity: usize,
    /// Requests over HTTP that reach the database or the bus, and queries over NATS, of one asker in a second: by
    /// identity, or else by address, where that is not this machine's. Default 50: more than two sockets may ask
    /// (`messages_per_second`), for one address may be that of many people.
    #[serde(deserialize_with = "within::<1, 1_000_000, _, _>")]
    pub requests_per_second: u32,
    /// The same at once after a quiet time. Default 200: five times what a socket may, so that a ward's screens can
    /// be switched on together.
    #[serde(deserialize_with = "within::<1, 1_000_000, _, _>")]
    pub requests_burst: u32,
    /// Reads of the database that wait for one of its connections, of sockets, HTTP and NATS together.
    /// Default 1,024: what waits longer than `query_timeout_ms` is not answered anyway.
    #[serde(deserialize_with = "within::<1, 65_536, _, _>")]
    pub reads_waiting: usize,
    /// Events that are being stored for `POST /api/events`, of all publishers together. Default 256: a
    /// commit takes all that wait along.
    #[serde(deserialize_with = "within::<1, 100_000, _, _>")]
    pub writes_running: usize,
}
