//! Channels: how clients learn that tasks ended, and workers that they are to end one, or to ask for partitions.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Report, StoreError};
use crate::{
    core::{
        lifecycle::{Status, TaskState},
        names::{ClientId, TaskId, WorkerId},
    },
    wire::offer::{FreeAgain, Offer, Place},
};

/// Sent to a client that waits: a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The task.
    pub id: TaskId,
    /// Its name, if it did not succeed.
    pub task: Option<Arc<str>>,
    /// How it ended.
    pub status: Status,
    /// JSON text of the result.
    pub result: Option<Arc<str>>,
    /// JSON text of the error.
    pub error: Option<Arc<str>>,
}

impl Reply {
    /// What is said of a task that has ended; `None`: it has not.
    #[must_use]
    pub(crate) fn of(id: &TaskId, state: &TaskState) -> Option<Self> {
        let TaskState { status, task, result, error, .. } = state;
        status.is_terminal().then(|| Self {
            id: id.clone(),
            task: (*status != Status::Success).then(|| Arc::clone(task)),
            status: *status,
            result: result.clone(),
            error: error.clone(),
        })
    }

    /// Size of its texts in bytes.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        [&self.task, &self.result, &self.error].into_iter().flatten().map(|text| text.len()).sum()
    }
}

/// What comes over a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Tasks ended.
    Replies(Vec<Reply>),
    /// These tasks ended, with results that are too large for the channel: ask the store.
    Ended(Vec<TaskId>),
    /// How far running tasks are, the latest report of each.
    Progress(Vec<Report>),
    /// These running tasks are to be ended.
    Revoke(Vec<TaskId>),
    /// Partitions are there for this worker, or it has too many: it should ask for ownership again.
    OwnAgain,
    /// There are free slots for what this worker offers.
    SlotsFree,
    /// Another worker offers records.
    Offer(Offer),
    /// Other workers do not run these records that this worker offered.
    Declined(Vec<Place>),
    /// Other workers have no slots any more for these records that this worker offered.
    NoSlot(Vec<Place>),
    /// These records that this worker offered have ended or were published anew.
    Completed(Vec<Place>),
    /// Another worker has run a record of this one, and has slots for more.
    FreeAgain(FreeAgain),
    /// Something may have been missed (a reconnect, a burst): ask the store.
    Missed,
}

/// The channels to clients and workers. What is published while nobody listens is lost.
#[async_trait]
pub(crate) trait Channels {
    /// Opens the channel of a worker, over which it is asked to end runs and to ask for partitions, and gets
    /// the messages of other workers. While it is open, the worker counts
    /// as alive.
    async fn control(&self, worker: &WorkerId) -> Result<Box<dyn NoticeReceiver>, StoreError>;

    /// Opens the reply channel of a client. Returns at once, even while the connection is down. `Missed` is the
    /// first notice: from then on replies come.
    async fn replies(&self, client: &ClientId) -> Result<Box<dyn NoticeReceiver>, StoreError>;
}

/// An open channel.
#[async_trait]
pub(crate) trait NoticeReceiver: Send {
    /// The next notice. Never fails: while the connection is down it waits, then returns `Missed`. Cancel safe.
    async fn next(&mut self) -> Notice;
}
