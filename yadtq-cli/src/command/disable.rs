//! `yadtq disable` and `yadtq enable`: whether tasks of a name run.

use clap::Args;
use serde::Serialize;
use yadtq::Disabled;

use crate::{cli::Global, exit::Exit, failure::Failure, output::Answer};

/// Run no task of a name any more, in any queue, until it is enabled
///
/// What runs goes on to its end. The others wait, and block nothing behind them; or they become dead letters, which can be
/// replayed. Workers follow within 2 seconds, and remember it over restarts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq disable send_email
  yadtq disable send_email --dead-letter
  yadtq dlq replay --reason disabled --task send_email")]
pub(crate) struct Disable {
    /// The task's name
    task: String,

    /// They fail with the kind `disabled`, and become dead letters
    #[arg(long)]
    dead_letter: bool,
}

/// Let tasks of a disabled name run again
///
/// Those that wait run within a minute: they are looked at again after as long as the name was disabled, at least 5 seconds
/// and at most 1 minute. Those that became dead letters stay so until they are replayed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq enable send_email
  yadtq controls --json | jq -r '.disabled[].task' | xargs -n 1 yadtq enable")]
pub(crate) struct Enable {
    /// The task's name
    task: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Told {
    task: String,
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<Disabled>,
}

impl Answer for Told {
    fn human(&self) -> String {
        match self.then {
            Some(Disabled::DeadLetter) => format!("disabled {}; its tasks become dead letters", self.task),
            Some(_) => format!("disabled {}; its tasks wait", self.task),
            None => format!("enabled {}", self.task),
        }
    }
}

impl Disable {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let then = if self.dead_letter { Disabled::DeadLetter } else { Disabled::Wait };
        global.connect().await?.admin().disable_task(&self.task, then).await?;
        global.output().print(&Told { task: self.task, disabled: true, then: Some(then) })?;
        Ok(Exit::Done)
    }
}

impl Enable {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        global.connect().await?.admin().enable_task(&self.task).await?;
        global.output().print(&Told { task: self.task, disabled: false, then: None })?;
        Ok(Exit::Done)
    }
}
