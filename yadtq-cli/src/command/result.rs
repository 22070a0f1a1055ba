//! `yadtq result`: the result of a task.

use clap::Args;
use yadtq::TaskId;

use crate::{exit::Exit, failure::Failure, global::Global, outcome};

/// Print the result of a task, as JSON
///
/// Prints only the value, or with --json an object with the id, the status, and the result or the error. The exit code is
/// 0 if the task succeeded, 1 if it failed or was revoked, 4 if it has not ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq result d5750c0e-ed82
  yadtq result d5750c0e-ed82 --wait --timeout 30s
  sum=$(yadtq result d5750c0e-ed82 --wait) && echo \"$sum\"
  yadtq result d5750c0e-ed82 --json | jq .error.message")]
pub(crate) struct GetResult {
    /// The task's id
    id: TaskId,

    /// Wait until the task has ended
    #[arg(long)]
    wait: bool,

    /// Longest time to wait, such as 30s or 5m; the task continues after it [default: no limit]
    #[arg(long, value_name = "DURATION", requires = "wait")]
    timeout: Option<humantime::Duration>,
}

impl GetResult {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let handle = client.handle(self.id);
        match self.wait {
            true => outcome::wait(&handle, self.timeout.map(Into::into), global.output()).await,
            false => outcome::look(&handle, global.output()).await,
        }
    }
}
