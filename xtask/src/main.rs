//! `cargo xtask`: the project's chores as one program, so that a fresh clone
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

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::project::Project;
use crate::services::Services;

/// YADTQ's development chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = "Example:\n  cargo xtask test")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Real Kafka and Redis servers for development.
    #[command(subcommand, after_help = "Example:\n  eval \"$(cargo xtask services up)\"")]
    Services(ServicesCommand),

    /// Formatting, dependencies, clippy and rustdoc, with warnings denied.
    #[command(after_help = "Example:\n  cargo xtask lint")]
    Lint,

    /// Lints, then every test of the workspace on real servers.
    ///
    /// Starts servers of its own and stops them, unless YADTQ_KAFKA and
    /// YADTQ_REDIS name some. The last line is the count of tests. A skipped
    /// test counts as failed.
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test claim lease   # only tests with these in their name, no lints"
    )]
    Test(test::Options),

    /// All capabilities at once, while workers are killed, and an oracle.
    ///
    /// Starts servers of its own and stops them, unless YADTQ_KAFKA and
    /// YADTQ_REDIS name some. Fails if a task has not ended exactly once, and
    /// as it should.
    #[command(
        after_help = "Examples:\n  cargo xtask soak\n  cargo xtask soak --for 1h --rate 300\n  cargo xtask soak --for 1m --seed 7   # what an earlier one sent"
    )]
    Soak(soak::Options),
}

#[derive(Subcommand)]
enum ServicesCommand {
    /// Starts what isn't running, and prints the variables that name it.
    ///
    /// Uses the servers that YADTQ_KAFKA and YADTQ_REDIS name; for those not
    /// named, Docker Compose; without a Docker engine, Kafka from Maven Central
    /// (Java 17) and the system's redis-server. Data stays until `down --wipe`.
    #[command(after_help = "Example:\n  eval \"$(cargo xtask services up)\"")]
    Up,

    /// Stops what `up` started, and what a killed or kept test run left.
    #[command(after_help = "Example:\n  cargo xtask services down --wipe")]
    Down {
        /// Also delete the servers' data.
        #[arg(long)]
        wipe: bool,
    },

    /// Tells which servers answer; exits with 1 unless all do.
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
