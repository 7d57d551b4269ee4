//! The `nereid` binary: command line, configuration, and the composition of roles.
//!
//! Nothing here computes, stores or serves; it puts the crates together.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line prints"
)]

mod cli;
mod commands;
mod config;
mod demo;
mod output;
mod roles;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = cli::Cli::parse();
    if let cli::Command::Trainer(args) = &args.command {
        return roles::trainer::run(args).unwrap_or_else(|e| fail(&e));
    }
    if let cli::Command::Probe(args) = &args.command {
        return roles::trainer::probe(args).unwrap_or_else(|e| fail(&e));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => return fail(&anyhow::Error::new(e).context("cannot start the async runtime")),
    };
    let code = match runtime.block_on(Box::pin(commands::run(args))) {
        Ok(code) => code,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => fail(&e),
    };
    // A training that has not seen its directive yet must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    code
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("nereid: {error:#}");
    ExitCode::FAILURE
}

/// Tells whether whoever read the output has gone away, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
