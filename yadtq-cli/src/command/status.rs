//! `yadtq status`: where a task stands.

use clap::Args;
use comfy_table::{Cell, Color};
use serde_json::value::RawValue;
use yadtq::{Client, Error, TaskId, TaskInfo};

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::{self, Answer},
    table, text,
    time::{age, ago, between},
};

/// Longer results are cut, in characters.
const MAX_RESULT: usize = 1_000;

/// Show where a task stands
///
/// Exits with 0 for every task that is known, however it ended; `yadtq result` exits with 1 for one that failed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq status d5750c0e-ed82
  yadtq status d5750c0e-ed82 --watch
  yadtq status d5750c0e-ed82 --json | jq -r .status
  yadtq status d5750c0e-ed82 --json | jq .progress")]
pub(crate) struct Status {
    /// The task's id
    id: TaskId,

    /// Wait until the task has ended, and tell how far it is on stderr meanwhile
    #[arg(long)]
    watch: bool,
}

impl Answer for TaskInfo {
    fn human(&self) -> String {
        let cell = |value: &str| Some(Cell::new(text::line(value)));
        let rest = format!("yadtq result {} prints all", self.id);
        let all = "--json prints all";
        let rows = [
            ("task", cell(&self.task)),
            ("id", cell(&self.id)),
            ("queue", cell(&self.queue)),
            ("status", Some(table::status(&self.status, text::line(&state(self))))),
            ("attempt", (self.attempt > 1).then(|| Cell::new(self.attempt))),
            ("crashes", (self.deliveries > 0).then(|| Cell::new(self.deliveries).fg(Color::DarkYellow))),
            ("worker", self.worker.as_deref().and_then(cell)),
            (
                "progress",
                self.progress.as_ref().map(|json| Cell::new(text::line(&text::cut(json.get(), MAX_RESULT, all)))),
            ),
            ("runs", self.eta.map(|at| Cell::new(ago(at)))),
            ("queued", self.queued_at.map(|at| Cell::new(ago(at)))),
            ("started", self.started_at.map(|at| Cell::new(ago(at)))),
            ("ended", self.finished_at.map(|at| Cell::new(ago(at)))),
            (
                "result",
                self.result.as_ref().map(|json| Cell::new(text::line(&text::cut(json.get(), MAX_RESULT, &rest)))),
            ),
            ("error", self.error.as_ref().map(|error| Cell::new(text::lines(&error.to_string())).fg(Color::DarkRed))),
        ];
        table::lines(rows.into_iter().filter_map(|(name, value)| Some([table::name(name), value?])))
    }
}

impl Status {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        if self.watch {
            let mut progress = client.handle::<Box<RawValue>>(self.id.clone()).progress::<Box<RawValue>>();
            while let Some(value) = progress.next().await {
                output::note(&format!("progress {}", value?.get()));
            }
        }
        global.output().print(&find(&client, &self.id).await?)?;
        Ok(Exit::Done)
    }
}

async fn find(client: &Client, id: &TaskId) -> Result<TaskInfo, Failure> {
    if let Some(task) = client.admin().task(id).await? {
        return Ok(task);
    }
    // Only a handle tells an expired task from one that never was.
    client.handle::<Box<RawValue>>(id.clone()).status().await?;
    Err(Error::NotFound { id: id.clone() }.into())
}

/// The status, and for how long.
fn state(task: &TaskInfo) -> String {
    match (task.started_at, task.finished_at) {
        (Some(started), Some(finished)) => format!("{} after {}", task.status, between(started, finished)),
        (Some(started), None) if task.status == "running" => format!("running for {}", age(started)),
        _ => task.status.clone(),
    }
}
