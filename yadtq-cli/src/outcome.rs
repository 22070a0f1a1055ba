//! How a task ended, or that it has not: what `result` and `submit --wait` answer.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use yadtq::{Error, ErrorKind, Status, StoreError, TaskHandle, TaskId};

use crate::{
    exit::Exit,
    failure::Failure,
    output::{self, Answer, Output},
};

/// How often an unlimited wait looks whether Redis is still there.
const CHECK: Duration = Duration::from_secs(10);

/// A handle that takes the result as it is.
pub(crate) type Handle = TaskHandle<Box<RawValue>>;

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Outcome {
    id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<TaskError>,
}

/// The error of a task, as `status` shows it too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct TaskError {
    kind: ErrorKind,
    message: String,
    attempt: u32,
}

impl Answer for Outcome {
    fn human(&self) -> String {
        self.result.as_ref().map(|json| json.get().to_owned()).unwrap_or_default()
    }
}

/// Tells how the task ended, if it has.
pub(crate) async fn look(handle: &Handle, output: Output) -> Result<Exit, Failure> {
    match handle.result().await.transpose() {
        Some(ended) => tell(handle.id(), ended, output),
        None => {
            let (id, status) = (handle.id().clone(), handle.status().await?);
            pending(&id, status, output)?;
            Err(Failure::NotEnded { id, status })
        }
    }
}

/// Waits until the task has ended, at most so long, and tells how.
pub(crate) async fn wait(handle: &Handle, timeout: Option<Duration>, output: Output) -> Result<Exit, Failure> {
    // Waiting outlasts every outage, so what is wrong from the start must be found first.
    handle.status().await?;
    let Some(after) = timeout else {
        return tell(handle.id(), patiently(handle).await, output);
    };
    match handle.wait(after).await {
        Err(Error::WaitTimeout { id, .. }) => {
            // Also tells if Redis has gone away meanwhile.
            let status = handle.status().await?;
            pending(&id, status, output)?;
            Err(Failure::StillNotEnded { id, status, after })
        }
        ended => tell(handle.id(), ended, output),
    }
}

/// Waits without a limit, and says so if Redis cannot tell for now.
async fn patiently(handle: &Handle) -> Result<Box<RawValue>, Error> {
    loop {
        match handle.wait(CHECK).await {
            Err(Error::WaitTimeout { .. }) => match handle.status().await {
                Err(error @ Error::Store(StoreError::Unavailable(_))) => {
                    output::warning(&format!("{error}; still waiting for task {}", handle.id()));
                }
                status => _ = status?,
            },
            ended => return ended,
        }
    }
}

fn tell(id: &TaskId, ended: Result<Box<RawValue>, Error>, output: Output) -> Result<Exit, Failure> {
    let (status, result, error) = match &ended {
        Ok(result) => (Status::Success, Some(result.clone()), None),
        Err(Error::NoResult { .. }) => {
            output::note(&format!("task {id} succeeded, and its result was not kept, as asked"));
            (Status::Success, None, None)
        }
        Err(Error::TaskFailed { kind, message, attempts }) => {
            let error = TaskError { kind: kind.clone(), message: message.clone(), attempt: *attempts };
            (Status::Failure, None, Some(error))
        }
        Err(Error::Revoked { .. }) => (Status::Revoked, None, None),
        Err(other) => return Err(other.clone().into()),
    };
    output.print(&Outcome { id: id.to_string(), status: status.as_str(), result, error })?;
    match ended {
        Err(error) if status != Status::Success => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

/// Programs learn where the task stands; people read it in the error.
fn pending(id: &TaskId, status: Status, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        output.print(&Outcome { id: id.to_string(), status: status.as_str(), result: None, error: None })?;
    }
    Ok(())
}
