//! `rowcast serve`

use std::io::Write;

use tokio::signal::unix::{SignalKind, signal};

use super::Exit;
use crate::{app::App, config::Config};

/// Serves until the process is told to stop. A second signal ends it at once.
pub async fn run(config: &Config) -> anyhow::Result<Exit> {
    // Before anything is opened, so that a stop is never missed.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = App::start(config).await?;
    announce(&app, config)?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            eprintln!("rowcast: told twice to stop, ending at once");
            std::process::exit(1);
        });
    };
    app.serve(shutdown).await?;
    Ok(Exit::Fine)
}

/// Says where the server listens, and what a newcomer does next.
fn announce(app: &App, config: &Config) -> anyhow::Result<()> {
    let address = app.address()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    if config.topics_are_demo {
        let database = config.database_path().display().to_string();
        writeln!(
            out,
            "open http://{address}/ in a browser, then change a row from another terminal:"
        )?;
        writeln!(out, "  {}", example(&database))?;
    }
    out.flush()?;
    Ok(())
}

/// A command that changes a row of the demo, with a program that this machine has.
fn example(database: &str) -> String {
    let update = "update patient set ward='5' where id=1";
    match on_path("sqlite3") {
        true => format!("sqlite3 {database} \"{update}\""),
        false => format!(
            "python3 -c \"import sqlite3; c = sqlite3.connect('{database}'); \
             c.execute('''{update}'''); c.commit()\""
        ),
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
