//! Which dead letters have been dealt with, and how to say so of more.
//!
//! ```text
//!  <ns>.dead          ▓▓▓▓░▓░░░▓░   ▓ settled: not told any more
//!                     └──┘ deleted once a walk has seen that all of it is settled
//!  <ns>.dead.settled  offsets of many letters in a record; deleted once all those letters are
//! ```
//! Reading that topic costs what was settled and is not deleted yet, not what lies in the other one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    letter::{DeadLetter, Place},
    walk::{Positions, Walk},
};
use crate::{
    broker::{Broker, BrokerError, Outgoing},
    core::names::Namespace,
    wire::settled::Settled,
};

/// Longest wait for the deletion of what is settled; the next time will do as well.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has been dealt with, and is still there.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    partitions: HashMap<i32, Ranges>,
    /// Below these offsets of the ledger's own topic nothing is of use any more.
    useless: Positions,
}

/// Ranges of offsets that do not overlap, by their first one: the last one, and the time of the latest letter.
#[derive(Debug, Default)]
struct Ranges(BTreeMap<i64, (i64, u64)>);

impl Ledger {
    pub(super) async fn load(broker: &dyn Broker, namespace: &Namespace) -> Result<Self, BrokerError> {
        let topic = namespace.settled_topic().into();
        let mut walk = Walk::start(broker, &topic, &Positions::new()).await?;
        let mut ledger = Self::default();
        let extents = broker.extents(&namespace.dead_topic().into()).await?;
        let starts: HashMap<_, _> = extents.iter().map(|extent| (extent.partition, extent.start)).collect();
        let mut of_use = BTreeMap::new();
        while let Some(record) = walk.next().await? {
            let Some(settled) = Settled::read(&record.value) else {
                // A later version may know.
                of_use.entry(record.partition).or_insert(record.offset);
                continue;
            };
            let Some(&start) = starts.get(&settled.partition) else { continue };
            for &(first, last) in settled.offsets.iter().filter(|(first, last)| first <= last && *last >= start) {
                ledger.partitions.entry(settled.partition).or_default().insert(first, last, settled.until);
                of_use.entry(record.partition).or_insert(record.offset);
            }
        }
        ledger.useless = walk.ends().map(|end| (end.partition, end.offset)).collect();
        ledger.useless.extend(of_use);
        Ok(ledger)
    }

    pub(super) fn has(&self, place: Place, at: Option<u64>) -> bool {
        self.partitions.get(&place.partition).is_some_and(|ranges| ranges.has(place.offset, at.unwrap_or(0)))
    }

    /// Deletes what is of no use any more. Best effort: the next time will do as well.
    pub(super) async fn tidy(&self, broker: &dyn Broker, namespace: &Namespace) {
        delete(broker, &namespace.settled_topic().into(), &self.useless).await;
    }
}

impl Ranges {
    fn has(&self, offset: i64, at: u64) -> bool {
        let before = self.0.range(..=offset).next_back();
        before.is_some_and(|(_, &(last, until))| offset <= last && at <= until)
    }

    /// What was said last counts.
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

/// Says of letters that they have been dealt with. `Ok`: nobody is told of them any more.
pub(super) async fn settle<'a>(
    broker: &dyn Broker, namespace: &Namespace, letters: impl Iterator<Item = &'a DeadLetter>, how: &str,
) -> Result<(), BrokerError> {
    let mut partitions = BTreeMap::<i32, Settled>::new();
    for letter in letters {
        let Place { partition, offset } = letter.place;
        let blank = || Settled { partition, offsets: Vec::new(), until: 0, how: how.to_owned() };
        let settled = partitions.entry(partition).or_insert_with(blank);
        settled.until = settled.until.max(letter.at.unwrap_or(0));
        match settled.offsets.last_mut() {
            Some((_, last)) if *last + 1 == offset => *last = offset,
            _ => settled.offsets.push((offset, offset)),
        }
    }
    let topic: Arc<str> = namespace.settled_topic().into();
    let record = |settled: Settled| Outgoing {
        topic: Arc::clone(&topic),
        // What is said of a partition keeps its order.
        key: settled.partition.to_string().into(),
        value: settled.to_bytes(),
        partition: None,
        headers: Vec::new(),
    };
    let answers = broker.publish(partitions.into_values().map(record).collect()).await;
    answers.into_iter().collect()
}

/// Deletes letters, all that lie below these offsets. Best effort.
pub(super) async fn delete(broker: &dyn Broker, topic: &Arc<str>, below: &Positions) {
    let below: Vec<_> = below.iter().map(|(&partition, &offset)| (partition, offset)).collect();
    match timeout(PATIENCE, broker.truncate(topic, &below)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(event = "purge_failed", %topic, %error, "will be tried again"),
        Err(_) => tracing::debug!(event = "purge_failed", %topic, "no answer; will be tried again"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_what_was_put_in(puts in vec((0..60_i64, 0..12_i64, 0..9_u64), 0..40)) {
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
