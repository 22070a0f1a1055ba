//! `yadtq pause` and `yadtq resume`: whether workers take tasks from a queue.

use clap::Args;
use serde::Serialize;
use yadtq::{Client, Queue};

use crate::{
    cli::Global,
    exit::Exit,
    failure::Failure,
    output::{self, Answer},
};

/// Pause a queue: workers take nothing more from it until it is resumed
///
/// What runs goes on to its end. Tasks can still be sent, and wait. Workers follow within 2 seconds, and remember it over
/// restarts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq pause mail
  yadtq pause mail --json | jq -r .queue")]
pub(crate) struct Pause {
    /// The queue
    queue: Queue,
}

/// Let workers take tasks from a paused queue again
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq resume mail
  yadtq queues --json | jq -r '.[] | select(.paused) | .queue' | sort -u | xargs -n 1 yadtq resume")]
pub(crate) struct Resume {
    /// The queue
    queue: Queue,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Told {
    queue: String,
    paused: bool,
}

impl Answer for Told {
    fn human(&self) -> String {
        let what = if self.paused { "paused" } else { "resumed" };
        format!("{what} {}", self.queue)
    }
}

impl Pause {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        client.admin().pause(self.queue.as_str()).await?;
        tell(global, &client, &self.queue, true).await
    }
}

impl Resume {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        client.admin().resume(self.queue.as_str()).await?;
        tell(global, &client, &self.queue, false).await
    }
}

async fn tell(global: &Global, client: &Client, queue: &Queue, paused: bool) -> Result<Exit, Failure> {
    global.output().print(&Told { queue: queue.to_string(), paused })?;
    note_unknown(global, client, queue).await?;
    Ok(Exit::Done)
}

/// A queue may be paused before there is one, but more likely its name is misspelt.
pub(super) async fn note_unknown(global: &Global, client: &Client, queue: &Queue) -> Result<(), Failure> {
    let queues = client.admin().queues().await?;
    if !queues.iter().any(|known| known.queue == queue.as_str()) {
        output::note(&format!("there is no queue {queue} in namespace {} yet", global.namespace()));
    }
    Ok(())
}
