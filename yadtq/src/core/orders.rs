//! Orders of operators to all workers: queues that are paused or were purged, task names that do not run.
//!
//! The latest order for a queue or a name is the one that holds, so reading all of them again gives the same.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::priority::Priority;

/// How long a task waits whose name has just been disabled, in ms, and how long at most.
const WAITS_MS: (u64, u64) = (5_000, 60_000);
/// By how much the clocks of senders may be ahead of the purger's, in ms.
const CLOCKS_MS: u64 = 10_000;

/// What becomes of tasks of a disabled name.
///
/// ```
/// assert_eq!(yadtq::Disabled::DeadLetter.to_string(), "dead-letter");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Disabled {
    /// They wait until the name is enabled.
    #[default]
    Wait,
    /// They fail with the kind `disabled`, and become dead letters, which can be replayed.
    DeadLetter,
}

impl fmt::Display for Disabled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Wait => "wait",
            Self::DeadLetter => "dead-letter",
        })
    }
}

/// One order. `at`: when it was given, in ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub enum Order {
    /// Take nothing more from the queue.
    Pause { queue: String, at: u64 },
    /// Take from it again.
    Resume { queue: String, at: u64 },
    /// End what waits in the queue below these offsets of its topics' partitions.
    Purge { queue: String, at: u64, below: BTreeMap<Priority, Vec<(i32, i64)>> },
    /// Run no task of this name.
    Disable { task: String, at: u64, then: Disabled },
    /// Run them again.
    Enable { task: String, at: u64 },
}

/// What was purged of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    below: HashMap<i32, i64>,
    at: u64,
}

impl Mark {
    /// Whether a record is meant. One that was written later has its offset because its topic was made again.
    pub fn covers(&self, partition: i32, offset: i64, timestamp_ms: Option<u64>) -> bool {
        let is_below = self.below.get(&partition).is_some_and(|&below| offset < below);
        is_below && timestamp_ms.is_none_or(|written| written <= self.at.saturating_add(CLOCKS_MS))
    }
}

/// All that hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    paused: BTreeMap<String, u64>,
    disabled: BTreeMap<String, (Disabled, u64)>,
    purged: BTreeMap<String, (u64, BTreeMap<Priority, Mark>)>,
}

impl Orders {
    /// Takes the next order.
    pub fn take(&mut self, order: Order) {
        match order {
            Order::Pause { queue, at } => drop(self.paused.insert(queue, at)),
            Order::Resume { queue, .. } => drop(self.paused.remove(&queue)),
            Order::Purge { queue, at, below } => {
                let mark = |below: Vec<(i32, i64)>| Mark { below: below.into_iter().collect(), at };
                let marks = below.into_iter().map(|(priority, below)| (priority, mark(below))).collect();
                self.purged.insert(queue, (at, marks));
            }
            Order::Disable { task, at, then } => drop(self.disabled.insert(task, (then, at))),
            Order::Enable { task, .. } => drop(self.disabled.remove(&task)),
        }
    }

    /// Whether nothing is to be taken from the queue.
    pub fn is_paused(&self, queue: &str) -> bool {
        self.paused.contains_key(queue)
    }

    /// What becomes of tasks of this name, if it is disabled, and since when.
    pub fn disabled(&self, task: &str) -> Option<(Disabled, u64)> {
        self.disabled.get(task).copied()
    }

    /// What was purged of a queue's topic.
    pub fn mark(&self, queue: &str, priority: Priority) -> Option<&Mark> {
        self.purged.get(queue)?.1.get(&priority)
    }

    /// Paused queues, by name, and since when.
    pub fn paused(&self) -> impl Iterator<Item = (&str, u64)> {
        self.paused.iter().map(|(queue, &at)| (&**queue, at))
    }

    /// Disabled names, what becomes of their tasks, and since when.
    pub fn all_disabled(&self) -> impl Iterator<Item = (&str, Disabled, u64)> {
        self.disabled.iter().map(|(task, &(then, at))| (&**task, then, at))
    }

    /// Queues that were purged, by name, and when last.
    pub fn purged(&self) -> impl Iterator<Item = (&str, u64)> {
        self.purged.iter().map(|(queue, &(at, _))| (&**queue, at))
    }
}

/// When a task of a disabled name is to be looked at again. The longer the name has been disabled, the rarer.
pub fn look_again_ms(since_ms: u64, now_ms: u64) -> u64 {
    let (least, most) = WAITS_MS;
    now_ms + now_ms.saturating_sub(since_ms).clamp(least, most)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn purge(queue: &str, at: u64, below: &[(i32, i64)]) -> Order {
        Order::Purge { queue: queue.into(), at, below: [(Priority::Normal, below.to_vec())].into() }
    }

    fn order() -> impl Strategy<Value = Order> {
        (0..5, 0..3_u8, 0..100_u64).prop_map(|(kind, name, at)| {
            let (queue, task) = (name.to_string(), name.to_string());
            match kind {
                0 => Order::Pause { queue, at },
                1 => Order::Resume { queue, at },
                2 => purge(&queue, at, &[(0, i64::from(name))]),
                3 => Order::Disable { task, at, then: Disabled::DeadLetter },
                _ => Order::Enable { task, at },
            }
        })
    }

    proptest! {
        #[test]
        fn reading_them_again_changes_nothing(orders in vec(order(), 0..30)) {
            let mut once = Orders::default();
            orders.iter().cloned().for_each(|order| once.take(order));
            let mut twice = once.clone();
            orders.iter().cloned().for_each(|order| twice.take(order));
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn the_last_word_on_each_counts(orders in vec(order(), 0..30)) {
            let mut all = Orders::default();
            orders.iter().cloned().for_each(|order| all.take(order));
            for name in ["0", "1", "2"] {
                let last = orders.iter().rev().find_map(|order| match order {
                    Order::Pause { queue, .. } if queue == name => Some(true),
                    Order::Resume { queue, .. } if queue == name => Some(false),
                    _ => None,
                });
                prop_assert_eq!(all.is_paused(name), last.unwrap_or(false));
            }
        }
    }

    #[test]
    fn a_mark_covers_what_was_there() {
        let mut orders = Orders::default();
        orders.take(purge("mail", 1_000_000, &[(0, 5), (1, 0)]));
        let mark = orders.mark("mail", Priority::Normal).unwrap();
        assert!(mark.covers(0, 4, Some(999_999)) && mark.covers(0, 0, None));
        assert!(!mark.covers(0, 5, Some(999_999)), "it came later");
        assert!(!mark.covers(1, 0, None) && !mark.covers(7, 0, None), "the partition had nothing, or is new");
        assert!(mark.covers(0, 4, Some(1_009_999)), "clocks differ");
        assert!(!mark.covers(0, 4, Some(1_010_001)), "the topic was made again");
        assert_eq!((orders.mark("mail", Priority::High), orders.mark("other", Priority::Normal)), (None, None));
    }

    #[test]
    fn a_later_purge_goes_further() {
        let mut orders = Orders::default();
        orders.take(purge("mail", 1, &[(0, 5)]));
        orders.take(purge("mail", 2, &[(0, 9)]));
        assert!(orders.mark("mail", Priority::Normal).unwrap().covers(0, 8, None));
    }

    #[test]
    fn what_waits_is_looked_at_ever_more_rarely() {
        assert_eq!(look_again_ms(100_000, 100_000), 105_000);
        assert_eq!(look_again_ms(100_000, 120_000), 140_000);
        assert_eq!(look_again_ms(100_000, 10_000_000), 10_060_000);
        assert_eq!(look_again_ms(200_000, 100_000), 105_000, "the operator's clock is ahead");
    }
}
