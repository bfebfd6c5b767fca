//! The pipeline at a glance: from the database to the sockets, in this process and in the others on
//! the bus. One task gathers it, at most once a second however many ask; another reads the dead
//! letters, for one asker after the other.

mod process;
mod roll;

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value as Json, json};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout, timeout_at},
};

pub use process::{Process, Serving, Watching};
use roll::Roll;

use crate::{
    bus::{Bus, DeadLetters, Durability},
    clock::now_ms,
    metrics::Part,
    status::{Incident, Own, Stage, State},
};

/// From the beginning of one gathering to that of the next; who asks meanwhile gets the last one.
const INTERVAL: Duration = Duration::from_millis(1000);

/// Who asks so shortly before the next one may begin waits for it, so that a page that asks once a
/// second does not get every other one twice.
const NEARLY: Duration = Duration::from_millis(300);

/// How long the bus and the other processes may take to answer.
const PATIENCE: Duration = Duration::from_millis(300);

/// How much longer is waited once everybody has answered who was there the last time.
const STRANGERS: Duration = Duration::from_millis(50);

/// The most answers of one gathering that are looked at.
const MAX_ANSWERS: usize = 1024;

/// How often the roll is called while nobody asks: who looks first after something was killed is to see
/// what. Often enough that one lost answer is no silence of a minute.
const ROLL_INTERVAL: Duration = Duration::from_secs(15);

/// How often it is asked anew what an acknowledgement of the bus is worth.
const DURABILITY_INTERVAL: Duration = Duration::from_secs(30);

/// How long that may take: longer than the bus itself waits for its server's monitoring.
const DURABILITY_PATIENCE: Duration = Duration::from_secs(5);

/// How long the dead letters may take to be read.
const LETTERS_PATIENCE: Duration = Duration::from_secs(2);

/// Requests that wait for their task; the next one waits for room.
const QUEUE: usize = 64;

/// Shows the pipeline. Cloning shares the tasks behind it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    reports: mpsc::Sender<oneshot::Sender<Arc<str>>>,
    letters: mpsc::Sender<AskLetters>,
    process: Arc<Process>,
}

type AskLetters = (usize, oneshot::Sender<Result<Arc<DeadLetters>, Away>>);

/// The bus cannot be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// Starts showing `bus` and `process`, until every handle is dropped.
pub fn serve(bus: impl Bus, process: Arc<Process>) -> Pipeline {
    let (told, durability) = watch::channel(None);
    tokio::spawn(ask_durability(bus.clone(), told));
    let (reports, asks) = mpsc::channel(QUEUE);
    let desk = Desk {
        bus: bus.clone(),
        process: process.clone(),
        roll: Roll::default(),
        head: None,
        durability,
    };
    tokio::spawn(show(desk, asks));
    let (letters, asks) = mpsc::channel(QUEUE);
    tokio::spawn(read_letters(bus, asks));
    Pipeline {
        reports,
        letters,
        process,
    }
}

impl Pipeline {
    /// This process.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The body of `GET /api/pipeline`, at most a second old.
    ///
    /// # Errors
    /// [`Away`] only where the task has ended, as when the process stops.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn report(&self) -> Result<Arc<str>, Away> {
        let (reply, answer) = oneshot::channel();
        self.reports.send(reply).await.map_err(|_| Away)?;
        answer.await.map_err(|_| Away)
    }

    /// The newest dead letters, as they were within the last second, or where it took long to read
    /// them within the last four times that. At least `limit`, where there are as many.
    ///
    /// # Errors
    /// [`Away`]: ask again later.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn dead_letters(&self, limit: usize) -> Result<Arc<DeadLetters>, Away> {
        let (reply, answer) = oneshot::channel();
        let sent = self.letters.send((limit, reply)).await;
        sent.map_err(|_| Away)?;
        answer.await.unwrap_or(Err(Away))
    }
}

async fn read_letters(bus: impl Bus, mut asks: mpsc::Receiver<AskLetters>) {
    let mut last: Option<Letters> = None;
    while let Some((limit, reply)) = asks.recv().await {
        if reply.is_closed() {
            continue;
        }
        last = last.filter(|last| limit <= last.limit && Instant::now() < last.until);
        let letters = match &last {
            Some(last) => last.found.clone(),
            None => {
                let begun = Instant::now();
                let found = match timeout(LETTERS_PATIENCE, bus.dead_letters(limit)).await {
                    Ok(Ok(letters)) => Ok(Arc::new(letters)),
                    Ok(Err(err)) => {
                        tracing::debug!(error = %err, "dead letters cannot be read");
                        Err(Away)
                    }
                    Err(_) => Err(Away),
                };
                // They come over the connection that carries the events: most of the time is theirs.
                let until = Instant::now() + INTERVAL.max(begun.elapsed() * 4);
                last = Some(Letters {
                    limit,
                    until,
                    found: found.clone(),
                });
                found
            }
        };
        // Who asked may have gone.
        let _ = reply.send(letters);
    }
}

