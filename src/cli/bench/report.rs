//! What a run has shown: a table for a person, one line of JSON for a program.

use std::{collections::BTreeMap, fmt, time::Instant};

use serde::Serialize;

use super::tally::Tally;
use crate::protocol::ErrorCode;

/// What was measured. Nothing that was not is in it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Sockets that were opened.
    pub connections: usize,
    /// Those of them that read events.
    pub readers: usize,
    /// Whether messages may be compressed.
    pub deflate: bool,
    /// Handshakes.
    pub opening: Option<Rate>,
    /// What the open sockets cost while nothing happened.
    pub idle: Option<Idle>,
    /// Events that were published, and what became of them.
    pub events: Option<Events>,
    /// Queries that were answered.
    pub queries: Option<Rate>,
    /// From when an event was due, or a question asked, in milliseconds.
    pub latency_ms: Option<Latency>,
    /// The server's memory, in bytes.
    pub rss: Rss,
    /// Sockets that the server has closed, by code.
    pub closed: BTreeMap<u16, u64>,
    /// Bytes read.
    pub bytes: u64,
    /// Events that the server did not take.
    pub refused: u64,
    /// What it said to the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// How often something happened.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Rate {
    /// How often.
    pub count: u64,
    /// A second.
    pub per_second: f64,
    /// A second of the server's processor time.
    pub per_cpu_second: Option<f64>,
    /// The server's processor time, in seconds.
    pub cpu_s: Option<f64>,
    /// Seconds that it took.
    pub wall_s: f64,
}

/// What idle sockets cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Idle {
    /// Bytes of the server's memory that each has added.
    pub rss_per_socket: Option<f64>,
    /// Microseconds of processor time, a second and socket.
    pub cpu_us_per_socket_second: Option<f64>,
}

/// Events, and what became of them.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Events {
    /// Events published.
    pub published: u64,
    /// Events that should have been delivered, over all sockets.
    pub expected: u64,
    /// Deliveries.
    pub deliveries: Rate,
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicates: u64,
    /// Deliveries that came behind a later one.
    pub reordered: u64,
    /// Deliveries that came compressed, other compressed frames included.
    pub compressed: u64,
}

/// How late.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of them were faster.
    pub p50: f64,
    /// Nine of ten were.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// 999 of a thousand.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// The server's memory.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Rss {
    /// Before the first socket.
    pub before: Option<u64>,
    /// With all sockets open.
    pub open: Option<u64>,
    /// The most while events were published, as far as it was looked at.
    pub peak: Option<u64>,
    /// At the end.
    pub end: Option<u64>,
}

/// Time that has passed.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    /// Seconds by the clock.
    pub wall_s: f64,
    /// Seconds of the server's processor time.
    pub cpu_s: Option<f64>,
}

impl Used {
    /// From a moment, and what the server had used by then, until now.
    pub fn since(begun: Instant, before: Option<f64>, now: Option<f64>) -> Self {
        Self {
            wall_s: begun.elapsed().as_secs_f64(),
            cpu_s: now.zip(before).map(|(now, before)| now - before),
        }
    }

    fn rate(self, count: u64) -> Rate {
        let per = |seconds: f64| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        Rate {
            count,
            per_second: per(self.wall_s),
            per_cpu_second: self.cpu_s.filter(|cpu_s| *cpu_s > 0.0).map(per),
            cpu_s: self.cpu_s,
            wall_s: self.wall_s,
        }
    }
}

impl Report {
    /// All sockets are open.
    pub fn opened(&mut self, connections: usize, readers: usize, used: Used) {
        (self.connections, self.readers) = (connections, readers);
        self.opening = Some(used.rate(connections as u64));
    }

    /// Everything is published, and delivered as far as it will be.
    pub fn published(&mut self, published: u64, used: Used) {
        let expected = (published - self.refused) * self.readers as u64;
        self.events = Some(Events {
            published,
            expected,
            // The count comes with the tally.
            deliveries: used.rate(0),
            ..Events::default()
        });
    }

    /// The queries' time is over.
    pub fn answered(&mut self, answers: u64, used: Used) {
        self.queries = Some(used.rate(answers));
    }

