//! `cargo xtask test`: all checks that a change must pass, in one command.

mod failures;
mod python;
mod report;
mod tally;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::project::Project;
use crate::services::{self, Services, Variables};
use crate::{command, lint};
use failures::Failures;
use report::Report;
use tally::Tally;

#[derive(Args)]
pub(crate) struct Options {
    /// Run only tests whose name contains one of these, and no lints. Default: all
    /// tests, and the lints.
    filters: Vec<String>,

    /// Leave the servers running, until the next test run or `services down`.
    #[arg(long)]
    keep: bool,
}

/// Runs all steps. The others run even if a step fails, so that one run reports all
/// failures. After an interruption, no further step runs.
pub(crate) fn run(project: &Project, options: &Options) -> ExitCode {
    let mut report = Report::default();
    let mut tally = Tally::default();
    if options.filters.is_empty() {
        report.step("lint", || lint::run(project));
    }
    if let Some(mut servers) = report.step("servers", || prepare(project)) {
        if let Some(variables) = report.step("services up", || servers.up()) {
            run_tests(project, options, variables, &mut report, &mut tally);
        }
        if options.keep {
            eprintln!("the servers are kept; stop them with `cargo xtask services down`");
        } else {
            report.always("services down", || servers.remove());
        }
    }
    report.print(&tally)
}

/// Prepares the machine for the tests, and opens a set of servers for this run.
pub(crate) fn prepare(project: &Project) -> Result<Services<'_>> {
    let developers = Services::open(project)?;
    developers.stop_abandoned()?;
    services::ensure_test_tools(project)?;
    developers.for_test()
}

fn run_tests(project: &Project, options: &Options, mut variables: Variables, report: &mut Report, tally: &mut Tally) {
    match report.step("python", || python::prepare(project)) {
        Some(Some(python)) => variables.set("YADTQ_TEST_PYTHON", python.display().to_string()),
        Some(None) => {}
        None => return,
    }
    if options.keep {
        eprint!("{variables}");
    }
    report.step(report::TESTS, || cargo_test(project, &options.filters, &variables, tally));
}

fn cargo_test(project: &Project, filters: &[String], variables: &Variables, tally: &mut Tally) -> Result<()> {
    let mut cargo = project.cargo();
    // Without --no-fail-fast, the count would end at the first test binary that fails.
    cargo.args(["test", "--workspace", "--no-fail-fast", "--"]).args(filters).envs(variables.iter());
    let mut failures = Failures::default();
    let status = command::run_watched(&mut cargo, |line| {
        tally.line(&line);
        failures.line(&line);
    })?;
    // Once more at the end, where a reader of a long log looks first.
    failures.take().iter().for_each(|line| println!("{line}"));
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    if !status.success() {
        bail!("`cargo test` failed ({status})");
    }
    if tally.ignored > 0 {
        bail!("{} ignored: a skipped test counts as failed; make it run, or delete it", tally.ignored);
    }
    if tally.passed == 0 {
        bail!("no test has such a name");
    }
    Ok(())
}
