//! What must be true of a SQLite file.

use std::path::Path;

use anyhow::Context;

use super::Finding;
use crate::{
    config::Config,
    source::sqlite as capture,
    sqlite::{self, Mode},
    topic::Topics,
};

/// Where there is no file.
pub fn no_database(config: &Config, path: &Path) -> Finding {
    match config.topics_are_demo {
        true => Finding::Fine(format!(
            "database: {} will be created with the demo",
            path.display()
        )),
        false => Finding::Failure(
            format!("database: there is no {}", path.display()),
            "name the right file with --database or database.url".to_owned(),
        ),
    }
}

/// What is found in the file and beside it.
pub fn findings(path: &Path, topics: &Topics) -> Vec<Finding> {
    match look(path, topics) {
        Ok(findings) => findings,
        Err(err) => vec![unusable(&err)],
    }
}

/// A file that cannot be what it must.
pub fn unusable(err: &anyhow::Error) -> Finding {
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

fn look(path: &Path, topics: &Topics) -> anyhow::Result<Vec<Finding>> {
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
    Ok(findings)
}
