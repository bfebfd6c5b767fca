//! A run: the processes, who writes, who follows, and what is killed when.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use super::{
    Report,
    client::{Client, Log, Run},
    judge::judge,
    machine::Machine,
    random::Random,
    rows::{HELD, HIDDEN, TOPICS},
    truth::{SLOT, Truth},
    writers::{POSTGRES, Processes, SQLITE, Tasks, pause},
};
use crate::support::{DEADLINE, Options, Server, stack::Stack, wait_until};

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// One gateway, with an embedded bus.
    Sqlite,
    /// Two gateways and two producers, and nats-server between them.
    Postgres,
}

/// How to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What runs.
    pub setup: Setup,
    /// Decides everything that is random.
    pub seed: u64,
    /// How long writers write.
    pub time: Duration,
    /// How many clients there are.
    pub clients: u64,
    /// The longest time without a kill; none where nothing is killed.
    pub kills: Option<Duration>,
    /// The embedded bus is lost with the first kill.
    pub lose_bus: bool,
    /// The fault to be built in, where the binary has any.
    pub sabotage: Option<&'static str>,
    /// How long after the last transaction clients may still miss something.
    pub patience: Duration,
}

/// Around a producer's death replies need not be exact: until another has taken over.
const TAKEOVER: u64 = 8000;

/// How many replies of a gateway must be exact one after the other once nobody writes.
const STEADY: usize = 10;

/// Of each violation, what a failure's short message tells.
const TOLD: usize = 300;

impl Plan {
    /// The plan of CI.
    pub fn of(setup: Setup, seed: u64, time: Duration) -> Self {
        Self {
            setup,
            seed,
            time,
            clients: 12,
            kills: Some(Duration::from_secs(6)),
            lose_bus: false,
            sabotage: None,
            patience: Duration::from_secs(30),
        }
    }

    /// Runs it.
    pub async fn run(&self) -> Report {
        match self.setup {
            Setup::Sqlite => self.run_sqlite().await,
            Setup::Postgres => self.run_postgres().await,
        }
    }

    fn env(&self) -> Vec<(String, String)> {
        let sabotage = self.sabotage.iter();
        sabotage
            .map(|fault| ("ROWCAST_SABOTAGE".to_owned(), (*fault).to_owned()))
            .collect()
    }

    async fn run_sqlite(&self) -> Report {
        let config = format!("{TOPICS}\n[database]\nchangelog_keep_ms = 2000\n");
        let mut server = Server::with(Options {
            config: Some(config),
            database: Some(SQLITE.to_owned()),
            env: self.env(),
            ..Options::default()
        });
        let machine = Machine::watch();
        let clients = Clients::start(self, vec![server.address().to_owned()]).await;
        let writers = Processes::start(&server.database(), server.folder(), self.seed, self.time);
        clients.see(100).await;
        let mut killer = Killer::of(self);
        while killer.next().await.is_some() {
            tokio::task::block_in_place(|| {
                server.kill();
                if self.lose_bus && killer.kills == 1 {
                    lose_bus(&server);
                }
                server.restart();
            });
            killer
                .died
                .push(clients.run.begun.elapsed().as_millis() as u64);
        }
        let (last, noted) = tokio::task::block_in_place(|| writers.finish());
        let logs = clients.finish(last).await;
        let steady = self.steady(&[server.address().to_owned()]).await;
        let truth = Truth::of_writers(&noted);
        self.report(logs, &truth, &killer, (steady, &machine))
    }

