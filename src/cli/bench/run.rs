//! A run, from the first handshake to the last delivery: one thread, one poll.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use mio::{Events, Poll, Token};

use super::{
    crowd::Crowd,
    mark::{Mark, now_ns},
    pace::Pace,
    plan::Plan,
    process::Tree,
    publisher::Publisher,
    report::{Idle, Report, Used},
    tally::{Tally, Window},
};

/// Handshakes under way at once: fewer than the 128 connections that many servers let wait to be
/// accepted. One more is not refused but tried again a second later, and would measure that.
const SHAKING: usize = 100;

/// How long no handshake may be answered before the run is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long nothing may arrive before what is missing counts as lost.
const SILENCE: Duration = Duration::from_secs(2);

/// Sockets are open, and have heard what a server says first, when nothing came for this long.
const SETTLED: Duration = Duration::from_millis(300);

/// How often memory is looked at while events are published.
const LOOK: Duration = Duration::from_millis(500);

/// The publisher's tokens; below are the sockets'.
const PUBLISHER: usize = 1 << 32;

/// What a run holds.
pub struct Run<'a> {
    plan: &'a Plan,
    server: Option<Tree>,
    poll: Poll,
    events: Events,
    crowd: Crowd,
    tally: Tally,
    window: Option<Window>,
    refused: Vec<u64>,
    report: Report,
}

impl<'a> Run<'a> {
    /// Does all of it.
    ///
    /// # Errors
    /// The server cannot be reached, or does not do what a WebSocket server does.
    pub fn all(plan: &'a Plan, server: Option<Tree>, posters: usize) -> anyhow::Result<Report> {
        let mut run = Self {
            crowd: Crowd::new(&plan.target, &plan.opening),
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            tally: Tally::new(0),
            window: None,
            refused: Vec::new(),
            report: Report::default(),
            server,
            plan,
        };
        run.connect()?;
        run.settle(SETTLED)?;
        if let Some(idle) = plan.idle {
            run.idle(idle)?;
        }
        run.report.rss.open = run.rss();
        if let Some((sockets, query)) = &plan.queries {
            run.queries(*sockets, query)?;
        } else if let Some(target) = &plan.publish {
            let registry = run.poll.registry();
            let body = plan.body.clone();
            let publisher = Publisher::connect(target, body, (registry, PUBLISHER, posters))?;
            run.publish(publisher)?;
        }
        run.report.rss.end = run.rss();
        run.report.closed = run.crowd.closed.clone();
        run.report.count(&run.tally);
        Ok(run.report)
    }

    fn rss(&self) -> Option<u64> {
        self.server.as_ref().map(Tree::rss)
    }

    fn cpu(&self) -> Option<f64> {
        self.server.as_ref().map(Tree::cpu_s)
    }

    // === opening ===

    fn connect(&mut self) -> anyhow::Result<()> {
        let opening = &self.plan.opening;
        let asking = self
            .plan
            .queries
            .as_ref()
            .map_or(0, |(sockets, _)| *sockets);
        let reading = opening.readers + asking;
        let all = reading + opening.stalled;
        self.report.rss.before = self.rss();
        let (begun, cpu) = (Instant::now(), self.cpu());
        let mut last = (0, Instant::now());
        while self.crowd.open < all {
            let now = Instant::now();
            let due = opening
                .rate
                .map_or(f64::MAX, |rate| (now - begun).as_secs_f64() * rate + 1.0);
            while self.crowd.len() < all
                && self.crowd.pending < SHAKING
                && (self.crowd.len() as f64) < due
            {
                let stalls = self.crowd.len() >= reading;
                self.crowd
                    .connect(&self.plan.target, self.poll.registry(), stalls)?;
            }
            self.wait(Some(Duration::from_millis(1)))?;
            for index in self.ready() {
                if self.crowd.is_pending(index) {
                    let shaken = self.crowd.shake(index, index >= reading);
                    shaken.with_context(|| format!("socket {} of {all}", index + 1))?;
                }
                // What came right behind the answer is not announced again.
                self.crowd.read(index, &mut self.tally, None);
            }
            if self.crowd.open > last.0 {
                last = (self.crowd.open, now);
            }
            if now - last.1 > HANDSHAKE_TIMEOUT && self.crowd.pending > 0 {
                bail!(
                    "{} of {all} sockets are open, and no further handshake is answered",
                    last.0
                );
            }
        }
        let opened = Used::since(begun, cpu, self.cpu());
        self.report.opened(all, opening.readers, opened);
        self.report.deflate = self.crowd.deflate;
        Ok(())
    }

