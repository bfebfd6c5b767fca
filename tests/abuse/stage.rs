//! Where hostile input meets a real gateway. Each input has its own expectation; what holds for all of them
//! is asked at the end: the log tells of no panic and holds no text of a client's, nothing was answered
//! as if it were our fault, memory and descriptors are back, and a client beside it was served all along.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{ELSEWHERE, NOWHERE, told::Told};
use crate::{
    support::{
        Options, Raw, Server, Socket,
        frames::{FIN, PING, frame},
        in_time,
        raw::{TEXT, head},
        wait_until,
    },
    wire::{CARE, CARE_TABLES},
};

/// The files of this suite that have a stage; the last to end prints what all have tried.
const STAGES: usize = 11;

/// The least number of inputs in all of them.
const LEAST: usize = 5_000;

/// Inputs on one socket, fewer than would make it a nuisance by their number.
const EACH: usize = 8;

/// What stands in every token and secret of the suite, and must stand in no output of the server.
pub const CANARY: &str = "c4n4ry-7f3a";

/// How long a client beside all this may wait for an answer. It is some milliseconds; CI's machines stand
/// still now and then.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a gateway may hold more than before: what allocators keep, and the second connection for reads.
const MORE_KIB: u64 = 64 * 1024;
const MORE_DESCRIPTORS: usize = 12;

static TRIED: Mutex<BTreeMap<&'static str, usize>> = Mutex::new(BTreeMap::new());
static ENDED: AtomicUsize = AtomicUsize::new(0);

/// A gateway, a witness beside it, and what was tried on it.
pub struct Stage {
    pub server: Server,
    path: &'static str,
    socket: Option<Raw>,
    asked: usize,
    before: Usage,
    witness: Option<Witness>,
    tried: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Usage {
    rss_kib: u64,
    descriptors: usize,
    sessions: u64,
}

/// A client that asks now and then, and notes the longest that it was kept waiting.
struct Witness {
    stop: CancellationToken,
    task: JoinHandle<Duration>,
}

impl Stage {
    /// The care home of the wire's tests.
    pub async fn care() -> Self {
        Self::tuned("").await
    }

    /// The same with settings for `[server]`.
    pub async fn tuned(settings: &str) -> Self {
        let options = Options {
            config: Some(format!(
                "[log]\nlevel = \"debug\"\n[server]\n{settings}\n{CARE}"
            )),
            database: Some(CARE_TABLES.into()),
            ..Options::default()
        };
        Self::of(Server::with(options)).await
    }

    /// A gateway that has a topic `patient` with a row 1.
    pub async fn of(server: Server) -> Self {
        let mut socket = server.socket("types=patient").await;
        // What is made once is made now.
        for rid in 0..3 {
            wait_until("the first reply", async || {
                let (code, _) = server.get("/api/query/patient?id=1").await;
                (code == 200).then_some(())
            })
            .await;
            let question = json!({ "type": "patient", "rid": rid, "id": 1 });
            assert_eq!(socket.ask(question).await["op"], "replace");
        }
        let before = Usage::of(&server).await;
        Self {
            witness: Some(Witness::beside(socket)),
            server,
            path: "/socket/all/?types=",
            socket: None,
            asked: 0,
            before,
            tried: BTreeMap::new(),
            wrong: Vec::new(),
        }
        .quiet("notice")
    }

    /// The topic that sockets here take, of which nothing happens.
    pub fn quiet(mut self, topic: &'static str) -> Self {
        self.path = match topic {
            "notice" => "/socket/all/?types=notice",
            _ => "/socket/all/?types=patient",
        };
        self
    }

    /// Notes an input and what was said to it.
    pub fn note(&mut self, class: &'static str, input: &str, told: &[Told], expected: &[Told]) {
        *self.tried.entry(class).or_default() += 1;
        let right = match told {
            [one] => expected.contains(one),
            _ => false,
        };
        if !right {
            self.complain(class, input, &format!("{told:?}, and not {expected:?}"));
        }
    }

    /// The same where everything that is said counts.
    pub fn note_all(&mut self, class: &'static str, input: &str, told: &[Told], expected: &[Told]) {
        *self.tried.entry(class).or_default() += 1;
        if told != expected {
            self.complain(class, input, &format!("{told:?}, and not {expected:?}"));
        }
    }

