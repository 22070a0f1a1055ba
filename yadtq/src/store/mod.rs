//! The shared state that says who may run a task, and how it ended: Redis, or the same in memory.
//!
//! Every method that changes a task is one atomic transition of [`crate::core::lifecycle`], never a read
//! followed by a write. Every method may be sent twice, and gives the same answer the second time. Losing
//! the whole store loses no task: the log has it, and a claim makes the record again.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod histories;
mod mailbox;
pub mod memory;
pub mod redis;

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::core::{
    lifecycle::{
        Ask, Claim, Claimer, Extended, HandedOn, Held, Next, Outcome, Progress, Replay, Revocation, Status, TaskState,
        Token, Verdict,
    },
    limits::{Admission, Rate, Turn},
    names::{ClientId, TaskId, WorkerId},
    ticks::{Declaration, Declared, Known},
    unique::{Reserved, UniqueKey},
};

/// How long what is kept, in ms.
pub mod ttl {
    const HOUR: u64 = 3_600_000;

    /// A task that waits or runs: 7 days, counted anew when it comes to wait and when its lease is extended. One that
    /// waits for its time: 7 days beyond that.
    pub const WAITING: u64 = 7 * 24 * HOUR;
    /// A worker's registration, without heartbeats: 1 min.
    pub const WORKER: u64 = 60_000;
    /// A finished task with its result: 24 h.
    pub const RESULT: u64 = 24 * HOUR;
    /// A finished task whose result is not kept: 1 h. Must outlive any redelivery of the record.
    pub const MARKER: u64 = HOUR;
}

/// Clients that are told of one task's end; the others have to ask, as after a lost reply.
const MAX_WAITERS: usize = 64;

/// Why the store did not do as asked.
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

/// A task to note as queued.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The id.
    pub id: TaskId,
    /// The task's name.
    pub task: Arc<str>,
    /// The queue.
    pub queue: Arc<str>,
    /// The client to tell, should it end without a run.
    pub reply_to: Option<ClientId>,
    /// When it may run, in ms since the Unix epoch, if it has to wait.
    pub eta: Option<u64>,
}

/// A unique key, asked for on behalf of a task.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The key.
    pub key: UniqueKey,
    /// The task.
    pub id: TaskId,
    /// How long the key is kept from the first submit on, in ms.
    pub ttl_ms: u64,
}

/// One lease, as its holder remembers it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The task.
    pub id: TaskId,
    /// The claim that was granted.
    pub ask: Arc<Ask>,
    /// Token and freshness.
    pub held: Held,
}

/// One run's end.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The lease under which it ran.
    pub lease: Lease,
    /// How it ended.
    pub outcome: Arc<Outcome>,
    /// The client to tell, besides those in the record.
    pub reply_to: Option<ClientId>,
    /// How long the record is kept, in ms: one of [`ttl`], or the task's own.
    pub ttl_ms: u64,
}

/// One run that has not ended its task.
#[derive(Clone, Debug)]
pub struct Handover {
    /// The lease under which it ran.
    pub lease: Lease,
    /// How the task goes on.
    pub next: Arc<Next>,
}

/// How far one run is: noted by its worker, and told to the clients that watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The task.
    pub id: TaskId,
    /// The run.
    pub token: Token,
    /// What it says.
    pub progress: Progress,
}

impl Report {
    /// Grows with every report of a task, whichever run says it.
    #[must_use]
    pub fn order(&self) -> (Token, u64) {
        (self.token, self.progress.number)
    }
}

/// A dead task that is to run again.
#[derive(Clone, Debug)]
pub struct Revival {
    /// The task.
    pub id: TaskId,
    /// The `seq` of the record that died.
    pub seq: u64,
    /// The task's name.
    pub task: Arc<str>,
    /// The queue it came from.
    pub queue: Arc<str>,
}

