//! The `yadtq` command: sends tasks, finds them again, and looks after workers, queues and servers.
//!
//! ```text
//!  cli ──► command/* ──► yadtq (client, admin)
//!              │
//!              ├── Answer ──► output ──► stdout, for people or as JSON
//!              └── Failure ──► stderr, one line, and the exit code
//! ```

mod cli;
mod command;
mod confirm;
mod exit;
mod failure;
mod input;
mod logging;
mod outcome;
mod output;
mod progress;
mod servers;
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
    // One command at a time: a second thread would have nothing to do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let answer = runtime.block_on(cli.command.run(&cli.global));
    // A call that Kafka or Redis has not answered must not keep the command from ending.
    runtime.shutdown_background();
    answer
}
