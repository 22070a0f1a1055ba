//! A task as an operator sees it.

use std::{sync::Arc, time::SystemTime};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Admin, times};
use crate::{
    core::{
        lifecycle::{Status, TaskState},
        names::TaskId,
    },
    error::Error,
    store,
    wire::failure::Failure,
};

/// A task as Redis has it. In its JSON, times are in ms since the Unix epoch.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct TaskInfo {
    /// The task's id.
    pub id: TaskId,
    /// The task's status.
    pub status: Status,
    /// The task's name.
    pub task: String,
    /// The task's queue.
    pub queue: String,
    /// The latest attempt, from 1.
    pub attempt: u32,
    /// Number of workers that died while they ran the task.
    pub deliveries: u32,
    /// The worker that runs the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The result, if the task succeeded and its result is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// The error of the latest attempt, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The latest progress that the running task has reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Box<RawValue>>,
    /// The due time of a delayed task or a retry.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub eta: Option<SystemTime>,
    /// When the task was sent.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub queued_at: Option<SystemTime>,
    /// When the latest run started.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub started_at: Option<SystemTime>,
    /// When the task ended.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "times::write_some")]
    pub finished_at: Option<SystemTime>,
}

impl Admin {
    /// Finds a task by its id. `None`: Redis does not know the task.
    ///
    /// # Errors
    /// Redis does not answer, or another program uses the task's key.
    pub async fn task(&self, id: &TaskId) -> Result<Option<TaskInfo>, Error> {
        let state = store::only(self.store.read(std::slice::from_ref(id), None).await)?;
        Ok(state.map(|state| TaskInfo::new(id, state)))
    }
}

impl TaskInfo {
    fn new(id: &TaskId, state: TaskState) -> Self {
        let json = |text: Arc<str>| RawValue::from_string(text.to_string()).ok();
        Self {
            id: id.clone(),
            status: state.status,
            task: state.task.to_string(),
            queue: state.queue.to_string(),
            attempt: state.attempt,
            deliveries: state.deliveries,
            // Of a failed task, it is the worker that publishes the dead letter.
            worker: state.worker.filter(|_| state.status == Status::Running).map(|worker| worker.to_string()),
            result: state.result.and_then(json),
            error: state.error.and_then(|text| serde_json::from_str(&text).ok()),
            progress: state.progress.and_then(|progress| json(progress.value)),
            eta: state.eta.filter(|_| matches!(state.status, Status::Scheduled | Status::Retrying)).map(times::at),
            queued_at: state.queued_at.map(times::at),
            started_at: state.started_at.map(times::at),
            finished_at: state.finished_at.map(times::at),
        }
    }
}
