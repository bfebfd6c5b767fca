//! The binary: reads the command line, runs one command, and ends with its exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use rowcast::cli;

/// Grows in large steps: glibc's asks the kernel for every few sockets, a tenth of what a handshake
/// costs.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(cli) => cli::run(&cli).into(),
        Err(exit) => exit.into(),
    }
}
