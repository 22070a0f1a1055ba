//! Tells a person at a terminal how far a long command is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line on stderr that counts, and is gone when the command ends. Nothing where stderr is no terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// `what` is said after the count.
    pub(crate) fn start(what: &'static str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} {msg} ({per_sec}, {elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    /// One more is done.
    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// So many are done.
    pub(crate) fn reached(&self, count: u64) {
        self.0.set_position(count);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
