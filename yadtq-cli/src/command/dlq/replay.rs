//! `yadtq dlq replay`: lets dead tasks run again.

use clap::Args;
use serde::Serialize;
use yadtq::{DeadLetter, NotReplayed};

use super::filter::{Filter, Which};
use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::{self, Answer},
    progress::Progress,
};

/// Refusals that are told one by one.
const MAX_TOLD: usize = 100;

/// Queue the tasks of dead letters again, from attempt 1
///
/// Each task keeps its id, and can be awaited by it. A letter whose task is queued again is gone; if the task fails
/// again, there is a new one. What was interrupted can be repeated: every task runs once all the same. Exits with 1 if
/// a letter cannot be replayed, and with 3 if there was none.
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
    /// Tasks that are queued again.
    replayed: u64,
    /// Letters whose task had gone on before.
    gone_on: u64,
    /// Letters that stay.
    refused: u64,
    /// The first of them.
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
        for (count, what) in [(self.gone_on, "had gone on before"), (self.refused, "cannot be replayed")] {
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
        let mut refusals = Vec::new();
        let progress = Progress::start("dead letters replayed");
        let report = letters
            .replay_each(|letter, outcome| {
                progress.step();
                if let Err(why) = outcome
                    && refusals.len() < MAX_TOLD
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
            summary.refusals.iter().for_each(Refusal::say);
            if summary.refused > summary.refusals.len() as u64 {
                output::warning("and more that cannot be replayed");
            }
        }
        match (report.refused, report.replayed + report.gone_on) {
            (0, 0) => self.which.none(),
            (0, _) => Ok(Exit::Done),
            _ => Ok(Exit::TaskFailed),
        }
    }
}

impl Refusal {
    fn new(letter: &DeadLetter, why: &NotReplayed) -> Self {
        Self { place: letter.place.to_string(), id: letter.id.as_ref().map(ToString::to_string), why: why.to_string() }
    }

    fn say(&self) {
        let Self { place, id, why } = self;
        output::warning(&match id {
            Some(id) => format!("{id} at {place}: {why}"),
            None => format!("{place}: {why}"),
        });
    }
}