    /// What the sockets have counted.
    pub fn count(&mut self, tally: &Tally) {
        self.bytes = tally.bytes;
        if let Some(events) = &mut self.events {
            let used = Used {
                wall_s: events.deliveries.wall_s,
                cpu_s: events.deliveries.cpu_s,
            };
            events.deliveries = used.rate(tally.delivered);
            events.lost = events.expected.saturating_sub(tally.delivered);
            events.duplicates = tally.duplicates;
            events.reordered = tally.reordered;
            events.compressed = tally.compressed;
        }
        let at = |quantile: f64| tally.latency_us.value_at_quantile(quantile) as f64 / 1_000.0;
        self.latency_ms = (!tally.latency_us.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: tally.latency_us.max() as f64 / 1_000.0,
        });
    }

    /// Whether everything came, once.
    pub fn is_whole(&self) -> bool {
        let fine = |events: &Events| events.lost + events.duplicates == 0;
        self.refused == 0 && self.events.as_ref().is_none_or(fine)
    }
}

// === for a person ===

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(opening) = &self.opening {
            let compressed = if self.deflate { ", compressed" } else { "" };
            row(
                f,
                "sockets",
                format!("{} open{compressed}", self.connections),
            )?;
            row(f, "handshakes", opening)?;
        }
        if let Some(idle) = &self.idle {
            self.idle_rows(f, idle)?;
        }
        if let Some(events) = &self.events {
            self.event_rows(f, events)?;
        }
        if let Some(queries) = &self.queries {
            row(f, "answers", queries)?;
        }
        if let Some(latency) = &self.latency_ms {
            let Latency {
                p50,
                p90,
                p99,
                p999,
                max,
            } = latency;
            let text = format!(
                "p50 {p50:.2}   p90 {p90:.2}   p99 {p99:.2}   p99.9 {p999:.2}   max {max:.2} ms"
            );
            row(f, "latency", text)?;
        }
        if let (Some(before), Some(end)) = (self.rss.before, self.rss.end) {
            let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1048576.0);
            let open = self
                .rss
                .open
                .map_or_else(String::new, |open| format!("{} with sockets, ", mib(open)));
            let peak = self
                .rss
                .peak
                .map_or_else(String::new, |peak| format!("{} at the most, ", mib(peak)));
            row(
                f,
                "server memory",
                format!(
                    "{} MiB before, {open}{peak}{} at the end",
                    mib(before),
                    mib(end)
                ),
            )?;
        }
        for (code, count) in &self.closed {
            row(f, "closed by server", format!("{count} with {code}"))?;
        }
        Ok(())
    }
}

impl Report {
    fn idle_rows(&self, f: &mut fmt::Formatter<'_>, idle: &Idle) -> fmt::Result {
        if let Some(rss) = idle.rss_per_socket {
            row(f, "an idle socket", format!("{rss:.0} bytes"))?;
        }
        if let Some(cpu) = idle.cpu_us_per_socket_second {
            row(f, "", format!("{cpu:.2} µs of CPU a second"))?;
        }
        Ok(())
    }

    fn event_rows(&self, f: &mut fmt::Formatter<'_>, events: &Events) -> fmt::Result {
        let readers = self.readers;
        row(
            f,
            "published",
            format!("{} events to {readers} sockets", events.published),
        )?;
        row(f, "deliveries", events.deliveries)?;
        let Events {
            lost,
            duplicates,
            reordered,
            ..
        } = events;
        row(
            f,
            "",
            format!("{lost} lost, {duplicates} twice, {reordered} out of order"),
        )?;
        if self.deflate {
            let bytes = self.bytes as f64 / events.deliveries.count.max(1) as f64;
            row(
                f,
                "",
                format!("{} compressed, {bytes:.0} bytes each", events.compressed),
            )?;
        }
        if self.refused > 0 {
            let why = self.refusal.as_deref().unwrap_or("");
            row(
                f,
                "refused",
                format!("{} events; the first with\n{why}", self.refused),
            )?;
            if why.contains(ErrorCode::UnknownType.slug()) {
                let hint = "--topic names one that the server has; of its own a server has one with\n\
                            [[topics]]\ntype = \"bench\"\nin its rowcast.toml";
                row(f, "what to do", hint.to_owned())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} in {:.2} s: {:.0}/s",
            self.count, self.wall_s, self.per_second
        )?;
        if let Some(cpu_s) = self.cpu_s {
            write!(f, ", {cpu_s:.2} s of CPU")?;
        }
        match self.per_cpu_second {
            Some(rate) => write!(f, ": {rate:.0} per CPU second"),
            None => Ok(()),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<18}{text}")
}
