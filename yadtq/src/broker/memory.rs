//! The log in memory: for a first run without servers, and for tests.
//!
//! One consumer group per topic, as everywhere in YADTQ, so a topic and its group are one thing here. Members
//! share the partitions evenly, and a change moves only what has to move: the new owner gets a partition when
//! the old one has been told that it lost it. A stored offset is committed at once, and what is below it is
//! dropped, so memory follows the backlog.

mod topic;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::topic::{MemberId, Topic};
use super::{Broker, BrokerError, BrokerInfo, Event, Outgoing, QueueDepth, Subscription, queue_of};
use crate::core::names::{Namespace, Queue};

/// The largest record that a queue takes, Kafka's default.
const MAX_MESSAGE_BYTES: usize = 1_048_588;
/// The dead-letter topic takes that much more, so that a letter fits with its reasons.
const DEAD_LETTER_EXTRA: usize = 65_536;
/// What Kafka adds to a record: the batch header and the record's own lengths.
const RECORD_OVERHEAD: usize = 80;
/// Records that one call of `next` returns at most.
const MAX_POLL: usize = 1_000;

/// A broker that lives and dies with the process.
#[derive(Clone, Debug)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    namespace: Namespace,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
}

impl MemoryBroker {
    /// An empty broker for a namespace.
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self { shared: Arc::new(Shared { namespace, topics: Mutex::default() }) }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>> {
        let dead = self.shared.namespace.dead_topic();
        let mut topics = self.shared.topics();
        let append = |record: Outgoing| {
            let limit = MAX_MESSAGE_BYTES + if *record.topic == dead { DEAD_LETTER_EXTRA } else { 0 };
            let len = record.size();
            if len + RECORD_OVERHEAD > limit {
                return Err(BrokerError::TooLarge { topic: record.topic, len });
            }
            topics.entry(Arc::clone(&record.topic)).or_default().append(record);
            Ok(())
        };
        records.into_iter().map(append).collect()
    }

    fn subscribe(&self, queue: &Queue) -> Result<Arc<dyn Subscription>, BrokerError> {
        let topic: Arc<str> = self.shared.namespace.topic(queue).into();
        let wake = Arc::new(Notify::new());
        let member = self.shared.topics().entry(Arc::clone(&topic)).or_default().join(Arc::clone(&wake));
        Ok(Arc::new(MemorySubscription { shared: Arc::clone(&self.shared), topic, member, wake }))
    }

    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError> {
        let topics = self.shared.topics();
        let depth =
            |(name, topic): (&Arc<str>, &Topic)| Some(topic.depth(queue_of(&self.shared.namespace, name)?.to_owned()));
        let mut depths: Vec<_> = topics.iter().filter_map(depth).collect();
        depths.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(depths)
    }

    async fn ping(&self) -> Result<BrokerInfo, BrokerError> {
        Ok(BrokerInfo { summary: "in memory, gone when this process ends".to_owned(), warnings: Vec::new() })
    }
}

impl Shared {
    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One member of a topic's group.
#[derive(Debug)]
struct MemorySubscription {
    shared: Arc<Shared>,
    topic: Arc<str>,
    member: MemberId,
    wake: Arc<Notify>,
}

impl MemorySubscription {
    fn with_topic<T>(&self, act: impl FnOnce(&mut Topic, MemberId) -> T) -> T {
        act(self.shared.topics().entry(Arc::clone(&self.topic)).or_default(), self.member)
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&self) -> Vec<Event> {
        loop {
            let events = self.with_topic(|topic, member| topic.poll(member, MAX_POLL));
            if !events.is_empty() {
                return events;
            }
            // A wake that came between the poll and here left a permit, so none is missed.
            self.wake.notified().await;
        }
    }

    fn store(&self, partition: i32, next: i64) {
        self.with_topic(|topic, member| topic.commit(member, partition, next));
    }

    fn pause(&self, partition: i32) {
        self.with_topic(|topic, member| topic.set_paused(member, partition, true));
    }

    fn resume(&self, partition: i32) {
        self.with_topic(|topic, member| topic.set_paused(member, partition, false));
    }

    async fn close(&self) {
        self.with_topic(Topic::leave);
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        self.with_topic(Topic::leave);
    }
}
