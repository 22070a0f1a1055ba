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
use tokio::sync::{Notify, watch};

use self::topic::{MemberId, Topic};
use super::{Broker, BrokerError, BrokerInfo, Event, Extent, Outgoing, QueueDepth, Reader, Subscription, queue_of};
use crate::{clock::Clock, core::names::Namespace};

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

#[derive(Debug)]
struct Shared {
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
}

impl MemoryBroker {
    /// An empty broker for a namespace.
    #[cfg(test)]
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self::with_clock(namespace, crate::clock::SystemClock::shared())
    }

    /// An empty broker for a namespace, whose records have the time of this clock.
    #[must_use]
    pub fn with_clock(namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { namespace, clock, topics: Mutex::default() }) }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>> {
        let dead = self.shared.namespace.dead_topic();
        let mut topics = self.shared.topics();
        let now_ms = self.shared.clock.now_ms();
        let append = |record: Outgoing| {
            let limit = MAX_MESSAGE_BYTES + if *record.topic == dead { DEAD_LETTER_EXTRA } else { 0 };
            let len = record.size();
            if len + RECORD_OVERHEAD > limit {
                return Err(BrokerError::TooLarge { topic: record.topic, len });
            }
            self.shared.topic(&mut topics, &record.topic).append(record, now_ms);
            Ok(())
        };
        records.into_iter().map(append).collect()
    }

    fn subscribe(&self, topic: &Arc<str>) -> Result<Arc<dyn Subscription>, BrokerError> {
        let (shared, wake) = (Arc::clone(&self.shared), Arc::new(Notify::new()));
        let member = shared.topic(&mut shared.topics(), topic).join(Arc::clone(&wake));
        Ok(Arc::new(MemorySubscription { shared, topic: Arc::clone(topic), member, wake }))
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        let shared = Arc::clone(&self.shared);
        let growth = shared.topic(&mut shared.topics(), topic).growth();
        let at = from.iter().map(|&(partition, offset)| Place { partition, offset, has_ended: false }).collect();
        Ok(Box::new(MemoryReader { shared, topic: Arc::clone(topic), at, growth }))
    }

    async fn extents(&self, topic: &Arc<str>) -> Result<Vec<Extent>, BrokerError> {
        Ok(self.shared.topics().get(topic).map(Topic::extents).unwrap_or_default())
    }

    async fn truncate(&self, topic: &Arc<str>, below: &[(i32, i64)]) -> Result<(), BrokerError> {
        if let Some(topic) = self.shared.topics().get_mut(topic) {
            below.iter().for_each(|&(partition, offset)| topic.truncate(partition, offset));
        }
        Ok(())
    }

    async fn exist(&self, asked: &[Arc<str>]) -> Result<Vec<bool>, BrokerError> {
        let topics = self.shared.topics();
        Ok(asked.iter().map(|topic| topics.contains_key(topic)).collect())
    }

    async fn queues(&self) -> Result<Vec<QueueDepth>, BrokerError> {
        let topics = self.shared.topics();
        let depth = |(name, topic): (&Arc<str>, &Topic)| {
            let (queue, priority) = queue_of(&self.shared.namespace, name)?;
            Some(topic.depth(queue.to_owned(), priority))
        };
        let mut depths: Vec<_> = topics.iter().filter_map(depth).collect();
        depths.sort_by(|a, b| (&a.queue, a.priority).cmp(&(&b.queue, b.priority)));
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

    fn topic<'a>(&self, topics: &'a mut HashMap<Arc<str>, Topic>, name: &Arc<str>) -> &'a mut Topic {
        topics.entry(Arc::clone(name)).or_insert_with(|| Topic::new(self.namespace.is_compacted(name)))
    }
}

/// A reader beside the group.
struct MemoryReader {
    shared: Arc<Shared>,
    topic: Arc<str>,
    at: Vec<Place>,
    growth: watch::Receiver<()>,
}

struct Place {
    partition: i32,
    offset: i64,
    /// That all was read has been told.
    has_ended: bool,
}

impl MemoryReader {
    fn read(&mut self) -> Vec<Event> {
        let (mut records, mut ended) = (Vec::new(), Vec::new());
        let mut topics = self.shared.topics();
        let topic = self.shared.topic(&mut topics, &self.topic);
        for place in &mut self.at {
            match topic.read(place.partition, place.offset, MAX_POLL - records.len()) {
                Some((more, next)) => {
                    records.extend(more);
                    place.offset = next;
                    place.has_ended = false;
                }
                // It may be that there was no room for more.
                None if !place.has_ended && records.len() < MAX_POLL => {
                    place.has_ended = true;
                    ended.push(place.partition);
                }
                None => {}
            }
        }
        let events = [Event::Records(records), Event::Ended(ended)];
        events.into_iter().filter(|event| !event.is_empty()).collect()
    }
}

#[async_trait]
impl Reader for MemoryReader {
    async fn next(&mut self) -> Vec<Event> {
        loop {
            self.growth.mark_unchanged();
            let events = self.read();
            if !events.is_empty() {
                return events;
            }
            // Never fails: this reader keeps the topic.
            let _ = self.growth.changed().await;
        }
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
        act(self.shared.topic(&mut self.shared.topics(), &self.topic), self.member)
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
