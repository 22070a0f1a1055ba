//! `cargo xtask soak`: uses every capability at once, for minutes, while workers
//! are killed. A short soak is one of the tests.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::command;
use crate::project::Project;
use crate::services::Variables;
use crate::test;

#[derive(Args)]
pub(crate) struct Options {
    /// Time during which tasks are sent. From 5 minutes on, Redis is restarted half way.
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,

    /// Number of tasks sent per second.
    #[arg(long, value_name = "TASKS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// Seed of an earlier soak, to send the same tasks. Each soak prints its seed.
    /// Default: random.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the soak on servers of its own. Fails if the oracle finds a violation.
pub(crate) fn run(project: &Project, options: &Options) -> Result<ExitCode> {
    let mut servers = test::prepare(project)?;
    let outcome = servers.up().and_then(|variables| soak(project, options, &variables));
    let removed = servers.remove();
    let code = outcome?;
    removed.map(|()| code)
}

fn soak(project: &Project, options: &Options, variables: &Variables) -> Result<ExitCode> {
    let mut cargo = project.cargo();
    cargo.args(["test", "-p", "yadtq-tests", "--test", "soak", "--", "--nocapture"]).envs(variables.iter());
    cargo.env("YADTQ_SOAK", humantime::format_duration(options.time).to_string());
    cargo.env("YADTQ_SOAK_RATE", options.rate.to_string());
    if let Some(seed) = options.seed {
        cargo.env("YADTQ_SOAK_SEED", seed.to_string());
    }
    let status = command::run_watched(&mut cargo, drop)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
