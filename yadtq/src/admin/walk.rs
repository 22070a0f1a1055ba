//! Reads every dead letter once, oldest first, in bounded memory.
//!
//! ```text
//!  reader ──► lane of each partition ──► the head with the earliest time ──► next
//! ```
//! A letter is returned once the next letter of every partition is known, so letters come in the order of their times. If that
//! would take too much memory, because the times of the partitions differ much, letters come out of order instead.
//! A walk ends with the last letter that existed when it began.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::letter::Place;
use crate::broker::{Broker, BrokerError, Event, Incoming, Reader};

/// Number of records in the lanes at which the walk stops reading, and gives up the order. One more batch of the reader may
/// come on top.
const MAX_WAITING_RECORDS: usize = 20_000;
/// Bytes in the lanes at which the walk stops reading, as with [`MAX_WAITING_RECORDS`].
const MAX_WAITING_BYTES: usize = 16 * 1_024 * 1_024;

/// The offset of each partition at which a walk continues. A partition that is not named begins at its start.
pub(super) type Positions = BTreeMap<i32, i64>;

pub(super) struct Walk {
    /// `None` if there is nothing to read.
    reader: Option<Box<dyn Reader>>,
    lanes: BTreeMap<i32, Lane>,
    waiting_records: usize,
    waiting_bytes: usize,
}

struct Lane {
    /// The offset after the last record that was returned.
    next: i64,
    /// The offset at which the walk ends: no record from here on is returned.
    end: i64,
    is_read: bool,
    waiting: VecDeque<Incoming>,
}

impl Walk {
    pub(super) async fn start(broker: &dyn Broker, topic: &Arc<str>, from: &Positions) -> Result<Self, BrokerError> {
        let mut lanes = BTreeMap::new();
        for offsets in broker.offset_ranges(topic).await? {
            let next = from.get(&offsets.partition).map_or(offsets.start, |&offset| offset.max(offsets.start));
            let lane = Lane { next, end: offsets.end, is_read: next >= offsets.end, waiting: VecDeque::new() };
            lanes.insert(offsets.partition, lane);
        }
        let unread = lanes.iter().filter(|(_, lane)| !lane.is_read);
        let from: Vec<_> = unread.map(|(&partition, lane)| (partition, lane.next)).collect();
        let reader = if from.is_empty() { None } else { Some(broker.read(topic, &from)?) };
        Ok(Self { reader, lanes, waiting_records: 0, waiting_bytes: 0 })
    }

    /// The next record; `None`: all were returned.
    pub(super) async fn next(&mut self) -> Result<Option<Incoming>, BrokerError> {
        while self.is_short() {
            let Some(reader) = &mut self.reader else { break };
            for event in reader.next_or_timeout("dead letters").await? {
                self.take(event);
            }
        }
        let heads = self.lanes.iter().filter_map(|(&partition, lane)| {
            let head = lane.waiting.front()?;
            Some((head.timestamp_ms, partition))
        });
        let Some((_, partition)) = heads.min() else { return Ok(None) };
        let lane = self.lanes.get_mut(&partition).expect("its head was seen");
        let record = lane.waiting.pop_front().expect("its head was seen");
        lane.next = record.offset + 1;
        self.waiting_records -= 1;
        self.waiting_bytes -= record.size();
        Ok(Some(record))
    }

    /// Where another walk continues after this one; `None`: all records were returned.
    pub(super) fn positions(&self) -> Option<Positions> {
        if self.lanes.values().all(|lane| lane.is_read && lane.waiting.is_empty()) {
            return None;
        }
        Some(self.lanes.iter().map(|(&partition, lane)| (partition, lane.next)).collect())
    }

    /// The end of each partition, as it was when the walk began.
    pub(super) fn ends(&self) -> impl Iterator<Item = Place> {
        self.lanes.iter().map(|(&partition, lane)| Place { partition, offset: lane.end })
    }

    /// Whether more has to be read before the next record is known.
    fn is_short(&self) -> bool {
        let is_full = self.waiting_records > 0
            && (self.waiting_records >= MAX_WAITING_RECORDS || self.waiting_bytes >= MAX_WAITING_BYTES);
        !is_full && self.lanes.values().any(|lane| lane.waiting.is_empty() && !lane.is_read)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Records(records) => {
                for record in records {
                    let Some(lane) = self.lanes.get_mut(&record.partition) else { continue };
                    lane.is_read |= record.offset + 1 >= lane.end;
                    if record.offset < lane.end {
                        self.waiting_records += 1;
                        self.waiting_bytes += record.size();
                        lane.waiting.push_back(record);
                    }
                }
            }
            Event::EndReached(partitions) => {
                for partition in partitions {
                    if let Some(lane) = self.lanes.get_mut(&partition) {
                        lane.is_read = true;
                    }
                }
            }
            Event::Assigned(_) | Event::Revoked(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        broker::{Outgoing, memory::MemoryBroker},
        core::names::Namespace,
    };

    fn record(topic: &Arc<str>, n: usize) -> Outgoing {
        let partition = Some(i32::try_from(n % 5).unwrap());
        Outgoing {
            topic: Arc::clone(topic),
            key: Bytes::new(),
            value: n.to_string().into(),
            partition,
            headers: vec![],
        }
    }

    #[tokio::test]
    async fn every_record_comes_once_even_if_walks_are_interrupted() {
        let (broker, topic) = (MemoryBroker::new(Namespace::default()), Arc::from("yadtq.dead"));
        let mut nothing = Walk::start(&broker, &topic, &Positions::new()).await.unwrap();
        assert!(nothing.next().await.unwrap().is_none() && nothing.positions().is_none());
        broker.publish((0..5_000).map(|n| record(&topic, n)).collect()).await;
        let (mut seen, mut at) = (Vec::new(), Some(Positions::new()));
        while let Some(from) = at {
            let mut walk = Walk::start(&broker, &topic, &from).await.unwrap();
            for _ in 0..37 {
                seen.extend(walk.next().await.unwrap().map(|record| record.value));
            }
            at = walk.positions();
        }
        let number = |value: &Bytes| std::str::from_utf8(value).unwrap().parse().unwrap();
        let mut numbers: Vec<usize> = seen.iter().map(number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..5_000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_walk_ends_with_the_last_record_at_its_start() {
        let (broker, topic) = (MemoryBroker::new(Namespace::default()), Arc::from("yadtq.dead"));
        broker.publish((0..10).map(|n| record(&topic, n)).collect()).await;
        let mut walk = Walk::start(&broker, &topic, &Positions::new()).await.unwrap();
        broker.publish((10..20).map(|n| record(&topic, n)).collect()).await;
        let mut count = 0;
        while walk.next().await.unwrap().is_some() {
            count += 1;
        }
        assert_eq!((count, walk.positions()), (10, None));
    }
}