    async fn run_postgres(&self) -> Report {
        let topics = format!("{TOPICS}{HIDDEN}");
        let mut stack = Stack::plagued(&topics, POSTGRES, 2, self.env());
        stack.produce();
        let sql = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')");
        stack.database.sql(&sql);
        let machine = Machine::watch();
        let clients = Clients::start(self, stack.addresses()).await;
        let writers = Tasks::start(&stack.database, self.seed);
        clients.see(100).await;
        let mut killer = Killer::of(self);
        while let Some(choice) = killer.next().await {
            let second = !stack.producers[0].is_ready().await;
            tokio::task::block_in_place(|| match choice {
                Victim::Gateway(one) => {
                    let gateway = &mut stack.gateways[one];
                    gateway.kill();
                    gateway.restart();
                }
                Victim::Producer { active } => {
                    let producer = &mut stack.producers[usize::from(second == active)];
                    producer.kill();
                    producer.restart();
                }
            });
            if let Victim::Producer { .. } = choice {
                killer.note(&clients);
            }
        }
        let last = writers.finish().await;
        let logs = clients.finish(last).await;
        for gateway in &stack.gateways {
            println!("{}", inexact(gateway.address()).await);
        }
        let steady = self.steady(&stack.addresses()).await;
        let truth = Truth::of_slot(&stack.database);
        self.report(logs, &truth, &killer, (steady, &machine))
    }

    /// Whether each of these gateways comes to answer exactly. With a fault built in none need.
    async fn steady(&self, addresses: &[String]) -> bool {
        let begun = Instant::now();
        for address in addresses {
            while self.sabotage.is_none() && !is_steady(address).await {
                if begun.elapsed() > DEADLINE {
                    return false;
                }
                pause(Duration::from_millis(20)).await;
            }
        }
        true
    }

    fn report(
        &self,
        logs: Vec<Log>,
        truth: &Truth,
        killer: &Killer,
        (steady, machine): (bool, &Machine),
    ) -> Report {
        let verdict = judge(&logs, truth, self.setup == Setup::Postgres, self.lose_bus);
        let (setup, seed) = match self.setup {
            Setup::Sqlite => ("sqlite+embedded", self.seed),
            Setup::Postgres => ("postgresql+nats", self.seed),
        };
        let healthy = verdict
            .inexact
            .iter()
            .filter(|ms| !killer.is_near(**ms))
            .count();
        let line = format!(
            "checker {setup} seed {seed}: {} transactions, {} queries, {} resumes, {} kills, {} violations \
             ({} replies not exact, {healthy} of them without a producer's death, {:.1} threads for each core; \
             errors {:?})",
            truth.order.len(),
            verdict.replies,
            verdict.resumes,
            killer.kills,
            verdict.violations.len(),
            verdict.inexact.len(),
            machine.running(),
            verdict.errors,
        );
        Report {
            line,
            verdict,
            inexact: healthy,
            steady,
            crowded: machine.was_crowded(),
        }
    }
}

/// Whether all of some replies of a gateway are exact.
async fn is_steady(address: &str) -> bool {
    for topic in HELD.iter().cycle().take(STEADY) {
        let url = format!("http://{address}/api/query/{topic}?all=true");
        let Ok(answer) = reqwest::get(url).await else {
            return false;
        };
        let reply: Json = answer.json().await.unwrap_or_default();
        if reply["op"] != "replace" || reply["exact"] == false {
            return false;
        }
    }
    true
}

/// Why a gateway's replies were not exact, since it was started last.
async fn inexact(address: &str) -> String {
    let url = format!("http://{address}/metrics");
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    let lines = text.lines();
    let reasons = lines.filter(|line| line.starts_with("rowcast_inexact_total"));
    reasons.collect::<Vec<_>>().join(" ")
}

/// Removes what the embedded bus of a server that does not run has stored.
fn lose_bus(server: &Server) {
    for end in ["", "-wal", "-shm"] {
        let path = server.folder().join(format!("rowcast.db-bus{end}"));
        // The two others are there or not.
        let _ = fs::remove_file(path);
    }
}

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    /// One of the gateways.
    Gateway(usize),
    /// The producer that reads and publishes, or else the one that stands by.
    Producer {
        /// Which of the two.
        active: bool,
    },
}

/// Decides when something is killed, and what.
struct Killer {
    random: Random,
    longest: Option<Duration>,
    end: Instant,
    kills: u64,
    /// When producers died, of which an embedded one is part of its gateway.
    died: Vec<u64>,
}

