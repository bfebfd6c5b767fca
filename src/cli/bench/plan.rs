//! A run as it was asked for, read into values that make sense together.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, anyhow, bail, ensure};

use super::{Bench, Speak, body::Body, mark::MAX_EVENTS, process};

/// Descriptors beside those of sockets: standard streams, the poll, the publisher's child, /proc.
const SPARE_FILES: u64 = 16;

/// The largest window: each event under way has a counter.
const MAX_WINDOW: u32 = 1 << 20;

/// A run.
#[derive(Debug)]
pub struct Plan {
    /// The WebSockets to open.
    pub target: Target,
    /// How they are opened, and what they are told first.
    pub opening: Opening,
    /// Where events are published; none where none are.
    pub publish: Option<Target>,
    /// What is published.
    pub body: Body,
    /// When.
    pub load: Load,
    /// Sockets that ask, and what.
    pub queries: Option<(usize, String)>,
    /// How long events are published, or queries asked.
    pub seconds: Duration,
    /// How long the sockets are left alone before that; none where that is not measured.
    pub idle: Option<Duration>,
}

/// Where somebody listens.
#[derive(Debug, Clone)]
pub struct Target {
    /// `ws`, `http`, `nats`, `tcp` or `exec`.
    pub scheme: String,
    /// As it stands in `Host:`.
    pub host: String,
    /// The address; none for a command.
    pub address: Option<SocketAddr>,
    /// What follows the host, from its `/`; the command of `exec`.
    pub path: String,
}

/// How sockets are opened.
#[derive(Debug)]
pub struct Opening {
    /// Sockets that read.
    pub readers: usize,
    /// Sockets that do not.
    pub stalled: usize,
    /// Handshakes a second; none for as many as can be.
    pub rate: Option<f64>,
    /// Lines of the request, beside those of the handshake.
    pub headers: Vec<String>,
    /// Messages to be sent once a socket is open: opcode and payload.
    pub first: Vec<(u8, Vec<u8>)>,
    /// Whether the server speaks NATS inside.
    pub nats: bool,
    /// Whether compression is offered.
    pub deflate: bool,
}

/// When events are published.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Events a second, by the clock; none in a closed loop.
    pub rate: Option<f64>,
    /// Events under way at the most.
    pub window: Option<u32>,
    /// Events that are published at once.
    pub burst: u32,
    /// Events in total.
    pub events: u64,
}

impl Plan {
    /// Reads the flags.
    ///
    /// # Errors
    /// What does not fit together, and what to do about it.
    pub fn of(asked: &Bench) -> anyhow::Result<Self> {
        let target = Target::parse(&asked.url, &["ws"]).context("the address of the sockets")?;
        let publish = asked.publish.as_deref().map(|url| {
            let schemes = ["http", "nats", "tcp", "exec"];
            Target::parse(url, &schemes).context("--publish")
        });
        let publish = publish.transpose()?;
        let files = asked.connections + asked.stalled + asked.queries + asked.publishers;
        let needed = files as u64 + SPARE_FILES;
        ensure!(
            needed <= process::max_files(),
            "{files} connections need {needed} open files, and this shell allows {}: ulimit -n {needed}",
            process::max_files()
        );
        ensure!(
            asked.connections + asked.queries > 0,
            "--connections 0 leaves nothing to measure; at least one socket must read"
        );
        if (asked.rate.is_some() || asked.window.is_some()) && publish.is_none() {
            bail!("--rate and --window say when to publish; say where with --publish");
        }
        let load = load(asked)?;
        Ok(Self {
            body: body(asked, publish.as_ref())?,
            opening: opening(asked, publish.as_ref()),
            queries: queries(asked)?,
            seconds: Duration::try_from_secs_f64(asked.seconds).context("--seconds")?,
            idle: asked
                .idle
                .map(Duration::try_from_secs_f64)
                .transpose()
                .context("--idle")?,
            load,
            target,
            publish,
        })
    }
}

