//! The delayed records that Kafka did not take, by the topic that they go to. Each topic has its own room, so that one which
//! takes nothing leaves room for the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use crate::broker::Incoming;

/// The bytes that are kept for one topic, or one record if that is larger.
const MAX_TOPIC_BYTES: usize = 2 * 1_024 * 1_024;
/// The bytes that are kept for all topics.
const MAX_BYTES: usize = 12 * 1_024 * 1_024;
/// What a record takes besides its own bytes.
const RECORD_OVERHEAD_BYTES: usize = 256;

#[derive(Default)]
pub(super) struct Refused {
    topics: HashMap<Arc<str>, Backlog>,
    /// By key: where the record is.
    places: HashMap<Bytes, (Arc<str>, u64)>,
    bytes: usize,
    /// Number of records that were put here ever.
    count: u64,
}

/// The records of one topic.
#[derive(Default)]
struct Backlog {
    /// When they are tried again, in ms since the Unix epoch.
    due_ms: u64,
    records: BTreeMap<u64, (Bytes, Incoming)>,
    bytes: usize,
}

fn size(record: &Incoming) -> usize {
    record.size() + RECORD_OVERHEAD_BYTES
}

impl Refused {
    /// Keeps a record until it is tried again. `false`: there is no room.
    pub(super) fn put(&mut self, topic: &Arc<str>, key: Bytes, record: Incoming, due_ms: u64) -> bool {
        let size = size(&record);
        let backlog = self.topics.get(topic);
        let has_room = backlog.is_none_or(|backlog| backlog.bytes + size <= MAX_TOPIC_BYTES);
        if !has_room || self.bytes + size > MAX_BYTES {
            return false;
        }
        self.remove(&key);
        self.count += 1;
        self.bytes += size;
        self.places.insert(key.clone(), (Arc::clone(topic), self.count));
        let backlog = self.topics.entry(Arc::clone(topic)).or_default();
        backlog.due_ms = backlog.due_ms.max(due_ms);
        backlog.bytes += size;
        backlog.records.insert(self.count, (key, record));
        true
    }

    /// Removes the record of this key. `false`: there is none.
    pub(super) fn remove(&mut self, key: &Bytes) -> bool {
        let Some((topic, number)) = self.places.remove(key) else { return false };
        if let Some(backlog) = self.topics.get_mut(&topic)
            && let Some((_, record)) = backlog.records.remove(&number)
        {
            backlog.bytes -= size(&record);
            self.bytes -= size(&record);
            if backlog.records.is_empty() {
                self.topics.remove(&topic);
            }
        }
        true
    }

    /// Removes the records of a partition.
    pub(super) fn revoked(&mut self, partition: i32) {
        let records = self.topics.values().flat_map(|backlog| backlog.records.values());
        let keys: Vec<_> =
            records.filter(|(_, record)| record.partition == partition).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| _ = self.remove(key));
    }

    /// Takes records of a topic, at most so many and so many bytes, but at least one.
    pub(super) fn take(&mut self, topic: &Arc<str>, most: usize, most_bytes: usize) -> Vec<Incoming> {
        let records = self.topics.get(topic).into_iter().flat_map(|backlog| backlog.records.values());
        let mut bytes = 0;
        let fits = |(_, record): &&(Bytes, Incoming)| {
            let is_first = bytes == 0;
            bytes += size(record);
            is_first || bytes <= most_bytes
        };
        let taken: Vec<_> = records.take(most).take_while(fits).cloned().collect();
        taken.iter().for_each(|(key, _)| _ = self.remove(key));
        taken.into_iter().map(|(_, record)| record).collect()
    }

    /// The topic that is to be tried next of those that may be, and when, in ms since the Unix epoch.
    pub(super) fn next(&self, may_try: impl Fn(&Arc<str>) -> bool) -> Option<(&Arc<str>, u64)> {
        let topics = self.topics.iter().filter(|(topic, _)| may_try(topic));
        topics.map(|(topic, backlog)| (topic, backlog.due_ms)).min_by_key(|&(_, due_ms)| due_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: i64, len: usize) -> (Bytes, Incoming) {
        let key = Bytes::from(n.to_string());
        let value = vec![b'x'; len].into();
        let record = Incoming {
            partition: 0,
            offset: n,
            timestamp_ms: None,
            key: Some(key.clone()),
            value,
            headers: Vec::new(),
        };
        (key, record)
    }

    #[test]
    fn a_topic_that_takes_nothing_leaves_room_for_others_and_all_of_them_are_bounded() {
        let (mut refused, mut kept) = (Refused::default(), Vec::new());
        for topic in 0..10 {
            let topic: Arc<str> = format!("topic {topic}").into();
            let put = (0..10_000).filter(|&n| {
                let (_, record) = record(n, 1_024);
                refused.put(&topic, format!("{topic} {n}").into(), record, 5)
            });
            kept.push(put.count());
        }
        assert!((1_000..3_000).contains(&kept[0]) && kept[1] == kept[0], "{kept:?}");
        assert!(refused.bytes <= MAX_BYTES && refused.topics.values().all(|topic| topic.bytes <= MAX_TOPIC_BYTES));
        assert_eq!(refused.places.len(), kept.iter().sum::<usize>());
        refused.revoked(0);
        assert_eq!((refused.bytes, refused.places.len(), refused.topics.len()), (0, 0, 0));
    }

    #[test]
    fn records_come_back_in_pieces_when_their_topic_is_due_and_a_deleted_one_does_not() {
        let mut refused = Refused::default();
        let topic: Arc<str> = "topic".into();
        for n in 0..5 {
            let (key, record) = record(n, 100);
            assert!(refused.put(&topic, key, record, 7));
        }
        assert!(refused.remove(&"1".into()) && !refused.remove(&"1".into()));
        assert_eq!(refused.next(|_| true), Some((&topic, 7)));
        assert_eq!(refused.next(|_| false), None);
        let mut taken = |most, bytes| {
            let records = refused.take(&topic, most, bytes);
            records.iter().map(|record| record.offset).collect::<Vec<_>>()
        };
        assert_eq!((taken(2, usize::MAX), taken(9, 1)), (vec![0, 2], vec![3]));
        assert_eq!(taken(9, usize::MAX), [4]);
        assert_eq!((taken(9, 9), refused.next(|_| true)), (vec![], None));
    }
}
