//! Free slots of one queue: idle workers announce them, and workers with more records than slots take them.
//!
//! ```text
//!  announce ──► announced ──► taken by somebody who has records for them, or forgotten in time
//!     └── wakes those that found too few
//! ```
//! All of it is a hint: what is forgotten is announced again, and a slot that was announced may be taken by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    ops::Bound,
    sync::Arc,
};

use sha2::{Digest, Sha256};

use super::names::WorkerId;

/// How long announced slots stand, in ms.
pub(crate) const ANNOUNCED_MS: u64 = 12_000;
/// How long a worker that found too few slots is woken by new ones, in ms.
pub(crate) const WAITING_MS: u64 = 1_000;
/// The most announcements of a queue, and the most that wait for some. If there are more, all are forgotten.
pub(crate) const MOST_ANNOUNCED: usize = 4_096;
/// The most announcements that one call looks at for each set of tasks.
pub(crate) const LOOKED_AT: usize = 64;

/// The tasks that a worker can run in slots of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskSet {
    /// Each name stands between two line breaks.
    pub names: Arc<str>,
    /// Names the set.
    pub digest: Arc<str>,
}

impl TaskSet {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = String::from("\n");
        for name in names.into_iter().collect::<BTreeSet<_>>() {
            text.push_str(name);
            text.push('\n');
        }
        let mut digest = String::new();
        for byte in &Sha256::digest(text.as_bytes())[..8] {
            write!(digest, "{byte:02x}").expect("a string grows");
        }
        Self { names: text.into(), digest: digest.into() }
    }
}

/// What the store keeps of the idle workers of one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdleSlots {
    /// By set of tasks and worker: how many slots, and until when, in ms.
    announced: BTreeMap<(Arc<str>, WorkerId), (usize, u64)>,
    /// The names in each set of tasks.
    sets: BTreeMap<Arc<str>, Arc<str>>,
    /// Workers that found too few, and until when they wait, in ms.
    waiting: BTreeMap<WorkerId, u64>,
}

impl IdleSlots {
    /// Announces this many free slots for a set of tasks; replaces what the worker announced for it before. Returns whom to wake:
    /// as many as there are slots, those that have waited longest.
    pub(crate) fn announce(&mut self, by: &WorkerId, set: &TaskSet, count: usize, now_ms: u64) -> Vec<WorkerId> {
        if self.announced.len() >= MOST_ANNOUNCED || self.sets.len() >= MOST_ANNOUNCED {
            *self = Self::default();
        }
        self.waiting.retain(|id, until| *until > now_ms && id != by);
        let key = (Arc::clone(&set.digest), Arc::clone(by));
        if count == 0 {
            self.announced.remove(&key);
            return Vec::new();
        }
        self.announced.insert(key, (count, now_ms + ANNOUNCED_MS));
        self.sets.insert(Arc::clone(&set.digest), Arc::clone(&set.names));
        let mut waiting: Vec<_> = self.waiting.iter().map(|(id, until)| (*until, Arc::clone(id))).collect();
        waiting.sort();
        let woken: Vec<_> = waiting.into_iter().take(count).map(|(_, id)| id).collect();
        self.waiting.retain(|id, _| !woken.contains(id));
        woken
    }

    /// Takes at most this many slots of other workers that know the task. If there are fewer, the caller is woken when some are
    /// announced.
    pub(crate) fn take(&mut self, by: &WorkerId, task: &str, count: usize, now_ms: u64) -> Vec<(WorkerId, usize)> {
        let (line, mut left, mut taken) = (format!("\n{task}\n"), count, Vec::new());
        let sets = self.sets.iter().filter(|(_, names)| names.contains(&line)).map(|(digest, _)| Arc::clone(digest));
        for set in sets.collect::<Vec<_>>() {
            for key in self.behind(&set, by) {
                let Some(&(free, until)) = self.announced.get(&key).filter(|_| left > 0) else { continue };
                let here = if until > now_ms { free.min(left) } else { 0 };
                if here > 0 {
                    taken.push((Arc::clone(&key.1), here));
                }
                left -= here;
                if here > 0 && free > here {
                    self.announced.insert(key, (free - here, until));
                } else {
                    self.announced.remove(&key);
                }
            }
        }
        if left > 0 && self.waiting.len() < MOST_ANNOUNCED {
            self.waiting.insert(Arc::clone(by), now_ms + WAITING_MS);
        }
        taken
    }

