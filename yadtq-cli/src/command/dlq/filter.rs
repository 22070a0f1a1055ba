//! Which dead letters are meant.

use std::time::Duration;

use clap::Args;
use yadtq::DeadLetters;

use crate::{exit::Exit, failure::Failure, output};

/// Which letters a command changes: nothing is meant by default.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Ids of tasks, or places of letters, as the list shows them
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// All that there are
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Only those that fit all of these.
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Which ones")]
pub(super) struct Filter {
    /// Only tasks of this name
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// Only what came from this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,

    /// Only what is here for this reason, such as retries, fatal, arguments, unknown-task,
    /// deliveries, disabled or unreadable
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

impl Which {
    /// Whether something was said, and no contradiction.
    pub(super) fn check(&self, filter: &Filter) -> Result<(), Failure> {
        let is_filtered = *filter != Filter::default();
        if self.all && is_filtered {
            return Err(Failure::Input("--all and a filter contradict each other; say one of them".to_owned()));
        }
        if !self.all && self.ids.is_empty() && !is_filtered {
            return Err(Failure::Input(
                "say which ones: ids, a filter such as --task or --reason, or --all for all of them".to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn on(&self, letters: DeadLetters) -> DeadLetters {
        self.ids.iter().fold(letters, DeadLetters::id)
    }

    /// There was none.
    pub(super) fn none(&self) -> Result<Exit, Failure> {
        match &self.ids[..] {
            [id] => Err(Failure::NoLetter(id.clone())),
            _ => {
                output::note("there is no such dead letter");
                Ok(Exit::NotFound)
            }
        }
    }
}
