//! Which dead letters are meant.

use std::time::Duration;

use clap::Args;
use yadtq::DeadLetters;

/// Only those that fit all of these.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which ones")]
pub(super) struct Filter {
    /// Only tasks of this name
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// Only what came from this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,

    /// Only what is here for this reason, such as unreadable, unknown-task, arguments or deliveries
    #[arg(long)]
    reason: Option<String>,

    /// Only what became a dead letter longer ago than this, such as 1h or 2days
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,

    /// Only what became a dead letter within this time
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    newer_than: Option<Duration>,
}

impl Filter {
    pub(super) fn on(&self, mut letters: DeadLetters) -> DeadLetters {
        if let Some(task) = &self.task {
            letters = letters.task(task);
        }
        if let Some(queue) = &self.queue {
            letters = letters.queue(queue);
        }
        if let Some(reason) = &self.reason {
            letters = letters.reason(reason);
        }
        if let Some(age) = self.older_than {
            letters = letters.older_than(age);
        }
        if let Some(age) = self.newer_than {
            letters = letters.newer_than(age);
        }
        letters
    }
}
