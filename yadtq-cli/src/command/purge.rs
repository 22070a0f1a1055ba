//! `yadtq purge`: revokes the tasks that wait in a queue.

use clap::Args;
use serde::Serialize;
use yadtq::Queue;

use super::pause::note_unknown_queue;
use crate::{confirm::Confirm, exit::Exit, failure::Failure, global::Global, output::Answer};

/// Revoke all tasks that wait in a queue, and notify their callers
///
/// Running tasks continue, tasks that wait for their due time or a retry stay (`yadtq scheduled`), and tasks sent later run.
/// The queue's workers do the purge within seconds, even if the queue is paused; if no worker runs, the next one does it.
/// Asks for confirmation unless --yes is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq purge mail
  yadtq purge mail --yes --json | jq .tasks")]
pub(crate) struct Purge {
    /// The queue
    queue: Queue,

    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Purged {
    queue: String,
    /// Number of tasks that waited or ran at the time of the purge.
    tasks: u64,
}

impl Answer for Purged {
    fn human(&self) -> String {
        format!("purged {}; {} task(s) waited or ran in it", self.queue, self.tasks)
    }
}

impl Purge {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        self.confirm.check("use --yes to purge")?;
        let client = global.connect().await?;
        self.confirm.ask(&format!("revoke all tasks that wait in {}?", self.queue))?;
        let tasks = client.admin().purge(self.queue.as_str()).await?;
        global.output().print(&Purged { queue: self.queue.to_string(), tasks })?;
        note_unknown_queue(global, &client, &self.queue).await?;
        Ok(Exit::Done)
    }
}
