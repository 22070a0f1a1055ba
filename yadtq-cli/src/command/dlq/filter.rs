//! Selects dead letters: by id, by filter, or all of them.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use yadtq::admin::{DeadLetter, DeadLetters};

use crate::{exit::Exit, failure::Failure, message};

/// Says that no dead letter was selected.
pub(super) const NONE: &str = "no dead letter matches";

/// The letters that a command changes. By default it changes none.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Ids of tasks, or places of letters, as `yadtq dlq list` shows them
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// Select all dead letters
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Conditions that a selected letter fulfils, all of them.
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filter {
    /// Only letters of tasks with this name
    #[arg(long, value_name = "NAME")]
    task: Option<String>,

    /// Only letters from this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,

    /// Only letters with this reason, such as retries, fatal, arguments, unknown-task, deliveries, disabled, unpublishable or unreadable
    #[arg(long)]
    reason: Option<String>,

    /// Only letters older than this, such as 1h or 2days
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,

    /// Only letters newer than this, such as 1h or 2days
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
    /// Fails if nothing is selected, or if the selection contradicts itself.
    pub(super) fn check(&self, filter: &Filter) -> Result<(), Failure> {
        let is_filtered = *filter != Filter::default();
        if self.all && is_filtered {
            return Err(Failure::Input("--all and a filter contradict each other; use one of them".to_owned()));
        }
        if !self.all && self.ids.is_empty() && !is_filtered {
            return Err(Failure::Input(
                "select dead letters: by id, with a filter such as --task or --reason, or all of them with --all"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    pub(super) fn on(&self, letters: DeadLetters) -> DeadLetters {
        self.ids.iter().fold(letters, DeadLetters::id)
    }

    /// All ids, as long as no letter was seen. A single one is reported by [`none`](Self::none).
    pub(super) fn missing(&self) -> Missing<'_> {
        let is_reported = |_: &&String| self.ids.len() > 1;
        Missing(self.ids.iter().filter(is_reported).map(String::as_str).collect())
    }

    /// Reports that no letter was selected.
    pub(super) fn none(&self) -> Result<Exit, Failure> {
        match &self.ids[..] {
            [id] => Err(Failure::NoLetter(id.clone())),
            _ => {
                message::note(NONE);
                Ok(Exit::NotFound)
            }
        }
    }
}

/// The ids that no letter had that was seen so far.
pub(super) struct Missing<'a>(BTreeSet<&'a str>);

impl Missing<'_> {
    pub(super) fn saw(&mut self, letter: &DeadLetter) {
        self.0.remove(&*letter.place.to_string());
        if let Some(id) = &letter.id {
            self.0.remove(id.as_str());
        }
    }

    /// Reads all selected letters, for a command that does not see them one by one.
    pub(super) async fn look(&mut self, letters: &DeadLetters) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut walk = letters.clone().walk().await?;
        while let Some(letter) = walk.next().await? {
            self.saw(&letter);
        }
        Ok(())
    }

    /// Warns about each. Returns `done`, or that some were not found.
    pub(super) fn exit(&self, done: Exit) -> Exit {
        self.0.iter().for_each(|id| message::warning(&format!("no dead letter has the id or place {id}")));
        if self.0.is_empty() { done } else { Exit::NotFound }
    }
}
