//! The log in memory: for a first run without servers, and for tests.
//!
//! A stored offset is committed immediately, and the records below it are dropped, so memory use follows the backlog.

mod topic;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use self::topic::{SubscriptionId, Topic};
use super::{
    Broker, BrokerError, BrokerInfo, Committed, Consumer, DEFAULT_MAX_MESSAGE_BYTES, EXTRA_MESSAGE_BYTES, Event,
    MAX_POLL_RECORDS, OffsetRange, Outgoing, QueueDepth, Reader, Subscription, TopicState, queue_of,
};
use crate::{clock::Clock, core::names::Namespace};

/// How many bytes Kafka adds to a record: the batch header, and the lengths of key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 80;

/// A broker whose records are lost when the process ends.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBroker {
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
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self::with_clock(namespace, crate::clock::SystemClock::shared())
    }

    /// An empty broker for a namespace. Its records get their timestamps from this clock.
    #[must_use]
    pub(crate) fn with_clock(namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::new(Shared { namespace, clock, topics: Mutex::default() }) }
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn publish(&self, records: Vec<Outgoing>) -> Vec<Result<(), BrokerError>> {
        let namespace = &self.shared.namespace;
        let dead = namespace.dead_topic();
        let mut topics = self.shared.topics();
        let now_ms = self.shared.clock.now_ms();
        let append = |record: Outgoing| {
            let has_extra = *record.topic == dead || namespace.is_compacted(&record.topic);
            let limit = DEFAULT_MAX_MESSAGE_BYTES + if has_extra { EXTRA_MESSAGE_BYTES } else { 0 };
            let len = record.size();
            if len + RECORD_OVERHEAD_BYTES > limit {
                return Err(BrokerError::TooLarge { topic: record.topic, len });
            }
            self.shared.topic(&mut topics, &record.topic).append(record, now_ms);
            Ok(())
        };
        records.into_iter().map(append).collect()
    }

    fn consumer(&self) -> Result<Arc<dyn Consumer>, BrokerError> {
        Ok(Arc::new(MemoryConsumer { shared: Arc::clone(&self.shared) }))
    }

    async fn create(&self, topic: &Arc<str>) -> Result<(), BrokerError> {
        self.shared.topic(&mut self.shared.topics(), topic);
        Ok(())
    }

    fn read(&self, topic: &Arc<str>, from: &[(i32, i64)]) -> Result<Box<dyn Reader>, BrokerError> {
        let shared = Arc::clone(&self.shared);
        let growth = shared.topic(&mut shared.topics(), topic).growth();
        let position = |&(partition, offset)| ReadPosition { partition, offset, end_reported: false };
        let positions = from.iter().map(position).collect();
        Ok(Box::new(MemoryReader { shared, topic: Arc::clone(topic), positions, growth }))
    }

    async fn offset_ranges(&self, topic: &Arc<str>) -> Result<Vec<OffsetRange>, BrokerError> {
        Ok(self.shared.topics().get(topic).map(Topic::offset_ranges).unwrap_or_default())
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
        Ok(BrokerInfo { summary: "in memory, lost when this process ends".to_owned(), warnings: Vec::new() })
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

/// Reads partitions, and commits nothing.
struct MemoryReader {
    shared: Arc<Shared>,
    topic: Arc<str>,
    positions: Vec<ReadPosition>,
    growth: watch::Receiver<()>,
}

struct ReadPosition {
    partition: i32,
    /// Offset of the next record to return.
    offset: i64,
    /// Whether `Event::EndReached` was returned since the last record.
    end_reported: bool,
}

impl MemoryReader {
    fn read(&mut self) -> Vec<Event> {
        let (mut records, mut ended) = (Vec::new(), Vec::new());
        let mut topics = self.shared.topics();
        let topic = self.shared.topic(&mut topics, &self.topic);
        for position in &mut self.positions {
            match topic.read(position.partition, position.offset, MAX_POLL_RECORDS - records.len()) {
                Some((more, next)) => {
                    records.extend(more);
                    position.offset = next;
                    position.end_reported = false;
                }
                // A full batch says nothing about the end: no record of this partition was asked for.
                None if !position.end_reported && records.len() < MAX_POLL_RECORDS => {
                    position.end_reported = true;
                    ended.push(position.partition);
                }
                None => {}
            }
        }
        let events = [Event::Records(records), Event::EndReached(ended)];
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
            // Never fails: topics are never removed, so the sender lives.
            let _ = self.growth.changed().await;
        }
    }
}

#[derive(Debug)]
struct MemoryConsumer {
    shared: Arc<Shared>,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    fn subscribe(&self, topic: &Arc<str>) -> Arc<dyn Subscription> {
        let (shared, topic, wake) = (Arc::clone(&self.shared), Arc::clone(topic), Arc::new(Notify::new()));
        Arc::new(MemorySubscription { shared, topic, wake, id: Mutex::default() })
    }

    async fn look_up(&self, asked: &[Arc<str>]) -> Result<Vec<Option<TopicState>>, BrokerError> {
        let topics = self.shared.topics();
        Ok(asked.iter().map(|topic| topics.get(topic).map(Topic::state)).collect())
    }

    async fn close(&self) {}
}

/// What one consumer reads of one topic.
#[derive(Debug)]
struct MemorySubscription {
    shared: Arc<Shared>,
    topic: Arc<str>,
    wake: Arc<Notify>,
    /// `None` until something is assigned: reading creates no topic.
    id: Mutex<Option<SubscriptionId>>,
}

impl MemorySubscription {
    fn with_topic<T>(&self, act: impl FnOnce(&mut Topic, SubscriptionId) -> T) -> Option<T> {
        let id = *self.id.lock().unwrap_or_else(PoisonError::into_inner);
        Some(act(self.shared.topic(&mut self.shared.topics(), &self.topic), id?))
    }
}

#[async_trait]
impl Subscription for MemorySubscription {
    async fn next(&self) -> Vec<Event> {
        loop {
            let events = self.with_topic(|topic, id| topic.poll(id, MAX_POLL_RECORDS)).unwrap_or_default();
            if !events.is_empty() {
                return events;
            }
            // A notification between the poll and this line is stored, so none is missed.
            self.wake.notified().await;
        }
    }

    fn assign(&self, partitions: &[i32]) {
        let mut topics = self.shared.topics();
        let topic = self.shared.topic(&mut topics, &self.topic);
        let mut id = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *id.get_or_insert_with(|| topic.subscribe(Arc::clone(&self.wake)));
        topic.assign(id, partitions);
    }

    fn revoke(&self, partitions: &[i32]) {
        self.with_topic(|topic, id| topic.revoke(id, partitions));
    }

    fn lose(&self, partitions: &[i32]) {
        self.revoke(partitions);
    }

    fn forget(&self) {
        self.with_topic(Topic::revoke_all);
    }

    fn store(&self, partition: i32, next: i64, metadata: &str) {
        let committed = Committed { next, metadata: metadata.to_owned() };
        self.with_topic(|topic, id| topic.commit(id, partition, committed));
    }

    async fn commit(&self, _: &[i32]) -> Result<(), BrokerError> {
        Ok(())
    }

    fn pause(&self, partition: i32) {
        self.with_topic(|topic, id| topic.set_paused(id, partition, true));
    }

    fn resume(&self, partition: i32) {
        self.with_topic(|topic, id| topic.set_paused(id, partition, false));
    }
}

impl Drop for MemorySubscription {
    fn drop(&mut self) {
        self.with_topic(Topic::unsubscribe);
    }
}
