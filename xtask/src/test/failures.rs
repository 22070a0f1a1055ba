//! Keeps what failed tests printed, so that the end of a long run says why it failed.

use std::mem;

/// Lines of one test that are kept: the last ones before its backtrace, where the panic is.
const LINES: usize = 12;

/// What the failed tests of a run printed, read from libtest's report.
#[derive(Debug, Default)]
pub(super) struct Failures {
    tests: Vec<Output>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Outside,
    Output,
    Backtrace,
}

#[derive(Debug, Default)]
struct Output {
    name: String,
    lines: Vec<String>,
}

impl Failures {
    /// Reads a line such as `---- some::test stdout ----`, and those that follow it.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.tests.push(Output { name: name.to_owned(), lines: Vec::new() });
            self.state = State::Output;
        } else if line == "failures:" || line.starts_with("test result: ") {
            self.state = State::Outside;
        } else if line == "stack backtrace:" && matches!(self.state, State::Output) {
            self.state = State::Backtrace;
        } else if let (State::Output, Some(test)) = (&self.state, self.tests.last_mut()) {
            test.lines.push(line.to_owned());
        }
    }

    /// Empties it into lines to print.
    pub(super) fn take(&mut self) -> Vec<String> {
        let last = |test: Output| {
            let lines: Vec<_> = test.lines.into_iter().filter(|line| !line.is_empty()).collect();
            let skipped = lines.len().saturating_sub(LINES);
            [format!("\n-- {}", test.name)].into_iter().chain(lines.into_iter().skip(skipped))
        };
        mem::take(&mut self.tests).into_iter().flat_map(last).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_of_each_failed_test_is_kept_without_its_backtrace() {
        let mut failures = Failures::default();
        let many = (0..20).map(|n| format!("line {n}")).collect::<Vec<_>>();
        let before = ["test a ... FAILED", "", "failures:", "", "---- a stdout ----"].map(str::to_owned);
        let between =
            ["stack backtrace:", "   0: rust_begin_unwind", "", "---- b::c stdout ----", "panicked at x.rs:1:2:", "oh"];
        let after = ["", "failures:", "    a", "    b::c", "", "test result: FAILED. 1 passed; 2 failed;"];
        let lines = before.into_iter().chain(many).chain(between.map(str::to_owned)).chain(after.map(str::to_owned));
        lines.for_each(|line| failures.line(&line));
        let kept = failures.take();
        assert_eq!(kept.len(), 1 + LINES + 3, "{kept:?}");
        assert_eq!((&*kept[0], &*kept[1], &*kept[LINES]), ("\n-- a", "line 8", "line 19"));
        assert_eq!(kept[LINES + 1..], ["\n-- b::c", "panicked at x.rs:1:2:", "oh"]);
        assert!(failures.take().is_empty());
    }
}
