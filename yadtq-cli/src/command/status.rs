//! `yadtq status`: the state of a task.

use std::time::SystemTime;

use clap::Args;
use comfy_table::{Cell, Color};
use serde_json::value::RawValue;
use yadtq::{Client, Error, Status as TaskStatus, TaskId, admin::TaskInfo};

use crate::{
    exit::Exit,
    failure::Failure,
    global::Global,
    message,
    output::Answer,
    table, text,
    time::{age, ago, between},
};

/// Longest result or progress that is shown, in characters. Longer ones are cut.
const MAX_VALUE_LENGTH: usize = 1_000;

/// Show the state of a task
///
/// Exits with 0 for every known task, even if it failed; `yadtq result` exits with 1 for a failed task.
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

    /// Wait until the task has ended, and print its progress on stderr meanwhile
    #[arg(long)]
    watch: bool,
}

impl Answer for TaskInfo {
    fn human(&self) -> String {
        let cell = |value: &str| Some(table::text(value));
        let json = |json: &RawValue, rest: &str| table::text(&text::cut(json.get(), MAX_VALUE_LENGTH, rest));
        let time = |at: Option<SystemTime>| at.map(|at| Cell::new(ago(at)));
        let rest = format!("yadtq result {} prints all", self.id);
        let rows = [
            ("task", cell(&self.task)),
            ("id", cell(self.id.as_str())),
            ("queue", cell(&self.queue)),
            ("status", Some(table::status(self.status.as_str(), text::line(&state(self))))),
            ("attempt", (self.attempt > 1).then(|| Cell::new(self.attempt))),
            ("crashes", (self.deliveries > 0).then(|| Cell::new(self.deliveries).fg(Color::DarkYellow))),
            ("worker", self.worker.as_deref().and_then(cell)),
            ("progress", self.progress.as_ref().map(|value| json(value, "--json prints all"))),
            ("runs", time(self.eta)),
            ("queued", time(self.queued_at)),
            ("started", time(self.started_at)),
            ("ended", time(self.finished_at)),
            ("result", self.result.as_ref().map(|value| json(value, &rest))),
            ("error", self.error.as_ref().map(|error| Cell::new(text::lines(&error.to_string())).fg(Color::DarkRed))),
        ];
        table::properties(rows)
    }
}

impl Status {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        if self.watch {
            let mut progress = client.handle::<Box<RawValue>>(self.id.clone()).progress::<Box<RawValue>>();
            while let Some(value) = progress.next().await {
                message::note(&format!("progress {}", value?.get()));
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
    // Only a handle can distinguish an expired task from one that never existed.
    client.handle::<Box<RawValue>>(id.clone()).status().await?;
    Err(Error::NotFound { id: id.clone() }.into())
}

/// The status, and how long the task ran.
fn state(task: &TaskInfo) -> String {
    match (task.started_at, task.finished_at) {
        (Some(started), Some(finished)) => format!("{} after {}", task.status, between(started, finished)),
        (Some(started), None) if task.status == TaskStatus::Running => format!("running for {}", age(started)),
        _ => task.status.to_string(),
    }
}