/// A task that wants to start under a rate.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Names the limit.
    pub limit: Arc<str>,
    /// The rate.
    pub rate: Rate,
    /// How the task comes to it.
    pub turn: Turn,
}

/// A run's place under a limit of tasks at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Names the limit.
    pub limit: Arc<str>,
    /// The run: its task's id and its token.
    pub run: Arc<str>,
}

/// A run that wants a place, or keeps it.
#[derive(Clone, Debug)]
pub struct Occupation {
    /// The place.
    pub place: Place,
    /// How many there are.
    pub most: u32,
    /// Whether it runs there already.
    pub holds: bool,
}

/// Told to a client that waits: a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The task.
    pub id: TaskId,
    /// How it ended.
    pub status: Status,
    /// JSON text of the result.
    pub result: Option<Arc<str>>,
    /// JSON text of the error.
    pub error: Option<Arc<str>>,
}

/// What a client's reply channel tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Tasks ended.
    Replies(Vec<Reply>),
    /// These tasks ended, with results that are too large for the channel: ask the store.
    Ended(Vec<TaskId>),
    /// How far running tasks are, the latest word of each.
    Progress(Vec<Report>),
    /// These running tasks are to be ended.
    Revoke(Vec<TaskId>),
    /// Something may have been missed (a reconnect, a burst): ask the store.
    Missed,
}

/// What a worker tells of itself with every heartbeat.
///
/// ```no_run
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// for worker in client.admin().workers().await? {
///     println!("{} on {} runs {} tasks", worker.id, worker.host, worker.running);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct WorkerInfo {
    /// New at every start.
    pub id: String,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Version of this library.
    pub version: String,
    /// Queues it serves.
    pub queues: Vec<String>,
    /// Tasks it can run at once, blocking ones included.
    pub slots: usize,
    /// Tasks that it runs now.
    pub running: usize,
    /// Ids of the first 100 of them.
    pub running_ids: Vec<String>,
    /// Tasks ended since the start, failures included.
    pub processed: u64,
    /// Tasks that failed since the start.
    pub failed: u64,
    /// Blocking tasks that went on beyond their timeout since the start.
    #[serde(default)]
    pub overrun: u64,
    /// When it started, in ms since the Unix epoch.
    pub started_at: u64,
    /// Its last heartbeat, in ms since the Unix epoch, on the store's clock.
    pub seen_at: u64,
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// One line a person can read: product, version, address.
    pub summary: String,
    /// What should be mended, each with its remedy.
    pub warnings: Vec<String>,
}

/// Answers of a batch, in order.
///
/// The outer error says that nothing is known of any of its calls: send it again. An inner error concerns one task alone.
pub type Answers<T> = Result<Vec<Result<T, StoreError>>, StoreError>;

