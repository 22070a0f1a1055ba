//! The shared state that says who may run a task, and how it ended: Redis, or the same in memory.
//!
//! ```text
//!  Store ─┬─ Tasks          who may run a task, how its run ended, how far it is
//!         ├─ UniqueKeys     which task a unique key belongs to
//!         ├─ Limits         how many tasks may start, and run at once
//!         ├─ Registry       which workers live, and which were lost
//!         ├─ Ownership      which worker reads which partitions
//!         ├─ Slots          which workers are idle, and messages between workers
//!         ├─ PeriodicTasks  what runs by a schedule, and its latest tick
//!         └─ Channels       notices to clients (a task ended) and workers (end this run)
//! ```
//! Every method that changes a task is one atomic transition of [`crate::core::lifecycle`], never a read
//! followed by a write. Every method may be sent twice, and gives the same answer the second time. Losing
//! the whole store loses no task: the log has it, and a claim makes the record again. What goes over the channels
//! is a hint, and may be lost.

mod capacity;
mod channels;
#[cfg(test)]
mod conformance;
#[cfg(all(test, feature = "redis"))]
mod histories;
mod limits;
mod mailbox;
pub(crate) mod memory;
mod ownership;
mod periodic_tasks;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod registry;
mod slots;
mod tasks;
mod unique_keys;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use thiserror::Error;

pub use self::registry::{RunningIn, WorkerInfo};
pub(crate) use self::{
    capacity::Memory,
    channels::{Channels, Notice, NoticeReceiver, Reply},
    limits::{Limits, PermitKey, PermitRequest, RateRequest},
    ownership::Ownership,
    periodic_tasks::PeriodicTasks,
    registry::{Beaten, Registry},
    slots::{FreeSlots, Slots, WantedSlots},
    tasks::{DeadTask, Finish, Lease, Report, Submission, Tasks},
    unique_keys::{Reservation, UniqueKeys},
};

/// How long the store keeps what, in ms.
pub(crate) mod ttl {
    const HOUR: u64 = 3_600_000;

    /// A task that waits or runs: 7 days, counted anew when it starts to wait and when its lease is extended. A task
    /// that waits for its time is kept for 7 days beyond it, even while it runs earlier, so that the record that waits finds out what
    /// became of it. A finished one is kept for as long if a record of it was carried.
    pub(crate) const WAITING: u64 = 7 * 24 * HOUR;
    /// What is known of all workers, and of the partitions of a topic, without any call: 7 days.
    pub(crate) const FLEET: u64 = 7 * 24 * HOUR;
    /// Permits that nobody keeps or returns: 1 h. After a longer outage others may take them at once.
    pub(crate) const PERMITS: u64 = HOUR;
    /// A worker's registration, without heartbeats: 1 min.
    pub(crate) const WORKER: u64 = 60_000;
    /// A finished task with its result: 24 h.
    pub(crate) const RESULT: u64 = 24 * HOUR;
    /// A finished task whose result is not kept: 1 h. Must outlive any redelivery of the record.
    pub(crate) const MARKER: u64 = HOUR;
}

/// Clients that are notified of one task's end. Others have to ask, as after a lost reply.
const MAX_WAITERS: usize = 64;

/// Why the store did not do what it was asked to.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address cannot be used.
    #[error("`{url}` is no address of a redis: {detail}; write redis://[user:password@]host[:port][/database]")]
    Address {
        /// The address without its password.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// No answer: the connection is down, or the command ran into its timeout. It may or may not have been done.
    #[error("redis does not answer: {0}")]
    Unavailable(String),
    /// Redis answers, but takes no writes for now. Nothing was changed; it can be sent again when the cause is gone.
    #[error("redis takes no writes, {remedy}: {reply}")]
    WritesRefused {
        /// What to do.
        remedy: &'static str,
        /// What Redis said.
        reply: String,
    },
    /// The key of one task holds something that is not ours.
    #[error("redis key {key} is not a task or key of yadtq ({detail}); delete or rename it, and the task goes on")]
    WrongType {
        /// The key.
        key: String,
        /// What Redis said.
        detail: String,
    },
    /// Redis answered with an error.
    #[error("redis refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether the same call may work later, without any change of what is stored.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::WritesRefused { .. })
    }
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreInfo {
    /// One line a person can read: product, version, address.
    pub summary: String,
    /// What should be fixed, each with its remedy.
    pub warnings: Vec<String>,
}

/// Answers of a batch, in order.
///
/// The outer error says that nothing is known of any of its calls: send it again. An inner error concerns one task alone.
pub(crate) type Answers<T> = Result<Vec<Result<T, StoreError>>, StoreError>;

/// The answer to a batch of one.
pub(crate) fn only<T>(answers: Answers<T>) -> Result<T, StoreError> {
    answers?.pop().expect("one answer for each of a batch")
}

/// All roles of a store, and what is known of its connection.
#[async_trait]
pub(crate) trait Store:
    Tasks + UniqueKeys + Limits + Registry + Ownership + Slots + PeriodicTasks + Channels + Debug + Send + Sync
{
    /// Asks the store who it is, and looks for settings that endanger results.
    async fn ping(&self) -> Result<StoreInfo, StoreError>;

    /// How full the servers are that have a limit, as far as they answer and may be asked.
    async fn memory(&self) -> Vec<Memory>;

    /// How long the connection has been up without a break; `None` while it is down, or while the store takes no writes.
    fn connected_for(&self) -> Option<Duration>;

    /// The store's clock: µs since the Unix epoch.
    async fn now_us(&self) -> Result<u64, StoreError>;
}
