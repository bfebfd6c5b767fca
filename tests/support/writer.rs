//! Foreign writers: other programs that know nothing of Rowcast.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
};

/// Runs SQL with the `sqlite3` shell, which waits 0 ms for a lock.
///
/// # Panics
/// Where `sqlite3` says anything on standard error: no foreign write may fail because of us.
#[track_caller]
pub fn sqlite3(database: &Path, sql: &str) -> String {
    let output = Command::new("sqlite3")
        .arg("-bail")
        .arg(database)
        .arg(sql)
        .output();
    text(&output.expect("this test needs sqlite3: apt-get install -y sqlite3"))
}

/// Runs a Python program with `sys.argv[1]` the database.
///
/// # Panics
/// Where it ends with another code than 0.
#[track_caller]
pub fn python(database: &Path, program: &str) -> String {
    let output = Command::new("python3")
        .arg("-c")
        .arg(program)
        .arg(database)
        .output();
    text(&output.expect("this test needs python3: apt-get install -y python3"))
}

#[track_caller]
fn text(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "the writer failed: {stderr}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A Python process that stays, with `db` a connection in autocommit mode: it executes what it
/// is given line by line, so that a write costs a test less than a process.
pub struct Python {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

const LOOP: &str = r#"
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
for line in sys.stdin:
    try:
        rows = None
        for sql in json.loads(line):
            rows = db.execute(sql).fetchall()
        print(json.dumps(rows), flush=True)
    except Exception as error:
        print("ERROR " + repr(error), flush=True)
"#;

impl Python {
    /// Starts a writer on a database.
    pub fn on(database: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", LOOP])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs python3: apt-get install -y python3");
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    /// Executes statements one after another; returns the rows of the last one as JSON.
    ///
    /// # Panics
    /// Where one fails.
    #[track_caller]
    pub fn run(&mut self, statements: &[&str]) -> serde_json::Value {
        match self.try_run(statements) {
            Ok(rows) => rows,
            Err(error) => panic!("a foreign write failed: {error}"),
        }
    }

    /// As [`Python::run`], with the error's text.
    pub fn try_run(&mut self, statements: &[&str]) -> Result<serde_json::Value, String> {
        let line = serde_json::to_string(statements).unwrap();
        writeln!(self.stdin, "{line}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        match answer.strip_prefix("ERROR ") {
            Some(error) => Err(error.trim().to_owned()),
            None => Ok(serde_json::from_str(&answer).unwrap()),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
