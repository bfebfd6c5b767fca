//! The binary as a command that runs to its end, in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{DEADLINE, server::BINARY};

/// A folder that commands run in.
pub struct Folder(tempfile::TempDir);

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with a `rowcast.toml` and a `rowcast.db` made by `sql`.
    pub fn with(config: &str, sql: &str) -> Self {
        let folder = Self::new();
        folder.write("rowcast.toml", config);
        folder.sql("rowcast.db", sql);
        folder
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Runs SQL on a database file in it, which is made where it is missing.
    pub fn sql(&self, name: &str, sql: &str) {
        let conn = rusqlite::Connection::open(self.path(name)).unwrap();
        conn.execute_batch(sql).unwrap();
    }

    /// Runs `rowcast` with these arguments to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.0.path(), args, &[])
    }

    /// As [`Folder::run`], with environment variables.
    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        run(self.0.path(), args, env)
    }
}

/// Runs `rowcast` in a folder to its end.
///
/// # Panics
/// Where it does not end, such as a server that starts although it should not.
pub fn run(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut child = Command::new(BINARY)
        .current_dir(folder)
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What a command says is less than a pipe holds, so it never waits for us to read.
    let late = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > late {
            child.kill().unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let ran = Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let late = output.status.code().is_none();
    assert!(!late, "`rowcast {}` goes on: {ran:?}", args.join(" "));
    ran
}
