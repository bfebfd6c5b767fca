//! Real PostgreSQL servers. All tests of a process share one, each with a database of its own;
//! who wants to kill, freeze or copy a server starts one for himself. None outlives the process.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use rowcast::{
    postgres::{Address, connect, describe, describe_query},
    topic::Table,
};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{DEADLINE, nats::free_port, wait_for};

const INSTALL: &str = "PostgreSQL's server is missing: apt-get install -y postgresql";

/// What every server is started with. Nothing here outlives the test, so nothing is synced.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("wal_level", "logical"),
    ("max_wal_senders", "60"),
    ("max_replication_slots", "60"),
    ("max_connections", "200"),
    ("fsync", "off"),
    ("dynamic_shared_memory_type", "mmap"),
    ("lc_messages", "C"),
    ("max_prepared_transactions", "5"),
];

/// What a query answered: rows of texts.
pub type Answer = Vec<Vec<Option<String>>>;

/// A server in a folder of its own. Killed, and its folder removed, when dropped or when this
/// process ends.
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    child: Mutex<Option<Child>>,
    /// Closed when this process ends in whatever way, whereupon the watcher clears up.
    watcher: Mutex<Option<(Child, ChildStdin)>>,
}

/// A database of a cluster, and a session of its own to it. Dropped when dropped.
pub struct Database {
    name: String,
    port: u16,
    session: mpsc::SyncSender<Ask>,
    /// Whether the cluster is the one that lives on.
    shared: bool,
}

type Ask = (String, mpsc::SyncSender<Result<Answer, String>>);

/// The cluster that all tests of this process share.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::own(&[]))
}

/// A new database in the shared cluster.
pub fn database() -> Database {
    let mut database = shared().database();
    database.shared = true;
    database
}

static NEXT: AtomicU32 = AtomicU32::new(1);

// === impl Cluster ===

impl Cluster {
    /// Starts a server of one's own, with these settings beside [`SETTINGS`].
    pub fn own(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("rowcast-pg-").tempdir();
        let folder = folder.unwrap().keep();
        if root() {
            run(Command::new("chown").arg("postgres:").arg(&folder));
        }
        let both = SETTINGS.iter().chain(settings);
        let mut cluster = Self {
            watcher: Mutex::new(Some(watcher(&folder))),
            folder,
            port: 0,
            settings: both.map(|(a, b)| ((*a).into(), (*b).into())).collect(),
            child: Mutex::new(None),
        };
        run(cluster.command("initdb").args([
            "--no-sync",
            "--no-instructions",
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ]));
        // Between asking for a free port and using it, somebody else may.
        let started = (0..5).any(|_| {
            cluster.port = free_port();
            cluster.try_start()
        });
        assert!(started, "PostgreSQL did not start: {}", cluster.log());
        cluster
    }

    /// A new, empty database.
    pub fn database(&self) -> Database {
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let any = Database::connect("postgres", self.port);
        any.sql(&format!("CREATE DATABASE {name}"));
        drop(any);
        Database::connect(&name, self.port)
    }

    /// The address of one of its databases, as the superuser.
    pub fn url(&self, database: &str) -> String {
        url(database, self.port)
    }

    /// Starts it again, after [`Cluster::stop`] or [`Cluster::kill`].
    pub fn start(&self) {
        wait_for("PostgreSQL to start", || self.try_start().then_some(()));
    }

    /// `pg_ctl stop -m fast`: sessions are ended, the log is written, clean.
    pub fn stop(&self) {
        self.signal("INT", &[self.pid()]);
        self.wait();
    }

    /// Kills the server with all its processes, as a power failure would.
    pub fn kill(&self) {
        let mut all = self.children();
        all.insert(0, self.pid());
        self.signal("KILL", &all);
        self.wait();
    }

    /// Stops all its processes from running until [`Cluster::thaw`].
    pub fn freeze(&self) {
        self.signal("STOP", &[self.pid()]);
        self.signal("STOP", &self.children());
    }

    /// Lets it run on.
    pub fn thaw(&self) {
        self.signal("CONT", &self.children());
        self.signal("CONT", &[self.pid()]);
    }

