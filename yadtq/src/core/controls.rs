//! The controls that operators set for all workers: queues that are paused or were purged, and task names that are
//! disabled.
//!
//! The latest record for a queue or a name decides, so reading all records again gives the same state.
//!
//! A purge is a mark: offsets and a time. Workers claim what is below the mark even if the queue is paused or no slot is free, and
//! end it as revoked. So the claim decides between a purge and a run, and there is no second way to end a task. A task of a
//! disabled name waits for longer the longer its name has been disabled, so nothing has to be remembered about it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::priority::Priority;

/// Shortest time until a task of a disabled name is checked again, in ms: that of a name which was disabled just now.
const MIN_RECHECK_DELAY_MS: u64 = 5_000;
/// Longest time until a task of a disabled name is checked again, in ms.
const MAX_RECHECK_DELAY_MS: u64 = 60_000;
/// By how much the clock of a sender may be ahead of the clock of the client that purges, in ms.
const CLOCK_SKEW_MS: u64 = 10_000;

/// What happens to tasks of a disabled name.
///
/// ```
/// assert_eq!(yadtq::admin::Disabled::DeadLetter.to_string(), "dead-letter");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Disabled {
    /// The tasks wait until the name is enabled. This is the default.
    #[default]
    Wait,
    /// The tasks fail with the error kind `disabled` and become dead letters, which can be replayed.
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

/// One control that an operator set. `at`: when, in ms since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
pub(crate) enum ControlRecord {
    /// Workers start no more tasks of this queue.
    Pause { queue: String, at: u64 },
    /// Workers start tasks of this queue again.
    Resume { queue: String, at: u64 },
    /// Workers revoke the queue's waiting tasks whose records are below these offsets, given by priority and partition.
    Purge { queue: String, at: u64, below: BTreeMap<Priority, Vec<(i32, i64)>> },
    /// Workers start no more tasks of this name. `then` says what happens to them.
    Disable { task: String, at: u64, then: Disabled },
    /// Workers start tasks of this name again.
    Enable { task: String, at: u64 },
    /// Workers end this waiting task as revoked, if they are granted it. `until`: when this may be deleted. `known`: see
    /// [`Revoked`](super::revocations::Revoked).
    Revoke {
        #[serde(rename = "task-id")]
        task_id: String,
        at: u64,
        until: u64,
        known: bool,
    },
    /// The revocation of this task is not needed any more.
    Forget {
        #[serde(rename = "task-id")]
        task_id: String,
    },
}

/// Which records of one topic were purged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PurgeMark {
    below: HashMap<i32, i64>,
    at: u64,
}

impl PurgeMark {
    /// Whether the record was purged. A record that was written after the purge was not: its offset is below the mark
    /// because the topic was deleted and created again.
    pub(crate) fn covers(&self, partition: i32, offset: i64, timestamp_ms: Option<u64>) -> bool {
        let is_below = self.below.get(&partition).is_some_and(|&below| offset < below);
        is_below && timestamp_ms.is_none_or(|written| written <= self.at.saturating_add(CLOCK_SKEW_MS))
    }
}

/// All controls that are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ControlState {
    paused: BTreeMap<String, u64>,
    disabled: BTreeMap<String, (Disabled, u64)>,
    purged: BTreeMap<String, (u64, BTreeMap<Priority, PurgeMark>)>,
}

impl ControlState {
    /// Applies the next record of the control topic.
    pub(crate) fn take(&mut self, order: ControlRecord) {
        match order {
            ControlRecord::Pause { queue, at } => drop(self.paused.insert(queue, at)),
            ControlRecord::Resume { queue, .. } => drop(self.paused.remove(&queue)),
            ControlRecord::Purge { queue, at, below } => {
                let mark = |below: Vec<(i32, i64)>| PurgeMark { below: below.into_iter().collect(), at };
                let marks = below.into_iter().map(|(priority, below)| (priority, mark(below))).collect();
                self.purged.insert(queue, (at, marks));
            }
            ControlRecord::Disable { task, at, then } => drop(self.disabled.insert(task, (then, at))),
            ControlRecord::Enable { task, .. } => drop(self.disabled.remove(&task)),
            // There may be many of them; `Revocations` has them.
            ControlRecord::Revoke { .. } | ControlRecord::Forget { .. } => {}
        }
    }

    /// Whether the queue is paused.
    pub(crate) fn is_paused(&self, queue: &str) -> bool {
        self.paused.contains_key(queue)
    }

    /// What happens to tasks of this name, and since when. `None` if the name is not disabled.
    pub(crate) fn disabled(&self, task: &str) -> Option<(Disabled, u64)> {
        self.disabled.get(task).copied()
    }

