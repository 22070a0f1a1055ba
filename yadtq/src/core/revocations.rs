//! Revocations of waiting tasks that outlive the store: records of the control topic, which every worker knows.
//!
//! ```text
//!  revoke ─► the store ends the task ─► control topic ─► workers: a task that is granted nevertheless ends as revoked
//!                                            ▲
//!  the task's record has ended as revoked ───┘ deletion
//! ```
//! As long as the store has its memory, it refuses the task, and nobody needs the revocation. If it has lost its memory, it grants
//! the task, and the revocation decides. So a revocation is kept until a record of its task has ended as revoked. If nothing was
//! known of the task, several of its records may still come, and the revocation is kept for [`TTL_MS`].
//!
//! What is kept of an id is a hash of 128 bits, so that a revocation takes about 30 bytes of each worker's memory.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

/// How long a revocation is kept at most, beyond the time of its task, in ms: 365 days.
pub(crate) const TTL_MS: u64 = 365 * 24 * 3_600_000;
/// The most revocations that a worker keeps. Beyond that it drops the oldest tenth.
const CAPACITY: usize = 900_000;

/// The revocation of a task that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// When it was revoked, in ms since the Unix epoch.
    pub at: u64,
    /// Whether the store knew the task, so that there is one record of it which can still come.
    pub is_known: bool,
}

/// The revocations that a worker knows.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    first: RandomState,
    second: RandomState,
    revoked: HashMap<(u64, u64), Revoked>,
}

impl Revocations {
    /// Takes the latest record about a task; `None`: the revocation is deleted. Returns how many others were dropped for want of
    /// room.
    pub(crate) fn take(&mut self, id: &str, revoked: Option<Revoked>) -> usize {
        let key = self.key(id);
        let Some(revoked) = revoked else {
            self.revoked.remove(&key);
            return 0;
        };
        self.revoked.insert(key, revoked);
        if self.revoked.len() > CAPACITY { self.drop_oldest(CAPACITY / 10) } else { 0 }
    }

    /// Whether a record of this task must not run. `replayed`: when an operator last had the task run again, in ms since the Unix
    /// epoch; 0: never.
    pub(crate) fn covers(&self, id: &str, replayed: u64) -> bool {
        self.get(id).is_some_and(|revoked| revoked.at > replayed)
    }

    /// Whether a revocation is not needed any more once a record of its task has ended.
    pub(crate) fn ends_with_a_record(&self, id: &str) -> bool {
        self.get(id).is_some_and(|revoked| revoked.is_known)
    }

    fn get(&self, id: &str) -> Option<&Revoked> {
        // Nearly always there is none.
        if self.revoked.is_empty() { None } else { self.revoked.get(&self.key(id)) }
    }

    fn key(&self, id: &str) -> (u64, u64) {
        (self.first.hash_one(id), self.second.hash_one(id))
    }

    fn drop_oldest(&mut self, count: usize) -> usize {
        let mut times: Vec<u64> = self.revoked.values().map(|revoked| revoked.at).collect();
        let (_, &mut latest, _) = times.select_nth_unstable(count);
        let mut left = count;
        self.revoked.retain(|_, revoked| {
            let is_dropped = revoked.at <= latest && left > 0;
            left -= usize::from(is_dropped);
            !is_dropped
        });
        count - left
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn revoked() -> impl Strategy<Value = Revoked> {
        (1..100_u64, any::<bool>()).prop_map(|(at, is_known)| Revoked { at, is_known })
    }

    proptest! {
        /// The latest record of each task decides, however often all records are read.
        #[test]
        fn the_latest_record_decides(records in vec((0..5_u8, option::of(revoked())), 0..30), replayed in 0..100_u64) {
            let mut revocations = Revocations::default();
            for _ in 0..2 {
                for (id, revoked) in &records {
                    revocations.take(&id.to_string(), *revoked);
                }
            }
            for id in 0..5_u8 {
                let last = records.iter().rev().find(|(other, _)| *other == id).and_then(|(_, revoked)| *revoked);
                let text = id.to_string();
                prop_assert_eq!(revocations.covers(&text, replayed), last.is_some_and(|last| last.at > replayed));
                prop_assert_eq!(revocations.ends_with_a_record(&text), last.is_some_and(|last| last.is_known));
            }
        }
    }

    #[test]
    fn beyond_its_capacity_it_drops_the_oldest() {
        for same_moment in [false, true] {
            let mut revocations = Revocations::default();
            let at = |n: usize| if same_moment { 7 } else { n as u64 + 1 };
            let take = |n| revocations.take(&format!("{n}"), Some(Revoked { at: at(n), is_known: true }));
            let dropped: usize = (0..=CAPACITY).map(take).sum();
            assert_eq!((dropped, revocations.revoked.len()), (CAPACITY / 10, CAPACITY + 1 - CAPACITY / 10));
            assert!(same_moment || !revocations.covers("0", 0) && revocations.covers(&CAPACITY.to_string(), 0));
        }
    }
}
