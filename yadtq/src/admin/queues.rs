//! How much waits in each queue, and for how long.
//!
//! ```text
//!  start      committed                         end
//!    ├─ ended ────┼─ open ── ended ─ open ─ ended ─┤     records: start to end, lag: committed to end,
//!                 └ the oldest                           backlog: the open ones, which wait or run
//! ```

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::{Admin, times};
use crate::{
    broker::{Event, PartitionDepth, QueueDepth},
    core::{finished_set::FinishedSet, priority::Priority},
    error::Error,
    store::{RunningIn, WorkerInfo},
};

/// Longest time for reading the oldest task of each partition.
const OLDEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of topics from which they are read at once.
const TOPICS_AT_ONCE: usize = 8;

/// The tasks of one priority in a queue. In its JSON, [`oldest_at`](Self::oldest_at) is in ms since the Unix epoch.
///
/// ```no_run
/// # async fn f(client: yadtq::Client) -> Result<(), yadtq::Error> {
/// for queue in client.admin().queues().await? {
///     println!("{} ({}): {} wait, {:?} run", queue.queue, queue.priority, queue.waiting(), queue.running);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct QueueInfo {
    /// The queue.
    pub queue: String,
    /// The priority.
    pub priority: Priority,
    /// Number of partitions of the topic.
    pub partitions: usize,
    /// Number of partitions without a leader: their broker is away, and their tasks are not counted.
    pub leaderless: usize,
    /// Number of records in the topic. Records of ended tasks count until they are deleted.
    pub records: u64,
    /// Consumer lag: the number of records beyond the committed offsets. Behind a long task, ended tasks count too.
    pub lag: u64,
    /// Number of tasks that wait or run. Workers report what has ended about once a second, and as much of it as fits into 4 KB for
    /// each partition, so the true number may be smaller.
    pub backlog: u64,
    /// Number of tasks that run, as of the last heartbeats of the workers. `None`: Redis does not answer.
    pub running: Option<u64>,
    /// When the oldest task of the backlog was written to the topic: when it was sent, became due, or was retried. `None`: there is
    /// none, or it could not be read within 2 s.
    #[serde(serialize_with = "times::write_some")]
    pub oldest_at: Option<SystemTime>,
}

impl QueueInfo {
    /// Number of tasks that wait for a worker. Without Redis, running tasks count too.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.backlog.saturating_sub(self.running.unwrap_or(0))
    }

    fn new(depth: &QueueDepth, oldest_ms: Option<u64>, workers: Option<&[WorkerInfo]>) -> Self {
        let is_here = |running: &&RunningIn| running.queue == depth.queue && running.priority == depth.priority;
        let running = |workers: &[WorkerInfo]| {
            workers.iter().flat_map(|worker| &worker.running_in).filter(is_here).map(|running| running.tasks).sum()
        };
        Self {
            queue: depth.queue.clone(),
            priority: depth.priority,
            partitions: depth.partitions.len() + depth.leaderless,
            leaderless: depth.leaderless,
            records: depth.records(),
            lag: depth.lag(),
            backlog: backlog(depth),
            running: workers.map(running),
            oldest_at: oldest_ms.map(times::at),
        }
    }
}

impl Admin {
    /// Every queue, by each priority that was used there, the highest first: how many tasks wait and run, and since when the
    /// oldest one does.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, Error> {
        let (depths, workers) = tokio::join!(self.broker.queues(), self.store.workers());
        let (depths, workers) = (depths?, workers.ok());
        let deadline = Instant::now() + OLDEST_TIMEOUT;
        let infos = stream::iter(depths).map(async |depth| {
            let oldest_ms = self.oldest_ms(&depth, deadline).await;
            QueueInfo::new(&depth, oldest_ms, workers.as_deref())
        });
        Ok(infos.buffered(TOPICS_AT_ONCE).collect().await)
    }

    /// When the oldest task of the backlog was written. Only what no commit says is read.
    async fn oldest_ms(&self, depth: &QueueDepth, deadline: Instant) -> Option<u64> {
        let (mut oldest, mut unread) = (None::<u64>, BTreeMap::new());
        let mut found = |ms: u64| oldest = Some(oldest.map_or(ms, |oldest| oldest.min(ms)));
        for partition in depth.partitions.iter().filter(|partition| partition.lag() > 0) {
            match finished(partition).head_ms() {
                Some(ms) => found(ms),
                None => _ = unread.insert(partition.partition, partition.next()),
            }
        }
        if unread.is_empty() {
            return oldest;
        }
        let topic = Arc::from(self.namespace().topic_of(&depth.queue.parse().ok()?, depth.priority));
        let from: Vec<_> = unread.iter().map(|(&partition, &next)| (partition, next)).collect();
        let mut reader = self.broker.read(&topic, &from).ok()?;
        while !unread.is_empty() {
            for event in timeout_at(deadline, reader.next()).await.ok()? {
                match event {
                    Event::Records(records) => {
                        for record in records {
                            if unread.remove(&record.partition).is_some() {
                                record.timestamp_ms.into_iter().for_each(&mut found);
                            }
                        }
                    }
                    // Others have ended it since.
                    Event::EndReached(partitions) => unread.retain(|partition, _| !partitions.contains(partition)),
                    Event::Assigned(_) | Event::Revoked(_) => {}
                }
            }
        }
        oldest
    }
}

/// What has ended above the committed offset.
fn finished(partition: &PartitionDepth) -> FinishedSet {
    let committed = partition.committed.as_ref();
    committed.map(|committed| FinishedSet::read(committed.next, &committed.metadata)).unwrap_or_default()
}

/// Number of tasks that have not ended.
pub(super) fn backlog(depth: &QueueDepth) -> u64 {
    depth.partitions.iter().map(open).sum()
}

fn open(partition: &PartitionDepth) -> u64 {
    partition.lag().saturating_sub(finished(partition).count(partition.next()..partition.end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::broker::Committed;

    #[test]
    fn ended_tasks_behind_a_long_one_are_no_backlog() {
        let set = FinishedSet::between(10, Some(1_000), 2_000, [10, 15, 16].into_iter(), 40);
        let committed = |metadata| Some(Committed { next: 10, metadata });
        let partition = |committed, end| PartitionDepth { partition: 0, start: 4, committed, end };
        let named = partition(committed(set.to_metadata()), 50);
        assert_eq!((named.lag(), open(&named)), (40, 3 + 10), "three of the first thirty, and ten new ones");
        let unknown = partition(committed(String::new()), 50);
        assert_eq!((unknown.lag(), open(&unknown)), (40, 40));
        let new = partition(None, 6);
        assert_eq!((new.next(), new.lag(), open(&new)), (4, 2, 2));
        // A log that has lost its end.
        assert_eq!(open(&partition(committed(set.to_metadata()), 12)), 1);
        assert_eq!(open(&partition(committed(set.to_metadata()), 5)), 0);
    }
}
