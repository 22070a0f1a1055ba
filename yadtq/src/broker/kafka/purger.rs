//! Deletes the records below the acknowledged commits, so that a topic holds its backlog and not its history.
//!
//! The purger follows the acknowledged commits, never the stored offsets.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{admin::AdminOptions, error::RDKafkaErrorCode as Code};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error};

use super::{ADMIN_TIMEOUT, Cluster};

/// Time from one purge to the next.
const PURGE_INTERVAL: Duration = Duration::from_secs(10);

/// Deletes the finished records of one topic.
pub(super) struct Purger {
    topic: Arc<str>,
    /// By partition: the records below this offset can be deleted.
    below: Mutex<BTreeMap<i32, i64>>,
    /// Whether Kafka refused the last purge, so that this is logged once.
    is_refused: AtomicBool,
    /// Locked while a purge is under way, so that the last purge on close returns after it.
    running: tokio::sync::Mutex<()>,
}

impl Purger {
    pub(super) fn new(topic: Arc<str>) -> Self {
        let is_refused = AtomicBool::new(false);
        Self { topic, below: Mutex::default(), is_refused, running: tokio::sync::Mutex::default() }
    }

    /// Notes a commit that Kafka acknowledged. The latest commit of a partition replaces earlier ones even if it is
    /// lower: the topic may have been deleted and created again.
    pub(super) fn committed(&self, partition: i32, next: i64) {
        self.below().insert(partition, next);
    }

    /// Forgets a noted commit beyond this offset: the records from here on are not finished.
    pub(super) fn keep_from(&self, partition: i32, offset: i64) {
        let mut below = self.below();
        if below.get(&partition).is_some_and(|&next| next > offset) {
            below.remove(&partition);
        }
    }

    /// Forgets all noted commits: the topic was deleted.
    pub(super) fn forget(&self) {
        self.below().clear();
    }

    /// Deletes the records below the commits that were noted since the last purge.
    pub(super) async fn run(&self, cluster: &Cluster) {
        let _running = self.running.lock().await;
        let mut below = std::mem::take(&mut *self.below());
        below.retain(|_, next| *next > 0);
        if below.is_empty() {
            return;
        }
        let options = AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT));
        let offsets = below.iter().map(|(&partition, &next)| (partition, next));
        match cluster.delete_records(&self.topic, offsets, &options).await {
            Ok(()) => self.is_refused.store(false, Ordering::Relaxed),
            Err(code @ (Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed | Code::PolicyViolation)) => {
                if !self.is_refused.swap(true, Ordering::Relaxed) {
                    let (topic, error) = (&*self.topic, code.to_string());
                    error!(
                        event = "purge_refused",
                        topic, error, "kafka refuses to delete finished tasks; the topic grows"
                    );
                }
            }
            // The topic was deleted, and perhaps created again, after these offsets were committed.
            Err(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::OffsetOutOfRange) => {}
            Err(code) => {
                debug!(event = "purge_failed", topic = &*self.topic, error = %code, "the purge will be retried");
                let mut noted = self.below();
                below.into_iter().for_each(|(partition, next)| _ = noted.entry(partition).or_insert(next));
            }
        }
    }

    fn below(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.below.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Purges every [`PURGE_INTERVAL`] until the purger is dropped.
pub(super) async fn run(purger: Weak<Purger>, cluster: Arc<Cluster>) {
    let mut ticks = interval(PURGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(purger) = purger.upgrade() else { return };
        purger.run(&cluster).await;
    }
}
