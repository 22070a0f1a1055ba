//! One topic: its partitions, and who reads which of them from where. Nothing here waits.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use crate::broker::{
    Assigned, Committed, Event, Incoming, OffsetRange, Outgoing, PartitionDepth, QueueDepth, TopicState,
};
use crate::core::priority::Priority;

/// Number of partitions of every topic.
const PARTITIONS: usize = 12;

/// Identifies a subscription to the topic. Each new one gets a higher number.
pub(super) type SubscriptionId = u64;

#[derive(Debug)]
pub(super) struct Topic {
    partitions: Vec<Partition>,
    subscriptions: BTreeMap<SubscriptionId, Subscribed>,
    next_subscription: SubscriptionId,
    is_compacted: bool,
    /// Notifies of every new record.
    grown: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Partition {
    log: BTreeMap<i64, Incoming>,
    /// All offsets below are committed or deleted.
    start: i64,
    /// The offset that the next record will get.
    end: i64,
    committed: Option<Committed>,
    /// The offset of the latest record of each key. Used only in a compacted topic.
    latest: HashMap<Bytes, i64>,
    /// Offsets of records without a value, which somebody may not have read yet. Used only in a compacted topic.
    deletions: VecDeque<i64>,
}

/// What one subscription reads.
#[derive(Debug)]
struct Subscribed {
    wake: Arc<Notify>,
    /// Assignments and revocations that were not returned yet.
    events: Vec<Event>,
    cursors: BTreeMap<i32, Cursor>,
    /// The partition after which the next poll takes records first, so that a busy partition cannot starve others.
    last: i32,
}

#[derive(Debug)]
struct Cursor {
    /// Offset of the next record to return.
    position: i64,
    is_paused: bool,
    /// The end of the partition that was reported last.
    reported_end: Option<i64>,
}

impl Topic {
    pub(super) fn new(is_compacted: bool) -> Self {
        let partitions = std::iter::repeat_with(Partition::default).take(PARTITIONS).collect();
        let grown = watch::Sender::new(());
        Self { partitions, subscriptions: BTreeMap::new(), next_subscription: 0, is_compacted, grown }
    }

    pub(super) fn append(&mut self, record: Outgoing, now_ms: u64) {
        let mut hasher = DefaultHasher::new();
        record.key.hash(&mut hasher);
        let hashed = || usize::try_from(hasher.finish() % PARTITIONS as u64).unwrap_or(0);
        let index = record.partition.and_then(|partition| usize::try_from(partition).ok()).unwrap_or_else(hashed);
        let number = number(index % PARTITIONS);
        let readers = self.subscriptions.values().filter_map(|subscribed| subscribed.cursors.get(&number));
        let read_below = readers.map(|cursor| cursor.position).min();
        let partition = &mut self.partitions[index % PARTITIONS];
        if self.is_compacted {
            partition.compact(&record.key, read_below);
            if record.value.is_empty() {
                partition.deletions.push_back(partition.end);
            }
        }
        let incoming = Incoming {
            partition: number,
            offset: partition.end,
            timestamp_ms: Some(now_ms),
            key: Some(record.key),
            value: record.value,
            headers: record.headers,
        };
        partition.log.insert(partition.end, incoming);
        partition.end += 1;
        self.grown.send_replace(());
        let readers = self.subscriptions.values().filter(|subscribed| subscribed.cursors.contains_key(&number));
        readers.for_each(|subscribed| subscribed.wake.notify_one());
    }

    pub(super) fn subscribe(&mut self, wake: Arc<Notify>) -> SubscriptionId {
        self.next_subscription += 1;
        let subscribed = Subscribed { wake, events: Vec::new(), cursors: BTreeMap::new(), last: 0 };
        self.subscriptions.insert(self.next_subscription, subscribed);
        self.next_subscription
    }

    pub(super) fn unsubscribe(&mut self, id: SubscriptionId) {
        self.subscriptions.remove(&id);
    }

    pub(super) fn assign(&mut self, id: SubscriptionId, partitions: &[i32]) {
        let Some(subscribed) = self.subscriptions.get_mut(&id) else { return };
        let mut assigned = Vec::new();
        for &partition in partitions {
            if subscribed.cursors.contains_key(&partition) {
                continue;
            }
            let Some(Partition { start, committed, .. }) = self.partitions.get(position(partition)) else { continue };
            subscribed.cursors.insert(partition, Cursor { position: *start, is_paused: false, reported_end: None });
            assigned.push(Assigned { partition, committed: committed.clone() });
        }
        subscribed.happened(Event::Assigned(assigned));
    }

    pub(super) fn revoke(&mut self, id: SubscriptionId, partitions: &[i32]) {
        let Some(subscribed) = self.subscriptions.get_mut(&id) else { return };
        let revoked = partitions.iter().copied().filter(|partition| subscribed.cursors.remove(partition).is_some());
        let revoked = revoked.collect();
        subscribed.happened(Event::Revoked(revoked));
    }

    pub(super) fn revoke_all(&mut self, id: SubscriptionId) {
        let read: Vec<i32> =
            self.subscriptions.get(&id).map_or_else(Vec::new, |sub| sub.cursors.keys().copied().collect());
        self.revoke(id, &read);
    }