/// A task's transitions and the registry of workers.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// Notes tasks as queued, where the store has nothing of them yet.
    async fn submit(&self, tasks: &[Submission]) -> Result<(), StoreError>;

    /// Asks for unique keys: [`unique::reserve`](crate::core::unique::reserve) on each, in order.
    async fn reserve(&self, keys: &[Reservation]) -> Answers<Reserved>;

    /// Notes that Kafka has the tasks of unique keys; `false`: the key is free by now, or another task's.
    async fn confirm(&self, keys: &[(UniqueKey, TaskId)]) -> Answers<bool>;

    /// Asks to run tasks: [`lifecycle::claim`](crate::core::lifecycle::claim) on each, in order, by the
    /// store's clock. `by.quarantine` counts over the whole batch.
    async fn claim(&self, by: &Claimer, asks: &[(TaskId, Arc<Ask>)]) -> Answers<Claim>;

    /// Records how runs ended, and tells the clients that wait. `Recorded` means readers can see it.
    async fn complete(&self, runs: &[Completion]) -> Answers<Verdict>;

    /// Gives tasks up to later records, which are to be published after that.
    async fn hand_on(&self, runs: &[Handover]) -> Answers<HandedOn>;

    /// Extends leases.
    async fn extend(&self, worker: &WorkerId, lease_ms: u64, leases: &[Lease]) -> Answers<Extended>;

    /// Asks whether tasks may start: [`limits::admit`](crate::core::limits::admit) on each, in order, by the store's
    /// clock. Sent twice, it may cost a start: never one too many.
    async fn admit(&self, entries: &[Entry]) -> Answers<Admission>;

    /// Takes or keeps places until the lease is over: [`limits::occupy`](crate::core::limits::occupy) on each, in order.
    /// `Some`: there is none; look again after so many ms.
    async fn occupy(&self, lease_ms: u64, runs: &[Occupation]) -> Answers<Option<u64>>;

    /// Gives places up.
    async fn vacate(&self, places: &[Place]) -> Result<(), StoreError>;

    /// Notes how far runs are, and tells the clients that watch. A hint: `false` for a run that is not its task's
    /// any more.
    async fn progress(&self, reports: &[Report]) -> Answers<bool>;

    /// Gives tasks back.
    async fn release(&self, leases: &[Lease]) -> Answers<Verdict>;

    /// Ends tasks, or asks the workers that run them to, and tells whoever waits.
    async fn revoke(&self, ids: &[TaskId]) -> Answers<Revocation>;

    /// Lets dead tasks run again; their records are to be published after that.
    async fn replay(&self, dead: &[Revival]) -> Answers<Replay>;

    /// Reads tasks; `None`: the store has nothing of it. With a `waiter`, the client is told when a task ends
    /// that has not ended yet.
    async fn read(&self, ids: &[TaskId], waiter: Option<&ClientId>) -> Answers<Option<TaskState>>;

    /// Reads tasks as [`read`](Self::read) does, with a waiter that is also told how far they are.
    async fn watch(&self, ids: &[TaskId], watcher: &ClientId) -> Answers<Option<TaskState>>;

    /// Opens the channel on which a worker is told what to do.
    async fn control(&self, worker: &WorkerId) -> Result<Box<dyn Replies>, StoreError>;

    /// Opens the reply channel of a client. Returns at once, also while the connection is down. `Missed` is the
    /// first notice: from then on replies come.
    async fn replies(&self, client: &ClientId) -> Result<Box<dyn Replies>, StoreError>;

    /// Notes that a worker lives; returns workers whose last heartbeat is older than `lost_after_ms` (`None`: does
    /// not look, as after an outage, when everybody's is). Each lost worker is told to one caller only.
    async fn beat(&self, worker: &WorkerInfo, lost_after_ms: Option<u64>) -> Result<Vec<WorkerInfo>, StoreError>;

    /// Takes a worker that stops out of the registry.
    async fn leave(&self, worker: &str) -> Result<(), StoreError>;

    /// Workers whose registration has not lapsed.
    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError>;

    /// Notes periodic tasks that a worker declares: [`ticks::declare`](crate::core::ticks::declare) on each. They are
    /// forgotten [`ttl::WAITING`] after their next tick, or after now if there is none.
    async fn declare(&self, tasks: &[Declaration]) -> Answers<Known>;

    /// Periodic tasks that are not forgotten, by name.
    async fn periodics(&self) -> Result<Vec<(Arc<str>, Declared)>, StoreError>;

    /// Asks the store who it is and looks for settings that endanger results.
    async fn ping(&self) -> Result<StoreInfo, StoreError>;

    /// How long the connection has been up without a break; `None` while it is down.
    fn connected_for(&self) -> Option<Duration>;

    /// The store's clock: µs since the Unix epoch.
    async fn now_us(&self) -> Result<u64, StoreError>;
}

/// The reply channel of a client.
#[async_trait]
pub trait Replies: Send {
    /// The next notice. Never fails: while the connection is down it waits, then tells `Missed`. Cancel safe.
    async fn next(&mut self) -> Notice;
}