fn load(asked: &Bench) -> anyhow::Result<Load> {
    let window = match (asked.rate, asked.window) {
        (None, None) => Some(asked.burst),
        (_, window) => window,
    };
    ensure!(
        window.is_none_or(|window| (1..=MAX_WINDOW).contains(&window)),
        "--window is between 1 and {MAX_WINDOW}"
    );
    ensure!(
        asked.rate.is_none_or(|rate| rate > 0.0 && rate < 1e7),
        "--rate is between 0 and 10,000,000 events a second"
    );
    ensure!(asked.burst >= 1, "--burst is at least 1");
    ensure!(
        window.is_none_or(|window| window >= asked.burst),
        "--burst {} never fits into --window {}",
        asked.burst,
        window.unwrap_or(0)
    );
    Ok(Load {
        rate: asked.rate,
        window,
        burst: asked.burst,
        events: asked.events.unwrap_or(MAX_EVENTS).min(MAX_EVENTS),
    })
}

fn body(asked: &Bench, publish: Option<&Target>) -> anyhow::Result<Body> {
    let ours = publish.is_some_and(|target| target.path.ends_with("/api/events"));
    let text = match (&asked.body, ours) {
        (Some(text), _) => text.clone(),
        (None, true) => format!("{{\"type\":\"{}\",\"data\":\"{{mark}}\"}}", asked.topic),
        (None, false) => "{mark}".to_owned(),
    };
    Body::parse(&text, asked.size)
}

fn opening(asked: &Bench, publish: Option<&Target>) -> Opening {
    let nats = asked.speak == Speak::Nats;
    let opcode = match nats {
        true => super::frame::BINARY,
        false => super::frame::TEXT,
    };
    let mut first: Vec<(u8, Vec<u8>)> = Vec::new();
    if nats {
        let published = publish.filter(|target| target.scheme == "nats");
        let subject = published.map_or("bench", Target::subject);
        let hello = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
        first.push((opcode, format!("{hello}SUB {subject} 1\r\n").into()));
    }
    let asked_for = asked.subscribe.iter().map(|text| text.clone().into_bytes());
    first.extend(asked_for.map(|text| (opcode, text)));
    Opening {
        readers: asked.connections,
        stalled: asked.stalled,
        rate: asked.connect_rate,
        headers: asked.header.clone(),
        first,
        nats,
        deflate: asked.deflate,
    }
}

fn queries(asked: &Bench) -> anyhow::Result<Option<(usize, String)>> {
    match (asked.queries, &asked.query) {
        (0, _) => Ok(None),
        (sockets, Some(query)) => Ok(Some((sockets, query.clone()))),
        (_, None) => Err(anyhow!(
            "--queries needs --query, such as '{{\"type\":\"patient\",\"id\":1,\"rid\":\"{{mark}}\"}}'"
        )),
    }
}

impl Target {
    /// Reads `scheme://host:port/path`, or `exec:command`.
    ///
    /// # Errors
    /// It is neither, or the host is not known.
    pub fn parse(url: &str, schemes: &[&str]) -> anyhow::Result<Self> {
        if let Some(command) = url
            .strip_prefix("exec:")
            .filter(|_| schemes.contains(&"exec"))
        {
            return Ok(Self {
                scheme: "exec".into(),
                host: String::new(),
                address: None,
                path: command.to_owned(),
            });
        }
        let forms = || {
            format!(
                "{url}: an address that begins with one of {}://",
                schemes.join("://, ")
            )
        };
        let (scheme, rest) = url.split_once("://").with_context(forms)?;
        ensure!(schemes.contains(&scheme), forms());
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let port = match scheme {
            "nats" => ":4222",
            _ => ":80",
        };
        let with_port = match host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            true => host.to_owned(),
            false => format!("{host}{port}"),
        };
        let address = with_port
            .to_socket_addrs()
            .with_context(|| format!("{host} is not known"))?;
        let address = address.into_iter().next();
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            address: Some(address.with_context(|| format!("{host} has no address"))?),
            path: path.to_owned(),
        })
    }

    /// NATS: the subject to publish to.
    pub fn subject(&self) -> &str {
        Some(&self.path[1..])
            .filter(|subject| !subject.is_empty())
            .unwrap_or("bench")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_a_path() {
        let target = Target::parse("ws://127.0.0.1:9/socket/all/?a=1", &["ws"]).unwrap();
        assert_eq!(
            (&*target.host, &*target.path),
            ("127.0.0.1:9", "/socket/all/?a=1")
        );
        let target = Target::parse("nats://127.0.0.1/a.b", &["nats"]).unwrap();
        assert_eq!(
            (target.subject(), target.address.unwrap().port()),
            ("a.b", 4222)
        );
        assert!(Target::parse("wss://127.0.0.1/", &["ws"]).is_err());
        assert!(Target::parse("exec:true", &["ws"]).is_err());
    }
}
