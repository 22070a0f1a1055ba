//! Selects dead letters: by id, by filter, or all of them.

use std::{collections::BTreeSet, time::Duration};

use clap::Args;
use yadtq::admin::DeadLetters;

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

    /// Warns about ids that no letter has; returns whether there are any. To be asked before the letters are changed.
    pub(super) async fn lacks(&self, letters: &DeadLetters) -> Result<bool, Failure> {
        if self.ids.len() < 2 {
            // A single one is reported when nothing was done.
            return Ok(false);
        }
        let (mut missing, mut walk) = (self.ids.iter().collect::<BTreeSet<_>>(), letters.clone().walk().await?);
        while let Some(letter) = walk.next().await? {
            missing.remove(&letter.place.to_string());
            letter.id.map(|id| missing.remove(&id.to_string()));
        }
        missing.iter().for_each(|id| message::warning(&format!("no dead letter has the id or place {id}")));
        Ok(!missing.is_empty())
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