    /// What the gateway holds in memory.
    pub fn rss_kib(&self) -> u64 {
        rss_kib(&self.server)
    }

    /// Counts inputs that were judged elsewhere.
    pub fn count(&mut self, class: &'static str, inputs: usize) {
        *self.tried.entry(class).or_default() += inputs;
    }

    fn complain(&mut self, class: &str, input: &str, what: &str) {
        let shown: String = input.chars().take(160).collect();
        self.wrong.push(format!("{class} {shown:?}: {what}"));
    }

    /// Says a text on a socket, and expects exactly one of these as its one answer. Returns what was
    /// said.
    pub async fn ask(
        &mut self,
        class: &'static str,
        text: impl AsRef<[u8]>,
        expected: &[Told],
    ) -> String {
        let text = text.as_ref();
        let (told, answer) = self.said(text).await;
        self.note(class, &String::from_utf8_lossy(text), &[told], expected);
        answer
    }

    async fn said(&mut self, text: &[u8]) -> (Told, String) {
        if self.asked == EACH {
            self.retire().await;
        }
        if self.socket.is_none() {
            self.socket = Some(Raw::open(&self.server, self.path).await);
            self.asked = 0;
        }
        let socket = self.socket.as_mut().expect("it was just opened");
        socket.frame(TEXT, text).await;
        self.asked += 1;
        let (told, answer) = next(socket).await;
        if matches!(told, Told::Closed(_) | Told::Cut) {
            self.socket = None;
        }
        (told, answer)
    }

    /// Closes the socket, whose last answer must have been the last thing said.
    async fn retire(&mut self) {
        let Some(mut socket) = self.socket.take() else {
            return;
        };
        socket.bytes(&frame(FIN | PING, b"the last")).await;
        let (told, more) = next(&mut socket).await;
        if told != Told::Pong(b"the last".to_vec()) {
            self.complain("", &more, "said although nobody asked any more");
        }
    }

    /// Opens a socket on a path, sends these bytes and ends its side; all that is said to that.
    pub async fn stream(&mut self, path: &str, sent: &[u8]) -> Vec<Told> {
        let mut raw = Raw::open(&self.server, path).await;
        raw.bytes(sent).await;
        raw.finish().await;
        let mut told = Vec::new();
        loop {
            match next(&mut raw).await.0 {
                Told::Cut => return told,
                said => told.push(said),
            }
        }
    }

    /// Sends a request byte by byte as it is; the status and slug of its answer.
    pub async fn request(&mut self, class: &'static str, sent: &[u8], expected: &[Told]) -> String {
        let (told, answer) = request(self.server.address(), sent).await;
        self.note(class, &String::from_utf8_lossy(sent), &[told], expected);
        answer
    }

