//! Deletes records behind the acknowledged commit, so that a topic holds its backlog and not its history.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{Offset, TopicPartitionList, admin::AdminOptions, error::RDKafkaErrorCode as Code};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use super::{Cluster, topics::code};

/// Pause between two purges.
const PERIOD: Duration = Duration::from_secs(10);
/// Longest wait for one purge.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be deleted from one topic.
pub(super) struct Purge {
    topic: Arc<str>,
    /// By partition: everything below that offset.
    below: Mutex<BTreeMap<i32, i64>>,
    refused: AtomicBool,
    /// Held while a purge is under way, so that the one on close does not return before it.
    running: tokio::sync::Mutex<()>,
}

impl Purge {
    pub(super) fn new(topic: Arc<str>) -> Self {
        Self { topic, below: Mutex::default(), refused: AtomicBool::new(false), running: tokio::sync::Mutex::default() }
    }

    /// Notes a commit that Kafka acknowledged. The latest counts, not the highest: a topic may be made again.
    pub(super) fn committed(&self, partition: i32, next: i64) {
        self.below().insert(partition, next);
    }

    /// Forgets what was noted beyond this offset, at which the log goes on.
    pub(super) fn keep_from(&self, partition: i32, offset: i64) {
        let mut below = self.below();
        if below.get(&partition).is_some_and(|&next| next > offset) {
            below.remove(&partition);
        }
    }

    /// Deletes what was noted since the last time.
    pub(super) async fn run(&self, cluster: &Cluster) {
        let _running = self.running.lock().await;
        let below = std::mem::take(&mut *self.below());
        let mut list = TopicPartitionList::with_capacity(below.len());
        for (&partition, &next) in below.iter().filter(|(_, next)| **next > 0) {
            // Fails for negative offsets only.
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(next));
        }
        if list.count() == 0 {
            return;
        }
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let failed = match cluster.admin.delete_records(&list, &options).await {
            Ok(results) => results.elements().iter().find_map(|partition| partition.error().err()).map(|e| code(&e)),
            Err(error) => Some(code(&error)),
        };
        match failed {
            None => self.refused.store(false, Ordering::Relaxed),
            Some(
                code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::PolicyViolation),
            ) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let (topic, error) = (&*self.topic, code.to_string());
                    error!(
                        event = "purge_refused",
                        topic, error, "kafka does not let finished tasks be deleted; the topic grows"
                    );
                }
            }
            // Then the topic is another one than it was when these offsets were committed.
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::OffsetOutOfRange) => {}
            Some(code) => {
                debug!(event = "purge_failed", topic = &*self.topic, error = %code, "will be tried again");
                let mut noted = self.below();
                below.into_iter().for_each(|(partition, next)| _ = noted.entry(partition).or_insert(next));
            }
        }
    }

    fn below(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Purges for as long as there is something that notes commits.
pub(super) async fn run(purge: Weak<Purge>, cluster: Arc<Cluster>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(purge) = purge.upgrade() else { return };
        purge.run(&cluster).await;
    }
}
