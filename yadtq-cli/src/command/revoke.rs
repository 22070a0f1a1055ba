//! `yadtq revoke`: ends a task.

use clap::Args;
use serde::Serialize;
use yadtq::{Revocation, TaskId};

use crate::{cli::Global, exit::Exit, failure::Failure, output::Answer};

/// End a task: one that waits will not run, one that runs is asked to end
///
/// Also a task that no worker has seen yet, and an id that is not known at all: should its record come, it will not run.
/// Exits with 1 if the task had ended before.
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
struct Told {
    id: String,
    /// `revoked`, `asked` or `ended`.
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

impl Answer for Told {
    fn human(&self) -> String {
        match (&self.worker, &self.status) {
            (Some(worker), _) => format!("worker {worker} is asked to end it"),
            (_, Some(status)) => format!("too late: it had ended as {status}"),
            _ => "revoked: it will not run".to_owned(),
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
        global.output().print(&Told { id: self.id.to_string(), outcome, worker, status })?;
        Ok(exit)
    }
}
