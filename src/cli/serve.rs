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
    announce(&app)?;
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
fn announce(app: &App) -> anyhow::Result<()> {
    let address = app.address()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on http://{address}")?;
    if let Some(hint) = app.hint() {
        writeln!(
            out,
            "open http://{address}/ in a browser, then change a row from another terminal:"
        )?;
        writeln!(out, "  {hint}")?;
    }
    out.flush()?;
    Ok(())
}