    /// Which records of a queue's topic were purged. `None` if the queue was never purged.
    pub(crate) fn mark(&self, queue: &str, priority: Priority) -> Option<&PurgeMark> {
        self.purged.get(queue)?.1.get(&priority)
    }

    /// The paused queues, sorted by name, and since when they are paused.
    pub(crate) fn paused(&self) -> impl Iterator<Item = (&str, u64)> {
        self.paused.iter().map(|(queue, &at)| (&**queue, at))
    }

    /// The disabled names, sorted, what happens to their tasks, and since when they are disabled.
    pub(crate) fn all_disabled(&self) -> impl Iterator<Item = (&str, Disabled, u64)> {
        self.disabled.iter().map(|(task, &(then, at))| (&**task, then, at))
    }

    /// The queues that were purged, sorted by name, and when each was purged last.
    pub(crate) fn purged(&self) -> impl Iterator<Item = (&str, u64)> {
        self.purged.iter().map(|(queue, &(at, _))| (&**queue, at))
    }
}

/// When a task of a disabled name is checked again, in ms since the Unix epoch. The time until then grows with the time
/// for which the name has been disabled, from 5 s to 1 min.
pub(crate) fn next_check_ms(since_ms: u64, now_ms: u64) -> u64 {
    now_ms + now_ms.saturating_sub(since_ms).clamp(MIN_RECHECK_DELAY_MS, MAX_RECHECK_DELAY_MS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn purge(queue: &str, at: u64, below: &[(i32, i64)]) -> ControlRecord {
        ControlRecord::Purge { queue: queue.into(), at, below: [(Priority::Normal, below.to_vec())].into() }
    }

    fn control() -> impl Strategy<Value = ControlRecord> {
        (0..5, 0..3_u8, 0..100_u64).prop_map(|(kind, name, at)| {
            let (queue, task) = (name.to_string(), name.to_string());
            match kind {
                0 => ControlRecord::Pause { queue, at },
                1 => ControlRecord::Resume { queue, at },
                2 => purge(&queue, at, &[(0, i64::from(name))]),
                3 => ControlRecord::Disable { task, at, then: Disabled::DeadLetter },
                _ => ControlRecord::Enable { task, at },
            }
        })
    }

    proptest! {
        #[test]
        fn reading_all_records_again_changes_nothing(controls in vec(control(), 0..30)) {
            let mut once = ControlState::default();
            controls.iter().cloned().for_each(|order| once.take(order));
            let mut twice = once.clone();
            controls.iter().cloned().for_each(|order| twice.take(order));
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn the_latest_record_of_each_queue_decides(controls in vec(control(), 0..30)) {
            let mut all = ControlState::default();
            controls.iter().cloned().for_each(|order| all.take(order));
            for name in ["0", "1", "2"] {
                let last = controls.iter().rev().find_map(|order| match order {
                    ControlRecord::Pause { queue, .. } if queue == name => Some(true),
                    ControlRecord::Resume { queue, .. } if queue == name => Some(false),
                    _ => None,
                });
                prop_assert_eq!(all.is_paused(name), last.unwrap_or(false));
            }
        }
    }

    #[test]
    fn a_mark_covers_the_records_from_before_the_purge() {
        let mut controls = ControlState::default();
        controls.take(purge("mail", 1_000_000, &[(0, 5), (1, 0)]));
        let mark = controls.mark("mail", Priority::Normal).unwrap();
        assert!(mark.covers(0, 4, Some(999_999)) && mark.covers(0, 0, None));
        assert!(!mark.covers(0, 5, Some(999_999)), "the record came later");
        assert!(!mark.covers(1, 0, None) && !mark.covers(7, 0, None), "the partition was empty, or is new");
        assert!(mark.covers(0, 4, Some(1_009_999)), "clocks differ");
        assert!(!mark.covers(0, 4, Some(1_010_001)), "the topic was created again");
        assert_eq!((controls.mark("mail", Priority::High), controls.mark("other", Priority::Normal)), (None, None));
    }

    #[test]
    fn a_later_purge_covers_more() {
        let mut controls = ControlState::default();
        controls.take(purge("mail", 1, &[(0, 5)]));
        controls.take(purge("mail", 2, &[(0, 9)]));
        assert!(controls.mark("mail", Priority::Normal).unwrap().covers(0, 8, None));
    }

    #[test]
    fn waiting_tasks_are_checked_less_and_less_often() {
        assert_eq!(next_check_ms(100_000, 100_000), 105_000);
        assert_eq!(next_check_ms(100_000, 120_000), 140_000);
        assert_eq!(next_check_ms(100_000, 10_000_000), 10_060_000);
        assert_eq!(next_check_ms(200_000, 100_000), 105_000, "the operator's clock is ahead");
    }
}
