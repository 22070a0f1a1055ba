//! Reads the dead letters once each, oldest first, in bounded memory.
//!
//! ```text
//!  reader ──► lane of each partition ──► the head with the earliest time ──► next
//! ```
//! A letter is handed out once every partition has shown its next one, so letters come in the order of their times.
//! Where that would take too much memory, because the partitions are far apart, the order is given up, not the bound.
//! A walk ends at what was there when it began.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::letter::Place;
use crate::broker::{Broker, BrokerError, Event, Incoming, Reader};

/// How much waits in the lanes before the order is given up, in records and in bytes; one batch of the reader more.
const MOST: (usize, usize) = (20_000, 16 * 1_024 * 1_024);

/// Where a walk goes on, by partition; what is not named begins at its start.
pub(super) type Positions = BTreeMap<i32, i64>;

pub(super) struct Walk {
    /// None if there is nothing to read.
    reader: Option<Box<dyn Reader>>,
    lanes: BTreeMap<i32, Lane>,
    waiting: (usize, usize),
}

struct Lane {
    /// The offset after the last record that was handed out.
    next: i64,
    /// Nothing from here on is told.
    end: i64,
    is_read: bool,
    waiting: VecDeque<Incoming>,
}

impl Walk {
    pub(super) async fn start(broker: &dyn Broker, topic: &Arc<str>, from: &Positions) -> Result<Self, BrokerError> {
        let mut lanes = BTreeMap::new();
        for extent in broker.extents(topic).await? {
            let next = from.get(&extent.partition).map_or(extent.start, |&offset| offset.max(extent.start));
            let lane = Lane { next, end: extent.end, is_read: next >= extent.end, waiting: VecDeque::new() };
            lanes.insert(extent.partition, lane);
        }
        let unread = lanes.iter().filter(|(_, lane)| !lane.is_read);
        let from: Vec<_> = unread.map(|(&partition, lane)| (partition, lane.next)).collect();
        let reader = if from.is_empty() { None } else { Some(broker.read(topic, &from)?) };
        Ok(Self { reader, lanes, waiting: (0, 0) })
    }

    /// The next record; `None`: all are told.
    pub(super) async fn next(&mut self) -> Result<Option<Incoming>, BrokerError> {
        while self.is_short() {
            let Some(reader) = &mut self.reader else { break };
            for event in reader.next_in_time("dead letters").await? {
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
        self.waiting.0 -= 1;
        self.waiting.1 -= record.size();
        Ok(Some(record))
    }

    /// Where another walk goes on after this one; `None` if all are told.
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
        let (records, bytes) = self.waiting;
        let is_full = records > 0 && (records >= MOST.0 || bytes >= MOST.1);
        !is_full && self.lanes.values().any(|lane| lane.waiting.is_empty() && !lane.is_read)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Records(records) => {
                for record in records {
                    let Some(lane) = self.lanes.get_mut(&record.partition) else { continue };
                    lane.is_read |= record.offset + 1 >= lane.end;
                    if record.offset < lane.end {
                        self.waiting.0 += 1;
                        self.waiting.1 += record.size();
                        lane.waiting.push_back(record);
                    }
                }
            }
            Event::Ended(partitions) => {
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
    async fn each_comes_once_however_the_walk_is_cut() {
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
    async fn it_ends_at_what_was_there() {
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
