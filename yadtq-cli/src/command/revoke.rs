//! `yadtq revoke`: revokes a task.

use clap::Args;
use serde::Serialize;
use yadtq::{Revocation, TaskId};

use crate::{exit::Exit, failure::Failure, global::Global, output::Answer, text};

/// Revoke a task: a waiting task will not run, a running task is asked to stop
///
/// This works even if no worker has seen the task yet, and even if its id is unknown: if its record arrives later, it will
/// not run. Exits with 1 if the task had already ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  yadtq revoke d5750c0e-ed82
  yadtq revoke d5750c0e-ed82 --json | jq -r .outcome")]
pub(crate) struct Revoke {
    /// The task's id
    id: TaskId,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answered {
    id: String,
    /// `revoked`, `asked` or `ended`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

impl Answer for Answered {
    fn human(&self) -> String {
        match (&self.worker, &self.status) {
            (Some(worker), _) => format!("asked worker {} to stop the task", text::line(worker)),
            (_, Some(status)) => format!("too late: the task had already ended as {status}"),
            _ => "revoked: the task will not run".to_owned(),
        }
    }
}

impl Revoke {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let client = global.connect().await?;
        let (outcome, worker, status) = match client.revoke(&self.id).await? {
            Revocation::Asked { worker } => ("asked", Some(worker), None),
            Revocation::Ended { status } => ("ended", None, Some(status.to_string())),
            _ => ("revoked", None, None),
        };
        let exit = if status.is_some() { Exit::TaskFailed } else { Exit::Done };
        global.output().print(&Answered { id: self.id.to_string(), outcome, worker, status })?;
        Ok(exit)
    }
}
