//! Free slots of idle workers, and what workers send to each other. All of it is a hint, and may be lost.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Answers, StoreError};
use crate::{
    core::{names::WorkerId, slots::TaskSet},
    wire::offer::WorkerMessage,
};

/// Free slots of a worker.
#[derive(Clone, Debug)]
pub(crate) struct FreeSlots {
    /// The queue whose tasks it takes.
    pub queue: Arc<str>,
    /// The tasks that it knows.
    pub tasks: Arc<TaskSet>,
    /// Number of slots.
    pub count: usize,
}

/// Slots that a worker has records for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedSlots {
    pub queue: Arc<str>,
    pub task: Arc<str>,
    /// Number of records.
    pub count: usize,
}

/// How work finds free slots: [`IdleSlots`](crate::core::slots::IdleSlots) of each queue, and messages between workers.
#[async_trait]
pub(crate) trait Slots {
    /// Announces free slots; replaces what the worker announced before for the same tasks of the queue. Sends
    /// [`Notice::SlotsFree`](super::Notice::SlotsFree) to workers that found too few.
    async fn announce(&self, by: &WorkerId, slots: &[FreeSlots]) -> Result<(), StoreError>;

    /// Takes announced slots of other workers: for each request, whose and how many. If they are fewer than wanted, the caller
    /// gets [`Notice::SlotsFree`](super::Notice::SlotsFree) when some are announced, for a while. What is taken twice, or by
    /// somebody whom the answer does not reach, is announced again.
    async fn take_slots(&self, by: &WorkerId, wanted: &[WantedSlots]) -> Answers<Vec<(WorkerId, usize)>>;

    /// Sends messages to workers. `false`: nobody has received it, for certain.
    async fn send(&self, messages: &[(WorkerId, WorkerMessage)]) -> Answers<bool>;
}
