//! `yadtq scheduled`: tasks that wait for their due time or a retry; runs them now, or cancels them.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde::Serialize;
use yadtq::{
    Revocation, TaskId,
    admin::{Scheduled as Found, ScheduledTask},
};

use crate::{
    exit::Exit,
    failure::Failure,
    global::Global,
    output::{self, Answer, Row},
    table::{self, Column},
    time::ago,
};

/// List tasks that wait for their due time or a retry; run them now, or cancel them
///
/// The tasks with the earliest due time come first. ATTEMPT: 2 or more is a retry. The command reads all waiting records
/// from Kafka: a million of them take some seconds.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  yadtq scheduled
  yadtq scheduled --limit 1000 --json | jq -r '.tasks[] | select(.task == \"remind\") | .id'
  yadtq scheduled run d5750c0e-ed82
  yadtq scheduled cancel d5750c0e-ed82 e6861d1f-fe93"
)]
pub(crate) struct Scheduled {
    #[command(subcommand)]
    action: Option<Action>,

    /// Largest number of tasks to list
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run tasks now; exits with 1 if one of them does not wait, or no longer
    Run {
        /// The tasks' ids
        #[arg(required = true)]
        ids: Vec<TaskId>,
    },
    /// Revoke tasks, as `yadtq revoke` does, and delete their records; exits with 1 if one of them had already ended
    Cancel {
        /// The tasks' ids
        #[arg(required = true)]
        ids: Vec<TaskId>,
    },
}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Found);

impl Answer for List {
    fn human(&self) -> String {
        output::rows(&self.0.tasks)
    }
}

impl Row for ScheduledTask {
    const COLUMNS: &'static [Column] = &[
        Column::text("ID"),
        Column::text("TASK"),
        Column::text("QUEUE"),
        Column::text("RUNS"),
        Column::number("ATTEMPT"),
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            table::text(self.id.as_str()),
            table::text(&self.task),
            table::text(&self.queue),
            Cell::new(ago(self.eta)),
            Cell::new(self.attempt),
        ]
    }
}

/// What `run` or `cancel` did to one task.
#[derive(Serialize)]
struct Outcome {
    id: String,
    /// `runs`, `not-waiting`, `revoked`, `asked` or `ended`.
    outcome: &'static str,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Outcomes(Vec<Outcome>);

impl Answer for Outcomes {
    fn human(&self) -> String {
        let line = |task: &Outcome| {
            let outcome = match task.outcome {
                "runs" => "runs now",
                "not-waiting" => "does not wait, or no longer",
                "asked" => "was already running, and is asked to stop",
                "ended" => "had already ended",
                _ => "is revoked, and will not run",
            };
            format!("{} {outcome}", task.id)
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Scheduled {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let output = global.output();
        let mut outcomes = Vec::new();
        match self.action {
            None => {
                let found = client.admin().scheduled(self.limit).await?;
                let (total, shown) = (found.total, found.tasks.len());
                let note = match total {
                    0 => Some(format!("no task waits for its due time in namespace {}", global.namespace())),
                    _ if shown as u64 == total => None,
                    _ => Some(format!("the first {shown} of {total}; use --limit to show more")),
                };
                output.print_with(&List(found), note.as_deref())?;
                return Ok(Exit::Done);
            }
            Some(Action::Run { ids }) => {
                for id in ids {
                    let outcome = if client.admin().run_now(&id).await? { "runs" } else { "not-waiting" };
                    outcomes.push(Outcome { id: id.to_string(), outcome });
                }
            }
            Some(Action::Cancel { ids }) => {
                for id in ids {
                    let outcome = match client.admin().cancel_scheduled(&id).await? {
                        Revocation::Asked { .. } => "asked",
                        Revocation::Ended { .. } => "ended",
                        _ => "revoked",
                    };
                    outcomes.push(Outcome { id: id.to_string(), outcome });
                }
            }
        }
        let is_late = outcomes.iter().any(|task| ["not-waiting", "ended"].contains(&task.outcome));
        output.print(&Outcomes(outcomes))?;
        Ok(if is_late { Exit::TaskFailed } else { Exit::Done })
    }
}
