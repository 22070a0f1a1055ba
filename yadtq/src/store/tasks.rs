//! Tasks: who may run them, how their runs ended, and how far they are.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answers, StoreError};
use crate::core::{
    lifecycle::{
        Claim, ClaimRequest, Claimer, End, Extended, Finished, LeaseProof, Progress, Replay, Revocation, TaskState,
        Token,
    },
    names::{ClientId, TaskId, WorkerId},
};

/// A task that a client sends.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    /// The id.
    pub id: TaskId,
    /// The task's name.
    pub task: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
    /// The client to notify, should it end without a run.
    pub reply_to: Option<ClientId>,
    /// When it may run, in ms since the Unix epoch, if it has to wait.
    pub eta: Option<u64>,
}

/// One lease, as its holder remembers it.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// The task.
    pub id: TaskId,
    /// The claim that was granted.
    pub ask: Arc<ClaimRequest>,
    /// Token and freshness.
    pub held: LeaseProof,
}

/// One run's end.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    /// The lease under which it ran.
    pub lease: Lease,
    /// How it ended.
    pub end: Arc<End>,
    /// The client to notify if the task ended with it, besides those that the store knows of.
    pub reply_to: Option<ClientId>,
    /// How long the record of an ended task is kept, in ms: one of [`ttl`](super::ttl), or the task's own. Unused if the
    /// task has not ended.
    pub ttl_ms: u64,
}

/// How far one run is: recorded by its worker, and published to the clients that watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The task.
    pub id: TaskId,
    /// The run.
    pub token: Token,
    /// What the run reported.
    pub progress: Progress,
}

impl Report {
    /// Grows with every report of a task, whichever run it comes from.
    #[must_use]
    pub(crate) fn order(&self) -> (Token, u64) {
        (self.token, self.progress.number)
    }
}

/// A dead task that is to run again.
#[derive(Clone, Debug)]
pub(crate) struct DeadTask {
    /// The task.
    pub id: TaskId,
    /// The `seq` of the record that became the dead letter.
    pub seq: u64,
    /// The task's name.
    pub task: Arc<str>,
    /// The queue it came from.
    pub queue: Arc<str>,
}

/// The transitions of tasks. Each is one of [`crate::core::lifecycle`], made on the store's clock.
#[async_trait]
pub(crate) trait Tasks {
    /// Records tasks as queued, where the store knows nothing of them yet.
    async fn submit(&self, tasks: &[Submission]) -> Result<(), StoreError>;

    /// Asks to run tasks: [`lifecycle::claim`](crate::core::lifecycle::claim) on each, in order. `by.quarantine` counts
    /// over the whole batch.
    async fn claim(&self, by: &Claimer, asks: &[(TaskId, Arc<ClaimRequest>)]) -> Answers<Claim>;

    /// Records how runs ended: [`lifecycle::finish`](crate::core::lifecycle::finish) on each, in order. Notifies the
    /// clients that wait for a task that ended. `Recorded` means that readers can see it, even if the caller crashes
    /// next.
    async fn finish(&self, runs: &[Finish]) -> Answers<Finished>;

    /// Extends leases.
    async fn extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended>;

    /// Notes that records, given by task and `seq`, are published again: the ends of their tasks are remembered for 7 days then.
    /// `false`: the task has ended, goes on under another record, or is not known, so its record must not be published.
    async fn carry(&self, records: &[(TaskId, u64)]) -> Answers<bool>;

    /// Notes that the dead letters of records, given by task and `seq`, are acknowledged, so that nobody publishes them again.
    /// `false`: the task has not failed under that record, or is not known.
    async fn dead_lettered(&self, records: &[(TaskId, u64)]) -> Answers<bool>;

    /// Records how far runs are, and notifies the clients that watch. A hint: `false` if the run is no longer its
    /// task's.
    async fn progress(&self, reports: &[Report]) -> Answers<bool>;

    /// Ends tasks, or asks the workers that run them to, and notifies the clients that wait.
    async fn revoke(&self, ids: &[TaskId]) -> Answers<Revocation>;

    /// Lets dead tasks run again; their records are to be published after that.
    async fn replay(&self, dead: &[DeadTask]) -> Answers<Replay>;

    /// Reads tasks; `None`: the store knows nothing of it. A `waiter` is notified when a task ends that has not ended
    /// yet.
    async fn read(&self, ids: &[TaskId], waiter: Option<&ClientId>) -> Answers<Option<TaskState>>;

    /// Reads tasks as [`read`](Self::read) does, with a waiter that is also notified of their progress.
    async fn watch(&self, ids: &[TaskId], watcher: &ClientId) -> Answers<Option<TaskState>>;
}