    /// The new events of a subscription, in this order: assignments and revocations, records, ends of partitions.
    pub(super) fn poll(&mut self, id: SubscriptionId, max: usize) -> Vec<Event> {
        let Some(subscribed) = self.subscriptions.get_mut(&id) else { return Vec::new() };
        let mut events = std::mem::take(&mut subscribed.events);
        let records = subscribed.take_records(&self.partitions, max);
        let ended = if self.is_compacted { subscribed.report_ended(&self.partitions) } else { Vec::new() };
        events
            .extend([Event::Records(records), Event::EndReached(ended)].into_iter().filter(|event| !event.is_empty()));
        events
    }

    /// The records from an offset on, and the offset after the last of them. `None` if there are none.
    pub(super) fn read(&self, partition: i32, from: i64, max: usize) -> Option<(Vec<Incoming>, i64)> {
        let partition = self.partitions.get(position(partition))?;
        let records: Vec<_> = partition.log.range(from..).take(max).map(|(_, record)| record.clone()).collect();
        let next = records.last().map(|record| record.offset + 1)?;
        Some((records, next))
    }

    pub(super) fn offset_ranges(&self) -> Vec<OffsetRange> {
        let offsets = |(index, partition): (usize, &Partition)| OffsetRange {
            partition: number(index),
            start: partition.start,
            end: partition.end,
        };
        self.partitions.iter().enumerate().map(offsets).collect()
    }

    /// Notifies of every new record.
    pub(super) fn growth(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    /// Commits for a partition that the subscription reads.
    pub(super) fn commit(&mut self, id: SubscriptionId, partition: i32, committed: Committed) {
        let reads = self.subscriptions.get(&id).is_some_and(|subscribed| subscribed.cursors.contains_key(&partition));
        if let Some(partition) = self.partitions.get_mut(position(partition)).filter(|_| reads) {
            partition.truncate(committed.next);
            partition.committed = Some(committed);
        }
    }

    pub(super) fn state(&self) -> TopicState {
        let has_commits = self.partitions.iter().any(|partition| partition.committed.is_some());
        TopicState { partitions: self.partitions.len().try_into().unwrap_or(u32::MAX), has_commits }
    }

    pub(super) fn truncate(&mut self, partition: i32, below: i64) {
        if let Some(partition) = self.partitions.get_mut(position(partition)) {
            partition.truncate(below);
        }
    }

    pub(super) fn set_paused(&mut self, id: SubscriptionId, partition: i32, is_paused: bool) {
        let Some(subscribed) = self.subscriptions.get_mut(&id) else { return };
        if let Some(cursor) = subscribed.cursors.get_mut(&partition) {
            cursor.is_paused = is_paused;
            subscribed.wake.notify_one();
        }
    }

    pub(super) fn depth(&self, queue: String, priority: Priority) -> QueueDepth {
        let partitions = self.partitions.iter().enumerate().map(|(index, partition)| {
            let Partition { start, end, .. } = *partition;
            PartitionDepth { partition: number(index), start, committed: partition.committed.clone(), end }
        });
        QueueDepth { queue, priority, partitions: partitions.collect(), leaderless: 0 }
    }
}

impl Subscribed {
    fn happened(&mut self, event: Event) {
        if !event.is_empty() {
            self.events.push(event);
            self.wake.notify_one();
        }
    }

    fn take_records(&mut self, partitions: &[Partition], max: usize) -> Vec<Incoming> {
        let (mut records, last) = (Vec::new(), self.last);
        let mut open: Vec<_> = self.cursors.iter_mut().filter(|(_, cursor)| !cursor.is_paused).collect();
        open.sort_by_key(|(partition, _)| (**partition <= last, **partition));
        for (&partition, cursor) in open {
            let before = records.len();
            let log = &partitions[position(partition)].log;
            records.extend(log.range(cursor.position..).take(max - before).map(|(_, record)| record.clone()));
            if let Some(taken) = records[before..].last() {
                cursor.position = taken.offset + 1;
                self.last = partition;
            }
        }
        records
    }

    /// The partitions that were read to their end, and whose end was not reported yet.
    fn report_ended(&mut self, partitions: &[Partition]) -> Vec<i32> {
        let report = |(&number, cursor): (&i32, &mut Cursor)| {
            let partition = &partitions[position(number)];
            let last = partition.log.last_key_value().map_or(-1, |(&offset, _)| offset);
            let is_new = cursor.position > last && cursor.reported_end != Some(partition.end);
            is_new.then(|| {
                cursor.reported_end = Some(partition.end);
                number
            })
        };
        self.cursors.iter_mut().filter_map(report).collect()
    }
}

impl Partition {
    fn truncate(&mut self, below: i64) {
        while self.log.first_key_value().is_some_and(|(&offset, _)| offset < below) {
            self.log.pop_first();
        }
        self.start = self.start.max(below.min(self.end));
    }

    /// Compacts before a record of this key is appended: removes the earlier record of the key, and the deletions that
    /// every reader has read.
    fn compact(&mut self, key: &Bytes, read_below: Option<i64>) {
        if let Some(earlier) = self.latest.insert(key.clone(), self.end) {
            self.log.remove(&earlier);
        }
        while self.deletions.front().zip(read_below).is_some_and(|(&offset, below)| offset < below)
            && let Some(offset) = self.deletions.pop_front()
        {
            // A later record of the key may have removed it already.
            let Some(deletion) = self.log.remove(&offset) else { continue };
            if let Some(key) = deletion.key.filter(|key| self.latest.get(key) == Some(&offset)) {
                self.latest.remove(&key);
            }
        }
    }
}

/// The index of a partition; beyond all of them for one that cannot exist.
fn position(partition: i32) -> usize {
    usize::try_from(partition).unwrap_or(usize::MAX)
}

/// The number of the partition at an index.
fn number(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}