    /// Announcements of others for a set of tasks. Those behind the caller in the order of ids come first, so that callers find
    /// different ones.
    fn behind(&self, set: &Arc<str>, by: &WorkerId) -> Vec<(Arc<str>, WorkerId)> {
        let own = (Arc::clone(set), Arc::clone(by));
        let behind = self.announced.range((Bound::Excluded(&own), Bound::Unbounded));
        let before = self.announced.range((Arc::clone(set), WorkerId::from(""))..own.clone());
        let keys = behind.take_while(|((of, _), _)| of == set).chain(before);
        keys.map(|(key, _)| key.clone()).take(LOOKED_AT).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(slots: &mut IdleSlots, by: &str, task: &str, count: usize, now_ms: u64) -> Vec<(String, usize)> {
        let taken = slots.take(&by.into(), task, count, now_ms);
        taken.into_iter().map(|(worker, count)| (worker.to_string(), count)).collect()
    }

    #[test]
    fn slots_are_taken_once_and_only_for_tasks_that_the_worker_knows() {
        let (mut slots, add, both) = (IdleSlots::default(), TaskSet::new(["add"]), TaskSet::new(["mail", "add"]));
        slots.announce(&"b".into(), &add, 2, 0);
        slots.announce(&"c".into(), &both, 3, 0);
        assert!(taken(&mut slots, "a", "ad", 9, 0).is_empty());
        assert_eq!(taken(&mut slots, "a", "mail", 1, 0), [("c".to_owned(), 1)]);
        let mut all = taken(&mut slots, "a", "add", 9, 0);
        all.sort();
        assert_eq!(all, [("b".to_owned(), 2), ("c".to_owned(), 2)]);
        assert!(taken(&mut slots, "a", "add", 9, 0).is_empty());
    }

    #[test]
    fn nobody_takes_its_own_and_the_next_in_the_order_of_ids_comes_first() {
        let (mut slots, set) = (IdleSlots::default(), TaskSet::new(["add"]));
        for id in ["a", "b", "c"] {
            slots.announce(&id.into(), &set, 1, 0);
        }
        assert_eq!(taken(&mut slots, "b", "add", 1, 0), [("c".to_owned(), 1)]);
        assert_eq!(taken(&mut slots, "b", "add", 9, 0), [("a".to_owned(), 1)]);
        assert_eq!(taken(&mut slots, "x", "add", 9, 0), [("b".to_owned(), 1)]);
    }

    #[test]
    fn what_is_announced_again_replaces_and_what_is_old_is_forgotten() {
        let (mut slots, set) = (IdleSlots::default(), TaskSet::new(["add"]));
        slots.announce(&"b".into(), &set, 9, 0);
        slots.announce(&"b".into(), &set, 1, 5);
        assert!(taken(&mut slots, "a", "add", 9, 5 + ANNOUNCED_MS).is_empty());
        slots.announce(&"b".into(), &set, 4, 6);
        slots.announce(&"b".into(), &set, 0, 7);
        assert!(taken(&mut slots, "a", "add", 9, 8).is_empty());
    }

    #[test]
    fn who_found_too_few_is_woken_once_the_longest_wait_first() {
        let (mut slots, set) = (IdleSlots::default(), TaskSet::new(["add"]));
        for (at, id) in ["x", "a", "y"].into_iter().enumerate() {
            assert!(taken(&mut slots, id, "add", 1, at as u64).is_empty());
        }
        assert_eq!(slots.announce(&"y".into(), &set, 1, 3), ["x".into()], "not the announcer itself");
        assert_eq!(slots.announce(&"b".into(), &set, 9, 3), ["a".into()]);
        assert!(slots.announce(&"b".into(), &set, 9, 3).is_empty());
        assert_eq!(taken(&mut slots, "z", "add", 99, 4).iter().map(|(_, count)| count).sum::<usize>(), 10);
        assert!(slots.announce(&"b".into(), &set, 1, 4 + WAITING_MS).is_empty(), "it waits no more");
    }

    #[test]
    fn too_many_are_forgotten() {
        let (mut slots, set) = (IdleSlots::default(), TaskSet::new(["add"]));
        for id in 0..=MOST_ANNOUNCED {
            slots.announce(&id.to_string().into(), &set, 1, 0);
        }
        assert_eq!(slots.announced.len(), 1);
    }
}
