//! Records of one partition that run one after the other: a lane for each ordering key, of which only the head may be
//! claimed.
//!
//! A record is in its lane from the moment it is read until its offset is completed, so a head that is retried in
//! place, or that another worker still runs, keeps its successors waiting. A partition that is given away takes its lanes
//! with it: the next owner reads the same records in the same order. So no lock is needed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// The lanes of a partition.
pub(super) struct OrderingLanes<T> {
    /// The keys of heads, by offset.
    heads: HashMap<i64, Arc<str>>,
    /// What waits behind each head, with its offset.
    behind: HashMap<Arc<str>, VecDeque<(i64, T)>>,
}

impl<T> Default for OrderingLanes<T> {
    fn default() -> Self {
        Self { heads: HashMap::new(), behind: HashMap::new() }
    }
}

impl<T> OrderingLanes<T> {
    /// Puts a record at the end of its key's lane; returns it if it is the head.
    pub(super) fn enter(&mut self, key: &Arc<str>, offset: i64, record: T) -> Option<T> {
        if let Some(behind) = self.behind.get_mut(key) {
            behind.push_back((offset, record));
            return None;
        }
        self.heads.insert(offset, Arc::clone(key));
        self.behind.insert(Arc::clone(key), VecDeque::new());
        Some(record)
    }

    /// The offset is completed: if it was that of a head, the next one of its lane is the head now.
    pub(super) fn leave(&mut self, offset: i64) -> Option<T> {
        let key = self.heads.remove(&offset)?;
        match self.behind.get_mut(&key)?.pop_front() {
            Some((next, record)) => {
                self.heads.insert(next, key);
                Some(record)
            }
            None => {
                self.behind.remove(&key);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and ends in whichever order: one of a key at a time, in order, none is forgotten, and lanes that
        /// are empty take no memory.
        #[test]
        fn one_of_a_key_at_a_time_and_in_order(
            keys in prop::collection::vec(0_u8..5, 1..60), picks in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut lanes = OrderingLanes::default();
            let (mut open, mut started) = (BTreeSet::new(), BTreeMap::<u8, Vec<i64>>::new());
            let (mut next, mut picks) = (0, picks.into_iter());
            while next < keys.len() || !open.is_empty() {
                let pick = picks.next().map_or(0, |pick| pick.index(4));
                let head = if next < keys.len() && (pick == 0 || open.is_empty()) {
                    let offset = i64::try_from(next).unwrap();
                    next += 1;
                    lanes.enter(&keys[next - 1].to_string().into(), offset, offset)
                } else {
                    let offset = *open.iter().nth(pick % open.len()).unwrap();
                    open.remove(&offset);
                    lanes.leave(offset)
                };
                if let Some(offset) = head {
                    let key = keys[usize::try_from(offset).unwrap()];
                    let same = open.iter().filter(|&&other| keys[usize::try_from(other).unwrap()] == key);
                    prop_assert_eq!(same.count(), 0, "two of key {}", key);
                    open.insert(offset);
                    started.entry(key).or_default().push(offset);
                }
            }
            prop_assert!(started.values().all(|offsets| offsets.is_sorted()));
            prop_assert_eq!(started.values().map(Vec::len).sum::<usize>(), keys.len());
            prop_assert!(lanes.heads.is_empty() && lanes.behind.is_empty());
        }
    }

    #[test]
    fn what_is_no_head_moves_nothing() {
        let mut lanes = OrderingLanes::default();
        let key = Arc::from("k");
        assert_eq!(lanes.enter(&key, 3, 'a'), Some('a'));
        assert_eq!(lanes.enter(&key, 4, 'b'), None);
        assert_eq!((lanes.leave(9), lanes.leave(4)), (None, None), "keyless, or not the head");
        assert_eq!((lanes.leave(3), lanes.leave(3)), (Some('b'), None));
    }
}
