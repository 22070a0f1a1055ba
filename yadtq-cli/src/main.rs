//! The `yadtq` command: sends tasks, inspects them, and manages queues, workers and dead letters.
//!
//! ```text
//!  cli ──► command/* ──► yadtq (client, admin)
//!              │
//!              ├── Answer ──► output ──► stdout, for people or as JSON
//!              └── Failure ──► one line on stderr, and the exit code
//! ```

mod cli;
mod command;
mod confirm;
mod exit;
mod failure;
mod global;
mod input;
mod logging;
mod message;
mod outcome;
mod output;
mod progress;
mod table;
mod text;
mod time;

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, exit::Exit, failure::Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.global.verbose);
    match run(cli) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    }
    .into()
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    // One thread is enough: the process runs a single command.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let answer = runtime.block_on(cli.command.run(&cli.global));
    // A call that waits for Kafka or Redis must not keep the process alive.
    runtime.shutdown_background();
    answer
}