    /// Reads until nothing has come for so long.
    fn settle(&mut self, quiet: Duration) -> anyhow::Result<()> {
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            self.wait(Some(quiet.saturating_sub(last.elapsed())))?;
            for index in self.ready() {
                self.crowd.read(index, &mut self.tally, None);
                last = Instant::now();
            }
        }
        Ok(())
    }

    /// Leaves the sockets alone, but for what they must answer.
    fn idle(&mut self, idle: Duration) -> anyhow::Result<()> {
        let (begun, cpu) = (Instant::now(), self.cpu());
        while begun.elapsed() < idle {
            self.wait(Some(idle.saturating_sub(begun.elapsed())))?;
            for index in self.ready() {
                self.crowd.read(index, &mut self.tally, None);
            }
        }
        let used = Used::since(begun, cpu, self.cpu());
        let grown = self.rss().zip(self.report.rss.before);
        let sockets = self.crowd.len() as f64;
        self.report.idle = Some(Idle {
            rss_per_socket: grown.map(|(now, before)| (now as f64 - before as f64) / sockets),
            cpu_us_per_socket_second: used.cpu_s.map(|cpu_s| cpu_s * 1e6 / used.wall_s / sockets),
        });
        Ok(())
    }

    // === publishing ===

    fn publish(&mut self, mut publisher: Publisher) -> anyhow::Result<()> {
        let readers = self.plan.opening.readers as u64;
        self.window = self
            .plan
            .load
            .window
            .map(|window| Window::new(window, readers as u32));
        self.tally = Tally::new(now_ns());
        let (begun, begun_ns, cpu) = (Instant::now(), now_ns(), self.cpu());
        let mut pace = Pace::new(self.plan.load, begun_ns);
        let end_ns = begun_ns + self.plan.seconds.as_nanos() as u64;
        let (mut last, mut look) = (Instant::now(), Instant::now());
        self.report.rss.peak = self.rss();
        loop {
            let now = now_ns();
            let publishing = now < end_ns && publisher.published < self.plan.load.events;
            if publishing && pace.publish(&mut publisher, now, self.window.as_ref()) {
                publisher.flush()?;
            }
            let timeout = match publishing {
                true => pace.timeout(now_ns(), self.window.as_ref(), publisher.published),
                false => Duration::from_millis(20),
            };
            self.wait(Some(timeout))?;
            if self.receive(&mut publisher)? {
                last = Instant::now();
            }
            let refused = self.report.refused;
            let complete = self.tally.delivered >= (publisher.published - refused) * readers;
            let stuck = last.elapsed() > SILENCE;
            // An open loop is silent as long as nothing is due; a closed one waits for deliveries.
            let waits = !publishing || self.plan.load.rate.is_none();
            if (!publishing && complete && publisher.is_idle()) || (stuck && waits) {
                break;
            }
            if look.elapsed() > LOOK {
                look = Instant::now();
                self.report.rss.peak = self.report.rss.peak.max(self.rss());
            }
        }
        let used = Used::since(begun, cpu, self.cpu());
        let wall_s = self.tally.last_ns.saturating_sub(begun_ns) as f64 / 1e9;
        self.report.refusal = publisher.refusal().map(str::to_owned);
        self.report
            .published(publisher.published, Used { wall_s, ..used });
        Ok(())
    }

    /// Reads whoever is ready. Returns whether something was delivered or refused.
    fn receive(&mut self, publisher: &mut Publisher) -> anyhow::Result<bool> {
        let before = (self.tally.delivered, self.report.refused);
        for token in self.tokens() {
            if token.0 >= PUBLISHER {
                publisher.ready(token, &mut self.refused)?;
                continue;
            }
            self.crowd
                .read(token.0, &mut self.tally, self.window.as_mut());
        }
        for number in self.refused.drain(..) {
            self.report.refused += 1;
            if let Some(window) = &mut self.window {
                window.give_up(number);
            }
        }
        Ok(before != (self.tally.delivered, self.report.refused))
    }

    // === asking ===

    fn queries(&mut self, sockets: usize, query: &str) -> anyhow::Result<()> {
        let first = self.plan.opening.readers;
        let marked = query.contains("{mark}");
        self.tally = Tally::new(now_ns());
        let (begun, cpu) = (Instant::now(), self.cpu());
        let mut number = 0;
        for index in first..first + sockets {
            self.ask(index, query, &mut number)?;
        }
        let (mut answers, mut last) = (0, Instant::now());
        while begun.elapsed() < self.plan.seconds {
            self.wait(Some(Duration::from_millis(20)))?;
            for index in self.ready() {
                let heard = self.crowd.read(index, &mut self.tally, None);
                let answered = match marked {
                    true => heard.marked > 0,
                    false => heard.unmarked > 0,
                };
                if index < first || !answered {
                    continue;
                }
                if !marked {
                    let late = now_ns().saturating_sub(self.crowd.asked_ns(index));
                    self.tally.latency_us.saturating_record(late / 1_000);
                }
                (answers, last) = (answers + 1, Instant::now());
                self.ask(index, query, &mut number)?;
            }
            ensure!(
                last.elapsed() < SILENCE,
                "the server answers no query any more; {answers} were answered. Is --query right?"
            );
        }
        let used = Used::since(begun, cpu, self.cpu());
        self.report.answered(answers, used);
        Ok(())
    }

    fn ask(&mut self, index: usize, query: &str, number: &mut u64) -> anyhow::Result<()> {
        let due_ns = now_ns();
        let mut text = Vec::new();
        match query.split_once("{mark}") {
            Some((before, after)) => {
                text.extend_from_slice(before.as_bytes());
                let mark = Mark {
                    due_ns,
                    number: *number % super::mark::MAX_EVENTS,
                };
                mark.write(&mut text);
                text.extend_from_slice(after.as_bytes());
            }
            None => text.extend_from_slice(query.as_bytes()),
        }
        *number += 1;
        let taken = self.crowd.ask(index, &text, due_ns);
        ensure!(
            taken,
            "the server takes no query any more on socket {}",
            index + 1
        );
        Ok(())
    }

    // === waiting ===

    fn wait(&mut self, timeout: Option<Duration>) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(err) if err.kind() != io::ErrorKind::Interrupted => Err(err).context("epoll"),
            _ => Ok(()),
        }
    }

    fn tokens(&self) -> Vec<Token> {
        self.events.iter().map(mio::event::Event::token).collect()
    }

    fn ready(&self) -> Vec<usize> {
        let tokens = self.events.iter().map(|event| event.token().0);
        tokens.filter(|token| *token < PUBLISHER).collect()
    }
}
