//! `yadtq disable` and `yadtq enable`: whether tasks of a name run.

use clap::Args;
use serde::Serialize;
use yadtq::admin::Disabled;

use crate::{exit::Exit, failure::Failure, global::Global, output::Answer};

/// Disable a task: no task of this name runs, in any queue, until it is enabled
///
/// Running tasks continue to their end. Other tasks of this name wait and do not block the tasks behind them, or, with
/// --dead-letter, become dead letters that can be replayed. Workers apply this within 2 seconds, and still do after a restart.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq disable send_email
  yadtq disable send_email --dead-letter
  yadtq dlq replay --reason disabled --task send_email")]
pub(crate) struct Disable {
    /// The task's name
    task: String,

    /// Fail the tasks with the kind `disabled` and make them dead letters, instead of letting them wait
    #[arg(long)]
    dead_letter: bool,
}

/// Enable a disabled task: tasks of this name run again
///
/// Waiting tasks run within a minute. Workers check a waiting task again after as much time as its name was disabled, at
/// least 5 seconds and at most 1 minute. Tasks that became dead letters remain so until they are replayed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq enable send_email
  yadtq controls --json | jq -r '.disabled[].task' | xargs -n 1 yadtq enable")]
pub(crate) struct Enable {
    /// The task's name
    task: String,
}

/// Whether the task is disabled now, and what happens to its tasks then.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct State {
    task: String,
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<Disabled>,
}

impl Answer for State {
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
        global.output().print(&State { task: self.task, disabled: true, then: Some(then) })?;
        Ok(Exit::Done)
    }
}

impl Enable {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        global.connect().await?.admin().enable_task(&self.task).await?;
        global.output().print(&State { task: self.task, disabled: false, then: None })?;
        Ok(Exit::Done)
    }
}
