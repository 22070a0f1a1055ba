//! Shows the progress of a long command at a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line on stderr with a counter, removed when the command ends. If stderr is not a terminal, there is no line.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows the line; `what` stands after the count.
    pub(crate) fn start(what: &'static str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} {msg} ({per_sec}, {elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// Adds one to the count.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// Sets the count.
    pub(crate) fn reached(&self, count: u64) {
        self.0.set_position(count);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
