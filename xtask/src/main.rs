//! `cargo xtask`: the development commands as one program, so that a fresh clone
//! needs no tool but Cargo to run them.

mod command;
mod dependencies;
mod install;
mod interrupt;
mod lint;
mod project;
mod services;
mod soak;
mod test;
mod words;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::project::Project;
use crate::services::Services;

/// Development commands of YADTQ.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = "Example:\n  cargo xtask test")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts, stops and lists real Kafka and Redis servers for development.
    #[command(subcommand, after_help = "Example:\n  eval \"$(cargo xtask services up)\"")]
    Services(ServicesCommand),

    /// Checks formatting, words, dependencies, clippy and rustdoc; warnings are errors.
    #[command(after_help = "Example:\n  cargo xtask lint")]
    Lint,

    /// Runs the lints, then every test of the workspace on real servers.
    ///
    /// Uses the servers that YADTQ_KAFKA and YADTQ_REDIS name, else starts
    /// its own and stops them. The last line is the number of tests that
    /// passed and failed. A skipped test counts as failed.
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test claim lease   # only tests with one of these in their name, no lints"
    )]
    Test(test::Options),

    /// Uses all capabilities at once while workers are killed, and checks the outcomes.
    ///
    /// Uses the servers that YADTQ_KAFKA and YADTQ_REDIS name, else starts
    /// its own and stops them. Fails unless every task has ended exactly once,
    /// with the expected outcome.
    #[command(
        after_help = "Examples:\n  cargo xtask soak\n  cargo xtask soak --for 1h --rate 300\n  cargo xtask soak --for 1m --seed 7   # the same tasks as an earlier soak"
    )]
    Soak(soak::Options),
}

#[derive(Subcommand)]
enum ServicesCommand {
    /// Starts servers that aren't running, and prints the variables that name them.
    ///
    /// Uses the servers that YADTQ_KAFKA and YADTQ_REDIS name. Starts the others
    /// with Docker Compose or, without a Docker engine, starts Kafka from Maven
    /// Central (Java 17) and the system's redis-server. Data stays until
    /// `down --wipe`.
    #[command(after_help = "Example:\n  eval \"$(cargo xtask services up)\"")]
    Up,

    /// Stops the servers of `up`, and those that a killed or kept test run left.
    #[command(after_help = "Example:\n  cargo xtask services down --wipe")]
    Down {
        /// Delete the servers' data too.
        #[arg(long)]
        wipe: bool,
    },

    /// Prints which servers answer; exits with 1 unless all do.
    #[command(after_help = "Example:\n  cargo xtask services status --json")]
    Status {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    run(Cli::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    interrupt::listen()?;
    let project = Project::find()?;
    match cli.command {
        Command::Services(ServicesCommand::Up) => print!("{}", Services::open(&project)?.up()?),
        Command::Services(ServicesCommand::Down { wipe }) => {
            let mut services = Services::open(&project)?;
            services.down(wipe)?;
            services.stop_abandoned()?;
        }
        Command::Services(ServicesCommand::Status { json }) => {
            return services::status::print(&project, json);
        }
        Command::Lint => lint::run(&project)?,
        Command::Test(options) => return Ok(test::run(&project, &options)),
        Command::Soak(options) => return soak::run(&project, &options),
    }
    Ok(ExitCode::SUCCESS)
}
