//! The command line: what can be asked of the binary, and what its exit codes mean.

pub mod bench;
mod check;
pub mod init;
mod produce;
mod publish;
mod query;
mod remove;
mod run;
mod serve;
mod tail;
mod token;
mod types;

pub use run::run;
pub use token::Token;

use std::{ffi::OsString, fmt, io::Write, path::PathBuf};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};
use serde_json::{Map, Value as Json, json};

use crate::{
    config::{Config, Overrides, masked},
    position::Position,
    topic::Notation,
};

const EXAMPLES: &str = "\
Examples:
  rowcast                                   serve rowcast.db; the first run creates it with a demo
  rowcast init --database sqlite:care.db    write a rowcast.toml for a database of your own
  rowcast check                             is everything in place, and if not, what to do
  rowcast --listen 127.0.0.1:0              serve on a port that is free
  rowcast query patient --id 1              one reply frame on standard output
  rowcast token --sub ann --claim ward=3    a token for development
  rowcast types > src/topics.ts             the rows of all topics for TypeScript
  rowcast produce --database postgres://rowcast@db/care --bus nats://nats:4222
                                            publish a PostgreSQL's changes to NATS

ROWCAST_TOKEN is the token that publish and tail show to a gateway that wants one.

Every setting can stand in rowcast.toml, in the environment as ROWCAST__SERVER__LISTEN, or, as far
as there is one, in a flag; the later of these wins.

Exit codes:
  0   done, or stopped as asked
  1   failed; standard error says why
  64  wrong usage or configuration; standard error names the file or flag and the key";

const QUERY_EXAMPLES: &str = "\
Examples:
  rowcast query patient
  rowcast query patient --id 1
  rowcast query patient --page 2 --size 20 --order 'name desc'
  rowcast query patient --filter '{\"ward\":\"3\",\"age\":{\"gte\":80},\"floor\":[1,2]}'
  rowcast query visit --all
  rowcast query visit --params '{\"size\":5}'

The reply is the frame that a browser gets. A refused query is a sys:error frame and exit code 1.";

const TYPES_NOTES: &str = "\
Reads the tables as they are now. In TypeScript each topic has an interface for its rows, and Topics
maps the types on the wire to them: connect<Topics>() of rowcast.js is typed by it. A running
gateway answers the same at /api/types?lang=ts.

Example:
  rowcast types > src/topics.ts";

const INIT_NOTES: &str = "\
Reads the database that --database names and writes one topic a table to --config, by default
./rowcast.toml. Tables and columns that look private (accounts, sessions, tokens, migrations) are
left commented out. An existing file is only written over with --force; the database is never
created or changed.

Example:
  rowcast init --database sqlite:db.sqlite3 && rowcast check";

/// What the process was asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Cli {
    /// Flags that every command takes.
    pub common: Common,
    /// The command; [`Command::Serve`] where none was named.
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Common {
    /// The configuration file [default: ./rowcast.toml, where it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// The database, such as sqlite:rowcast.db or postgres://user@host/database
    #[arg(long, value_name = "URL", global = true)]
    pub database: Option<String>,
    /// The bus, such as embedded: or nats://host:4222
    #[arg(long, value_name = "URL", global = true)]
    pub bus: Option<String>,
}

/// Without what the URLs let in with.
impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common")
            .field("config", &self.config)
            .field("database", &self.database.as_deref().map(masked))
            .field("bus", &self.bus.as_deref().map(masked))
            .finish()
    }
}

/// One command with its own flags.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Serve browsers: carry changes to them and answer their queries (the default)
    Serve(Serve),
    /// Publish a database's changes to NATS; of several one is active
    Produce(Produce),
    /// Answer one query as a browser would get it: prints the reply frame alone
    Query(Box<Query>),
    /// Publish an application's event: prints its cursor once the bus holds it
    Publish(Publish),
    /// Print events as they come, one frame a line
    Tail(Tail),
    /// Sign a token for development with the secret in auth.key, and print it
    Token(Token),
    /// Print the topics' rows as types, for TypeScript or as JSON Schema
    Types(Types),
    /// Put load on a server of yours, and say what it does with it
    Bench(Box<bench::Bench>),
    /// Check every precondition and say how to mend what is not met
    Check,
    /// Look at a database and write a commented rowcast.toml for it
    Init(Init),
    /// Take everything that Rowcast put into the database off again
    Remove,
}

