//! A real gateway process.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value as Json;

use super::{Socket, wait_for};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_rowcast");

/// What a gateway is started with.
#[derive(Default, Clone)]
pub struct Options {
    /// The text of its rowcast.toml, if any.
    pub config: Option<String>,
    /// The address to listen on, a free port of the loopback where none.
    pub listen: Option<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// SQL that makes `rowcast.db` before the first start, instead of the demo.
    pub database: Option<String>,
}

/// A gateway process in a folder of its own. Killed when dropped.
pub struct Server {
    child: Child,
    folder: Arc<tempfile::TempDir>,
    options: Options,
    address: String,
    operator: Option<String>,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a gateway on the demo.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// Starts a gateway with a configuration file, on a database made by `sql`.
    pub fn configured(config: &str, sql: &str) -> Self {
        Self::with(Options {
            config: Some(config.into()),
            database: Some(sql.into()),
            ..Options::default()
        })
    }

    /// Starts a gateway and waits until it listens.
    pub fn with(options: Options) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        if let Some(config) = &options.config {
            fs::write(folder.path().join("rowcast.toml"), config).unwrap();
        }
        if let Some(sql) = &options.database {
            let conn = rusqlite::Connection::open(folder.path().join("rowcast.db")).unwrap();
            conn.execute_batch(sql).unwrap();
        }
        let listen = options.listen.clone();
        Self::spawn(folder, options, listen.as_deref().unwrap_or("127.0.0.1:0"))
    }

    /// Starts a gateway in a folder that is already as it should be.
    pub fn inside(folder: tempfile::TempDir, options: Options) -> Self {
        Self::spawn(Arc::new(folder), options, "127.0.0.1:0")
    }

    fn spawn(folder: Arc<tempfile::TempDir>, options: Options, listen: &str) -> Self {
        let mut child = command(folder.path(), &options, listen)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, sink) = (child.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sink.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let announced = line.trim().strip_prefix("listening on ");
        let announced = announced.and_then(|url| url.split_once("://"));
        let address = match announced {
            Some((_, address)) => address.to_owned(),
            None => {
                let _ = child.wait();
                panic!("the gateway did not start: {line}\n{}", log.lock().unwrap());
            }
        };
        let config = options.config.as_deref().unwrap_or_default();
        let operator = config.contains("\noperator_listen = ").then(|| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let address = line.trim().strip_prefix("for operators on http://");
            address.unwrap_or_default().to_owned()
        });
        // Somebody must read the rest, or the gateway would stand still on a full pipe.
        std::thread::spawn(move || stdout.read_to_string(&mut String::new()));
        Self {
            child,
            folder,
            options,
            address,
            operator,
            log,
        }
    }

    /// Starts the same gateway again, in the same folder and on the same port. The old process
    /// must have ended.
    pub fn restart(&mut self) {
        let address = self.address.clone();
        *self = Self::spawn(self.folder.clone(), self.options.clone(), &address);
    }

    /// Starts the same gateway again as [`Server::restart`] does, and kills it after `life`,
    /// whether it listens by then or not. The process before must have ended.
    pub fn attempt(&self, life: Duration) {
        let mut child = command(self.folder(), &self.options, &self.address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::park_timeout(life);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address for operators, where the configuration gives them one of their own.
    pub fn operator(&self) -> &str {
        self.operator.as_deref().expect("no operator_listen")
    }

    /// The URL of an HTTP path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The folder that the gateway runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The database file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("rowcast.db")
    }

    /// What the gateway has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the gateway has said that on standard error: what it wrote may not be read yet.
    pub fn logged(&self, text: &str) {
        wait_for(&format!("the log to say {text:?}"), || {
            self.log().contains(text).then_some(())
        });
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that the process has used, in steps of 10 ms.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name before may hold anything, also blanks and brackets.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Opens a WebSocket to `/socket/all/` with these URL parameters, `""` for none.
    pub async fn socket(&self, parameters: &str) -> Socket {
        let question = if parameters.is_empty() { "" } else { "?" };
        Socket::open(&format!(
            "ws://{}/socket/all/{question}{parameters}",
            self.address
        ))
        .await
    }

    /// How often something happened: a line of `/metrics`, such as `closes_total{kind="4008"}`.
    pub async fn counted(&self, metric: &str) -> u64 {
        let metrics = match &self.operator {
            Some(operator) => format!("http://{operator}/metrics"),
            None => self.url("/metrics"),
        };
        let text = reqwest::get(metrics).await.unwrap();
        let text = text.text().await.unwrap();
        let line = text.lines().find_map(|line| {
            line.strip_prefix("rowcast_")?
                .strip_prefix(metric)?
                .strip_prefix(' ')
        });
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// `GET` with a JSON answer.
    pub async fn get(&self, path: &str) -> (u16, Json) {
        let answer = reqwest::get(self.url(path)).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// `POST` of a JSON body, none where null, with a JSON answer.
    pub async fn post(&self, path: &str, body: Json) -> (u16, Json) {
        let mut request = reqwest::Client::new().post(self.url(path));
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Ends the process without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(done.unwrap().success());
    }

    /// Waits until the process has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the gateway to end", || self.child.try_wait().unwrap())
    }
}

fn command(folder: &Path, options: &Options, listen: &str) -> Command {
    let mut command = Command::new(BINARY);
    command
        .current_dir(folder)
        .args(["serve", "--listen", listen])
        .envs(options.env.iter().map(|(name, value)| (name, value)));
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}---", self.log());
        }
    }
}
