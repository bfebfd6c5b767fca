//! `rowcast check`: every precondition, and the remedy for each that is not met.

use std::path::Path;

use anyhow::Context;

use crate::{
    app,
    bus::embedded,
    config::{Config, ConfigError},
    source::sqlite as capture,
    sqlite::{self, Mode},
    topic::Topics,
};

use super::Exit;

/// The three things that a line of the report can say.
enum Finding {
    Fine(String),
    /// Works, but somebody should know.
    Warning(String),
    /// `serve` would not work. The second text is the remedy.
    Failure(String, String),
    /// The same, by the configuration's fault.
    Misconfigured(ConfigError),
}

/// Prints one line for each precondition; exit code 1 where one fails, and 64 where what fails is
/// the configuration.
pub fn run(config: &Config) -> anyhow::Result<Exit> {
    let mut exit = Exit::Fine;
    for finding in findings(config) {
        match finding {
            Finding::Fine(text) => println!("ok      {text}"),
            Finding::Warning(text) => println!("warning {text}"),
            Finding::Failure(text, remedy) => {
                exit = Exit::Failure;
                println!("FAILED  {text}\n        {remedy}");
            }
            Finding::Misconfigured(text) => {
                exit = Exit::Usage;
                println!(
                    "FAILED  topics: {text}\n        mend the configuration; `rowcast init` writes one that fits"
                );
            }
        }
    }
    Ok(exit)
}

fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::Fine(match &config.file {
        Some(file) => format!("configuration: {}", file.display()),
        None => "configuration: built-in defaults".to_owned(),
    })];
    let path = config.database_path();
    if !path.exists() {
        findings.push(match config.topics_are_demo {
            true => Finding::Fine(format!(
                "database: {} will be created with the demo",
                path.display()
            )),
            false => Finding::Failure(
                format!("database: there is no {}", path.display()),
                "name the right file with --database or database.url".to_owned(),
            ),
        });
        return findings;
    }
    match app::topics(config) {
        Ok(topics) => {
            findings.push(Finding::Fine(format!(
                "topics: {} fit the database",
                topics.iter().count()
            )));
            findings.extend(database(config, &topics));
        }
        Err(err) => findings.push(match err.downcast::<ConfigError>() {
            Ok(err) => Finding::Misconfigured(err),
            Err(err) => unusable(&err),
        }),
    }
    findings
}

fn unusable(err: &anyhow::Error) -> Finding {
    Finding::Failure(
        format!("database: {err:#}"),
        "see that the file is an SQLite database, and that this user may write it and its folder"
            .to_owned(),
    )
}

/// Makes a file and deletes it again.
fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".rowcast-check-{}", std::process::id()));
    std::fs::File::create_new(&path)?;
    std::fs::remove_file(path)
}

fn database(config: &Config, topics: &Topics) -> Vec<Finding> {
    match look(config, topics) {
        Ok(findings) => findings,
        Err(err) => vec![unusable(&err)],
    }
}

fn look(config: &Config, topics: &Topics) -> anyhow::Result<Vec<Finding>> {
    let path = config.database_path();
    let conn = sqlite::open(path, Mode::Read)?;
    if !sqlite::can_write(&conn)? {
        anyhow::bail!("{} is read-only for this user", path.display());
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    // The WAL and the bus are files beside the database.
    tempfile_in(folder).with_context(|| format!("no file can be made in {}", folder.display()))?;
    let mut findings = vec![Finding::Fine(format!(
        "database: {} can be written",
        path.display()
    ))];
    findings.push(match sqlite::journal_mode(&conn)?.as_str() {
        "wal" => Finding::Fine("journal: WAL, readers never keep writers waiting".to_owned()),
        other => Finding::Warning(format!(
            "journal: {other}; `rowcast serve` turns WAL on, which stays on, so that its reads \
             never keep your programs from writing"
        )),
    });
    let captured = capture::inspect(&conn, &capture::watched(topics))?;
    findings.push(match captured.is_whole() {
        true => Finding::Fine("capture: changelog and triggers are in place".to_owned()),
        false => Finding::Fine(
            "capture: `rowcast serve` puts changelog and triggers in place".to_owned(),
        ),
    });
    let bus = config.bus_path();
    findings.push(match (bus.exists(), embedded::is_taken(&bus)) {
        (_, true) => Finding::Warning(format!(
            "bus: a rowcast serves this database now ({})",
            bus.display()
        )),
        (true, false) => Finding::Fine(format!("bus: {} (fsynced)", bus.display())),
        (false, false) => {
            Finding::Fine(format!("bus: {} will be created (fsynced)", bus.display()))
        }
    });
    if config.anonymous() && !config.server.listen.is_loopback() {
        findings.push(Finding::Warning(format!(
            "auth: everybody who reaches {} may read every topic (auth.anonymous = true)",
            config.server.listen
        )));
    }
    Ok(findings)
}