/// Flags of `rowcast serve`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Serve {
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8888]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

/// Flags of `rowcast produce`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Produce {
    /// Where to answer /healthz, /readyz and /metrics [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

/// Flags of `rowcast init`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(after_help = INIT_NOTES)]
pub struct Init {
    /// Write over an existing file
    #[arg(long)]
    pub force: bool,
}

/// Flags of `rowcast query`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(after_help = QUERY_EXAMPLES)]
pub struct Query {
    /// The topic
    #[arg(value_name = "TYPE")]
    pub topic: String,
    /// The row with this key; a composite key as JSON: '{"a":1,"b":2}'
    #[arg(long, value_parser = read_id, allow_hyphen_values = true,
          conflicts_with_all = ["page", "size", "order", "filter", "after", "all"])]
    pub id: Option<Json>,
    /// The page, from 1
    #[arg(long, value_name = "N")]
    pub page: Option<u32>,
    /// Rows of a page
    #[arg(long, value_name = "N")]
    pub size: Option<u32>,
    /// A column to sort by, 'name' or 'name desc'; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub order: Vec<String>,
    /// Conditions, all of which must hold
    #[arg(long, value_name = "JSON", value_parser = read_object)]
    pub filter: Option<Map<String, Json>>,
    /// Continue after a page: its page.next
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub after: Option<String>,
    /// The whole view, in parts
    #[arg(long)]
    pub all: bool,
    /// The parameters as they stand in a frame, instead of the flags above
    #[arg(long, value_name = "JSON", value_parser = read_object,
          conflicts_with_all = ["id", "page", "size", "order", "filter", "after", "all"])]
    pub params: Option<Map<String, Json>>,
}

/// Flags of `rowcast publish`.
#[derive(Clone, PartialEq, Args)]
pub struct Publish {
    /// The topic
    #[arg(value_name = "TYPE")]
    pub topic: String,
    /// The data, JSON
    #[arg(value_name = "JSON", value_parser = read_json)]
    pub data: Json,
    /// An id; the same one within two minutes stores nothing
    #[arg(long)]
    pub id: Option<String>,
    /// A running gateway to publish through [default: straight to NATS, or server.listen]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Without the data, which is not ours to show, and without what the URL lets in with.
impl fmt::Debug for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("id", &self.id)
            .field("url", &self.url.as_deref().map(shown))
            .finish_non_exhaustive()
    }
}

/// Flags of `rowcast tail`.
#[derive(Clone, Default, PartialEq, Args)]
pub struct Tail {
    /// Only these topics
    #[arg(value_name = "TYPE")]
    pub topics: Vec<String>,
    /// Begin after this cursor [default: at the head]
    #[arg(long, value_name = "CURSOR", value_parser = tail::read_cursor)]
    pub since: Option<Position>,
    /// A running gateway to listen to [default: straight from NATS, or server.listen]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Flags of `rowcast types`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(after_help = TYPES_NOTES)]
pub struct Types {
    /// TypeScript, or one JSON Schema document
    #[arg(long, default_value = Notation::NAMES[0], value_parser = notation())]
    pub lang: Notation,
}

/// What to do about a NATS that cannot be used.
const NATS_REMEDY: &str = "see that nats-server 2.12 or later runs there with JetStream \
    (nats-server -js), and that user and password are right";

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, or stopped as asked: 0.
    Fine,
    /// Failed, or a precondition is not met: 1.
    Failure,
    /// Wrong usage or configuration: 64, the EX_USAGE of sysexits.h.
    Usage,
}

