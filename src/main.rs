//! The binary: reads the command line, runs one command, and ends with its exit code.

use std::process::ExitCode;

use rowcast::cli;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(cli) => cli::run(&cli).into(),
        Err(exit) => exit.into(),
    }
}
