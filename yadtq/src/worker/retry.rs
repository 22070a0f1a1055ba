//! How a task that has not ended goes on: another attempt, or the same one at another time.

use std::time::Duration;

use tracing::{info, warn};

use super::{
    control::Control,
    execute::millis,
    job::{Job, Run},
};
use crate::{
    core::{
        lifecycle::{Next, Status, Token},
        names::TaskId,
        retry::Retry,
    },
    task::Steer,
    wire::{
        envelope::MAX_NUMBER,
        failure::{ErrorKind, Failure},
    },
};

impl Control {
    /// An attempt failed: it is made again, unless there is none left or the error says that there is no point.
    pub(super) fn fail_or_retry(&mut self, id: TaskId, token: Token, failure: Failure, steer: Steer) {
        self.fail_or_wait(id, token, failure, steer, Duration::ZERO);
    }

    /// Nobody here knows the task. In a rolling deploy, somebody will: it is tried again like one that failed.
    pub(super) fn unknown(&mut self, id: TaskId, token: Token) {
        let Some(run) = self.runs.get(&id) else { return };
        let message = format!("no worker of queue {} has a task named `{}`", run.job.ask.queue, run.job.ask.task);
        let failure = Failure::new(ErrorKind::UnknownTask, message, run.job.ask.attempt);
        let grace = self.plan.options.unknown_task_grace;
        self.fail_or_wait(id, token, failure, Steer::Policy, grace);
    }

    fn fail_or_wait(&mut self, id: TaskId, token: Token, failure: Failure, steer: Steer, at_least: Duration) {
        let Some(run) = self.runs.get(&id) else { return };
        let (attempt, retry) = (run.job.ask.attempt, run.job.retry(self.plan.options.retry));
        if steer == Steer::Fatal || attempt > retry.retries() {
            return self.fail(id, token, failure);
        }
        let wait_ms = match steer {
            Steer::RetryAfter(time) => millis(time),
            _ => retry.wait_ms(attempt, fastrand::u64(..)).max(millis(at_least)),
        };
        let error = Some(failure.to_json().into());
        let next =
            Next { status: Status::Retrying, attempt: attempt + 1, due: self.in_ms(wait_ms), error, in_place: false };
        self.go_on(id, token, next, Some(failure));
    }

    /// The task asked for the same attempt, later.
    pub(super) fn snooze(&mut self, id: TaskId, token: Token, time: Duration) {
        let due = self.in_ms(millis(time));
        self.park(id, token, due);
    }

    /// The same attempt at another time.
    pub(super) fn park(&mut self, id: TaskId, token: Token, due: u64) {
        let Some(run) = self.runs.get(&id) else { return };
        // The attempt that follows still wants to know why the one before it failed.
        let error = run.job.envelope.last_error.as_ref().map(|failure| failure.to_json().into());
        let next = Next { status: Status::Scheduled, attempt: run.job.ask.attempt, due, error, in_place: false };
        self.go_on(id, token, next, None);
    }

    /// So many ms from now, before the end of time as the store counts it.
    pub(super) fn in_ms(&self, ms: u64) -> u64 {
        self.now_ms().saturating_add(ms).min(MAX_NUMBER)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.client.config().clock.now_ms()
    }

    pub(super) fn log_next(&self, run: &Run, next: &Next, failure: Option<&Failure>) {
        let (id, ask) = (&run.job.envelope.id, &run.job.ask);
        let in_ms = next.due.saturating_sub(self.now_ms());
        match failure {
            Some(failure) => warn!(event = "task_retrying", worker = %self.id, task_id = %id, task = %ask.task,
                queue = %ask.queue, attempt = ask.attempt, kind = %failure.kind, error = failure.logged(), in_ms,
                "attempt failed; the next one follows"),
            None => info!(event = "task_parked", worker = %self.id, task_id = %id, task = %ask.task,
                queue = %ask.queue, attempt = ask.attempt, in_ms, "task waits for its time"),
        }
    }
}

impl Job {
    /// When it is tried again: as the record says, else the task, else the worker.
    pub(super) fn retry(&self, default: Retry) -> Retry {
        let task = self.definition.as_ref().map(|task| task.retry).unwrap_or_default();
        self.envelope.retry.or(task).or(default)
    }
}
