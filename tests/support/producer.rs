//! A real change producer process.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use serde_json::Value as Json;

use super::{server::BINARY, wait_for};

/// A `rowcast produce` in a folder of its own, with a port for `/readyz` and `/metrics`. Killed
/// when dropped.
pub struct Producer {
    child: Child,
    folder: Arc<tempfile::TempDir>,
    address: String,
    log: Arc<Mutex<String>>,
    env: Vec<(String, String)>,
}

impl Producer {
    /// Starts a producer with this `rowcast.toml`; returns as soon as its port is open.
    pub fn start(config: &str) -> Self {
        Self::start_in(config, Vec::new())
    }

    /// The same with an environment variable.
    pub fn start_with(config: &str, name: &str, value: &str) -> Self {
        Self::start_in(config, vec![(name.into(), value.into())])
    }

    /// The same with environment variables.
    pub fn start_in(config: &str, env: Vec<(String, String)>) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        fs::write(folder.path().join("rowcast.toml"), config).unwrap();
        Self::spawn(folder, env)
    }

    fn spawn(folder: Arc<tempfile::TempDir>, env: Vec<(String, String)>) -> Self {
        let mut child = Command::new(BINARY)
            .current_dir(folder.path())
            .args(["produce", "--listen", "127.0.0.1:0"])
            .envs(env.iter().cloned())
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
        let address = match line.trim().strip_prefix("listening on http://") {
            Some(address) => address.to_owned(),
            None => {
                let _ = child.wait();
                panic!(
                    "the producer did not start: {line}\n{}",
                    log.lock().unwrap()
                );
            }
        };
        std::thread::spawn(move || stdout.read_to_string(&mut String::new()));
        Self {
            child,
            folder,
            address,
            log,
            env,
        }
    }

    /// Starts the same producer again. The old process must have ended.
    pub fn restart(&mut self) {
        *self = Self::spawn(self.folder.clone(), self.env.clone());
    }

    /// `127.0.0.1:PORT`
    #[allow(dead_code)] // for benches/pipeline
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `GET` with a JSON answer.
    pub async fn get(&self, path: &str) -> (u16, Json) {
        let answer = reqwest::get(format!("http://{}{path}", self.address))
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Whether it says that it reads and publishes; false where it does not answer.
    pub async fn is_ready(&self) -> bool {
        let asked = reqwest::get(format!("http://{}/readyz", self.address)).await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// A line of `/metrics`, such as `changes_read_total`.
    #[allow(dead_code)] // for benches/pipeline
    pub async fn counted(&self, metric: &str) -> f64 {
        let asked = reqwest::get(format!("http://{}/metrics", self.address)).await;
        let text = asked.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| {
            line.strip_prefix("rowcast_")?
                .strip_prefix(metric)?
                .strip_prefix(' ')
        });
        line.map_or(0.0, |count| count.parse().unwrap())
    }

    /// Waits until the process has ended by itself.
    #[allow(dead_code)] // for benches/pipeline
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the producer to end", || self.child.try_wait().unwrap())
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process without a warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the producer's log\n{}---", self.log());
        }
    }
}
