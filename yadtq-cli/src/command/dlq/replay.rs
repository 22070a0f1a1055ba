//! `yadtq dlq replay`: sends the tasks of dead letters again.

use clap::Args;
use serde::Serialize;
use yadtq::admin::{DeadLetter, NotReplayed};

use super::filter::{Filter, Which};
use crate::{exit::Exit, failure::Failure, global::Global, message, output::Answer, progress::Progress};

/// Largest number of refusals that are listed; the others are only counted.
const MAX_REFUSALS: usize = 100;

/// Queue the tasks of dead letters again, from attempt 1
///
/// Each task keeps its id, so callers can wait for it. A letter is deleted when its task is queued again; if the task fails
/// again, it gets a new letter. An interrupted replay can be repeated: every task still runs once. Exits with 1 if a letter
/// cannot be replayed, and with 3 if no dead letter matches, or none has one
/// of the ids.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq dlq replay d5750c0e-ed82 3/1042
  yadtq dlq replay --task send_email --reason arguments --newer-than 1day
  yadtq dlq replay --all --json")]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    filter: Filter,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    /// Number of tasks that are queued again.
    replayed: u64,
    /// Number of letters whose task had already continued before.
    gone_on: u64,
    /// Number of letters that cannot be replayed, and are kept.
    refused: u64,
    /// The first [`MAX_REFUSALS`] of them.
    refusals: Vec<Refusal>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Refusal {
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    why: String,
}

impl Answer for Summary {
    fn human(&self) -> String {
        let mut line = format!("replayed {}", self.replayed);
        for (count, what) in [(self.gone_on, "had already continued"), (self.refused, "cannot be replayed")] {
            if count > 0 {
                line += &format!(", {count} {what}");
            }
        }
        line
    }
}

impl Replay {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.which.check(&self.filter)?;
        let client = global.connect().await?;
        let letters = self.which.on(self.filter.on(client.admin().dead_letters()));
        let (mut missing, mut refusals) = (self.which.missing(), Vec::new());
        let progress = Progress::start("dead letters replayed");
        let report = letters
            .replay_each(|letter, outcome| {
                progress.step();
                missing.saw(letter);
                if let Err(why) = outcome
                    && refusals.len() < MAX_REFUSALS
                {
                    refusals.push(Refusal::new(letter, why));
                }
            })
            .await;
        drop(progress);
        let report = report?;
        let output = global.output();
        let summary = Summary { replayed: report.replayed, gone_on: report.gone_on, refused: report.refused, refusals };
        output.print(&summary)?;
        if !output.is_json() {
            summary.refusals.iter().for_each(Refusal::warn);
            if summary.refused > summary.refusals.len() as u64 {
                message::warning("there are more that cannot be replayed");
            }
        }
        let found = missing.exit(Exit::Done);
        match (report.refused, report.replayed + report.gone_on) {
            (0, 0) => self.which.none(),
            (0, _) => Ok(found),
            _ => Ok(Exit::TaskFailed),
        }
    }
}

impl Refusal {
    fn new(letter: &DeadLetter, why: &NotReplayed) -> Self {
        Self { place: letter.place.to_string(), id: letter.id.as_ref().map(ToString::to_string), why: why.to_string() }
    }

    fn warn(&self) {
        let Self { place, id, why } = self;
        message::warning(&match id {
            Some(id) => format!("{id} at {place}: {why}"),
            None => format!("{place}: {why}"),
        });
    }
}
