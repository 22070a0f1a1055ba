//! Which offsets are stored, and which of them Kafka has acknowledged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{Offset, TopicPartitionList, error::KafkaResult};
use tokio::time::Instant;

use crate::broker::Committed;

/// Kafka forgets the offsets of a group without members after 7 days, so they are committed again before that.
const RECOMMIT_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// The stored offsets of a consumer.
#[derive(Debug, Default)]
pub(super) struct Commits(Mutex<BTreeMap<Partition, Stored>>);

type Partition = (Arc<str>, i32);

#[derive(Debug)]
struct Stored {
    next: i64,
    metadata: String,
    is_acknowledged: bool,
    /// When it was committed last, or stored.
    at: Instant,
    /// Whether the partition is still read.
    is_read: bool,
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) next: i64,
    pub(super) metadata: String,
}

impl Commits {
    pub(super) fn store(&self, topic: &Arc<str>, partition: i32, next: i64, metadata: &str) {
        let stored =
            Stored { next, metadata: metadata.to_owned(), is_acknowledged: false, at: Instant::now(), is_read: true };
        self.stored().insert((Arc::clone(topic), partition), stored);
    }

    /// The partition is read from here on, which was committed before. Kafka forgets it unless it is committed again in time.
    pub(super) fn found(&self, topic: &Arc<str>, partition: i32, committed: &Committed) {
        let Committed { next, metadata } = committed.clone();
        let stored = Stored { next, metadata, is_acknowledged: true, at: Instant::now(), is_read: true };
        self.stored().insert((Arc::clone(topic), partition), stored);
    }

    /// Forgets what was stored for these partitions: they belong to another worker, which commits for them now.
    pub(super) fn forget(&self, topic: &Arc<str>, partitions: &[i32]) {
        self.stored().retain(|(name, partition), _| name != topic || !partitions.contains(partition));
    }

    /// Forgets all that was stored for a topic, which was deleted: its offsets mean nothing in a new topic of its name.
    pub(super) fn forget_all(&self, topic: &Arc<str>) {
        self.stored().retain(|(name, _), _| name != topic);
    }

    /// The partition is read no more: nothing new is stored for it.
    pub(super) fn revoked(&self, topic: &Arc<str>, partition: i32) {
        let (key, mut stored) = ((Arc::clone(topic), partition), self.stored());
        if stored.get(&key).is_some_and(|stored| stored.is_acknowledged) {
            stored.remove(&key);
        } else if let Some(stored) = stored.get_mut(&key) {
            stored.is_read = false;
        }
    }

    /// What is to be committed: all that was not acknowledged, and all that was acknowledged long ago.
    pub(super) fn due(&self, now: Instant) -> Vec<Commit> {
        self.select(|_, stored| {
            !stored.is_acknowledged || now.saturating_duration_since(stored.at) >= RECOMMIT_INTERVAL
        })
    }

    /// What is not acknowledged of these partitions.
    pub(super) fn of(&self, topic: &Arc<str>, partitions: &[i32]) -> Vec<Commit> {
        self.select(|(name, partition), stored| {
            !stored.is_acknowledged && name == topic && partitions.contains(partition)
        })
    }

    /// Kafka has acknowledged these.
    pub(super) fn acknowledged(&self, commits: &[Commit]) {
        let mut stored = self.stored();
        for Commit { topic, partition, next, metadata } in commits {
            let key = (Arc::clone(topic), *partition);
            let Some(entry) = stored.get_mut(&key) else { continue };
            if (entry.next, &entry.metadata) == (*next, metadata) {
                (entry.is_acknowledged, entry.at) = (true, Instant::now());
                if !entry.is_read {
                    stored.remove(&key);
                }
            }
        }
    }

    fn select(&self, which: impl Fn(&Partition, &Stored) -> bool) -> Vec<Commit> {
        let commit = |((topic, partition), stored): (&Partition, &Stored)| Commit {
            topic: Arc::clone(topic),
            partition: *partition,
            next: stored.next,
            metadata: stored.metadata.clone(),
        };
        self.stored().iter().filter(|(partition, stored)| which(partition, stored)).map(commit).collect()
    }

    fn stored(&self) -> MutexGuard<'_, BTreeMap<Partition, Stored>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The list that librdkafka takes.
pub(super) fn list(commits: &[Commit]) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for Commit { topic, partition, next, metadata } in commits {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*next))?;
        element.set_metadata(metadata);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_meanwhile_is_committed_again_and_what_is_read_no_more_is_forgotten() {
        let (commits, topic, now) = (Commits::default(), Arc::from("t"), Instant::now());
        let due = || commits.due(now).iter().map(|commit| (commit.partition, commit.next)).collect::<Vec<_>>();
        commits.store(&topic, 0, 5, "");
        commits.store(&topic, 1, 7, "");
        assert_eq!(due(), [(0, 5), (1, 7)]);
        let sent = commits.due(now);
        commits.store(&topic, 1, 8, "");
        commits.revoked(&topic, 0);
        commits.acknowledged(&sent);
        assert_eq!(due(), [(1, 8)]);
        commits.acknowledged(&commits.of(&topic, &[1]));
        assert!(due().is_empty());
        assert_eq!(commits.due(now + RECOMMIT_INTERVAL * 2).len(), 1, "the group would expire");
        commits.revoked(&topic, 1);
        assert!(commits.due(now + RECOMMIT_INTERVAL * 2).is_empty(), "another worker does that now");
    }

    #[test]
    fn what_was_committed_before_is_committed_again_in_time() {
        let (commits, topic, now) = (Commits::default(), Arc::from("t"), Instant::now());
        commits.found(&topic, 0, &Committed { next: 5, metadata: "aside".to_owned() });
        assert!(commits.due(now).is_empty());
        assert_eq!(commits.due(now + RECOMMIT_INTERVAL * 2)[0].metadata, "aside");
    }

    #[test]
    fn what_is_lost_or_deleted_is_not_committed_any_more() {
        let (commits, topic, other) = (Commits::default(), Arc::from("t"), Arc::from("u"));
        for (topic, partition) in [(&topic, 0), (&topic, 1), (&topic, 2), (&other, 0)] {
            commits.store(topic, partition, 5, "");
        }
        commits.revoked(&topic, 2);
        commits.forget(&topic, &[0]);
        assert_eq!(commits.due(Instant::now()).len(), 3);
        commits.forget_all(&topic);
        assert_eq!(commits.due(Instant::now()).iter().map(|commit| &*commit.topic).collect::<Vec<_>>(), ["u"]);
    }
}