#[derive(Debug, Parser)]
#[command(
    name = "rowcast",
    version,
    about = "Committed database changes to every browser, on one WebSocket, without a gap.",
    after_help = EXAMPLES,
)]
struct Line {
    // First, for the heading of the common flags goes on to all that follow them.
    #[command(flatten)]
    serve: Serve,
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// The process is to end with this [`Exit`] at once; everything has been said already: help and
/// version on standard output, wrong usage on standard error.
pub fn parse<T: Into<OsString> + Clone>(args: impl IntoIterator<Item = T>) -> Result<Cli, Exit> {
    Line::try_parse_from(args).and_then(settle).map_err(print)
}

/// Says what clap says, but for what may be a secret: URLs with a password where none belongs, and an
/// event's data.
fn print(mut err: clap::Error) -> Exit {
    let exit = exit(&err);
    let has_data = |value: &ContextValue| value.to_string().contains("JSON");
    if err.get(ContextKind::InvalidArg).is_some_and(has_data) {
        let nothing = ContextValue::String("…".to_owned());
        err.insert(ContextKind::InvalidValue, nothing);
    }
    let text = err.render().to_string();
    let shown = masked(&text);
    // Whoever closed the terminal has no need for the text; the exit code still tells.
    let _ = match exit == Exit::Fine || shown == text {
        true => err.print(),
        false => std::io::stderr().write_all(shown.as_bytes()),
    };
    exit
}

/// Clap's own code for wrong usage is 2.
fn exit(err: &clap::Error) -> Exit {
    match err.use_stderr() {
        true => Exit::Usage,
        false => Exit::Fine,
    }
}

/// `--listen` may stand before `serve` or without it, but with no other command.
fn settle(line: Line) -> Result<Cli, clap::Error> {
    let command = match (line.command, line.serve.listen) {
        (None, listen) => Command::Serve(Serve { listen }),
        (Some(Command::Serve(serve)), listen) => Command::Serve(Serve {
            listen: serve.listen.or(listen),
        }),
        (Some(Command::Produce(produce)), listen) => Command::Produce(Produce {
            listen: produce.listen.or(listen),
        }),
        (Some(command), None) => command,
        (Some(_), Some(_)) => {
            let text = "--listen belongs to `rowcast serve` and `rowcast produce`";
            return Err(Line::command().error(ErrorKind::ArgumentConflict, text));
        }
    };
    Ok(Cli {
        common: line.common,
        command,
    })
}

// === impl Cli ===

impl Cli {
    /// The flags as a layer of the configuration.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            database: self.common.database.clone(),
            bus: self.common.bus.clone(),
            listen: match &self.command {
                Command::Serve(serve) => serve.listen.clone(),
                _ => None,
            },
            produce_listen: match &self.command {
                Command::Produce(produce) => produce.listen.clone(),
                _ => None,
            },
        }
    }
}

// === impl Query ===

impl Query {
    /// The frame that a browser would send for this (docs/protocol.md §1.1), without `rid`.
    pub fn frame(&self) -> Json {
        let mut frame = json!({ "type": self.topic });
        if let Some(id) = &self.id {
            frame["id"] = id.clone();
            return frame;
        }
        let params = self.params.clone().unwrap_or_else(|| self.flags());
        if !params.is_empty() {
            frame["params"] = params.into();
        }
        frame
    }

    fn flags(&self) -> Map<String, Json> {
        let order = (!self.order.is_empty()).then(|| json!(self.order));
        let given = [
            ("page", self.page.map(Json::from)),
            ("size", self.size.map(Json::from)),
            ("order", order),
            ("filter", self.filter.clone().map(Json::Object)),
            ("after", self.after.clone().map(Json::from)),
            ("all", self.all.then_some(Json::Bool(true))),
        ];
        let told = |(name, value): (&str, Option<Json>)| Some((name.to_owned(), value?));
        given.into_iter().filter_map(told).collect()
    }
}

fn read_object(text: &str) -> Result<Map<String, Json>, String> {
    serde_json::from_str(text).map_err(|err| format!("a JSON object is needed: {err}"))
}

fn read_json(text: &str) -> Result<Json, String> {
    serde_json::from_str(text).map_err(|err| format!("JSON is needed, a text in quotes: {err}"))
}

fn notation() -> impl TypedValueParser<Value = Notation> {
    let named = PossibleValuesParser::new(Notation::NAMES);
    named.try_map(|name| Notation::parse(&name).ok_or("no such notation"))
}

/// Where a command finds the gateway, as it may be shown.
fn shown(url: &str) -> String {
    let (place, _) = url.split_once('?').unwrap_or((url, ""));
    masked(place).into_owned()
}

/// Where a command finds the gateway.
fn gateway_url(config: &Config, url: Option<&str>) -> String {
    match url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", config.server.listen),
    }
}

/// The token that a gateway is shown, where one is needed. Not a flag: others can read those.
fn gateway_token() -> Option<String> {
    let token = std::env::var("ROWCAST_TOKEN").ok();
    token.filter(|token| !token.is_empty())
}

/// A key of one column is passed on as text: the wire accepts numbers in that form.
fn read_id(text: &str) -> Result<Json, String> {
    match text.starts_with('{') {
        true => read_object(text).map(Json::Object),
        false => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests;
