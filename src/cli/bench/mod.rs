//! `rowcast bench`: load for a server, and what it does with it. One thread opens the sockets, reads
//! them all and publishes, so that what is measured is the server and not a crowd of clients.

mod body;
mod crowd;
mod frame;
mod mark;
mod pace;
mod plan;
mod posts;
mod process;
mod publisher;
mod report;
mod run;
mod tally;
mod walk;

use clap::{Args, ValueEnum};

use super::Exit;
use plan::Plan;
use process::Tree;
use run::Run;

const NOTES: &str = "\
Every event carries a mark, @ + 19 digits of time + # + 8 digits of number, by which its deliveries
are counted and timed. In an open loop (--rate) the time is when the event was due, not when it could
be sent: a server that makes everybody wait is not flattered. In a closed loop (--window) an event is
under way until every socket has it. Deliveries per CPU second need --server-pid.

Give the server one core and this program another (taskset), or they take from each other. The exit
code is 1 where something was lost, came twice or was refused.

Examples, with a topic without a table, [[topics]] type = \"bench\", in rowcast.toml:
  rowcast bench --connections 1000 --publish http://127.0.0.1:8888/api/events --window 64
  rowcast bench --connections 1000 --publish http://127.0.0.1:8888/api/events --rate 20 --seconds 10
  rowcast bench --connections 10000 --idle 5 --server-pid $(pidof rowcast)
  rowcast bench --connections 0 --queries 100 --query '{\"type\":\"patient\",\"id\":1,\"rid\":\"{mark}\"}'
Another server:
  rowcast bench ws://127.0.0.1:8080/ --speak nats --publish nats://127.0.0.1:4222/bench --window 64";

/// Flags of `rowcast bench`.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(after_help = NOTES)]
pub struct Bench {
    /// The WebSockets to open
    #[arg(value_name = "URL", default_value = "ws://127.0.0.1:8888/socket/all/")]
    pub url: String,
    /// Sockets that read
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    pub connections: usize,
    /// Handshakes a second [default: as many as can be]
    #[arg(long, value_name = "R", value_parser = positive)]
    pub connect_rate: Option<f64>,
    /// A line for the handshake, such as 'Cookie: a=b'; may be repeated
    #[arg(long, value_name = "LINE")]
    pub header: Vec<String>,
    /// A message that each socket sends first; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub subscribe: Vec<String>,
    /// What is spoken on the sockets
    #[arg(long, value_enum, default_value_t = Speak::Plain)]
    pub speak: Speak,
    /// Offer compression
    #[arg(long)]
    pub deflate: bool,
    /// Where to publish: http://…, nats://host/subject, tcp://… with four bytes of length before
    /// each, or exec:COMMAND that reads lines
    #[arg(long, value_name = "URL")]
    pub publish: Option<String>,
    /// http: requests under way at once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        overrides_with = "publishers"
    )]
    pub publishers: usize,
    /// Publish by the clock, so many events a second
    #[arg(long, value_name = "R", conflicts_with = "window")]
    pub rate: Option<f64>,
    /// Publish when fewer than this are under way [default, without --rate: one burst]
    #[arg(long, value_name = "W")]
    pub window: Option<u32>,
    /// Publish so many at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub burst: u32,
    /// Publish for so long
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub seconds: f64,
    /// Publish so many, if that takes less than --seconds
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
    /// Bytes that are published with each event
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub size: usize,
    /// The topic, where Rowcast's /api/events is published to
    #[arg(long, value_name = "TYPE", default_value = "bench")]
    pub topic: String,
    /// What is published, with {mark} in it [default: what /api/events takes, else the mark alone]
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// Leave the open sockets alone for so long, and say what they cost
    #[arg(long, value_name = "S")]
    pub idle: Option<f64>,
    /// Further sockets that never read, with small buffers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub stalled: usize,
    /// Further sockets that ask, with one question under way on each. A Rowcast answers 20 a second of
    /// each: raise `messages_per_second` and `messages_burst` in its `[limits]`
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub queries: usize,
    /// What they ask; with {mark} in it, its answer must carry the mark
    #[arg(long, value_name = "TEXT")]
    pub query: Option<String>,
    /// The server's process, whose processor time and memory are told with those of all that it has
    /// started; may be repeated
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// What is spoken on the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Speak {
    /// One message of the WebSocket is one event
    Plain,
    /// NATS inside, as nats-server's own WebSocket has it
    Nats,
}

/// Runs the load, and prints what came of it.
///
/// # Errors
/// The run could not be done, and why.
pub fn run(asked: &Bench) -> anyhow::Result<Exit> {
    let plan = Plan::of(asked)?;
    let server = Tree::new(&asked.server_pid)?;
    let report = Run::all(&plan, server, asked.publishers)?;
    match asked.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("{report}"),
    }
    Ok(match report.is_whole() {
        true => Exit::Fine,
        false => Exit::Failure,
    })
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number > 0.0);
    number.ok_or_else(|| "a number above 0".to_owned())
}