    /// What holds for all inputs.
    pub async fn end(mut self) {
        self.retire().await;
        let witness = self.witness.take().expect("a stage ends once");
        witness.stop.cancel();
        let longest = in_time("the witness", witness.task).await.unwrap();
        if longest > PATIENCE {
            let what = format!("a client beside it waited for {longest:?}");
            self.complain("all", "", &what);
        }
        let before = self.before;
        let server = &self.server;
        let after = wait_until("everything to be given back", async || {
            let after = Usage::of(server).await;
            let back = after.sessions < before.sessions
                && after.descriptors <= before.descriptors + MORE_DESCRIPTORS;
            back.then_some(after)
        });
        let after = after.await;
        if after.rss_kib > before.rss_kib + MORE_KIB {
            let what = format!("the process has grown from {before:?} to {after:?}");
            self.complain("all", "", &what);
        }
        for what in faults(&self.server).await {
            self.complain("all", "", &what);
        }
        let count = self.wrong.len();
        self.wrong.truncate(40);
        assert!(
            self.wrong.is_empty(),
            "{count} wrong answers:\n{}",
            self.wrong.join("\n")
        );
        report(&self.tried);
    }
}

/// What log and metrics tell that must not be.
async fn faults(server: &Server) -> Vec<String> {
    let mut wrong = Vec::new();
    let log = server.log();
    for line in log.lines() {
        let begins = line
            .get(..5)
            .is_some_and(|year| year.starts_with("20") && year.ends_with('-'));
        let plain = line.chars().all(|c| !c.is_control() && c != '\u{2028}');
        if line.contains("panicked") || !begins || !plain || line.contains(CANARY) {
            wrong.push(format!("the log: {line:?}"));
        }
    }
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for ours in ["internal", "db_unavailable", "bus_unavailable"] {
        let line = format!("rowcast_errors_total{{kind=\"{ours}\"}}");
        if metrics.contains(&line) {
            wrong.push(format!("the metrics: {line}"));
        }
    }
    if metrics.contains(CANARY) {
        wrong.push("a secret in the metrics".into());
    }
    wrong
}

/// Adds to what was tried; who is the last prints it.
fn report(tried: &BTreeMap<&'static str, usize>) {
    let mut all = TRIED.lock().unwrap();
    for (class, inputs) in tried {
        *all.entry(class).or_default() += inputs;
    }
    if ENDED.fetch_add(1, Ordering::AcqRel) + 1 < STAGES {
        return;
    }
    let sum: usize = all.values().sum();
    let classes: Vec<String> = all
        .iter()
        .map(|(class, n)| format!("{class} {n}"))
        .collect();
    // Past the test harness, which keeps what a test prints that has passed.
    let elsewhere: Vec<String> = ELSEWHERE
        .iter()
        .map(|(class, file, _)| format!("{class} tests/{file}"))
        .collect();
    let line = format!(
        "abuse: {sum} inputs ({}); held elsewhere: {}; {} has nothing to act on\n",
        classes.join(", "),
        elsewhere.join(", "),
        NOWHERE.join(", "),
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    assert!(sum >= LEAST, "{sum} inputs are too few");
}

/// The next thing that the server says on a socket.
async fn next(raw: &mut Raw) -> (Told, String) {
    let (told, payload) = match raw.next().await {
        Some((0x1, payload)) => (Told::text(&payload), payload),
        Some((0x8, payload)) => {
            let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            (Told::Closed(code), payload)
        }
        Some((0xa, payload)) => (Told::Pong(payload.clone()), payload),
        // A ping: the witness of an idle server.
        Some((_, payload)) => (Told::Frame("a ping".into()), payload),
        None => (Told::Cut, Vec::new()),
    };
    (told, String::from_utf8_lossy(&payload).into_owned())
}

/// Sends a request; the answer's status, with the slug where it is an error of ours, and its whole
/// text.
pub async fn request(address: &str, sent: &[u8]) -> (Told, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has seen enough may close before it has read all.
    let _ = stream.write_all(sent).await;
    answer(&mut stream).await
}

/// The next answer on a connection.
pub async fn answer(stream: &mut TcpStream) -> (Told, String) {
    let mut text = head(stream).await;
    let lines = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = lines
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    // The answer to a HEAD announces what does not come: there the connection's end does.
    let _ = in_time("a body, or the end", stream.read_exact(&mut body)).await;
    text.extend(body);
    let text = String::from_utf8_lossy(&text).into_owned();
    (Told::answer(&text), text)
}

fn rss_kib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB"));
    rss.unwrap().trim().parse().unwrap()
}

impl Usage {
    async fn of(server: &Server) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", server.pid()));
        Self {
            rss_kib: rss_kib(server),
            descriptors: descriptors.unwrap().count(),
            sessions: server.counted("sessions").await,
        }
    }
}

impl Witness {
    fn beside(mut socket: Socket) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(250));
            let (mut longest, mut rid) = (Duration::ZERO, 100);
            while !stopped.is_cancelled() {
                pace.tick().await;
                rid += 1;
                let question = match rid % 4 {
                    0 => json!({ "type": "patient", "rid": rid, "id": 1 }),
                    _ => json!({ "type": "sys:ping", "rid": rid }),
                };
                let begun = Instant::now();
                loop {
                    let answer = socket.ask(question.clone()).await;
                    // On a machine that stands still a query may take too long: that counts as waiting.
                    if answer["error"] != "query_timeout" {
                        let served = answer["type"] == "sys:pong" || answer["op"] == "replace";
                        assert!(served, "the witness was told {answer}");
                        break;
                    }
                }
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        Self { stop, task }
    }
}
