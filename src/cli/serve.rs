//! `rowcast serve`

use std::io::Write;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Exit;
use crate::{app::App, config::Config};

/// Serves until the process is told to stop. A second signal ends it at once.
pub async fn run(config: &Config) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::listen()?;
    let app = App::start(config).await?;
    announce(&app)?;
    app.serve(shutdown.told()).await?;
    Ok(Exit::Fine)
}

/// The signals that stop a process; taken before anything is opened, so that none is missed.
pub(super) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal; from then on a second one ends the process at once.
    pub async fn told(mut self) {
        self.next().await;
        tokio::spawn(async move {
            self.next().await;
            eprintln!("rowcast: told twice to stop, ending at once");
            std::process::exit(1);
        });
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Says where the server listens, and what a newcomer does next.
fn announce(app: &App) -> anyhow::Result<()> {
    let address = app.address();
    let mut out = std::io::stdout().lock();
    let scheme = app.scheme();
    writeln!(out, "listening on {scheme}://{address}")?;
    if let Some(operator) = app.operator_address() {
        writeln!(out, "for operators on http://{operator}")?;
    }
    if let Some(hint) = app.hint() {
        writeln!(
            out,
            "open {scheme}://{address}/ in a browser, then change a row from another terminal:"
        )?;
        writeln!(out, "  {hint}")?;
    }
    out.flush()?;
    Ok(())
}