/// The newest dead letters as they were read last, or that they could not be.
struct Letters {
    limit: usize,
    until: Instant,
    found: Result<Arc<DeadLetters>, Away>,
}

/// Asks again and again what an acknowledgement of the bus is worth.
async fn ask_durability(bus: impl Bus, told: watch::Sender<Option<Durability>>) {
    loop {
        // A bus that is away has not become worse.
        if let Ok(Ok(_)) = timeout(DURABILITY_PATIENCE, bus.head()).await
            && let Ok(worth) = timeout(DURABILITY_PATIENCE, bus.durability()).await
        {
            told.send_replace(Some(worth));
        }
        let pause = match *told.borrow() {
            Some(_) => DURABILITY_INTERVAL,
            None => INTERVAL,
        };
        tokio::select! {
            () = told.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn show(mut desk: Desk<impl Bus>, mut asks: mpsc::Receiver<oneshot::Sender<Arc<str>>>) {
    let mut last: Option<(Instant, Arc<str>)> = None;
    let mut rolls = tokio::time::interval(ROLL_INTERVAL);
    loop {
        let ask = tokio::select! {
            ask = asks.recv() => ask,
            _ = rolls.tick() => {
                hear(&desk.bus, &desk.process.id, &mut desk.roll).await;
                continue;
            }
        };
        let Some(ask) = ask else { return };
        let fresh = last
            .as_ref()
            .filter(|(begun, _)| begun.elapsed() + NEARLY < INTERVAL);
        let text = match fresh {
            Some((_, text)) => text.clone(),
            None => {
                if let Some((begun, _)) = &last {
                    tokio::time::sleep_until(*begun + INTERVAL).await;
                }
                let begun = Instant::now();
                rolls.reset();
                let text: Arc<str> = desk.gather().await.to_string().into();
                last = Some((begun, text.clone()));
                text
            }
        };
        // Who asked may have gone.
        let _ = ask.send(text);
    }
}

/// What gathers.
struct Desk<B> {
    bus: B,
    process: Arc<Process>,
    roll: Roll,
    /// First and last offset as the bus told them last.
    head: Option<(String, String)>,
    /// What an acknowledgement is worth, as the bus told last.
    durability: watch::Receiver<Option<Durability>>,
}

impl<B: Bus> Desk<B> {
    async fn gather(&mut self) -> Json {
        let bus = self.bus.clone();
        let head = timeout(PATIENCE, bus.head());
        let others = hear(&bus, &self.process.id, &mut self.roll);
        let (head, ()) = tokio::join!(head, others);
        if let Ok(Ok(head)) = head {
            let first = head.position.at(head.first);
            self.head = Some((first.to_string(), head.position.to_string()));
        }
        self.tell()
    }

    fn tell(&self) -> Json {
        let process = &self.process;
        let mut stages = process.report().stages;
        stages.push(self.bus_stage());
        stages.extend(self.roll.stages());
        let is_source = |stage: &Stage| matches!(stage.own, Own::Source { .. });
        if !stages.iter().any(is_source) {
            stages.push(process.missed_source());
        }
        stages.sort_by_cached_key(Stage::order);
        let incidents = process.metrics.incidents().all();
        json!({
            "at": now_ms(),
            "gateway": process.name,
            "epoch": process.epoch(),
            "stages": stages,
            "incidents": incidents.iter().map(|one| of(&process.name, one)).collect::<Vec<_>>(),
        })
    }

    fn bus_stage(&self) -> Stage {
        let (first, position) = self.head.clone().unzip();
        let own = Own::Bus {
            what: self.bus.describe(),
            position,
            first,
            durability: self
                .durability
                .borrow()
                .map(|worth| worth.as_str().to_owned()),
        };
        let known = self.process.health.of(Part::Bus);
        let (state, error) = known.unwrap_or((State::Starting, None));
        self.process.stage(own, state, error)
    }
}

/// An incident with the name of the process where it happened.
fn of(process: &str, incident: &Incident) -> Json {
    json!({
        "seq": incident.seq, "at": incident.at, "process": process, "kind": incident.kind,
        "what": incident.what, "n": incident.n, "text": incident.text,
    })
}

/// Calls the roll: hears all other processes on the bus, as long as they may take.
async fn hear(bus: &impl Bus, own: &str, roll: &mut Roll) {
    let mut until = Instant::now() + PATIENCE;
    let mut answers = bus.reports().take(MAX_ANSWERS);
    roll.call();
    while let Ok(Some(report)) = timeout_at(until, answers.next()).await {
        if report.id == own {
            continue;
        }
        roll.hear(report);
        if roll.is_complete() {
            until = until.min(Instant::now() + STRANGERS);
        }
    }
}
