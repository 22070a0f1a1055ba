//! The answer of `result` and `submit --wait`: how a task ended, or that it has not ended.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use yadtq::{Error, ErrorKind, Status, StoreError, TaskHandle, TaskId};

use crate::{
    exit::Exit,
    failure::Failure,
    message,
    output::{Answer, Output},
};

/// Interval at which a wait without a timeout checks whether Redis still answers.
const REDIS_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A handle that returns the result as raw JSON.
pub(crate) type Handle = TaskHandle<Box<RawValue>>;

/// How the task ended, or its status.
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

/// The error of a task that did not succeed, with the keys that `status` uses too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct TaskError {
    kind: ErrorKind,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
}

impl Answer for Outcome {
    const IS_DATA: bool = true;

    fn human(&self) -> String {
        self.result.as_ref().map(|json| json.get().to_owned()).unwrap_or_default()
    }
}

/// Prints how the task ended; fails if it has not ended.
pub(crate) async fn look(handle: &Handle, output: Output) -> Result<Exit, Failure> {
    loop {
        if let Some(ended) = handle.result().await.transpose() {
            return print_end(handle.id(), ended, output);
        }
        let (id, status) = (handle.id().clone(), handle.status().await?);
        // It may have ended between the two calls.
        if !status.is_terminal() {
            print_status(&id, status, output)?;
            return Err(Failure::NotEnded { id, status });
        }
    }
}

/// Waits until the task has ended, at most for `timeout`, and prints how it ended.
pub(crate) async fn wait(handle: &Handle, timeout: Option<Duration>, output: Output) -> Result<Exit, Failure> {
    // Waiting survives every outage, so an error that is there from the start must be found before it.
    handle.status().await?;
    let Some(after) = timeout else {
        return print_end(handle.id(), wait_for_end(handle).await, output);
    };
    match handle.wait(after).await {
        Err(Error::WaitTimeout { id, .. }) => {
            // Fails if the connection to Redis was lost in the meantime.
            let status = handle.status().await?;
            print_status(&id, status, output)?;
            Err(Failure::StillNotEnded { id, status, after })
        }
        ended => print_end(handle.id(), ended, output),
    }
}

/// Waits without a timeout, and warns while Redis does not answer.
async fn wait_for_end(handle: &Handle) -> Result<Box<RawValue>, Error> {
    loop {
        match handle.wait(REDIS_CHECK_INTERVAL).await {
            Err(Error::WaitTimeout { .. }) => match handle.status().await {
                Err(error @ Error::Store(StoreError::Unavailable(_))) => {
                    message::warning(&format!("{error}; still waiting for task {}", handle.id()));
                }
                status => _ = status?,
            },
            ended => return ended,
        }
    }
}

/// Prints how the task ended, and returns the exit code for it.
fn print_end(id: &TaskId, ended: Result<Box<RawValue>, Error>, output: Output) -> Result<Exit, Failure> {
    let (status, result, error) = match &ended {
        Ok(result) => (Status::Success, Some(result.clone()), None),
        Err(Error::NoResult { .. }) => {
            message::note(&format!("task {id} succeeded; its result was not kept, as requested"));
            (Status::Success, None, None)
        }
        Err(Error::TaskFailed { kind, message, attempts, .. }) => {
            let error = TaskError { kind: kind.clone(), message: message.clone(), attempt: Some(*attempts) };
            (Status::Failure, None, Some(error))
        }
        Err(Error::Revoked { .. }) => (Status::Revoked, None, revoked(ErrorKind::Revoked, "it was asked to end")),
        Err(Error::Expired { .. }) => {
            (Status::Revoked, None, revoked(ErrorKind::Expired, "it expired before it could run"))
        }
        Err(Error::Purged { .. }) => (Status::Revoked, None, revoked(ErrorKind::Purged, "its queue was purged")),
        Err(other) => return Err(other.clone().into()),
    };
    output.print(&Outcome { id: id.to_string(), status: status.as_str(), result, error })?;
    match ended {
        Err(error) if status != Status::Success => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

/// The error of a task that has ended without having succeeded or failed.
fn revoked(kind: ErrorKind, message: &str) -> Option<TaskError> {
    Some(TaskError { kind, message: message.to_owned(), attempt: None })
}

/// Prints the status of a task that has not ended, as JSON only: people read it in the error.
fn print_status(id: &TaskId, status: Status, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        output.print(&Outcome { id: id.to_string(), status: status.as_str(), result: None, error: None })?;
    }
    Ok(())
}
