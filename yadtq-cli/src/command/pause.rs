//! `yadtq pause` and `yadtq resume`: whether workers take tasks from a queue.

use clap::Args;
use serde::Serialize;
use yadtq::{Client, Queue};

use crate::{exit::Exit, failure::Failure, global::Global, message, output::Answer};

/// Pause a queue: workers take no tasks from it until it is resumed
///
/// Running tasks continue to their end. Tasks can still be sent to the queue, and wait in it. Workers apply this within
/// 2 seconds, and still do after a restart.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq pause mail
  yadtq pause mail --json | jq -r .queue")]
pub(crate) struct Pause {
    /// The queue
    queue: Queue,
}

/// Resume a paused queue: workers take tasks from it again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq resume mail
  yadtq queues --json | jq -r '.[] | select(.paused) | .queue' | sort -u | xargs -n 1 yadtq resume")]
pub(crate) struct Resume {
    /// The queue
    queue: Queue,
}

/// Whether the queue is paused now.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct State {
    queue: String,
    paused: bool,
}

impl Answer for State {
    fn human(&self) -> String {
        let action = if self.paused { "paused" } else { "resumed" };
        format!("{action} {}", self.queue)
    }
}

impl Pause {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        client.admin().pause(self.queue.as_str()).await?;
        print(global, &client, &self.queue, true).await
    }
}

impl Resume {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        client.admin().resume(self.queue.as_str()).await?;
        print(global, &client, &self.queue, false).await
    }
}

async fn print(global: &Global, client: &Client, queue: &Queue, paused: bool) -> Result<Exit, Failure> {
    global.output().print(&State { queue: queue.to_string(), paused })?;
    note_unknown_queue(global, client, queue).await?;
    Ok(Exit::Done)
}

/// Notes that a queue does not exist yet. It may be paused or purged all the same, but a misspelt name is more likely.
pub(super) async fn note_unknown_queue(global: &Global, client: &Client, queue: &Queue) -> Result<(), Failure> {
    let queues = client.admin().queues().await?;
    if !queues.iter().any(|known| known.queue == queue.as_str()) {
        message::note(&format!("there is no queue {queue} in namespace {} yet", global.namespace()));
    }
    Ok(())
}
