//! From a command to what it does, and from what went wrong to an exit code.

use std::process::ExitCode;

use anyhow::Context;

use super::{
    Cli, Command, Exit, bench, check, init, produce, publish, query, remove, serve, tail, token,
    types,
};
use crate::{
    config::{self, Config, ConfigError, masked},
    telemetry,
};

/// Runs a command to its end; what went wrong is said on standard error.
pub fn run(cli: &Cli) -> Exit {
    // Two libraries bring two providers of cryptography; without a choice rustls would panic. That
    // somebody chose before is the one way in which this fails.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match &cli.command {
        Command::Init(options) => init::run(&cli.common, options),
        Command::Bench(asked) => bench::run(asked),
        command => load(cli).and_then(|config| with(command, &config)),
    };
    done.unwrap_or_else(|err| {
        eprintln!("rowcast: {}", masked(&format!("{err:#}")));
        match err.downcast_ref::<ConfigError>() {
            Some(_) => Exit::Usage,
            None => Exit::Failure,
        }
    })
}

fn load(cli: &Cli) -> anyhow::Result<Config> {
    let config = config::load(cli.common.config.as_deref(), &cli.overrides())?;
    telemetry::start(&config.log);
    Ok(config)
}

fn with(command: &Command, config: &Config) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let exit = match command {
        Command::Serve(_) => runtime.block_on(serve::run(config)),
        Command::Produce(_) => runtime.block_on(produce::run(config)),
        Command::Publish(asked) => runtime.block_on(publish::run(config, asked)),
        Command::Tail(asked) => runtime.block_on(tail::run(config, asked)),
        Command::Token(asked) => token::run(config, asked),
        Command::Types(asked) => runtime.block_on(types::run(config, asked)),
        Command::Query(asked) => runtime.block_on(query::run(config, asked)),
        Command::Check => runtime.block_on(check::run(config)),
        Command::Remove => runtime.block_on(remove::run(config)),
        // Handled before there is a configuration.
        Command::Init(_) | Command::Bench(_) => Ok(Exit::Fine),
    };
    // What still runs on a thread, a query for instance, is not waited for.
    runtime.shutdown_background();
    exit
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::SUCCESS,
            Exit::Failure => Self::FAILURE,
            Exit::Usage => Self::from(64),
        }
    }
}
