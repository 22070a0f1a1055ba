//! The registry of workers: who lives, and who was lost.

use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::{
    clock,
    core::{names::WorkerId, priority::Priority},
};

/// What a worker reports of itself with every heartbeat. In its JSON, times are in ms since the Unix epoch.
///
/// ```no_run
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// for worker in client.admin().workers().await? {
///     println!("{} on {} runs {} tasks", worker.id, worker.host, worker.running);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The names of the tasks that it knows, in their order, up to 8 KB of them.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Tasks it can run at once, blocking ones included.
    pub slots: usize,
    /// Tasks that it runs now.
    pub running: usize,
    /// Number of them in each queue, by priority.
    #[serde(default)]
    pub running_in: Vec<RunningIn>,
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
    #[serde(rename = "started-at")]
    pub(crate) started_ms: u64,
    /// Its last heartbeat, in ms since the Unix epoch, on the store's clock.
    #[serde(rename = "seen-at")]
    pub(crate) seen_ms: u64,
}

impl WorkerInfo {
    /// When it started, by the clock of its machine.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        clock::at(self.started_ms)
    }

    /// When it sent its last heartbeat, by Redis's clock.
    #[must_use]
    pub fn seen_at(&self) -> SystemTime {
        clock::at(self.seen_ms)
    }
}

/// How many tasks of one priority of a queue a worker runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RunningIn {
    /// The queue.
    pub queue: String,
    /// The priority.
    pub priority: Priority,
    /// Number of tasks.
    pub tasks: u64,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Beaten {
    /// The worker's id is used up: it was declared dead, and has to go on as a new worker. Nothing else is known then but the time.
    pub is_gone: bool,
    /// Nothing was known of the worker: it is new, or the store has forgotten it, or others have declared it dead long ago.
    pub is_new: bool,
    /// The store's time, in µs since the Unix epoch.
    pub now_us: u64,
    /// Whether the worker's control channel is subscribed. If it is not for 0.75 s, the worker may be declared dead.
    pub is_subscribed: bool,
    /// Workers that were declared dead by this very call: each is reported to one caller only.
    pub lost: Vec<WorkerInfo>,
    /// All that were declared dead, or left, since the last answered heartbeat, those included.
    pub dead: Vec<WorkerId>,
    /// When to send the next heartbeat, in ms from now, if that should be earlier than usual.
    pub look_again_ms: Option<u64>,
}

/// The workers that live.
#[async_trait]
pub(crate) trait Registry {
    /// Records that a worker lives, and looks whether others do: [`registry::beat`](crate::core::registry::beat). To be called every
    /// [`BEAT_MS`](crate::core::registry::BEAT_MS). `answered_ms`: the store's time in the last answered heartbeat, 0 at first.
    /// `lease_ms`: the worker's own lease. What readers see of the worker may be 2 s old.
    async fn beat(&self, worker: &WorkerInfo, answered_ms: u64, lease_ms: u64) -> Result<Beaten, StoreError>;

    /// Takes a worker that stops out of the registry, and uses up its id: what it still holds counts as abandoned.
    async fn leave(&self, worker: &str) -> Result<(), StoreError>;

    /// Workers whose registration has not lapsed.
    async fn workers(&self) -> Result<Vec<WorkerInfo>, StoreError>;
}