    /// Whether it was started and neither stopped nor killed since.
    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().is_some()
    }

    /// Copies the data folder of a stopped server.
    pub fn backup(&self) {
        let _ = fs::remove_dir_all(self.folder.join("backup"));
        run(Command::new("cp")
            .arg("-a")
            .args([self.data(), self.folder.join("backup")]));
    }

    /// Puts the copy back in place of the data folder of a stopped server.
    pub fn restore(&self) {
        fs::remove_dir_all(self.data()).unwrap();
        run(Command::new("cp")
            .arg("-a")
            .args([self.folder.join("backup"), self.data()]));
    }

    /// Writes a file of the server's own into its data folder, such as `server.key`.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if root() {
            run(Command::new("chown").arg("postgres:").arg(&path));
        }
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn pid(&self) -> u32 {
        let child = self.child.lock().unwrap();
        child.as_ref().expect("the server runs").id()
    }

    /// Its processes but the first.
    fn children(&self) -> Vec<u32> {
        let parent = format!("PPid:\t{}\n", self.pid());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let status = fs::read_to_string(entry.path().join("status"));
            if status.is_ok_and(|status| status.contains(&parent)) {
                found.extend(entry.file_name().to_string_lossy().parse::<u32>());
            }
        }
        found
    }

    /// A process may have ended by itself meanwhile.
    fn signal(&self, signal: &str, pids: &[u32]) {
        let pids = pids.iter().map(u32::to_string);
        let mut kill = Command::new("kill");
        let _ = kill.args(["-s", signal]).args(pids).output().unwrap();
    }

    fn wait(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            child.wait().unwrap();
        }
    }

    fn try_start(&self) -> bool {
        let mut command = self.command("postgres");
        command.arg("-c").arg(format!("port={}", self.port));
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let log = fs::OpenOptions::new();
        let log = log
            .clone()
            .create(true)
            .append(true)
            .open(self.folder.join("log"));
        let mut child = command.stderr(log.unwrap()).spawn().unwrap();
        let state = self.data().join("postmaster.pid");
        let up = wait_for("PostgreSQL to be ready", || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let state = fs::read_to_string(&state).unwrap_or_default();
            let ours = state.lines().next() == Some(&child.id().to_string());
            (ours && state.lines().any(|line| line.trim() == "ready")).then_some(true)
        });
        if up {
            *self.child.lock().unwrap() = Some(child);
        }
        up
    }

    /// A program of the server's, as a user that it runs as.
    fn command(&self, program: &str) -> Command {
        let program = binaries().join(program);
        let mut command = match root() {
            true => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
                    .arg(program);
                command
            }
            false => Command::new(program),
        };
        command
            .current_dir(&self.folder)
            .arg("-D")
            .arg(self.data())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let watcher = self.watcher.lock().unwrap().take();
        if let Some((mut child, stdin)) = watcher {
            drop(stdin);
            let _ = child.wait();
        }
        self.wait();
    }
}

/// A process that does nothing until this one has ended or closed its end of the pipe.
fn watcher(folder: &Path) -> (Child, ChildStdin) {
    let script = "trap '' INT TERM HUP; cat >/dev/null; \
        pid=$(head -n 1 \"$0/data/postmaster.pid\" 2>/dev/null) && kill -s KILL $pid; \
        for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf \"$0\" 2>/dev/null && exit; sleep 0.1; done";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    (child, stdin)
}

/// The folder of the programs of the newest server that is installed.
pub fn binaries() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let versions = fs::read_dir("/usr/lib/postgresql");
        let versions = versions.into_iter().flatten().flatten();
        let mut found: Vec<_> = versions
            .map(|entry| entry.path().join("bin"))
            .filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
            .collect();
        found.sort_by_key(|bin| {
            let version = bin.parent().and_then(Path::file_name);
            version.and_then(|name| name.to_string_lossy().parse::<u32>().ok())
        });
        let configured = || {
            let output = Command::new("pg_config").arg("--bindir").output().ok()?;
            let bin = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
            bin.join("initdb").is_file().then_some(bin)
        };
        found.pop().or_else(configured).expect(INSTALL)
    })
}

