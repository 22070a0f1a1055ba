//! The steps of a run: their outcome and duration, printed at the end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::tally::Tally;
use crate::interrupt::Interrupted;

#[derive(Default)]
pub(super) struct Report {
    steps: Vec<Step>,
    interrupted: bool,
}

struct Step {
    name: &'static str,
    /// How long the step ran. `None` if the run was interrupted before it.
    ran: Option<Duration>,
    error: Option<String>,
}

impl Report {
    /// Runs a step, unless the run was interrupted. Returns its value if it succeeds.
    pub(super) fn step<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        if self.interrupted {
            self.steps.push(Step { name, ran: None, error: None });
            return None;
        }
        self.always(name, work)
    }

    /// Runs a step even after an interruption, such as a clean-up.
    pub(super) fn always<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = work();
        self.interrupted |= outcome.as_ref().is_err_and(|error| error.is::<Interrupted>());
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        if let Some(error) = &error {
            eprintln!("error: {error}");
        }
        self.steps.push(Step { name, ran: Some(start.elapsed()), error });
        outcome.ok()
    }

    /// Prints a line for each step, and the number of tests as the last line.
    pub(super) fn print(&self, tally: &Tally) -> ExitCode {
        println!();
        self.steps.iter().for_each(|step| println!("{}", step.line()));
        let failed = self.failures(tally);
        println!("\n{} passed, {failed} failed", tally.passed);
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The number of failures. The last line alone must show a broken run, so skipped
    /// tests count, and so does each step that failed without naming a test (a lint,
    /// a compile error, a crash).
    fn failures(&self, tally: &Tally) -> u64 {
        let tests = tally.failed + tally.ignored;
        let steps = self.steps.iter().filter(|step| step.failed() && !(step.name == TESTS && tests > 0)).count();
        tests + steps as u64
    }
}

/// The step whose failures are counted test by test.
pub(super) const TESTS: &str = "tests";

impl Step {
    fn failed(&self) -> bool {
        self.ran.is_none() || self.error.is_some()
    }

    fn line(&self) -> String {
        let Some(ran) = self.ran else {
            return format!("{:<14} not run", self.name);
        };
        let outcome = if self.failed() { "FAILED" } else { "ok" };
        let reason = self.error.as_deref().and_then(|error| error.lines().next()).unwrap_or_default();
        format!("{:<14} {outcome:<6} {:>7.1} s  {reason}", self.name, ran.as_secs_f64()).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_step_is_a_failure_once() {
        let mut report = Report::default();
        report.step("lint", || Ok(()));
        let tally = Tally { passed: 5, failed: 2, ignored: 1 };
        report.step(TESTS, || -> Result<()> { bail!("2 failed") });
        assert_eq!(report.failures(&tally), 3);
        assert_eq!(report.failures(&Tally::default()), 1, "the tests didn't even compile");
        report.step("python", || -> Result<()> { bail!("no pip") });
        assert_eq!(report.failures(&tally), 4);
    }

    #[test]
    fn after_an_interruption_only_the_clean_up_runs() {
        let mut report = Report::default();
        report.step("lint", || -> Result<()> { Err(Interrupted.into()) });
        assert!(report.step("tests", || Ok(())).is_none());
        assert!(report.always("services down", || Ok(())).is_some());
        assert_eq!(report.failures(&Tally::default()), 2);
        assert_eq!(report.steps[1].line(), "tests          not run");
    }
}
