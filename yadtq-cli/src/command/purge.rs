//! `yadtq purge`: ends what waits in a queue.

use std::io::IsTerminal as _;

use clap::Args;
use serde::Serialize;
use yadtq::Queue;

use super::pause::note_unknown;
use crate::{cli::Global, confirm, exit::Exit, failure::Failure, output::Answer};

/// End all tasks that wait in a queue, and tell whoever awaits them
///
/// Tasks that run are spared, and so are those that wait for their time or a retry (`yadtq scheduled`). Tasks that are sent
/// later run. The queue's workers do it, within seconds, also if it is paused; if none is up, it is done when one comes.
/// Asks before it does, unless told otherwise.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq purge mail
  yadtq purge mail --yes --json | jq .tasks")]
pub(crate) struct Purge {
    /// The queue
    queue: Queue,

    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Told {
    queue: String,
    /// How many waited or ran.
    tasks: u64,
}

impl Answer for Told {
    fn human(&self) -> String {
        format!("purged {}, where {} task(s) waited or ran", self.queue, self.tasks)
    }
}

impl Purge {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        if !self.yes && !std::io::stdin().is_terminal() {
            return Err(Failure::Input("there is nobody to ask; say --yes to purge".to_owned()));
        }
        let client = global.connect().await?;
        if !self.yes {
            confirm::purge(&format!("end all tasks that wait in {}?", self.queue))?;
        }
        let tasks = client.admin().purge(self.queue.as_str()).await?;
        global.output().print(&Told { queue: self.queue.to_string(), tasks })?;
        note_unknown(global, &client, &self.queue).await?;
        Ok(Exit::Done)
    }
}