/// Whether this process is root, as which PostgreSQL does not run.
fn root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn run(command: &mut Command) {
    let mut child = command.stderr(Stdio::piped()).spawn().expect(INSTALL);
    let mut told = String::new();
    let _ = child.stderr.take().unwrap().read_to_string(&mut told);
    assert!(child.wait().unwrap().success(), "{command:?}: {told}");
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn url(database: &str, port: u16) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
}

// === impl Database ===

impl Database {
    fn connect(name: &str, port: u16) -> Self {
        let (session, asked) = mpsc::sync_channel::<Ask>(1);
        let address = url(name, port);
        std::thread::spawn(move || {
            let runtime = runtime();
            let mut client = None;
            for (sql, reply) in asked {
                let answer = runtime.block_on(ask(&mut client, &address, &sql));
                let _ = reply.send(answer);
            }
        });
        Self {
            name: name.into(),
            port,
            session,
            shared: false,
        }
    }

    /// Drops it with all sessions to it, and makes it anew, empty.
    pub fn recreate(&self) {
        let any = Self::connect("postgres", self.port);
        any.sql(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        any.sql(&format!("CREATE DATABASE {}", self.name));
    }

    /// `postgres://…`, as the superuser.
    pub fn url(&self) -> String {
        url(&self.name, self.port)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs statements, all in one transaction unless they say otherwise, and returns the rows of
    /// all of them.
    #[track_caller]
    pub fn sql(&self, text: &str) -> Answer {
        match self.try_sql(text) {
            Ok(rows) => rows,
            Err(told) => panic!("{told}: {text}"),
        }
    }

    /// The same, where PostgreSQL may say no.
    pub fn try_sql(&self, text: &str) -> Result<Answer, String> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.session.send((text.into(), reply)).unwrap();
        answer.recv().unwrap()
    }

    /// One of its tables, as Rowcast describes it.
    pub fn table(&self, name: &str) -> Table {
        let (address, name) = (Address::parse(&self.url()).unwrap(), name.to_owned());
        let described = std::thread::spawn(move || {
            runtime().block_on(async {
                let connected = connect(&address, DEADLINE, &[]).await.unwrap();
                describe(&connected.client, &name).await.unwrap()
            })
        });
        described.join().unwrap().expect("the table is there")
    }

    /// The result of a query, as Rowcast describes it.
    pub fn result(&self, query: &str) -> Table {
        let (address, query) = (Address::parse(&self.url()).unwrap(), query.to_owned());
        let described = std::thread::spawn(move || {
            runtime().block_on(async {
                let settings = ["default_transaction_read_only=on"];
                let connected = connect(&address, DEADLINE, &settings).await.unwrap();
                describe_query(&connected.client, &query).await.unwrap()
            })
        });
        described.join().unwrap()
    }

    /// The one value of a query.
    #[track_caller]
    pub fn one(&self, text: &str) -> String {
        let mut rows = self.sql(text);
        let row = rows.pop().unwrap_or_else(|| panic!("no row: {text}"));
        row.into_iter().next().flatten().unwrap_or_default()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.shared {
            let any = Database::connect("postgres", self.port);
            let _ = any.try_sql(&format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                 WHERE database = '{}' AND NOT active",
                self.name
            ));
            let _ = any.try_sql(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

/// Connects anew where the server has ended the session meanwhile.
async fn ask(client: &mut Option<Client>, address: &str, sql: &str) -> Result<Answer, String> {
    // An end that nobody has read yet is only told to the next statement: this empty one.
    if let Some(known) = client
        && known.simple_query("").await.is_err()
    {
        *client = None;
    }
    if client.is_none() {
        let connected = tokio_postgres::connect(address, NoTls).await;
        let (new, connection) = connected.map_err(|err| told(&err))?;
        tokio::spawn(connection);
        *client = Some(new);
    }
    let client = client.as_ref().expect("just connected");
    let messages = client.simple_query(sql).await.map_err(|err| told(&err))?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|n| row.get(n).map(String::from));
            Some(values.collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

fn told(err: &tokio_postgres::Error) -> String {
    err.as_db_error()
        .map_or_else(|| err.to_string(), ToString::to_string)
}