impl Killer {
    fn of(plan: &Plan) -> Self {
        Self {
            random: Random::of(plan.seed, 99),
            longest: plan.kills,
            end: Instant::now() + plan.time,
            kills: 0,
            died: Vec::new(),
        }
    }

    /// Waits for the next kill and says what is killed; none once the time is over.
    async fn next(&mut self) -> Option<Victim> {
        let left = self.end.saturating_duration_since(Instant::now());
        let wait = self.longest.map_or(left, |longest| {
            let longest = longest.as_millis() as i64;
            self.random.millis(longest / 3, longest)
        });
        pause(wait.min(left)).await;
        if wait >= left {
            return None;
        }
        self.kills += 1;
        // Producers and gateways in turn, so that a short run has both.
        Some(match self.kills % 2 {
            0 => Victim::Gateway(self.random.below(2) as usize),
            _ => Victim::Producer {
                active: self.random.chance(80),
            },
        })
    }

    /// A producer died just now.
    fn note(&mut self, clients: &Clients) {
        self.died
            .push(clients.run.begun.elapsed().as_millis() as u64);
    }

    fn is_near(&self, ms: u64) -> bool {
        self.died
            .iter()
            .any(|died| ms + 1000 > *died && ms < died + TAKEOVER)
    }
}

/// The clients of a run.
struct Clients {
    run: Arc<Run>,
    tasks: Vec<tokio::task::JoinHandle<Log>>,
    patience: Duration,
}

impl Clients {
    /// Starts them, and waits until each holds everything.
    async fn start(plan: &Plan, addresses: Vec<String>) -> Self {
        let run = Arc::new(Run {
            last: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            events: AtomicU64::new(0),
            begun: Instant::now(),
            end_ms: AtomicU64::new(0),
        });
        let addresses = Arc::new(addresses);
        let client = |number| Client::new(run.clone(), addresses.clone(), number, plan.seed);
        let tasks = (0..plan.clients).map(|number| tokio::spawn(client(number).run()));
        let tasks = tasks.collect();
        wait_until("every client to hold everything", async || {
            (run.ready.load(Ordering::Acquire) == plan.clients).then_some(())
        })
        .await;
        Self {
            run,
            tasks,
            patience: plan.patience,
        }
    }

    /// Waits until each has seen so many events, more or less.
    async fn see(&self, events: u64) {
        let all = events * self.tasks.len() as u64;
        wait_until("the first events", async || {
            (self.run.events.load(Ordering::Relaxed) >= all).then_some(())
        })
        .await;
    }

    /// Tells them the last transaction, and waits until they have seen it.
    async fn finish(self, last: u64) -> Vec<Log> {
        let end = self.run.begun.elapsed() + self.patience;
        self.run
            .end_ms
            .store(end.as_millis() as u64, Ordering::Release);
        self.run.last.store(last, Ordering::Release);
        let mut logs = Vec::new();
        for task in self.tasks {
            logs.push(task.await.unwrap());
        }
        logs
    }
}

impl Report {
    /// Says what came of the run, and fails where something was wrong. The failure's message is short
    /// and ends with the line, which has the seed; all that is known stands before it.
    #[track_caller]
    pub fn is_clean(&self) {
        let violations = &self.verdict.violations;
        if !violations.is_empty() {
            println!("{}", self.verdict);
        }
        println!("{}", self.line);
        let short = |what: &str| what.chars().take(TOLD).collect::<String>();
        let first = violations.iter().take(3);
        let first: Vec<_> = first
            .map(|(class, what)| format!("{class:?}: {}", short(what)))
            .collect();
        assert!(first.is_empty(), "{}\n{}", first.join("\n"), self.line);
        let line = &self.line;
        assert!(self.steady, "a gateway at rest is not exact\n{line}");
        // The stream has 250 ms to come past a read. A debug build beside writers and clients may be late
        // for some, and on a crowded machine for any number; a producer takes over late there, too.
        let most = match cfg!(debug_assertions) {
            true if self.crowded => usize::MAX,
            true => self.verdict.replies as usize / 2,
            false => 0,
        };
        assert!(self.inexact <= most, "replies were late\n{line}");
    }
}
