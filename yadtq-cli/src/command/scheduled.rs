//! `yadtq scheduled`: what waits for its time, and what becomes of it instead.

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde::Serialize;
use yadtq::{Revocation, Scheduled as Found, ScheduledTask, TaskId};

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::Answer,
    table::{self, Column},
    text,
    time::ago,
};

const COLUMNS: [Column; 5] =
    [Column::text("ID"), Column::text("TASK"), Column::text("QUEUE"), Column::text("RUNS"), Column::number("ATTEMPT")];

/// List the tasks that wait for their time or for a retry, and run or end them
///
/// The first to run come first. ATTEMPT: from 2 on it is a retry. Reads all that Kafka holds of them, about a million in some
/// seconds.
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

    /// How many to list
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run tasks now; exits with 1 if one does not wait (any more)
    Run {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<TaskId>,
    },
    /// End tasks, as `yadtq revoke` does; exits with 1 if one had ended before
    Cancel {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<TaskId>,
    },
}

#[derive(Serialize)]
#[serde(transparent)]
struct List(Found);

impl Answer for List {
    fn human(&self) -> String {
        table::list(&COLUMNS, self.0.tasks.iter().map(row))
    }
}

/// What became of one task.
#[derive(Serialize)]
struct Told {
    id: String,
    /// `runs`, `not-waiting`, `revoked`, `asked` or `ended`.
    outcome: &'static str,
}

#[derive(Serialize)]
#[serde(transparent)]
struct AllTold(Vec<Told>);

impl Answer for AllTold {
    fn human(&self) -> String {
        let said = |told: &Told| {
            let said = match told.outcome {
                "runs" => "runs now",
                "not-waiting" => "does not wait (any more)",
                "asked" => "runs already, and is asked to end",
                "ended" => "had ended before",
                _ => "revoked: it will not run",
            };
            format!("{} {said}", told.id)
        };
        self.0.iter().map(said).collect::<Vec<_>>().join("\n")
    }
}

impl Scheduled {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let output = global.output();
        let mut told = Vec::new();
        match self.action {
            None => {
                let found = client.admin().scheduled(self.limit).await?;
                let (total, shown) = (found.total, found.tasks.len());
                let why = match total {
                    0 => format!("nothing waits for its time in namespace {}", global.namespace()),
                    _ => format!("the first {shown} of {total}; --limit shows more"),
                };
                output.print_or(&List(found), total == 0 || shown as u64 != total, &why)?;
                return Ok(Exit::Done);
            }
            Some(Action::Run { ids }) => {
                for id in ids {
                    let outcome = if client.admin().run_now(&id).await? { "runs" } else { "not-waiting" };
                    told.push(Told { id: id.to_string(), outcome });
                }
            }
            Some(Action::Cancel { ids }) => {
                for id in ids {
                    let outcome = match client.revoke(&id).await? {
                        Revocation::Asked { .. } => "asked",
                        Revocation::Ended { .. } => "ended",
                        _ => "revoked",
                    };
                    told.push(Told { id: id.to_string(), outcome });
                }
            }
        }
        let is_late = told.iter().any(|told| ["not-waiting", "ended"].contains(&told.outcome));
        output.print(&AllTold(told))?;
        Ok(if is_late { Exit::TaskFailed } else { Exit::Done })
    }
}

fn row(task: &ScheduledTask) -> Vec<Cell> {
    vec![
        Cell::new(text::line(&task.id)),
        Cell::new(text::line(&task.task)),
        Cell::new(text::line(&task.queue)),
        Cell::new(ago(task.eta)),
        Cell::new(task.attempt),
    ]
}
