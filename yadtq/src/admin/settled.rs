//! The ledger of settled dead letters: those that were replayed or purged.
//!
//! ```text
//!  <ns>.dead          ▓▓▓▓░▓░░░▓░   ▓ settled: no walk returns it any more
//!                     └──┘ deleted once a walk has seen that all letters up to there are settled
//!  <ns>.dead.settled  the offsets of many letters in one record; deleted once all those letters are
//! ```
//! A walk reads the whole ledger first. That takes time in proportion to the letters that are settled but not deleted yet, not
//! to all letters.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    letter::{DeadLetter, Place},
    times,
    walk::Positions,
};
use crate::{
    broker::{Broker, BrokerError, Incoming, OffsetRange, Outgoing, read_to_end},
    core::names::Namespace,
    wire::settled::SettledLetters,
};

/// Longest time to wait for Kafka to delete settled letters. If it takes longer, the next replay or purge deletes them.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// The letters that are settled but not deleted yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: HashMap<i32, Ranges>,
    /// The offset of each partition of the ledger's own topic below which no record is needed any more.
    obsolete: Positions,
}

/// Ranges of offsets that do not overlap: the first offset, then the last offset and the time of the latest letter.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<i64, (i64, u64)>);

impl Ledger {
    pub(super) async fn load(broker: &dyn Broker, namespace: &Namespace) -> Result<Self, BrokerError> {
        let topic: Arc<str> = namespace.settled_topic().into();
        let own: Vec<OffsetRange> = broker.offset_ranges(&topic).await?;
        let mut ledger = Self::default();
        let offset_ranges = broker.offset_ranges(&namespace.dead_topic().into()).await?;
        let starts: HashMap<_, _> = offset_ranges.iter().map(|offsets| (offsets.partition, offsets.start)).collect();
        let mut needed = BTreeMap::new();
        let read = |record: Incoming| {
            let Some(settled) = SettledLetters::read(&record.value) else {
                // A later version may need this record.
                needed.entry(record.partition).or_insert(record.offset);
                return;
            };
            let Some(&start) = starts.get(&settled.partition) else { return };
            for &(first, last) in settled.offsets.iter().filter(|(first, last)| first <= last && *last >= start) {
                ledger.partitions.entry(settled.partition).or_default().insert(first, last, settled.until);
                needed.entry(record.partition).or_insert(record.offset);
            }
        };
        let filled = own.iter().filter(|offsets| offsets.start < offsets.end);
        let from: Vec<_> = filled.map(|offsets| (offsets.partition, offsets.start)).collect();
        read_to_end(broker, &topic, &from, read).await?;
        ledger.obsolete = own.iter().map(|offsets| (offsets.partition, offsets.end)).collect();
        ledger.obsolete.extend(needed);
        Ok(ledger)
    }

    pub(super) fn has(&self, place: Place, at: Option<u64>) -> bool {
        self.partitions.get(&place.partition).is_some_and(|ranges| ranges.has(place.offset, at.unwrap_or(0)))
    }

    /// Deletes records of the ledger that are not needed any more. It ignores errors: the next replay or purge tries again.
    pub(super) async fn tidy(&self, broker: &dyn Broker, namespace: &Namespace) {
        delete(broker, &namespace.settled_topic().into(), &self.obsolete).await;
    }
}

impl Ranges {
    fn has(&self, offset: i64, at: u64) -> bool {
        let before = self.0.range(..=offset).next_back();
        before.is_some_and(|(_, &(last, until))| offset <= last && at <= until)
    }

    /// Adds a range. Where it overlaps earlier ranges, it replaces them.
    fn insert(&mut self, first: i64, last: i64, until: u64) {
        let overlaps = self.0.range(..=last).rev().take_while(|(_, (end, _))| *end >= first);
        for start in overlaps.map(|(&start, _)| start).collect::<Vec<_>>() {
            let Some((end, time)) = self.0.remove(&start) else { continue };
            if start < first {
                self.0.insert(start, (first - 1, time));
            }
            if end > last {
                self.0.insert(last + 1, (end, time));
            }
        }
        self.0.insert(first, (last, until));
    }
}

/// Records letters as settled. `Ok` means that no walk returns them any more.
pub(super) async fn settle<'a>(
    broker: &dyn Broker, namespace: &Namespace, letters: impl Iterator<Item = &'a DeadLetter>, how: &str,
) -> Result<(), BrokerError> {
    let mut partitions = BTreeMap::<i32, SettledLetters>::new();
    for letter in letters {
        let Place { partition, offset } = letter.place;
        let blank = || SettledLetters { partition, offsets: Vec::new(), until: 0, how: how.to_owned() };
        let settled = partitions.entry(partition).or_insert_with(blank);
        settled.until = settled.until.max(letter.at.map_or(0, times::ms));
        match settled.offsets.last_mut() {
            Some((_, last)) if *last + 1 == offset => *last = offset,
            _ => settled.offsets.push((offset, offset)),
        }
    }
    let topic: Arc<str> = namespace.settled_topic().into();
    let record = |settled: SettledLetters| Outgoing {
        topic: Arc::clone(&topic),
        // The key keeps the records about one partition in order.
        key: settled.partition.to_string().into(),
        value: settled.to_bytes(),
        partition: None,
        headers: Vec::new(),
    };
    let answers = broker.publish(partitions.into_values().map(record).collect()).await;
    answers.into_iter().collect()
}

/// Deletes the records of a topic below these offsets. It ignores errors: the next replay or purge tries again.
pub(super) async fn delete(broker: &dyn Broker, topic: &Arc<str>, below: &Positions) {
    let below: Vec<_> = below.iter().map(|(&partition, &offset)| (partition, offset)).collect();
    match timeout(DELETE_TIMEOUT, broker.truncate(topic, &below)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(event = "purge_failed", %topic, %error, "kafka refused to delete records; the next replay or purge tries again")
        }
        Err(_) => {
            tracing::debug!(event = "purge_failed", %topic, "kafka did not answer; the next replay or purge tries again")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn ranges_contain_what_was_inserted(puts in vec((0..60_i64, 0..12_i64, 0..9_u64), 0..40)) {
            let (mut ranges, mut each) = (Ranges::default(), HashMap::new());
            for (first, more, until) in puts {
                ranges.insert(first, first + more, until);
                each.extend((first..=first + more).map(|offset| (offset, until)));
            }
            for offset in 0..80 {
                let until = each.get(&offset);
                for at in 0..10 {
                    prop_assert_eq!(ranges.has(offset, at), until.is_some_and(|&until| at <= until));
                }
            }
        }
    }
}
